//! Working memory that is used again instead of being returned to the system: fresh pages cost a third of a training step. Where a device
//! is active, memory that it shares with the CPU.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use super::device::{self, Block, elementwise};
use super::parallel::for_each_rows;

/// Buffers that nobody holds, by the power of two that is their capacity. One pool for all threads: a buffer is often made on
/// one and dropped on another, and so never more are kept than were once in use together.
static FREE: [Mutex<Vec<Vec<f32>>>; usize::BITS as usize] = [const { Mutex::new(Vec::new()) }; usize::BITS as usize];

/// A slice of f32 whose memory is kept for others when it is dropped, unless it was somebody's vector.
pub struct Buffer(Memory);

enum Memory {
    Pooled(Vec<f32>),
    Own(Vec<f32>),
    OfDevice(Block),
}

fn with_class<T>(capacity: usize, f: impl FnOnce(&mut Vec<Vec<f32>>) -> T) -> T {
    // A panic elsewhere leaves a list of whole buffers behind.
    f(&mut FREE[capacity.trailing_zeros() as usize].lock().unwrap_or_else(PoisonError::into_inner))
}

impl Buffer {
    /// Unspecified contents: for outputs that are written whole.
    pub fn unspecified(len: usize) -> Self {
        if let Some(device) = device::active() {
            return Self(Memory::OfDevice(device.block(len, device::Purpose::Values)));
        }
        let capacity = len.next_power_of_two();
        let mut values = with_class(capacity, Vec::pop).unwrap_or_else(|| Vec::with_capacity(capacity));
        values.resize(len, 0.0);
        Self(Memory::Pooled(values))
    }

    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::unspecified(len);
        buffer.set_all(0.0);
        buffer
    }

    /// So many times `value`, for long: it doesn't stay when it is dropped, unless it is a device's.
    pub fn filled(len: usize, value: f32) -> Self {
        match device::active() {
            Some(device) => {
                let mut buffer = Self::unspecified(len);
                elementwise::fill(device, &mut buffer, value);
                buffer
            }
            None => Self(Memory::Own(vec![value; len])),
        }
    }

    pub fn copy_of(values: &[f32]) -> Self {
        let mut buffer = Self::unspecified(values.len());
        match device::active() {
            // What lies elsewhere is soonest written by the CPU.
            Some(device) if device.holds(values) => elementwise::copy(device, values, &mut buffer),
            Some(_) => buffer.copy_from_slice(values),
            None => for_each_rows(&mut buffer, 1, 1, |at, part| part.copy_from_slice(&values[at..][..part.len()])),
        }
        buffer
    }

    /// For the CPU to read whole: a copy near it, where this is a device's.
    pub fn to_read(&self) -> Cow<'_, Self> {
        match (device::active(), &self.0) {
            (Some(device), Memory::OfDevice(_)) => {
                let mut near = Self(Memory::OfDevice(device.block(self.len(), device::Purpose::Exchange)));
                elementwise::copy(device, self, &mut near);
                Cow::Owned(near)
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Every element ← `value`.
    pub fn set_all(&mut self, value: f32) {
        match device::active() {
            Some(device) => elementwise::fill(device, self, value),
            None => self.fill(value),
        }
    }

    pub fn as_slice(&self) -> &[f32] {
        self
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Memory::Pooled(values) = &mut self.0 {
            let values = std::mem::take(values);
            // The allocator may have given more room than was asked for.
            let class = (values.capacity() + 1).next_power_of_two() / 2;
            with_class(class, |free| free.push(values));
        }
    }
}

/// Without a copy, or into a device's memory where one is active.
impl From<Vec<f32>> for Buffer {
    fn from(values: Vec<f32>) -> Self {
        match device::active() {
            Some(_) => Self::copy_of(&values),
            None => Self(Memory::Own(values)),
        }
    }
}

/// Of nothing.
impl Default for Buffer {
    fn default() -> Self {
        Self(Memory::Own(Vec::new()))
    }
}

impl FromIterator<f32> for Buffer {
    fn from_iter<I: IntoIterator<Item = f32>>(values: I) -> Self {
        Self::from(values.into_iter().collect::<Vec<f32>>())
    }
}

/// What was a vector is copied as one.
impl Clone for Buffer {
    fn clone(&self) -> Self {
        match &self.0 {
            Memory::Own(values) if device::active().is_none() => Self(Memory::Own(values.clone())),
            _ => Self::copy_of(self),
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl<'a> IntoIterator for &'a Buffer {
    type Item = &'a f32;
    type IntoIter = std::slice::Iter<'a, f32>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &self.0 {
            Memory::Pooled(values) | Memory::Own(values) => values,
            Memory::OfDevice(block) => block,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Memory::Pooled(values) | Memory::Own(values) => values,
            Memory::OfDevice(block) => block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zero_in_memory_that_was_used_before() {
        for len in [0, 1, 900, 1000, 1024] {
            Buffer::unspecified(len).fill(3.0);
            let zeros = Buffer::zeros(len);
            assert!(zeros.len() == len && zeros.iter().all(|x| *x == 0.0));
        }
        assert_eq!(&*Buffer::copy_of(&[1.0, 2.0]), [1.0, 2.0]);
    }

    #[test]
    fn buffers_that_wander_between_threads_do_not_pile_up() {
        let odd_size = 3 << 20;
        for _ in 0..4 {
            let made = std::thread::spawn(move || Buffer::unspecified(odd_size)).join().unwrap();
            drop(made);
        }
        assert_eq!(with_class(4 << 20, |free| free.len()), 1);
    }
}
