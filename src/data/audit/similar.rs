//! Texts that are nearly the same: MinHash for near-duplicates, n-grams of words for what training data gives away of the evaluation.
//!
//! What is kept of a text is a sketch, which says with what other texts to compare it; for that the rows are gone over again.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::Pass;
use super::repeats::Found;
use crate::data::label::Count;
use crate::data::sorter::Sorter;
use crate::data::{AuditItem, Prompt};
use crate::error::{Error, Result};

/// Words in a row that make one shingle of a text.
const SHINGLE: usize = 5;
/// From this share of common shingles on (Jaccard) two texts are near-duplicates.
const NEAR: f64 = 0.8;
/// Hashes of a signature, in bands of so many: texts are compared whose signatures agree in a band. With 16 bands of 4, of two
/// texts with a Jaccard similarity of 0.8, 0.02 % escape; of 0.3, 88 % aren't even compared.
const BANDS: usize = 16;
const ROWS: usize = 4;
/// Words in a row that an evaluation prompt must not share with training data (Brown et al. 2020, appendix C).
const OVERLAP: usize = 13;
/// Shingles of texts, 8 bytes each, that are held at a time to compare others with; the rows are gone over as often as that takes.
const HELD: usize = 1 << 21;

/// The words of a text, in lower case: runs of letters and digits.
pub(super) fn words(text: &str) -> Vec<u64> {
    let mut hash = FNV;
    let mut words = Vec::new();
    for letter in text.chars().chain([' ']) {
        if letter.is_alphanumeric() {
            letter.to_lowercase().for_each(|lower| hash = (hash ^ u64::from(u32::from(lower))).wrapping_mul(PRIME));
        } else if hash != FNV {
            words.push(mixed(hash));
            hash = FNV;
        }
    }
    words
}

/// FNV-1a over code points (Fowler, Noll and Vo), and step and finaliser of SplitMix64 (Steele, Lea and Flood 2014).
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const FNV: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

pub(super) fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Hashes of each `n` words in a row; of a shorter text one of all of it.
fn grams(words: &[u64], n: usize) -> Vec<u64> {
    let gram = |words: &[u64]| mixed(words.iter().fold(FNV, |hash, word| (hash ^ word).wrapping_mul(PRIME).rotate_left(23)));
    match words {
        [] => Vec::new(),
        short if short.len() < n => vec![gram(short)],
        long => long.windows(n).map(gram).collect(),
    }
}

/// The set of a text's shingles, in order.
fn shingles(text: &str) -> Vec<u64> {
    let mut set = grams(&words(text), SHINGLE);
    set.sort_unstable();
    set.dedup();
    set
}

/// The MinHash of a set (Broder 1997): the smallest value of each of 64 hash functions.
fn signature(set: &[u64]) -> [u64; BANDS * ROWS] {
    let mut least = [u64::MAX; BANDS * ROWS];
    for (i, slot) in least.iter_mut().enumerate() {
        let seed = mixed((i as u64 + 1).wrapping_mul(GOLDEN));
        *slot = set.iter().map(|shingle| mixed(shingle ^ seed)).min().unwrap_or(u64::MAX);
    }
    least
}

/// |a ∩ b| / |a ∪ b| of two sets in order; 0 where both are empty.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0usize);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        common += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

/// What is kept of a text.
pub(super) struct Sketch {
    /// Hash of all of it. Two of a million differing texts share one with a chance of 3 in 10⁸.
    text: u64,
    /// Hashes of the bands; all 0: there is no word. Texts that share one by chance are compared, and found to differ.
    bands: [u32; BANDS],
}

impl Sketch {
    pub fn of(text: &str) -> Self {
        let set = shingles(text);
        let whole = text.bytes().fold(FNV, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        let mut bands = [0; BANDS];
        if !set.is_empty() {
            let signature = signature(&set);
            for (band, hashes) in bands.iter_mut().zip(signature.as_chunks::<ROWS>().0) {
                *band = hashes.iter().fold(FNV, |hash, least| mixed(hash ^ least)) as u32;
            }
        }
        Self { text: mixed(whole), bands }
    }
}

/// What is kept of all texts: for each band of each its number, its hash with the text's number, and the hash of the whole text.
#[derive(Default)]
pub(super) struct Sketches(Sorter<3>);

impl Sketches {
    pub fn add(&mut self, number: u32, sketch: &Sketch) -> Result<()> {
        if sketch.bands == [0; BANDS] {
            return Ok(());
        }
        let record = |(band, hash): (u64, &u32)| [band, u64::from(*hash) << 32 | u64::from(number), sketch.text];
        (0..).zip(&sketch.bands).try_for_each(|band| self.0.add(record(band)))
    }

    /// Each text with the first of those whose sketch agrees with its own in a band, band by band; but for texts equal in every letter.
    /// By the text's number, then by band.
    fn candidates(&mut self) -> Result<Vec<[u32; 2]>> {
        let mut found: Vec<(u32, u64, u32)> = Vec::new();
        // Bands mostly find the same.
        let thin = |found: &mut Vec<(u32, u64, u32)>| {
            found.sort_unstable_by_key(|(number, band, first)| (*number, *first, *band));
            found.dedup_by_key(|(number, _, first)| (*number, *first));
        };
        let mut first = [u64::MAX; 3];
        self.0.each(|record| {
            let [band, hashed, text] = record;
            if band != first[0] {
                thin(&mut found);
            }
            if band != first[0] || hashed >> 32 != first[1] >> 32 {
                first = record;
            } else if text != first[2] {
                found.push((hashed as u32, band, first[1] as u32));
            }
        })?;
        thin(&mut found);
        found.sort_unstable();
        Ok(found.into_iter().map(|(number, _, first)| [number, first]).collect())
    }
}

/// Texts that are nearly an earlier one; texts equal in every letter are counted elsewhere. `text`: of a row.
pub(super) fn near_duplicates<R: Sync>(
    sketches: &mut Sketches,
    pass: &Pass<R>,
    text: impl Fn(&R) -> String + Sync,
) -> Result<Found> {
    let candidates = sketches.candidates()?;
    let of = |number: u32| {
        let start = candidates.partition_point(|[row, _]| *row < number);
        start..start + candidates[start..].partition_point(|[row, _]| *row == number)
    };
    let mut firsts: Vec<u32> = candidates.iter().map(|[_, first]| *first).collect();
    firsts.sort_unstable();
    firsts.dedup();
    let (mut near, mut done) = (vec![false; candidates.len()], 0);
    while done < firsts.len() {
        let (mut held, mut size): (BTreeMap<u32, Vec<u64>>, usize) = Default::default();
        let (before, mut number) = (done, 0u32);
        pass(&mut |rows: &[R]| {
            let concerned = |number: &u32| firsts[before..].binary_search(number).is_ok() || !of(*number).is_empty();
            let start = number;
            number += rows.len() as u32;
            let numbered: Vec<(u32, &R)> = (start..).zip(rows).filter(|(number, _)| concerned(number)).collect();
            let sets: Vec<(u32, Vec<u64>)> = numbered.par_iter().map(|(number, row)| (*number, shingles(&text(row)))).collect();
            for (number, set) in sets {
                for place in of(number) {
                    let other = held.get(&candidates[place][1]);
                    near[place] |= other.is_some_and(|other| jaccard(&set, other) >= NEAR);
                }
                if firsts.get(done) == Some(&number) && size < HELD {
                    (size, done) = (size + set.len(), done + 1);
                    held.insert(number, set);
                }
            }
            Ok(())
        })?;
        if done == before {
            return Err(Error::input("there are fewer rows than a moment ago: something changes them while they are audited"));
        }
    }
    let mut found = Found::default();
    let mut pairs = candidates.iter().zip(near).filter(|(_, near)| *near).map(|(pair, _)| *pair).collect::<Vec<_>>();
    pairs.dedup_by_key(|[row, _]| *row);
    pairs.into_iter().for_each(|[row, other]| found.add(row, other));
    Ok(found)
}

/// What near-duplicates are, after their number.
pub(super) fn nearly(unit: &str) -> String {
    format!("{unit}s are nearly another: four fifths of their sequences of {SHINGLE} words, or more, are common to both")
}

/// Counts evaluation prompts that share 13 words in a row with a training text.
pub(super) fn ngram_overlap<R: Sync>(train: &Pass<R>, text: impl Fn(&R) -> String + Sync, eval: &[Prompt]) -> Result<AuditItem> {
    let of_prompt = |prompt: &Prompt| {
        let words = words(&prompt.text);
        if words.len() < OVERLAP { Vec::new() } else { grams(&words, OVERLAP) }
    };
    let prompts: Vec<Vec<u64>> = eval.par_iter().map(of_prompt).collect();
    let mut wanted: Vec<u64> = prompts.iter().flatten().copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let of_row = |row: &R| -> Vec<usize> {
        grams(&words(&text(row)), OVERLAP).iter().filter_map(|gram| wanted.binary_search(gram).ok()).collect()
    };
    let mut seen = vec![false; wanted.len()];
    train(&mut |rows: &[R]| {
        let found: Vec<Vec<usize>> = rows.par_iter().map(of_row).collect();
        found.into_iter().flatten().for_each(|place| seen[place] = true);
        Ok(())
    })?;
    let mut count = Count::default();
    for (prompt, grams) in eval.iter().zip(&prompts) {
        let shared = grams.iter().any(|gram| wanted.binary_search(gram).is_ok_and(|place| seen[place]));
        count.add(u64::from(shared), &prompt.id);
    }
    let what = format!("prompts of `eval` share {OVERLAP} words in a row with a text of `train`");
    Ok(count.item("ngram-overlap-train-eval", eval.len() as u64, &what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_whatever_their_case() {
        assert_eq!(words("The CAT, it's 7!"), words("the cat it s 7"));
        assert_eq!(words("  ..."), [0; 0]);
        assert_ne!(words("ab c"), words("a bc"));
    }

    #[test]
    fn signatures_agree_as_often_as_sets_do() {
        // Two sets of 1000 with 600 in common: Jaccard 600/1400.
        let sets: Vec<Vec<u64>> = [0..1000u64, 400..1400].map(|range| range.map(mixed).collect()).into();
        let sorted = |set: &Vec<u64>| {
            let mut set = set.clone();
            set.sort_unstable();
            set
        };
        let exact = jaccard(&sorted(&sets[0]), &sorted(&sets[1]));
        assert!((exact - 600.0 / 1400.0).abs() < 1e-12);
        let (a, b) = (signature(&sets[0]), signature(&sets[1]));
        let agree = a.iter().zip(&b).filter(|(x, y)| x == y).count() as f64 / 64.0;
        // Binomial with 64 trials: four standard errors.
        assert!((agree - exact).abs() < 4.0 * (exact * (1.0 - exact) / 64.0).sqrt(), "{agree} {exact}");
    }

    fn sketched(texts: &[impl AsRef<str>]) -> Sketches {
        let mut sketches = Sketches::default();
        (0..).zip(texts).for_each(|(number, text)| sketches.add(number, &Sketch::of(text.as_ref())).unwrap());
        sketches
    }

    #[test]
    fn a_text_with_one_word_changed_is_nearly_the_other_and_equal_or_other_texts_are_not() {
        let long = (0..60).map(|i| format!("word{i}")).collect::<Vec<_>>().join(" ");
        let other = (0..60).map(|i| format!("term{i}")).collect::<Vec<_>>().join(" ");
        let half = (0..60).map(|i| format!("{}{i}", if i < 30 { "word" } else { "new" })).collect::<Vec<_>>().join(" ");
        let texts = [long.clone(), other, long.replace("word30", "x"), long, half];
        let mut sketches = sketched(&texts);
        let found =
            near_duplicates(&mut sketches, &|take| take(&texts[..2]).and_then(|()| take(&texts[2..])), String::clone).unwrap();
        assert_eq!(found, Found { count: 1, first: Some([2, 0]) });
        // A file that shrinks is no endless loop.
        assert!(near_duplicates(&mut sketches, &|_| Ok(()), String::clone).is_err());
    }

    #[test]
    fn texts_without_a_word_are_near_nothing_and_cost_no_comparison() {
        assert_eq!(sketched(&["", "...", "?!", "word", "word."]).candidates().unwrap(), [[4, 3]]);
    }

    #[test]
    fn thirteen_words_in_common_are_an_overlap_and_twelve_are_not() {
        let words = |range: std::ops::Range<usize>| range.map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
        let prompt = |id: &str, text: String| Prompt { id: id.into(), text };
        let train = [format!("x {} y", words(0..13)), words(100..112)];
        let eval = [
            prompt("shares 13", words(0..13).to_uppercase()),
            prompt("shares 12", format!("a b {}", words(1..13))),
            prompt("is 12 long", words(100..112)),
        ];
        let item = ngram_overlap(&|take| take(&train), String::clone, &eval).unwrap();
        assert_eq!((item.count, item.total), (1, 3));
        assert!(item.message.ends_with("shares 13"), "{}", item.message);
    }
}
