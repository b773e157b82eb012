//! How many labels may be wrong: two bounds, for nobody knows which are.
//!
//! * From below: labels of the same texts that contradict each other can't all be right. In each group of rows with one prompt and the
//!   same texts, as many are wrong as the less frequent answer has, at least. Where labels are wrong independently of each other at a rate
//!   ε, two labels of the same texts disagree at the rate 2ε(1 − ε), which gives an estimate beside the bound (one coin of Dawid and Skene
//!   1979, Applied Statistics 28).
//! * From above: labels that are wrong at a rate ε ≤ ½ whatever the text disagree with *any* predictor that wasn't fitted to them at the rate
//!   ε + e(1 − 2ε) ≥ ε, where e is its error on right labels (Angluin and Laird 1988, Learning From Noisy Examples, Machine Learning 2).
//!   So a cross-validated predictor's disagreement bounds ε, up to the sampling error that is stated. It is a loose bound: what the
//!   predictor doesn't understand counts in full.
//!
//! The predictor is a logistic regression on the presence of words, in five folds of which no prompt stands in two, fitted by AdaGrad (Duchi
//! et al. 2011). Of pairs it sees the words that only one side has.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::similar::{mixed, words};
use crate::data::AuditItem;
use crate::data::label::Count;
use crate::rng::Stream;

const FOLDS: u64 = 5;
const EPOCHS: u64 = 4;
/// Words share weights by hash: of the words of a language's texts few meet another.
const DIMENSIONS: u64 = 1 << 18;
const STEP: f64 = 0.1;
/// Fewer rows say nothing.
const FEWEST: usize = 50;

/// What a row says, for the two bounds.
pub struct Evidence {
    /// Names the prompt and the texts that are labelled, in an order that the label doesn't change.
    pub texts: u64,
    /// The label: which of the two comes first, or whether the completion is desirable.
    pub label: bool,
    /// Rows with the same fold share a prompt.
    prompt: u64,
    /// Words that speak for the label `true` (1) or against it (−1), each once.
    features: Vec<(u32, f32)>,
}

impl Evidence {
    pub fn of_pair(prompt: &str, chosen: &str, rejected: &str) -> Self {
        let (a, b) = (set_of(chosen), set_of(rejected));
        let own = |words: &[u64], others: &[u64], sign: f32| -> Vec<(u32, f32)> {
            words.iter().filter(|word| others.binary_search(word).is_err()).map(|&word| (index(word), sign)).collect()
        };
        let first = chosen <= rejected;
        // The label is that the side which comes first is the better one.
        let sign = if first { 1.0 } else { -1.0 };
        let features = [own(&a, &b, sign), own(&b, &a, -sign)].concat();
        let sides = if first { [chosen, rejected] } else { [rejected, chosen] };
        Self { texts: key(&[prompt, sides[0], sides[1]]), label: first, prompt: key(&[prompt]), features }
    }

    pub fn of_completion(prompt: &str, completion: &str, label: bool) -> Self {
        let mut features: Vec<(u32, f32)> = set_of(completion).into_iter().map(|word| (index(word), 1.0)).collect();
        // One that every row has.
        features.push((0, 1.0));
        Self { texts: key(&[prompt, completion]), label, prompt: key(&[prompt]), features }
    }

    fn sum(&self, weights: &[f64]) -> f64 {
        let scale = 1.0 / (self.features.len().max(1) as f64).sqrt();
        self.features.iter().map(|&(index, value)| weights[index as usize] * f64::from(value)).sum::<f64>() * scale
    }
}

fn set_of(text: &str) -> Vec<u64> {
    let mut set = words(text);
    set.sort_unstable();
    set.dedup();
    set
}

/// 0 is left to what isn't a word.
fn index(word: u64) -> u32 {
    1 + (word % (DIMENSIONS - 1)) as u32
}

fn key(texts: &[&str]) -> u64 {
    let digest = crate::digest::Digest::of_value(texts);
    let (head, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*head)
}

/// Both bounds; that from above only where there are rows enough.
pub fn bounds(rows: &[Evidence], ids: &[&str]) -> Vec<AuditItem> {
    let mut items = vec![at_least(rows, ids)];
    items.extend((rows.len() >= FEWEST).then(|| at_most(rows, ids)));
    items
}

fn at_least(rows: &[Evidence], ids: &[&str]) -> AuditItem {
    let mut votes: BTreeMap<u64, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let (yes, no) = votes.entry(row.texts).or_default();
        if row.label { yes.push(index) } else { no.push(index) }
    }
    let mut wrong = Count::default();
    let (mut compared, mut different) = (0u64, 0u64);
    let mut groups: Vec<&(Vec<usize>, Vec<usize>)> = votes.values().filter(|(yes, no)| yes.len() + no.len() > 1).collect();
    groups.sort();
    for (yes, no) in groups {
        let (a, b) = (yes.len() as u64, no.len() as u64);
        compared += (a + b) * (a + b - 1) / 2;
        different += a * b;
        if let (Some(&one), Some(&other)) = (yes.first(), no.first()) {
            wrong.add(a.min(b), &format!("{} or {}", ids[one], ids[other]));
        }
    }
    let mut what = "labels contradict others of the same texts, and are wrong where those are right".to_owned();
    let rate = different as f64 / compared as f64;
    if compared >= 20 && rate < 0.5 {
        let estimate = 100.0 * (1.0 - (1.0 - 2.0 * rate).sqrt()) / 2.0;
        what = format!(
            "{what} (repeated labels disagree in {different} of {compared} comparisons, as {estimate:.1} % of wrong labels would)"
        );
    }
    wrong.item("label-noise-at-least", rows.len() as u64, &what)
}

fn at_most(rows: &[Evidence], ids: &[&str]) -> AuditItem {
    let disagrees: Vec<Vec<usize>> = (0..FOLDS).into_par_iter().map(|fold| disagreements(rows, fold)).collect();
    let mut all: Vec<usize> = disagrees.into_iter().flatten().collect();
    all.sort_unstable();
    let mut count = Count::default();
    all.iter().for_each(|&index| count.add(1, ids[index]));
    let total = rows.len() as f64;
    let share = all.len() as f64 / total;
    let error = 100.0 * (share * (1.0 - share) / total).sqrt();
    let what = format!(
        "labels aren't what a cross-validated classifier of words predicts (standard error {error:.1} points): no more than these are wrong if chance decides which"
    );
    count.item("label-noise-at-most", rows.len() as u64, &what)
}

/// The rows of a fold whose labels a classifier fitted to the other folds doesn't predict; undecided it predicts neither.
fn disagreements(rows: &[Evidence], fold: u64) -> Vec<usize> {
    let held_out = |row: &Evidence| mixed(row.prompt) % FOLDS == fold;
    let mut order: Vec<usize> = (0..rows.len()).filter(|&index| !held_out(&rows[index])).collect();
    let (mut weights, mut squares) = (vec![0.0; DIMENSIONS as usize], vec![1e-6; DIMENSIONS as usize]);
    for epoch in 0..EPOCHS {
        Stream::of(0, "data/audit/noise", epoch).shuffle(&mut order);
        for &index in &order {
            let row = &rows[index];
            let wanted = f64::from(u8::from(row.label));
            let slope = 1.0 / (1.0 + libm::exp(-row.sum(&weights))) - wanted;
            let scale = slope / (row.features.len().max(1) as f64).sqrt();
            for &(at, value) in &row.features {
                let (at, gradient) = (at as usize, scale * f64::from(value));
                squares[at] += gradient * gradient;
                weights[at] -= STEP * gradient / f64::sqrt(squares[at]);
            }
        }
    }
    let wrong = |&index: &usize| {
        let sum = rows[index].sum(&weights);
        if rows[index].label { sum <= 0.0 } else { sum >= 0.0 }
    };
    (0..rows.len()).filter(|&index| held_out(&rows[index])).filter(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs of which the side with "good" words is chosen, but for the labels that are flipped at a rate.
    fn pairs(count: usize, noise: f64) -> Vec<Evidence> {
        let mut random = Stream::of(1, "test/noise", 0);
        let text = |words: &[&str], random: &mut Stream| (0..12).map(|_| *random.choose(words)).collect::<Vec<_>>().join(" ");
        let (good, bad) = (["fine", "kind", "help", "the", "a", "of"], ["rude", "bad", "no", "the", "a", "of"]);
        (0..count)
            .map(|i| {
                let (a, b) = (text(&good, &mut random), text(&bad, &mut random));
                let prompt = format!("prompt {i}");
                match random.bernoulli(noise) {
                    true => Evidence::of_pair(&prompt, &b, &a),
                    false => Evidence::of_pair(&prompt, &a, &b),
                }
            })
            .collect()
    }

    fn shares(rows: &[Evidence]) -> Vec<f64> {
        let names: Vec<String> = (0..rows.len()).map(|i| i.to_string()).collect();
        let ids: Vec<&str> = names.iter().map(String::as_str).collect();
        bounds(rows, &ids).iter().map(AuditItem::share).collect()
    }

    #[test]
    fn what_is_flipped_lies_between_the_bounds_and_near_the_upper_one_where_words_tell_all() {
        for noise in [0.0, 0.1, 0.3] {
            let shares = shares(&pairs(1500, noise));
            let error = (noise * (1.0 - noise) / 1500.0f64).sqrt();
            assert!(shares[0] <= noise, "{noise} {shares:?}");
            assert!(shares[1] >= noise - 4.0 * error - 0.005 && shares[1] < noise + 0.06, "{noise} {shares:?}");
        }
    }

    #[test]
    fn labels_that_are_chance_are_bounded_by_one_half() {
        let share = shares(&pairs(2000, 0.5))[1];
        assert!((share - 0.5).abs() < 4.0 * (0.25f64 / 2000.0).sqrt(), "{share}");
    }

    #[test]
    fn contradictions_are_counted_by_the_rarer_answer_whatever_side_is_named_first() {
        let pair = |chosen: &str, rejected: &str| Evidence::of_pair("p", chosen, rejected);
        let rows = [pair("x", "y"), pair("x", "y"), pair("y", "x"), pair("z", "x"), Evidence::of_pair("q", "y", "x")];
        let item = &bounds(&rows, &["1", "2", "3", "4", "5"])[0];
        assert_eq!((item.count, item.total), (1, 5), "{}", item.message);
        assert!(item.message.ends_with("the first: 1 or 3"), "{}", item.message);
    }

    #[test]
    fn repeated_labels_that_disagree_estimate_the_rate_of_wrong_ones() {
        // 100 texts labelled twice, 18 of them differently: 2ε(1 − ε) = 0.18 for ε = 0.1.
        let rows: Vec<Evidence> = (0..200)
            .map(|i| {
                let prompt = format!("prompt {}", i / 2);
                let label = i % 2 == 0 || i / 2 >= 18;
                Evidence::of_completion(&prompt, "said", label)
            })
            .collect();
        let names: Vec<String> = (0..rows.len()).map(|i| i.to_string()).collect();
        let ids: Vec<&str> = names.iter().map(String::as_str).collect();
        let item = &bounds(&rows, &ids)[0];
        assert_eq!((item.count, item.total), (18, 200));
        assert!(item.message.contains("in 18 of 100 comparisons, as 10.0 % of wrong labels would"), "{}", item.message);
    }
}
