//! What length is worth to a judge (AlpacaEval's `analyze.py`; Dubois et al. 2024): how often it prefers the longer side, and how its
//! preference goes with the difference.

use super::rank::{pearson, spearman};

/// An item: length of this side minus that of the other, and the judge's preference for this side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    pub difference: f64,
    pub preference: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LengthBias {
    /// Items whose sides differ by more than the threshold.
    pub n: usize,
    /// Over these the mean preference for the longer side, and the share of items on which it wins.
    pub longer: f64,
    pub longer_wins: f64,
    /// Over all items: of difference and preference, and of tanh(difference / its standard deviation) and preference.
    pub spearman: Option<f64>,
    pub pearson_tanh: Option<f64>,
}

/// None where no two sides differ by more than `threshold`.
pub fn length_bias(items: &[Compared], threshold: f64) -> Option<LengthBias> {
    let toward_longer: Vec<f64> = items
        .iter()
        .filter(|i| i.difference.abs() > threshold)
        .map(|i| if i.difference > 0.0 { i.preference } else { 1.0 - i.preference })
        .collect();
    if toward_longer.is_empty() {
        return None;
    }
    let differences: Vec<f64> = items.iter().map(|i| i.difference).collect();
    let preferences: Vec<f64> = items.iter().map(|i| i.preference).collect();
    let n = items.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let deviation = (differences.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / (n - 1.0)).sqrt();
    let bent: Vec<f64> = differences.iter().map(|d| libm::tanh(d / deviation)).collect();
    let counted = toward_longer.len() as f64;
    Some(LengthBias {
        n: toward_longer.len(),
        longer: toward_longer.iter().sum::<f64>() / counted,
        longer_wins: toward_longer.iter().filter(|p| **p > 0.5).count() as f64 / counted,
        spearman: spearman(&differences, &preferences),
        pearson_tanh: pearson(&bent, &preferences),
    })
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, number, vectors};
    use super::*;

    /// Preferences and lengths of a model of AlpacaEval 2.
    fn alpaca_eval(model: &str) -> Option<Vec<Compared>> {
        let folder = format!("{}/../../../shared/reference/alpaca_eval", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(format!("{folder}/{model}.csv")).ok()?;
        let item = |line: &str| {
            let cells: Vec<f64> = line.split(',').filter_map(|cell| cell.parse().ok()).collect();
            let [_, _, preference, baseline, model] = cells[..] else { return None };
            // 0 is how the judge's file writes a tie, which others write 1.5.
            let preference = if preference == 0.0 { 0.5 } else { preference - 1.0 };
            (!preference.is_nan()).then_some(Compared { difference: model - baseline, preference })
        };
        Some(text.lines().skip(1).filter_map(item).collect())
    }

    #[test]
    fn the_bias_of_alpaca_evals_judge_is_the_recorded_one() {
        let Some(file) = vectors("alpaca_paired") else { return };
        for model in ["NullModel", "FuseChat-Gemma-2-9B-Instruct", "claude-2.1"] {
            let Some(items) = alpaca_eval(model) else { return };
            let (found, expected) = (length_bias(&items, 30.0).unwrap(), &file["length_bias"][model]);
            assert_eq!(found.n as u64, expected["n"].as_u64().unwrap(), "{model}");
            let numbers = [found.longer, found.longer_wins, found.spearman.unwrap(), found.pearson_tanh.unwrap()];
            let names = ["p_prefer_longer_soft", "p_prefer_longer_hard", "spearman_dlen_pref", "pearson_tanh_z"];
            close(&numbers, &names.map(|name| number(&expected[name])), 1e-9);
        }
    }

    #[test]
    fn sides_of_one_length_say_nothing() {
        assert_eq!(length_bias(&[Compared { difference: 30.0, preference: 1.0 }], 30.0), None);
    }
}
