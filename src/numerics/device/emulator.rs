//! The emulator behind a device: see `cuda/emulator.c`.

use std::alloc::Layout;
use std::ffi::c_void;
use std::sync::OnceLock;

use super::kernels::Description;
use super::memory::{Memory, Purpose};
use super::{Backend, Device, Unavailable};

/// `struct dpo_kernel` of `cuda/emulator.h`.
#[repr(C)]
pub struct Compiled {
    body: unsafe extern "C" fn(*const c_void),
    /// Bytes of its parameters.
    pub parameters: usize,
    pub threads: u32,
    barriers: i32,
}

unsafe extern "C" {
    fn dpo_launch(kernel: *const Compiled, arguments: *const c_void, blocks: u32);
}

/// So few that tests of small shapes take both the kernels for large and for small ones.
const PROCESSORS: usize = 2;

struct Emulator;

pub fn open() -> Result<&'static Device, Unavailable> {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    #[cfg(target_arch = "x86_64")]
    if !is_x86_feature_detected!("fma") {
        let message = "the emulator of CUDA kernels needs a CPU with a fused multiply-add".to_owned();
        return Err(Unavailable { message, help: "run its tests on another machine".to_owned() });
    }
    let name = "emulated CUDA device".to_owned();
    Ok(DEVICE.get_or_init(|| Device { name, processors: PROCESSORS, memory: Memory::default(), backend: Box::new(Emulator) }))
}

impl Backend for Emulator {
    fn allocate(&self, bytes: usize, _: Purpose) -> *mut u8 {
        let layout = Layout::from_size_align(bytes, 256).expect("a size that fits the address space");
        // SAFETY: the size isn't 0: the least piece of memory has 256 bytes.
        let pointer = unsafe { std::alloc::alloc(layout) };
        if pointer.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        pointer
    }

    unsafe fn start(&self, kernel: &Description, parameters: *const c_void, blocks: u32) {
        // SAFETY: handed on.
        unsafe { dpo_launch(kernel.compiled, parameters, blocks) };
    }

    fn wait(&self) {}

    fn memory(&self) -> (u64, u64) {
        (u64::MAX, u64::MAX)
    }

    fn poisons(&self) -> bool {
        true
    }
}
