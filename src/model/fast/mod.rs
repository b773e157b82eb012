//! The `fast` arithmetic: the same models out of candle's own tensor operations and autograd.
//!
//! It gives the numbers of the strict kernels up to rounding, and promises the same bits only for the same run on the same
//! machine: candle's products depend on batch sizes, instruction sets and caches.
//!
//! Only operations with a gradient are used. candle's fused softmax, norms and rotary turn have none, and `backward` passes
//! over them without an error; so they are composed here, and training checks that every tensor received a gradient.

mod attention;
mod decode;
mod pass;
mod weights;

pub use decode::Decoder;
pub use pass::Pass;

/// Of operations whose shapes are ours: they fail for want of memory, or by a defect.
fn sound<T>(result: candle_core::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("candle failed: {error}"))
}
