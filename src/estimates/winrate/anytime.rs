//! An interval that holds at every time at once, for whoever stops when the numbers look good.

use std::collections::BTreeMap;

use super::subjects::Subject;
use super::{Measure, WinRate};
use crate::statistics::sequential::{Method, sequence};

/// Adds the betting interval after the last prompt, prompts in the order of the file, one value (its mean) each.
pub fn add(found: &mut WinRate, subject: &Subject, level: f64) {
    let mut places = BTreeMap::new();
    let mut sums: Vec<(f64, f64)> = Vec::new();
    for item in &subject.items {
        let Some(preference) = item.preference else { continue };
        let place = *places.entry(item.prompt_id.as_str()).or_insert_with(|| {
            sums.push((0.0, 0.0));
            sums.len() - 1
        });
        sums[place].0 += preference;
        sums[place].1 += 1.0;
    }
    let values: Vec<f64> = sums.iter().map(|(sum, count)| sum / count).collect();
    let Some(last) = sequence(&values, Method::Betting, level).pop() else { return };
    found.measures.push(Measure {
        name: "win_rate_anytime",
        value: 100.0 * values.iter().sum::<f64>() / values.len() as f64,
        lower: 100.0 * last.lower,
        upper: 100.0 * last.upper,
        method: "betting, valid at every time, a value a prompt".to_owned(),
    });
}
