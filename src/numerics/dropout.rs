//! Dropout by a function of each element's address: the same whatever is computed together.

use super::device::{self, elementwise};
use super::parallel::for_each_rows;

/// SplitMix64's increment and output function (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
pub const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

pub fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `out`: (states.len(), width) ← `x`, where element i of a row is 0 if the i-th output of SplitMix64, started at the row's state, has upper
/// 32 bits below `threshold`, and is multiplied by `keep` if not.
pub fn apply(x: &[f32], width: usize, states: &[u64], threshold: u64, keep: f32, out: &mut [f32]) {
    if let Some(device) = device::active() {
        return elementwise::dropout(device, x, width, states, threshold, keep, out);
    }
    for_each_rows(out, width, 4 * width, |first, out| {
        for (r, out) in out.chunks_exact_mut(width).enumerate() {
            let mut state = states[first + r];
            for (out, x) in out.iter_mut().zip(&x[(first + r) * width..][..width]) {
                state = state.wrapping_add(GAMMA);
                *out = if mix(state) >> 32 < threshold { 0.0 } else { x * keep };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator's first outputs from the state 1234567, from Steele, Lea and Flood's reference code.
    #[test]
    fn the_generator_is_splitmix64() {
        let outputs = [6457827717110365317u64, 3203168211198807973, 9817491932198370423];
        let mut state = 1234567u64;
        for expected in outputs {
            state = state.wrapping_add(GAMMA);
            assert_eq!(mix(state), expected);
        }
    }
}
