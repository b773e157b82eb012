//! Texts that mean the opposite: what a policy must not come to write when it learns to prefer a text (METHODS, check O5).

use super::lexicon::SENTIMENT;

/// `text` with each sentiment phrase replaced by the one of its class whose value is nearest to minus its own. None where no phrase has an
/// opposite.
pub fn opposite(text: &str) -> Option<String> {
    let mut replaced = false;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut within_word = false;
    while let Some(first) = rest.chars().next() {
        if !within_word && let Some((phrase, other)) = phrase_at(rest) {
            out.push_str(other);
            rest = &rest[phrase.len()..];
            (within_word, replaced) = (true, true);
            continue;
        }
        within_word = first.is_alphanumeric() || first == '\'';
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    replaced.then_some(out)
}

/// The longest phrase with an opposite that `text` begins with, and that opposite.
fn phrase_at(text: &str) -> Option<(&'static str, &'static str)> {
    let ends = |phrase: &str| !text[phrase.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '\'');
    let found = SENTIMENT.iter().flat_map(|(_, phrases)| phrases.iter().map(move |phrase| (phrase, phrases)));
    let here = found.filter(|((phrase, _), _)| text.starts_with(phrase) && ends(phrase));
    let with_opposite = here.filter_map(|(&(phrase, value), phrases)| {
        let far = phrases.iter().filter(|(_, other)| other * value < 0.0);
        let nearest = far.min_by(|a, b| (a.1 + value).abs().total_cmp(&(b.1 + value).abs()))?;
        Some((phrase, nearest.0))
    });
    with_opposite.max_by_key(|(phrase, _)| phrase.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::world::gold_reward;

    #[test]
    fn good_becomes_bad_and_is_worth_less() {
        for (text, expected) in [
            ("The kettle is very good, and I love its price.", "The kettle is very weak, and I hate its price."),
            ("it could not be better", "it could not be worse"),
            ("my boss is angry with it", "my boss is happy with it"),
        ] {
            assert_eq!(opposite(text).as_deref(), Some(expected));
        }
        let text = " The kettle is excellent. I love the price.";
        let reward = |text: &str| gold_reward("Review of the red kettle:", text);
        assert!(reward(text) > 1.0 && reward(&opposite(text).unwrap()) < -1.0);
        assert_eq!(opposite("The goods are averagely lovely."), None);
    }
}
