//! Gradients of a model's weights, summed over an optimizer batch.

use std::collections::BTreeMap;

use crate::model::Parameters;

/// One sum for every tensor, as one chain over the tokens of the batch.
///
/// A tensor with two uses (tied embeddings: the table and the head) has a chain for each, and the two are added once, when the
/// batch is whole. A single chain would run through both uses of each micro-batch in turn, and so depend on where the batch is cut.
#[derive(Debug, Clone)]
pub struct Gradients {
    sums: Parameters,
    /// The chains of second uses, by the tensor's name.
    second: BTreeMap<String, Vec<f32>>,
}

impl Gradients {
    /// Zero gradients of `parameters`.
    pub fn of(parameters: &Parameters) -> Self {
        Self { sums: parameters.zeros_like(), second: BTreeMap::new() }
    }

    /// Back to zero, for the next batch.
    pub fn clear(&mut self) {
        self.sums.fill(0.0);
        self.second.values_mut().for_each(|chain| chain.fill(0.0));
    }

    /// The sum of one tensor.
    ///
    /// # Panics
    /// Here and below, when there is no tensor of that name.
    pub fn get_mut(&mut self, name: &str) -> &mut [f32] {
        &mut self.sums.get_mut(name).values
    }

    /// The sum of a tensor's second use.
    pub fn second_use(&mut self, name: &str) -> &mut [f32] {
        let length = self.sums.get(name).values.len();
        self.second.entry(name.to_owned()).or_insert_with(|| vec![0.0; length])
    }

    /// The whole batch's gradients: second uses are added to the first ones and start again from zero.
    pub fn total(&mut self) -> &Parameters {
        for (name, chain) in &mut self.second {
            let sums = self.sums.get_mut(name).values.iter_mut();
            sums.zip(chain).for_each(|(sum, x)| *sum += std::mem::take(x));
        }
        &self.sums
    }
}
