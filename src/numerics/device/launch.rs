//! Launches: operands found or brought into shared memory, a kernel run, and what it wrote brought back.

use std::ffi::c_void;

use super::Device;
use super::kernels::Kernel;
use super::memory::{Block, Purpose};

/// Bytes up to which a device reads a copy where the CPU wrote it.
const SHORT: usize = 1 << 16;

/// What one operation's launches work on.
pub struct Launch<'a> {
    device: &'static Device,
    /// Copies of operands that lie elsewhere, and lists.
    copies: Vec<Block>,
    /// Which of them become whose values when it is over.
    back: Vec<(usize, &'a mut [f32])>,
}

impl<'a> Launch<'a> {
    pub fn on(device: &'static Device) -> Self {
        Self { device, copies: Vec::new(), back: Vec::new() }
    }

    pub fn input(&mut self, x: &'a [f32]) -> *const f32 {
        match x.is_empty() || self.device.memory.holds(x) {
            true => x.as_ptr(),
            false => self.list(x),
        }
    }

    pub fn output(&mut self, x: &'a mut [f32]) -> *mut f32 {
        if x.is_empty() || self.device.memory.holds(x) {
            return x.as_mut_ptr();
        }
        let copy = self.list(x).cast_mut();
        self.back.push((self.copies.len() - 1, x));
        copy
    }

    /// A copy of plain values of at most 8 bytes' alignment, for this launch alone.
    pub fn list<T: Copy>(&mut self, items: &[T]) -> *const T {
        // What is read more than once is soon worth its way to the device.
        let purpose = if size_of_val(items) <= SHORT { Purpose::Exchange } else { Purpose::Values };
        let block = self.device.block(size_of_val(items).div_ceil(size_of::<f32>()), purpose);
        let start = block.as_ptr().cast_mut().cast::<T>();
        assert!(align_of::<T>() <= 8, "blocks are aligned for more");
        // SAFETY: the block is new, as large as the items, and doesn't overlap them.
        unsafe { std::ptr::copy_nonoverlapping(items.as_ptr(), start, items.len()) };
        self.copies.push(block);
        start
    }

    /// Room for what one kernel leaves to the next.
    pub fn scratch(&mut self, len: usize) -> *mut f32 {
        self.copies.push(self.device.block(len, Purpose::Values));
        self.copies[self.copies.len() - 1].as_ptr().cast_mut()
    }

    /// Starts a kernel after those that were started before.
    pub fn start<P>(&mut self, kernel: &Kernel<P>, blocks: usize, parameters: &P) {
        if blocks == 0 {
            return;
        }
        let blocks = u32::try_from(blocks).ok().filter(|blocks| *blocks <= i32::MAX as u32).expect("at most 2³¹ blocks");
        let parameters = std::ptr::from_ref(parameters).cast::<c_void>();
        // SAFETY: the type ties the parameters to the kernel; their pointers come from this launch's operands, which are borrowed or
        // owned until it is over.
        unsafe { self.device.backend.start(&kernel.description, parameters, blocks) };
    }

    /// Starts a kernel of one thread an element.
    pub fn start_elements<P>(&mut self, kernel: &Kernel<P>, elements: usize, parameters: &P) {
        self.start(kernel, elements.div_ceil(kernel.description.threads as usize), parameters);
    }

    /// Waits for everything that was started.
    pub fn wait(&self) {
        self.device.backend.wait();
    }

    /// Waits, and gives operands that lie elsewhere what was written to them.
    pub fn finish(self) {
        self.wait();
        for (copy, to) in self.back {
            to.copy_from_slice(&self.copies[copy][..to.len()]);
        }
    }
}
