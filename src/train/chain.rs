//! The digest chain of a training: a link an optimizer step, each resting on the one before it. Two trainings gave the same bits
//! up to a step exactly if their links there are equal, so the first step that differs is found without keeping the weights.
//!
//! A link is the SHA-256 of
//!
//! ```text
//! the previous link (32 bytes; zeros before step 1) ‖ step (u64)
//! ‖ for epoch, loss, grad_norm, learning_rate, num_tokens and the task's own metrics in name order: name, a zero byte, f64
//! ‖ after steps that leave a checkpoint: the SHA-256 of its safetensors file (32 bytes)
//! ```
//!
//! with numbers in little-endian order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::metrics::{Lines, Metrics};
use crate::digest::Digest;
use crate::error::Result;
use crate::store::CHAIN;

/// A number by its bits: JSON holds them as 16 hexadecimal digits, so that no parser or printer comes between.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bits(u64);

impl Bits {
    pub fn of(value: f64) -> Self {
        Self(value.to_bits())
    }

    pub fn value(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.value())
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        u64::from_str_radix(&String::deserialize(deserializer)?, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// One step of a chain. File form: one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// From 1.
    pub step: u64,
    pub loss: Bits,
    pub grad_norm: Bits,
    /// SHA-256 of the checkpoint's safetensors file, after steps that leave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Digest>,
    pub link: Digest,
}

impl Link {
    fn after(previous: Option<&Link>, row: &Metrics, weights: Option<Digest>) -> Self {
        let mut bytes = previous.map_or([0; 32], |p| *p.link.as_bytes()).to_vec();
        bytes.extend(row.step.to_le_bytes());
        let own = [
            ("epoch", row.epoch),
            ("loss", row.loss),
            ("grad_norm", row.grad_norm),
            ("learning_rate", row.learning_rate),
            ("num_tokens", row.num_tokens as f64),
        ];
        for (name, value) in own.into_iter().chain(row.values.iter().map(|(name, &value)| (name.as_str(), value))) {
            bytes.extend(name.as_bytes());
            bytes.push(0);
            bytes.extend(value.to_bits().to_le_bytes());
        }
        bytes.extend(weights.iter().flat_map(|w| w.as_bytes()));
        let (loss, grad_norm) = (Bits::of(row.loss), Bits::of(row.grad_norm));
        Self { step: row.step, loss, grad_norm, weights, link: Digest::of_bytes(&bytes) }
    }
}

/// The chain of a run in flight and its file, `chain.jsonl`, which holds the steps taken so far.
pub(crate) struct Chain {
    last: Option<Link>,
    checkpoints: BTreeMap<u64, Digest>,
    file: Lines,
}

impl Chain {
    /// Makes the links of the steps that are already done anew. `checkpoints`: digests of the weights they left, by step.
    pub fn open(work: &Path, done: &[Metrics], checkpoints: BTreeMap<u64, Digest>) -> Result<Self> {
        let mut links: Vec<Link> = Vec::with_capacity(done.len());
        for row in done {
            links.push(Link::after(links.last(), row, checkpoints.get(&row.step).copied()));
        }
        let file = Lines::open(work.join(CHAIN), &links)?;
        Ok(Self { last: links.pop(), checkpoints, file })
    }

    pub fn extend(&mut self, row: &Metrics, weights: Option<Digest>) -> Result<()> {
        let link = Link::after(self.last.as_ref(), row, weights);
        self.file.append(&link)?;
        self.checkpoints.extend(weights.map(|digest| (row.step, digest)));
        self.last = Some(link);
        Ok(())
    }

    pub fn checkpoints(&self) -> &BTreeMap<u64, Digest> {
        &self.checkpoints
    }
}

/// The index of the first link that differs, where one chain may be the beginning of the other.
pub fn first_difference(a: &[Link], b: &[Link]) -> Option<usize> {
    a.iter().zip(b).position(|(a, b)| a != b)
}

/// Hexadecimal digits that an abridged chain keeps of each link.
const DIGITS: usize = 8;

/// A chain in the small: enough to compare two of them and to name the first step that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abridged {
    /// The last link, whole.
    pub last: Digest,
    /// The first digits of every step's link, from step 1, with a space between them.
    pub links: String,
}

impl Abridged {
    /// None: there is no step.
    pub fn of(links: &[Link]) -> Option<Self> {
        let short: Vec<String> = links.iter().map(|l| l.link.to_string()[..DIGITS].to_owned()).collect();
        Some(Self { last: links.last()?.link, links: short.join(" ") })
    }

    pub fn steps(&self) -> u64 {
        self.links.split(' ').count() as u64
    }

    /// The first step, from 1, at which the chains part; a chain that is longer parts after the end of the other.
    pub fn first_difference(&self, other: &Self) -> Option<u64> {
        let parts = || self.links.split(' ').zip(other.links.split(' ')).position(|(a, b)| a != b);
        let common = self.steps().min(other.steps());
        match self == other {
            true => None,
            // Equal digits before an end that differs: the digits of the last link were too few to tell, or one goes on.
            false => Some(parts().map_or(if self.steps() == other.steps() { common } else { common + 1 }, |at| at as u64 + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64) -> Metrics {
        Metrics {
            step,
            epoch: 0.5,
            loss: 1.0 / step as f64,
            grad_norm: 2.0,
            learning_rate: 0.1,
            num_tokens: 7 * step,
            values: BTreeMap::from([("entropy".to_owned(), -0.0)]),
        }
    }

    fn chain(rows: &[Metrics], checkpoints: BTreeMap<u64, Digest>) -> Vec<Link> {
        let work = tempfile::tempdir().unwrap();
        let mut chain = Chain::open(work.path(), &rows[..1], checkpoints.clone()).unwrap();
        rows[1..].iter().for_each(|row| chain.extend(row, checkpoints.get(&row.step).copied()).unwrap());
        let text = std::fs::read_to_string(work.path().join(CHAIN)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Made by `hashlib.sha256` and `struct.pack` of Python 3 from the layout that the module states.
    #[test]
    fn links_are_the_sha_256_of_the_documented_bytes() {
        let links = chain(&[row(1), row(2)], BTreeMap::from([(2, Digest::of_bytes(b"abc"))]));
        assert_eq!(links[0].link.to_string(), "04d00a54330a1cae09fc217ed915fc7cdea3a6ceae1c5cb251be176a0bb5e58c");
        assert_eq!(links[1].link.to_string(), "783b831ce8f249758eb99ffcbf7f3986d0e46f8d07c0de2876a9c8c2e4aa8a55");
        assert_eq!(serde_json::to_value(&links[1]).unwrap()["loss"], "3fe0000000000000");
    }

    #[test]
    fn any_bit_of_any_metric_changes_its_link_and_all_after_it() {
        let rows: Vec<Metrics> = (1..=4).map(row).collect();
        let whole = chain(&rows, BTreeMap::new());
        let changes: [fn(&mut Metrics); 5] = [
            |r| r.loss = f64::from_bits(r.loss.to_bits() ^ 1),
            |r| r.grad_norm = -r.grad_norm,
            |r| r.num_tokens += 1,
            |r| r.values.extend([("entropy".into(), 0.0)]),
            |r| r.values.extend([("another".into(), 0.0)]),
        ];
        for change in changes {
            let mut changed = rows.clone();
            change(&mut changed[1]);
            let found = chain(&changed, BTreeMap::new());
            assert_eq!(first_difference(&whole, &found), Some(1));
            assert!(whole[1..].iter().zip(&found[1..]).all(|(a, b)| a.link != b.link));
        }
        let weights = chain(&rows, BTreeMap::from([(3, Digest::of_bytes(b"weights"))]));
        assert_eq!(first_difference(&whole, &weights), Some(2));
        assert_eq!(first_difference(&whole, &whole[..2]), None);
    }

    #[test]
    fn an_abridged_chain_names_the_first_step_that_differs() {
        let rows: Vec<Metrics> = (1..=4).map(row).collect();
        let abridged = |rows: &[Metrics]| Abridged::of(&chain(rows, BTreeMap::new())).unwrap();
        let whole = abridged(&rows);
        assert_eq!((whole.steps(), whole.first_difference(&whole)), (4, None));
        assert_eq!(whole.first_difference(&abridged(&rows[..3])), Some(4));
        assert_eq!(abridged(&rows[..3]).first_difference(&whole), Some(4));
        let mut changed = rows;
        changed[2].loss += 1.0;
        assert_eq!(whole.first_difference(&abridged(&changed)), Some(3));
    }
}
