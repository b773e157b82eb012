//! Where a judge's answers are read: rows of a packed batch, and what is made of their scores.

use std::ops::Range;

use serde::Serialize;

use crate::judge::reader::Question;
use crate::model::Packed;
use crate::suite::settings::{Attention, EncodingSettings, JudgeKind, JudgeSettings, Pooling};

/// How a judge reads, and what its answers are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Form {
    pub kind: JudgeKind,
    pub encoding: EncodingSettings,
}

impl Form {
    pub fn of(settings: &JudgeSettings) -> Self {
        Self { kind: settings.kind, encoding: settings.encoding }
    }

    /// How many texts an answer is made of: their scores are subtracted.
    fn texts(self) -> usize {
        match self.kind {
            JudgeKind::Pairwise => 2,
            JudgeKind::RewardModel => 1,
        }
    }

    /// The positions at which each of a question's texts is read.
    fn positions(self, question: &Question) -> Vec<Range<usize>> {
        let end = question.ids.len();
        let split = (self.kind == JudgeKind::Pairwise).then(|| question.split.unwrap_or(0));
        match (self.encoding.pooling, split) {
            (Pooling::Last, Some(split)) => vec![split..split + 1, end - 1..end],
            (Pooling::Last, None) => vec![end - 1..end],
            (Pooling::Mean, Some(split)) => vec![0..split + 1, split + 1..end],
            (Pooling::Mean, None) => vec![0..end],
        }
    }
}

/// The rows of a batch that are read.
#[derive(Debug)]
pub(super) struct Reads {
    form: Form,
    pub rows: Vec<usize>,
    /// How many of them each text has.
    lengths: Vec<usize>,
}

impl Reads {
    pub fn new(form: Form) -> Self {
        Self { form, rows: Vec::new(), lengths: Vec::new() }
    }

    /// Reads a question whose positions stand in the rows that `row` gives.
    pub fn add(&mut self, question: &Question, row: impl Fn(usize) -> usize) {
        for positions in self.form.positions(question) {
            self.lengths.push(positions.len());
            self.rows.extend(positions.map(&row));
        }
    }

    /// Pushes a question that stands alone, and reads it.
    pub fn push(&mut self, packed: &mut Packed, question: &Question) {
        let segment = packed.push(&question.ids);
        let start = packed.rows_of(segment).start;
        self.add(question, |at| start + at);
    }

    /// Pushes two questions and reads them. The tokens that they begin with are shared where none of them sees what follows.
    pub fn push_both(&mut self, packed: &mut Packed, questions: &[Question; 2]) {
        if self.form.encoding.attention == Attention::Bidirectional {
            return questions.iter().for_each(|question| self.push(packed, question));
        }
        let [first, second] = questions.each_ref().map(|q| q.ids.as_slice());
        let shortest = first.len().min(second.len());
        // Each keeps a token of its own, so that each has a last row of its own.
        let common = first.iter().zip(second).take(shortest - 1).take_while(|(a, b)| a == b).count();
        let parent = (common > 0).then(|| packed.push(&first[..common]));
        for question in questions {
            let own = &question.ids[common..];
            let segment = match parent {
                Some(parent) => packed.push_after(parent, own),
                None => packed.push(own),
            };
            let shared = parent.map(|parent| packed.rows_of(parent).start);
            let start = packed.rows_of(segment).start;
            self.add(question, |at| match (shared, at.checked_sub(common)) {
                (Some(shared), None) => shared + at,
                (_, own) => start + own.unwrap_or(at),
            });
        }
    }

    /// One answer a question, from one score a row: a reward model's score, or by how much a pairwise judge's score of the first text
    /// exceeds that of the second. A text's score is the mean of its rows', summed in binary64 in their order; of no rows it is 0.
    pub fn answers(&self, scores: &[f32]) -> Vec<f32> {
        let mut rest = scores;
        let mut score = |length: &usize| {
            let (of_text, others) = rest.split_at(*length);
            rest = others;
            (of_text.iter().map(|s| f64::from(*s)).sum::<f64>() / (*length).max(1) as f64) as f32
        };
        let texts: Vec<f32> = self.lengths.iter().map(&mut score).collect();
        let answer = |texts: &[f32]| match texts {
            [first, second] => first - second,
            _ => texts[0],
        };
        texts.chunks_exact(self.form.texts()).map(answer).collect()
    }

    /// The gradient of each row's score, from those of the answers.
    pub fn gradients(&self, answers: impl Iterator<Item = f64>) -> Vec<f32> {
        let signs = &[1.0, -1.0][..self.form.texts()];
        let texts = answers.flat_map(|g| signs.iter().map(move |sign| sign * g));
        let rows = |(gradient, &length): (f64, &usize)| std::iter::repeat_n((gradient / length as f64) as f32, length);
        texts.zip(&self.lengths).flat_map(rows).collect()
    }
}
