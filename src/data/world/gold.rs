//! The gold reward: the truth of the synthetic world, defined on any string. The formula stands in the module's page above.

use std::collections::{BTreeMap, BTreeSet};

use super::grammar::{Clause, Grammar, Topic};
use super::lexicon;

/// Sentiment lies within ± this.
const SENTIMENT: f64 = 3.0;
/// For speaking of the aspect asked for.
const ANSWER: f64 = 0.3;
/// At most, for repeating.
const REPETITION: f64 = 1.0;
/// At most, for contradicting oneself.
const CONTRADICTION: f64 = 0.6;
/// For a text without one well-formed clause.
const ILL_FORMED: f64 = 1.5;
/// At most, for being too short or too long.
const LENGTH: f64 = 0.25;
/// Words of distinct well-formed clauses below which a text is too short, and words in all above which it is too long.
const SHORT: f64 = 8.0;
const LONG: f64 = 24.0;

/// What the reward saw in a text; the parts of its sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Parts {
    pub sentiment: f64,
    pub answer: f64,
    pub repetition: f64,
    pub contradiction: f64,
    /// Share of words outside well-formed clauses.
    pub ill_formed: f64,
    pub length: f64,
}

impl Parts {
    pub(super) fn of(prompt: &str, completion: &str) -> Self {
        let asked = Asked::read(prompt);
        let text = Text::read(completion);
        let mut opinions: BTreeMap<Topic, Opinion> = BTreeMap::new();
        let (mut seen, mut words_used) = (BTreeSet::new(), BTreeSet::new());
        let (mut good_words, mut other_words, ill_words) = (0usize, 0usize, text.ill_words);
        let (mut repeats, mut answer) = (0.0, 0.0);
        for (words, clause) in &text.clauses {
            let Some(topic) = asked.topic(clause.topic) else {
                other_words += words.len();
                continue;
            };
            if words_used.contains(clause.word.as_str()) {
                repeats += 0.25;
            }
            if seen.insert(words.as_slice()) {
                good_words += words.len();
                // One word says one thing about one topic, however often it is said.
                opinions.entry(topic).or_default().add(&clause.word, clause.value);
            } else {
                repeats += 1.0;
            }
            words_used.insert(clause.word.as_str());
            if asked.aspect.is_some_and(|aspect| topic == Topic::Aspect(aspect)) {
                answer = ANSWER;
            }
        }
        repeats += 0.25 * repeated_trigrams(&text.words) as f64;
        let net: f64 = opinions.values().map(|o| libm::tanh((o.praise - o.blame) / 2.0)).sum();
        let both: f64 = opinions.values().map(|o| o.praise.min(o.blame)).sum();
        let (good, all) = (good_words as f64, text.words.len() as f64);
        let counted = good_words + other_words + ill_words;
        Self {
            sentiment: SENTIMENT * libm::tanh(net / SENTIMENT),
            answer,
            repetition: REPETITION * libm::tanh(repeats),
            contradiction: CONTRADICTION * libm::tanh(both),
            ill_formed: if counted == 0 { 1.0 } else { ill_words as f64 / counted as f64 },
            length: length_penalty(good, all),
        }
    }

    pub(super) fn reward(&self) -> f64 {
        self.sentiment + self.answer - self.repetition - self.contradiction - ILL_FORMED * self.ill_formed - self.length
    }
}

/// The gold reward of `completion` as an answer to `prompt`: finite and within [-6.35, 3.3] for any two strings.
pub fn gold_reward(prompt: &str, completion: &str) -> f64 {
    Parts::of(prompt, completion).reward()
}

fn length_penalty(good: f64, all: f64) -> f64 {
    let short = libm::log(SHORT / (good + 1.0)).max(0.0);
    let long = libm::log((all + 1.0) / LONG).max(0.0);
    LENGTH * (1.0 - libm::exp(-(short * short + long * long)))
}

/// How many word trigrams occurred before. A count, not a share: what is added can't dilute it.
fn repeated_trigrams(words: &[String]) -> usize {
    let distinct: BTreeSet<&[String]> = words.windows(3).collect();
    words.len().saturating_sub(2) - distinct.len()
}

/// Praise and blame of one topic, each ≥ 0.
#[derive(Default)]
struct Opinion {
    praise: f64,
    blame: f64,
    said: BTreeSet<(String, bool)>,
}

impl Opinion {
    fn add(&mut self, word: &str, value: f64) {
        if self.said.insert((word.to_owned(), value > 0.0)) {
            self.praise += value.max(0.0);
            self.blame += (-value).max(0.0);
        }
    }
}

/// What the prompt asks about, as far as it names things of the world.
struct Asked {
    thing: Option<usize>,
    aspect: Option<usize>,
}

impl Asked {
    fn read(prompt: &str) -> Self {
        let text = Text::tokens(prompt);
        let words: Vec<&str> = text.iter().filter_map(|t| if let Token::Word(w) = t { Some(w.as_str()) } else { None }).collect();
        let aspect = words.iter().find_map(|word| lexicon::ASPECTS.iter().position(|a| a == word));
        let starts = |at: usize| {
            let here = |thing: &str| thing.split(' ').enumerate().all(|(i, part)| words.get(at + i) == Some(&part));
            lexicon::THINGS.iter().position(|thing| here(thing))
        };
        Self { thing: (0..words.len()).find_map(starts), aspect }
    }

    /// The topic with the thing asked about taken for "it"; none when a clause is about another thing.
    fn topic(&self, topic: Topic) -> Option<Topic> {
        match (topic, self.thing) {
            (Topic::Thing(thing), Some(asked)) if thing != asked => None,
            (Topic::Thing(_), _) => Some(Topic::Whole),
            _ => Some(topic),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Token {
    /// Lower case.
    Word(String),
    /// One of `.!?`
    Stop,
    /// `,` or `;`
    Comma,
}

/// A text, read.
struct Text {
    words: Vec<String>,
    clauses: Vec<(Vec<String>, Clause)>,
    /// Words of segments that are no clause, and one for each misplaced joint.
    ill_words: usize,
}

/// What a segment stands between.
#[derive(Clone, Copy, PartialEq)]
enum Joint {
    /// Start of the text, or a stop.
    Sentence,
    Comma,
    Connective,
    /// A comma and a connective.
    Both,
}

impl Text {
    fn tokens(text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut word = String::new();
        for c in text.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '\'' || c == '’' {
                word.extend(if c == '’' { '\'' } else { c }.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                tokens.push(Token::Word(std::mem::take(&mut word)));
            }
            match c {
                '.' | '!' | '?' => tokens.push(Token::Stop),
                ',' | ';' => tokens.push(Token::Comma),
                c if c.is_whitespace() => {}
                // A sign that no clause has is a word that no clause has.
                c => tokens.push(Token::Word(c.to_string())),
            }
        }
        tokens
    }

    fn read(text: &str) -> Self {
        let mut this = Self { words: Vec::new(), clauses: Vec::new(), ill_words: 0 };
        let mut segment: Vec<String> = Vec::new();
        let mut before = Joint::Sentence;
        let tokens = Self::tokens(text);
        for token in &tokens {
            let joint = match token {
                Token::Word(word) => {
                    this.words.push(word.clone());
                    if !lexicon::CONNECTIVES.contains(&word.as_str()) {
                        segment.push(word.clone());
                        continue;
                    }
                    Joint::Connective
                }
                Token::Stop => Joint::Sentence,
                Token::Comma => Joint::Comma,
            };
            before = this.segment(std::mem::take(&mut segment), before, joint);
        }
        // A text that stops in mid-sentence, or in mid-air after a connective, is unfinished.
        if !segment.is_empty() {
            this.segment(segment, before, Joint::Connective);
            this.ill_words += 1;
        } else if before != Joint::Sentence {
            this.ill_words += 1;
        }
        this
    }

    /// Takes in what stands between two joints; returns the joint before the next segment.
    fn segment(&mut self, words: Vec<String>, before: Joint, after: Joint) -> Joint {
        if words.is_empty() {
            return match (before, after) {
                (Joint::Comma, Joint::Connective) => Joint::Both,
                (Joint::Sentence, Joint::Connective) if !self.words.is_empty() => Joint::Connective,
                _ => {
                    self.ill_words += 1;
                    after
                }
            };
        }
        let borrowed: Vec<&str> = words.iter().map(String::as_str).collect();
        if before == Joint::Sentence && after == Joint::Comma && lexicon::OPENERS.contains(&borrowed.join(" ").as_str()) {
            return Joint::Sentence;
        }
        match Grammar::get().read(&borrowed) {
            Some(clause) => {
                // Two clauses need more than a comma between them.
                self.ill_words += usize::from(before == Joint::Comma);
                self.clauses.push((words, clause));
            }
            None => self.ill_words += words.len(),
        }
        after
    }
}
