//! `summary.md`: what a CI job shows on its summary page.

use std::fmt::Write;

use crate::judge::GOLD;

use super::format::{self, NONE};
use super::{GateReport, ReportData};

pub(crate) fn render(data: &ReportData) -> String {
    let mut out = String::new();
    let title = if data.suite.title.is_empty() { &data.suite.name } else { &data.suite.title };
    line(&mut out, format_args!("## {}: {}", text(&data.suite.name), text(title)));
    if let Some(gate) = &data.gate {
        let (symbol, word) = format::verdict(gate.verdict);
        line(&mut out, format_args!("\n**Gate: {symbol} {word}**"));
    }
    verdicts(&mut out, data);
    claims(&mut out, data);
    findings(&mut out, data);
    if let Some(gate) = &data.gate {
        gate_rows(&mut out, gate);
    }
    line(
        &mut out,
        format_args!(
            "\nSuite `{}`, in {} arithmetic. Everything behind these numbers is in `index.html` and the CSV files.",
            data.suite.digest.short(),
            data.suite.numerics.name()
        ),
    );
    out
}

fn verdicts(out: &mut String, data: &ReportData) {
    let gold = data.has_gold();
    let by_gold = if gold { " by gold |" } else { "" };
    let correction = data.conclusions.first().map_or("", |c| format::correction(&c.win_rate));
    let judge = format!("{}{correction}", text(&data.judge));
    line(
        out,
        format_args!("\n| variant | verdict | win rate by {judge} |{by_gold} implicit accuracy | KL a token | length ratio |"),
    );
    line(out, format_args!("|---|---|---|{}---|---|---|", if gold { "---|" } else { "" }));
    for c in &data.conclusions {
        let (symbol, word) = format::answer(c.answer);
        let show = |metric| data.headline(metric, &c.variant, None).map_or_else(|| NONE.to_owned(), format::estimate);
        let win_rate = format::estimate(&c.win_rate);
        let by_gold = c.gold_win_rate.as_ref().map_or_else(|| NONE.to_owned(), format::estimate);
        let by_gold = if gold { format!(" {by_gold} |") } else { String::new() };
        let measures = ["implicit_reward_accuracy", "kl_per_token", "length_ratio"].map(show).join(" | ");
        line(out, format_args!("| {} | {symbol} {word} | {win_rate} |{by_gold} {measures} |", text(&c.variant)));
    }
    if let Some(first) = data.conclusions.first() {
        let level = format::percent(first.win_rate.level);
        let truth = if gold { format!("; `{GOLD}` knows the truth") } else { String::new() };
        line(out, format_args!("\nAt the last checkpoint, pooled over seeds, with {level} intervals{truth}.\n"));
    }
    for c in &data.conclusions {
        line(out, format_args!("- {}", prose(&c.sentence)));
    }
}

fn claims(out: &mut String, data: &ReportData) {
    let Some(study) = data.study.as_ref().filter(|study| !study.claims.is_empty()) else { return };
    line(out, format_args!("\n### Claims\n\n| verdict | expected | found |\n|---|---|---|"));
    for c in &study.claims {
        let (symbol, word, _) = format::decision(c.decision);
        line(out, format_args!("| {symbol} {word} | {} | {} |", prose(&c.expected), prose(&c.found)));
    }
}

fn findings(out: &mut String, data: &ReportData) {
    if data.findings.is_empty() {
        line(out, format_args!("\nNo findings."));
        return;
    }
    line(
        out,
        format_args!("\n### Findings\n\n| severity | check | variant | what was seen | what to do |\n|---|---|---|---|---|"),
    );
    for f in &data.findings {
        let (symbol, word) = format::severity(f.severity);
        let (variant, message, hint) = (text(&f.variant), prose(&f.message), prose(&f.hint));
        line(out, format_args!("| {symbol} {word} | {} | {variant} | {message} | {hint} |", code(&f.id)));
    }
}

fn gate_rows(out: &mut String, gate: &GateReport) {
    line(out, format_args!("\n### Gate\n\nGolden {}: {}\n", code(format::shortened(&gate.golden)), text(&gate.golden_reason)));
    line(out, format_args!("| verdict | kind | name | golden | found | difference | message |\n|---|---|---|---|---|---|---|"));
    for r in &gate.rows {
        let (symbol, word) = format::verdict(r.verdict);
        let (kind, name, golden, found) =
            (text(&r.kind), text(&r.name), code(format::shortened(&r.golden)), code(format::shortened(&r.found)));
        let difference = super::gate_difference(r);
        line(
            out,
            format_args!("| {symbol} {word} | {kind} | {name} | {golden} | {found} | {difference} | {} |", prose(&r.message)),
        );
    }
}

fn line(out: &mut String, arguments: std::fmt::Arguments) {
    writeln!(out, "{arguments}").expect("a String takes all");
}

/// Text in which no character is markup any more, on one line.
fn text(raw: &str) -> String {
    let mut out = String::new();
    for c in format::visible_line(raw).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '|' | '#' | '~' | '!' | '$' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// A sentence that may quote with backticks.
fn prose(raw: &str) -> String {
    format::quoted(raw).into_iter().map(|(part, quoted)| if quoted { code(part) } else { text(part) }).collect()
}

/// Between backticks when nothing in it is markup, else escaped as text.
fn code(raw: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/:,+%() ".contains(c) || c == '−';
    if !raw.is_empty() && raw.chars().all(plain) { format!("`{raw}`") } else { text(raw) }
}
