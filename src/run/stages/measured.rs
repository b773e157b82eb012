//! The pairs that policies are measured on: held out ones, some that they learn from, and some whose rejected side means the opposite.

use super::{Body, PAIRS};
use crate::data::files::{each_jsonl, read_jsonl, read_pairs};
use crate::data::tokenize::TextTokenizer;
use crate::data::{Pair, TokenizedPair, world};
use crate::error::Result;
use crate::suite::settings::{Dataset, PairsFormat};

/// Training pairs whose sides are compared under the reference, at most.
const COMPARED: usize = 1000;
/// Of those, the pairs that every checkpoint scores, at most: as many as tell a gap of accuracies to about six points.
const SCORED: usize = 256;
/// Pairs of opposites, at most.
const OPPOSITES: usize = 128;

/// Empty where the data have no pairs.
#[derive(Default)]
pub(super) struct MeasuredPairs {
    pub heldout: Vec<TokenizedPair>,
    /// Of the first round, where there are several.
    pub train: Vec<TokenizedPair>,
    pub opposites: Vec<TokenizedPair>,
}

/// At most `count` of the rows, evenly spaced.
fn spaced<T: Clone>(rows: &[T], count: usize) -> Vec<T> {
    places(rows.len(), count).map(|place| rows[place].clone()).collect()
}

/// Where at most `count` evenly spaced ones of so many rows stand, ascending.
fn places(rows: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(rows);
    (0..count).map(move |i| i * rows / count)
}

impl Body<'_> {
    pub(super) fn measured_pairs(&self, tokenizer: &TextTokenizer) -> Result<MeasuredPairs> {
        // Single completions have no margin: there is nothing to score.
        if !self.suite.dataset.has_pairs() {
            return Ok(MeasuredPairs::default());
        }
        let tokenized = |pairs: Vec<Pair>| pairs.iter().map(|pair| tokenizer.pair(pair)).collect();
        let train = spaced(&self.compared_pairs(tokenizer)?, SCORED);
        Ok(MeasuredPairs {
            heldout: tokenized(read_jsonl(&self.context.file(PAIRS, "heldout.jsonl")?)?),
            train,
            opposites: tokenized(spaced(&self.opposites()?, OPPOSITES)),
        })
    }

    /// Training pairs to compare the sides of.
    pub(super) fn compared_pairs(&self, tokenizer: &TextTokenizer) -> Result<Vec<TokenizedPair>> {
        if !self.suite.dataset.has_pairs() {
            return Ok(Vec::new());
        }
        let file = self.context.file(PAIRS, "train.jsonl")?;
        let mut all = 0;
        each_jsonl(&file, |_: Pair| {
            all += 1;
            Ok(())
        })?;
        let (mut row, mut wanted, mut pairs) = (0, places(all, COMPARED).peekable(), Vec::new());
        each_jsonl(&file, |pair: Pair| {
            pairs.extend(wanted.next_if_eq(&row).map(|_| tokenizer.pair(&pair)));
            row += 1;
            Ok(())
        })?;
        Ok(pairs)
    }

    fn opposites(&self) -> Result<Vec<Pair>> {
        match (&self.suite.dataset, &self.suite.checks.opposites) {
            (Dataset::World(_), _) => {
                let heldout: Vec<Pair> = read_jsonl(&self.context.file(PAIRS, "heldout.jsonl")?)?;
                let turned = |pair: &Pair| Some(Pair { rejected: world::opposite(&pair.chosen)?, ..pair.clone() });
                Ok(heldout.iter().filter_map(turned).collect())
            }
            (Dataset::Pairs(_), Some(path)) => Ok(read_pairs(&self.suite.locate_data(path), PairsFormat::Explicit, None)?.rows),
            (Dataset::Pairs(_), None) => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_from_everywhere() {
        let rows: Vec<usize> = (0..10).collect();
        assert_eq!(spaced(&rows, 4), [0, 2, 5, 7]);
        assert_eq!(spaced(&rows, 99), rows);
        assert!(spaced::<usize>(&[], 3).is_empty());
    }
}
