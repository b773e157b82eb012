//! Inputs for tests, the same on every machine, and comparison by bits.

use proptest::prelude::*;

use super::device::{self, Device};

/// Uniform 24-bit numbers by SplitMix64.
fn draws(mut state: u64) -> impl FnMut() -> u32 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as u32
    }
}

/// `n` values of roughly the standard normal distribution, times `scale`, drawn from `seed`.
pub fn random(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut draw = draws(seed);
    let mut uniform = || draw() as f32 / 2f32.powi(24);
    (0..n).map(|_| scale * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0)).collect()
}

/// What kind of numbers a test runs on, and where they are drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    kind: Kind,
    seed: u64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Ordinary,
    /// Now and then a zero of either sign, a subnormal, a huge number, an infinity or a NaN.
    Special,
    /// Subnormals, and numbers whose products underflow.
    Tiny,
    /// Numbers whose sums and products overflow.
    Huge,
    /// Zeros of both signs and a few ones.
    Zeros,
    /// Any bit pattern.
    Bits,
}

impl Values {
    pub fn any() -> impl Strategy<Value = Self> {
        use Kind::*;
        let kind = prop::sample::select(vec![Ordinary, Ordinary, Special, Tiny, Huge, Zeros, Bits]);
        (kind, any::<u64>()).prop_map(|(kind, seed)| Self { kind, seed })
    }

    /// `n` values; other ones for each `index`.
    pub fn draw(&self, n: usize, index: u64) -> Vec<f32> {
        const SPECIAL: [f32; 9] = [0.0, -0.0, 1e-42, -1e-45, 1e-20, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let seed = self.seed.wrapping_add(index.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let mut draw = draws(!seed);
        let mut pick = |x: f32| match (self.kind, draw()) {
            (Kind::Ordinary, _) => x,
            (Kind::Special, r) if r % 16 == 0 => SPECIAL[(r >> 8) as usize % SPECIAL.len()],
            (Kind::Special, _) => x,
            (Kind::Tiny, r) => x * [1e-44, 1e-38, 1e-25, 1e-20][r as usize % 4],
            (Kind::Huge, r) => x * [1e38, 1e30, 1e18, 1.0][r as usize % 4],
            (Kind::Zeros, r) => [0.0, -0.0, 0.0, -0.0, x.signum(), -1e-45][r as usize % 6],
            (Kind::Bits, r) => f32::from_bits(r << 8 ^ x.to_bits()),
        };
        random(n, 3.0, seed).into_iter().map(&mut pick).collect()
    }
}

/// Bit patterns, with one for every NaN: which NaN comes out is left open.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Lengths of a row: around the sixteen lanes, mostly.
pub fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..50usize, 1 => 50..200usize]
}

/// Calls `f` with the device active that kernels are tested on, if there is one.
pub fn on_device(f: impl FnOnce()) {
    if let Some(device) = Device::for_tests() {
        device::with(Some(device), f);
    }
}
