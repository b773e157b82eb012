//! Working memory that is used again instead of being returned to the system: fresh pages cost a third of a training step.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use super::parallel::for_each_rows;

/// Buffers that nobody holds, by the power of two that is their capacity. One pool for all threads: a buffer is often made on
/// one and dropped on another, and so never more are kept than were once in use together.
static FREE: [Mutex<Vec<Vec<f32>>>; usize::BITS as usize] = [const { Mutex::new(Vec::new()) }; usize::BITS as usize];

/// A slice of f32 whose memory is kept for others when it is dropped.
pub struct Buffer(Vec<f32>);

fn with_class<T>(capacity: usize, f: impl FnOnce(&mut Vec<Vec<f32>>) -> T) -> T {
    // A panic elsewhere leaves a list of whole buffers behind.
    f(&mut FREE[capacity.trailing_zeros() as usize].lock().unwrap_or_else(PoisonError::into_inner))
}

impl Buffer {
    /// Unspecified contents: for outputs that are written whole.
    pub fn unspecified(len: usize) -> Self {
        let capacity = len.next_power_of_two();
        let mut values = with_class(capacity, Vec::pop).unwrap_or_else(|| Vec::with_capacity(capacity));
        values.resize(len, 0.0);
        Self(values)
    }

    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::unspecified(len);
        buffer.fill(0.0);
        buffer
    }

    pub fn copy_of(values: &[f32]) -> Self {
        let mut buffer = Self::unspecified(values.len());
        for_each_rows(&mut buffer, 1, 1, |at, part| part.copy_from_slice(&values[at..][..part.len()]));
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.0);
        // The allocator may have given more room than was asked for.
        let class = (values.capacity() + 1).next_power_of_two() / 2;
        with_class(class, |free| free.push(values));
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
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
