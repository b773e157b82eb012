//! Ragged batches: segments of tokens one after another, without padding, a segment possibly after a shared one.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::model::Limits;
use crate::numerics::attention::Segment;

/// A segment of a [`Packed`] batch, in order of pushing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentId(usize);

/// The log-probability of `token` given the state at packed row `row`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub row: usize,
    pub token: u32,
}

/// Tokens of several sequences. A segment pushed after a parent attends to all of the parent (and its parents), then causally
/// to itself, and its positions go on from the parent's: so completions of one prompt share the prompt's rows.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
}

impl Packed {
    pub fn new() -> Self {
        Self::default()
    }

    /// A sequence of its own.
    ///
    /// # Panics
    /// When `tokens` is empty.
    pub fn push(&mut self, tokens: &[u32]) -> SegmentId {
        self.append(None, tokens)
    }

    /// A continuation of `parent`.
    ///
    /// # Panics
    /// When `tokens` is empty or `parent` belongs to another, longer batch.
    pub fn push_after(&mut self, parent: SegmentId, tokens: &[u32]) -> SegmentId {
        self.append(Some(parent.0), tokens)
    }

    fn append(&mut self, parent: Option<usize>, tokens: &[u32]) -> SegmentId {
        assert!(!tokens.is_empty(), "a segment needs at least one token");
        let row = self.tokens.len();
        let position = parent.map_or(0, |p| self.positions[self.segments[p].rows.end - 1] + 1);
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((0..tokens.len() as u32).map(|i| position + i));
        self.segments.push(Segment { rows: row..row + tokens.len(), parent });
        SegmentId(self.segments.len() - 1)
    }

    /// Number of rows (tokens) in the batch.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn rows_of(&self, segment: SegmentId) -> Range<usize> {
        self.segments[segment.0].rows.clone()
    }

    /// The row whose state has seen the whole segment.
    pub fn last_row(&self, segment: SegmentId) -> usize {
        self.segments[segment.0].rows.end - 1
    }

    /// One target for each token of `child`, the first predicted from the last row of its `parent`.
    pub fn completion_targets(&self, parent: SegmentId, child: SegmentId) -> Vec<Target> {
        let rows = self.rows_of(child);
        let from = std::iter::once(self.last_row(parent)).chain(rows.clone());
        from.zip(&self.tokens[rows]).map(|(row, token)| Target { row, token: *token }).collect()
    }

    /// One target for each token of `segment` but its first.
    pub fn targets_within(&self, segment: SegmentId) -> Vec<Target> {
        let rows = self.rows_of(segment);
        rows.clone().skip(1).map(|row| Target { row: row - 1, token: self.tokens[row] }).collect()
    }

    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The position of each row in its sequence, from 0.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// An error when a token lies outside the model's vocabulary or a sequence is longer than its context.
    pub fn check(&self, limits: impl Into<Limits>) -> Result<()> {
        let Limits { vocab_size, context } = limits.into();
        if let Some(token) = self.tokens.iter().find(|t| **t as usize >= vocab_size) {
            return Err(Error::input(format!("token {token} lies outside the model's vocabulary of {vocab_size}"))
                .help("use the tokenizer that belongs to the model"));
        }
        let longest = self.positions.iter().max().map_or(0, |p| *p as usize + 1);
        if longest > context {
            return Err(Error::input(format!("a sequence has {longest} tokens, but the model's context holds {context}"))
                .help("set a smaller max_length"));
        }
        Ok(())
    }
}
