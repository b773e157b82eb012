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

/// Whether a text ends in a loop: its last words are one unit of words said three times or more in a row, six words or more in all
/// (degenerate repetition as Holtzman et al. 2020, §4, describe it).
pub fn ends_in_a_loop(text: &str) -> bool {
    const TIMES: usize = 3;
    const WORDS: usize = 6;
    let words: Vec<&str> = text.split_whitespace().collect();
    let n = words.len();
    (1..=n / TIMES).any(|unit| {
        let long = (TIMES * unit).max(WORDS);
        long <= n && (n - long + unit..n).all(|i| words[i] == words[i - unit])
    })
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

    #[test]
    fn three_times_the_same_at_the_end_is_a_loop() {
        for (text, expected) in [
            ("it is good and so it is good and so it is good and so", true),
            ("first then so so so so so so", true),
            ("so so so", false),
            ("it is good and so it is good and so", false),
            ("so so so so so so at last", false),
            ("", false),
        ] {
            assert_eq!(ends_in_a_loop(text), expected, "{text}");
        }
    }
}
