//! Judges that answer one question with one number: a model that reads a prompt and two texts in one order, or a score of one text.
//! Both orders, or both texts, are always asked; equal questions are asked once; what a journal holds isn't asked again.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::judge::journal::Journal;
use crate::judge::session::OnnxJudge;
use crate::judge::verdict::{Judge, Texts, Verdict};
use crate::suite::settings::JudgeKind;
use crate::watch::Watch;

/// Questions between two writings of the journal: enough that batches of like length stay full, and what a kill costs is seconds.
const CHUNK: usize = 1024;

/// `[prompt, first, second]` in the order shown, or `[prompt, completion]`.
pub type Question<'a> = Vec<&'a str>;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The logit that the first shown is better, or the score of the completion.
    pub value: f64,
    /// Whether the question was too long to be read as a whole.
    pub truncated: bool,
}

/// What answers questions.
pub trait Respondent {
    /// Which of the two forms its questions have.
    fn form(&self) -> JudgeKind;

    /// One finite answer a question, in order; which questions come together must change none.
    fn answers(&mut self, questions: &[&Question], watch: &dyn Watch) -> Result<Vec<Answer>>;
}

impl Respondent for OnnxJudge {
    fn form(&self) -> JudgeKind {
        self.kind()
    }

    fn answers(&mut self, questions: &[&Question], watch: &dyn Watch) -> Result<Vec<Answer>> {
        let read = questions.iter().map(|texts| self.reader.read(texts)).collect::<Result<Vec<_>>>()?;
        let values = self.ask(&read, watch)?;
        Ok(read.iter().zip(values).map(|(question, value)| Answer { value, truncated: question.truncated }).collect())
    }
}

/// A respondent as a judge.
pub struct Asking<'a, R> {
    name: String,
    respondent: R,
    tie_width: f64,
    journal: Option<Journal<'a>>,
}

impl<'a, R: Respondent> Asking<'a, R> {
    pub fn new(name: &str, respondent: R, tie_width: f64, journal: Option<Journal<'a>>) -> Self {
        Self { name: name.to_owned(), respondent, tie_width, journal }
    }

    fn questions<'t>(&self, [prompt, first, second]: Texts<'t>) -> [Question<'t>; 2] {
        match self.respondent.form() {
            JudgeKind::Pairwise => [vec![prompt, first, second], vec![prompt, second, first]],
            JudgeKind::RewardModel => [vec![prompt, first], vec![prompt, second]],
        }
    }

    fn verdict(&self, [first, second]: [Answer; 2]) -> Verdict {
        let truncated = first.truncated || second.truncated;
        match self.respondent.form() {
            JudgeKind::Pairwise => Verdict::of_logits(first.value, second.value, self.tie_width, truncated),
            JudgeKind::RewardModel => Verdict::of_scores(first.value, second.value, self.tie_width, truncated),
        }
    }

    /// The answer to each of `questions`, from the journal where it is there.
    pub fn answers(&mut self, questions: &[Question], watch: &dyn Watch) -> Result<Vec<Answer>> {
        let mut distinct: BTreeMap<&Question, usize> = BTreeMap::new();
        let mut asked: Vec<&Question> = Vec::new();
        let mut place = |question| {
            *distinct.entry(question).or_insert_with(|| {
                asked.push(question);
                asked.len() - 1
            })
        };
        let places: Vec<usize> = questions.iter().map(&mut place).collect();
        let mut known: Vec<Option<Answer>> = match &mut self.journal {
            Some(journal) => journal.look_up(&asked, watch)?,
            None => vec![None; asked.len()],
        };
        let mut open: Vec<usize> = (0..asked.len()).filter(|&i| known[i].is_none()).collect();
        // Longest first, so that chunks hold questions of like length, as batches do.
        open.sort_by_key(|&i| std::cmp::Reverse(asked[i].iter().map(|text| text.len()).sum::<usize>()));
        for (number, chunk) in open.chunks(CHUNK).enumerate() {
            let together: Vec<&Question> = chunk.iter().map(|&i| asked[i]).collect();
            let part = Part { watch, before: number * CHUNK, total: open.len() };
            let answers = self.respondent.answers(&together, &part)?;
            if let Some(odd) = answers.iter().position(|answer| !answer.value.is_finite()) {
                return Err(Error::input(format!(
                    "judge {}: the answer to {:?} is {}, and a judge must give finite numbers",
                    self.name, together[odd], answers[odd].value
                )));
            }
            if let Some(journal) = &mut self.journal {
                journal.add(&together, &answers)?;
            }
            chunk.iter().zip(answers).for_each(|(&i, answer)| known[i] = Some(answer));
        }
        Ok(places.into_iter().map(|place| known[place].expect("asked above")).collect())
    }
}

/// Progress of a chunk as progress of the whole.
struct Part<'a> {
    watch: &'a dyn Watch,
    before: usize,
    total: usize,
}

impl Watch for Part<'_> {
    fn advance(&self, done: u64, _: u64, note: &str) {
        self.watch.advance(self.before as u64 + done, self.total as u64, note);
    }

    fn interrupted(&self) -> bool {
        self.watch.interrupted()
    }

    fn warn(&self, message: &str) {
        self.watch.warn(message);
    }
}

impl<R: Respondent> Judge for Asking<'_, R> {
    fn ask(&mut self, texts: &[Texts], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        let questions: Vec<Question> = texts.iter().flat_map(|&texts| self.questions(texts)).collect();
        let answers = self.answers(&questions, watch)?;
        Ok(answers.chunks_exact(2).map(|both| Some(self.verdict([both[0], both[1]]))).collect())
    }

    fn scores(&mut self, texts: &[[&str; 2]], watch: &dyn Watch) -> Result<Option<Vec<f64>>> {
        if self.respondent.form() == JudgeKind::Pairwise {
            return Ok(None);
        }
        let questions: Vec<Question> = texts.iter().map(|texts| texts.to_vec()).collect();
        Ok(Some(self.answers(&questions, watch)?.into_iter().map(|answer| answer.value).collect()))
    }
}

#[cfg(test)]
pub(crate) mod tests;
