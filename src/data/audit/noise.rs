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
//! et al. 2011). Of pairs it sees the words that only one side has. Of a large file it sees some thousand rows, drawn by the hash of their
//! prompts: the bound's sampling error is stated anyhow, and what is held in memory stays the same.

use rayon::prelude::*;

use super::repeats::{Found, Group, Repeats, Told};
use super::similar::{GOLDEN, mixed, words};
use crate::error::Result;
use crate::rng::Stream;

const FOLDS: u64 = 5;
const EPOCHS: u64 = 4;
/// Words share weights by hash: of the words of a language's texts few meet another.
const DIMENSIONS: u64 = 1 << 18;
const STEP: f64 = 0.1;
/// Fewer rows say nothing.
const FEWEST: usize = 50;
/// More rows are drawn from. A share of one half has a standard error of 0.4 points then.
const MOST: usize = 1 << 14;

/// What a row says, for the bound from above.
pub struct Evidence {
    /// The label: which of the two comes first, or whether the completion is desirable.
    label: bool,
    /// Rows with the same fold share a prompt.
    prompt: u64,
    /// Words that speak for the label `true` or against it, each once.
    features: Vec<Feature>,
}

/// Twice a word's index; odd where it speaks against the label.
#[derive(Clone, Copy)]
struct Feature(u32);

impl Feature {
    fn new(word: u64, against: bool) -> Self {
        Self(2 * index(word) + u32::from(against))
    }

    /// The word's index, and 1 or −1.
    fn parts(self) -> (usize, f64) {
        ((self.0 / 2) as usize, 1.0 - 2.0 * f64::from(self.0 % 2))
    }
}

impl Evidence {
    pub fn of_pair(prompt: &str, chosen: &str, rejected: &str) -> Self {
        let (a, b) = (set_of(chosen), set_of(rejected));
        let own = |words: &[u64], others: &[u64], against: bool| -> Vec<Feature> {
            words.iter().filter(|word| others.binary_search(word).is_err()).map(|&word| Feature::new(word, against)).collect()
        };
        // The label is that the side which comes first is the better one.
        let label = chosen <= rejected;
        Self { label, prompt: key(&[prompt]), features: [own(&a, &b, !label), own(&b, &a, label)].concat() }
    }

    pub fn of_completion(prompt: &str, completion: &str, label: bool) -> Self {
        let mut features: Vec<Feature> = set_of(completion).into_iter().map(|word| Feature::new(word, false)).collect();
        // One that every row has.
        features.push(Feature(0));
        Self { label, prompt: key(&[prompt]), features }
    }

    fn sum(&self, weights: &[f64]) -> f64 {
        let scale = 1.0 / (self.features.len().max(1) as f64).sqrt();
        self.features.iter().map(|feature| feature.parts()).map(|(index, value)| weights[index] * value).sum::<f64>() * scale
    }
}

/// The rows that the classifier sees, with their numbers: all, or those whose prompts' hashes begin with so many zeros that they are
/// [`MOST`] at the most.
#[derive(Default)]
pub(super) struct Sample {
    rows: Vec<(u32, Evidence)>,
    zeros: u32,
    seen: u64,
}

impl Sample {
    pub fn add(&mut self, row: u32, evidence: Evidence) {
        self.seen += 1;
        // Not the hash's own bits, which decide the fold.
        let kept = |evidence: &Evidence, zeros: u32| mixed(evidence.prompt ^ GOLDEN).leading_zeros() >= zeros;
        if kept(&evidence, self.zeros) {
            self.rows.push((row, evidence));
        }
        while self.rows.len() > MOST {
            self.zeros += 1;
            self.rows.retain(|(_, evidence)| kept(evidence, self.zeros));
        }
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

pub(super) fn key(texts: &[&str]) -> u64 {
    let digest = crate::digest::Digest::of_value(texts);
    let (head, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*head)
}

/// Both bounds; that from above only where there are rows enough.
pub(super) fn bounds(repeats: &mut Repeats, sample: &Sample) -> Result<Vec<Told>> {
    let mut told = vec![at_least(repeats, sample.seen)?];
    told.extend((sample.rows.len() >= FEWEST).then(|| at_most(sample)));
    Ok(told)
}

fn at_least(repeats: &mut Repeats, total: u64) -> Result<Told> {
    let mut found = Found::default();
    let (mut compared, mut different) = (0u64, 0u64);
    repeats.each_group(|Group { yes, no }| {
        let (a, b) = (yes.len() as u64, no.len() as u64);
        compared += (a + b) * (a + b - 1) / 2;
        different += a * b;
        if let (Some(&one), Some(&other)) = (yes.first(), no.first()) {
            found.count += a.min(b) - 1;
            found.add(one, other);
        }
    })?;
    let mut what = "labels contradict others of the same texts, and are wrong where those are right".to_owned();
    let rate = different as f64 / compared as f64;
    if compared >= 20 && rate < 0.5 {
        let estimate = 100.0 * (1.0 - (1.0 - 2.0 * rate).sqrt()) / 2.0;
        what = format!(
            "{what} (repeated labels disagree in {different} of {compared} comparisons, as {estimate:.1} % of wrong labels would)"
        );
    }
    Ok(Told { id: "label-noise-at-least", total, what, found, between: Some("or") })
}

fn at_most(sample: &Sample) -> Told {
    let disagrees: Vec<Vec<u32>> = (0..FOLDS).into_par_iter().map(|fold| disagreements(&sample.rows, fold)).collect();
    let mut found = Found::default();
    disagrees.into_iter().flatten().for_each(|row| found.add(row, row));
    let total = sample.rows.len() as f64;
    let share = found.count as f64 / total;
    let error = 100.0 * (share * (1.0 - share) / total).sqrt();
    let drawn = match sample.zeros {
        0 => String::new(),
        _ => format!(", of {} rows drawn by the hash of their prompts", sample.rows.len()),
    };
    let what = format!(
        "labels aren't what a cross-validated classifier of words predicts (standard error {error:.1} points{drawn}): no more than these are wrong if chance decides which"
    );
    Told { id: "label-noise-at-most", total: sample.rows.len() as u64, what, found, between: None }
}

/// The rows of a fold whose labels a classifier fitted to the other folds doesn't predict; undecided it predicts neither.
fn disagreements(rows: &[(u32, Evidence)], fold: u64) -> Vec<u32> {
    let held_out = |row: &Evidence| mixed(row.prompt) % FOLDS == fold;
    let mut order: Vec<usize> = (0..rows.len()).filter(|&index| !held_out(&rows[index].1)).collect();
    let (mut weights, mut squares) = (vec![0.0; DIMENSIONS as usize], vec![1e-6; DIMENSIONS as usize]);
    for epoch in 0..EPOCHS {
        Stream::of(0, "data/audit/noise", epoch).shuffle(&mut order);
        for &index in &order {
            let (_, row) = &rows[index];
            let wanted = f64::from(u8::from(row.label));
            let slope = 1.0 / (1.0 + libm::exp(-row.sum(&weights))) - wanted;
            let scale = slope / (row.features.len().max(1) as f64).sqrt();
            for (at, value) in row.features.iter().map(|feature| feature.parts()) {
                let gradient = scale * value;
                squares[at] += gradient * gradient;
                weights[at] -= STEP * gradient / f64::sqrt(squares[at]);
            }
        }
    }
    let wrong = |row: &Evidence| if row.label { row.sum(&weights) <= 0.0 } else { row.sum(&weights) >= 0.0 };
    rows.iter().filter(|(_, row)| held_out(row) && wrong(row)).map(|(number, _)| *number).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::rows::Audited;
    use super::*;
    use crate::data::{AuditItem, LabelledCompletion, Pair};

    fn pair(prompt: &str, chosen: &str, rejected: &str) -> Pair {
        let [prompt, chosen, rejected] = [prompt, chosen, rejected].map(str::to_owned);
        Pair { id: String::new(), prompt_id: String::new(), prompt, chosen, rejected, gold: None }
    }

    /// Rows are named by their numbers.
    fn bounds_of<R: Audited>(rows: &[R]) -> Vec<AuditItem> {
        let (mut repeats, mut sample) = (Repeats::default(), Sample::default());
        for (number, row) in (0u32..).zip(rows) {
            repeats.add(number, row.said()).unwrap();
            sample.add(number, row.evidence());
        }
        let names: BTreeMap<u32, String> = (0..rows.len() as u32).map(|i| (i, i.to_string())).collect();
        bounds(&mut repeats, &sample).unwrap().into_iter().map(|told| told.item(&names)).collect()
    }

    /// Pairs of which the side with "good" words is chosen, but for the labels that are flipped at a rate.
    fn pairs(count: usize, noise: f64) -> Vec<Pair> {
        let mut random = Stream::of(1, "test/noise", 0);
        let text = |words: &[&str], random: &mut Stream| (0..12).map(|_| *random.choose(words)).collect::<Vec<_>>().join(" ");
        let (good, bad) = (["fine", "kind", "help", "the", "a", "of"], ["rude", "bad", "no", "the", "a", "of"]);
        (0..count)
            .map(|i| {
                let (a, b) = (text(&good, &mut random), text(&bad, &mut random));
                let prompt = format!("prompt {i}");
                if random.bernoulli(noise) { pair(&prompt, &b, &a) } else { pair(&prompt, &a, &b) }
            })
            .collect()
    }

    fn shares(rows: &[Pair]) -> Vec<f64> {
        bounds_of(rows).iter().map(AuditItem::share).collect()
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
    fn of_many_rows_the_same_are_drawn_in_whatever_order_and_whole_prompts_at_a_time() {
        let row = |i: u64| (i as u32, Evidence { label: true, prompt: mixed(i / 3), features: Vec::new() });
        let drawn = |order: &mut dyn Iterator<Item = u64>| {
            let mut sample = Sample::default();
            order.map(row).for_each(|(number, evidence)| sample.add(number, evidence));
            let mut rows: Vec<u32> = sample.rows.iter().map(|(number, _)| *number).collect();
            rows.sort_unstable();
            rows
        };
        let many = 5 * MOST as u64 / 3 * 3;
        let rows = drawn(&mut (0..many));
        assert!(rows.len() <= MOST && rows.len() > MOST / 3, "{}", rows.len());
        assert_eq!(drawn(&mut (0..many).rev()), rows);
        assert!(rows.chunks(3).all(|three| three.len() == 3 && three[0] / 3 == three[2] / 3));
        assert_eq!(drawn(&mut (0..3000)).len(), 3000);
    }

    #[test]
    fn contradictions_are_counted_by_the_rarer_answer_whatever_side_is_named_first() {
        let rows = [pair("p", "x", "y"), pair("p", "x", "y"), pair("p", "y", "x"), pair("p", "z", "x"), pair("q", "y", "x")];
        let item = &bounds_of(&rows)[0];
        assert_eq!((item.count, item.total), (1, 5), "{}", item.message);
        assert!(item.message.ends_with("the first: 0 or 2"), "{}", item.message);
    }

    #[test]
    fn repeated_labels_that_disagree_estimate_the_rate_of_wrong_ones() {
        // 100 texts labelled twice, 18 of them differently: 2ε(1 − ε) = 0.18 for ε = 0.1.
        let row = |i: usize| LabelledCompletion {
            id: String::new(),
            prompt_id: String::new(),
            prompt: format!("prompt {}", i / 2),
            completion: "said".to_owned(),
            label: i.is_multiple_of(2) || i / 2 >= 18,
        };
        let rows: Vec<LabelledCompletion> = (0..200).map(row).collect();
        let item = &bounds_of(&rows)[0];
        assert_eq!((item.count, item.total), (18, 200));
        assert!(item.message.contains("in 18 of 100 comparisons, as 10.0 % of wrong labels would"), "{}", item.message);
    }
}
