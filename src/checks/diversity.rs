//! O11: does the policy still know more than one answer? (Kirk et al. 2024, "Understanding the Effects of RLHF on LLM Generalisation and
//! Diversity", arXiv 2310.06452; Murthy et al. 2024, arXiv 2411.04427.)
//!
//! Entropy of the next token on its own completions over the reference's on its own; distinct bigrams of its completions over those of as
//! many of the reference's (Li et al. 2016), the standard error by leaving out one prompt at a time, since drawing prompts twice would
//! itself repeat bigrams; by how much better than the reference's its completions, one after another, can be compressed (Shaib et al. 2024,
//! arXiv 2403.00553); the rise of self-BLEU of a prompt's samples (Zhu et al. 2018), and how many of these are different texts.

use std::collections::BTreeMap;
use std::io::Write;

use super::inspection::{Inspection, Measure, Reading, Seen};
use super::{Crossing, by_seed, crossing, falling, finding, number, percent};
use crate::estimates::summary::{Policy, reference};
use crate::generate::Completion;
use crate::statistics::diversity::{Distinct, self_bleu, unique};
use crate::statistics::interval::{Interval, t};
use crate::statistics::mean::{Clustered, Measured, Range, mean, paired_difference, ratio};

const BIGRAMS: usize = 2;
const ONE_SAMPLE: &str = "there is one sample a prompt: set `samples_per_prompt` in [generate]";

pub(super) const MEASURES: &[Measure] = &[
    Measure { check: "O11", id: "entropy-collapse", title: "Entropy a token over the reference's", by_seed: true, look: entropy },
    Measure {
        check: "O11",
        id: "distinct-collapse",
        title: "Distinct bigrams over the reference's",
        by_seed: true,
        look: distinct,
    },
    Measure {
        check: "O11",
        id: "compression",
        title: "Compression ratio over the reference's",
        by_seed: false,
        look: compression,
    },
    Measure {
        check: "O11",
        id: "self-bleu",
        title: "Rise of self-BLEU among a prompt's samples",
        by_seed: true,
        look: samples_alike,
    },
    Measure {
        check: "O11",
        id: "unique-samples",
        title: "Share of a prompt's samples that differ",
        by_seed: false,
        look: unique_samples,
    },
];

const HINT: &str = "raise beta, take an earlier checkpoint, or look for chosen texts that are all alike";

fn entropy<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let per_token = |rows: Vec<&'a Completion>| -> Vec<(&'a str, f64)> {
        let mut sums: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
        for c in rows {
            let Some(entropy) = c.entropy else { continue };
            let sum = sums.entry(&c.prompt_id).or_default();
            (sum[0], sum[1]) = (sum[0] + entropy, sum[1] + f64::from(c.tokens));
        }
        sums.into_iter().map(|(prompt, [entropy, tokens])| (prompt, entropy / tokens.max(1.0))).collect()
    };
    let (own, other) = (per_token(policy.completions(this.evidence)), per_token(reference(this.evidence)));
    let Some(share) = ratio(own, other, this.level()) else {
        return Seen::not("there are no completions of two prompts to compare, or they were measured without entropies");
    };
    let limit = this.limits().more.entropy_ratio_fail;
    let Some(Crossing { severity, threshold }) = falling(share.value, share.interval.upper, limit, limit) else {
        return Reading::of(&share, limit).into();
    };
    let message = format!(
        "the entropy of what `{}`{} writes next is {} times the reference's, below {threshold}: it has settled on few ways to say things",
        policy.variant,
        by_seed(policy),
        number(share.value, share.interval.lower, share.interval.upper)
    );
    let evidence = format!("{} prompts at checkpoint {}, policy against reference", share.clusters, this.last);
    finding("entropy-collapse", severity, Some(policy))
        .measurement(&share)
        .words(threshold, message, evidence, this.milder(HINT))
        .into()
}

fn distinct<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let Some(share) = distinct_ratio(policy.completions(this.evidence), reference(this.evidence), this.level()) else {
        return Seen::not("policy and reference have no completions of the same prompts");
    };
    let limit = this.limits().more.distinct_ratio_fail;
    let Some(Crossing { severity, threshold }) = falling(share.value, share.interval.upper, limit, limit) else {
        return Reading::of(&share, limit).into();
    };
    let message = format!(
        "the completions of `{}`{} have {} times the distinct bigrams of as many of the reference's, below {threshold}: its answers to different prompts are the same",
        policy.variant,
        by_seed(policy),
        number(share.value, share.interval.lower, share.interval.upper)
    );
    let evidence = format!("{} completions of {} prompts at checkpoint {}", share.n, share.clusters, this.last);
    finding("distinct-collapse", severity, Some(policy))
        .measurement(&share)
        .words(threshold, message, evidence, this.milder(HINT))
        .into()
}

/// The mean over seeds of distinct-2 over the reference's, each over the same prompts, with the jackknife's standard error.
fn distinct_ratio(own: Vec<&Completion>, other: Vec<&Completion>, level: f64) -> Option<Measured> {
    let prompts: BTreeMap<&str, usize> = other.iter().map(|c| (c.prompt_id.as_str(), 0)).collect();
    let prompts: BTreeMap<&str, usize> = prompts.into_keys().zip(0..).collect();
    let distinct = |rows: &[&Completion]| {
        let texts = rows.iter().filter_map(|c| Some((*prompts.get(c.prompt_id.as_str())?, c.text.as_str())));
        Distinct::new(texts, BIGRAMS, prompts.len())
    };
    let mut seeds: BTreeMap<Option<u64>, Vec<&Completion>> = BTreeMap::new();
    own.iter().for_each(|c| seeds.entry(c.seed).or_default().push(c));
    let (of_seeds, of_reference) = (seeds.values().map(|rows| distinct(rows)).collect::<Vec<_>>(), distinct(&other));
    let at = |without| {
        let sum: f64 = of_seeds.iter().map(|own| own.share(without)).sum();
        sum / of_seeds.len() as f64 / of_reference.share(without)
    };
    let (n, value) = (prompts.len() as f64, at(None));
    let left_out: Vec<f64> = (0..prompts.len()).map(|prompt| at(Some(prompt))).collect();
    if prompts.len() < 2 || !value.is_finite() || left_out.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mean = left_out.iter().sum::<f64>() / n;
    let error = ((n - 1.0) / n * left_out.iter().map(|v| (v - mean).powi(2)).sum::<f64>()).sqrt();
    let interval = Interval::around(value, t(level, prompts.len() - 1) * error).within(0.0, f64::INFINITY);
    Some(Measured {
        value,
        interval,
        n: own.len(),
        clusters: prompts.len(),
        method: "ratio of distinct-2, jackknife over prompts",
    })
}

/// No limit of its own: what it sees, distinct bigrams tell better where texts are short.
fn compression<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    match compression_ratio(policy.completions(this.evidence), reference(this.evidence), this.level()) {
        Some(share) => Reading::of(&share, None).into(),
        None => Seen::not("policy and reference have no completions of the same prompts"),
    }
}

/// The mean over seeds of a policy's compression ratio (bytes over bytes deflated, at level 9) over the reference's, each over all its
/// completions in the order of prompts, with the standard error of leaving out one of `GROUPS` groups of prompts at a time (Kott 2001).
fn compression_ratio(own: Vec<&Completion>, other: Vec<&Completion>, level: f64) -> Option<Measured> {
    let prompts: BTreeMap<&str, usize> = other.iter().map(|c| (c.prompt_id.as_str(), 0)).collect();
    let prompts: BTreeMap<&str, usize> = prompts.into_keys().zip(0..).collect();
    let (n, groups) = (own.len(), GROUPS.min(prompts.len()));
    let placed = |rows: Vec<&'_ Completion>| {
        let mut texts: Vec<(usize, String)> =
            rows.iter().filter_map(|c| Some((*prompts.get(c.prompt_id.as_str())?, format!("{}\n", c.text)))).collect();
        texts.sort_by_key(|(prompt, _)| *prompt);
        texts
    };
    let mut seeds: BTreeMap<Option<u64>, Vec<&Completion>> = BTreeMap::new();
    own.iter().for_each(|c| seeds.entry(c.seed).or_default().push(c));
    let (of_seeds, of_reference) = (seeds.into_values().map(placed).collect::<Vec<_>>(), placed(other));
    let ratio = |texts: &[(usize, String)], without: Option<usize>| {
        let kept = texts.iter().filter(|(prompt, _)| Some(prompt % groups) != without);
        compressed(&kept.map(|(_, text)| text.as_str()).collect::<String>())
    };
    let at = |without| {
        let sum: Option<f64> = of_seeds.iter().map(|texts| ratio(texts, without)).sum();
        Some(sum? / of_seeds.len() as f64 / ratio(&of_reference, without)?)
    };
    let value = (groups > 1 && !of_seeds.is_empty()).then(|| at(None))??;
    let left_out: Vec<f64> = (0..groups).map(|group| at(Some(group))).collect::<Option<_>>()?;
    let (count, mean) = (groups as f64, left_out.iter().sum::<f64>() / groups as f64);
    let error = ((count - 1.0) / count * left_out.iter().map(|v| (v - mean).powi(2)).sum::<f64>()).sqrt();
    let interval = Interval::around(value, t(level, groups - 1) * error).within(0.0, f64::INFINITY);
    Some(Measured {
        value,
        interval,
        n,
        clusters: prompts.len(),
        method: "ratio of compression ratios, jackknife over groups of prompts",
    })
}

const GROUPS: usize = 20;

/// Bytes of a text over those it is deflated to; none for the empty text.
fn compressed(text: &str) -> Option<f64> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes()).ok()?;
    let deflated = encoder.finish().ok()?;
    (!text.is_empty()).then(|| text.len() as f64 / deflated.len() as f64)
}

/// The texts of each prompt's samples, seed by seed.
fn sampled(rows: Vec<&Completion>) -> Vec<(&str, Vec<&str>)> {
    let mut groups: BTreeMap<(&str, Option<u64>), Vec<&str>> = BTreeMap::new();
    rows.iter().for_each(|c| groups.entry((c.prompt_id.as_str(), c.seed)).or_default().push(c.text.as_str()));
    groups.into_iter().map(|((prompt, _), texts)| (prompt, texts)).collect()
}

fn samples_alike<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let of = |rows| -> Vec<(&'a str, f64)> {
        sampled(rows).into_iter().filter_map(|(prompt, texts)| Some((prompt, self_bleu(&texts)?))).collect()
    };
    let (own, other) = (of(policy.completions(this.evidence)), of(reference(this.evidence)));
    let Some(rise) = paired_difference(own, other, Range::DIFFERENCE, this.level()) else { return Seen::not(ONE_SAMPLE) };
    let limit = this.limits().more.self_bleu_rise_fail;
    let Some(Crossing { severity, threshold }) = crossing(rise.value, rise.interval.lower, limit, limit) else {
        return Reading::of(&rise, limit).into();
    };
    let message = format!(
        "the samples of one prompt are more alike under `{}`{} than under the reference: self-BLEU rose by {}, beyond {threshold}: it gives one answer whatever the draw",
        policy.variant,
        by_seed(policy),
        number(rise.value, rise.interval.lower, rise.interval.upper)
    );
    let evidence = format!("{} prompts at checkpoint {}, policy against reference", rise.clusters, this.last);
    finding("self-bleu", severity, Some(policy)).measurement(&rise).words(threshold, message, evidence, this.milder(HINT)).into()
}

fn unique_samples<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let of = |rows| {
        let several = sampled(rows).into_iter().filter(|(_, texts)| texts.len() > 1);
        mean(&Clustered::new(several.map(|(prompt, texts)| (prompt, unique(&texts)))), Range::UNIT, this.level())
    };
    match (of(policy.completions(this.evidence)), of(reference(this.evidence))) {
        (Some(own), Some(other)) => {
            let words = format!("reference: {}", percent(other.value, other.interval.lower, other.interval.upper));
            Reading::of(&own, None).saying(words).into()
        }
        _ => Seen::not(ONE_SAMPLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimates::summary::fixture::completion;
    use crate::generate::REFERENCE;

    fn written(variant: &str, text: impl Fn(usize) -> String) -> Vec<Completion> {
        (0..60).map(|prompt| Completion { text: text(prompt), ..completion(variant, None, 0, prompt, 0) }).collect()
    }

    /// zlib 1.2.13 (Python's `zlib.compressobj(9, zlib.DEFLATED, -15)`) makes 20 bytes of these 800; another deflater may differ by a byte or two.
    const ZLIB: f64 = 40.0;

    #[test]
    fn a_text_that_repeats_itself_is_compressed_as_zlib_does() {
        let ratio = compressed(&"It is good".repeat(80)).unwrap();
        assert!((ratio - ZLIB).abs() < 0.15 * ZLIB, "{ratio}");
        assert_eq!(compressed(""), None);
    }

    #[test]
    fn one_answer_to_all_prompts_compresses_better_than_the_references_and_its_own_answers_as_well() {
        let varied =
            |prompt: usize| format!("The {} of {} was {}", prompt * 7919 % 1000, prompt * 104_729 % 1000, prompt * 31 % 97);
        let other = written(REFERENCE, varied);
        let of = |own: &[Completion]| compression_ratio(own.iter().collect(), other.iter().collect(), 0.95).unwrap();
        let (same, alike) = (of(&written("a", varied)), of(&written("a", |_| "The kettle is good".to_owned())));
        assert_eq!((same.value, same.interval.width()), (1.0, 0.0));
        assert!(alike.value > 5.0 && alike.interval.lower > 3.0, "{alike:?}");
        assert!(compression_ratio(Vec::new(), other.iter().collect(), 0.95).is_none());
    }
}
