//! What the frozen model says of the training examples.

use crate::model::Llama;

/// Its scores of every example, or the model itself, which is then asked at every step: the same bits, as an example's scores don't
/// depend on what is scored beside it.
pub(super) enum Reference<S> {
    Recorded(Vec<S>),
    Live(Box<Llama>),
}

impl<S: Copy> Reference<S> {
    /// The scores of some examples, in order; `score` asks the model for them.
    pub fn of(&self, examples: &[usize], score: impl FnOnce(&Llama) -> Vec<S>) -> Vec<S> {
        match self {
            Self::Recorded(all) => examples.iter().map(|&i| all[i]).collect(),
            Self::Live(model) => score(model),
        }
    }
}
