//! Working memory that is used again instead of being returned to the system: fresh pages cost a third of a training step.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    /// Buffers of this thread that nobody holds.
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A slice of f32 that goes back to its thread's pool when dropped.
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// Unspecified contents: for outputs that are written whole.
    pub(crate) fn unspecified(len: usize) -> Self {
        let reused = FREE.with_borrow_mut(|free| {
            let fits = (0..free.len()).filter(|i| free[*i].capacity() >= len).min_by_key(|i| free[*i].capacity());
            // Without a fit the largest one makes way, so that the pool holds no more than was once in use together.
            let largest = (0..free.len()).max_by_key(|i| free[*i].capacity());
            let taken = fits.or(largest).map(|i| free.swap_remove(i));
            taken.filter(|_| fits.is_some())
        });
        let mut values = reused.unwrap_or_else(|| Vec::with_capacity(len));
        values.resize(len, 0.0);
        Self(values)
    }

    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Self::unspecified(len);
        buffer.fill(0.0);
        buffer
    }

    pub(crate) fn copy_of(values: &[f32]) -> Self {
        let mut buffer = Self::unspecified(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.0);
        // A thread that is ending has no pool any more: then the memory is freed.
        let _ = FREE.try_with(|free| free.borrow_mut().push(values));
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
    fn a_dropped_buffer_is_used_again_and_zeros_are_zero() {
        let mut first = Buffer::unspecified(1000);
        first.fill(3.0);
        let address = first.as_ptr();
        drop(first);
        let second = Buffer::zeros(900);
        assert_eq!(second.as_ptr(), address);
        assert!(second.iter().all(|x| *x == 0.0));
        assert_eq!(&*Buffer::copy_of(&[1.0, 2.0]), [1.0, 2.0]);
    }
}
