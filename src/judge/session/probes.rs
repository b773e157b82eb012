//! Asks a few questions at opening: can the model judge at all, and does an answer depend on what else is asked?
//!
//! One item's score may not depend on its batch. Padding, sums whose order follows the batch's shape, and scales taken over a whole batch
//! (dynamic quantisation) all can make it so; they show in the last bits of a few texts asked alone and together. Where they do, the
//! questions are asked in batches of one length, or one by one.

use super::card::Card;
use super::{Batching, OnnxJudge};
use crate::error::{Error, Result};
use crate::judge::reader::{Question, fields};

/// Words in the texts asked, one question each.
const WORDS: [usize; 4] = [1, 5, 14, 33];

impl OnnxJudge {
    /// Refuses what can't judge, and sets how questions may share a batch.
    pub(super) fn probe(&mut self, card: &Card) -> Result<()> {
        let probes = WORDS.iter().map(|&words| self.question(words)).collect::<Result<Vec<_>>>()?;
        self.alone(&probes[..1])?;
        self.check_vocabulary(card, &probes[0])?;
        self.check_length(card, &probes[0])?;
        let alone = self.alone(&probes)?;
        self.model.batching = self.batching(&probes, &alone);
        Ok(())
    }

    /// A question of about `words` words, and another of the same length.
    fn question(&self, words: usize) -> Result<Question> {
        const SAID: [&str; 9] = ["The", "answer", "is", "good", "because", "it", "says", "what", "was"];
        let text = |shift: usize| (0..words).map(|i| SAID[(i + shift) % SAID.len()]).collect::<Vec<_>>().join(" ");
        let texts: Vec<String> = (0..fields(self.settings.kind).len()).map(|i| text(4 * i)).collect();
        self.reader.read(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn alone(&mut self, questions: &[Question]) -> Result<Vec<f64>> {
        questions.iter().map(|question| Ok(self.model.together(&[question])?[0])).collect()
    }

    /// Every id of the tokenizer must have a place in the model.
    fn check_vocabulary(&mut self, card: &Card, probe: &Question) -> Result<()> {
        let (vocabulary, path) = (self.reader.vocabulary(), self.model.path.clone());
        let refused = |known: String| {
            let message = format!("its tokenizer gives out {vocabulary} different tokens, and {known}");
            Err(Error::input(message)
                .in_file(&path)
                .help("export the model with the tokenizer it was trained with, or resize its embeddings"))
        };
        if let Some(size) = card.vocab_size.filter(|&size| size < vocabulary) {
            return refused(format!("the model knows {size} (vocab_size of its config.json)"));
        }
        let mut largest = probe.clone();
        // In the middle: what the tokenizer puts around a text may be what the model looks for.
        let middle = largest.ids.len() / 2;
        largest.ids[middle] = (vocabulary - 1) as u32;
        match self.model.together(&[&largest]) {
            Ok(_) => Ok(()),
            Err(error) => refused(format!("the model fails on the last of them ({})", error.message)),
        }
    }

    /// A length beyond what the configuration says is tried: relative positions have no limit, learnt ones do.
    fn check_length(&mut self, card: &Card, probe: &Question) -> Result<()> {
        let (length, path) = (self.limits.max_length, self.model.path.clone());
        if card.positions.is_some_and(|positions| length <= positions) || self.model.metadata(super::MAX_POSITIONS).is_some() {
            return Ok(());
        }
        let mut long = probe.clone();
        let middle = long.ids.len() / 2;
        let filler = long.ids[middle];
        while long.ids.len() < length {
            long.ids.insert(middle, filler);
        }
        match self.model.together(&[&long]) {
            Ok(_) => Ok(()),
            Err(error) => {
                let known = card.positions.map_or_else(String::new, |positions| format!("; its config.json says {positions}"));
                let message = format!("it can't read max_length = {length} tokens{known}: {}", error.message);
                Err(Error::input(message).in_file(&path).help("write a smaller `max_length` in its [[judge]] table"))
            }
        }
    }

    fn batching(&mut self, probes: &[Question], alone: &[f64]) -> Batching {
        let same = |together: Result<Vec<f64>>, alone: &[f64]| {
            together.is_ok_and(|together| together.iter().zip(alone).all(|(a, b)| a.to_bits() == b.to_bits()))
        };
        if self.model.batching == Batching::Padded {
            let padded = self.model.together(&probes.iter().collect::<Vec<_>>());
            let fewer = self.model.together(&probes[1..3].iter().collect::<Vec<_>>());
            if same(padded, alone) && same(fewer, &alone[1..3]) {
                return Batching::Padded;
            }
        }
        for (probe, &score) in probes.iter().zip(alone) {
            let other = turned(probe);
            let Ok(its_own) = self.model.together(&[&other]) else { return Batching::Alone };
            for rows in [vec![probe, &other], vec![&other, probe, &other, probe, &other]] {
                let expected: Vec<f64> =
                    rows.iter().map(|&row| if std::ptr::eq(row, probe) { score } else { its_own[0] }).collect();
                if !same(self.model.together(&rows), &expected) {
                    return Batching::Alone;
                }
            }
        }
        Batching::EqualLengths
    }
}

/// The same tokens in another order, but for the first and the last.
fn turned(question: &Question) -> Question {
    let mut other = question.clone();
    let last = other.ids.len().saturating_sub(1);
    if last > 2 {
        other.ids[1..last].rotate_left(1);
    }
    other
}
