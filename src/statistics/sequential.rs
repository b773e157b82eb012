//! Confidence sequences: intervals of a mean in 0 to 1 that hold at every time at once, so that a run may stop whenever it has
//! seen enough (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting").
//!
//! All are for independent values: hand in one value a prompt.

use super::interval::Interval;

/// Which sequence. [`Method::Betting`] is the tightest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Betting,
    EmpiricalBernstein,
    Hoeffding,
}

/// Candidate means of the betting sequence: multiples of 1 / GRID.
const GRID: usize = 1000;

/// The interval after each value, never wider than the one before.
pub fn sequence(values: &[f64], method: Method, level: f64) -> Vec<Interval> {
    let mut intervals = match method {
        Method::Betting => betting(values, level),
        _ => two_sided(values, method, level),
    };
    for i in 1..intervals.len() {
        let before = intervals[i - 1];
        intervals[i] = intervals[i].within(before.lower, before.upper);
    }
    intervals
}

/// λ_t = √(2 log(1/α) / (t log(1 + t) σ²_{t−1})), from the values before t (§3.2, eq. 15): mean and variance start from a made-up
/// value of ½ with variance ¼.
struct Bets {
    alpha: f64,
    t: f64,
    sum: f64,
    squares: f64,
}

impl Bets {
    fn new(alpha: f64) -> Self {
        Self { alpha, t: 0.0, sum: 0.5, squares: 0.25 }
    }

    fn next(&mut self) -> f64 {
        self.t += 1.0;
        let variance = self.squares / self.t;
        (2.0 * libm::log(1.0 / self.alpha) / (self.t * libm::log(1.0 + self.t) * variance)).sqrt()
    }

    fn see(&mut self, value: f64) {
        self.sum += value;
        let mean = (self.sum / (self.t + 1.0)).min(1.0);
        self.squares += (value - mean) * (value - mean);
    }
}

fn two_sided(values: &[f64], method: Method, level: f64) -> Vec<Interval> {
    let half = (1.0 - level) / 2.0;
    let one_sided = |values: &mut dyn Iterator<Item = f64>| match method {
        Method::Hoeffding => hoeffding_lower(values, half),
        _ => bernstein_lower(values, half),
    };
    let lower = one_sided(&mut values.iter().copied());
    let upper = one_sided(&mut values.iter().map(|v| 1.0 - v));
    lower.into_iter().zip(upper).map(|(lower, upper)| Interval { lower, upper: 1.0 - upper }).collect()
}

/// Theorem 2: L_t = (Σ λ x − log(1/α) − Σ (x − mean before)² ψ(λ)) / Σ λ, ψ(λ) = −log(1 − λ) − λ, λ at most ½.
fn bernstein_lower(values: &mut dyn Iterator<Item = f64>, alpha: f64) -> Vec<f64> {
    let mut bets = Bets::new(alpha);
    let (mut weighted, mut penalty, mut total, mut sum, mut seen) = (0.0, libm::log(1.0 / alpha), 0.0, 0.0, 0.0);
    let mut lower = Vec::new();
    for value in values {
        let bet = bets.next().min(0.5);
        let before = if seen > 0.0 { sum / seen } else { 0.0 };
        weighted += bet * value;
        penalty += (value - before) * (value - before) * (-libm::log1p(-bet) - bet);
        total += bet;
        sum += value;
        seen += 1.0;
        bets.see(value);
        lower.push(((weighted - penalty) / total).max(0.0));
    }
    lower
}

/// §3.1: the same with ψ(λ) = λ² / 8 and λ_t = √(8 log(1/α) / (t log(1 + t))), at most 1.
fn hoeffding_lower(values: &mut dyn Iterator<Item = f64>, alpha: f64) -> Vec<f64> {
    let (mut weighted, mut penalty, mut total, mut t) = (0.0, libm::log(1.0 / alpha), 0.0, 0.0);
    let mut lower = Vec::new();
    for value in values {
        t += 1.0;
        let bet = (8.0 * libm::log(1.0 / alpha) / (t * libm::log(1.0 + t))).sqrt().min(1.0);
        weighted += bet * value;
        penalty += bet * bet / 8.0;
        total += bet;
        lower.push(((weighted - penalty) / total).max(0.0));
    }
    lower
}

/// Theorem 3, hedged: the capital of bets that the mean lies above `m` and below it, the larger of the two halves. Against a wrong
/// `m` it grows; against the true one it passes 1/α at any time with chance α at most.
pub struct Capital {
    m: f64,
    above: f64,
    below: f64,
}

impl Capital {
    pub fn against(m: f64) -> Self {
        Self { m, above: 0.5, below: 0.5 }
    }

    /// `bet`: before any cut. At most half of what could be lost is bet.
    fn see(&mut self, value: f64, bet: f64) -> f64 {
        let distance = value - self.m;
        let up = bet.min(0.5 / self.m).max(-0.5 / (1.0 - self.m));
        let down = bet.min(0.5 / (1.0 - self.m)).max(-0.5 / self.m);
        self.above *= 1.0 + up * distance;
        self.below *= 1.0 - down * distance;
        self.above.max(self.below)
    }
}

/// The capital against `m` after each value: an e-value at every time (evidence against a mean of `m`; 1/α of it is as good as p = α).
pub fn capital(values: &[f64], m: f64, level: f64) -> Vec<f64> {
    let (mut bets, mut capital) = (Bets::new((1.0 - level) / 2.0), Capital::against(m));
    values
        .iter()
        .map(|value| {
            let bet = bets.next();
            bets.see(*value);
            capital.see(*value, bet)
        })
        .collect()
}

/// All m whose capital is at most 1/α, on a grid, widened by a step of it to either side.
fn betting(values: &[f64], level: f64) -> Vec<Interval> {
    let alpha = 1.0 - level;
    let mut bets = Bets::new(alpha / 2.0);
    let step = 1.0 / GRID as f64;
    let mut candidates: Vec<Capital> = (0..=GRID).map(|i| Capital::against(i as f64 * step)).collect();
    let mut intervals = Vec::with_capacity(values.len());
    for value in values {
        let bet = bets.next();
        bets.see(*value);
        let (mut first, mut last) = (None, None);
        for candidate in &mut candidates {
            if candidate.see(*value, bet) <= 1.0 / alpha {
                first.get_or_insert(candidate.m);
                last = Some(candidate.m);
            }
        }
        let (lower, upper) = (first.unwrap_or(0.0), last.unwrap_or(1.0));
        intervals.push(Interval { lower: lower - step, upper: upper + step }.within(0.0, 1.0));
    }
    intervals
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, numbers, vectors};
    use super::*;
    use dpo_eval_rng::Stream;

    #[test]
    fn sequences_meet_confseq() {
        let Some(file) = vectors("confseq") else { return };
        let x = numbers(&file["x"]);
        let cases = [
            ("predmix_eb_running", Method::EmpiricalBernstein),
            ("predmix_hoeffding_running", Method::Hoeffding),
            ("hedged_cs_breaks1000_running", Method::Betting),
            ("betting_cs_default_breaks1000_running", Method::Betting),
        ];
        for (name, method) in cases {
            let found = sequence(&x, method, 0.95);
            close(&found.iter().map(|i| i.lower).collect::<Vec<_>>(), &numbers(&file[name]["lower"]), 1e-9);
            close(&found.iter().map(|i| i.upper).collect::<Vec<_>>(), &numbers(&file[name]["upper"]), 1e-9);
        }
        let raw = two_sided(&x, Method::EmpiricalBernstein, 0.95);
        close(&raw.iter().map(|i| i.lower).collect::<Vec<_>>(), &numbers(&file["predmix_eb_raw"]["lower"]), 1e-9);
    }

    #[test]
    fn bets_and_capital_meet_confseq() {
        let Some(file) = vectors("confseq") else { return };
        let x = numbers(&file["x"]);
        let bets = |alpha: f64, cut: f64| {
            let mut bets = Bets::new(alpha);
            let next = |value: &f64| {
                let bet = bets.next().min(cut);
                bets.see(*value);
                bet
            };
            x.iter().map(next).collect::<Vec<_>>()
        };
        close(&bets(0.05, 0.5), &numbers(&file["lambda_predmix_eb_alpha0.05_trunc0.5"]), 1e-9);
        close(&bets(0.025, f64::INFINITY), &numbers(&file["lambda_predmix_eb_alpha0.025_notrunc"]), 1e-9);
        for (m, expected) in file["betting_martingale_theta0.5_trunc0.5_mtrunc"].as_object().unwrap() {
            let (found, expected) = (capital(&x, m.parse().unwrap(), 0.95), numbers(expected));
            let ratios: Vec<f64> = found.iter().zip(&expected).map(|(f, e)| f / e).collect();
            close(&ratios, &vec![1.0; x.len()], 1e-9);
        }
    }

    #[test]
    fn the_truth_stays_inside_at_every_time() {
        let mut left = [0; 3];
        for draw in 0..200 {
            let mut stream = Stream::of(draw, "test/sequential", 0);
            let values: Vec<f64> = (0..200).map(|_| if stream.bernoulli(0.6) { 1.0 } else { 0.0 }).collect();
            for (count, method) in left.iter_mut().zip([Method::Betting, Method::EmpiricalBernstein, Method::Hoeffding]) {
                let last = *sequence(&values, method, 0.9).last().unwrap();
                *count += u32::from(last.lower > 0.6 || last.upper < 0.6);
            }
        }
        // 10 % may; chance allows up to 33 of 200 (3 standard deviations).
        assert!(left.iter().all(|count| *count <= 33), "{left:?}");
    }
}
