//! Judges: trained or brought along, measured on held-out pairs, probed, and asked about what the policies wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Body, JUDGE_FOLDER, names};
use crate::data::Pair;
use crate::data::files::{read_jsonl, write_jsonl};
use crate::data::tokenize::TextTokenizer;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::estimates::sequential::{self, Rule, Stopped};
use crate::generate::Completion;
use crate::hub::{self, Files};
use crate::judge::asking::Asking;
use crate::judge::gold::Gold;
use crate::judge::implicit::Implicit;
use crate::judge::journal::Journal;
use crate::judge::panel::Panel;
use crate::judge::probes::{self, Answered};
use crate::judge::replay::Replay;
use crate::judge::rubric::Rubric;
use crate::judge::session::{OnnxJudge, TOKENIZER_FILE};
use crate::judge::verdict::Item;
use crate::judge::{self, GOLD, Judge, Judgment, protocol};
use crate::model::{self, Llama};
use crate::run::execute::Context;
use crate::run::plan;
use crate::store::CHAIN;
use crate::suite::Suite;
use crate::suite::settings::{ImplicitReward, ImplicitSettings, JudgeSettings, JudgeSource, Numerics, Tokenization};
use crate::train::ScoreCache;
use crate::watch::Watch;

/// What a judge said of its probes.
pub const PROBES: &str = "probes.jsonl";

/// Which prompts were judged before judging stopped.
pub const STOPPED: &str = "stopped.jsonl";
/// How a judge is run, and what its answers rest on.
const SESSION: &str = "session.json";

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

/// What `use_judge` reads: the cells of a judge that is trained here, and of the reference where a policy's rewards need it.
pub fn cells_of_judge(suite: &Suite, name: &str) -> Vec<String> {
    let Some(settings) = suite.judges.iter().find(|judge| judge.name == name) else { return Vec::new() };
    match &settings.source {
        JudgeSource::Train(_) => vec![plan::judge_id(name)],
        JudgeSource::Implicit(implicit) if implicit.reference.is_none() => vec!["reference".to_owned()],
        JudgeSource::Panel(panel) => panel.members.iter().flat_map(|member| cells_of_judge(suite, member)).collect(),
        _ => Vec::new(),
    }
}

/// Opens a judge of a suite outside of its plan, and does something with it. The context's inputs hold `cells_of_judge`.
pub fn use_judge<T>(
    suite: &Suite,
    name: &str,
    context: &Context<'_>,
    ask: impl FnOnce(&mut dyn Judge) -> Result<T>,
) -> Result<T> {
    let cache = ScoreCache::new(context.store, plan::ENGINE);
    let body = Body { suite, context, cache: Some(cache) };
    let mut judge = body.open_judge(name)?;
    ask(&mut judge)
}

impl Body<'_> {
    fn judge_settings(&self, name: &str) -> Result<&JudgeSettings> {
        let found = self.suite.judges.iter().find(|j| j.name == name);
        found.ok_or_else(|| Error::unexpected(format!("the suite has no judge `{name}`")))
    }

    /// A judge: what it takes to ask it, and its answers on held-out pairs.
    pub(super) fn judge(&self, name: &str) -> Result<Vec<String>> {
        let settings = self.judge_settings(name)?;
        let folder = self.work().join(JUDGE_FOLDER);
        let mut outputs = match &settings.source {
            JudgeSource::Train(training) => {
                let inputs = self.judge_inputs()?;
                let (base, tokenizer, pairs) = (&inputs.base, &inputs.tokenizer, &inputs.pairs);
                let (seed, watch) = (self.suite.seed, self.context.watch);
                judge::train::train_judge(settings, training, base, tokenizer, pairs, seed, self.work(), watch)?;
                files_in(&folder)?
            }
            JudgeSource::Folder { path } => {
                // Of the hub's cache only what is part of the key.
                let needed = Suite::model_on_hub(path).map(|judge| hub::digests(&judge, Files::Judge)).transpose()?;
                let needed = needed.map(|digests| digests.into_keys().collect());
                copy_folder(&self.suite.locate(path), &folder, needed)?
            }
            JudgeSource::Replay { path } => vec![copy_file(&self.suite.locate_data(path), &folder)?],
            JudgeSource::Rubric { .. } | JudgeSource::Implicit(_) | JudgeSource::Panel(_) => Vec::new(),
        };
        outputs.iter_mut().for_each(|name| *name = format!("{JUDGE_FOLDER}/{name}"));
        let heldout: Vec<Pair> = read_jsonl(&self.context.file("pairs", "judge_heldout.jsonl")?)?;
        let original = |e| self.about_the_original(e, settings, &folder);
        let mut judge = if settings.is_onnx() {
            let onnx = OnnxJudge::open(&folder, settings, self.context.threads).map_err(original)?;
            outputs.extend(self.record(&onnx)?);
            self.journaled(settings, &folder, onnx)?
        } else {
            self.open_from(settings, &folder, None).map_err(original)?
        };
        write_jsonl(&self.work().join("trials.jsonl"), &protocol::trials(&mut judge, name, &heldout, self.context.watch)?)?;
        outputs.push("trials.jsonl".into());
        outputs.extend(matches!(settings.source, JudgeSource::Train(_)).then(judge_chain));
        Ok(outputs)
    }

    /// A judge whose cell is finished, or that needs none, or gold.
    pub(super) fn open_judge(&self, name: &str) -> Result<Box<dyn Judge + '_>> {
        if name == GOLD {
            return Ok(Box::new(Gold));
        }
        let settings = self.judge_settings(name)?;
        let cell = plan::judge_id(name);
        // What the judge's own cell found out when it was opened there.
        let record = self.context.inputs.contains_key(&cell).then(|| self.context.folder(&cell)).transpose()?;
        let record = record.map(|folder| folder.join(SESSION));
        let folder = match &settings.source {
            JudgeSource::Folder { path } if !self.context.inputs.contains_key(&cell) => self.suite.locate(path),
            JudgeSource::Replay { path } if !self.context.inputs.contains_key(&cell) => {
                self.suite.locate(path).parent().unwrap_or(Path::new(".")).to_owned()
            }
            JudgeSource::Train(_) | JudgeSource::Folder { .. } | JudgeSource::Replay { .. } => {
                self.context.folder(&cell)?.join(JUDGE_FOLDER)
            }
            JudgeSource::Rubric { .. } | JudgeSource::Implicit(_) | JudgeSource::Panel(_) => PathBuf::new(),
        };
        self.open_from(settings, &folder, record.as_deref())
    }

    /// `folder`: what the judge's cell left of it; `record`: how an ONNX judge was run there.
    fn open_from<'s>(&'s self, settings: &JudgeSettings, folder: &Path, record: Option<&Path>) -> Result<Box<dyn Judge + 's>> {
        let (name, tie_width) = (&settings.name, settings.tie_width);
        Ok(match &settings.source {
            JudgeSource::Train(_) | JudgeSource::Folder { .. } => {
                let threads = self.context.threads;
                let onnx = match record {
                    Some(record) => OnnxJudge::reopen(folder, settings, threads, record),
                    None => OnnxJudge::open(folder, settings, threads),
                };
                self.journaled(settings, folder, onnx?)?
            }
            JudgeSource::Rubric { rules } => Box::new(Asking::new(name, Rubric::new(rules)?, tie_width, None)),
            JudgeSource::Implicit(implicit) => {
                let judge = self.implicit(implicit, settings.max_length.unwrap_or(usize::MAX))?;
                let strict = self.suite.numerics == Numerics::Strict;
                let journal = if strict { self.journal(&judge.identity())? } else { None };
                Box::new(Asking::new(name, judge, tie_width, journal))
            }
            JudgeSource::Replay { path } => {
                let file = self.suite.locate_data(path).file_name().map(|name| folder.join(name)).unwrap_or_default();
                Box::new(Replay::open(&file, tie_width)?)
            }
            JudgeSource::Panel(panel) => {
                let members = panel.members.iter().map(|member| self.open_judge(member)).collect::<Result<_>>()?;
                Box::new(Panel::new(members, panel.combine, tie_width))
            }
        })
    }

    fn journaled<'s>(&'s self, settings: &JudgeSettings, folder: &Path, onnx: OnnxJudge) -> Result<Box<dyn Judge + 's>> {
        let journal = self.journal(&judge::identity(folder, settings)?)?;
        Ok(Box::new(Asking::new(&settings.name, onnx, settings.tie_width, journal)))
    }

    /// How the judge is run, and what a reader of its scores should know of it.
    fn record(&self, judge: &OnnxJudge) -> Result<Vec<String>> {
        let path = self.work().join(SESSION);
        let text = serde_json::to_string_pretty(&judge.record()?).expect("plain fields serialise") + "\n";
        std::fs::write(&path, text).map_err(|e| Error::io("write", &path, &e))?;
        let mut outputs = names(&[SESSION]);
        if let Some(item) = judge.audit() {
            write_jsonl(&self.work().join("audit.jsonl"), &[item])?;
            outputs.push("audit.jsonl".into());
        }
        Ok(outputs)
    }

    /// Where answers are kept; what is repeated is asked anew.
    fn journal<T: Serialize>(&self, identity: &T) -> Result<Option<Journal<'_>>> {
        self.cache.as_ref().map(|_| Journal::open(self.context.store, identity)).transpose()
    }

    /// Judges read texts as one, however policies do.
    fn judges_tokenizer(&self) -> Result<TextTokenizer> {
        Ok(self.tokenizer()?.with_tokenization(Tokenization::Joint))
    }

    fn implicit(&self, settings: &ImplicitSettings, max_length: usize) -> Result<Implicit> {
        let reference = match &settings.reference {
            Some(folder) => model::load(&self.suite.locate(&folder.path), self.suite.numerics)?,
            None => self.evaluated_reference()?,
        };
        let folder = self.suite.locate(&settings.path);
        let policy = self.load_evaluated(&folder, reference.as_ref())?;
        let beside = settings.reference.as_ref().map(|folder| self.suite.locate(&folder.path));
        let mut folders = std::iter::once(folder.clone()).chain(beside);
        let tokenizer = match folders.find(|folder| folder.join(TOKENIZER_FILE).exists()) {
            Some(folder) => TextTokenizer::load(&folder)?.for_texts(self.suite.dataset.is_conversational()),
            None => self.judges_tokenizer()?,
        };
        let reference = (settings.reward == ImplicitReward::LogRatio).then_some(reference);
        Implicit::new(policy, reference, tokenizer, settings.reward, settings.beta, max_length).map_err(|e| e.in_file(&folder))
    }

    /// What the judge says of the reference's completions dressed up.
    pub(super) fn probes(&self, name: &str) -> Result<Vec<String>> {
        let completions: Vec<Completion> = read_jsonl(&self.context.file(&plan::evaluate_id(None, None), "completions.jsonl")?)?;
        let first = completions.iter().filter(|completion| completion.sample == 0);
        let answers: Vec<Answered> =
            first.map(|c| Answered { prompt_id: &c.prompt_id, prompt: &c.prompt, text: &c.text }).collect();
        let count = match name {
            GOLD => self.suite.judges.iter().map(|judge| judge.fitness.probes).max().unwrap_or_default(),
            _ => self.judge_settings(name)?.fitness.probes,
        };
        let shown = probes::make(&answers, count);
        let rows = probes::run(&mut self.open_judge(name)?, name, &shown, self.context.watch)?;
        write_jsonl(&self.work().join(PROBES), &rows)?;
        Ok(names(&[PROBES]))
    }

    /// The training of a judge by itself.
    pub(super) fn judge_training(&self, name: &str) -> Result<Vec<String>> {
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
        Ok(JudgeInputs { base: self.reference_model()?, tokenizer: self.judges_tokenizer()?, pairs })
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

    fn completions_of(&self, variant: Option<&str>, seed: Option<u64>) -> Result<Vec<Completion>> {
        read_jsonl(&self.context.file(&plan::evaluate_id(variant, seed), "completions.jsonl")?)
    }

    /// `after`: the cell that says which prompts are judged.
    pub(super) fn judgments(&self, judge: &str, variant: &str, seed: Option<u64>, after: Option<&str>) -> Result<Vec<String>> {
        let (reference, policy) = (self.completions_of(None, None)?, self.completions_of(Some(variant), seed)?);
        let mut items = protocol::items(&policy, &reference)?;
        if let Some(cell) = after {
            let stopped: Vec<Stopped> = read_jsonl(&self.context.file(cell, STOPPED)?)?;
            let order: Vec<&str> = stopped.iter().flat_map(|s| &s.prompts).map(String::as_str).collect();
            items = in_order(&items, &order);
        }
        let rows = protocol::judgments(&mut self.open_judge(judge)?, judge, &items, self.context.watch)?;
        write_jsonl(&self.work().join("judgments.jsonl"), &rows)?;
        Ok(names(&["judgments.jsonl"]))
    }

    /// Prompt by prompt, all samples, seeds and checkpoints of each, until the rule has enough.
    pub(super) fn sequential(&self, judge: &str, variant: &str, seeds: &[Option<u64>], rule: &Rule) -> Result<Vec<String>> {
        let reference = self.completions_of(None, None)?;
        let of_seeds = seeds.iter().map(|seed| self.completions_of(Some(variant), *seed)).collect::<Result<Vec<_>>>()?;
        let policy = of_seeds.concat();
        let items = protocol::items(&policy, &reference)?;
        let order = sequential::order(policy.iter().map(|c| c.prompt_id.as_str()), self.suite.seed);
        let texts: BTreeMap<&str, String> =
            policy.iter().map(|c| (c.prompt_id.as_str(), Digest::of_bytes(c.prompt.as_bytes()).short())).collect();
        let last = policy.iter().map(|c| c.checkpoint).max();
        let mut asked = self.open_judge(judge)?;
        let mut rows: Vec<Judgment> = Vec::new();
        let (mut used, mut decided) = (0, false);
        for block in order.chunks(sequential::BLOCK) {
            let watch = BlockWatch { whole: self.context.watch, before: used, block: block.len(), of: order.len() };
            rows.extend(protocol::judgments(&mut asked, judge, &in_order(&items, block), &watch)?);
            used += block.len();
            let deciding = rows.iter().filter(|j| Some(j.checkpoint) == last).map(|j| (j.prompt_id.as_str(), j.preference));
            decided = rule.decides(&sequential::by_prompt(deciding), &texts);
            if decided {
                break;
            }
        }
        let stopped = Stopped {
            variant: variant.to_owned(),
            judge: judge.to_owned(),
            prompts: order[..used].iter().map(|&prompt| prompt.to_owned()).collect(),
            of: order.len(),
            decided,
            compared: rule.golden.is_some(),
        };
        write_jsonl(&self.work().join("judgments.jsonl"), &rows)?;
        write_jsonl(&self.work().join(STOPPED), &[stopped])?;
        Ok(names(&["judgments.jsonl", STOPPED]))
    }
}

/// A block's progress as progress of the whole, in prompts.
struct BlockWatch<'a> {
    whole: &'a dyn Watch,
    before: usize,
    block: usize,
    of: usize,
}

impl Watch for BlockWatch<'_> {
    fn advance(&self, done: u64, total: u64, note: &str) {
        let within = self.block as u64 * done / total.max(1);
        self.whole.advance(self.before as u64 + within, self.of as u64, note);
    }

    fn interrupted(&self) -> bool {
        self.whole.interrupted()
    }

    fn warn(&self, message: &str) {
        self.whole.warn(message);
    }
}

/// The items of these prompts, prompt by prompt.
fn in_order<'a>(items: &[Item<'a>], prompts: &[&str]) -> Vec<Item<'a>> {
    let mut of: BTreeMap<&str, Vec<Item<'a>>> = BTreeMap::new();
    items.iter().for_each(|item| of.entry(&item.policy.prompt_id).or_default().push(*item));
    prompts.iter().filter_map(|prompt| of.remove(prompt)).flatten().collect()
}

/// Copies the files of a judge's folder; gives their names in order.
fn copy_folder(from: &Path, to: &Path, needed: Option<Vec<String>>) -> Result<Vec<String>> {
    std::fs::create_dir_all(to).map_err(|e| Error::io("create", to, &e))?;
    let names = needed.map_or_else(|| files_in(from), Ok)?;
    for name in &names {
        std::fs::copy(from.join(name), to.join(name)).map_err(|e| Error::io("copy", &from.join(name), &e))?;
    }
    Ok(names)
}

/// Copies one file into a folder; gives its name.
fn copy_file(from: &Path, to: &Path) -> Result<String> {
    std::fs::create_dir_all(to).map_err(|e| Error::io("create", to, &e))?;
    let name = from.file_name().ok_or_else(|| Error::usage(format!("{} names no file", from.display())))?;
    std::fs::copy(from, to.join(name)).map_err(|e| Error::io("copy", from, &e))?;
    Ok(name.to_string_lossy().into_owned())
}

/// The names of the files in a folder, in order.
fn files_in(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, &e))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok().filter(|e| e.path().is_file())?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
