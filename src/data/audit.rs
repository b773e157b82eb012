//! Counts of what goes wrong in preference data before any number is computed.
//!
//! Rows are gone over several times, some of them in memory at a time. What is kept of each is hashes, which are sorted outside of memory:
//! it grows with what is wrong with the data, not with their size. Of some thousand rows their words are kept too (`noise`).

mod noise;
mod repeats;
mod rows;
mod similar;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use std::path::Path;

use rayon::prelude::*;
use serde::de::DeserializeOwned;

use crate::data::files::each_jsonl;
use crate::data::label::Count;
use crate::data::sorter::Sorter;
use crate::data::sources;
use crate::data::split::{normalised, prompt_hash};
use crate::data::tokenize::TextTokenizer;
use crate::data::{AuditItem, Demonstration, PreferenceRow, Prompt};
use crate::error::{Error, Result};
use crate::suite::settings::PairsSettings;
use noise::{Evidence, Sample};
use repeats::{Found, Repeats, Said, Told};
pub use rows::Audited;
use similar::{Sketch, Sketches};
use tokens::{Seen, Tokens};

/// Rows that are in memory together.
pub const CHUNK: usize = 512;

/// Takes some rows.
pub type Take<'a, R> = &'a mut dyn FnMut(&[R]) -> Result<()>;

/// Goes over rows in order, some at a time, the same ones each time.
pub type Pass<'a, R> = dyn Fn(Take<'_, R>) -> Result<()> + 'a;

/// A pass over rows that are in memory.
pub fn held<R>(rows: &[R]) -> impl Fn(Take<'_, R>) -> Result<()> {
    move |take| rows.chunks(CHUNK).try_for_each(take)
}

/// A pass over the rows of a JSONL file.
pub fn filed<R: DeserializeOwned>(path: &Path) -> impl Fn(Take<'_, R>) -> Result<()> {
    move |take| in_chunks(take, |give| each_jsonl(path, give))
}

/// Takes in chunks what `read` gives one by one.
pub fn in_chunks<R, T>(take: Take<'_, R>, read: impl FnOnce(&mut dyn FnMut(R) -> Result<()>) -> Result<T>) -> Result<T> {
    let mut rows = Vec::with_capacity(CHUNK);
    let read = read(&mut |row| {
        rows.push(row);
        if rows.len() == CHUNK {
            take(&rows)?;
            rows.clear();
        }
        Ok(())
    })?;
    take(&rows)?;
    Ok(read)
}

/// What is audited: the splits of one suite.
pub struct AuditInput<'a, R> {
    pub demonstrations: &'a Pass<'a, Demonstration>,
    pub train: &'a Pass<'a, R>,
    pub heldout: &'a Pass<'a, R>,
    pub judge: &'a Pass<'a, R>,
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
    let (mut counts, mut total) = (vec![0u64; settings.sources.len()], 0u64);
    if !counts.is_empty() {
        (input.train)(&mut |rows: &[R]| {
            for own in rows.iter().filter_map(|row| sources::source_of(row.id(), settings)) {
                let at = settings.sources.iter().position(|source| source.name == own.name);
                counts[at.expect("one of the suite's sources")] += 1;
            }
            total += rows.len() as u64;
            Ok(())
        })?;
    }
    let all: f64 = counts.iter().zip(&settings.sources).map(|(count, source)| *count as f64 * source.weight).sum();
    for (source, count) in settings.sources.iter().zip(counts) {
        let own = |row: &&R| sources::source_of(row.id(), settings).is_some_and(|its| its.name == source.name);
        let share = 100.0 * count as f64 * source.weight / all;
        let message = format!(
            "{count} of {total} rows to train on come from `{}`, with weight {} {share:.1} % of what an epoch sees",
            source.name, source.weight
        );
        let mut of_source = vec![AuditItem { id: "rows".to_owned(), count, total, must_be_zero: false, message }];
        let every = input.rows();
        let pass = |take: Take<'_, R>| every(&mut |rows: &[R]| take(&rows.iter().filter(own).cloned().collect::<Vec<_>>()));
        let alone = Looks { tokenizer: input.tokenizer, max_length: input.max_length, full: input.full };
        let RowItems { odd, like, tokens } = alone.at(&pass, &held(&[]))?;
        of_source.extend(odd.into_iter().chain(like).chain(tokens));
        items.extend(of_source.into_iter().map(|item| sources::of_source(&source.name, item)));
    }
    Ok(items)
}

/// Prompts in more than one split, odd rows, and what tokenisation does to the texts.
pub fn audit<R: Audited>(input: &AuditInput<R>) -> Result<Vec<AuditItem>> {
    let mut items = overlaps(input)?;
    let AuditInput { tokenizer, max_length, full, .. } = *input;
    let found = Looks { tokenizer, max_length, full }.at(&input.rows(), input.demonstrations)?;
    items.extend(found.odd);
    items.extend(found.like);
    if full && !input.eval.is_empty() {
        items.push(similar::ngram_overlap(input.train, whole, input.eval)?);
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
    let RowItems { odd, like, tokens } = Looks { tokenizer, max_length, full: true }.at(pass, &held(&[]))?;
    Ok(odd.into_iter().chain(like).chain(tokens).collect())
}

impl<'a, R: PreferenceRow> AuditInput<'a, R> {
    fn rows(&self) -> impl Fn(Take<'_, R>) -> Result<()> + 'a {
        let parts = [self.train, self.heldout, self.judge];
        move |take| parts.iter().try_for_each(|part| part(&mut *take))
    }

    /// Gives every prompt of a split, in order.
    fn each_prompt(&self, split: Split, mut give: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let part = match split {
            Split::Demonstrations => {
                return (self.demonstrations)(&mut |rows: &[Demonstration]| rows.iter().try_for_each(|row| give(&row.prompt)));
            }
            Split::Eval => return self.eval.iter().try_for_each(|prompt| give(&prompt.text)),
            Split::Train => self.train,
            Split::Heldout => self.heldout,
            Split::Judge => self.judge,
        };
        part(&mut |rows: &[R]| rows.iter().try_for_each(|row| give(row.prompt())))
    }
}

#[derive(Clone, Copy)]
enum Split {
    Demonstrations,
    Train,
    Heldout,
    Judge,
    Eval,
}

const SPLITS: [(Split, &str); 5] = [
    (Split::Demonstrations, "demonstrations"),
    (Split::Train, "train"),
    (Split::Heldout, "heldout"),
    (Split::Judge, "judge"),
    (Split::Eval, "eval"),
];

/// A row's texts as one.
fn whole<R: Audited>(row: &R) -> String {
    [&[row.prompt()], row.completions().as_slice()].concat().join("\n")
}

/// Prompts that two splits have in common: how many, and where the first of them stands in the one that comes first.
#[derive(Default, Clone, Copy)]
struct Shared {
    count: u64,
    first: Option<u64>,
}

/// Every prompt shared by two splits, by its normalised text. Demonstrations may share prompts with the training pairs, as
/// the chosen sides of one file do; every other overlap would let a number measure memory.
fn overlaps<R: PreferenceRow>(input: &AuditInput<R>) -> Result<Vec<AuditItem>> {
    // Hash, split, place.
    let mut prompts = Sorter::<3>::default();
    for (i, (split, _)) in SPLITS.into_iter().enumerate() {
        let mut place = 0;
        input.each_prompt(split, |prompt| {
            place += 1;
            prompts.add([prompt_hash(prompt), i as u64, place - 1])
        })?;
    }
    let (mut different, mut shared) = ([0; SPLITS.len()], [[Shared::default(); SPLITS.len()]; SPLITS.len()]);
    prompts.each_group(|group| {
        let own = |split: usize| group.iter().find(|record| record[1] == split as u64).map(|record| record[2]);
        let places: [Option<u64>; SPLITS.len()] = std::array::from_fn(own);
        for (i, place) in places.iter().enumerate() {
            let Some(place) = *place else { continue };
            different[i] += 1;
            for j in (i + 1..SPLITS.len()).filter(|j| places[*j].is_some()) {
                let shared = &mut shared[i][j];
                shared.count += 1;
                shared.first = Some(shared.first.map_or(place, |first| first.min(place)));
            }
        }
    })?;
    let mut items = Vec::new();
    for (i, (split, a)) in SPLITS.into_iter().enumerate() {
        let texts = texts_at(input, split, shared[i].iter().filter_map(|shared| shared.first).collect())?;
        for (j, (_, b)) in SPLITS.into_iter().enumerate().skip(i + 1) {
            if different[i] == 0 || different[j] == 0 {
                continue;
            }
            let mut count = Count::default();
            if let Shared { count: many, first: Some(first) } = shared[i][j] {
                count.add(many, &quoted(texts.get(&first).map_or("", String::as_str)));
            }
            let what = format!("prompts of `{b}` stand in `{a}` too");
            let mut item = count.item(&format!("overlap-{a}-{b}"), different[j], &what);
            item.must_be_zero = (a, b) != ("demonstrations", "train");
            items.push(item);
        }
    }
    Ok(items)
}

/// The normalised prompts at some places of a split.
fn texts_at<R: PreferenceRow>(input: &AuditInput<R>, split: Split, places: BTreeSet<u64>) -> Result<BTreeMap<u64, String>> {
    let (mut place, mut texts) = (0, BTreeMap::new());
    if !places.is_empty() {
        input.each_prompt(split, |prompt| {
            if places.contains(&place) {
                texts.insert(place, normalised(prompt));
            }
            place += 1;
            Ok(())
        })?;
    }
    Ok(texts)
}

/// What is looked at, beside the rows themselves.
struct Looks<'a> {
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
    sketches: Sketches,
    sample: Sample,
    tokens: Tokens,
}

impl Sums {
    fn add(&mut self, id: &str, facts: Facts) -> Result<()> {
        self.repeats.add(self.rows, facts.said)?;
        self.odd.iter_mut().zip(facts.odd).for_each(|(sum, count)| sum.add(count, id));
        if let Some((sketch, evidence)) = facts.like {
            self.sketches.add(self.rows, &sketch)?;
            self.sample.add(self.rows, evidence);
        }
        if let Some(seen) = facts.seen {
            self.tokens.add(id, &seen, true);
        }
        self.rows += 1;
        Ok(())
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

    /// `demonstrations`: texts that are tokenised too.
    fn at<R: Audited>(&self, pass: &Pass<R>, demonstrations: &Pass<Demonstration>) -> Result<RowItems> {
        let mut sums = Sums::default();
        pass(&mut |rows: &[R]| {
            let facts: Vec<Facts> = rows.par_iter().map(|row| self.facts(row)).collect();
            rows.iter().zip(facts).try_for_each(|(row, facts)| sums.add(row.id(), facts))
        })?;
        let Sums { rows, odd, mut repeats, mut sketches, sample, mut tokens } = sums;
        let total = u64::from(rows);
        let mut like = Vec::new();
        if self.full {
            let found = similar::near_duplicates(&mut sketches, pass, whole)?;
            like.push(Told { id: "near-duplicates", total, what: similar::nearly(R::UNIT), found, between: Some("like") });
            like.extend(noise::bounds(&mut repeats, &sample)?);
        }
        let [repeated, contradicted] = repeats.found()?;
        let names = names(pass, like.iter().map(|told| &told.found).chain([&repeated, &contradicted]))?;
        let odd = R::items(total, odd, repeated.count_of(Some("as"), &names), contradicted.count_of(Some("against"), &names));
        let like = like.into_iter().map(|told| told.item(&names)).collect();
        let Some(tokenizer) = self.tokenizer else { return Ok(RowItems { odd, like, tokens: Vec::new() }) };
        let of = |d: &Demonstration| Seen::of(&d.prompt, &[&d.completion], tokenizer, self.max_length);
        demonstrations(&mut |demonstrations: &[Demonstration]| {
            let seen: Vec<Seen> = demonstrations.par_iter().map(of).collect();
            demonstrations.iter().zip(seen).for_each(|(d, seen)| tokens.add(&d.prompt_id, &seen, false));
            Ok(())
        })?;
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

/// Rows whose prompts have more than `longest` tokens: they are left out and counted (TRL drops rows without a word).
pub struct LongPrompts {
    longest: usize,
    unit: &'static str,
    total: u64,
    long: Count,
    shortest: Option<usize>,
}

impl LongPrompts {
    /// `unit`: what messages call a row.
    pub fn above(longest: usize, unit: &'static str) -> Self {
        Self { longest, unit, total: 0, long: Count::default(), shortest: None }
    }

    /// Whether a row with a prompt of `length` tokens is kept.
    pub fn keeps(&mut self, id: &str, length: usize) -> bool {
        self.total += 1;
        self.long.add(u64::from(length > self.longest), id);
        self.shortest = Some(self.shortest.map_or(length, |shortest| shortest.min(length)));
        length <= self.longest
    }

    /// The count; an error where no row is left.
    pub fn item(self) -> Result<AuditItem> {
        let Self { longest, unit, total, long, shortest } = self;
        match shortest.filter(|shortest| *shortest > longest) {
            None => {
                let what = format!("{unit}s have prompts longer than max_prompt_length = {longest} tokens and are left out");
                Ok(long.item("prompts-too-long", total, &what))
            }
            Some(shortest) => Err(Error::input(format!(
                "every prompt has more than max_prompt_length = {longest} tokens; the shortest has {shortest}"
            ))
            .help("raise max_prompt_length")),
        }
    }
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
    prompts.into_iter().try_for_each(|(id, text)| check_length(id, tokenizer.prompt(text).len(), context, room))
}

/// The same of one prompt with `length` tokens.
pub fn check_length(id: &str, length: usize, context: usize, room: usize) -> Result<()> {
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
    Ok(())
}

/// The start of a prompt, for a message.
fn quoted(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    format!("\"{}{}\"", start.escape_debug(), if start.len() < text.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests;
