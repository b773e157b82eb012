//! Counts of what goes wrong in preference data before any number is computed.

//!
//! Rows are gone over several times, some of them in memory at a time. What is kept of each is hashes, 88 bytes a row at most (16 of what it
//! says, 72 of what it is like), so that a file may be larger than memory; and of some thousand rows their words (`noise`).

mod noise;
mod repeats;
mod rows;
mod similar;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::data::label::Count;
use crate::data::sources;
use crate::data::split::{normalised, prompt_hash};
use crate::data::tokenize::TextTokenizer;
use crate::data::{AuditItem, Demonstration, PreferenceRow, Prompt};
use crate::error::{Error, Result};
use crate::suite::settings::PairsSettings;
use noise::{Evidence, Sample};
use repeats::{Found, Repeats, Said, Told};
pub use rows::Audited;
use similar::Sketch;
use tokens::{Seen, Tokens};

/// Rows that are in memory together.
pub const CHUNK: usize = 512;

/// Takes some rows.
pub type Take<'a, R> = &'a mut dyn FnMut(&[R]) -> Result<()>;

/// Goes over rows in order, some at a time, the same ones each time.
pub type Pass<'a, R> = dyn Fn(Take<'_, R>) -> Result<()> + 'a;

/// What is audited: the splits of one suite.
pub struct AuditInput<'a, R> {
    pub demonstrations: &'a [Demonstration],
    pub train: &'a [R],
    pub heldout: &'a [R],
    pub judge: &'a [R],
    pub eval: &'a [Prompt],
    /// Without one, only the texts themselves are looked at.
    pub tokenizer: Option<&'a TextTokenizer>,
    /// What prompt and completion together are cut to, in tokens: the training's `max_length`, or the context.
    pub max_length: Option<usize>,
    /// Whether near-duplicates, shared n-grams, lengths, BOS and EOS are looked at too, and truncation side by side. Suites without an
    /// audit of their own keep the items that they had.
    pub full: bool,
}

/// What is odd in each of several sources by itself.
pub fn audit_by_source<R: Audited + Clone>(input: &AuditInput<R>, settings: &PairsSettings) -> Result<Vec<AuditItem>> {
    let mut items = Vec::new();
    let weight = |row: &R| sources::source_of(row.id(), settings).map_or(0.0, |source| source.weight);
    let all: f64 = input.train.iter().map(weight).sum();
    for source in &settings.sources {
        let own = |row: &&R| sources::source_of(row.id(), settings).is_some_and(|its| its.name == source.name);
        let train = input.train.iter().filter(own);
        let share = 100.0 * train.clone().map(weight).sum::<f64>() / all;
        let (count, total) = (train.count() as u64, input.train.len() as u64);
        let message = format!(
            "{count} of {total} rows to train on come from `{}`, with weight {} {share:.1} % of what an epoch sees",
            source.name, source.weight
        );
        let mut of_source = vec![AuditItem { id: "rows".to_owned(), count, total, must_be_zero: false, message }];
        let every = input.rows();
        let pass = |take: Take<'_, R>| every(&mut |rows: &[R]| take(&rows.iter().filter(own).cloned().collect::<Vec<_>>()));
        let alone = Looks { demonstrations: &[], tokenizer: input.tokenizer, max_length: input.max_length, full: input.full };
        let RowItems { odd, like, tokens } = alone.at(&pass)?;
        of_source.extend(odd.into_iter().chain(like).chain(tokens));
        items.extend(of_source.into_iter().map(|item| sources::of_source(&source.name, item)));
    }
    Ok(items)
}

/// Prompts in more than one split, odd rows, and what tokenisation does to the texts.
pub fn audit<R: Audited>(input: &AuditInput<R>) -> Result<Vec<AuditItem>> {
    let mut items = overlaps(input);
    let AuditInput { demonstrations, tokenizer, max_length, full, .. } = *input;
    let found = Looks { demonstrations, tokenizer, max_length, full }.at(&input.rows())?;
    items.extend(found.odd);
    items.extend(found.like);
    if full && !input.eval.is_empty() {
        items.push(similar::ngram_overlap(&slices([input.train]), whole, input.eval)?);
    }
    items.extend(found.tokens);
    Ok(items)
}

/// The whole audit of rows that aren't split.
pub fn audit_rows<R: Audited>(
    pass: &Pass<R>,
    tokenizer: Option<&TextTokenizer>,
    max_length: Option<usize>,
) -> Result<Vec<AuditItem>> {
    let RowItems { odd, like, tokens } = Looks { demonstrations: &[], tokenizer, max_length, full: true }.at(pass)?;
    Ok(odd.into_iter().chain(like).chain(tokens).collect())
}

impl<'a, R> AuditInput<'a, R> {
    fn rows(&self) -> impl Fn(Take<'_, R>) -> Result<()> + 'a {
        slices([self.train, self.heldout, self.judge])
    }
}

fn slices<'a, R, const N: usize>(parts: [&'a [R]; N]) -> impl Fn(Take<'_, R>) -> Result<()> + 'a {
    move |take| parts.iter().flat_map(|part| part.chunks(CHUNK)).try_for_each(take)
}

/// A row's texts as one.
fn whole<R: Audited>(row: &R) -> String {
    [&[row.prompt()], row.completions().as_slice()].concat().join("\n")
}

/// Every prompt shared by two splits, by its normalised text. Demonstrations may share prompts with the training pairs, as
/// the chosen sides of one file do; every other overlap would let a number measure memory.
fn overlaps<R: PreferenceRow>(input: &AuditInput<R>) -> Vec<AuditItem> {
    let splits: [(&str, Vec<&str>); 5] = [
        ("demonstrations", input.demonstrations.iter().map(|d| d.prompt.as_str()).collect()),
        ("train", input.train.iter().map(R::prompt).collect()),
        ("heldout", input.heldout.iter().map(R::prompt).collect()),
        ("judge", input.judge.iter().map(R::prompt).collect()),
        ("eval", input.eval.iter().map(|p| p.text.as_str()).collect()),
    ];
    let hashed = |prompts: &[&str]| prompts.iter().map(|prompt| prompt_hash(prompt)).collect::<BTreeSet<u64>>();
    let hashes: Vec<BTreeSet<u64>> = splits.iter().map(|(_, prompts)| hashed(prompts)).collect();
    let mut items = Vec::new();
    for (i, (a, prompts)) in splits.iter().enumerate() {
        for (j, (b, others)) in splits.iter().enumerate().skip(i + 1) {
            if prompts.is_empty() || others.is_empty() {
                continue;
            }
            let shared: BTreeSet<u64> = hashes[i].intersection(&hashes[j]).copied().collect();
            let mut count = Count::default();
            if !shared.is_empty() {
                let first = prompts.iter().filter(|prompt| shared.contains(&prompt_hash(prompt))).map(|p| normalised(p)).min();
                count.add(shared.len() as u64, &first.map_or_else(String::new, |first| quoted(&first)));
            }
            let what = format!("prompts of `{b}` stand in `{a}` too");
            let mut item = count.item(&format!("overlap-{a}-{b}"), hashes[j].len() as u64, &what);
            item.must_be_zero = (*a, *b) != ("demonstrations", "train");
            items.push(item);
        }
    }
    items
}

/// What is looked at, beside the rows themselves.
struct Looks<'a> {
    demonstrations: &'a [Demonstration],
    tokenizer: Option<&'a TextTokenizer>,
    max_length: Option<usize>,
    full: bool,
}

/// Items of rows, in the order in which an audit tells them.
struct RowItems {
    odd: Vec<AuditItem>,
    /// Texts that are nearly others, and labels that contradict each other.
    like: Vec<AuditItem>,
    tokens: Vec<AuditItem>,
}

/// What one row shows.
struct Facts {
    said: Said,
    odd: [u64; 3],
    like: Option<(Sketch, Evidence)>,
    seen: Option<Seen>,
}

/// What all rows show.
#[derive(Default)]
struct Sums {
    rows: u32,
    odd: [Count; 3],
    repeats: Repeats,
    sketches: Vec<Sketch>,
    sample: Sample,
    tokens: Tokens,
}

impl Sums {
    fn add(&mut self, id: &str, facts: Facts) {
        self.repeats.add(self.rows, facts.said);
        self.odd.iter_mut().zip(facts.odd).for_each(|(sum, count)| sum.add(count, id));
        if let Some((sketch, evidence)) = facts.like {
            self.sketches.push(sketch);
            self.sample.add(self.rows, evidence);
        }
        if let Some(seen) = facts.seen {
            self.tokens.add(id, &seen, true);
        }
        self.rows += 1;
    }
}

impl Looks<'_> {
    fn facts<R: Audited>(&self, row: &R) -> Facts {
        let seen = |tokenizer| Seen::of(row.prompt(), &row.completions(), tokenizer, self.max_length);
        Facts {
            said: row.said(),
            odd: row.odd(),
            like: self.full.then(|| (Sketch::of(&whole(row)), row.evidence())),
            seen: self.tokenizer.map(seen),
        }
    }

    fn at<R: Audited>(&self, pass: &Pass<R>) -> Result<RowItems> {
        let mut sums = Sums::default();
        pass(&mut |rows: &[R]| {
            let facts: Vec<Facts> = rows.par_iter().map(|row| self.facts(row)).collect();
            rows.iter().zip(facts).for_each(|(row, facts)| sums.add(row.id(), facts));
            Ok(())
        })?;
        let Sums { rows, odd, mut repeats, sketches, sample, mut tokens } = sums;
        let total = u64::from(rows);
        let mut like = Vec::new();
        if self.full {
            let found = similar::near_duplicates(&sketches, pass, whole)?;
            like.push(Told { id: "near-duplicates", total, what: similar::nearly(R::UNIT), found, between: Some("like") });
            like.extend(noise::bounds(&mut repeats, &sample));
        }
        let [repeated, contradicted] = repeats.found();
        let names = names(pass, like.iter().map(|told| &told.found).chain([&repeated, &contradicted]))?;
        let odd = R::items(total, odd, repeated.count_of(Some("as"), &names), contradicted.count_of(Some("against"), &names));
        let like = like.into_iter().map(|told| told.item(&names)).collect();
        let Some(tokenizer) = self.tokenizer else { return Ok(RowItems { odd, like, tokens: Vec::new() }) };
        let of = |d: &Demonstration| Seen::of(&d.prompt, &[&d.completion], tokenizer, self.max_length);
        let seen: Vec<Seen> = self.demonstrations.par_iter().map(of).collect();
        self.demonstrations.iter().zip(seen).for_each(|(d, seen)| tokens.add(&d.prompt_id, &seen, false));
        Ok(RowItems { odd, like, tokens: tokens.items(tokenizer, self.max_length, self.full, R::SIDES) })
    }
}

/// The names of the rows that were found first.
fn names<'f, R: PreferenceRow>(pass: &Pass<R>, found: impl Iterator<Item = &'f Found>) -> Result<BTreeMap<u32, String>> {
    let wanted: BTreeSet<u32> = found.filter_map(|found| found.first).flatten().collect();
    let mut names = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(names);
    }
    let mut number = 0u32;
    pass(&mut |rows: &[R]| {
        for row in rows {
            if wanted.contains(&number) {
                names.insert(number, row.id().to_owned());
            }
            number += 1;
        }
        Ok(())
    })?;
    // Rows that aren't there any more have no names.
    for number in wanted {
        names.entry(number).or_default();
    }
    Ok(names)
}

/// Takes out the rows whose prompts have more than `longest` tokens, and counts them (TRL drops rows without a word).
pub fn without_long_prompts<R: PreferenceRow + Sync>(
    tokenizer: &TextTokenizer,
    rows: Vec<R>,
    longest: usize,
) -> Result<(Vec<R>, AuditItem)> {
    let total = rows.len() as u64;
    let lengths: Vec<usize> = rows.par_iter().map(|row| tokenizer.prompt(row.prompt()).len()).collect();
    let mut long = Count::default();
    let mut kept = Vec::with_capacity(rows.len());
    for (row, length) in rows.into_iter().zip(&lengths) {
        long.add(u64::from(*length > longest), row.id());
        kept.extend((*length <= longest).then_some(row));
    }
    if let (true, Some(shortest)) = (kept.is_empty(), lengths.iter().min()) {
        return Err(Error::input(format!(
            "every prompt has more than max_prompt_length = {longest} tokens; the shortest has {shortest}"
        ))
        .help("raise max_prompt_length"));
    }
    let what = format!("{}s have prompts longer than max_prompt_length = {longest} tokens and are left out", R::UNIT);
    Ok((kept, long.item("prompts-too-long", total, &what)))
}

/// Refuses the first prompt that has no ids or leaves no `room` (tokens after it) in a model's `context`.
///
/// `prompts`: identity and text of each.
pub fn check_lengths<'a>(
    tokenizer: &TextTokenizer,
    context: usize,
    room: usize,
    prompts: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    for (id, text) in prompts {
        let length = tokenizer.prompt(text).len();
        if length == 0 {
            return Err(Error::input(format!("the prompt of {id} is empty, and the tokenizer begins no text with BOS"))
                .help("give the prompt a text: a completion's first token needs one before it"));
        }
        if length + room > context {
            return Err(Error::input(format!(
                "the prompt of {id} has {length} tokens and needs {room} more after it, but the model's context is {context}"
            ))
            .help(
                "shorten or remove this prompt (`max_prompt_length` in [dataset] leaves out and counts the long prompts of a \
                 pairs file), lower max_new_tokens, or take a model with a longer context",
            ));
        }
    }
    Ok(())
}

/// The start of a prompt, for a message.
fn quoted(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    format!("\"{}{}\"", start.escape_debug(), if start.len() < text.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests;
