//! What each kind of cell does. A body reads its inputs' files, writes its outputs into its scratch folder, and names them.

use std::path::{Path, PathBuf};

use crate::data::files::{read_jsonl, write_jsonl};
use crate::data::tokenize::TextTokenizer;
use crate::data::{Prompt, world};
use crate::error::{Error, Result};
use crate::generate::{self, Completion, MeasuredPolicy, REFERENCE, Sampled};
use crate::model::{self, Adapter, Causal, Llama};
use crate::run::execute::Context;
use crate::run::plan::{self, Cell, Stage};
use crate::suite::Suite;
use crate::suite::settings::{Dataset, JudgeSource, Numerics, PolicySource, Variant};
use crate::train::{self, PairScore, ScoreCache, ScoredPolicy};

mod data;
mod decoding;
mod judging;
mod measured;
mod rounds;
mod training;

/// The cell of the pairs that every variant begins with.
const PAIRS: &str = "pairs";

/// The purpose of every policy's samples: the same random numbers pair them.
const POLICY_SAMPLES: &str = "evaluate/policy";

/// What policies think of held-out pairs, of some that they learn from, and of some whose rejected side means the opposite.
pub const PAIR_SCORES: &str = "pair_scores.jsonl";
pub const TRAIN_SCORES: &str = "train_scores.jsonl";
pub const OPPOSITE_SCORES: &str = "opposite_scores.jsonl";
/// How alike the sides of training pairs look to the reference.
pub const SIMILARITIES: &str = "similarities.jsonl";

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

/// A policy at a checkpoint: its step, and the β of its implicit reward.
type Checkpointed = (u64, Box<dyn Causal>, f64);

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
        Ok(self.reading(TextTokenizer::load(&self.context.folder("reference")?)?))
    }

    /// The tokenizer as policies and reference read the suite's texts.
    fn reading(&self, tokenizer: TextTokenizer) -> TextTokenizer {
        let dataset = &self.suite.dataset;
        tokenizer.for_texts(dataset.is_conversational()).with_tokenization(dataset.tokenization())
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

    /// [`Self::load_policy`] of a model that nothing is trained over.
    fn load_evaluated(&self, folder: &Path, base: &dyn Causal) -> Result<Box<dyn Causal>> {
        match (Adapter::is_in(folder), base.own()) {
            (false, _) => model::load(folder, self.suite.numerics),
            (true, Some(base)) => Ok(Box::new(self.load_policy(folder, base)?)),
            (true, None) => Err(Error::input("an adapter over a reference that can only be evaluated is not supported")
                .in_file(folder.join(Adapter::CONFIG))
                .help("merge it with PEFT (`merge_and_unload`) and use the merged model")),
        }
    }

    fn reference_model(&self) -> Result<Llama> {
        self.load(&self.context.folder("reference")?)
    }

    /// The reference where nothing is trained over it.
    fn evaluated_reference(&self) -> Result<Box<dyn Causal>> {
        model::load(&self.context.folder("reference")?, self.suite.numerics)
    }

    fn variant(&self, name: &str) -> Result<&Variant> {
        self.suite.variant(name).ok_or_else(|| Error::unexpected(format!("the suite has no variant `{name}`")))
    }

    fn evaluation_prompts(&self) -> Result<Vec<Prompt>> {
        read_jsonl(&self.context.file("data", "eval_prompts.jsonl")?)
    }

    fn evaluation_samples(&self, model: &dyn Causal, tokenizer: &TextTokenizer, purpose: &str) -> Result<Vec<Sampled>> {
        generate::sample(
            model,
            tokenizer,
            &self.evaluation_prompts()?,
            &self.suite.generate,
            self.suite.seed,
            purpose,
            self.context.watch,
        )
    }

    fn evaluate_reference(&self) -> Result<Vec<String>> {
        let (reference, tokenizer) = (self.evaluated_reference()?, self.tokenizer()?);
        let samples = self.evaluation_samples(reference.as_ref(), &tokenizer, "evaluate/reference")?;
        let of = MeasuredPolicy { variant: REFERENCE, seed: None, checkpoint: 0 };
        let rows = generate::measure(&of, reference.as_ref(), reference.as_ref(), &samples, self.gold(), self.context.watch)?;
        write_jsonl(&self.work().join("completions.jsonl"), &rows)?;
        let context = reference.limits().context;
        let max_length = plan::shortest_max_length(self.suite).map_or(context, |m| m.min(context));
        // Of a model that is only evaluated the states of its last layer aren't to be had.
        let rows = match reference.own() {
            Some(own) => train::pair_similarities(own, &self.compared_pairs(&tokenizer)?, Some(max_length), self.context.watch)?,
            None => Vec::new(),
        };
        write_jsonl(&self.work().join(SIMILARITIES), &rows)?;
        Ok(names(&["completions.jsonl", SIMILARITIES]))
    }

    fn evaluate(&self, name: &str, seed: Option<u64>) -> Result<Vec<String>> {
        match &self.variant(name)?.policy {
            PolicySource::Decoded(decoded) => return self.evaluate_decoded(name, seed, decoded),
            PolicySource::BestOfN(best) => return self.evaluate_best_of(name, seed, best),
            PolicySource::Train(_) | PolicySource::Checkpoint { .. } => {}
        }
        let (reference, tokenizer) = (self.evaluated_reference()?, self.tokenizer()?);
        let reference = reference.as_ref();
        let pairs = self.measured_pairs(&tokenizer)?;
        let mut completions = Vec::<Completion>::new();
        let sets = [(PAIR_SCORES, &pairs.heldout), (TRAIN_SCORES, &pairs.train), (OPPOSITE_SCORES, &pairs.opposites)];
        let mut scores: [Vec<PairScore>; 3] = Default::default();
        // Held-out pairs are cut as the training pairs are, and never longer than the model reads.
        let context = reference.limits().context;
        let trained = self.variant(name)?.training();
        let max_length = trained.and_then(|settings| settings.max_length).map_or(context, |m| m.min(context));
        for (checkpoint, policy, beta) in self.policies(name, seed, reference)? {
            let policy = policy.as_ref();
            let samples = self.evaluation_samples(policy, &tokenizer, POLICY_SAMPLES)?;
            let of = MeasuredPolicy { variant: name, seed, checkpoint };
            completions.extend(generate::measure(&of, policy, reference, &samples, self.gold(), self.context.watch)?);
            let of = ScoredPolicy { variant: name, seed, checkpoint, beta };
            for (scores, (_, pairs)) in scores.iter_mut().zip(sets) {
                let (cache, watch) = (self.cache.as_ref(), self.context.watch);
                scores.extend(train::pair_scores(&of, policy, reference, pairs, Some(max_length), cache, watch)?);
            }
        }
        write_jsonl(&self.work().join("completions.jsonl"), &completions)?;
        for (scores, (name, _)) in scores.iter().zip(sets) {
            write_jsonl(&self.work().join(name), scores)?;
        }
        Ok(names(&["completions.jsonl", PAIR_SCORES, TRAIN_SCORES, OPPOSITE_SCORES]))
    }

    /// The policy of a variant at each of its checkpoints, with the β of its implicit reward.
    fn policies(&self, name: &str, seed: Option<u64>, reference: &dyn Causal) -> Result<Vec<Checkpointed>> {
        let all = self.policy_folders(name, seed)?;
        all.into_iter().map(|(step, folder, beta)| Ok((step, self.load_beside(&folder, name, reference)?, beta))).collect()
    }

    fn last_policy(&self, name: &str, seed: Option<u64>, reference: &dyn Causal) -> Result<Checkpointed> {
        let last = self.policy_folders(name, seed)?.pop();
        let (step, folder, beta) = last.ok_or_else(|| Error::unexpected(format!("variant `{name}` has no checkpoint")))?;
        Ok((step, self.load_beside(&folder, name, reference)?, beta))
    }

    /// Where the checkpoints of a variant lie, in order, with their steps and the β of its implicit reward.
    fn policy_folders(&self, name: &str, seed: Option<u64>) -> Result<Vec<(u64, PathBuf, f64)>> {
        match (&self.variant(name)?.policy, seed) {
            (PolicySource::Checkpoint { path, beta }, _) => Ok(vec![(0, self.suite.locate(path), *beta)]),
            (PolicySource::Train(settings), Some(seed)) => {
                let ids = plan::train_ids(name, settings, seed);
                let rounds = ids.iter().map(|id| self.context.folder(id)).collect::<Result<Vec<PathBuf>>>()?;
                let beta = settings.objective.beta;
                Ok(checkpoints_of(&rounds)?.into_iter().map(|(step, folder)| (step, folder, beta)).collect())
            }
            (PolicySource::Train(_), None) => Err(Error::unexpected(format!("variant `{name}` is trained under a seed"))),
            (PolicySource::Decoded(_) | PolicySource::BestOfN(_), _) => {
                Err(Error::unexpected(format!("variant `{name}` has no weights of its own")))
            }
        }
    }

    fn load_beside(&self, folder: &Path, name: &str, reference: &dyn Causal) -> Result<Box<dyn Causal>> {
        let policy = self.load_evaluated(folder, reference)?;
        let [vocabulary, of_reference] = [policy.limits(), reference.limits()].map(|limits| limits.vocab_size);
        if vocabulary != of_reference {
            return Err(Error::input(format!(
                "variant `{name}` has a vocabulary of {vocabulary} tokens, the reference of {of_reference}"
            ))
            .help("policy and reference must share a tokenizer: their token log-probabilities are compared"));
        }
        Ok(policy)
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
