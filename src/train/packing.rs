//! Which sequences share a bin, so that batches have about the same number of tokens: as TRL 1.16's `pack_dataset` does it.
//!
//! - "bfd": best-fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling").
//! - "bfd_split": the same, after sequences that are longer than a bin are split into parts of a bin's size and a shorter last one.
//! - "wrapped": sequences one after another, cut wherever a bin is full.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::suite::settings::PackingStrategy;

/// TRL packs what `datasets.map` hands over at a time.
const PACKED_TOGETHER: usize = 1000;

/// Some tokens of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub sequence: usize,
    pub tokens: Range<usize>,
}

/// Sorts sequences into bins of at most `capacity` tokens. `lengths`: tokens of each sequence; with "bfd" none above `capacity`. Returns
/// the parts of sequences in each bin, in TRL's order.
pub(super) fn bins(strategy: PackingStrategy, lengths: &[usize], capacity: usize) -> Vec<Vec<Part>> {
    let mut bins = Vec::new();
    for (chunk, lengths) in lengths.chunks(PACKED_TOGETHER).enumerate() {
        let number = |i: usize| chunk * PACKED_TOGETHER + i;
        let whole = lengths.iter().enumerate().map(|(i, &length)| Part { sequence: number(i), tokens: 0..length });
        match strategy {
            PackingStrategy::Bfd => best_fit(&whole.collect::<Vec<_>>(), capacity, &mut bins),
            PackingStrategy::BfdSplit => {
                best_fit(&whole.flat_map(|part| split(part, capacity)).collect::<Vec<_>>(), capacity, &mut bins)
            }
            PackingStrategy::Wrapped => wrap(whole, capacity, &mut bins),
        }
    }
    bins
}

/// Stretches of `capacity` tokens and what is left.
fn split(Part { sequence, tokens }: Part, capacity: usize) -> impl Iterator<Item = Part> {
    let end = tokens.end;
    tokens.step_by(capacity).map(move |start| Part { sequence, tokens: start..end.min(start + capacity) })
}

/// Appends the bins of `parts`, one after another, each but the last full.
fn wrap(parts: impl Iterator<Item = Part>, capacity: usize, bins: &mut Vec<Vec<Part>>) {
    let mut room = 0;
    for Part { sequence, mut tokens } in parts {
        while !tokens.is_empty() {
            if room == 0 {
                bins.push(Vec::new());
                room = capacity;
            }
            let end = tokens.end.min(tokens.start + room);
            room -= end - tokens.start;
            bins.last_mut().expect("one was just pushed").push(Part { sequence, tokens: tokens.start..end });
            tokens.start = end;
        }
    }
}

/// Appends the bins of `parts`: the longest first (of equals the first), each into the bin with the least room that still holds it (of
/// equals the one that has had that room longest).
fn best_fit(parts: &[Part], capacity: usize, bins: &mut Vec<Vec<Part>>) {
    let mut order: Vec<&Part> = parts.iter().collect();
    order.sort_by_key(|part| std::cmp::Reverse(part.tokens.len()));
    // Open bins by the room that is left in them.
    let mut open: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for part in order {
        let length = part.tokens.len();
        let tightest = open.range(length..).next().map(|(&room, _)| room);
        let (room, bin) = match tightest {
            Some(room) => {
                let waiting = open.get_mut(&room).expect("it was just found");
                let bin = waiting.pop_front().expect("empty queues are removed");
                if waiting.is_empty() {
                    open.remove(&room);
                }
                (room, bin)
            }
            None => {
                bins.push(Vec::new());
                (capacity, bins.len() - 1)
            }
        };
        bins[bin].push(part.clone());
        open.entry(room - length).or_default().push_back(bin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `golden/train/packing.py` made the bins: for each part the sequence it is of, where it starts there, and its tokens.
    #[test]
    fn bins_are_those_of_trl() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../golden/train/packing.json")).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 12);
        for case in cases {
            let strategy: PackingStrategy = serde_json::from_value(case["strategy"].clone()).unwrap();
            let capacity = case["max_length"].as_u64().unwrap() as usize;
            let mut lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap();
            if strategy == PackingStrategy::Bfd {
                // What is longer is cut before, by TRL and by us.
                lengths.iter_mut().for_each(|length| *length = capacity.min(*length));
            }
            let expected: Vec<Vec<[usize; 3]>> = serde_json::from_value(case["bins"].clone()).unwrap();
            let found = bins(strategy, &lengths, capacity).into_iter();
            let found: Vec<Vec<[usize; 3]>> =
                found.map(|bin| bin.iter().map(|p| [p.sequence, p.tokens.start, p.tokens.len()]).collect()).collect();
            assert_eq!(found, expected, "{strategy:?}, {} sequences, {capacity} tokens a bin", lengths.len());
        }
    }
}
