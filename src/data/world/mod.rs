//! The synthetic world: short English reviews of things, with a truth that is known.
//!
//! Prompts ask for a review of a subject ("red kettle"), some of one aspect of it ("the price of the red kettle").
//! Demonstrations answer in one to three clauses of mixed sentiment and quality, so that a policy trained on them writes
//! well-formed texts of varied worth. All prompts are of different subjects, and each split has subjects of its own.
//!
//! # The gold reward
//!
//! [`gold_reward`] is defined on any two strings. The completion is cut into segments at `. ! ? , ;` and connectives; a
//! segment that fits one of the world's patterns as a whole is a clause with a topic t (the thing, or an aspect), a value v
//! and a sentiment word. v is the word's value ("good" 1, "excellent" 2, "awful" -2) times its degree ("very" 1.5), times
//! -0.75 if negated. With praise P_t and blame N_t the sums of positive and negative |v| over the distinct sentiment words
//! said of t,
//!
//! ```text
//! gold =  3 tanh( ⅓ Σ_t tanh((P_t − N_t) / 2) )     sentiment: saturates within a topic and over topics
//!       + 0.3 · [a clause is about the aspect asked for]
//!       − tanh(r)                                   r: 1 each repeated clause, ¼ each repeated sentiment word,
//!                                                   ¼ each word trigram that occurred before
//!       − 0.6 tanh( Σ_t min(P_t, N_t) )             contradiction: one topic praised and blamed
//!       − 1.5 i / (g + o + i)                       g: words of distinct clauses; o: words of clauses about another thing,
//!                                                   which say nothing; i: words of segments that are no clause, 1 each
//!                                                   misplaced joint; no words at all: 1
//!       − 0.25 (1 − exp(−a² − b²))                  length: a = max(0, ln(8 / (g + 1))), too short;
//!                                                   b = max(0, ln((n + 1) / 24)), too long, n: all words
//! ```
//!
//! It lies within [-6.35, 3.3]. Repeating a clause, or adding words that form none, never helps; keywords without grammar
//! count for nothing; length alone costs. A learned judge sees only samples of it and can be fooled in all these ways.

mod gold;
mod grammar;
mod lexicon;
mod opposite;
mod prose;

use crate::data::{Demonstration, Prompt};
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::suite::settings::WorldSettings;
pub use gold::gold_reward;
pub use opposite::opposite;
use prose::Subject;

#[derive(Debug, Clone, PartialEq)]
pub struct WorldData {
    /// What the tokenizer is trained on: the demonstrations' texts.
    pub corpus: Vec<String>,
    pub demonstrations: Vec<Demonstration>,
    pub train: Vec<Prompt>,
    pub heldout: Vec<Prompt>,
    pub judge: Vec<Prompt>,
    pub eval: Vec<Prompt>,
}

/// Prompts that a world has, one a subject.
pub const PROMPTS: usize = Subject::COUNT;

/// Makes the world of a seed. Each subject gives one prompt, and each split takes subjects of its own.
pub fn make(settings: &WorldSettings, seed: u64) -> Result<WorldData> {
    let sizes = [settings.eval_prompts, settings.heldout_prompts, settings.judge_prompts, settings.train_prompts];
    let asked: usize = sizes.iter().sum();
    if asked >= Subject::COUNT {
        let message = format!("the world has {} prompts, and the suite asks for {asked} beside demonstrations", Subject::COUNT);
        return Err(Error::usage(message)
            .help("lower train_prompts, heldout_prompts, judge_prompts or eval_prompts; a remainder is for demonstrations"));
    }
    let order = Stream::of(seed, "world/subjects", 0).permutation(Subject::COUNT);
    let prompt = |index: usize| {
        let mut stream = Stream::of(seed, "world/prompt", index as u64);
        let subject = Subject::draw(index, &mut stream);
        (subject, subject.prompt(&mut stream))
    };
    let mut next = 0;
    let mut take = |split: &str, count: usize| -> Vec<Prompt> {
        let subjects = &order[next..next + count];
        next += count;
        let row = |(i, &index): (usize, &usize)| Prompt { id: format!("{split}-{i:04}"), text: prompt(index).1 };
        subjects.iter().enumerate().map(row).collect()
    };
    let [eval, heldout, judge, train] =
        [("eval", sizes[0]), ("heldout", sizes[1]), ("judge", sizes[2]), ("train", sizes[3])].map(|(s, n)| take(s, n));
    let left = &order[next..];
    let demonstrations: Vec<Demonstration> = (0..settings.demonstrations)
        .map(|i| {
            let which = i % left.len();
            let (subject, text) = prompt(left[which]);
            let completion = prose::review(subject, &mut Stream::of(seed, "world/demonstration", i as u64));
            Demonstration { prompt_id: format!("demonstration-{which:04}"), prompt: text, completion }
        })
        .collect();
    let corpus = demonstrations.iter().map(|d| format!("{}{}", d.prompt, d.completion)).collect();
    Ok(WorldData { corpus, demonstrations, train, heldout, judge, eval })
}

/// Demonstrations that fine-tuning may be measured on: one review for each prompt of the held-out pairs, which no demonstration of
/// [`make`] has.
pub fn heldout_demonstrations(settings: &WorldSettings, seed: u64) -> Result<Vec<Demonstration>> {
    let prompts = make(&WorldSettings { demonstrations: 0, ..settings.clone() }, seed)?.heldout;
    let order = Stream::of(seed, "world/subjects", 0).permutation(Subject::COUNT);
    let subjects = &order[settings.eval_prompts..settings.eval_prompts + settings.heldout_prompts];
    let review = |(i, (prompt, &index)): (usize, (Prompt, &usize))| {
        let subject = Subject::draw(index, &mut Stream::of(seed, "world/prompt", index as u64));
        let completion = prose::review(subject, &mut Stream::of(seed, "world/demonstration/heldout", i as u64));
        Demonstration { prompt_id: prompt.id, prompt: prompt.text, completion }
    };
    Ok(prompts.into_iter().zip(subjects).enumerate().map(review).collect())
}

#[cfg(test)]
mod tests;
