//! Which sequences share a bin, so that batches have about the same number of tokens.
//!
//! Best-fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling"), as TRL 1.16's `pack_dataset` does it with
//! strategy "bfd". Nothing is padded here, and sequences never see each other, so bins decide only what makes up a batch.

use std::collections::{BTreeMap, VecDeque};

/// TRL packs what `datasets.map` hands over at a time.
const PACKED_TOGETHER: usize = 1000;

/// Sorts sequences into bins of at most `capacity` tokens: the longest first (of equals the first), each into the bin with the least
/// room that still holds it (of equals the one that has had that room longest).
///
/// `lengths`: tokens of each sequence, none above `capacity`. Returns the sequences of each bin, in TRL's order.
pub(super) fn bins(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut bins = Vec::new();
    for (part, lengths) in lengths.chunks(PACKED_TOGETHER).enumerate() {
        let first = part * PACKED_TOGETHER;
        pack(lengths, capacity, &mut bins, first);
    }
    bins
}

/// Appends the bins of some sequences, the first of which has the number `first`.
fn pack(lengths: &[usize], capacity: usize, bins: &mut Vec<Vec<usize>>, first: usize) {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    // Open bins by the room that is left in them.
    let mut open: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for i in order {
        let tightest = open.range(lengths[i]..).next().map(|(&room, _)| room);
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
        bins[bin].push(first + i);
        open.entry(room - lengths[i]).or_default().push_back(bin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `golden/train/packing.py` made the bins.
    #[test]
    fn bins_are_those_of_trl() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../golden/train/packing.json")).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 4);
        for case in cases {
            let capacity = case["max_length"].as_u64().unwrap() as usize;
            let lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap();
            // What is longer is cut before, by TRL and by us.
            let lengths: Vec<usize> = lengths.into_iter().map(|length| length.min(capacity)).collect();
            let expected: Vec<Vec<usize>> = serde_json::from_value(case["bins"].clone()).unwrap();
            assert_eq!(bins(&lengths, capacity), expected, "{} sequences, {capacity} tokens a bin", lengths.len());
        }
    }
}
