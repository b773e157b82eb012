//! What each kind of cell does. A body reads its inputs' files, writes its outputs into its scratch folder, and names them.

use std::path::{Path, PathBuf};

use crate::data::files::{read_jsonl, write_jsonl};
use crate::data::tokenize::TextTokenizer;
use crate::data::{Prompt, world};
use crate::error::{Error, Result};
use crate::generate::{self, Completion, MeasuredPolicy, REFERENCE, Sampled};
use crate::model::Llama;
use crate::run::execute::Context;
use crate::run::plan::{self, Cell, Stage};
use crate::suite::Suite;
use crate::suite::settings::{Dataset, JudgeSource, Numerics, PolicySource, Variant};
use crate::train::{self, PairScore, ScoreCache, ScoredPolicy};

mod data;
mod judging;
mod rounds;
mod training;

/// The cell of the pairs that every variant begins with.
const PAIRS: &str = "pairs";

/// Where a judge stands among its cell's outputs.
pub use crate::judge::train::FOLDER as JUDGE_FOLDER;
pub use judging::{PROBES, STOPPED, cells_of_judge, use_judge};
pub use rounds::ROUND_AUDIT;

pub fn run_cell(suite: &Suite, cell: &Cell, context: &Context<'_>) -> Result<Vec<String>> {
    let cache = ScoreCache::new(context.store, plan::ENGINE);
    run_body(&Body { suite, context, cache: Some(cache) }, cell)
}

fn run_body(body: &Body<'_>, cell: &Cell) -> Result<Vec<String>> {
    match &cell.stage {
        Stage::Data => body.data(),
        Stage::Reference => body.reference(),
        Stage::Pairs => body.pairs(),
        Stage::Judge { judge, .. } => body.judge(judge),
        Stage::Probes { judge } => body.probes(judge),
        Stage::RoundPairs { variant, seed, round } => body.round_pairs(variant, *seed, *round),
        Stage::Train { variant, seed, round } => body.train(variant, *seed, *round),
        Stage::Evaluate { variant: None, .. } => body.evaluate_reference(),
        Stage::Evaluate { variant: Some(variant), seed } => body.evaluate(variant, *seed),
        Stage::Judgments { judge, variant, seed, after } => body.judgments(judge, variant, *seed, after.as_deref()),
        Stage::Sequential { judge, variant, seeds, rule } => body.sequential(judge, variant, seeds, rule),
    }
}

/// `run_cell` as far as our own arithmetic goes: of a judge its training alone, without the export and what ONNX Runtime says, and of
/// pairs that a judge labels the texts alone. What the reference said before isn't taken from the store: it is part of what is repeated.
pub fn repeat_cell(suite: &Suite, cell: &Cell, context: &Context<'_>) -> Result<Vec<String>> {
    let body = Body { suite, context, cache: None };
    match &cell.stage {
        Stage::Judge { judge, onnx: true } => body.judge_training(judge),
        Stage::RoundPairs { variant, seed, round } => body.round_pairs_repeated(variant, *seed, *round),
        _ => run_body(&body, cell),
    }
}

/// Whether `repeat_cell` can do any of the cell's work: not where ONNX Runtime does all of it.
pub fn is_repeatable(suite: &Suite, stage: &Stage) -> bool {
    match stage {
        Stage::Judge { judge, onnx: true } => {
            suite.judges.iter().any(|j| &j.name == judge && matches!(j.source, JudgeSource::Train(_)))
        }
        Stage::Judgments { judge, .. } | Stage::Probes { judge } => !plan::through_onnx(suite, judge),
        // What it stopped at rests on the golden of its time.
        Stage::Sequential { .. } => false,
        _ => true,
    }
}

struct Body<'a> {
    suite: &'a Suite,
    context: &'a Context<'a>,
    /// None: the reference and the judges are asked anew.
    cache: Option<ScoreCache<'a>>,
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

impl Body<'_> {
    fn work(&self) -> &Path {
        &self.context.work
    }
    /// Policies, reference and judges share one tokenizer: that of the reference's folder.
    fn tokenizer(&self) -> Result<TextTokenizer> {
        Ok(TextTokenizer::load(&self.context.folder("reference")?)?.for_texts(self.suite.dataset.is_conversational()))
    }

    /// A model that computes as the suite says.
    fn load(&self, folder: &Path) -> Result<Llama> {
        Ok(Llama::load(folder)?.with_numerics(self.suite.numerics))
    }

    /// A model, or an adapter over the base, merged: it is the merged policy that is evaluated.
    fn load_policy(&self, folder: &Path, base: &Llama) -> Result<Llama> {
        let strict = || Ok(base.clone().with_numerics(Numerics::Strict));
        Ok(Llama::load_policy(folder, strict)?.with_numerics(self.suite.numerics))
    }

    fn reference_model(&self) -> Result<Llama> {
        self.load(&self.context.folder("reference")?)
    }

    fn variant(&self, name: &str) -> Result<&Variant> {
        let found = self.suite.variants.iter().find(|v| v.name == name);
        found.ok_or_else(|| Error::unexpected(format!("the suite has no variant `{name}`")))
    }

    fn evaluation_samples(&self, model: &Llama, tokenizer: &TextTokenizer, purpose: &str) -> Result<Vec<Sampled>> {
        let prompts: Vec<Prompt> = read_jsonl(&self.context.file("data", "eval_prompts.jsonl")?)?;
        generate::sample(model, tokenizer, &prompts, &self.suite.generate, self.suite.seed, purpose, self.context.watch)
    }

    fn evaluate_reference(&self) -> Result<Vec<String>> {
        let (reference, tokenizer) = (self.reference_model()?, self.tokenizer()?);
        let samples = self.evaluation_samples(&reference, &tokenizer, "evaluate/reference")?;
        let of = MeasuredPolicy { variant: REFERENCE, seed: None, checkpoint: 0 };
        let rows = generate::measure(&of, &reference, &reference, &samples, self.gold(), self.context.watch)?;
        write_jsonl(&self.work().join("completions.jsonl"), &rows)?;
        Ok(names(&["completions.jsonl"]))
    }

    /// Samples of every policy and checkpoint share one purpose: the same random numbers pair them.
    fn evaluate(&self, name: &str, seed: Option<u64>) -> Result<Vec<String>> {
        let (reference, tokenizer) = (self.reference_model()?, self.tokenizer()?);
        // Single completions have no margin: there is nothing to score.
        let heldout = match self.suite.dataset.has_pairs() {
            true => self.tokenized_pairs(PAIRS, "heldout.jsonl", &tokenizer)?,
            false => Vec::new(),
        };
        let (mut completions, mut scores) = (Vec::<Completion>::new(), Vec::<PairScore>::new());
        // Held-out pairs are cut as the training pairs are, and never longer than the model reads.
        let context = reference.config.max_position_embeddings;
        let max_length = match &self.variant(name)?.policy {
            PolicySource::Train(settings) => settings.max_length.map_or(context, |m| m.min(context)),
            PolicySource::Checkpoint { .. } => context,
        };
        for (checkpoint, policy, beta) in self.policies(name, seed, &reference)? {
            let samples = self.evaluation_samples(&policy, &tokenizer, "evaluate/policy")?;
            let of = MeasuredPolicy { variant: name, seed, checkpoint };
            completions.extend(generate::measure(&of, &policy, &reference, &samples, self.gold(), self.context.watch)?);
            let of = ScoredPolicy { variant: name, seed, checkpoint, beta };
            scores.extend(train::pair_scores(
                &of,
                &policy,
                &reference,
                &heldout,
                Some(max_length),
                self.cache.as_ref(),
                self.context.watch,
            )?);
        }
        write_jsonl(&self.work().join("completions.jsonl"), &completions)?;
        write_jsonl(&self.work().join("pair_scores.jsonl"), &scores)?;
        Ok(names(&["completions.jsonl", "pair_scores.jsonl"]))
    }

    /// The policy of a variant at each of its checkpoints, with the β of its implicit reward.
    fn policies(&self, name: &str, seed: Option<u64>, reference: &Llama) -> Result<Vec<(u64, Llama, f64)>> {
        match (&self.variant(name)?.policy, seed) {
            (PolicySource::Checkpoint { path, beta }, _) => {
                let policy = self.load_policy(&self.suite.locate(path), reference)?;
                if policy.config.vocab_size != reference.config.vocab_size {
                    return Err(Error::input(format!(
                        "variant `{name}` has a vocabulary of {} tokens, the reference of {}",
                        policy.config.vocab_size, reference.config.vocab_size
                    ))
                    .help("policy and reference must share a tokenizer: their token log-probabilities are compared"));
                }
                Ok(vec![(0, policy, *beta)])
            }
            (PolicySource::Train(settings), Some(seed)) => {
                let ids = plan::train_ids(name, settings, seed);
                let rounds = ids.iter().map(|id| self.context.folder(id)).collect::<Result<Vec<PathBuf>>>()?;
                let load =
                    |(step, folder): (u64, PathBuf)| Ok((step, self.load_policy(&folder, reference)?, settings.objective.beta));
                checkpoints_of(&rounds)?.into_iter().map(load).collect()
            }
            (PolicySource::Train(_), None) => Err(Error::unexpected(format!("variant `{name}` is trained under a seed"))),
        }
    }

    /// The gold reward, where the truth is known.
    fn gold(&self) -> Option<fn(&str, &str) -> f64> {
        matches!(self.suite.dataset, Dataset::World(_)).then_some(world::gold_reward)
    }
}

/// The steps of the `checkpoint-<step>` folders, ascending.
fn checkpoints_in(folder: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("list", folder, &e))?;
    let mut steps: Vec<u64> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// The checkpoints of a training, whose rounds lie in these folders: their steps, counted over all rounds, and their own folders.
pub fn checkpoints_of(rounds: &[PathBuf]) -> Result<Vec<(u64, PathBuf)>> {
    let (mut all, mut before) = (Vec::new(), 0);
    for round in rounds {
        let steps = checkpoints_in(round)?;
        all.extend(steps.iter().map(|&step| (before + step, train::checkpoint_folder(round, step))));
        before += steps.last().copied().unwrap_or_default();
    }
    Ok(all)
}
