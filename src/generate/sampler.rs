//! The next token from a row of logits: temperature, then top-k, then top-p, in the order of `transformers`.

use crate::error::{Error, Result};
use crate::numerics::elementary;
use crate::rng::Stream;
use crate::suite::settings::GenerateSettings;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampler {
    /// 0: greedy.
    temperature: f64,
    top_k: Option<usize>,
    top_p: f64,
}

impl Sampler {
    pub fn new(settings: &GenerateSettings) -> Result<Self> {
        let GenerateSettings { temperature, top_p, top_k, .. } = *settings;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Error::usage(format!("temperature is {temperature}; 0 (greedy) or a positive number is expected")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::usage(format!("top_p is {top_p}; a share above 0, at most 1, is expected")));
        }
        if top_k == Some(0) {
            return Err(Error::usage("top_k is 0, which leaves no token").help("leave top_k out to keep all tokens"));
        }
        Ok(Self { temperature, top_k, top_p })
    }

    /// `logits`: (vocabulary,). Takes one number from `stream` unless greedy.
    pub fn next(&self, logits: &[f32], stream: &mut Stream) -> Result<u32> {
        if let Some(bad) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            return Err(Error::unexpected(format!("the logit of token {bad} is {} while sampling", logits[bad]))
                .help("the model's weights are broken or too large; look at its training log"));
        }
        if self.temperature == 0.0 {
            return Ok(greatest(logits) as u32);
        }
        let mut weights = self.weights(logits);
        self.keep_top_k(logits, &mut weights);
        self.keep_top_p(&mut weights);
        Ok(stream.categorical(&weights) as u32)
    }

    /// exp((logit − max) / temperature), in binary32 by the contract's own function (NUMERICS 4); sums over them are binary64.
    fn weights(&self, logits: &[f32]) -> Vec<f64> {
        let (max, temperature) = (logits[greatest(logits)], self.temperature as f32);
        let mut scaled: Vec<f32> = logits.iter().map(|l| (l - max) / temperature).collect();
        elementary::exp(&mut scaled);
        scaled.into_iter().map(f64::from).collect()
    }

    /// Tokens whose logit is below the k-th greatest go; those equal to it stay.
    fn keep_top_k(&self, logits: &[f32], weights: &mut [f64]) {
        let Some(k) = self.top_k.filter(|&k| k < logits.len()) else { return };
        let mut sorted = logits.to_vec();
        let (_, &mut kth, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        for (weight, &logit) in weights.iter_mut().zip(logits) {
            if logit < kth {
                *weight = 0.0;
            }
        }
    }

    /// Keeps the smallest set of likeliest tokens whose probabilities reach `top_p` (Holtzman et al. 2020); of equally likely
    /// ones, the first.
    fn keep_top_p(&self, weights: &mut [f64]) {
        if self.top_p >= 1.0 {
            return;
        }
        let enough = self.top_p * weights.iter().sum::<f64>();
        let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
        let mut reached = 0.0;
        for i in order {
            if reached >= enough {
                weights[i] = 0.0;
            } else {
                reached += weights[i];
            }
        }
    }
}

/// The index of the greatest logit, the first of equal ones.
fn greatest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, -1.0, 1.0, 2.0];

    fn sampler(temperature: f64, top_k: Option<usize>, top_p: f64) -> Sampler {
        Sampler::new(&GenerateSettings { temperature, top_p, top_k, max_new_tokens: 1, samples_per_prompt: 1 }).unwrap()
    }

    fn shares(sampler: &Sampler) -> [f64; 5] {
        let n = 40_000;
        let mut stream = Stream::of(3, "test/sampler", 0);
        let mut counts = [0.0; 5];
        for _ in 0..n {
            counts[sampler.next(&LOGITS, &mut stream).unwrap() as usize] += 1.0 / f64::from(n);
        }
        counts
    }

    fn softmax(scale: f64, keep: &[usize]) -> [f64; 5] {
        let mut p: [f64; 5] = std::array::from_fn(|i| if keep.contains(&i) { (f64::from(LOGITS[i]) * scale).exp() } else { 0.0 });
        let total: f64 = p.iter().sum();
        p.iter_mut().for_each(|x| *x /= total);
        p
    }

    #[test]
    fn temperature_zero_takes_the_first_of_the_greatest_logits() {
        assert_eq!(sampler(0.0, None, 1.0).next(&LOGITS, &mut Stream::of(0, "test", 0)).unwrap(), 1);
    }

    #[test]
    fn draws_have_the_frequencies_of_the_warped_softmax() {
        let all = [0, 1, 2, 3, 4];
        for (sampler, expected) in [
            (sampler(1.0, None, 1.0), softmax(1.0, &all)),
            (sampler(0.5, None, 1.0), softmax(2.0, &all)),
            (sampler(2.0, Some(3), 1.0), softmax(0.5, &[1, 3, 4])),
            (sampler(1.0, None, 0.78), softmax(1.0, &[1, 4])),
            (sampler(1.0, None, 0.8), softmax(1.0, &[1, 3, 4])),
            (sampler(1.0, Some(1), 1.0), softmax(1.0, &[1, 4])),
        ] {
            for (found, expected) in shares(&sampler).iter().zip(expected) {
                assert!((found - expected).abs() < 0.01 && (*found == 0.0) == (expected == 0.0), "{sampler:?}");
            }
        }
    }

    #[test]
    fn a_logit_that_is_not_a_number_is_an_error() {
        assert!(sampler(1.0, None, 1.0).next(&[0.0, f32::NAN], &mut Stream::of(0, "test", 0)).is_err());
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let settings =
            |temperature, top_p, top_k| GenerateSettings { temperature, top_p, top_k, max_new_tokens: 1, samples_per_prompt: 1 };
        for bad in
            [settings(-1.0, 1.0, None), settings(f64::NAN, 1.0, None), settings(1.0, 0.0, None), settings(1.0, 1.0, Some(0))]
        {
            assert!(Sampler::new(&bad).is_err(), "{bad:?}");
        }
    }
}
