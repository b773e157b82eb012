//! Counts of what goes wrong in preference data before any number is computed.

mod noise;
mod similar;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::data::label::Count;
use crate::data::sources;
use crate::data::split::normalised;
use crate::data::tokenize::TextTokenizer;
use crate::data::{AuditItem, Demonstration, LabelledCompletion, Pair, PreferenceRow, Prompt};
use crate::error::{Error, Result};
use crate::suite::settings::PairsSettings;
use noise::Evidence;

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

/// Rows that can be audited.
pub trait Audited: PreferenceRow + Sync {
    /// The names of `completions`.
    const SIDES: &[&str];

    /// All that may be learnt or judged.
    fn completions(&self) -> Vec<&str>;

    /// What it says of how many labels are wrong.
    fn evidence(&self) -> Evidence;

    /// Rows that say nothing, say it twice, or say the opposite of another.
    fn oddities(rows: &[&Self]) -> Vec<AuditItem>;
}

/// What is odd in each of several sources by itself.
pub fn audit_by_source<R: Audited + Clone>(input: &AuditInput<R>, settings: &PairsSettings) -> Vec<AuditItem> {
    let mut items = Vec::new();
    let weight = |rows: &[&R]| -> f64 {
        rows.iter().map(|row| sources::source_of(row.id(), settings).map_or(0.0, |source| source.weight)).sum()
    };
    let all = weight(&input.train.iter().collect::<Vec<_>>());
    for source in &settings.sources {
        let of_source = |rows: &[R]| -> Vec<R> {
            let own = |row: &&R| sources::source_of(row.id(), settings).is_some_and(|its| its.name == source.name);
            rows.iter().filter(own).cloned().collect()
        };
        let (train, heldout, judge) = (of_source(input.train), of_source(input.heldout), of_source(input.judge));
        let share = 100.0 * weight(&train.iter().collect::<Vec<_>>()) / all;
        let (count, total) = (train.len() as u64, input.train.len() as u64);
        let message = format!(
            "{count} of {total} rows to train on come from `{}`, with weight {} {share:.1} % of what an epoch sees",
            source.name, source.weight
        );
        let mut own = vec![AuditItem { id: "rows".to_owned(), count, total, must_be_zero: false, message }];
        let alone = AuditInput { demonstrations: &[], train: &train, heldout: &heldout, judge: &judge, eval: &[], ..*input };
        own.extend(R::oddities(&rows(&alone)));
        if input.full {
            own.extend(likeness(&alone));
        }
        own.extend(input.tokenizer.map(|tokenizer| tokenisation(&alone, tokenizer)).into_iter().flatten());
        items.extend(own.into_iter().map(|item| sources::of_source(&source.name, item)));
    }
    items
}

/// Prompts in more than one split, odd rows, and what tokenisation does to the texts.
pub fn audit<R: Audited>(input: &AuditInput<R>) -> Vec<AuditItem> {
    let mut items = overlaps(input);
    items.extend(R::oddities(&rows(input)));
    if input.full {
        items.extend(likeness(input));
    }
    items.extend(input.tokenizer.map(|tokenizer| tokenisation(input, tokenizer)).into_iter().flatten());
    items
}

/// Every prompt shared by two splits, by its normalised text. Demonstrations may share prompts with the training pairs, as
/// the chosen sides of one file do; every other overlap would let a number measure memory.
fn overlaps<R: PreferenceRow>(input: &AuditInput<R>) -> Vec<AuditItem> {
    let of_rows = |rows: &[R]| rows.iter().map(|row| normalised(row.prompt())).collect::<BTreeSet<_>>();
    let splits: [(&str, BTreeSet<String>); 5] = [
        ("demonstrations", input.demonstrations.iter().map(|d| normalised(&d.prompt)).collect()),
        ("train", of_rows(input.train)),
        ("heldout", of_rows(input.heldout)),
        ("judge", of_rows(input.judge)),
        ("eval", input.eval.iter().map(|p| normalised(&p.text)).collect()),
    ];
    let mut items = Vec::new();
    for (i, (a, prompts)) in splits.iter().enumerate() {
        for (b, others) in splits[i + 1..].iter().filter(|(_, others)| !others.is_empty() && !prompts.is_empty()) {
            let mut count = Count::default();
            for prompt in prompts.intersection(others) {
                count.add(1, &quoted(prompt));
            }
            let what = format!("prompts of `{b}` stand in `{a}` too");
            let mut item = count.item(&format!("overlap-{a}-{b}"), others.len() as u64, &what);
            item.must_be_zero = (*a, *b) != ("demonstrations", "train");
            items.push(item);
        }
    }
    items
}

/// Texts that are nearly others.
fn likeness<R: Audited>(input: &AuditInput<R>) -> Vec<AuditItem> {
    let whole = |row: &R| [&[row.prompt()], row.completions().as_slice()].concat().join("\n");
    let texts: Vec<(&str, String)> = rows(input).into_iter().map(|row| (row.id(), whole(row))).collect();
    let mut items = vec![similar::near_duplicates(&texts, R::UNIT)];
    let ids: Vec<&str> = texts.iter().map(|(id, _)| *id).collect();
    let evidence: Vec<Evidence> = rows(input).par_iter().map(|row| row.evidence()).collect();
    items.extend(noise::bounds(&evidence, &ids));
    if !input.eval.is_empty() {
        let train: Vec<String> = input.train.iter().map(whole).collect();
        items.push(similar::ngram_overlap(&train, input.eval));
    }
    items
}

/// Lengths at five quantiles and the longest: `counts` in `unit`, of which there is one at least. The quantile of p is the smallest
/// length that a share of p doesn't exceed.
fn lengths(what: &str, mut counts: Vec<usize>, unit: &str) -> AuditItem {
    counts.sort_unstable();
    let total = counts.len();
    let at = |percent: usize| counts[(total * percent).div_ceil(100).clamp(1, total) - 1];
    let quantiles = [5, 25, 50, 75, 95].map(|percent| at(percent).to_string()).join(", ");
    let message =
        format!("{total} {what} texts have {quantiles} {unit} at the 5, 25, 50, 75 and 95 % quantiles, and {} at most", at(100));
    AuditItem { id: format!("{what}-length"), count: total as u64, total: total as u64, must_be_zero: false, message }
}

fn rows<'a, R>(input: &AuditInput<'a, R>) -> Vec<&'a R> {
    input.train.iter().chain(input.heldout).chain(input.judge).collect()
}

impl Audited for Pair {
    const SIDES: &[&str] = &["chosen", "rejected"];

    fn completions(&self) -> Vec<&str> {
        vec![&self.chosen, &self.rejected]
    }

    fn evidence(&self) -> Evidence {
        Evidence::of_pair(&self.prompt, &self.chosen, &self.rejected)
    }

    fn oddities(pairs: &[&Self]) -> Vec<AuditItem> {
        let total = pairs.len() as u64;
        let (mut identical, mut duplicate, mut contradictory) = (Count::default(), Count::default(), Count::default());
        let (mut empty, mut longer) = (Count::default(), Count::default());
        let mut seen: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
        for pair in pairs {
            let (prompt, chosen, rejected) = (pair.prompt.as_str(), pair.chosen.as_str(), pair.rejected.as_str());
            identical.add(u64::from(chosen == rejected), &pair.id);
            if let Some(other) = seen.get(&(prompt, rejected, chosen)).filter(|_| chosen != rejected) {
                contradictory.add(1, &format!("{} against {other}", pair.id));
            }
            if let Some(other) = seen.insert((prompt, chosen, rejected), &pair.id) {
                duplicate.add(1, &format!("{} as {other}", pair.id));
            }
            let blank = [chosen, rejected].iter().filter(|side| side.trim().is_empty()).count();
            empty.add(blank as u64, &pair.id);
            longer.add(u64::from(chosen.chars().count() > rejected.chars().count()), &pair.id);
        }
        let mut identical = identical.item("identical-sides", total, "pairs have identical sides");
        identical.must_be_zero = true;
        vec![
            identical,
            duplicate.item("duplicate-pairs", total, "pairs repeat another word for word"),
            contradictory.item("contradictory-pairs", total, "pairs prefer what another rejects for the same prompt"),
            empty.item("empty-completions", 2 * total, "completions of pairs are empty"),
            longer.item("chosen-longer", total, "pairs have the longer side chosen, in characters"),
        ]
    }
}

impl Audited for LabelledCompletion {
    const SIDES: &[&str] = &["completion"];

    fn completions(&self) -> Vec<&str> {
        vec![&self.completion]
    }

    fn evidence(&self) -> Evidence {
        Evidence::of_completion(&self.prompt, &self.completion, self.label)
    }

    fn oddities(rows: &[&Self]) -> Vec<AuditItem> {
        let total = rows.len() as u64;
        let (mut duplicate, mut contradictory) = (Count::default(), Count::default());
        let (mut empty, mut undesirable) = (Count::default(), Count::default());
        let mut seen: BTreeMap<(&str, &str, bool), &str> = BTreeMap::new();
        for row in rows {
            let (prompt, completion) = (row.prompt.as_str(), row.completion.as_str());
            if let Some(other) = seen.get(&(prompt, completion, !row.label)) {
                contradictory.add(1, &format!("{} against {other}", row.id));
            }
            if let Some(other) = seen.insert((prompt, completion, row.label), &row.id) {
                duplicate.add(1, &format!("{} as {other}", row.id));
            }
            empty.add(u64::from(completion.trim().is_empty()), &row.id);
            undesirable.add(u64::from(!row.label), &row.id);
        }
        vec![
            duplicate.item("duplicate-rows", total, "rows repeat another word for word"),
            contradictory.item("contradictory-labels", total, "rows give a completion the other label than another row does"),
            empty.item("empty-completions", total, "completions are empty"),
            undesirable.item("undesirable", total, "rows are labelled undesirable"),
        ]
    }
}

/// What tokenising one row's completions showed.
#[derive(Default)]
struct Seen {
    id: String,
    completions: u64,
    truncated: u64,
    emptied: u64,
    mismatches: u64,
    unknown: u64,
    special: u64,
    tokens: u64,
    prompt_length: usize,
    /// Tokens of each completion, and whether `max_length` cuts it.
    sides: Vec<(usize, bool)>,
    missing_bos: u64,
    double_bos: u64,
    missing_eos: u64,
    double_eos: u64,
}

impl Seen {
    fn of(id: &str, prompt: &str, completions: &[&str], tokenizer: &TextTokenizer, max_length: Option<usize>) -> Self {
        let ids = tokenizer.prompt(prompt);
        let plain = tokenizer.ids(prompt);
        let mut seen = Self { id: id.to_owned(), completions: completions.len() as u64, ..Self::default() };
        let take = |ids: &[u32], seen: &mut Self| {
            seen.tokens += ids.len() as u64;
            seen.unknown += ids.iter().filter(|&&id| Some(id) == tokenizer.unknown()).count() as u64;
            seen.special += ids.iter().filter(|&&id| tokenizer.is_special(id) && Some(id) != tokenizer.unknown()).count() as u64;
        };
        take(&plain, &mut seen);
        seen.prompt_length = ids.len();
        if let Some(bos) = tokenizer.bos() {
            seen.missing_bos = u64::from(ids.first() != Some(&bos));
            seen.double_bos = u64::from(ids.starts_with(&[bos, bos]));
        }
        let eos = tokenizer.eos();
        for completion in completions {
            let joint = tokenizer.completion(prompt, &ids, completion);
            seen.mismatches += u64::from(joint.boundary_mismatch);
            let cut = max_length.is_some_and(|max_length| ids.len() + joint.ids.len() > max_length);
            seen.sides.push((joint.ids.len(), cut));
            seen.missing_eos += u64::from(!joint.ids.contains(&eos));
            seen.double_eos += u64::from(joint.ids.windows(2).any(|two| two == [eos, eos]));
            if let Some(max_length) = max_length {
                seen.truncated += u64::from(cut);
                seen.emptied += u64::from(ids.len() >= max_length);
            }
            // The last id is the EOS that belongs there.
            let own = joint.ids.strip_suffix(&[eos]).unwrap_or(&joint.ids);
            take(own, &mut seen);
        }
        seen
    }
}

/// What the joint rule and `max_length` do to the completions that are trained on or judged.
fn tokenisation<R: Audited>(input: &AuditInput<R>, tokenizer: &TextTokenizer) -> Vec<AuditItem> {
    let of_row = |row: &&R| Seen::of(row.id(), row.prompt(), &row.completions(), tokenizer, input.max_length);
    let of_demonstration = |d: &Demonstration| Seen::of(&d.prompt_id, &d.prompt, &[&d.completion], tokenizer, input.max_length);
    let mut rows: Vec<Seen> = rows(input).par_iter().map(of_row).collect();
    rows.par_extend(input.demonstrations.par_iter().map(of_demonstration));
    let total: u64 = rows.iter().map(|r| r.completions).sum();
    let tokens: u64 = rows.iter().map(|r| r.tokens).sum();
    let item = |id: &str, total: u64, what: &str, count: fn(&Seen) -> u64| {
        let mut sum = Count::default();
        rows.iter().for_each(|row| sum.add(count(row), &row.id));
        sum.item(id, total, what)
    };
    let mut items = vec![
        item("boundary-mismatch", total, "completions share a token with the end of their prompt", |r| r.mismatches),
        item("unknown-tokens", tokens, "tokens stand for what the vocabulary lacks", |r| r.unknown),
    ];
    // A chat template writes special tokens itself; what messages bring is counted where they are read.
    if !tokenizer.is_templated() {
        let what = "tokens of the texts themselves are special ones";
        items.push(item("special-tokens-in-text", tokens, what, |r| r.special));
    }
    if let Some(limit) = input.max_length {
        let truncated = format!("completions lose their end, being longer with their prompts than {limit} tokens");
        let emptied = format!("completions lose every token, as their prompts fill {limit} tokens");
        items.push(item("truncated", total, &truncated, |r| r.truncated));
        items.push(item("emptied-by-truncation", total, &emptied, |r| r.emptied));
    }
    if input.full {
        let prompts = rows.len() as u64;
        if tokenizer.bos().is_some() {
            items.push(item("missing-bos", prompts, "prompts don't begin with BOS, which the tokenizer has", |r| r.missing_bos));
            items.push(item("double-bos", prompts, "prompts begin with BOS twice", |r| r.double_bos));
        }
        items.push(item("missing-eos", total, "completions hold no EOS, so that none is learnt", |r| r.missing_eos));
        items.push(item("double-eos", total, "completions hold EOS twice in a row", |r| r.double_eos));
        // Demonstrations come last and have no sides.
        items.extend(sides::<R>(&rows[..rows.len() - input.demonstrations.len()], input.max_length));
    }
    items
}

/// How long each side is, and how often it is cut.
fn sides<R: Audited>(rows: &[Seen], max_length: Option<usize>) -> Vec<AuditItem> {
    let mut items = Vec::new();
    if rows.is_empty() {
        return items;
    }
    items.push(lengths("prompt", rows.iter().map(|row| row.prompt_length).collect(), "tokens"));
    for (index, side) in R::SIDES.iter().enumerate() {
        items.push(lengths(side, rows.iter().map(|row| row.sides[index].0).collect(), "tokens"));
        if let Some(limit) = max_length {
            let mut cut = Count::default();
            rows.iter().for_each(|row| cut.add(u64::from(row.sides[index].1), &row.id));
            let what = format!("{side} sides lose their end to {limit} tokens");
            items.push(cut.item(&format!("truncated-{side}"), rows.len() as u64, &what));
        }
    }
    items
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
