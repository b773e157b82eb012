//! The ranges that numbers in a suite may have. NaN and the infinities, which TOML can write, are in none of them.

/// A range, and the words for it after "must be".
pub(super) struct Rule<T> {
    pub(super) words: &'static str,
    pub(super) holds: fn(T) -> bool,
}

pub(super) const POSITIVE: Rule<f64> = Rule { words: "more than 0", holds: |x| x > 0.0 && x.is_finite() };
pub(super) const FINITE: Rule<f64> = Rule { words: "a finite number", holds: f64::is_finite };
pub(super) const NOT_NEGATIVE: Rule<f64> = Rule { words: "0 or more", holds: |x| x >= 0.0 && x.is_finite() };
pub(super) const BELOW_ONE: Rule<f64> = Rule { words: "at least 0 and less than 1", holds: |x| (0.0..1.0).contains(&x) };
pub(super) const BELOW_HALF: Rule<f64> = Rule { words: "at least 0 and less than 0.5", holds: |x| (0.0..0.5).contains(&x) };
pub(super) const UNIT: Rule<f64> = Rule { words: "from 0 to 1", holds: |x| (0.0..=1.0).contains(&x) };
pub(super) const SHARE: Rule<f64> = Rule { words: "more than 0 and less than 1", holds: |x| x > 0.0 && x < 1.0 };
pub(super) const PROBABILITY: Rule<f64> = Rule { words: "more than 0 and at most 1", holds: |x| x > 0.0 && x <= 1.0 };
pub(super) const LEVEL: Rule<f64> = Rule { words: "more than 0.5 and less than 1", holds: |x| x > 0.5 && x < 1.0 };
pub(super) const WEIGHT: Rule<f64> = Rule { words: "more than 0 and at most 1000", holds: |x| x > 0.0 && x <= 1000.0 };
pub(super) const AT_LEAST_ONE: Rule<usize> = Rule { words: "1 or more", holds: |n| n >= 1 };
pub(super) const STEPS: Rule<u64> = Rule { words: "1 or more", holds: |n| n >= 1 };
pub(super) const TWO_OR_MORE: Rule<usize> = Rule { words: "2 or more", holds: |n| n >= 2 };
pub(super) const VOCABULARY: Rule<usize> = Rule { words: "from 300 to 65536", holds: |n| (300..=65_536).contains(&n) };

/// For numbers whose type is all that is asked.
pub(super) fn any<T>() -> Rule<T> {
    Rule { words: "any", holds: |_| true }
}
