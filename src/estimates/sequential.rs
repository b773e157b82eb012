//! Judging that may stop early (`suite run --sequential`): in which order prompts are judged, when enough is known, and intervals that hold
//! whenever a run stops.
//!
//! Prompts are independent draws, each worth one value between 0 and 1: the mean of its samples and seeds. The betting sequence of
//! Waudby-Smith & Ramdas 2024 (see `statistics::sequential`) holds their mean at every time at once, so that looking after each block and
//! stopping when the answer is known leaves its level as it is. An interval for a number of prompts that was fixed beforehand would not:
//! whoever stops when it looks good is wrong too often.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Estimate;
use crate::digest::Digest;
use crate::judge::{Judgment, Outcome};
use crate::statistics::interval::Interval;
use crate::statistics::sequential::{Method, capital, sequence};

/// Prompts between two looks.
pub const BLOCK: usize = 20;

pub const ANYTIME: &str = "betting, valid whenever a run stops, a value a prompt";

/// When a variant is judged enough: when its win rate is told from one half, and from the golden's less the margin where there is one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    pub level: f64,
    /// The checkpoint that decides is the last one, by its judgments over all seeds.
    pub golden: Option<GoldenRule>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GoldenRule {
    pub margin: f64,
    /// Preference of the golden run by prompt, with the short digest of the prompt's text.
    pub preferences: BTreeMap<String, (String, f64)>,
}

/// Where the judging of a variant stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    pub variant: String,
    pub judge: String,
    /// The prompts that were judged, in their order.
    pub prompts: Vec<String>,
    /// How many there are.
    pub of: usize,
    /// Whether the rule had enough; it may have had it only after the last prompt.
    pub decided: bool,
    /// Whether a golden run was part of the rule.
    pub compared: bool,
}

/// Prompts in the order in which they are judged: that of a hash, so that those judged first are like all, whatever the order of the file.
pub fn order<'a>(prompts: impl Iterator<Item = &'a str>, seed: u64) -> Vec<&'a str> {
    let mut prompts = super::summary::distinct(prompts);
    prompts.sort_by_key(|prompt| Digest::of_value(&(seed, "sequential", prompt)));
    prompts
}

/// The mean of each prompt's values, in the order of its first.
pub fn by_prompt<'a>(values: impl Iterator<Item = (&'a str, f64)>) -> Vec<(&'a str, f64)> {
    let mut places = BTreeMap::new();
    let mut sums: Vec<(&str, f64, f64)> = Vec::new();
    for (prompt, value) in values {
        let place = *places.entry(prompt).or_insert_with(|| {
            sums.push((prompt, 0.0, 0.0));
            sums.len() - 1
        });
        sums[place].1 += value;
        sums[place].2 += 1.0;
    }
    sums.into_iter().map(|(prompt, sum, count)| (prompt, sum / count)).collect()
}

/// The interval of a mean of values between 0 and 1 after the last of them. None without values.
pub fn interval(values: &[f64], level: f64) -> Option<Interval> {
    sequence(values, Method::Betting, level).pop()
}

/// The same of differences, between −1 and 1.
pub fn interval_of_differences(differences: &[f64], level: f64) -> Option<Interval> {
    let shifted: Vec<f64> = differences.iter().map(|d| (d + 1.0) / 2.0).collect();
    interval(&shifted, level).map(|i| Interval { lower: 2.0 * i.lower - 1.0, upper: 2.0 * i.upper - 1.0 })
}

/// p of a mean difference of `bound`, valid whenever a run stops: the inverse of the most that bets against it ever won (Ville 1939).
pub fn chance_of_difference(differences: &[f64], bound: f64, level: f64) -> f64 {
    let shifted: Vec<f64> = differences.iter().map(|d| (d + 1.0) / 2.0).collect();
    let most = capital(&shifted, (bound + 1.0) / 2.0, level).into_iter().fold(1.0, f64::max);
    1.0 / most
}

impl Rule {
    /// Whether enough is known. `texts`: the short digest of each prompt's text.
    pub fn decides(&self, preferences: &[(&str, f64)], texts: &BTreeMap<&str, String>) -> bool {
        let beyond = |interval: Option<Interval>, bound: f64| interval.is_some_and(|i| i.lower > bound || i.upper < bound);
        let values: Vec<f64> = preferences.iter().map(|(_, p)| *p).collect();
        let from_half = beyond(interval(&values, self.level), 0.5);
        from_half
            && self.golden.as_ref().is_none_or(|golden| {
                let differences: Vec<f64> = preferences
                    .iter()
                    .filter_map(|(prompt, p)| {
                        let (text, before) = golden.preferences.get(*prompt)?;
                        (texts.get(prompt) == Some(text)).then_some(p - before)
                    })
                    .collect();
                beyond(interval_of_differences(&differences, self.level), -golden.margin)
            })
    }
}

/// Gives win rates and tie rates the intervals that hold whenever a run stops. Judgments are in the order of judging.
pub fn make_anytime(estimates: &mut [Estimate], judgments: &[Judgment]) {
    let value_of = |metric: &str| -> Option<fn(&Judgment) -> f64> {
        match metric {
            "win_rate" => Some(|j| j.preference),
            "win_rate_hard" => Some(|j| j.outcome.points()),
            "tie_rate" => Some(|j| f64::from(u8::from(j.outcome == Outcome::Tie))),
            _ => None,
        }
    };
    for e in estimates.iter_mut().filter(|e| e.slice.is_none()) {
        let Some(value) = value_of(&e.metric) else { continue };
        let own = judgments.iter().filter(|j| {
            Some(j.judge.as_str()) == e.judge.as_deref()
                && j.variant == e.variant
                && Some(j.checkpoint) == e.checkpoint
                && (e.seed.is_none() || j.seed == e.seed)
        });
        let values: Vec<f64> = by_prompt(own.map(|j| (j.prompt_id.as_str(), value(j)))).into_iter().map(|(_, v)| v).collect();
        let Some(Interval { lower, upper }) = interval(&values, e.level) else { continue };
        (e.lower, e.upper) = (lower.min(e.value), upper.max(e.value));
        e.method = ANYTIME.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::fixture::judgment;
    use super::super::summary::{Evidence, summarise};
    use super::*;
    use crate::rng::Stream;

    fn preference(draw: u64, prompt: usize, mean: f64) -> f64 {
        let noise = Stream::of(draw, "test/sequential", prompt as u64).uniform() - 0.5;
        (mean + 0.8 * noise).clamp(0.0, 1.0)
    }

    fn rule(golden: Option<GoldenRule>) -> Rule {
        Rule { level: 0.95, golden }
    }

    /// Prompts judged until the rule is content, block by block, of 400.
    fn judged(rule: &Rule, value: impl Fn(usize) -> f64) -> usize {
        let names: Vec<String> = (0..400).map(|p| format!("p{p:03}")).collect();
        let texts: BTreeMap<&str, String> = names.iter().map(|n| (n.as_str(), "text".to_owned())).collect();
        let values: Vec<(&str, f64)> = names.iter().enumerate().map(|(p, name)| (name.as_str(), value(p))).collect();
        (BLOCK..400).step_by(BLOCK).find(|n| rule.decides(&values[..*n], &texts)).unwrap_or(400)
    }

    #[test]
    fn what_is_clear_stops_early_and_what_is_even_does_not() {
        let far = judged(&rule(None), |p| preference(1, p, 0.75));
        let near = judged(&rule(None), |p| preference(1, p, 0.6));
        assert!(far <= 2 * BLOCK && far < near && near < 400, "{far} {near}");
        // An even policy is told from one half in 5 % of runs at most, though it is looked at twenty times.
        let wrong = (0..200).filter(|draw| judged(&rule(None), |p| preference(*draw, p, 0.5)) < 400).count();
        assert!(wrong <= 10, "{wrong} of 200");
    }

    #[test]
    fn a_golden_asks_for_more() {
        let golden = |shift: f64| {
            let preferences =
                (0..400).map(|p| (format!("p{p:03}"), ("text".to_owned(), preference(1, p, 0.75) + shift))).collect();
            rule(Some(GoldenRule { margin: 0.02, preferences }))
        };
        let value = |p| preference(1, p, 0.75);
        let alone = judged(&rule(None), value);
        let (same, worse) = (judged(&golden(0.0), value), judged(&golden(0.3), value));
        assert!(alone <= worse && worse < same, "{alone} {worse} {same}");
        // Another text under the same name is no prompt of the golden.
        let mut other = golden(0.3);
        other.golden.as_mut().unwrap().preferences.values_mut().for_each(|(text, _)| *text = "another".to_owned());
        assert_eq!(judged(&other, value), 400);
    }

    #[test]
    fn the_order_is_that_of_a_hash_and_of_the_seed() {
        let names: Vec<String> = (0..50).map(|p| format!("p{p}")).collect();
        let all = || names.iter().map(String::as_str);
        let first = order(all(), 1);
        assert_eq!(first, order(all().rev(), 1));
        assert_ne!(first, order(all(), 2));
        assert_ne!(first, all().collect::<Vec<_>>());
    }

    #[test]
    fn win_rates_get_intervals_that_hold_at_every_time_and_nothing_else_does() {
        let rows: Vec<Judgment> = (0..60).map(|p| judgment("j", "dpo", 1, 10, p, preference(3, p, 0.7))).collect();
        let before = summarise(&Evidence { judgments: &rows, ..Evidence::default() }, 0.95);
        let mut after = before.clone();
        make_anytime(&mut after, &rows);
        let mut changed = 0;
        for (b, a) in before.iter().zip(&after) {
            assert_eq!((b.value, b.n), (a.value, a.n));
            if ["win_rate", "win_rate_hard", "tie_rate"].contains(&a.metric.as_str()) {
                changed += 1;
                assert_eq!(a.method, ANYTIME);
                assert!(a.upper - a.lower > b.upper - b.lower, "{a:?}");
            } else {
                assert_eq!(a, b);
            }
        }
        // Of the seed, and of all seeds.
        assert_eq!(changed, 6);
        let values: Vec<f64> = rows.iter().map(|j| j.preference).collect();
        let expected = interval(&values, 0.95).unwrap();
        assert_eq!((after[0].lower, after[0].upper), (expected.lower, expected.upper));
    }

    #[test]
    fn a_loss_that_is_beyond_the_margin_has_a_small_p_and_no_difference_a_large_one() {
        let of = |mean: f64| (0..300).map(|p| preference(5, p, 0.5) - 0.5 + mean).collect::<Vec<f64>>();
        assert!(chance_of_difference(&of(-0.3), -0.02, 0.95) < 1e-4);
        assert!(chance_of_difference(&of(-0.02), -0.02, 0.95) > 0.05);
    }
}
