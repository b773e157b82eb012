//! Repetition within one text.

use std::collections::BTreeSet;

/// rep-4: the share of a text's 4-grams of words that occurred in it before (Welleck et al. 2020), 0 for fewer than two.
pub fn repetition(text: &str) -> f64 {
    const N: usize = 4;
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() <= N {
        return 0.0;
    }
    let distinct: BTreeSet<&[&str]> = words.windows(N).collect();
    1.0 - distinct.len() as f64 / (words.len() - N + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_repeats_and_a_sentence_does_not() {
        assert_eq!(repetition("the room was clean and the staff were kind"), 0.0);
        assert_eq!(repetition("good good good good good good good"), 0.75);
        assert_eq!(repetition("good"), 0.0);
        assert_eq!(repetition(""), 0.0);
    }
}
