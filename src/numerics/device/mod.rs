//! CUDA devices: one more way to compute the same bits, chosen per thread as an instruction set is.
//!
//! A [`Device`] is active on the threads that somebody made it so for. There, the operations of this crate launch its kernels (`cuda/`),
//! and [`Buffer`](super::buffer::Buffer) takes memory that CPU and device share, so that what has no kernel runs on the CPU as ever.
//! A launch is over when the function that made it returns.
//!
//! Behind a device stands the CUDA driver (feature `cuda`), or an emulator that runs the very same kernels, compiled by the C compiler
//! (feature `emulator`): what tests hold against the definition where there is no GPU.

pub(super) mod kernels;
mod launch;
mod memory;

#[cfg(feature = "cuda")]
mod driver;
#[cfg(emulated)]
mod emulator;

pub(super) mod elementwise;
pub(super) mod logits;
pub(super) mod product;
pub(super) mod rows;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::{Mutex, PoisonError};

pub use super::isa::Unavailable;
use kernels::Description;

pub(super) use launch::Launch;

use memory::Memory;
pub(super) use memory::{Block, Purpose};

/// An opened device. It stays open, and its memory in use, until the process ends.
pub struct Device {
    name: String,
    /// How many blocks it runs at a time, at least.
    processors: usize,
    memory: Memory,
    backend: Box<dyn Backend>,
}

/// What launches kernels.
trait Backend: Send + Sync {
    /// So many bytes that CPU and device share, for good.
    fn allocate(&self, bytes: usize, purpose: Purpose) -> *mut u8;

    /// Starts a kernel after those that this thread started before.
    ///
    /// # Safety
    /// `parameters` must be the kernel's, and what they point to must be as it expects until [`Self::wait`] returns.
    unsafe fn start(&self, kernel: &Description, parameters: *const c_void, blocks: u32);

    /// Until everything that this thread started is done.
    fn wait(&self);

    /// Bytes that are free on the device, and all that it has.
    fn memory(&self) -> (u64, u64);

    /// Whether blocks of memory are filled with NaN before they are used, so that whoever reads what nobody wrote sees it.
    fn poisons(&self) -> bool {
        false
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

/// A device is opened once: two are the same only if they are one.
impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Device {}

/// What is known of a device without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    /// Bytes.
    pub memory: u64,
}

/// The CUDA devices of this machine, by their numbers.
pub fn found() -> Result<Vec<Found>, Unavailable> {
    #[cfg(feature = "cuda")]
    return driver::found();
    #[cfg(not(feature = "cuda"))]
    Err(not_built())
}

#[cfg(not(feature = "cuda"))]
fn not_built() -> Unavailable {
    Unavailable {
        message: "this build has no CUDA".to_owned(),
        help: "build with `--features cuda` (README, \"On a GPU\")".to_owned(),
    }
}

static OPENED: Mutex<BTreeMap<usize, &'static Device>> = Mutex::new(BTreeMap::new());

impl Device {
    /// The CUDA device of this number; opened once for the process.
    pub fn open(number: usize) -> Result<&'static Self, Unavailable> {
        // A panic elsewhere leaves a map of whole entries behind.
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = opened.get(&number) {
            return Ok(device);
        }
        #[cfg(feature = "cuda")]
        let device: &'static Self = Box::leak(Box::new(driver::open(number)?));
        #[cfg(not(feature = "cuda"))]
        let device: &'static Self = Err(not_built())?;
        opened.insert(number, device);
        Ok(device)
    }

    /// What tests run on: the emulated device, or the CUDA device that `DPO_EVAL_TEST_DEVICE` numbers. None where there is no emulator.
    ///
    /// # Panics
    /// When there is no device of that number.
    #[cfg(feature = "emulator")]
    pub fn for_tests() -> Option<&'static Self> {
        match std::env::var("DPO_EVAL_TEST_DEVICE") {
            Ok(number) => Some(Self::open(number.parse().expect("a device's number")).unwrap_or_else(|e| panic!("{e}"))),
            Err(_) => Self::emulated().map_err(|e| println!("skipped: {e}")).ok(),
        }
    }

    /// The emulated device.
    #[cfg(feature = "emulator")]
    pub fn emulated() -> Result<&'static Self, Unavailable> {
        #[cfg(emulated)]
        return emulator::open();
        #[cfg(not(emulated))]
        Err(Unavailable {
            message: "there is no emulator of CUDA kernels on this system".to_owned(),
            help: "run its tests on Linux or macOS".to_owned(),
        })
    }

    /// Whether a slice lies in memory that the device shares.
    pub(super) fn holds<T>(&self, slice: &[T]) -> bool {
        self.memory.holds(slice)
    }

    /// Does multiply-adds in registers, so many rounds on all processors, and returns how many: what products are measured against.
    pub fn multiply_adds(&'static self, rounds: usize) -> f64 {
        let (mut launch, blocks) = (Launch::on(self), 16 * self.processors);
        let of = kernels::Chains { out: launch.scratch(1), rounds: kernels::int(rounds) };
        launch.start(&kernels::MULTIPLY_ADDS, blocks, &of);
        launch.finish();
        // 256 threads a block, 16 chains each.
        (blocks * 256 * 16 * rounds) as f64
    }

    /// The name that the driver gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that are free on the device, and all that it has.
    pub fn memory(&self) -> (u64, u64) {
        self.backend.memory()
    }
}

thread_local! {
    static OF_THIS_THREAD: Cell<Option<&'static Device>> = const { Cell::new(None) };
}

/// What this thread's operations run on; none: the CPU.
pub fn active() -> Option<&'static Device> {
    OF_THIS_THREAD.get()
}

/// Calls `f` with a device active on this thread, or none. Threads that `f` hands work to are not concerned: see [`pool`].
pub fn with<T>(device: Option<&'static Device>, f: impl FnOnce() -> T) -> T {
    struct Before(Option<&'static Device>);
    impl Drop for Before {
        fn drop(&mut self) {
            OF_THIS_THREAD.set(self.0);
        }
    }
    let _before = Before(OF_THIS_THREAD.replace(device));
    f()
}

/// A pool on whose threads a device is active, or none. Kernels called on other threads are not concerned: run everything by `install`.
pub fn pool(device: Option<&'static Device>, threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let start = move |_| OF_THIS_THREAD.set(device);
    rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(start).build()
}

#[cfg(test)]
mod tests;
