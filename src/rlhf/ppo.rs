//! Proximal policy optimization over completions (Schulman et al. 2017, arXiv 1707.06347), a token an action.
//!
//! In binary64, over the tokens of a mini-batch in their order. TRL's `PPOTrainer` takes its means over micro-batches; ours are over
//! the mini-batch, so that nothing depends on how it is cut.

use crate::suite::settings::PpoSettings;

/// Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16):
/// δ_t = r_t + γ V_{t+1} − V_t, A_t = δ_t + γ λ A_{t+1}, with V = A = 0 after the last token.
pub(crate) fn advantages(rewards: &[f64], values: &[f64], gamma: f64, lam: f64) -> Vec<f64> {
    let (mut advantages, mut next, mut value_after) = (vec![0.0; rewards.len()], 0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * value_after - values[t];
        next = delta + gamma * lam * next;
        advantages[t] = next;
        value_after = values[t];
    }
    advantages
}

/// Divides by the standard deviation (unbiased, as torch's) and takes off the mean, where it isn't to be kept: TRL's `masked_whiten`.
/// A single number stays as it is.
pub(crate) fn whiten(values: &mut [f64], keep_mean: bool) {
    let n = values.len() as f64;
    if n < 2.0 {
        return;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    let by = 1.0 / libm::sqrt(variance + 1e-8);
    values.iter_mut().for_each(|v| *v = (*v - mean) * by + if keep_mean { mean } else { 0.0 });
}

/// A token as it was written, and what is known of it since.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Action {
    /// log π of the policy that wrote it, nats.
    pub logp: f64,
    pub value: f64,
    pub advantage: f64,
    /// What the value head learns: value + advantage, before advantages are whitened.
    pub target: f64,
}

/// Losses of one token, and their derivatives by its log-probability and its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TokenLoss {
    pub policy: f64,
    pub value: f64,
    pub dlogp: f64,
    pub dvalue: f64,
    /// Whether a bound of the ratio, or of the value, decided.
    pub clipped: [bool; 2],
    pub ratio: f64,
}

/// The clipped surrogate max(−A ρ, −A clip(ρ, 1 ± ε)), ρ = π/π_old, and the clipped value loss
/// ½ max((V − R)², (clip(V, V_old ± ε_v) − R)²). Where both forms are equal, so are their derivatives.
pub(crate) fn token_loss(ppo: &PpoSettings, action: &Action, logp: f64, value: f64) -> TokenLoss {
    let ratio = libm::exp(logp - action.logp);
    let bounded = ratio.clamp(1.0 - ppo.cliprange, 1.0 + ppo.cliprange);
    let [free, held] = [-action.advantage * ratio, -action.advantage * bounded];
    let near = value.clamp(action.value - ppo.cliprange_value, action.value + ppo.cliprange_value);
    let [error, near_error] = [value - action.target, near - action.target];
    let clipped = [held > free, near_error * near_error > error * error];
    TokenLoss {
        policy: free.max(held),
        value: 0.5 * (error * error).max(near_error * near_error),
        dlogp: if clipped[0] { 0.0 } else { free },
        dvalue: if clipped[1] { 0.0 } else { error },
        clipped,
        ratio,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> PpoSettings {
        PpoSettings::default()
    }

    #[test]
    fn without_discount_and_trace_decay_advantages_are_returns_less_values() {
        let (rewards, values) = ([0.0, 0.5, -1.0, 2.0], [0.1, -0.2, 0.3, 0.4]);
        let found = advantages(&rewards, &values, 1.0, 1.0);
        for t in 0..4 {
            let to_come: f64 = rewards[t..].iter().sum();
            assert!((found[t] - (to_come - values[t])).abs() < 1e-12);
        }
        // λ = 0: the error of one step.
        let found = advantages(&rewards, &values, 0.9, 0.0);
        assert!((found[1] - (0.5 + 0.9 * 0.3 + 0.2)).abs() < 1e-12);
    }

    #[test]
    fn whitened_numbers_have_mean_zero_or_their_own_and_variance_one() {
        for keep in [false, true] {
            let mut x = [1.0, 2.0, 4.0, 9.0];
            whiten(&mut x, keep);
            let mean = x.iter().sum::<f64>() / 4.0;
            let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 3.0;
            assert!((mean - if keep { 4.0 } else { 0.0 }).abs() < 1e-9 && (variance - 1.0).abs() < 1e-6);
        }
    }

    proptest! {
        #[test]
        fn derivatives_are_those_of_the_losses(
            logp in -3.0..0.0f64, before in -3.0..0.0f64, value in -1.0..1.0f64, was in -1.0..1.0f64,
            advantage in -2.0..2.0f64, target in -2.0..2.0f64,
        ) {
            let action = Action { logp: before, value: was, advantage, target };
            let at = |logp: f64, value: f64| token_loss(&settings(), &action, logp, value);
            let (h, here) = (1e-6, at(logp, value));
            let [up, down] = [at(logp + h, value), at(logp - h, value)];
            // Not across a corner.
            prop_assume!(up.clipped == here.clipped && down.clipped == here.clipped);
            prop_assert!(((up.policy - down.policy) / (2.0 * h) - here.dlogp).abs() < 1e-4 * (1.0 + here.dlogp.abs()));
            let [up, down] = [at(logp, value + h), at(logp, value - h)];
            prop_assume!(up.clipped == here.clipped && down.clipped == here.clipped);
            prop_assert!(((up.value - down.value) / (2.0 * h) - here.dvalue).abs() < 1e-4 * (1.0 + here.dvalue.abs()));
        }

        #[test]
        fn a_bounded_token_pulls_no_further(advantage in 0.1..2.0f64, beyond in 0.25..1.0f64) {
            let action = Action { logp: -1.0, value: 0.0, advantage, target: 0.0 };
            let far = token_loss(&settings(), &action, -1.0 + beyond, 0.0);
            prop_assert!(far.clipped[0] && far.dlogp == 0.0);
            // Away from what is worth less it may go on.
            let worse = Action { advantage: -advantage, ..action };
            prop_assert!(token_loss(&settings(), &worse, -1.0 + beyond, 0.0).dlogp > 0.0);
        }
    }
}
