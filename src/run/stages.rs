//! What each kind of cell does. A body reads its inputs' files, writes its outputs into its scratch folder, and names them.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data::audit::{self, AuditInput, Audited};
use crate::data::files::{RowFile, Rows, both_labels, read_jsonl, write_jsonl};
use crate::data::template;
use crate::data::tokenize::TextTokenizer;
use crate::data::{
    AuditItem, Demonstration, LabelledCompletion, Pair, PreferenceRow, Prompt, TokenizedPair, label, split, world,
};
use crate::error::{Error, Result};
use crate::generate::{self, Completion, MeasuredPolicy, REFERENCE, Sampled};
use crate::judge::{self, GOLD, protocol, session::OnnxJudge};
use crate::model::{Adapter, Llama, LlamaConfig};
use crate::run::execute::Context;
use crate::run::plan::{self, Cell, Stage};
use crate::store::{CHAIN, write_atomically};
use crate::suite::Suite;
use crate::suite::settings::{
    AdapterSource, Dataset, GenerateSettings, JudgeSettings, JudgeSource, ModelSource, Numerics, PairsSettings, PolicySource,
    TrainSettings, Variant, WorldSettings,
};
use crate::train::{
    self, EVAL_LOG, EvalStep, Evaluation, Feedback, PairScore, PreferenceTask, ScoreCache, ScoredPolicy, SftTask, TrainStep,
    UnpairedTask,
};

/// Share of the judges' own prompts on which they are trained; the rest measures them.
const JUDGE_TRAINING_SHARE: f64 = 0.75;
/// Evaluations of the fine-tuning, among the reference's outputs.
const SFT_EVAL_LOG: &str = "sft_eval_log.jsonl";
/// Where a judge stands among its cell's outputs.
pub use crate::judge::train::FOLDER as JUDGE_FOLDER;

pub fn run_cell(suite: &Suite, cell: &Cell, context: &Context<'_>) -> Result<Vec<String>> {
    let cache = ScoreCache::new(context.store, plan::ENGINE);
    run_body(&Body { suite, context, cache: Some(cache) }, cell)
}

fn run_body(body: &Body<'_>, cell: &Cell) -> Result<Vec<String>> {
    match &cell.stage {
        Stage::Data => body.data(),
        Stage::Reference => body.reference(),
        Stage::Pairs => body.pairs(),
        Stage::Judge { judge } => body.judge(judge),
        Stage::Train { variant, seed } => body.train(variant, *seed),
        Stage::Evaluate { variant: None, .. } => body.evaluate_reference(),
        Stage::Evaluate { variant: Some(variant), seed } => body.evaluate(variant, *seed),
        Stage::Judgments { judge, variant, seed } => body.judgments(judge, variant, *seed),
    }
}

/// `run_cell` as far as our own arithmetic goes: of a judge its training alone, without the export and what ONNX Runtime says. What
/// the reference said before isn't taken from the store: it is part of what is repeated.
pub fn repeat_cell(suite: &Suite, cell: &Cell, context: &Context<'_>) -> Result<Vec<String>> {
    let body = Body { suite, context, cache: None };
    match &cell.stage {
        Stage::Judge { judge } => body.judge_training(judge),
        _ => run_body(&body, cell),
    }
}

/// Whether `repeat_cell` can do any of the cell's work: not where ONNX Runtime does all of it.
pub fn is_repeatable(suite: &Suite, stage: &Stage) -> bool {
    match stage {
        Stage::Judge { judge } => suite.judges.iter().any(|j| &j.name == judge && matches!(j.source, JudgeSource::Train(_))),
        Stage::Judgments { judge, .. } => judge == GOLD,
        _ => true,
    }
}

struct Body<'a> {
    suite: &'a Suite,
    context: &'a Context<'a>,
    /// None: the reference is asked anew.
    cache: Option<ScoreCache<'a>>,
}

/// What a judge starts from and learns.
struct JudgeInputs {
    base: Llama,
    tokenizer: TextTokenizer,
    pairs: Vec<Pair>,
}

/// Where the digest chain of a judge's training stands among its cell's outputs.
fn judge_chain() -> String {
    format!("{}/{CHAIN}", judge::train::TRAINING)
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

impl Body<'_> {
    fn work(&self) -> &Path {
        &self.context.work
    }

    fn data(&self) -> Result<Vec<String>> {
        match &self.suite.dataset {
            Dataset::World(settings) => self.world_data(settings),
            Dataset::Pairs(settings) => self.file_data(settings),
        }
    }

    fn world_data(&self, settings: &WorldSettings) -> Result<Vec<String>> {
        let world = world::make(settings, self.suite.seed)?;
        let tokenizer = match &self.suite.model {
            ModelSource::Fresh(_) => TextTokenizer::train(&world.corpus, settings.vocab_size)?,
            ModelSource::Folder { path } => TextTokenizer::load(&self.suite.locate(path))?,
        };
        tokenizer.save(self.work())?;
        write_jsonl(&self.work().join("demonstrations.jsonl"), &world.demonstrations)?;
        let sets = [("train", &world.train), ("heldout", &world.heldout), ("judge", &world.judge), ("eval", &world.eval)];
        for (name, prompts) in sets {
            write_jsonl(&self.work().join(format!("{name}_prompts.jsonl")), prompts)?;
        }
        Ok(names(&[
            "demonstrations.jsonl",
            "train_prompts.jsonl",
            "heldout_prompts.jsonl",
            "judge_prompts.jsonl",
            "eval_prompts.jsonl",
            "tokenizer.json",
            "tokenizer_config.json",
        ]))
    }

    fn file_data(&self, settings: &PairsSettings) -> Result<Vec<String>> {
        let ModelSource::Folder { path } = &self.suite.model else {
            return Err(Error::usage("pairs from a file need a model folder with its tokenizer: set [model] path"));
        };
        let model = self.suite.locate(path);
        let tokenizer = TextTokenizer::load(&model)?.for_texts(settings.format.is_conversational());
        tokenizer.save(self.work())?;
        let source = self.suite.locate(&settings.path);
        let context = LlamaConfig::load(&model)?.max_position_embeddings;
        let template = template::of_suite(self.suite, settings, &model)?;
        let file = RowFile::of_settings(&source, settings, template.as_ref());
        if settings.is_unpaired() {
            let Rows { rows, audit } = file.labelled()?;
            let train = self.split_rows(settings, rows, audit, &tokenizer, context)?;
            both_labels(&train, "rows of the training split").map_err(|e| e.in_file(&source))?;
        } else {
            let Rows { rows, audit } = file.pairs()?;
            self.split_rows(settings, rows, audit, &tokenizer, context)?;
        }
        Ok(names(&[
            "demonstrations.jsonl",
            "train_pairs.jsonl",
            "heldout_pairs.jsonl",
            "judge_pairs.jsonl",
            "eval_prompts.jsonl",
            "audit.jsonl",
            "tokenizer.json",
            "tokenizer_config.json",
        ]))
    }

    /// Splits a file's rows and writes the splits; gives what is to be learnt from. `context`: of the model, tokens.
    fn split_rows<R: PreferenceRow + Serialize + Sync>(
        &self,
        settings: &PairsSettings,
        mut rows: Vec<R>,
        mut items: Vec<AuditItem>,
        tokenizer: &TextTokenizer,
        context: usize,
    ) -> Result<Vec<R>> {
        let source = self.suite.locate(&settings.path);
        if let Some(longest) = settings.max_prompt_length {
            let (kept, left_out) = audit::without_long_prompts(tokenizer, rows, longest).map_err(|e| e.in_file(&source))?;
            rows = kept;
            items.push(left_out);
        }
        let prompts = rows.iter().map(|row| (row.id(), row.prompt()));
        audit::check_lengths(tokenizer, context, 1, prompts).map_err(|e| e.in_file(&source))?;
        let splits = split::split(rows, settings)?;
        // Where the suite has an [sft] table, it imitates the chosen sides, or the desirable completions.
        let demonstrations: Vec<Demonstration> = splits.train.iter().filter_map(R::demonstration).collect();
        write_jsonl(&self.work().join("demonstrations.jsonl"), &demonstrations)?;
        for (name, rows) in [("train", &splits.train), ("heldout", &splits.heldout), ("judge", &splits.judge)] {
            write_jsonl(&self.work().join(format!("{name}_pairs.jsonl")), rows)?;
        }
        write_jsonl(&self.work().join("eval_prompts.jsonl"), &splits.eval)?;
        write_jsonl(&self.work().join("audit.jsonl"), &items)?;
        Ok(splits.train)
    }

    /// Policies, reference and judges share one tokenizer: that of the reference's folder.
    fn tokenizer(&self) -> Result<TextTokenizer> {
        Ok(TextTokenizer::load(&self.context.folder("reference")?)?.for_texts(self.suite.dataset.is_conversational()))
    }

    fn reference(&self) -> Result<Vec<String>> {
        let tokenizer = TextTokenizer::load(&self.context.folder("data")?)?.for_texts(self.suite.dataset.is_conversational());
        tokenizer.save(self.work())?;
        let mut outputs = names(&["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
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
                let demonstrations: Vec<Demonstration> = read_jsonl(&self.context.file("data", "demonstrations.jsonl")?)?;
                let examples: Vec<_> = demonstrations.iter().map(|d| tokenizer.example(d)).collect();
                let mut task = SftTask::new(base, &examples, settings)?;
                if settings.evaluation.eval_steps.is_some() {
                    let held_out: Vec<_> = self.heldout_demonstrations()?.iter().map(|d| tokenizer.example(d)).collect();
                    task = task.with_held_out(&held_out, settings)?;
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

    /// What fine-tuning is measured on: in a world, reviews after the prompts of the held-out pairs; of a file, the chosen sides of the
    /// held-out pairs, or the desirable ones of the held-out completions.
    fn heldout_demonstrations(&self) -> Result<Vec<Demonstration>> {
        match &self.suite.dataset {
            Dataset::World(settings) => world::heldout_demonstrations(settings, self.suite.seed),
            Dataset::Pairs(pairs) => {
                let file = self.context.file("data", "heldout_pairs.jsonl")?;
                if pairs.is_unpaired() {
                    let rows: Vec<LabelledCompletion> = read_jsonl(&file)?;
                    return Ok(rows.iter().filter_map(PreferenceRow::demonstration).collect());
                }
                let rows: Vec<Pair> = read_jsonl(&file)?;
                Ok(rows.iter().filter_map(PreferenceRow::demonstration).collect())
            }
        }
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

    fn pairs(&self) -> Result<Vec<String>> {
        match &self.suite.dataset {
            Dataset::World(settings) => {
                let mut items: Vec<AuditItem> = Vec::new();
                let pairs = self.world_pairs(settings, &mut items)?;
                self.audited(pairs, items)
            }
            Dataset::Pairs(settings) if settings.is_unpaired() => {
                self.audited(self.rows_of_file::<LabelledCompletion>()?, Vec::new())
            }
            Dataset::Pairs(_) => self.audited(self.rows_of_file::<Pair>()?, Vec::new()),
        }
    }

    /// The splits that the data cell made of a file: to learn from, held out, for the judges.
    fn rows_of_file<R: DeserializeOwned>(&self) -> Result<(Vec<R>, Vec<R>, Vec<R>)> {
        let read = |name: &str| read_jsonl::<R>(&self.context.file("data", name)?);
        Ok((read("train_pairs.jsonl")?, read("heldout_pairs.jsonl")?, read("judge_pairs.jsonl")?))
    }

    /// Writes the rows of each purpose, with the audit after `items`.
    fn audited<R: Audited + Serialize>(
        &self,
        (train, heldout, judge): (Vec<R>, Vec<R>, Vec<R>),
        mut items: Vec<AuditItem>,
    ) -> Result<Vec<String>> {
        items.extend(self.audit(&train, &heldout, &judge)?);
        write_jsonl(&self.work().join("audit.jsonl"), &items)?;
        let (judge_train, judge_heldout) = split_by_prompt(judge, JUDGE_TRAINING_SHARE);
        for (name, rows) in
            [("train", &train), ("heldout", &heldout), ("judge_train", &judge_train), ("judge_heldout", &judge_heldout)]
        {
            write_jsonl(&self.work().join(format!("{name}.jsonl")), rows)?;
        }
        Ok(names(&["train.jsonl", "heldout.jsonl", "judge_train.jsonl", "judge_heldout.jsonl", "audit.jsonl"]))
    }

    /// Counts what is odd in all the suite's texts, and refuses prompts that the model can't hold.
    fn audit<R: Audited>(&self, train: &[R], heldout: &[R], judge: &[R]) -> Result<Vec<AuditItem>> {
        let tokenizer = self.tokenizer()?;
        let context = self.reference_model()?.config.max_position_embeddings;
        let eval: Vec<Prompt> = read_jsonl(&self.context.file("data", "eval_prompts.jsonl")?)?;
        let demonstrations: Vec<Demonstration> = match self.suite.sft {
            Some(_) => read_jsonl(&self.context.file("data", "demonstrations.jsonl")?)?,
            None => Vec::new(),
        };
        let room = self.suite.generate.max_new_tokens;
        audit::check_lengths(&tokenizer, context, room, eval.iter().map(|p| (p.id.as_str(), p.text.as_str())))?;
        Ok(audit::audit(&AuditInput {
            demonstrations: &demonstrations,
            train,
            heldout,
            judge,
            eval: &eval,
            tokenizer: Some(&tokenizer),
            max_length: Some(plan::shortest_max_length(self.suite).map_or(context, |m| m.min(context))),
            full: self.suite.dataset.audit_limits().is_some(),
        }))
    }

    /// Samples from the reference, labelled by Bradley–Terry on the gold reward.
    fn world_pairs(&self, settings: &WorldSettings, items: &mut Vec<AuditItem>) -> Result<(Vec<Pair>, Vec<Pair>, Vec<Pair>)> {
        let (model, tokenizer) = (self.reference_model()?, self.tokenizer()?);
        let sampling = GenerateSettings {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            max_new_tokens: self.suite.generate.max_new_tokens,
            samples_per_prompt: settings.samples_per_prompt,
        };
        let mut label_set = |name: &str, noise: f64| -> Result<Vec<Pair>> {
            let prompts: Vec<Prompt> = read_jsonl(&self.context.file("data", &format!("{name}_prompts.jsonl"))?)?;
            let purpose = format!("pairs/sample/{name}");
            let samples =
                generate::sample(&model, &tokenizer, &prompts, &sampling, self.suite.seed, &purpose, self.context.watch)?;
            let texts: Vec<Vec<String>> =
                samples.chunks(settings.samples_per_prompt).map(|c| c.iter().map(|s| s.text.clone()).collect()).collect();
            let purpose = format!("pairs/{name}");
            let (count, temperature) = (settings.pairs_per_prompt, settings.label_temperature);
            let labelled = label::pairs(&prompts, &texts, count, temperature, noise, self.suite.seed, &purpose);
            items.extend(labelled.audit);
            Ok(labelled.pairs)
        };
        Ok((label_set("train", settings.label_noise)?, label_set("heldout", 0.0)?, label_set("judge", 0.0)?))
    }

    fn judge_settings(&self, name: &str) -> Result<&JudgeSettings> {
        let found = self.suite.judges.iter().find(|j| j.name == name);
        found.ok_or_else(|| Error::unexpected(format!("the suite has no judge `{name}`")))
    }

    fn judge(&self, name: &str) -> Result<Vec<String>> {
        let settings = self.judge_settings(name)?;
        let mut outputs = match &settings.source {
            JudgeSource::Train(training) => {
                let inputs = self.judge_inputs()?;
                let (base, tokenizer, pairs) = (&inputs.base, &inputs.tokenizer, &inputs.pairs);
                let (seed, watch) = (self.suite.seed, self.context.watch);
                judge::train::train_judge(settings, training, base, tokenizer, pairs, seed, self.work(), watch)?;
                files_in(&self.work().join(JUDGE_FOLDER))?
            }
            JudgeSource::Folder { path } => copy_folder(&self.suite.locate(path), &self.work().join(JUDGE_FOLDER))?,
        };
        outputs.iter_mut().for_each(|name| *name = format!("{JUDGE_FOLDER}/{name}"));
        let heldout: Vec<Pair> = read_jsonl(&self.context.file("pairs", "judge_heldout.jsonl")?)?;
        let folder = self.work().join(JUDGE_FOLDER);
        let opened = OnnxJudge::open(&folder, settings, self.context.threads);
        let mut judge = opened.map_err(|e| self.about_the_original(e, settings, &folder))?;
        write_jsonl(&self.work().join("trials.jsonl"), &judge.trials(&heldout, self.context.watch)?)?;
        outputs.push("trials.jsonl".into());
        outputs.extend(matches!(settings.source, JudgeSource::Train(_)).then(judge_chain));
        Ok(outputs)
    }

    /// The training of a judge by itself.
    fn judge_training(&self, name: &str) -> Result<Vec<String>> {
        let settings = self.judge_settings(name)?;
        let JudgeSource::Train(training) = &settings.source else {
            return Err(Error::unexpected(format!("judge `{name}` isn't trained here")));
        };
        let inputs = self.judge_inputs()?;
        let (base, tokenizer, pairs) = (&inputs.base, &inputs.tokenizer, &inputs.pairs);
        let (seed, watch) = (self.suite.seed, self.context.watch);
        judge::train::learn(settings, training, base, tokenizer, pairs, seed, self.work(), watch)?;
        let weights = ["config.json", "model.safetensors"].map(|file| format!("{JUDGE_FOLDER}/{file}"));
        Ok(weights.into_iter().chain([judge_chain()]).collect())
    }

    fn judge_inputs(&self) -> Result<JudgeInputs> {
        let pairs = read_jsonl(&self.context.file("pairs", "judge_train.jsonl")?)?;
        Ok(JudgeInputs { base: self.reference_model()?, tokenizer: self.tokenizer()?, pairs })
    }

    /// An error about a file of our copy of a judge's folder, as one about the user's own file.
    fn about_the_original(&self, mut error: Error, settings: &JudgeSettings, copy: &Path) -> Error {
        if let (JudgeSource::Folder { path }, Some(place)) = (&settings.source, &mut error.place)
            && let Ok(inside) = place.file.strip_prefix(copy)
        {
            place.file = self.suite.locate(path).join(inside);
        }
        error
    }

    fn variant(&self, name: &str) -> Result<&Variant> {
        let found = self.suite.variants.iter().find(|v| v.name == name);
        found.ok_or_else(|| Error::unexpected(format!("the suite has no variant `{name}`")))
    }

    fn train(&self, name: &str, seed: u64) -> Result<Vec<String>> {
        let PolicySource::Train(settings) = &self.variant(name)?.policy else {
            return Err(Error::unexpected(format!("variant `{name}` isn't trained here")));
        };
        let tokenizer = self.tokenizer()?;
        let (policy, reference) = self.start(self.reference_model()?, settings, seed)?;
        let (watch, cache) = (self.context.watch, self.cache.as_ref());
        let adapter = policy.adapter.clone();
        let evaluates = settings.evaluation.eval_steps.is_some();
        let metrics = if settings.objective.is_unpaired() {
            let examples = self.feedback("train.jsonl", &tokenizer)?;
            let mut task = UnpairedTask::with_cache(policy, &reference, &examples, settings, cache, watch)?;
            if evaluates {
                let held_out = self.feedback("heldout.jsonl", &tokenizer)?;
                task = task.with_held_out(&reference, &held_out, settings, cache, watch)?;
            }
            train::run(&mut task, settings, seed, self.work(), watch)?
        } else {
            let pairs = self.tokenized_pairs("train.jsonl", &tokenizer)?;
            let mut task = PreferenceTask::with_cache(policy, &reference, &pairs, settings, cache, watch)?;
            if evaluates {
                let held_out = self.tokenized_pairs("heldout.jsonl", &tokenizer)?;
                task = task.with_held_out(&reference, &held_out, settings, cache, watch)?;
            }
            train::run(&mut task, settings, seed, self.work(), watch)?
        };
        let log = metrics.iter().map(|m| m.train_step(name, seed)).collect::<Result<Vec<TrainStep>>>()?;
        write_jsonl(&self.work().join("train_log.jsonl"), &log)?;
        let mut outputs = vec!["train_log.jsonl".to_owned(), CHAIN.to_owned()];
        if evaluates {
            let rows: Vec<Evaluation> = read_jsonl(&self.work().join(EVAL_LOG))?;
            let rows: Vec<EvalStep> = rows.iter().map(|row| row.eval_step(name, seed)).collect();
            write_jsonl(&self.work().join(EVAL_LOG), &rows)?;
            outputs.push(EVAL_LOG.to_owned());
        }
        for step in checkpoints_in(self.work())? {
            let folder = format!("checkpoint-{step}");
            let (name, config, weights) = match &adapter {
                None => ("config.json", reference.config.to_json("LlamaForCausalLM"), "model.safetensors"),
                Some(adapter) => (Adapter::CONFIG, adapter.config_json(), Adapter::WEIGHTS),
            };
            write_atomically(&self.work().join(&folder).join(name), &[config.as_bytes()])?;
            outputs.extend([format!("{folder}/{name}"), format!("{folder}/{weights}")]);
        }
        Ok(outputs)
    }

    /// What a training starts from, and its frozen reference, of the weights `base`: without an adapter both are these.
    fn start(&self, base: Llama, settings: &TrainSettings, seed: u64) -> Result<(Llama, Llama)> {
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

    fn tokenized_pairs(&self, name: &str, tokenizer: &TextTokenizer) -> Result<Vec<TokenizedPair>> {
        let pairs: Vec<Pair> = read_jsonl(&self.context.file("pairs", name)?)?;
        Ok(pairs.iter().map(|p| tokenizer.pair(p)).collect())
    }

    /// Single completions: those of an unpaired file, or both sides of each pair.
    fn feedback(&self, name: &str, tokenizer: &TextTokenizer) -> Result<Vec<Feedback>> {
        if self.suite.dataset.has_pairs() {
            return Ok(Feedback::of_pairs(&self.tokenized_pairs(name, tokenizer)?));
        }
        let rows: Vec<LabelledCompletion> = read_jsonl(&self.context.file("pairs", name)?)?;
        let feedback = |row: &LabelledCompletion| {
            let prompt = tokenizer.prompt(&row.prompt);
            let completion = tokenizer.completion(&row.prompt, &prompt, &row.completion).ids;
            Feedback { id: row.id.clone(), prompt, completion, desirable: row.label }
        };
        Ok(rows.iter().map(feedback).collect())
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
            true => self.tokenized_pairs("heldout.jsonl", &tokenizer)?,
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
            scores.extend(train::pair_scores(&of, &policy, &reference, &heldout, Some(max_length), self.context.watch)?);
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
                let folder = self.context.folder(&plan::train_id(name, seed))?;
                let load = |step: u64| self.load_policy(&folder.join(format!("checkpoint-{step}")), reference);
                checkpoints_in(&folder)?.into_iter().map(|step| Ok((step, load(step)?, settings.objective.beta))).collect()
            }
            (PolicySource::Train(_), None) => Err(Error::unexpected(format!("variant `{name}` is trained under a seed"))),
        }
    }

    /// The gold reward, where the truth is known.
    fn gold(&self) -> Option<fn(&str, &str) -> f64> {
        matches!(self.suite.dataset, Dataset::World(_)).then_some(world::gold_reward)
    }

    fn judgments(&self, judge: &str, variant: &str, seed: Option<u64>) -> Result<Vec<String>> {
        let read = |id: String| read_jsonl::<Completion>(&self.context.file(&id, "completions.jsonl")?);
        let reference = read(plan::evaluate_id(None, None))?;
        let policy = read(plan::evaluate_id(Some(variant), seed))?;
        let items = protocol::items(&policy, &reference)?;
        let rows = if judge == GOLD {
            judge::gold::judgments(&items)
        } else {
            let folder = self.context.folder(&plan::judge_id(judge))?.join(JUDGE_FOLDER);
            let mut onnx = OnnxJudge::open(&folder, self.judge_settings(judge)?, self.context.threads)?;
            onnx.judge(&items, self.context.watch)?
        };
        write_jsonl(&self.work().join("judgments.jsonl"), &rows)?;
        Ok(names(&["judgments.jsonl"]))
    }
}

/// Splits rows so that a prompt's rows stay together; the first share of the prompts comes first.
fn split_by_prompt<R: PreferenceRow>(rows: Vec<R>, share: f64) -> (Vec<R>, Vec<R>) {
    let mut prompts: Vec<&str> = Vec::new();
    for row in &rows {
        if !prompts.contains(&row.prompt_id()) {
            prompts.push(row.prompt_id());
        }
    }
    let first: std::collections::BTreeSet<String> =
        prompts.iter().take((prompts.len() as f64 * share).round() as usize).map(|&id| id.to_owned()).collect();
    rows.into_iter().partition(|row| first.contains(row.prompt_id()))
}

/// The steps of the `checkpoint-<step>` folders, ascending.
pub fn checkpoints_in(folder: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("list", folder, &e))?;
    let mut steps: Vec<u64> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Copies the files of a judge's folder; gives their names in order.
fn copy_folder(from: &Path, to: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(to).map_err(|e| Error::io("create", to, &e))?;
    let names = files_in(from)?;
    for name in &names {
        std::fs::copy(from.join(name), to.join(name)).map_err(|e| Error::io("copy", &from.join(name), &e))?;
    }
    Ok(names)
}

/// The names of the files in a folder, in order.
fn files_in(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, &e))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok().filter(|e| e.path().is_file())?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
