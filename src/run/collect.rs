//! From the rows of finished cells to `ReportData`: summarise, inspect, conclude.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use crate::checks::{self, Inspected};
use crate::data::AuditItem;
use crate::data::files::read_jsonl;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::estimates::judges::{self, Scheme};
use crate::estimates::sequential::{self, Stopped};
use crate::estimates::summary::{self, Evidence};
use crate::generate::REFERENCE;
use crate::model::Adapter;
use crate::report::{CellRow, Decoding, Fact, Labelled, ReportData, SCHEMA, SuiteInfo, VariantInfo};
use crate::rlhf::ONLINE_LOG;
use crate::run::labels;
use crate::run::plan::{self, Plan, Stage};
use crate::run::stages::{
    JUDGE_FOLDER, OPPOSITE_SCORES, PAIR_SCORES, PROBES, ROUND_AUDIT, SIMILARITIES, STOPPED, TRAIN_SCORES, checkpoints_of,
};
use crate::store::{Receipt, Store};
use crate::suite::Suite;
use crate::suite::settings::{Dataset, GenerateSettings, PolicySource, TrainSettings, Variant};
use crate::train::EVAL_LOG;
use crate::train::chain::{Abridged, Link};

pub fn collect(
    suite: &Suite,
    plan: &Plan,
    store: &Store,
    receipts: &BTreeMap<String, Receipt>,
    versions: Vec<Fact>,
) -> Result<ReportData> {
    let collector = Collector { store, plan, receipts };
    let mut audit: Vec<AuditItem> = collector.rows("audit.jsonl")?;
    audit.extend(collector.round_audit()?);
    let completions = collector.rows("completions.jsonl")?;
    let judgments = collector.rows("judgments.jsonl")?;
    let pair_scores = collector.rows(PAIR_SCORES)?;
    let train_scores = collector.rows(TRAIN_SCORES)?;
    let opposite_scores = collector.rows(OPPOSITE_SCORES)?;
    let similarities = collector.rows(SIMILARITIES)?;
    let judge_trials = collector.rows("trials.jsonl")?;
    let judge_probes = collector.rows(PROBES)?;
    let evidence = Evidence {
        completions: &completions,
        judgments: &judgments,
        pair_scores: &pair_scores,
        train_scores: &train_scores,
        opposite_scores: &opposite_scores,
        similarities: &similarities,
        judge_trials: &judge_trials,
        judge_probes: &judge_probes,
    };
    let mut estimates = summary::summarise(&evidence, suite.statistics.level);
    estimates.extend(judges::estimates(&evidence, &scheme(suite)));
    let sequential: Vec<Stopped> = collector.rows(STOPPED)?;
    if !sequential.is_empty() {
        sequential::make_anytime(&mut estimates, &judgments);
    }
    let Inspected { mut findings, checks, humps } = checks::inspect(suite, &evidence, &estimates, &audit);
    findings.extend(checks::stopped(&sequential));
    let online_log = collector.rows(ONLINE_LOG)?;
    let study = checks::study(suite, &evidence, &online_log);
    let conclusions = checks::conclude(suite, &estimates);
    let labelled = judges::labelled(&evidence, &scheme(suite))
        .map(|(judge, prompts)| Labelled { judge: judge.to_owned(), prompts: prompts.into_iter().map(str::to_owned).collect() });
    let variants = suite.variants.iter().map(|v| collector.variant(suite, v)).collect::<Result<_>>()?;
    Ok(ReportData {
        schema: SCHEMA,
        suite: SuiteInfo {
            name: suite.name.clone(),
            title: suite.title.clone(),
            description: suite.description.clone(),
            digest: suite.digest(),
            numerics: suite.numerics,
            variants,
        },
        judge: suite.compare.judge.clone(),
        conclusions,
        estimates,
        findings,
        checks,
        humps,
        study,
        audit: if matches!(suite.dataset, Dataset::Pairs(_)) { audit } else { Vec::new() },
        decodings: decodings(suite),
        gate: None,
        gate_settings: suite.gate.clone(),
        cells: collector.cells()?,
        provenance: collector.provenance(suite, versions)?,
        train_log: collector.rows("train_log.jsonl")?,
        online_log,
        eval_log: collector.rows(EVAL_LOG)?,
        chains: collector.chains()?,
        judged: collector.judged(),
        pair_scores,
        train_scores,
        opposite_scores,
        similarities,
        completions,
        judgments,
        judge_trials,
        judge_probes,
        labelled,
        sequential,
        samples_shown: suite.report.samples,
    })
}

/// Policies that are also decoded at other temperatures, all else alike.
fn decodings(suite: &Suite) -> Vec<Decoding> {
    let usual = &suite.generate;
    let mut found: Vec<Decoding> = Vec::new();
    for variant in &suite.variants {
        let PolicySource::Decoded(decoded) = &variant.policy else { continue };
        let otherwise_alike = decoded.over(usual) == GenerateSettings { temperature: decoded.temperature, ..usual.clone() };
        if !otherwise_alike && !decoded.is_greedy() {
            continue;
        }
        let policy = decoded.of.clone().unwrap_or_else(|| REFERENCE.to_owned());
        if decoded.of.is_some() && !found.iter().any(|d| d.variant == policy) {
            found.push(Decoding { policy: policy.clone(), temperature: usual.temperature, variant: policy.clone() });
        }
        found.push(Decoding { policy, temperature: decoded.temperature, variant: variant.name.clone() });
    }
    found
}

/// What the suite says about its judges.
fn scheme(suite: &Suite) -> Scheme<'_> {
    let panels = suite.judges.iter().map(|judge| (judge.name.as_str(), plan::panel_members(judge)));
    Scheme {
        level: suite.statistics.level,
        seed: suite.seed,
        panels: panels.filter(|(_, members)| !members.is_empty()).collect(),
        labels: suite.statistics.labels.as_ref().map(|labels| (labels.judge.as_str(), labels.share)),
    }
}

struct Collector<'a> {
    store: &'a Store,
    plan: &'a Plan,
    receipts: &'a BTreeMap<String, Receipt>,
}

impl Collector<'_> {
    fn receipt(&self, id: &str) -> Result<&Receipt> {
        self.receipts.get(id).ok_or_else(|| {
            Error::new(Kind::Incomplete, format!("cell `{id}` isn't finished"))
                .help("run the suite again; finished cells are kept")
        })
    }

    /// The rows of every cell that has a file of that name, in plan order.
    fn rows<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        for cell in &self.plan.cells {
            let receipt = self.receipt(&cell.id)?;
            if receipt.outputs.contains_key(name) {
                rows.extend(read_jsonl::<T>(&self.store.output(receipt, name)?)?);
            }
        }
        Ok(rows)
    }

    fn chains(&self) -> Result<BTreeMap<String, Abridged>> {
        let mut chains = BTreeMap::new();
        for cell in &self.plan.cells {
            let receipt = self.receipt(&cell.id)?;
            if let Some(name) = receipt.chain() {
                let links: Vec<Link> = read_jsonl(&self.store.output(receipt, name)?)?;
                chains.extend(Abridged::of(&links).map(|chain| (cell.id.clone(), chain)));
            }
        }
        Ok(chains)
    }

    /// The audits of a variant's later rounds as one: counts add up over its seeds and rounds.
    fn round_audit(&self) -> Result<Vec<AuditItem>> {
        let mut sums: Vec<(&str, AuditItem)> = Vec::new();
        for cell in &self.plan.cells {
            let Stage::RoundPairs { variant, .. } = &cell.stage else { continue };
            let place = cell.id.strip_prefix("pairs/").unwrap_or(&cell.id);
            for mut item in read_jsonl::<AuditItem>(&self.store.output(self.receipt(&cell.id)?, ROUND_AUDIT)?)? {
                item.message = format!("{place}: {}", item.message);
                match sums.iter_mut().find(|(of, sum)| of == variant && sum.id == item.id) {
                    None => sums.push((variant, item)),
                    Some((_, sum)) => {
                        if sum.count == 0 {
                            sum.message = item.message;
                        }
                        (sum.count, sum.total) = (sum.count + item.count, sum.total + item.total);
                    }
                }
            }
        }
        let told = |(variant, item): (&str, AuditItem)| {
            let message = format!("later rounds of `{variant}`: {} of {}, first in {}", item.count, item.total, item.message);
            AuditItem { message, ..item }
        };
        Ok(sums.into_iter().map(told).collect())
    }

    /// The cells beside the judges' own whose bits rest on what a judge said.
    fn judged(&self) -> BTreeSet<String> {
        let through = self.plan.through_judges();
        let own = |cell: &&plan::Cell| {
            matches!(cell.stage, Stage::Judge { .. } | Stage::Probes { .. } | Stage::Judgments { .. } | Stage::Sequential { .. })
        };
        self.plan.cells.iter().filter(|c| !own(c) && through.contains(c.id.as_str())).map(|c| c.id.clone()).collect()
    }

    fn cells(&self) -> Result<Vec<CellRow>> {
        let row = |cell: &plan::Cell| {
            let receipt = self.receipt(&cell.id)?;
            Ok(CellRow { id: cell.id.clone(), stage: cell.stage.name().into(), key: cell.key, output: receipt.output_digest() })
        };
        self.plan.cells.iter().map(row).collect()
    }

    fn variant(&self, suite: &Suite, variant: &Variant) -> Result<VariantInfo> {
        let seeds = plan::variant_seeds(suite, variant).into_iter().flatten().collect();
        let checkpoints = match &variant.policy {
            PolicySource::Train(settings) => {
                let of_first = self.checkpoints(&plan::train_ids(&variant.name, settings, suite.seeds[0]))?;
                of_first.into_iter().map(|(step, _)| step).collect()
            }
            PolicySource::Checkpoint { .. } => vec![0],
            PolicySource::Decoded(decoded) => match decoded.of.as_ref().and_then(|of| suite.variant(of)) {
                Some(of) => self.variant(suite, of)?.checkpoints.pop().into_iter().collect(),
                None => vec![0],
            },
            PolicySource::BestOfN(best) => best.best_of_n.clone(),
        };
        let best_of_n = matches!(variant.policy, PolicySource::BestOfN(_));
        Ok(VariantInfo { name: variant.name.clone(), label: labels::label(variant), seeds, checkpoints, best_of_n })
    }

    /// The checkpoints of a training whose rounds are these cells.
    fn checkpoints(&self, rounds: &[String]) -> Result<Vec<(u64, PathBuf)>> {
        let folders = rounds.iter().map(|id| Ok(self.store.folder(self.receipt(id)?.key))).collect::<Result<Vec<_>>>()?;
        checkpoints_of(&folders)
    }

    /// Digests of what the claims rest on, then the versions given.
    fn provenance(&self, suite: &Suite, versions: Vec<Fact>) -> Result<Vec<Fact>> {
        let fact = |name: &str, value: String| Fact { name: name.into(), value };
        let digest_of =
            |cell: &str, file: &str| -> Result<Option<Digest>> { Ok(self.receipt(cell)?.outputs.get(file).map(|o| o.digest)) };
        let mut facts = vec![fact("suite", suite.digest().to_string())];
        let mut add = |name: String, digest: Option<Digest>| facts.extend(digest.map(|d| fact(&name, d.to_string())));
        add("tokenizer.json".into(), digest_of("reference", "tokenizer.json")?);
        add("reference model.safetensors".into(), digest_of("reference", "model.safetensors")?);
        for judge in &suite.judges {
            add(
                format!("judge {} model.onnx", judge.name),
                digest_of(&plan::judge_id(&judge.name), &format!("{JUDGE_FOLDER}/model.onnx"))?,
            );
        }
        for (variant, settings) in trained(suite) {
            for &seed in &suite.seeds {
                let mut step = 0;
                for cell in plan::train_ids(variant, settings, seed) {
                    let last = self.checkpoints(std::slice::from_ref(&cell))?.pop().map_or(0, |(last, _)| last);
                    step += last;
                    for file in ["model.safetensors", Adapter::WEIGHTS] {
                        let digest = digest_of(&cell, &format!("checkpoint-{last}/{file}"))?;
                        add(format!("{variant} seed {seed} step {step} {file}"), digest);
                    }
                }
            }
        }
        for (variant, settings) in trained(suite) {
            let o = &settings.objective;
            let losses: Vec<String> = o.loss_type.iter().map(|loss| loss.name()).collect();
            let value = format!("{}, dialect {}", losses.join(" + "), o.dialect.name());
            facts.push(fact(&format!("{variant} loss_type"), value));
            if let Some(r) = &settings.rounds {
                let value = format!("{}, labelled by {}, reference: {}", r.rounds, r.judge, r.reference.name());
                facts.push(fact(&format!("{variant} rounds"), value));
            }
        }
        for variant in &suite.variants {
            match &variant.policy {
                PolicySource::Decoded(_) => facts.push(fact(&format!("{} policy", variant.name), labels::label(variant))),
                PolicySource::BestOfN(best) => {
                    let counts: Vec<String> = best.best_of_n.iter().map(u64::to_string).collect();
                    let value = format!("{} by {}", counts.join(", "), best.reward_model);
                    facts.push(fact(&format!("{} best_of_n", variant.name), value));
                }
                PolicySource::Train(_) | PolicySource::Checkpoint { .. } => {}
            }
        }
        facts.extend(versions);
        Ok(facts)
    }
}

/// The variants that are trained here.
fn trained(suite: &Suite) -> impl Iterator<Item = (&str, &TrainSettings)> {
    suite.variants.iter().filter_map(|variant| Some((variant.name.as_str(), variant.training()?)))
}
