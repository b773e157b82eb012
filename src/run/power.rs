//! What a suite's number of prompts can show, before anything runs.
//!
//! How far preferences spread isn't known yet. Nothing between 0 and 1 spreads more than sure verdicts do, a prompt's variance being ¼ at
//! most; where the suite has a golden file, the prompts' preferences there say what to expect. A difference to the golden has at most
//! twice that variance: prompts that are hard for both make it smaller.

use serde::Serialize;

use crate::gate::Golden;
use crate::statistics::power::{POWER, detectable_effect, t_test_pairs_needed};
use crate::suite::Suite;

use super::cost::eval_prompts;

/// Distances from one half, in win rate, that the plan gives the prompts for.
pub const DISTANCES: [f64; 2] = [0.05, 0.02];

/// The variance of verdicts that are sure, won as often as lost.
const MOST: f64 = 0.25;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Power {
    /// Evaluation prompts of the suite; a file may turn out to hold fewer.
    pub prompts: usize,
    pub level: f64,
    /// The chance to decide that this is about.
    pub power: f64,
    pub gate_margin: f64,
    /// First what holds whatever the judge says, then what the golden lets expect of its variants.
    pub expected: Vec<Expected>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Expected {
    /// None: of any variant, at worst.
    pub variant: Option<String>,
    /// Standard deviation of a prompt's preference, averaged over its samples and seeds.
    pub spread: f64,
    /// The smallest true distance of a win rate from one half that shows.
    pub detectable: f64,
    /// Prompts that show a distance of [`DISTANCES`].
    pub prompts_needed: Vec<Needed>,
    /// Prompts with which the gate passes a policy that is no worse than the golden.
    pub gate_prompts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Needed {
    pub distance: f64,
    pub prompts: u64,
}

/// Of a suite that compares; `golden`: the one of the suite, if it has one already.
pub fn power(suite: &Suite, golden: Option<&Golden>) -> Power {
    let (prompts, level, margin) = (eval_prompts(suite), suite.statistics.level, suite.gate.margin);
    let expected = |variant: Option<&str>, variance: f64| {
        let spread = variance.sqrt();
        let needed = |distance: f64, spread: f64| t_test_pairs_needed(distance / spread, level, POWER).ceil() as u64;
        Expected {
            variant: variant.map(str::to_owned),
            spread,
            detectable: if prompts > 1 { (spread * detectable_effect(prompts as f64, level, POWER)).min(0.5) } else { 0.5 },
            prompts_needed: DISTANCES.map(|distance| Needed { distance, prompts: needed(distance, spread) }).to_vec(),
            gate_prompts: needed(margin, std::f64::consts::SQRT_2 * spread),
        }
    };
    let mut all = vec![expected(None, MOST)];
    let golden = golden.filter(|golden| golden.judge == suite.compare.judge);
    for variant in golden.iter().flat_map(|golden| &golden.variants) {
        let known = suite.variants.iter().any(|v| v.name == variant.name);
        let variance = variance(&variant.preferences.values().copied().collect::<Vec<_>>());
        all.extend(variance.filter(|v| known && *v > 0.0).map(|variance| expected(Some(&variant.name), variance)));
    }
    Power { prompts, level, power: POWER, gate_margin: margin, expected: all }
}

fn variance(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.len() > 1).then(|| values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// statsmodels 0.15, `TTestPower().solve_power(effect, power=0.8, alpha=0.05)`, rounded up.
    #[test]
    fn prompts_and_distances_are_those_of_statsmodels() {
        let text = include_str!("../suite/templates/world.toml");
        let suite = crate::suite::parse(text, std::path::Path::new("suite.toml")).unwrap();
        let found = power(&suite, None);
        assert_eq!((found.level, found.power, found.expected.len()), (0.95, 0.8, 1));
        let any = &found.expected[0];
        assert_eq!((any.variant.as_deref(), any.spread), (None, 0.5));
        assert_eq!(any.prompts_needed.iter().map(|n| n.prompts).collect::<Vec<_>>(), [787, 4908]);
        assert_eq!((found.gate_margin, any.gate_prompts), (0.02, 9813));
        // As many prompts as the suite has show the distance that is said to show with them.
        let again = t_test_pairs_needed(any.detectable / any.spread, 0.95, 0.8);
        assert!((again - found.prompts as f64).abs() < 1e-3, "{again} {}", found.prompts);
    }

    #[test]
    fn a_golden_says_how_far_preferences_spread() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let suite = crate::suite::load(&root.join("suites/quickstart.toml")).unwrap();
        let mut golden = Golden::load(&root.join("golden/quickstart.json"), &suite.name).unwrap();
        golden.variants[0].preferences = (0..100).map(|p| (format!("p{p}"), if p % 2 == 0 { 0.4 } else { 0.6 })).collect();
        golden.variants[1].name = "gone".to_owned();
        let found = power(&suite, Some(&golden));
        let names: Vec<Option<&str>> = found.expected.iter().map(|e| e.variant.as_deref()).collect();
        assert_eq!(names, [None, Some(golden.variants[0].name.as_str())]);
        let [any, own] = [&found.expected[0], &found.expected[1]];
        assert!((own.spread - 0.1 * (100f64 / 99.0).sqrt()).abs() < 1e-12);
        assert!(own.detectable < 0.25 * any.detectable && own.gate_prompts < any.gate_prompts / 20);
        golden.judge = "another".to_owned();
        assert_eq!(power(&suite, Some(&golden)).expected.len(), 1);
    }
}
