//! Gradients of a model's weights, summed over an optimizer batch.

use std::collections::BTreeMap;

use crate::model::Parameters;
use crate::model::norms::Use;
use crate::numerics::buffer::Buffer;
use crate::numerics::matrix;

/// One sum for every tensor, as one chain over the tokens of the batch.
///
/// A tensor with two uses (tied embeddings: the table and the head; a norm that attention and MLP both read) has a chain for each, and the two are added once, when the
/// batch is whole. A single chain would run through both uses of each micro-batch in turn, and so depend on where the batch is cut.
#[derive(Debug, Clone)]
pub struct Gradients {
    sums: Parameters,
    /// The chains of second uses, by the tensor's name.
    second: BTreeMap<String, Buffer>,
}

impl Gradients {
    /// Zero gradients of `parameters`.
    pub fn of(parameters: &Parameters) -> Self {
        Self { sums: parameters.zeros_like(), second: BTreeMap::new() }
    }

    /// Back to zero, for the next batch.
    pub fn clear(&mut self) {
        self.sums.fill(0.0);
        self.second.values_mut().for_each(|chain| chain.set_all(0.0));
    }

    /// The sum of one tensor.
    ///
    /// # Panics
    /// Here and below, when there is no tensor of that name.
    pub fn get_mut(&mut self, name: &str) -> &mut [f32] {
        &mut self.sums.get_mut(name).values
    }

    /// The sum of one of a tensor's uses.
    pub(crate) fn of_use(&mut self, name: &str, of: Use) -> &mut [f32] {
        self.chain(name, of)
    }

    /// Continues the sums of two different tensors together.
    pub(crate) fn of_both(&mut self, names: [&str; 2], of: Use, go_on: impl FnOnce(&mut [f32], &mut [f32])) {
        let [mut first, mut second] = names.map(|name| std::mem::take(self.chain(name, of)));
        go_on(&mut first, &mut second);
        for (name, chain) in names.into_iter().zip([first, second]) {
            *self.chain(name, of) = chain;
        }
    }

    fn chain(&mut self, name: &str, of: Use) -> &mut Buffer {
        match of {
            Use::First => &mut self.sums.get_mut(name).values,
            Use::Second => {
                let length = self.sums.get(name).values.len();
                self.second.entry(name.to_owned()).or_insert_with(|| Buffer::filled(length, 0.0))
            }
        }
    }

    /// The whole batch's gradients: second uses are added to the first ones and start again from zero.
    pub fn total(&mut self) -> &Parameters {
        for (name, chain) in &mut self.second {
            matrix::add(&mut self.sums.get_mut(name).values, chain);
            chain.set_all(0.0);
        }
        &self.sums
    }
}
