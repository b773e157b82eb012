//! The plan: which cells a suite consists of, what each depends on, and its key.
//!
//! A key is the digest of everything that can change the cell's output, and of nothing else: the settings of its stage, the
//! keys of its inputs, the digests of the files it reads, and the engine's version. So keys are known before anything runs.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::data::template;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::estimates::sequential::{BLOCK, GoldenRule, Rule};
use crate::hub::Files;
use crate::judge::GOLD;
use crate::run::fit;
use crate::suite::Suite;
use crate::suite::settings::{
    Dataset, JudgeSettings, JudgeSource, ModelSource, PolicySource, RoundSettings, TrainSettings, Variant,
};

mod ids;
mod keys;

pub use ids::{evaluate_id, judge_id, judgments_id, probes_id, round_pairs_id, sequential_id, train_id, train_ids};
use keys::{data_settings, file_digest, folder_digests, rows_settings, without_adapter_path, without_paths};

/// Raised whenever the same settings would give other bytes: every finished cell is then made again.
pub(super) const ENGINE: u32 = 2;
/// Raised whenever evaluations measure more: trainings and judges are kept.
const MEASURES: u32 = 2;

#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// Prompts, demonstrations or pairs, and the tokenizer.
    Data,
    /// The policy that preference training starts from and is compared with: SFT, or a model as it is.
    Reference,
    /// Labelled pairs: for training, held out, for the judges and for measuring them.
    Pairs,
    /// A judge, trained or brought along, with its trials on held-out pairs.
    Judge {
        judge: String,
        /// Whether ONNX Runtime answers, for it or for a member of it.
        onnx: bool,
    },
    /// What a judge says of texts that no honest judge falls for.
    Probes { judge: String },
    /// Labelled pairs of what a policy writes after the round before this one, from 2.
    RoundPairs { variant: String, seed: u64, round: u64 },
    /// One round of a policy's training, from 1.
    Train { variant: String, seed: u64, round: u64 },
    /// Completions and pair log-probabilities of a policy at each of its checkpoints; `variant` none: the reference's own.
    Evaluate { variant: Option<String>, seed: Option<u64> },
    Judgments {
        judge: String,
        variant: String,
        seed: Option<u64>,
        /// The cell whose prompts are judged, where judging may stop early; none: all are.
        after: Option<String>,
    },
    /// What the deciding judge says of a variant under all its seeds, prompt by prompt until that is enough.
    Sequential { judge: String, variant: String, seeds: Vec<Option<u64>>, rule: Rule },
}

impl Stage {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Reference => "reference",
            Self::Pairs => "pairs",
            Self::Judge { .. } => "judge",
            Self::Probes { .. } => "probes",
            Self::RoundPairs { .. } => "round-pairs",
            Self::Train { .. } => "train",
            Self::Evaluate { .. } => "evaluate",
            Self::Judgments { .. } | Self::Sequential { .. } => "judgments",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Unique in the plan, readable: `train/dpo-b0.1/seed-1`.
    pub id: String,
    pub stage: Stage,
    /// Ids of the cells whose outputs it reads.
    pub inputs: Vec<String>,
    pub key: Digest,
}

/// Cells in an order in which each comes after its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub cells: Vec<Cell>,
}

impl Plan {
    pub fn cell(&self, id: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.id == id)
    }

    /// The cells that the named ones need, themselves included.
    pub fn restricted_to(&self, ids: &[String]) -> Plan {
        let mut wanted: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut cells = Vec::new();
        for cell in self.cells.iter().rev() {
            if wanted.contains(&cell.id.as_str()) {
                wanted.extend(cell.inputs.iter().map(String::as_str));
                cells.push(cell.clone());
            }
        }
        cells.reverse();
        Plan { cells }
    }

    /// The cells whose outputs rest on what a judge says, which passes through ONNX Runtime: the judges, their judgments, and whatever
    /// follows from pairs that a judge labelled.
    pub fn through_judges(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for cell in &self.cells {
            let reads = cell.inputs.iter().any(|id| found.contains(id.as_str()));
            if reads || matches!(cell.stage, Stage::Judge { onnx: true, .. }) {
                found.insert(cell.id.as_str());
            }
        }
        found
    }
}

/// The seeds under which a variant runs: those of the suite when it is trained here, none when it was trained elsewhere, and those of the
/// policy that it decodes; what is drawn from the reference is drawn under the suite's.
pub fn variant_seeds(suite: &Suite, variant: &Variant) -> Vec<Option<u64>> {
    let seeds = || suite.seeds.iter().copied().map(Some).collect();
    match &variant.policy {
        PolicySource::Train(_) | PolicySource::BestOfN(_) => seeds(),
        PolicySource::Checkpoint { .. } => vec![None],
        PolicySource::Decoded(decoded) => match decoded.of.as_ref().and_then(|of| suite.variant(of)) {
            Some(of) => variant_seeds(suite, of),
            // Nothing is drawn.
            None if decoded.is_greedy() => vec![None],
            None => seeds(),
        },
    }
}

/// The shortest `max_length` of the suite's trainings: what the audit counts truncation by.
pub fn shortest_max_length(suite: &Suite) -> Option<usize> {
    suite.variants.iter().filter_map(|variant| variant.training()?.max_length).min()
}

/// `runtime`: digest of the ONNX Runtime library, whose last bits differ between versions.
pub fn plan(suite: &Suite, runtime: Digest) -> Result<Plan> {
    planned(suite, runtime, None)
}

/// A plan whose judging may stop early: the deciding judge's cells stop when they know enough, and the other judges see the same prompts.
/// These cells have keys of their own; what judges answer is kept in their journals, so that a whole run asks for the rest alone.
///
/// `golden`: what a variant's golden run was judged, where the run is to be compared with it.
pub fn sequential_plan(suite: &Suite, runtime: Digest, golden: GoldenOf<'_>) -> Result<Plan> {
    if suite.statistics.labels.is_some() {
        return Err(Error::usage("--sequential can't stop on win rates that labels correct")
            .help("leave it out, or leave `labels` out of the suite's [statistics]"));
    }
    planned(suite, runtime, Some(golden))
}

fn planned(suite: &Suite, runtime: Digest, sequential: Option<GoldenOf<'_>>) -> Result<Plan> {
    fit::check(suite)?;
    let mut planner = Planner { suite, runtime, sequential, cells: Vec::new() };
    planner.shared_cells()?;
    let (panels, others): (Vec<_>, Vec<_>) = suite.judges.iter().partition(|j| matches!(j.source, JudgeSource::Panel(_)));
    for judge in others.iter().chain(&panels) {
        planner.judge_cell(judge)?;
    }
    planner.policy_cells()?;
    planner.probe_cells();
    planner.judgment_cells();
    Ok(Plan { cells: planner.cells })
}

/// What a variant's golden run was judged, by the variant's name.
pub type GoldenOf<'a> = &'a dyn Fn(&str) -> Option<GoldenRule>;

struct Planner<'a> {
    suite: &'a Suite,
    runtime: Digest,
    /// Where judging may stop early: what a variant is compared with.
    sequential: Option<GoldenOf<'a>>,
    cells: Vec<Cell>,
}

impl Planner<'_> {
    fn add(&mut self, id: String, stage: Stage, inputs: &[String], settings: Value) {
        let input_keys: Vec<Digest> = inputs
            .iter()
            .map(|id| self.cells.iter().find(|c| &c.id == id).map(|c| c.key).expect("inputs are planned before their readers"))
            .collect();
        let key = Digest::of_value(&json!({
            "engine": ENGINE, "stage": stage.name(), "settings": settings, "inputs": input_keys,
        }));
        self.cells.push(Cell { id, stage, inputs: inputs.to_vec(), key });
    }

    fn shared_cells(&mut self) -> Result<()> {
        let suite = self.suite;
        let files = match &suite.dataset {
            Dataset::World(_) => Value::Null,
            Dataset::Pairs(pairs) if pairs.sources.is_empty() => json!(file_digest(suite, &pairs.path)?),
            Dataset::Pairs(pairs) => {
                let digests = pairs.sources.iter().map(|source| file_digest(suite, &source.path));
                json!(digests.collect::<Result<Vec<Digest>>>()?)
            }
        };
        let model = match &suite.model {
            ModelSource::Fresh(_) => Value::Null,
            ModelSource::Folder { path } => folder_digests(suite, path, Files::Model)?,
        };
        let mut data = json!({"dataset": data_settings(&suite.dataset), "file": files, "seed": suite.seed, "model": model});
        if let (Dataset::Pairs(pairs), ModelSource::Folder { path }) = (&suite.dataset, &suite.model)
            && pairs.format.is_conversational()
        {
            let source = template::source(suite, pairs, &suite.locate(path))?;
            data["chat_template"] = json!(Digest::of_bytes(source.as_bytes()));
        }
        self.add("data".into(), Stage::Data, &[], data);
        let sft = suite
            .sft
            .as_ref()
            .map(|sft| without_adapter_path(suite, sft).map(|settings| json!({"train": settings, "numerics": suite.numerics})));
        let sft = sft.transpose()?;
        self.add(
            "reference".into(),
            Stage::Reference,
            &["data".into()],
            json!({"model": without_paths(&suite.model), "files": model, "seed": suite.seed,
                "sft": sft}),
        );
        // Pairs of a file are what they are; a world's are sampled by the reference.
        let numerics = matches!(suite.dataset, Dataset::World(_)).then_some(suite.numerics);
        self.add(
            "pairs".into(),
            Stage::Pairs,
            &["data".into(), "reference".into()],
            json!({"seed": suite.seed, "dataset": rows_settings(&suite.dataset), "max_new_tokens": suite.generate.max_new_tokens,
                "max_length": shortest_max_length(suite), "numerics": numerics}),
        );
        Ok(())
    }

    fn judge_cell(&mut self, judge: &JudgeSettings) -> Result<()> {
        let suite = self.suite;
        let runtime = judge.is_onnx().then_some(self.runtime);
        let (files, numerics) = match &judge.source {
            JudgeSource::Train(_) => (Value::Null, Some(suite.numerics)),
            JudgeSource::Folder { path } => (folder_digests(suite, path, Files::Judge)?, None),
            JudgeSource::Replay { path } => (json!(file_digest(suite, path)?), None),
            JudgeSource::Rubric { .. } | JudgeSource::Panel(_) => (Value::Null, None),
            JudgeSource::Implicit(implicit) => {
                let digests = |path: &Path| folder_digests(suite, path, Files::Policy);
                let reference = implicit.reference.as_ref().map(|folder| digests(&folder.path)).transpose()?;
                (json!([digests(&implicit.path)?, reference]), Some(suite.numerics))
            }
        };
        let mut settings = without_paths(judge);
        // Thresholds of the checks, and what is asked later: they change what is concluded, not what the judge says.
        for later in ["min_accuracy", "fitness"] {
            settings.as_object_mut().expect("settings are a struct").remove(later);
        }
        let mut inputs = vec!["reference".to_owned(), "pairs".into()];
        inputs.extend(panel_members(judge).iter().map(|member| judge_id(member)));
        self.add(
            judge_id(&judge.name),
            Stage::Judge { judge: judge.name.clone(), onnx: through_onnx(suite, &judge.name) },
            &inputs,
            json!({"judge": settings, "files": files, "seed": suite.seed, "runtime": runtime, "numerics": numerics}),
        );
        Ok(())
    }

    /// The cells that a cell reads in which a judge is asked. Members of a panel come with theirs.
    fn asking(&self, judge: &str) -> Vec<String> {
        let Some(settings) = judge_of(self.suite, judge) else { return Vec::new() };
        let mut inputs = vec![judge_id(judge)];
        if matches!(&settings.source, JudgeSource::Implicit(implicit) if implicit.reference.is_none()) {
            inputs.push("reference".into());
        }
        for member in panel_members(settings) {
            inputs.extend(self.asking(member).into_iter().filter(|id| id != "reference"));
        }
        let needs_reference = |member: &String| self.asking(member).iter().any(|id| id == "reference");
        if panel_members(settings).iter().any(needs_reference) {
            inputs.push("reference".into());
        }
        inputs
    }

    /// Probes of every judge that can be asked about new texts, and of gold where there is one: what the truth says of them.
    fn probe_cells(&mut self) {
        let suite = self.suite;
        let judges = suite.judges.iter().filter(|judge| judge.fitness.probes > 0 && can_be_probed(suite, judge));
        let mut judges: Vec<(&str, usize)> = judges.map(|judge| (judge.name.as_str(), judge.fitness.probes)).collect();
        // Panels last: their members' answers are in the journal then.
        judges.sort_by_key(|(name, _)| judge_of(suite, name).is_some_and(|j| !panel_members(j).is_empty()));
        let most = judges.iter().map(|(_, probes)| *probes).max();
        if let (Dataset::World(_), Some(most)) = (&suite.dataset, most) {
            judges.push((GOLD, most));
        }
        for (judge, probes) in judges {
            let mut inputs = vec![evaluate_id(None, None)];
            inputs.extend(self.asking(judge));
            if let Some(settings) = judge_of(suite, judge) {
                inputs.extend(panel_members(settings).iter().map(|member| probes_id(member)).filter(|id| self.plans(id)));
            }
            let stage = Stage::Probes { judge: judge.to_owned() };
            self.add(probes_id(judge), stage, &inputs, json!({"judge": judge, "probes": probes}));
        }
    }

    fn plans(&self, id: &str) -> bool {
        self.cells.iter().any(|cell| cell.id == id)
    }

    fn policy_cells(&mut self) -> Result<()> {
        let suite = self.suite;
        let shared = ["data".to_owned(), "reference".into(), "pairs".into()];
        for variant in &suite.variants {
            if let Some(settings) = variant.training() {
                for &seed in &suite.seeds {
                    self.training_cells(&variant.name, settings, seed)?;
                }
            }
        }
        let opposites = suite.checks.opposites.as_ref().map(|path| file_digest(suite, path)).transpose()?;
        let settings = json!({"generate": suite.generate, "seed": suite.seed, "numerics": suite.numerics, "measures": MEASURES});
        self.add(evaluate_id(None, None), Stage::Evaluate { variant: None, seed: None }, &shared, settings.clone());
        for variant in &suite.variants {
            for seed in variant_seeds(suite, variant) {
                let (inputs, policy) = self.policy(variant, seed)?;
                let scores_pairs = matches!(variant.policy, PolicySource::Train(_) | PolicySource::Checkpoint { .. });
                let opposites = opposites.filter(|_| scores_pairs);
                self.add(
                    evaluate_id(Some(&variant.name), seed),
                    Stage::Evaluate { variant: Some(variant.name.clone()), seed },
                    &inputs,
                    json!({"evaluate": settings, "policy": policy, "name": variant.name, "opposites": opposites}),
                );
            }
        }
        Ok(())
    }

    /// The cells that a policy's evaluation reads, and what else it depends on.
    fn policy(&self, variant: &Variant, seed: Option<u64>) -> Result<(Vec<String>, Value)> {
        let mut inputs = vec!["data".to_owned(), "reference".into(), "pairs".into()];
        let own = match &variant.policy {
            PolicySource::Checkpoint { path, beta } => {
                json!({"files": folder_digests(self.suite, path, Files::Policy)?, "beta": beta})
            }
            PolicySource::Train(settings) => {
                inputs.extend(train_ids(&variant.name, settings, seed.expect("a trained variant has a seed")));
                Value::Null
            }
            PolicySource::Decoded(decoded) => {
                let mut own = json!({"temperature": decoded.temperature, "top_p": decoded.top_p, "top_k": decoded.top_k});
                match decoded.of.as_ref().and_then(|of| self.suite.variant(of)) {
                    Some(of) => (inputs, own["of"]) = self.policy(of, seed)?,
                    None => own["seed"] = json!(seed),
                }
                // It scores no pairs.
                inputs.retain(|id| id != "pairs");
                own
            }
            PolicySource::BestOfN(best) => {
                inputs.pop();
                if best.reward_model != GOLD {
                    inputs.push(judge_id(&best.reward_model));
                }
                json!({"best_of_n": best.best_of_n, "reward_model": best.reward_model, "seed": seed})
            }
        };
        Ok((inputs, own))
    }

    /// How many rounds there are is part of no key: a round more leaves those before it as they are.
    fn training_cells(&mut self, variant: &str, settings: &TrainSettings, seed: u64) -> Result<()> {
        let suite = self.suite;
        let training = without_adapter_path(suite, &settings.of_one_round(None))?;
        let mut own = json!({"train": training, "seed": seed, "name": variant, "numerics": suite.numerics});
        let mut inputs = vec!["reference".to_owned(), "pairs".into()];
        if let Some(online) = &settings.online {
            own["max_new_tokens"] = json!(suite.generate.max_new_tokens);
            if let Dataset::World(_) = suite.dataset {
                inputs.push("data".into());
            }
            if online.reward_model != GOLD {
                inputs.push(judge_id(&online.reward_model));
            }
        }
        let stage = Stage::Train { variant: variant.to_owned(), seed, round: 1 };
        self.add(train_id(variant, seed, 1), stage, &inputs, own.clone());
        let Some(rounds) = &settings.rounds else { return Ok(()) };
        for round in 2..=rounds.rounds {
            let (pairs, before) = (round_pairs_id(variant, seed, round), train_id(variant, seed, round - 1));
            self.round_pairs_cell(variant, settings, rounds, seed, round);
            let mut own = own.clone();
            own["round"] = json!({"number": round, "reference": rounds.reference});
            self.add(
                train_id(variant, seed, round),
                Stage::Train { variant: variant.to_owned(), seed, round },
                &["reference".into(), "pairs".into(), pairs, before],
                own,
            );
        }
        Ok(())
    }

    fn round_pairs_cell(&mut self, variant: &str, training: &TrainSettings, rounds: &RoundSettings, seed: u64, round: u64) {
        let suite = self.suite;
        let mut inputs = vec!["reference".to_owned(), train_id(variant, seed, round - 1)];
        let labels = match &suite.dataset {
            Dataset::World(world) => {
                inputs.push("data".into());
                (rounds.judge == GOLD).then(|| json!({"temperature": world.label_temperature, "noise": world.label_noise}))
            }
            Dataset::Pairs(_) => {
                inputs.push("pairs".into());
                None
            }
        };
        for id in self.asking(&rounds.judge) {
            if !inputs.contains(&id) {
                inputs.push(id);
            }
        }
        self.add(
            round_pairs_id(variant, seed, round),
            Stage::RoundPairs { variant: variant.to_owned(), seed, round },
            &inputs,
            json!({"seed": seed, "round": round, "judge": rounds.judge, "labels": labels, "samples_per_prompt": rounds.samples_per_prompt,
                "pairs_per_prompt": rounds.pairs_per_prompt, "max_new_tokens": suite.generate.max_new_tokens,
                "max_length": training.max_length, "numerics": suite.numerics}),
        );
    }

    fn judgment_cells(&mut self) {
        let suite = self.suite;
        let (panels, others): (Vec<_>, Vec<_>) = suite.judges.iter().partition(|judge| !panel_members(judge).is_empty());
        let mut judges: Vec<String> = others.into_iter().chain(panels).map(|j| j.name.clone()).collect();
        if matches!(suite.dataset, Dataset::World(_)) {
            judges.push(GOLD.into());
        }
        if let Some(golden) = self.sequential {
            let deciding = &suite.compare.judge;
            suite.variants.iter().for_each(|variant| self.sequential_cell(deciding, variant, golden(&variant.name)));
            judges.retain(|judge| judge != deciding);
        }
        for judge in judges {
            for variant in &suite.variants {
                let after = self.sequential.map(|_| sequential_id(&suite.compare.judge, &variant.name));
                for seed in variant_seeds(suite, variant) {
                    let mut inputs = vec![evaluate_id(None, None), evaluate_id(Some(&variant.name), seed)];
                    inputs.extend(self.asking(&judge));
                    let members = judge_of(suite, &judge).map(panel_members).unwrap_or_default();
                    let of_member = |member: &String| judgments_id(member, &variant.name, seed);
                    inputs.extend(members.iter().map(of_member).filter(|id| self.plans(id)));
                    inputs.extend(after.clone());
                    self.add(
                        judgments_id(&judge, &variant.name, seed),
                        Stage::Judgments { judge: judge.clone(), variant: variant.name.clone(), seed, after: after.clone() },
                        &inputs,
                        json!({"judge": judge}),
                    );
                }
            }
        }
    }

    fn sequential_cell(&mut self, judge: &str, variant: &Variant, golden: Option<GoldenRule>) {
        let seeds = variant_seeds(self.suite, variant);
        let mut inputs = vec![evaluate_id(None, None)];
        inputs.extend(seeds.iter().map(|seed| evaluate_id(Some(&variant.name), *seed)));
        inputs.extend(self.asking(judge));
        let rule = Rule { level: self.suite.statistics.level, golden };
        let settings = json!({"judge": judge, "rule": rule, "block": BLOCK, "seed": self.suite.seed});
        let stage = Stage::Sequential { judge: judge.to_owned(), variant: variant.name.clone(), seeds, rule };
        self.add(sequential_id(judge, &variant.name), stage, &inputs, settings);
    }
}

fn judge_of<'a>(suite: &'a Suite, name: &str) -> Option<&'a JudgeSettings> {
    suite.judges.iter().find(|judge| judge.name == name)
}

/// The judges that a panel asks; none of any other judge.
pub fn panel_members(judge: &JudgeSettings) -> &[String] {
    match &judge.source {
        JudgeSource::Panel(panel) => &panel.members,
        _ => &[],
    }
}

/// Whether ONNX Runtime answers for a judge, or for a member of it.
pub fn through_onnx(suite: &Suite, judge: &str) -> bool {
    judge_of(suite, judge).is_some_and(|j| j.is_onnx() || panel_members(j).iter().any(|member| through_onnx(suite, member)))
}

/// Whether a judge has an opinion on texts that it never saw.
fn can_be_probed(suite: &Suite, judge: &JudgeSettings) -> bool {
    let replays = |judge: &JudgeSettings| matches!(judge.source, JudgeSource::Replay { .. });
    !replays(judge) && !panel_members(judge).iter().filter_map(|member| judge_of(suite, member)).any(replays)
}

#[cfg(test)]
mod tests;
