//! Clauses: the patterns of the lexicon, compiled once; filled to write, matched to read.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::lexicon;
use crate::rng::Stream;

/// "not good" is this many times "good".
pub(super) const NEGATION: f64 = -0.75;

/// What a clause is about. A thing named is told apart from "it", so that the reward can see whether it is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Whole,
    Thing(usize),
    Aspect(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Effect {
    Nothing,
    Value(f64),
    Degree(f64),
    About(Topic),
}

#[derive(Debug)]
struct Phrase {
    words: Vec<&'static str>,
    effect: Effect,
}

#[derive(Debug)]
enum Piece {
    Word { word: &'static str, negates: bool },
    Slot { class: &'static str, optional: bool, negates: bool },
}

#[derive(Debug)]
struct Pattern {
    pieces: Vec<Piece>,
    weight: f64,
}

/// A clause that was written or read. `value` is in units of "good".
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clause {
    pub topic: Topic,
    pub value: f64,
    /// The phrase that carries the sentiment.
    pub word: String,
}

/// A reading in progress.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading<'a> {
    topic: Topic,
    value: f64,
    factor: f64,
    word: &'a [&'static str],
}

impl<'a> Reading<'a> {
    const BLANK: Self = Self { topic: Topic::Whole, value: 0.0, factor: 1.0, word: &[] };

    fn with(mut self, phrase: &'a Phrase, negates: bool) -> Self {
        match phrase.effect {
            Effect::Nothing => {}
            Effect::Value(value) => (self.value, self.word) = (value, &phrase.words),
            Effect::Degree(factor) => self.factor *= factor,
            Effect::About(topic) => self.topic = topic,
        }
        self.negated(negates)
    }

    fn negated(mut self, negates: bool) -> Self {
        if negates {
            self.factor *= NEGATION;
        }
        self
    }

    fn clause(self) -> Clause {
        Clause { topic: self.topic, value: self.value * self.factor, word: self.word.join(" ") }
    }
}

pub(super) struct Grammar {
    patterns: Vec<Pattern>,
    classes: BTreeMap<&'static str, Vec<Phrase>>,
}

impl Grammar {
    pub(super) fn get() -> &'static Self {
        static GRAMMAR: OnceLock<Grammar> = OnceLock::new();
        GRAMMAR.get_or_init(|| Self { patterns: patterns(), classes: classes() })
    }

    /// Reads a whole segment of lower-case words as one clause.
    pub(super) fn read(&self, words: &[&str]) -> Option<Clause> {
        self.patterns.iter().find_map(|p| self.matches(&p.pieces, words, Reading::BLANK)).map(Reading::clause)
    }

    fn matches<'a>(&'a self, pieces: &[Piece], words: &[&str], reading: Reading<'a>) -> Option<Reading<'a>> {
        let Some((piece, rest)) = pieces.split_first() else { return words.is_empty().then_some(reading) };
        match piece {
            Piece::Word { word, negates } => {
                let (first, left) = words.split_first()?;
                first.eq_ignore_ascii_case(word).then(|| self.matches(rest, left, reading.negated(*negates)))?
            }
            Piece::Slot { class, optional, negates } => {
                let found = self.classes[class].iter().find_map(|phrase| {
                    let left = strip(words, &phrase.words)?;
                    self.matches(rest, left, reading.with(phrase, *negates))
                });
                found.or_else(|| if *optional { self.matches(rest, words, reading) } else { None })
            }
        }
    }

    /// Draws a clause about `topic` with the sign of `wish` (-1, 0 or 1), as words and their reading.
    pub(super) fn write(&self, topic: Topic, wish: i8, stream: &mut Stream) -> (Vec<&'static str>, Clause) {
        let weights: Vec<f64> = self.patterns.iter().map(|p| if p.suits(topic) { p.weight } else { 0.0 }).collect();
        loop {
            let pattern = &self.patterns[stream.categorical(&weights)];
            let (words, reading) = self.fill(pattern, topic, stream);
            let clause = reading.clause();
            let sign = if clause.value == 0.0 { 0 } else { clause.value.signum() as i8 };
            if sign == wish {
                return (words, clause);
            }
        }
    }

    fn fill(&self, pattern: &Pattern, topic: Topic, stream: &mut Stream) -> (Vec<&'static str>, Reading<'_>) {
        let mut words = Vec::new();
        let mut reading = Reading::BLANK;
        for piece in &pattern.pieces {
            match piece {
                Piece::Word { word, negates } => {
                    words.push(*word);
                    reading = reading.negated(*negates);
                }
                Piece::Slot { optional: true, .. } if stream.bernoulli(0.5) => {}
                Piece::Slot { class, negates, .. } => {
                    let fits = |p: &&Phrase| !matches!(p.effect, Effect::About(about) if !same(about, topic));
                    let phrases: Vec<&Phrase> = self.classes[class].iter().filter(fits).collect();
                    let phrase = *stream.choose(&phrases);
                    words.extend(&phrase.words);
                    reading = reading.with(phrase, *negates);
                }
            }
        }
        (words, reading)
    }
}

impl Pattern {
    /// Whether a clause of this shape can be about `topic`.
    fn suits(&self, topic: Topic) -> bool {
        let slots = || self.pieces.iter().filter_map(|p| if let Piece::Slot { class, .. } = p { Some(*class) } else { None });
        match topic {
            Topic::Aspect(_) => slots().any(|class| matches!(class, "topic" | "aspect")),
            Topic::Whole | Topic::Thing(_) => slots().all(|class| class != "aspect"),
        }
    }
}

/// "it" may stand for the thing.
fn same(about: Topic, topic: Topic) -> bool {
    about == topic || (about == Topic::Whole && matches!(topic, Topic::Thing(_)))
}

fn strip<'w, 's>(words: &'w [&'s str], phrase: &[&str]) -> Option<&'w [&'s str]> {
    let (head, left) = words.split_at_checked(phrase.len())?;
    (head == phrase).then_some(left)
}

fn patterns() -> Vec<Pattern> {
    let piece = |text: &'static str| match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        Some(slot) => {
            let (slot, optional) = slot.strip_suffix('?').map_or((slot, false), |s| (s, true));
            let (class, negates) = slot.strip_prefix('~').map_or((slot, false), |s| (s, true));
            Piece::Slot { class, optional, negates }
        }
        None => {
            let (word, negates) = text.strip_prefix('~').map_or((text, false), |w| (w, true));
            Piece::Word { word, negates }
        }
    };
    let pattern = |&(text, weight): &(&'static str, f64)| Pattern { pieces: text.split(' ').map(piece).collect(), weight };
    lexicon::PATTERNS.iter().map(pattern).collect()
}

fn classes() -> BTreeMap<&'static str, Vec<Phrase>> {
    let phrase = |before: Option<&'static str>, text: &'static str, effect: Effect| Phrase {
        words: before.into_iter().chain(text.split(' ')).collect(),
        effect,
    };
    let mut classes = BTreeMap::new();
    let mut add = |table: &[lexicon::Class], effect: fn(f64) -> Effect| {
        for (name, phrases) in table {
            let phrases = phrases.iter().map(|&(text, value)| phrase(None, text, effect(value)));
            classes.insert(*name, phrases.collect::<Vec<_>>());
        }
    };
    add(lexicon::SENTIMENT, Effect::Value);
    add(lexicon::DEGREES, Effect::Degree);
    add(lexicon::NEUTRAL, |_| Effect::Nothing);
    let named = |texts: &'static [&'static str], before: &'static str, about: fn(usize) -> Topic| {
        texts.iter().enumerate().map(move |(i, text)| phrase(Some(before), text, Effect::About(about(i))))
    };
    let whole = || {
        let it = phrase(None, "it", Effect::About(Topic::Whole));
        let things = |before| named(lexicon::THINGS, before, Topic::Thing);
        std::iter::once(it).chain(things("the")).chain(things("this"))
    };
    let aspect = || {
        let aspects = |before| named(lexicon::ASPECTS, before, Topic::Aspect);
        aspects("the").chain(aspects("its"))
    };
    classes.insert("topic", whole().chain(aspect()).collect());
    classes.insert("whole", whole().collect());
    classes.insert("aspect", aspect().collect());
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Clause> {
        let lower = text.to_lowercase();
        Grammar::get().read(&lower.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn every_slot_of_every_pattern_has_a_class() {
        let grammar = Grammar::get();
        assert!(grammar.patterns.len() >= 36);
        for pattern in &grammar.patterns {
            for piece in &pattern.pieces {
                if let Piece::Slot { class, .. } = piece {
                    assert!(grammar.classes.contains_key(class), "{class}");
                }
            }
        }
    }

    #[test]
    fn hand_written_clauses_have_the_values_of_their_words() {
        let aspect = |name: &str| Topic::Aspect(lexicon::ASPECTS.iter().position(|&a| a == name).unwrap());
        let value = |text: &str| read(text).unwrap_or_else(|| panic!("{text} is no clause")).value;
        assert_eq!(read("the price is good").unwrap().topic, aspect("price"));
        assert_eq!(value("the price is good"), 1.0);
        assert_eq!(value("its design is very good"), 1.5);
        assert_eq!(value("it isn't good"), NEGATION);
        assert_eq!(value("it isn't awful"), -2.0 * NEGATION);
        assert_eq!(value("my sister hates the desk lamp"), -2.0);
        assert_eq!(value("nobody here likes it"), NEGATION);
        assert_eq!(value("the size could not be better"), 2.0);
        assert_eq!(value("I can not stand its colour"), -2.0);
        assert_eq!(value("there is nothing ugly about it"), -1.5 * NEGATION);
        for text in ["", "price good", "the price is", "the price is good good", "is the price good", "the moon is good"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let grammar = Grammar::get();
        let mut stream = Stream::of(1, "test", 0);
        let topics = [Topic::Whole, Topic::Thing(0), Topic::Thing(11), Topic::Aspect(0), Topic::Aspect(7)];
        for i in 0..3000 {
            let (words, clause) = grammar.write(topics[i % 5], (i % 3) as i8 - 1, &mut stream);
            let text = words.join(" ");
            assert_eq!(read(&text), Some(clause), "{text}");
        }
    }

    #[test]
    fn no_class_offers_a_phrase_twice() {
        for (name, phrases) in &Grammar::get().classes {
            for (i, phrase) in phrases.iter().enumerate() {
                assert!(phrases[..i].iter().all(|other| other.words != phrase.words), "{name}: {:?}", phrase.words);
            }
        }
    }
}
