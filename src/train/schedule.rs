//! Learning rates by step, as `transformers.optimization` defines its schedules.

use crate::error::{Error, Result};
use crate::suite::settings::{Sampling, Scheduler, TrainSettings};

use crate::rng::Stream;

/// Time scale of `inverse_sqrt` without a warmup, in steps: transformers' default.
const INVERSE_SQRT_STEPS: u64 = 10_000;

/// The learning rate of the step after `done` finished ones, out of `total`.
///
/// `get_constant_schedule`, `get_constant_schedule_with_warmup`, `get_linear_schedule_with_warmup` and
/// `get_cosine_schedule_with_warmup` (half a cosine) and `get_inverse_sqrt_schedule` (its time scale the warmup, or 10 000 steps
/// without one) of transformers 5: with a warmup the first step has rate 0. `constant` takes no notice of `warmup_steps`.
pub fn learning_rate(settings: &TrainSettings, done: u64, total: u64) -> f64 {
    let warmup = settings.warmup_steps;
    let factor = match settings.lr_scheduler_type {
        Scheduler::Constant => 1.0,
        _ if done < warmup => done as f64 / warmup as f64,
        Scheduler::ConstantWithWarmup => 1.0,
        Scheduler::Linear => total.saturating_sub(done) as f64 / total.saturating_sub(warmup).max(1) as f64,
        Scheduler::Cosine => {
            let progress = (done - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
            (0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))).max(0.0)
        }
        Scheduler::InverseSqrt => {
            let scale = if warmup > 0 { warmup } else { INVERSE_SQRT_STEPS };
            1.0 / ((done - warmup + scale) as f64 / scale as f64).sqrt()
        }
    };
    settings.learning_rate * factor
}

/// Which examples each step takes. An epoch's last batch may be short; none is dropped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Optimizer steps in all.
    pub total: u64,
    pub steps_per_epoch: u64,
    pub micro_batch: usize,
    batch: usize,
    examples: usize,
    sampling: Sampling,
    pub seed: u64,
}

impl Plan {
    pub fn of(settings: &TrainSettings, examples: usize, seed: u64) -> Result<Self> {
        let micro_batch = settings.per_device_train_batch_size;
        let batch = micro_batch * settings.gradient_accumulation_steps;
        if examples == 0 {
            return Err(Error::input("there is nothing to train on: the training set is empty")
                .help("check the data set and its split, and `max_length`"));
        }
        if batch == 0 {
            return Err(Error::usage("per_device_train_batch_size and gradient_accumulation_steps must be at least 1"));
        }
        let steps_per_epoch = examples.div_ceil(batch) as u64;
        let total = match settings.max_steps {
            Some(steps) => steps,
            None => (settings.num_train_epochs * steps_per_epoch as f64).ceil() as u64,
        };
        if total == 0 {
            return Err(Error::usage("the training has no steps").help("set max_steps or num_train_epochs above 0"));
        }
        Ok(Self { total, steps_per_epoch, micro_batch, batch, examples, sampling: settings.sampling, seed })
    }

    /// The examples of the step after `done` finished ones, in batch order.
    pub fn batch(&self, done: u64) -> Vec<usize> {
        let (epoch, within) = (done / self.steps_per_epoch, (done % self.steps_per_epoch) as usize);
        let order = match self.sampling {
            Sampling::Sequential => (0..self.examples).collect(),
            Sampling::Shuffle => Stream::of(self.seed, "train/shuffle", epoch).permutation(self.examples),
        };
        let start = within * self.batch;
        order[start..(start + self.batch).min(self.examples)].to_vec()
    }

    /// Epochs passed after `done` steps.
    pub fn epoch(&self, done: u64) -> f64 {
        done as f64 / self.steps_per_epoch as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::settings;

    /// `golden/train/optimizers.py` made the numbers and says how close they must be met.
    #[test]
    fn schedules_are_those_of_transformers() {
        let golden = crate::train::tests::golden_optimizers();
        for case in golden["rates"].as_array().unwrap() {
            let lr_scheduler_type = serde_json::from_value(case["schedule"].clone()).unwrap();
            let warmup_steps = case["warmup"].as_u64().unwrap();
            let settings = TrainSettings { lr_scheduler_type, warmup_steps, learning_rate: 1.0, ..settings() };
            let expected: Vec<f64> = serde_json::from_value(case["rates"].clone()).unwrap();
            for (done, &e) in expected.iter().enumerate() {
                let found = learning_rate(&settings, done as u64, expected.len() as u64);
                assert!((found - e).abs() < 1e-15, "{case} after {done} steps: {found} but {e}");
            }
        }
    }

    #[test]
    fn every_epoch_takes_every_example_once() {
        for sampling in [Sampling::Shuffle, Sampling::Sequential] {
            let settings = TrainSettings { sampling, num_train_epochs: 2.5, max_steps: None, ..settings() };
            let plan = Plan::of(&settings, 11, 5).unwrap();
            assert_eq!((plan.steps_per_epoch, plan.total), (3, 8));
            for epoch in 0..2 {
                let mut seen: Vec<usize> = (0..3).flat_map(|s| plan.batch(epoch * 3 + s)).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..11).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn epochs_and_seeds_have_their_own_order() {
        let order = |seed, epoch: u64| {
            let plan = Plan::of(&settings(), 64, seed).unwrap();
            (0..plan.steps_per_epoch).flat_map(|s| plan.batch(epoch * plan.steps_per_epoch + s)).collect::<Vec<_>>()
        };
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        assert_eq!(order(1, 1), order(1, 1));
    }

    #[test]
    fn an_empty_training_set_is_an_error() {
        assert!(Plan::of(&settings(), 0, 1).is_err());
    }
}
