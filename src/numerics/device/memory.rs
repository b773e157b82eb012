//! Memory that CPU and device share, kept for others when it is dropped.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::Device;

/// The least block, f32s: 256 bytes, which is also what blocks are aligned to.
const LEAST: usize = 64;
/// Smaller blocks are cut from pieces of this size, f32s: the driver gives whole pages.
const PIECE: usize = 1 << 20;

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Matrices, which stay on the device as long as nobody but it asks for them.
    Values,
    /// What one side writes once and the other reads once: it stays with the CPU.
    Exchange,
}

/// Free blocks by the power of two that is their size, and the rest of the piece that is being cut.
#[derive(Default)]
struct Free {
    blocks: BTreeMap<usize, Vec<Address>>,
    piece: Option<(Address, usize)>,
}

#[derive(Clone, Copy)]
struct Address(*mut f32);

// SAFETY: the memory behind it belongs to whoever took it from the lists, on any thread.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

/// A device's shared memory.
#[derive(Default)]
pub struct Memory {
    free: [Mutex<Free>; 2],
    /// Everything that was ever allocated, by address: how many f32s.
    all: RwLock<BTreeMap<usize, usize>>,
}

impl Memory {
    fn free(&self, purpose: Purpose) -> MutexGuard<'_, Free> {
        // A panic elsewhere leaves a list of whole blocks behind.
        self.free[purpose as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a slice lies in this memory.
    pub fn holds<T>(&self, slice: &[T]) -> bool {
        let (start, end) = (slice.as_ptr().addr(), slice.as_ptr().addr() + size_of_val(slice));
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.range(..=start).next_back().is_some_and(|(first, len)| end <= first + len * size_of::<f32>())
    }
}

impl Device {
    fn allocate(&self, len: usize, purpose: Purpose) -> Address {
        let bytes = len * size_of::<f32>();
        let pointer = self.backend.allocate(bytes, purpose);
        self.memory.all.write().unwrap_or_else(PoisonError::into_inner).insert(pointer.addr(), len);
        Address(pointer.cast())
    }

    /// Shared memory of unspecified contents for so many f32s.
    pub fn block(&'static self, len: usize, purpose: Purpose) -> Block {
        let capacity = len.next_power_of_two().max(LEAST);
        let mut free = self.memory.free(purpose);
        let kept = free.blocks.get_mut(&capacity).and_then(Vec::pop);
        let start = kept.unwrap_or_else(|| {
            if capacity >= PIECE {
                return self.allocate(capacity, purpose);
            }
            let (start, left) =
                free.piece.take().filter(|(_, left)| *left >= capacity).unwrap_or_else(|| (self.allocate(PIECE, purpose), PIECE));
            free.piece = (left > capacity).then(|| (Address(start.0.wrapping_add(capacity)), left - capacity));
            start
        });
        drop(free);
        if self.backend.poisons() {
            // SAFETY: the block was allocated with at least this many f32s, and nobody else has it.
            (0..len).for_each(|i| unsafe { start.0.add(i).write(f32::NAN) });
        }
        Block { start, len, capacity, purpose, device: self }
    }
}

/// Shared memory of one owner.
pub struct Block {
    start: Address,
    len: usize,
    capacity: usize,
    purpose: Purpose,
    device: &'static Device,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.device.memory.free(self.purpose).blocks.entry(self.capacity).or_default().push(self.start);
    }
}

impl Deref for Block {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` f32s that belong to this block as long as it lives. Launches that write to them are over when they return.
        unsafe { std::slice::from_raw_parts(self.start.0, self.len) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.0, self.len) }
    }
}
