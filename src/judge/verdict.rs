//! What every judge is: something that says of two completions of a prompt which is better. Models in ONNX Runtime, text rules, implicit
//! rewards, recorded verdicts, panels and the world's own truth all answer through [`Judge`], and the protocol asks no more of them.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::generate::Completion;
use crate::train::objective::logistic;
use crate::watch::Watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Win,
    Tie,
    Loss,
}

impl Outcome {
    /// The same, seen from the other side.
    pub fn turned(self) -> Self {
        match self {
            Self::Win => Self::Loss,
            Self::Tie => Self::Tie,
            Self::Loss => Self::Win,
        }
    }

    /// Of a debiased logit that the first is better.
    fn of(logit: f64, tie_width: f64) -> Self {
        if logit.abs() <= tie_width {
            Self::Tie
        } else if logit > 0.0 {
            Self::Win
        } else {
            Self::Loss
        }
    }
}

/// A prompt and two completions of it: `[prompt, first, second]`.
pub type Texts<'a> = [&'a str; 3];

/// What a judge says of two texts, first against second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// (first shown first, second shown first) of judges that read both texts at once.
    pub logits: Option<(f64, f64)>,
    /// (first, second) of judges that score one text.
    pub scores: Option<(f64, f64)>,
    /// Debiased probability that the first is better.
    pub preference: f64,
    /// Of the first.
    pub outcome: Outcome,
    /// Whether the texts were too long for the judge to read as a whole.
    pub truncated: bool,
    /// False for identical texts: a tie without asking.
    pub asked: bool,
}

impl Verdict {
    pub const IDENTICAL: Self =
        Self { logits: None, scores: None, preference: 0.5, outcome: Outcome::Tie, truncated: false, asked: false };

    /// From the logits of "the first shown is better" in both orders: σ((l₁ − l₂) / 2), which a judge that only likes the first place
    /// leaves at ½ (both orders averaged as in LLM-Blender; Jiang et al. 2023, arXiv 2306.02561).
    pub fn of_logits(first_first: f64, second_first: f64, tie_width: f64, truncated: bool) -> Self {
        let logit = (first_first - second_first) / 2.0;
        Self {
            logits: Some((first_first, second_first)),
            scores: None,
            preference: logistic(logit),
            outcome: Outcome::of(logit, tie_width),
            truncated,
            asked: true,
        }
    }

    /// From a score of each: σ(s₁ − s₂) (Bradley and Terry 1952).
    pub fn of_scores(first: f64, second: f64, tie_width: f64, truncated: bool) -> Self {
        let logit = first - second;
        Self {
            logits: None,
            scores: Some((first, second)),
            preference: logistic(logit),
            outcome: Outcome::of(logit, tie_width),
            truncated,
            asked: true,
        }
    }

    /// From true rewards: there is no doubt in them, so 0, ½ or 1.
    pub fn of_truth(first: f64, second: f64) -> Self {
        let outcome = Outcome::of(first - second, 0.0);
        Self { scores: Some((first, second)), ..Self::of_preference(outcome.points(), outcome) }
    }

    /// From a probability that the first is better.
    pub fn of_probability(preference: f64, tie_width: f64) -> Self {
        Self::of_preference(preference, Outcome::of(libm::log(preference / (1.0 - preference)), tie_width))
    }

    /// A preference with its outcome, however both were come by.
    pub fn of_preference(preference: f64, outcome: Outcome) -> Self {
        Self { logits: None, scores: None, preference, outcome, truncated: false, asked: true }
    }

    /// (l₁ + l₂) / 2: what being shown first is worth, in logits.
    pub fn position_effect(&self) -> Option<f64> {
        self.logits.map(|(first_first, second_first)| (first_first + second_first) / 2.0)
    }
}

impl Outcome {
    /// 1 for a win, ½ for a tie.
    pub fn points(self) -> f64 {
        match self {
            Self::Win => 1.0,
            Self::Tie => 0.5,
            Self::Loss => 0.0,
        }
    }
}

/// Two completions of one prompt and sample index.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    pub policy: &'a Completion,
    pub reference: &'a Completion,
}

impl<'a> Item<'a> {
    pub fn texts(&self) -> Texts<'a> {
        [&self.policy.prompt, &self.policy.text, &self.reference.text]
    }
}

/// Anything that prefers one of two completions.
pub trait Judge {
    /// One verdict on each of `texts`, in order, identical ones included; none where the judge has nothing to say (a recorded judge
    /// that never saw them).
    fn ask(&mut self, texts: &[Texts], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>>;

    /// The same, but identical texts are a tie without asking.
    fn verdicts(&mut self, texts: &[Texts], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        let differing: Vec<Texts> = texts.iter().filter(|[_, first, second]| first != second).copied().collect();
        let mut answered = self.ask(&differing, watch)?.into_iter();
        let next = |[_, first, second]: &Texts| match first == second {
            true => Some(Verdict::IDENTICAL),
            false => answered.next().flatten(),
        };
        Ok(texts.iter().map(next).collect())
    }

    /// A score of each `[prompt, completion]`; none of judges that only compare.
    fn scores(&mut self, _texts: &[[&str; 2]], _watch: &dyn Watch) -> Result<Option<Vec<f64>>> {
        Ok(None)
    }

    /// Verdicts on what a policy wrote against what the reference did. Records may know them by more than their texts.
    fn of_items(&mut self, items: &[Item], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        self.verdicts(&items.iter().map(Item::texts).collect::<Vec<_>>(), watch)
    }
}

impl<J: Judge + ?Sized> Judge for Box<J> {
    fn ask(&mut self, texts: &[Texts], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        (**self).ask(texts, watch)
    }

    fn verdicts(&mut self, texts: &[Texts], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        (**self).verdicts(texts, watch)
    }

    fn scores(&mut self, texts: &[[&str; 2]], watch: &dyn Watch) -> Result<Option<Vec<f64>>> {
        (**self).scores(texts, watch)
    }

    fn of_items(&mut self, items: &[Item], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        (**self).of_items(items, watch)
    }
}
