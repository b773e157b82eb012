//! Writes the prompts and demonstrations of the world: reviews of mixed sentiment and quality.

use super::grammar::{Clause, Grammar, Topic};
use super::lexicon;
use crate::rng::Stream;

/// What a prompt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    pub modifier: usize,
    pub thing: usize,
    /// The aspect asked for, if one is.
    pub aspect: Option<usize>,
}

impl Subject {
    /// How many pairs of modifier and thing there are.
    pub(super) const COUNT: usize = lexicon::MODIFIERS.len() * lexicon::THINGS.len();

    /// The subject of an index below `COUNT`; `stream` draws the aspect.
    pub(super) fn draw(index: usize, stream: &mut Stream) -> Self {
        let aspect = stream.bernoulli(0.5).then(|| stream.index(lexicon::ASPECTS.len()));
        Self { modifier: index / lexicon::THINGS.len(), thing: index % lexicon::THINGS.len(), aspect }
    }

    pub(super) fn prompt(&self, stream: &mut Stream) -> String {
        let name = format!("{} {}", lexicon::MODIFIERS[self.modifier], lexicon::THINGS[self.thing]);
        match self.aspect {
            None => stream.choose(lexicon::PLAIN_PROMPTS).replace("{s}", &name),
            Some(a) => stream.choose(lexicon::ASPECT_PROMPTS).replace("{s}", &name).replace("{a}", lexicon::ASPECTS[a]),
        }
    }
}

/// The signs of a review's clauses.
#[derive(Clone, Copy)]
enum Mood {
    Glad,
    Sour,
    Mixed,
    Lukewarm,
}

#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    Repetitive,
    Contradictory,
    IllFormed,
}

/// A clause with what it takes to join it to others.
#[derive(Clone)]
struct Written {
    words: Vec<&'static str>,
    clause: Clause,
}

/// One review: a leading space, then sentences.
pub(super) fn review(subject: Subject, stream: &mut Stream) -> String {
    let mood = [Mood::Glad, Mood::Sour, Mood::Mixed, Mood::Lukewarm][stream.categorical(&[0.4, 0.4, 0.12, 0.08])];
    let flaw =
        [Flaw::None, Flaw::Repetitive, Flaw::Contradictory, Flaw::IllFormed][stream.categorical(&[0.87, 0.05, 0.04, 0.04])];
    let count = 1 + stream.categorical(&[0.25, 0.45, 0.3]);
    let mut clauses: Vec<Written> = topics(subject, count, stream).into_iter().map(|t| write(t, mood, stream)).collect();
    match flaw {
        Flaw::Repetitive => clauses.push(stream.choose(&clauses).clone()),
        Flaw::Contradictory => {
            let Clause { topic, value, .. } = stream.choose(&clauses).clause;
            let (words, clause) = Grammar::get().write(topic, if value > 0.0 { -1 } else { 1 }, stream);
            clauses.push(Written { words, clause });
        }
        Flaw::None | Flaw::IllFormed => {}
    }
    if flaw == Flaw::IllFormed {
        break_one(&mut clauses, stream);
    }
    let mut text = join(&clauses, stream);
    if flaw == Flaw::IllFormed && stream.bernoulli(0.3) {
        let spaces: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).skip(2).collect();
        if !spaces.is_empty() {
            text.truncate(*stream.choose(&spaces));
        }
    }
    text
}

fn write(topic: Topic, mood: Mood, stream: &mut Stream) -> Written {
    let wish = match mood {
        Mood::Glad => 1,
        Mood::Sour => -1,
        Mood::Mixed => [-1, 1][stream.index(2)],
        Mood::Lukewarm => [-1, 0, 0, 1][stream.index(4)],
    };
    let (words, clause) = Grammar::get().write(topic, wish, stream);
    Written { words, clause }
}

/// Distinct topics; the aspect asked for is mostly the first.
fn topics(subject: Subject, count: usize, stream: &mut Stream) -> Vec<Topic> {
    let mut topics = Vec::with_capacity(count);
    if let Some(aspect) = subject.aspect
        && stream.bernoulli(0.75)
    {
        topics.push(Topic::Aspect(aspect));
    }
    while topics.len() < count {
        let topic = if stream.bernoulli(0.35) {
            Topic::Thing(subject.thing)
        } else {
            Topic::Aspect(stream.index(lexicon::ASPECTS.len()))
        };
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    topics
}

/// Drops, doubles or swaps words of one clause.
fn break_one(clauses: &mut [Written], stream: &mut Stream) {
    let which = stream.index(clauses.len());
    let words = &mut clauses[which].words;
    let at = stream.index(words.len() - 1);
    match stream.index(3) {
        0 => drop(words.remove(at)),
        1 => words.insert(at, words[at]),
        _ => words.swap(at, at + 1),
    }
}

fn join(clauses: &[Written], stream: &mut Stream) -> String {
    let mut text = String::new();
    let mut last_value = 0.0;
    for (i, Written { words, clause }) in clauses.iter().enumerate() {
        let body = words.join(" ");
        if i > 0 && stream.bernoulli(0.55) {
            let turn = last_value * clause.value < 0.0;
            let connective = if turn {
                ["but", "but", "although", "though", "yet"][stream.index(5)]
            } else {
                ["and", "and", "while"][stream.index(3)]
            };
            text.push_str(if turn || stream.bernoulli(0.5) { ", " } else { " " });
            text.push_str(connective);
            text.push(' ');
            text.push_str(&body);
        } else {
            if i > 0 {
                text.push_str(stop(last_value, stream));
            }
            text.push(' ');
            if stream.bernoulli(0.15) {
                text.push_str(&format!("{}, {body}", capital(lexicon::OPENERS[stream.index(lexicon::OPENERS.len())])));
            } else {
                text.push_str(&capital(&body));
            }
        }
        last_value = clause.value;
    }
    text.push_str(stop(last_value, stream));
    text
}

fn stop(value: f64, stream: &mut Stream) -> &'static str {
    if value.abs() >= 1.5 && stream.bernoulli(0.2) { "!" } else { "." }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
