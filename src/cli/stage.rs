//! One stage by itself, on files: `train`, `logps`, `merge`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::args::{Common, LogpsArguments, MergeArguments, TrainArguments};
use crate::cli::hub::{fetch, located};
use crate::cli::suite::execute_plan;
use crate::cli::{Code, print};
use crate::data::files::read_jsonl;
use crate::data::tokenize::{CHAT_TEMPLATE, TextTokenizer};
use crate::error::{Error, Kind, Result};
use crate::hub::{Files, Repo};
use crate::judge::runtime;
use crate::model::{Adapter, Llama, Packed, Target};
use crate::report::write_logs;
use crate::rlhf::{ONLINE_LOG, OnlineStep};
use crate::run::plan::{Plan, Stage, plan, train_ids};
use crate::run::stages::checkpoints_of;
use crate::store::{Store, TENSORBOARD, TIMING};
use crate::suite::Suite;
use crate::suite::settings::{ModelSource, PolicySource};
use crate::train::{EVAL_LOG, EvalStep, LAST, TrainStep};

pub fn train(arguments: &TrainArguments, common: &Common) -> Result<Code> {
    let suite = crate::suite::load(&arguments.suite)?;
    fetch(&suite, common.quiet)?;
    let variant = suite.variants.iter().find(|v| v.name == arguments.variant).ok_or_else(|| {
        let names: Vec<&str> = suite.variants.iter().map(|v| v.name.as_str()).collect();
        Error::new(Kind::NothingSelected, format!("the suite has no variant `{}`", arguments.variant))
            .help(format!("it has {}", names.join(", ")))
    })?;
    let settings = variant.training().ok_or_else(|| {
        let why = match &variant.policy {
            PolicySource::Decoded(_) => "is another policy decoded in another way: nothing is trained",
            PolicySource::BestOfN(_) => "is chosen completions of the reference: nothing is trained",
            PolicySource::Checkpoint { .. } | PolicySource::Train(_) => "was trained elsewhere",
        };
        Error::usage(format!("variant `{}` {why}", variant.name))
    })?;
    if let (Some(export), ModelSource::Folder { path }) = (&arguments.export, &suite.model) {
        not_onto("--export", export, &suite.locate(path))?;
    }
    let seed = arguments.seed.unwrap_or(suite.seeds[0]);
    if !suite.seeds.contains(&seed) {
        return Err(Error::new(Kind::NothingSelected, format!("{seed} is none of the suite's seeds {:?}", suite.seeds)));
    }
    let ids = train_ids(&variant.name, settings, seed);
    let plan = training_plan(&suite, &ids)?;
    let store = Store::open(&common.store)?;
    let receipts = execute_plan(&suite, &plan, &store, common)?;
    let rounds = ids.iter().map(|id| store.verified_folder(&receipts[id])).collect::<Result<Vec<PathBuf>>>()?;
    let reference = store.verified_folder(&receipts["reference"])?;
    let (mut log, mut online, mut evaluations) = (Vec::<TrainStep>::new(), Vec::<OnlineStep>::new(), Vec::<EvalStep>::new());
    for (number, (id, trained)) in (1..).zip(ids.iter().zip(&rounds)) {
        log.extend(read_jsonl::<TrainStep>(&trained.join("train_log.jsonl"))?);
        if receipts[id].outputs.contains_key(ONLINE_LOG) {
            online.extend(read_jsonl::<OnlineStep>(&trained.join(ONLINE_LOG))?);
        }
        if receipts[id].outputs.contains_key(EVAL_LOG) {
            evaluations.extend(read_jsonl::<EvalStep>(&trained.join(EVAL_LOG))?);
        }
        let beside = match rounds.len() {
            1 => arguments.output.clone(),
            _ => arguments.output.join(format!("round-{number}")),
        };
        for name in [TIMING, TENSORBOARD] {
            copy_aside(&trained.join(name), &beside.join(name))?;
        }
    }
    write_logs(&arguments.output, &log, &online, &evaluations)?;
    let last = checkpoints_of(&rounds)?.pop();
    let (_, checkpoint) = last.ok_or_else(|| Error::unexpected("the training left no checkpoint"))?;
    let folder = arguments.output.join("final");
    copy_model(&checkpoint, &folder, &reference)?;
    // Where `final` has the best weights, and these are others.
    let ended_with = rounds.last().map(|round| round.join(LAST)).filter(|last| last.exists());
    if let Some(last) = ended_with {
        copy_model(&last, &arguments.output.join(LAST), &reference)?;
    }
    if Adapter::is_in(&checkpoint) {
        copy_model(&reference, &arguments.output.join("base"), &reference)?;
    }
    if let Some(export) = &arguments.export {
        match Adapter::is_in(&checkpoint) {
            true => write_merged(&checkpoint, &reference, export)?,
            false => copy_model(&checkpoint, export, &reference)?,
        }
        anstream::eprintln!("wrote {}", export.display());
    }
    anstream::eprintln!("wrote {} and {}", arguments.output.join("train_log.csv").display(), folder.display());
    Ok(Code::Pass)
}

/// The cells of a training and what they need. Judges play no part in it, and so their runtime doesn't either, unless one labels the
/// pairs of later rounds.
fn training_plan(suite: &Suite, ids: &[String]) -> Result<Plan> {
    let expected = plan(suite, runtime::expected_library())?.restricted_to(ids);
    match expected.cells.iter().any(|cell| matches!(cell.stage, Stage::Judge { .. })) {
        true => Ok(plan(suite, runtime::ensure()?.library)?.restricted_to(ids)),
        false => Ok(expected),
    }
}

const MODEL: [&str; 2] = ["config.json", "model.safetensors"];
const TOKENIZER: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", CHAT_TEMPLATE];

/// Makes the folder `to` a model, or an adapter, that loads by itself: its weights and configuration, and the tokenizer of another.
fn copy_model(from: &Path, to: &Path, tokenizer: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| Error::io("create", to, &e))?;
    let files = if Adapter::is_in(from) { [Adapter::CONFIG, Adapter::WEIGHTS] } else { MODEL };
    files.iter().try_for_each(|name| copy(&from.join(name), &to.join(name)))?;
    copy_tokenizer(tokenizer, to)
}

/// What there is of a tokenizer: a chat template may stand in `tokenizer_config.json`, or be none.
fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    TOKENIZER.iter().filter(|name| from.join(name).exists()).try_for_each(|name| copy(&from.join(name), &to.join(name)))
}

/// Writes the base's weights with the adapter's added as a plain model.
pub fn merge(arguments: &MergeArguments) -> Result<Code> {
    let (adapter, base, output) = (&arguments.adapter, &arguments.base, &arguments.output);
    if !Adapter::is_in(adapter) {
        return Err(Error::input(format!("{} holds no adapter: {} is missing", adapter.display(), Adapter::CONFIG)));
    }
    not_onto("--output", output, base)?;
    write_merged(adapter, base, output)?;
    anstream::eprintln!("wrote {}", output.display());
    Ok(Code::Pass)
}

fn write_merged(adapter: &Path, base: &Path, output: &Path) -> Result<()> {
    Llama::load_policy(adapter, || Llama::load(base))?.save(output)?;
    copy_tokenizer(base, output)
}

/// What a flag names mustn't be the model that is read.
fn not_onto(flag: &str, written: &Path, base: &Path) -> Result<()> {
    match (base.canonicalize(), written.canonicalize()) {
        (Ok(base), Ok(written)) if base == written => {
            let error = Error::usage(format!("{flag} is the base's own folder, which would be overwritten"));
            Err(error.help("name another folder"))
        }
        _ => Ok(()),
    }
}

/// A file, or a folder of files; nothing where a cell of an older store has none.
fn copy_aside(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        let folder = to.parent().expect("it lies in the output folder");
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
        return copy(from, to);
    }
    let Ok(entries) = std::fs::read_dir(from) else { return Ok(()) };
    entries
        .filter_map(|entry| entry.ok().map(|e| e.file_name()))
        .try_for_each(|name| copy_aside(&from.join(&name), &to.join(&name)))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map(drop).map_err(|e| Error::io("write", to, &e))
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum LogpsInput {
    Ids { ids: Vec<u32> },
    Text { prompt: String, completion: String },
}

#[derive(Serialize)]
struct LogpsOutput {
    logps: Vec<f32>,
}

/// For each line, the log-probability (nats) of every token after the first given those before it.
pub fn logps(arguments: &LogpsArguments, common: &Common) -> Result<Code> {
    let folder = located(Repo::Model, &arguments.model, Files::Model, common.quiet)?;
    let model = Llama::load(&folder)?;
    let inputs: Vec<LogpsInput> = read_jsonl(&arguments.file)?;
    let mut tokenizer = None;
    for (index, input) in inputs.iter().enumerate() {
        let ids = match input {
            LogpsInput::Ids { ids } => ids.clone(),
            LogpsInput::Text { prompt, completion } => {
                if tokenizer.is_none() {
                    tokenizer = Some(TextTokenizer::load(&folder)?);
                }
                let tokenizer = tokenizer.as_ref().expect("loaded above");
                let prompt_ids = tokenizer.prompt(prompt);
                let joint = tokenizer.completion(prompt, &prompt_ids, completion);
                [prompt_ids, joint.ids].concat()
            }
        };
        let wrong = |message: String| Error::input(message).at_line(&arguments.file, index + 1);
        if let Some(id) = ids.iter().find(|&&id| id as usize >= model.config.vocab_size) {
            return Err(wrong(format!("token {id} is outside the model's vocabulary of {}", model.config.vocab_size)));
        }
        if ids.len() > model.config.max_position_embeddings {
            let context = model.config.max_position_embeddings;
            return Err(wrong(format!("{} tokens are more than the model's context of {context}", ids.len())));
        }
        let mut batch = Packed::new();
        batch.push(&ids);
        let targets: Vec<Target> = ids.iter().skip(1).enumerate().map(|(row, &token)| Target { row, token }).collect();
        let logps = model.score(&batch, &targets).iter().map(|s| s.logp).collect();
        let line = serde_json::to_string(&LogpsOutput { logps }).expect("numbers serialise");
        print(&format!("{line}\n"))?;
    }
    Ok(Code::Pass)
}
