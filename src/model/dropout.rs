//! Dropout masks as functions of an address: the same whatever is computed together, and anew at every step.

use crate::numerics::attention::Queries;
use crate::numerics::buffer::Buffer;
use crate::numerics::dropout::{self, GAMMA, mix};

/// The state that `value` leads to from `state`.
pub(crate) fn derived(state: u64, value: u64) -> u64 {
    mix(mix(state.wrapping_add(GAMMA)).wrapping_add(value))
}

/// The dropout masks of one pass, each element of them a function of its address alone.
///
/// Every row brings a state, derived from seed, step, example, segment and position (`train`). A row drops feature i in a module where
/// the i-th output of SplitMix64, started at the state derived from row and module, has upper 32 bits below p · 2³²;
/// what stays is multiplied by 1 / (1 − p).
pub(crate) struct Masks {
    threshold: u64,
    keep: f32,
    /// The states of all rows, and of those that the last layer is asked for.
    all: Vec<u64>,
    asked: Vec<u64>,
}

impl Masks {
    /// `states`: one a packed row.
    pub fn new(dropout: f64, states: Vec<u64>, asked: &Queries) -> Self {
        Self {
            threshold: (dropout * (1u64 << 32) as f64) as u64,
            keep: (1.0 / (1.0 - dropout)) as f32,
            asked: asked.rows().iter().map(|&row| states[row]).collect(),
            all: states,
        }
    }

    /// (rows, features): `x` under the mask of a module, which is a number.
    pub fn dropped(&self, module: u64, x: &[f32], features: usize) -> Buffer {
        // The asked rows are some of all, in order: as many of them are the same ones.
        let states = if x.len() / features == self.all.len() { &self.all } else { &self.asked };
        let states: Vec<u64> = states.iter().map(|state| derived(*state, module)).collect();
        let mut out = Buffer::unspecified(x.len());
        dropout::apply(x, features, &states, self.threshold, self.keep, &mut out);
        out
    }
}

/// The masks of one pass by what they fall on; none where nothing is dropped.
#[derive(Default)]
pub(crate) struct PassMasks {
    /// The inputs of an adapter.
    pub adapter: Option<Masks>,
    /// What attention and MLP add to the residual stream.
    pub residual: Option<Masks>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::numerics::attention::Segment;

    /// How many of (rows, inputs) ones a mask keeps, and what they add up to.
    pub fn masked_ones(dropout: f64, rows: usize, inputs: usize) -> (f64, f64) {
        let asked = Queries::all(&[Segment { rows: 0..rows, parent: None }]);
        let states = (0..rows as u64).map(|row| derived(9, row)).collect();
        let out = Masks::new(dropout, states, &asked).dropped(12, &vec![1.0; rows * inputs], inputs);
        (out.iter().filter(|v| **v > 0.0).count() as f64, out.iter().map(|v| f64::from(*v)).sum())
    }
}
