//! A judge as ONNX Runtime runs it: `model.onnx` and `tokenizer.json` of a folder, opened, checked, and asked.
//!
//! | file | what it is for |
//! |---|---|
//! | `card` | what the configurations beside the model say |
//! | `signature` | the model's inputs and outputs |
//! | `meaning` | from classes to a logit or a score |
//! | `model` | sessions, batches, answers |
//! | `probes` | is the model fit to judge, and may questions share a batch? |
//! | `record` | what a score's last bits rest on |

mod card;
mod meaning;
mod model;
mod probes;
mod record;
mod signature;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::judge::reader::{Limits, Question, Reader};
use crate::suite::settings::{JudgeKind, JudgeSettings, Side};
use crate::watch::Watch;
use card::Card;
use meaning::Meaning;
use model::Padding;

pub(crate) use model::{Batching, KIND, MAX_POSITIONS, Model};
pub use record::SessionRecord;

/// The model's file in a judge's folder.
pub const MODEL_FILE: &str = "model.onnx";
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";

/// A judge ready to be asked.
pub struct OnnxJudge {
    pub(crate) settings: JudgeSettings,
    pub(crate) reader: Reader,
    limits: Limits,
    model: Model,
}

impl OnnxJudge {
    /// Opens `folder` (`model.onnx`, `tokenizer.json`) with `threads` workers. A model that can't judge is refused here.
    pub fn open(folder: &Path, settings: &JudgeSettings, threads: usize) -> Result<Self> {
        let (mut judge, card) = Self::unprobed(folder, settings, threads)?;
        judge.probe(&card)?;
        Ok(judge)
    }

    /// [`Self::open`] of a judge that was opened and probed before: `record` is the file of its [`SessionRecord`]. Where all that scores rest on
    /// is as it was, questions share batches as they did; else it is probed anew.
    pub fn reopen(folder: &Path, settings: &JudgeSettings, threads: usize, record: &Path) -> Result<Self> {
        let (mut judge, card) = Self::unprobed(folder, settings, threads)?;
        let recorded: Option<Value> = std::fs::read(record).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let batching = recorded.as_ref().and_then(|record| Batching::deserialize(&record["batching"]).ok());
        let asked = judge.model.batching;
        judge.model.batching = batching.unwrap_or(asked);
        if recorded != Some(serde_json::to_value(judge.record()?).expect("plain fields serialise")) {
            judge.model.batching = asked;
            judge.probe(&card)?;
        }
        Ok(judge)
    }

    fn unprobed(folder: &Path, settings: &JudgeSettings, threads: usize) -> Result<(Self, Card)> {
        let mut card = Card::read(folder)?;
        let path = folder.join(MODEL_FILE);
        let onnx = &settings.onnx;
        let padding = Padding {
            side: onnx.padding_side.or(card.padding_side).unwrap_or(Side::Right),
            token: onnx.pad_token_id.or(card.pad_token_id).unwrap_or(0),
        };
        let mut model = Model::with(&path, onnx, padding, threads, |signature| {
            let declared = (onnx.labels.as_slice(), onnx.values);
            let of = |classes| Meaning::of(settings.kind, classes, declared, &card.labels, &signature.output);
            // Where the model leaves open how many classes it has, the names or the labels say it.
            let classes = signature.classes.or(Some(onnx.labels.len().max(card.labels.len())).filter(|&n| n > 0));
            classes.map(of).unwrap_or_else(|| {
                let message = format!("nothing says how many classes its output `{}` has", signature.output);
                Err(Error::input(message)
                    .help("write `labels` in its [[judge]] table, or give `--labels`: what each class means"))
            })
        })?;
        let ours = model.metadata(KIND).is_some();
        if ours {
            // Its folder also holds what the language model's tokenizer says, which isn't about it.
            (card.truncation_side, model.padding) = (None, Padding::default());
        }
        let limits = limits(settings, &card, &model)?;
        let reader = Reader::open(settings.kind, &settings.template.0, &folder.join(TOKENIZER_FILE), limits)?;
        // Token types in one text are a form of ours: the models of others learnt them from pairs.
        let reader = if ours { reader } else { reader.without_split() };
        Ok((Self { settings: settings.clone(), reader, limits, model }, card))
    }

    pub fn kind(&self) -> JudgeKind {
        self.settings.kind
    }

    /// The digest of `model.onnx`, and of the files of its weights where they are outside it.
    pub fn model_digest(&self) -> Digest {
        self.model.digest()
    }

    /// The model's answers (a logit or a score each), in the order of `questions`. Equal questions are asked once.
    pub(crate) fn ask(&mut self, questions: &[Question], watch: &dyn Watch) -> Result<Vec<f64>> {
        let mut distinct: BTreeMap<(&[u32], Option<usize>), usize> = BTreeMap::new();
        let mut asked: Vec<&Question> = Vec::new();
        let places: Vec<usize> = questions
            .iter()
            .map(|question| {
                *distinct.entry((&question.ids, question.split)).or_insert_with(|| {
                    asked.push(question);
                    asked.len() - 1
                })
            })
            .collect();
        let answers = self.model.answers(&asked, watch).map_err(|mut error| {
            error.message = format!("judge {}: {}", self.settings.name, error.message);
            error
        })?;
        Ok(places.into_iter().map(|place| answers[place]).collect())
    }
}

/// The suite first, then what the folder says; a judge of which nothing says it, ours among them, loses the beginning.
fn limits(settings: &JudgeSettings, card: &Card, model: &Model) -> Result<Limits> {
    let name = &settings.name;
    let ours: Option<usize> = model.metadata(MAX_POSITIONS).and_then(|positions| positions.parse().ok());
    if let (Some(positions), Some(length)) = (ours, settings.max_length)
        && length > positions
    {
        let message = format!("judge {name} has max_length = {length}, but its model takes at most {positions} tokens");
        return Err(Error::usage(message).help(format!("set max_length to {positions} or less")));
    }
    let told = [card.tokenizer_limit, card.positions, ours].into_iter().flatten().min();
    let max_length = settings.max_length.or(told).ok_or_else(|| {
        Error::usage(format!(
            "judge {name} doesn't say how long a text it reads: neither tokenizer_config.json nor config.json tells"
        ))
        .help("write `max_length` in its [[judge]] table")
    })?;
    let side = settings.onnx.truncation_side.or(card.truncation_side).unwrap_or(Side::Left);
    Ok(Limits { max_length, prompt: settings.onnx.prompt_max_length, side })
}

#[cfg(test)]
mod tests;
