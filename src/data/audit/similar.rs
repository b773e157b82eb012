//! Texts that are nearly the same: MinHash for near-duplicates, n-grams of words for what training data gives away of the evaluation.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::data::label::Count;
use crate::data::{AuditItem, Prompt};

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
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
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

/// Counts texts that are nearly an earlier one; texts equal in every letter are counted elsewhere. Each is compared with the first of
/// those whose signature agrees with its own in a band.
pub(super) fn near_duplicates(texts: &[(&str, String)], unit: &str) -> AuditItem {
    let signatures: Vec<[u64; BANDS * ROWS]> = texts.par_iter().map(|(_, text)| signature(&shingles(text))).collect();
    let mut firsts: BTreeMap<(usize, [u64; ROWS]), usize> = BTreeMap::new();
    let mut candidates: Vec<Vec<usize>> = vec![Vec::new(); texts.len()];
    for (index, signature) in signatures.iter().enumerate() {
        for (band, hashes) in signature.as_chunks::<ROWS>().0.iter().enumerate() {
            let first = *firsts.entry((band, *hashes)).or_insert(index);
            if first != index && !candidates[index].contains(&first) {
                candidates[index].push(first);
            }
        }
    }
    let near = |index: usize| {
        let (_, text) = &texts[index];
        let own = if candidates[index].is_empty() { Vec::new() } else { shingles(text) };
        let close = |&&other: &&usize| texts[other].1 != *text && jaccard(&own, &shingles(&texts[other].1)) >= NEAR;
        candidates[index].iter().find(close).copied()
    };
    let found: Vec<Option<usize>> = (0..texts.len()).into_par_iter().map(near).collect();
    let mut count = Count::default();
    for (index, other) in found.into_iter().enumerate() {
        if let Some(other) = other {
            count.add(1, &format!("{} like {}", texts[index].0, texts[other].0));
        }
    }
    let what =
        format!("{unit}s are nearly another: four fifths of their sequences of {SHINGLE} words, or more, are common to both");
    count.item("near-duplicates", texts.len() as u64, &what)
}

/// Counts evaluation prompts that share 13 words in a row with a training text.
pub(super) fn ngram_overlap(train: &[String], eval: &[Prompt]) -> AuditItem {
    let of_prompt = |prompt: &Prompt| {
        let words = words(&prompt.text);
        if words.len() < OVERLAP { Vec::new() } else { grams(&words, OVERLAP) }
    };
    let prompts: Vec<Vec<u64>> = eval.par_iter().map(of_prompt).collect();
    let mut wanted: Vec<u64> = prompts.iter().flatten().copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let of_text = |text: &String| -> Vec<u64> {
        grams(&words(text), OVERLAP).into_iter().filter(|gram| wanted.binary_search(gram).is_ok()).collect()
    };
    let mut seen: Vec<u64> = train.par_iter().flat_map_iter(of_text).collect();
    seen.sort_unstable();
    seen.dedup();
    let mut count = Count::default();
    for (prompt, grams) in eval.iter().zip(&prompts) {
        let shared = grams.iter().any(|gram| seen.binary_search(gram).is_ok());
        count.add(u64::from(shared), &prompt.id);
    }
    let what = format!("prompts of `eval` share {OVERLAP} words in a row with a text of `train`");
    count.item("ngram-overlap-train-eval", eval.len() as u64, &what)
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

    #[test]
    fn a_text_with_one_word_changed_is_nearly_the_other_and_equal_or_other_texts_are_not() {
        let long = (0..60).map(|i| format!("word{i}")).collect::<Vec<_>>().join(" ");
        let other = (0..60).map(|i| format!("term{i}")).collect::<Vec<_>>().join(" ");
        let half = (0..60).map(|i| format!("{}{i}", if i < 30 { "word" } else { "new" })).collect::<Vec<_>>().join(" ");
        let texts = [("a", long.clone()), ("b", other), ("c", long.replace("word30", "x")), ("d", long), ("e", half)];
        let item = near_duplicates(&texts, "pair");
        assert_eq!((item.count, item.total), (1, 5), "{}", item.message);
        assert!(item.message.ends_with("the first: c like a"), "{}", item.message);
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
        let item = ngram_overlap(&train, &eval);
        assert_eq!((item.count, item.total), (1, 3));
        assert!(item.message.ends_with("shares 13"), "{}", item.message);
    }
}
