//! How varied texts are: distinct n-grams, self-BLEU, unique texts. Words are what stands between white space.

use std::collections::{BTreeMap, BTreeSet};

type Gram<'a> = Vec<&'a str>;

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn grams<'a>(words: &[&'a str], n: usize) -> BTreeMap<Gram<'a>, usize> {
    let mut counts = BTreeMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram.to_vec()).or_default() += 1;
    }
    counts
}

/// distinct-n: different n-grams over all n-grams (Li et al. 2016, "A Diversity-Promoting Objective Function", §5), of groups of texts
/// (a prompt's, say) of which any can be left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Distinct {
    /// n-grams of each group, and those that no other group has, each once.
    groups: Vec<[f64; 2]>,
    /// Different ones, and all.
    whole: [f64; 2],
}

impl Distinct {
    /// `texts`: the number of its group, from 0 to `groups` − 1, and the text.
    ///
    /// # Panics
    /// When a group's number isn't below `groups`.
    pub fn new<'a>(texts: impl IntoIterator<Item = (usize, &'a str)>, n: usize, groups: usize) -> Self {
        let mut counts = vec![[0.0, 0.0]; groups];
        // None: several groups have it.
        let mut owners: BTreeMap<Gram<'a>, Option<usize>> = BTreeMap::new();
        for (group, text) in texts {
            for gram in words(text).windows(n) {
                counts[group][0] += 1.0;
                let owner = owners.entry(gram.to_vec()).or_insert(Some(group));
                if *owner != Some(group) {
                    *owner = None;
                }
            }
        }
        owners.values().flatten().for_each(|group| counts[*group][1] += 1.0);
        let all = counts.iter().map(|[n, _]| n).sum();
        Self { groups: counts, whole: [owners.len() as f64, all] }
    }

    /// Without one of the groups. NaN where no n-gram is left.
    pub fn share(&self, without: Option<usize>) -> f64 {
        let [n, own] = without.map_or([0.0, 0.0], |group| self.groups[group]);
        (self.whole[0] - own) / (self.whole[1] - n)
    }
}

/// Self-BLEU (Zhu et al. 2018, "Texygen", §3.3): the mean over texts of the BLEU of each with the others as its references. None for fewer
/// than two texts.
pub fn self_bleu(texts: &[&str]) -> Option<f64> {
    if texts.len() < 2 {
        return None;
    }
    let texts: Vec<Vec<&str>> = texts.iter().map(|text| words(text)).collect();
    let others =
        |i: usize| texts.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, text)| text.as_slice()).collect::<Vec<_>>();
    Some((0..texts.len()).map(|i| bleu(&texts[i], &others(i))).sum::<f64>() / texts.len() as f64)
}

/// BLEU-4 of one text (Papineni et al. 2002) as NLTK's `sentence_bleu` has it, a precision without a match counting as 0.1 matches
/// (method 1 of Chen & Cherry 2014).
fn bleu(text: &[&str], references: &[&[&str]]) -> f64 {
    const NO_MATCH: f64 = 0.1;
    let mut logs = 0.0;
    for n in 1..=4 {
        let own = grams(text, n);
        let most: Vec<BTreeMap<Gram, usize>> = references.iter().map(|reference| grams(reference, n)).collect();
        let clipped =
            |(gram, count): (&Gram, &usize)| (*count).min(most.iter().filter_map(|m| m.get(gram)).copied().max().unwrap_or(0));
        let matches: usize = own.iter().map(clipped).sum();
        if n == 1 && matches == 0 {
            return 0.0;
        }
        let all = own.values().sum::<usize>().max(1) as f64;
        logs += libm::log(if matches == 0 { NO_MATCH } else { matches as f64 } / all);
    }
    let length = text.len();
    let nearest = references.iter().map(|r| r.len()).min_by_key(|n| (n.abs_diff(length), *n)).unwrap_or(0);
    let brevity = if length > nearest { 1.0 } else { libm::exp(1.0 - nearest as f64 / length as f64) };
    brevity * libm::exp(logs / 4.0)
}

/// Different texts over all.
pub fn unique(texts: &[&str]) -> f64 {
    texts.iter().collect::<BTreeSet<_>>().len() as f64 / texts.len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, number};
    use super::*;

    /// Recorded with NLTK by `golden/statistics/diversity.py`.
    #[test]
    fn self_bleu_meets_nltk() {
        let path = format!("{}/../../golden/statistics/diversity.json", env!("CARGO_MANIFEST_DIR"));
        let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in file["self_bleu"].as_array().unwrap() {
            let texts: Vec<&str> = case["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
            close(&[self_bleu(&texts).unwrap()], &[number(&case["value"])], 1e-12);
        }
    }

    #[test]
    fn distinct_bigrams_are_counted_and_groups_can_be_left_out() {
        let texts = [(0, "a b c"), (1, "a b d"), (1, "b d e")];
        let distinct = Distinct::new(texts, 2, 2);
        // ab bc | ab bd bd de: four of six.
        close(&[distinct.share(None)], &[4.0 / 6.0], 1e-12);
        close(&[distinct.share(Some(0)), distinct.share(Some(1))], &[3.0 / 4.0, 1.0], 1e-12);
        assert_eq!(unique(&["a", "b", "a", "a"]), 0.5);
        assert_eq!(self_bleu(&["alone"]), None);
    }
}
