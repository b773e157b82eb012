//! Who scores what a policy writes.

use std::path::Path;

use crate::data::tokenize::TextTokenizer;
use crate::digest::Digest;
use crate::error::Result;
use crate::generate::Sampled;
use crate::judge::reader::{Limits, Reader};
use crate::model::{Packed, Scorer};
use crate::suite::settings::{JudgeKind, JudgeSettings, Numerics};

/// Completions scored together. It bounds memory and has no influence on the bits.
const SCORED_TOGETHER: usize = 16;

pub enum Reward {
    /// The world's own.
    Gold(fn(&str, &str) -> f64),
    Model(Box<RewardModel>),
}

/// A reward model as it was trained here, asked in our own arithmetic: the runtime of its exported form differs in last bits.
pub struct RewardModel {
    scorer: Scorer,
    reader: Reader,
}

impl RewardModel {
    /// `folder`: the weights as a Hugging Face folder, as the judge's training leaves them.
    pub fn load(folder: &Path, judge: &JudgeSettings, tokenizer: &TextTokenizer, numerics: Numerics) -> Result<Self> {
        let scorer = Scorer { numerics, ..Scorer::load(folder)? };
        let max_length = judge.max_length.unwrap_or(scorer.config.max_position_embeddings);
        let reader = Reader::new(JudgeKind::RewardModel, &judge.template.0, tokenizer.json(), Limits::of(max_length))?;
        Ok(Self { scorer, reader })
    }

    fn scores(&self, samples: &[Sampled]) -> Result<Vec<f64>> {
        let mut scores = Vec::with_capacity(samples.len());
        for chunk in samples.chunks(SCORED_TOGETHER) {
            let (mut packed, mut rows) = (Packed::new(), Vec::with_capacity(chunk.len()));
            for sample in chunk {
                let segment = packed.push(&self.reader.read(&[&sample.prompt, &sample.text])?.ids);
                rows.push(packed.last_row(segment));
            }
            scores.extend(self.scorer.score(&packed, &rows).into_iter().map(f64::from));
        }
        Ok(scores)
    }
}

impl Reward {
    /// One score a completion.
    pub(super) fn scores(&self, samples: &[Sampled]) -> Result<Vec<f64>> {
        match self {
            Self::Gold(reward) => Ok(samples.iter().map(|s| reward(&s.prompt, &s.text)).collect()),
            Self::Model(model) => model.scores(samples),
        }
    }

    pub(super) fn identity(&self) -> Digest {
        match self {
            Self::Gold(_) => Digest::of_value("gold"),
            Self::Model(model) => model.scorer.parameters.digest(),
        }
    }
}
