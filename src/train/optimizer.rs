//! Optimizers over the kernels of `numerics::optim`, and clipping by the global gradient norm.

use crate::model::Parameters;
use crate::numerics::optim::{self, AdamwStep, RmspropStep, SgdStep};
use crate::suite::settings::{self, TrainSettings};

/// torch's default smoothing constant of `RMSprop`, which neither TRL nor the original DPO code changes.
const RMSPROP_ALPHA: f64 = 0.99;
/// torch's default ε of `RMSprop`.
const RMSPROP_EPSILON: f64 = 1e-8;

/// An optimizer with its moments, which have the shapes of the parameters.
pub(crate) struct Optimizer {
    settings: TrainSettings,
    /// AdamW: first and second moment; RMSprop: second moment; SGD: the running sum of gradients, if it has momentum.
    moments: Vec<Parameters>,
}

impl Optimizer {
    pub fn new(settings: &TrainSettings, parameters: &Parameters) -> Self {
        let count = match settings.optim {
            settings::Optimizer::Adamw => 2,
            settings::Optimizer::Rmsprop => 1,
            settings::Optimizer::Sgd => usize::from(settings.momentum > 0.0),
        };
        Self { settings: settings.clone(), moments: (0..count).map(|_| parameters.zeros_like()).collect() }
    }

    pub fn moments(&self) -> impl Iterator<Item = &Parameters> {
        self.moments.iter()
    }

    pub fn moments_mut(&mut self) -> impl Iterator<Item = &mut Parameters> {
        self.moments.iter_mut()
    }

    /// Update number `step`, from 1. `grad_norm` is the norm of `grads`, which are clipped to `max_grad_norm`.
    pub fn update(&mut self, parameters: &mut Parameters, grads: &Parameters, lr: f64, grad_norm: f64, step: u64) {
        let s = &self.settings;
        let grad_scale = clip_factor(grad_norm, s.max_grad_norm).unwrap_or(1.0);
        let mut moments: Vec<_> = self.moments.iter_mut().map(|m| m.iter_mut().map(|(_, t)| t.values.as_mut_slice())).collect();
        for ((name, tensor), (_, grad)) in parameters.iter_mut().zip(grads.iter()) {
            let (p, g) = (tensor.values.as_mut_slice(), grad.values.as_slice());
            let mut moments = moments.iter_mut().map(|m| m.next().expect("moments have the parameters' names"));
            let mut moment = || moments.next().expect("as many moments as the optimizer has");
            let weight_decay = if decays(name) { s.weight_decay } else { 0.0 };
            match s.optim {
                settings::Optimizer::Adamw => {
                    let (beta1, beta2, eps) = (s.adam_beta1, s.adam_beta2, s.adam_epsilon);
                    let update = AdamwStep { lr, beta1, beta2, eps, weight_decay, step, grad_scale };
                    optim::adamw(p, g, moment(), moment(), &update);
                }
                settings::Optimizer::Rmsprop => {
                    let (alpha, eps) = (RMSPROP_ALPHA, RMSPROP_EPSILON);
                    optim::rmsprop(p, g, moment(), &RmspropStep { lr, alpha, eps, weight_decay, grad_scale });
                }
                settings::Optimizer::Sgd => {
                    let update = SgdStep { lr, weight_decay, grad_scale };
                    match s.momentum > 0.0 {
                        true => optim::sgd_momentum(p, g, moment(), s.momentum, &update),
                        false => optim::sgd(p, g, &update),
                    }
                }
            }
        }
    }
}

/// Whether weight decay applies: not to biases and norms, as in transformers' Trainer (`get_decay_parameter_names`).
fn decays(name: &str) -> bool {
    // GPT-2's norms are known to the Trainer by their class.
    let is_norm = |part: &str| part == "norm" || part.ends_with("_norm") || part.starts_with("ln_");
    !["bias", "layernorm", "rmsnorm"].iter().any(|excluded| name.contains(excluded)) && !name.split('.').any(is_norm)
}

/// What gradients are scaled by so that their norm is at most `max_norm`, as torch's `clip_grad_norm_`; none if they stay.
fn clip_factor(norm: f64, max_norm: Option<f64>) -> Option<f32> {
    let factor = max_norm? / (norm + 1e-6);
    (factor < 1.0).then_some(factor as f32)
}

/// The norm of all gradients together (NUMERICS 7).
pub(crate) fn grad_norm(grads: &Parameters) -> f64 {
    optim::global_norm(grads.iter().map(|(_, tensor)| tensor.values.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tensor;
    use crate::train::tests::settings;

    fn one(name: &str, values: &[f32]) -> Parameters {
        let mut parameters = Parameters::new();
        parameters.insert(name, Tensor { shape: vec![values.len()], values: values.to_vec().into() });
        parameters
    }

    fn updated(optim: settings::Optimizer, name: &str, steps: &[[f32; 2]]) -> Vec<f32> {
        let settings = TrainSettings { optim, weight_decay: 0.1, max_grad_norm: None, ..settings() };
        let mut parameters = one(name, &[1.0, -2.0]);
        let mut optimizer = Optimizer::new(&settings, &parameters);
        for (i, g) in steps.iter().enumerate() {
            let grads = one(name, g);
            let norm = grad_norm(&grads);
            optimizer.update(&mut parameters, &grads, 0.01, norm, i as u64 + 1);
        }
        parameters.get(name).values.to_vec()
    }

    /// `golden/train/optimizers.py` made the numbers and says how close they must be met.
    #[test]
    fn updates_are_those_of_torch() {
        let golden = crate::train::tests::golden_optimizers();
        let numbers = |value: &serde_json::Value| serde_json::from_value::<Vec<f64>>(value.clone()).unwrap();
        let narrow = |value: &serde_json::Value| numbers(value).iter().map(|&x| x as f32).collect::<Vec<f32>>();
        for (name, optim, momentum) in [
            ("adamw", settings::Optimizer::Adamw, 0.0),
            ("rmsprop", settings::Optimizer::Rmsprop, 0.0),
            ("sgd", settings::Optimizer::Sgd, 0.0),
            ("sgd momentum", settings::Optimizer::Sgd, 0.9),
        ] {
            let settings = TrainSettings { optim, momentum, weight_decay: 0.1, max_grad_norm: Some(1.0), ..settings() };
            let mut parameters = one("mlp.weight", &narrow(&golden["start"]));
            let mut optimizer = Optimizer::new(&settings, &parameters);
            for (i, expected) in golden["weights"][name].as_array().unwrap().iter().enumerate() {
                let grads = one("mlp.weight", &narrow(&golden["gradients"][i]));
                let lr = golden["learning_rate"].as_f64().unwrap();
                optimizer.update(&mut parameters, &grads, lr, grad_norm(&grads), i as u64 + 1);
                let expected = numbers(expected);
                let largest = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
                for (&found, e) in parameters.get("mlp.weight").values.iter().zip(expected) {
                    assert!((f64::from(found) - e).abs() < 1e-6 * largest, "{name}, step {}: {found} but {e}", i + 1);
                }
            }
        }
    }

    #[test]
    fn weight_decay_spares_norms_and_biases() {
        for (name, decayed) in [
            ("model.layers.0.self_attn.q_proj.weight", true),
            ("lm_head.weight", true),
            ("score.weight", true),
            ("model.norm.weight", false),
            ("model.layers.0.input_layernorm.weight", false),
            ("model.layers.0.self_attn.q_norm.weight", false),
            ("transformer.wpe.weight", true),
            ("transformer.h.0.attn.c_attn.weight", true),
            ("transformer.h.0.ln_1.weight", false),
            ("transformer.ln_f.weight", false),
            ("gpt_neox.final_layer_norm.weight", false),
            ("model.layers.0.self_attn.q_proj.bias", false),
        ] {
            let moved = updated(settings::Optimizer::Sgd, name, &[[0.0, 0.0]]) != [1.0, -2.0];
            assert_eq!(moved, decayed, "{name}");
        }
    }

    #[test]
    fn gradients_are_clipped_only_above_the_maximum() {
        assert_eq!(clip_factor(0.5, Some(1.0)), None);
        assert_eq!(clip_factor(1.0, None), None);
        assert_eq!(clip_factor(4.0, Some(1.0)), Some((1.0 / 4.000_001) as f32));
    }

    #[test]
    fn the_gradient_norm_is_that_of_all_tensors_together() {
        let mut grads = one("a", &[3.0; 33]);
        grads.insert("b", Tensor { shape: vec![1], values: vec![2.0].into() });
        assert_eq!(grad_norm(&grads), (33.0f64 * 9.0 + 4.0).sqrt());
    }
}
