//! What the machine can do: multiply-adds in registers, reads of memory.

use dpo_eval_numerics::isa::Isa;
use dpo_eval_numerics::simd::{F32x16, LANES, Scalar};
use rayon::prelude::*;

/// The CPU's name for itself.
pub fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    name.unwrap_or(std::env::consts::ARCH).to_string()
}

const PEAK_STEPS: usize = 1 << 15;
/// Floating-point operations of one thread in [`peak`].
pub const PEAK_FLOPS: f64 = (2 * LANES * 12 * PEAK_STEPS) as f64;

/// Multiply-adds in registers, on every thread of the current pool.
pub fn peak(isa: Isa) {
    rayon::broadcast(|_| match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the value holds the proof that this CPU has the instructions.
        Isa::Avx512(_) => unsafe { avx512::peak() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2(_) => unsafe { avx2::peak() },
        _ => chains::<Scalar, 4>(),
    });
}

/// Twelve sums a step in `12 / N` passes of `N` chains: enough to hide an instruction's latency, few enough for the registers.
#[inline(always)]
fn chains<V: F32x16, const N: usize>() {
    let (x, y) = (V::splat(std::hint::black_box(0.999)), V::splat(std::hint::black_box(1e-3)));
    for _ in 0..12 / N {
        let mut sums = [V::splat(1.0); N];
        for _ in 0..PEAK_STEPS {
            for sum in &mut sums {
                *sum = sum.fma(x, y);
            }
        }
        for sum in sums {
            std::hint::black_box(sum.to_array());
        }
    }
}

/// Sum of a slice, as fast as memory gives it; pieces of it on the threads of the current pool.
pub fn read(isa: Isa, xs: &[f32]) -> f32 {
    let piece = xs.len().div_ceil(rayon::current_num_threads()).next_multiple_of(8 * LANES);
    let sum = |xs: &[f32]| match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the value holds the proof that this CPU has the instructions.
        Isa::Avx512(_) => unsafe { avx512::sum(xs) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2(_) => unsafe { avx2::sum(xs) },
        _ => total::<Scalar>(xs),
    };
    xs.par_chunks(piece).map(sum).sum()
}

#[inline(always)]
fn total<V: F32x16>(xs: &[f32]) -> f32 {
    let mut sums = [V::splat(0.0); 4];
    for chunk in xs.chunks_exact(4 * LANES) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = *sum + V::load(&chunk[i * LANES..]);
        }
    }
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).tree_sum()
}

/// The loops above with an instruction set enabled.
macro_rules! compiled {
    ($module:ident, $features:literal, $vector:ident, $chains:literal) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            #[target_feature(enable = $features)]
            pub fn peak() {
                super::chains::<dpo_eval_numerics::simd::$vector, $chains>();
            }
            #[target_feature(enable = $features)]
            pub fn sum(xs: &[f32]) -> f32 {
                super::total::<dpo_eval_numerics::simd::$vector>(xs)
            }
        }
    };
}

compiled!(avx512, "avx512f,avx2,fma", Avx512, 12);
compiled!(avx2, "avx2,fma", Avx2, 6);
