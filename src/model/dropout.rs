//! Dropout masks as functions of an address: the same whatever is computed together, and anew at every step.

use crate::numerics::attention::Queries;
use crate::numerics::buffer::Buffer;
use crate::numerics::parallel::for_each_rows;

/// SplitMix64's increment and output function (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

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
        let mut out = Buffer::unspecified(x.len());
        for_each_rows(&mut out, features, 4 * features, |first, out| {
            for (r, out) in out.chunks_exact_mut(features).enumerate() {
                let x = &x[(first + r) * features..][..features];
                let mut state = derived(states[first + r], module);
                for (out, x) in out.iter_mut().zip(x) {
                    state = state.wrapping_add(GAMMA);
                    *out = if mix(state) >> 32 < self.threshold { 0.0 } else { x * self.keep };
                }
            }
        });
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

    /// The generator's first outputs from the state 1234567, from Steele, Lea and Flood's reference code.
    #[test]
    fn the_masks_generator_is_splitmix64() {
        let outputs = [6457827717110365317u64, 3203168211198807973, 9817491932198370423];
        let mut state = 1234567u64;
        for expected in outputs {
            state = state.wrapping_add(GAMMA);
            assert_eq!(mix(state), expected);
        }
    }
}
