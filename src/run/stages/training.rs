//! Training: the reference by fine-tuning, and the policies by preferences.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::{Body, JUDGE_FOLDER, PAIRS, checkpoints_in, names};
use crate::data::files::{each_jsonl, read_jsonl, write_jsonl};
use crate::data::shelf::Shelf;
use crate::data::sources;
use crate::data::tokenize::TextTokenizer;
use crate::data::{Demonstration, LabelledCompletion, Pair, PreferenceRow, TokenizedExample, TokenizedPair, world};
use crate::error::{Error, Result};
use crate::judge::GOLD;
use crate::model::{Adapter, Llama, copy_evaluated, evaluated_only};
use crate::rlhf::{ONLINE_LOG, OnlineStep, OnlineTask, Reward, RewardModel};
use crate::run::plan;
use crate::store::{CHAIN, write_atomically};
use crate::suite::settings::{AdapterSource, Dataset, ModelSource, PairsSettings, TrainSettings};
use crate::train::{
    self, EVAL_LOG, EvalStep, Evaluation, Feedback, LAST, Metrics, PreferenceTask, SftTask, TrainStep, UnpairedTask,
};

/// Evaluations of the fine-tuning, among the reference's outputs.
const SFT_EVAL_LOG: &str = "sft_eval_log.jsonl";

/// What one round of a training starts with.
pub(super) struct Start {
    pub policy: Llama,
    /// Frozen.
    pub reference: Llama,
    /// Of this round by itself.
    pub settings: TrainSettings,
    pub seed: u64,
    /// The cell whose pairs are learnt from.
    pub pairs: String,
    pub before: Before,
}

/// What the rounds before took.
#[derive(Default)]
pub(super) struct Before {
    pub steps: u64,
    pub tokens: u64,
}

impl Body<'_> {
    pub(super) fn reference(&self) -> Result<Vec<String>> {
        let tokenizer = self.reading(TextTokenizer::load(&self.context.folder("data")?)?);
        let mut outputs = [names(&["config.json", "model.safetensors"]), tokenizer.save(self.work())?].concat();
        if let ModelSource::Folder { path } = &self.suite.model
            && evaluated_only(&self.suite.locate(path))?.is_some()
        {
            copy_evaluated(&self.suite.locate(path), self.work())?;
            return Ok(outputs);
        }
        let base = match &self.suite.model {
            ModelSource::Fresh(shape) => {
                let bos = tokenizer.bos().ok_or_else(|| Error::unexpected("our own tokenizer has no BOS"))?;
                let fresh = Llama::fresh(shape, tokenizer.vocab_size(), bos, tokenizer.eos(), self.suite.seed);
                fresh.with_numerics(self.suite.numerics)
            }
            ModelSource::Folder { path } => self.load(&self.suite.locate(path))?,
        };
        let model = match &self.suite.sft {
            None => base,
            Some(settings) => {
                let (base, _) = self.start(base, settings, self.suite.seed)?;
                let mut task = SftTask::new(base, self.demonstrations(&tokenizer)?, settings)?;
                if settings.evaluation.eval_steps.is_some() {
                    task = task.with_held_out(self.heldout_demonstrations(&tokenizer)?, settings)?;
                }
                let log = train::run(&mut task, settings, self.suite.seed, self.work(), self.context.watch)?;
                write_jsonl(&self.work().join("sft_log.jsonl"), &log)?;
                outputs.extend(["sft_log.jsonl".to_owned(), CHAIN.to_owned()]);
                if settings.evaluation.eval_steps.is_some() {
                    let rows: Vec<Evaluation> = read_jsonl(&self.work().join(EVAL_LOG))?;
                    write_jsonl(&self.work().join(SFT_EVAL_LOG), &rows)?;
                    outputs.push(SFT_EVAL_LOG.to_owned());
                }
                task.into_model().merged()
            }
        };
        model.save(self.work())?;
        Ok(outputs)
    }

    /// What fine-tuning learns from, as an epoch sees it.
    fn demonstrations(&self, tokenizer: &TextTokenizer) -> Result<Shelf<TokenizedExample>> {
        let file = |name: &str| self.context.file("data", name);
        match &self.suite.dataset {
            // Demonstrations don't name their sources.
            Dataset::Pairs(settings) if !settings.sources.is_empty() => match settings.is_unpaired() {
                true => self.imitated::<LabelledCompletion>(&file("train_pairs.jsonl")?, Some(settings), tokenizer),
                false => self.imitated::<Pair>(&file("train_pairs.jsonl")?, Some(settings), tokenizer),
            },
            _ => {
                let mut examples = Shelf::in_file(self.work())?;
                each_jsonl(&file("demonstrations.jsonl")?, |row: Demonstration| examples.add(tokenizer.example(&row)))?;
                Ok(examples)
            }
        }
    }

    /// What is imitated of the rows of a file, by the weights of their sources where there are `settings` for it.
    fn imitated<R: PreferenceRow + DeserializeOwned>(
        &self,
        file: &Path,
        settings: Option<&PairsSettings>,
        tokenizer: &TextTokenizer,
    ) -> Result<Shelf<TokenizedExample>> {
        let mut examples = Shelf::in_file(self.work())?;
        each_by_weight(file, settings, &mut |row: R| {
            row.demonstration().iter().try_for_each(|demonstration| examples.add(tokenizer.example(demonstration)))
        })?;
        Ok(examples)
    }

    /// Gives the rows to learn from in a file of the cell `id`, as an epoch sees them: those of a suite's sources by their weights, those of
    /// later rounds once.
    fn each_learnt<R: PreferenceRow + DeserializeOwned>(
        &self,
        id: &str,
        name: &str,
        give: &mut dyn FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let settings = match &self.suite.dataset {
            Dataset::Pairs(settings) if (id, name) == (PAIRS, "train.jsonl") => Some(settings),
            _ => None,
        };
        each_by_weight(&self.context.file(id, name)?, settings, give)
    }

    /// What fine-tuning is measured on: in a world, reviews after the prompts of the held-out pairs; of a file, the chosen sides of the
    /// held-out pairs, or the desirable ones of the held-out completions.
    fn heldout_demonstrations(&self, tokenizer: &TextTokenizer) -> Result<Shelf<TokenizedExample>> {
        match &self.suite.dataset {
            Dataset::World(settings) => {
                let rows = world::heldout_demonstrations(settings, self.suite.seed)?;
                Ok(Shelf::Held(rows.iter().map(|row| tokenizer.example(row)).collect()))
            }
            Dataset::Pairs(pairs) => {
                let file = self.context.file("data", "heldout_pairs.jsonl")?;
                match pairs.is_unpaired() {
                    true => self.imitated::<LabelledCompletion>(&file, None, tokenizer),
                    false => self.imitated::<Pair>(&file, None, tokenizer),
                }
            }
        }
    }

    /// One round of a variant's training. The logs count steps and tokens on from the round before it.
    pub(super) fn train(&self, name: &str, seed: u64, round: u64) -> Result<Vec<String>> {
        let training = self.trained(name)?;
        let tokenizer = self.tokenizer()?;
        let start = match round {
            1 => self.first_round(training, seed, &tokenizer)?,
            _ => self.later_round(name, training, seed, round)?,
        };
        let Start { policy, reference, settings, before, .. } = start;
        let (watch, cache, settings) = (self.context.watch, self.cache.as_ref(), &settings);
        let adapter = policy.adapter.clone();
        let evaluates = settings.evaluation.eval_steps.is_some();
        let metrics = if let Some(online) = &settings.online {
            let (prompts, longest) = (self.round_prompts()?, self.suite.generate.max_new_tokens);
            let (reward, beta) = (self.reward(&online.reward_model, &tokenizer)?, settings.objective.beta);
            let policy = Llama { recomputes: settings.gradient_checkpointing, ..policy };
            let mut task = OnlineTask::new(policy, &reference, &tokenizer, reward, prompts, online, beta, longest);
            train::run(&mut task, settings, start.seed, self.work(), watch)?
        } else if settings.objective.is_unpaired() {
            let examples = self.feedback(&start.pairs, "train.jsonl", &tokenizer)?;
            let mut task = UnpairedTask::with_cache(policy, &reference, examples, settings, cache, watch)?;
            if evaluates {
                let held_out = self.feedback(PAIRS, "heldout.jsonl", &tokenizer)?;
                task = task.with_held_out(&reference, held_out, settings, cache, watch)?;
            }
            train::run(&mut task, settings, start.seed, self.work(), watch)?
        } else {
            let pairs = self.tokenized_pairs(&start.pairs, "train.jsonl", &tokenizer)?;
            let mut task = PreferenceTask::with_cache(policy, &reference, pairs, settings, cache, watch)?;
            if evaluates {
                let held_out = self.tokenized_pairs(PAIRS, "heldout.jsonl", &tokenizer)?;
                task = task.with_held_out(&reference, held_out, settings, cache, watch)?;
            }
            train::run(&mut task, settings, start.seed, self.work(), watch)?
        };
        let row = |m: &Metrics| -> Result<TrainStep> {
            let row = m.train_step(name, seed)?;
            Ok(TrainStep { step: row.step + before.steps, num_tokens: row.num_tokens + before.tokens, ..row })
        };
        let log = metrics.iter().map(row).collect::<Result<Vec<TrainStep>>>()?;
        write_jsonl(&self.work().join("train_log.jsonl"), &log)?;
        let mut outputs = vec!["train_log.jsonl".to_owned(), CHAIN.to_owned()];
        if settings.online.is_some() {
            let rows: Vec<OnlineStep> = metrics.iter().map(|m| OnlineStep::of(m, name, seed)).collect();
            write_jsonl(&self.work().join(ONLINE_LOG), &rows)?;
            outputs.push(ONLINE_LOG.to_owned());
        }
        if evaluates {
            let rows: Vec<Evaluation> = read_jsonl(&self.work().join(EVAL_LOG))?;
            let row = |row: EvalStep| EvalStep { step: row.step + before.steps, ..row };
            let rows: Vec<EvalStep> = rows.iter().map(|e| row(e.eval_step(name, seed))).collect();
            write_jsonl(&self.work().join(EVAL_LOG), &rows)?;
            outputs.push(EVAL_LOG.to_owned());
        }
        let checkpoints = checkpoints_in(self.work())?.into_iter().map(|step| format!("checkpoint-{step}"));
        let last = self.work().join(LAST).exists().then(|| LAST.to_owned());
        for folder in checkpoints.chain(last) {
            let (name, config, weights) = match &adapter {
                None => ("config.json", reference.config.causal_json(), "model.safetensors"),
                Some(adapter) => (Adapter::CONFIG, adapter.config_json(), Adapter::WEIGHTS),
            };
            write_atomically(&self.work().join(&folder).join(name), &[config.as_bytes()])?;
            outputs.extend([format!("{folder}/{name}"), format!("{folder}/{weights}")]);
        }
        Ok(outputs)
    }

    pub(super) fn trained(&self, name: &str) -> Result<&TrainSettings> {
        self.variant(name)?.training().ok_or_else(|| Error::unexpected(format!("variant `{name}` isn't trained here")))
    }

    fn first_round(&self, settings: &TrainSettings, seed: u64, tokenizer: &TextTokenizer) -> Result<Start> {
        let base = self.reference_model()?;
        if settings.rounds.is_some() || settings.online.is_some() {
            self.check_round_prompts(tokenizer, base.config.max_position_embeddings)?;
        }
        let (policy, reference) = self.start(base, settings, seed)?;
        let settings = settings.of_one_round(None);
        Ok(Start { policy, reference, settings, seed, pairs: PAIRS.to_owned(), before: Before::default() })
    }

    /// Who scores what a policy writes.
    pub(super) fn reward(&self, name: &str, tokenizer: &TextTokenizer) -> Result<Reward> {
        if name == GOLD {
            return self.gold().map(Reward::Gold).ok_or_else(|| Error::unexpected("gold scores in a world alone"));
        }
        let judge = self.judge_settings(name)?;
        let folder = self.context.folder(&plan::judge_id(name))?.join(JUDGE_FOLDER);
        Ok(Reward::Model(Box::new(RewardModel::load(&folder, judge, tokenizer, self.suite.numerics)?)))
    }

    /// What a training starts from, and its frozen reference, of the weights `base`: without an adapter both are these.
    pub(super) fn start(&self, base: Llama, settings: &TrainSettings, seed: u64) -> Result<(Llama, Llama)> {
        match &settings.lora {
            None => Ok((base.clone(), base)),
            Some(AdapterSource::Fresh(lora)) => {
                let adapter = Adapter::fresh(&base.config, lora, seed);
                Ok((base.clone().with_adapter(adapter)?, base))
            }
            Some(AdapterSource::Folder { path, lora_dropout }) => {
                let folder = self.suite.locate(path);
                let mut adapter = Adapter::load(&folder)?;
                adapter.settings.lora_dropout = *lora_dropout;
                let model = base.with_adapter(adapter).map_err(|e| e.in_file(folder.join(Adapter::WEIGHTS)))?;
                Ok((model.clone(), model))
            }
        }
    }

    /// The pairs in a file of the cell `id`.
    pub(super) fn tokenized_pairs(&self, id: &str, name: &str, tokenizer: &TextTokenizer) -> Result<Shelf<TokenizedPair>> {
        let mut pairs = Shelf::in_file(self.work())?;
        self.each_learnt(id, name, &mut |pair: Pair| pairs.add(tokenizer.pair(&pair)))?;
        Ok(pairs)
    }

    /// Single completions: those of an unpaired file, or both sides of each pair.
    fn feedback(&self, id: &str, name: &str, tokenizer: &TextTokenizer) -> Result<Shelf<Feedback>> {
        let mut examples = Shelf::in_file(self.work())?;
        // What a policy wrote is labelled in pairs, whatever the file holds.
        if id != PAIRS || self.suite.dataset.has_pairs() {
            self.each_learnt(id, name, &mut |pair: Pair| {
                Feedback::of_pair(&tokenizer.pair(&pair)).into_iter().try_for_each(|example| examples.add(example))
            })?;
            return Ok(examples);
        }
        self.each_learnt(id, name, &mut |row: LabelledCompletion| {
            let (prompt, [completion]) = tokenizer.sequences(&row.prompt, [&row.completion]);
            examples.add(Feedback { id: row.id, prompt, completion, desirable: row.label })
        })?;
        Ok(examples)
    }
}

/// Gives a file's rows, by the weights of their sources where there are `settings` for it.
fn each_by_weight<R: PreferenceRow + DeserializeOwned>(
    file: &Path,
    settings: Option<&PairsSettings>,
    give: &mut dyn FnMut(R) -> Result<()>,
) -> Result<()> {
    match settings {
        Some(settings) => sources::each_weighted(settings, |give| each_jsonl(file, give), give),
        None => each_jsonl(file, give),
    }
}
