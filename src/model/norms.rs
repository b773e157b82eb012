//! The norms of a model, of the kind that its configuration names, over rows of any width.

use super::block::Norm;
use super::trunk::Trunk;
use crate::model::Gradients;
use crate::numerics::buffer::Buffer;
use crate::numerics::layer_norm::{self, Moments};
use crate::numerics::{matrix, norm};

/// What a norm's forward pass leaves to its backward pass, for each row.
pub(crate) enum Spread {
    /// Inverse root mean squares.
    Rms(Buffer),
    Layer(Vec<Moments>),
}

/// Which of a norm's two uses a pass belongs to, where two branches read one norm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    First,
    Second,
}

/// The weight of a norm as the kernels take it.
enum Weight<'a> {
    Stored(&'a [f32]),
    OnePlus(Buffer),
}

impl Weight<'_> {
    fn values(&self) -> &[f32] {
        match self {
            Self::Stored(values) => values,
            Self::OnePlus(values) => values,
        }
    }
}

/// The one before the head.
impl Trunk<'_> {
    pub(super) fn final_normed(&self, x: &[f32]) -> (Buffer, Spread) {
        self.normed(self.config.family.names().final_norm, x)
    }

    pub(super) fn final_norm_backward(&self, x: &[f32], spread: &Spread, dy: &[f32], dx: &mut [f32], grads: &mut Gradients) {
        self.norm_backward(self.config.family.names().final_norm, x, spread, dy, dx, Use::First, grads);
    }
}

/// Names are those of tensors without `.weight` and `.bias`.
impl Trunk<'_> {
    /// (rows, width) and what is left of it: the norm `name` of the rows of `x`.
    pub(super) fn normed(&self, name: &str, x: &[f32]) -> (Buffer, Spread) {
        let spread = self.spread(name, x);
        (self.scaled(name, x, &spread), spread)
    }

    /// Of the rows of `x` that the norm `name` takes.
    pub(super) fn spread(&self, name: &str, x: &[f32]) -> Spread {
        let (width, eps) = (self.parameters.get(&weight_of(name)).values.len(), self.config.rms_norm_eps as f32);
        let rows = x.len() / width;
        match self.config.block.norm {
            Norm::Rms | Norm::RmsOfOnePlus => {
                let mut inverse = Buffer::unspecified(rows);
                norm::inverse_rms(x, width, eps, &mut inverse);
                Spread::Rms(inverse)
            }
            Norm::Layer => {
                let mut moments = vec![Moments::default(); rows];
                layer_norm::moments(x, width, eps, &mut moments);
                Spread::Layer(moments)
            }
        }
    }

    pub(super) fn scaled(&self, name: &str, x: &[f32], spread: &Spread) -> Buffer {
        let (weight, mut y) = (self.norm_weight(name), Buffer::unspecified(x.len()));
        match spread {
            Spread::Rms(inverse) => norm::scale(x, weight.values(), inverse, &mut y),
            Spread::Layer(moments) => {
                layer_norm::scale(x, weight.values(), &self.parameters.get(&bias_of(name)).values, moments, &mut y);
            }
        }
        y
    }

    /// `dx` += the gradient of the norm `name` of `x`, whose output has the gradient `dy`.
    #[allow(clippy::too_many_arguments, reason = "a norm's operands, and where its gradients go")]
    pub(super) fn norm_backward(
        &self,
        name: &str,
        x: &[f32],
        spread: &Spread,
        dy: &[f32],
        dx: &mut [f32],
        of: Use,
        grads: &mut Gradients,
    ) {
        let (weight, frozen) = (self.norm_weight(name), self.adapter.is_some());
        let weight = weight.values();
        match spread {
            Spread::Rms(inverse) if frozen => norm::backward_input(x, weight, inverse, dy, dx),
            Spread::Rms(inverse) => norm::backward(x, weight, inverse, dy, dx, grads.of_use(&weight_of(name), of)),
            Spread::Layer(moments) if frozen => layer_norm::backward_input(x, weight, moments, dy, dx),
            Spread::Layer(moments) => grads.of_both([&weight_of(name), &bias_of(name)], of, |dweight, dbias| {
                layer_norm::backward(x, weight, moments, dy, dx, dweight, dbias);
            }),
        }
    }

    fn norm_weight(&self, name: &str) -> Weight<'_> {
        let stored = &self.parameters.get(&weight_of(name)).values;
        if self.config.block.norm != Norm::RmsOfOnePlus {
            return Weight::Stored(stored);
        }
        let mut one_plus = Buffer::copy_of(stored);
        matrix::add_value(&mut one_plus, 1.0);
        Weight::OnePlus(one_plus)
    }
}

fn weight_of(name: &str) -> String {
    format!("{name}.weight")
}

fn bias_of(name: &str) -> String {
    format!("{name}.bias")
}
