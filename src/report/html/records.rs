//! What stands at the end: findings, gate, methods, provenance, files.

use minijinja::Value;
use serde::Serialize;

use super::super::columns::TABLES;
use super::super::metrics::METRICS;
use super::super::{GateReport, ReportData, Verdict, format};

#[derive(Serialize)]
pub(super) struct Section {
    findings: Vec<FindingView>,
    audit: Vec<AuditView>,
    gate: Option<GateView>,
    methods: Vec<Method>,
    facts: Vec<(String, String)>,
    cells: Vec<CellView>,
    files: Vec<(&'static str, &'static str)>,
}

#[derive(Serialize)]
struct FindingView {
    symbol: &'static str,
    word: &'static str,
    id: String,
    place: String,
    message: Value,
    evidence: String,
    hint: Value,
    /// Of the checks O1 to O14, or empty.
    check: String,
    claim: Value,
}

/// A count of the data audit.
#[derive(Serialize)]
struct AuditView {
    id: String,
    count: u64,
    share: String,
    message: Value,
}

#[derive(Serialize)]
struct GateView {
    symbol: &'static str,
    word: &'static str,
    counts: String,
    golden: String,
    reason: String,
    /// Win rates and what doesn't pass; the rest is folded away.
    rows: Vec<GateRowView>,
    quiet: Vec<GateRowView>,
}

#[derive(Serialize)]
struct GateRowView {
    symbol: &'static str,
    word: &'static str,
    kind: String,
    name: String,
    golden: String,
    found: String,
    difference: String,
    message: Value,
}

#[derive(Serialize)]
struct Method {
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    about: &'static str,
    method: String,
}

#[derive(Serialize)]
struct CellView {
    id: String,
    stage: String,
    key: String,
    output: String,
}

pub(super) fn section(data: &ReportData) -> Section {
    let cell = |c: &super::super::CellRow| CellView {
        id: c.id.clone(),
        stage: c.stage.clone(),
        key: c.key.to_string(),
        output: c.output.to_string(),
    };
    Section {
        findings: findings(data),
        audit: data.audit.iter().map(audit).collect(),
        gate: data.gate.as_ref().map(gate),
        methods: methods(data),
        facts: data.provenance.iter().map(|f| (f.name.clone(), f.value.clone())).collect(),
        cells: data.cells.iter().map(cell).collect(),
        files: TABLES.iter().map(|t| (t.file, t.about)).collect(),
    }
}

fn audit(item: &crate::data::AuditItem) -> AuditView {
    // Lengths are about all of what they count.
    let share = if item.id.ends_with("-length") { String::new() } else { format::percent(item.share()) };
    AuditView { id: item.id.clone(), count: item.count, share, message: super::prose(&item.message) }
}

/// The gravest first, else in their order.
fn findings(data: &ReportData) -> Vec<FindingView> {
    let mut sorted: Vec<_> = data.findings.iter().collect();
    sorted.sort_by_key(|f| std::cmp::Reverse(f.severity));
    let view = |f: &crate::checks::Finding| {
        let (symbol, word) = format::severity(f.severity);
        let variant = Some(f.variant.clone()).filter(|v| !v.is_empty());
        let step = f.checkpoint.map(|c| data.place(&f.variant, c));
        let seed = f.seed.map(|s| format!("seed {s}"));
        FindingView {
            symbol,
            word,
            id: f.id.clone(),
            place: [variant, step, seed].into_iter().flatten().collect::<Vec<_>>().join(", "),
            message: super::prose(&f.message),
            evidence: f.evidence.clone(),
            hint: super::prose(&f.hint),
            check: f.check.clone(),
            claim: super::prose(&f.claim),
        }
    };
    sorted.into_iter().map(view).collect()
}

/// `12 pass, 1 inconclusive`.
pub(super) fn gate_counts(gate: &GateReport) -> String {
    let verdicts = [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive];
    let counted = verdicts.map(|v| (gate.rows.iter().filter(|r| r.verdict == v).count(), format::verdict(v).1));
    counted.iter().filter(|c| c.0 > 0).map(|(n, word)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
}

fn gate(gate: &GateReport) -> GateView {
    let (symbol, word) = format::verdict(gate.verdict);
    let row = |r: &super::super::GateRow| {
        let (symbol, word) = format::verdict(r.verdict);
        GateRowView {
            symbol,
            word,
            kind: r.kind.clone(),
            name: r.name.clone(),
            golden: r.golden.clone(),
            found: r.found.clone(),
            difference: super::super::gate_difference(r),
            message: super::prose(&r.message),
        }
    };
    GateView {
        symbol,
        word,
        counts: gate_counts(gate),
        golden: gate.golden.clone(),
        reason: gate.golden_reason.clone(),
        rows: gate.rows.iter().filter(|r| r.is_worth_a_line()).map(row).collect(),
        quiet: gate.rows.iter().filter(|r| !r.is_worth_a_line()).map(row).collect(),
    }
}

/// The metrics of this report with the methods that its estimates name.
fn methods(data: &ReportData) -> Vec<Method> {
    let method = |m: &super::super::metrics::Metric| {
        let mut used: Vec<&str> = Vec::new();
        for e in data.estimates.iter().filter(|e| e.metric == m.name) {
            if !used.contains(&e.method.as_str()) {
                used.push(&e.method);
            }
        }
        let method = Method { name: m.name, label: m.label, unit: m.unit, about: m.about, method: used.join("; ") };
        (!used.is_empty()).then_some(method)
    };
    METRICS.iter().filter_map(method).collect()
}
