//! What a judge reads: templates filled with the texts, and tokenised. Training and judging share this file, so that a judge is asked
//! in exactly the form it was trained on.
//!
//! One template is one text; two are given to the tokenizer as a pair, whose post-processor joins them (cross-encoders); three, of the
//! prompt and of each completion, are encoded each by itself and stand one after another (PairRM, in LLM-Blender's `tokenize_pair`).
//!
//! Too long an input is cut at the side that the judge's folder or the suite says; ours lose their beginning, so the prompt is the first to
//! go. What the tokenizer puts around a text (BOS, `[CLS]`, `[SEP]`) stays. Each cut is counted.
//!
//! A chat template may have written what the tokenizer puts in front already (BOS): it then stands there once, not twice.

use std::path::Path;

use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{Encoding, PostProcessor, Tokenizer};

use crate::error::{Error, Result};
use crate::suite::settings::{JudgeKind, Side};

#[derive(Debug, Clone)]
pub(crate) struct Reader {
    form: Form,
    /// Of one text: whether the question says where its first completion ends.
    marks_split: bool,
    tokenizer: Tokenizer,
    /// How many special tokens the tokenizer puts in front of a text, and behind it.
    prefix: usize,
    suffix: usize,
    limits: Limits,
}

/// How long a question may be, and what it loses beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub max_length: usize,
    /// Of three texts: the longest prompt.
    pub prompt: Option<usize>,
    pub side: Side,
}

impl Limits {
    /// Of a judge of ours.
    pub fn of(max_length: usize) -> Self {
        Self { max_length, prompt: None, side: Side::Left }
    }
}

#[derive(Debug, Clone)]
enum Form {
    One(Vec<Part>),
    Pair([Vec<Part>; 2]),
    /// Of the prompt, of {a}, of {b}.
    Apart([Vec<Part>; 3]),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The index of a text in `fields`.
    Field(usize),
}

/// Token ids of one question, and whether it was too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub ids: Vec<u32>,
    /// The position of the last token of the first text, where there are two: of {a} in one text, of the first of a pair.
    pub split: Option<usize>,
    pub truncated: bool,
}

/// The placeholders of a kind's template, in the order in which texts are given to `Reader::read`.
pub(crate) fn fields(kind: JudgeKind) -> &'static [&'static str] {
    match kind {
        JudgeKind::Pairwise => &["prompt", "a", "b"],
        JudgeKind::RewardModel => &["prompt", "completion"],
    }
}

impl Reader {
    /// `tokenizer_json`: the bytes of a `tokenizer.json`.
    pub fn new(kind: JudgeKind, templates: &[String], tokenizer_json: &[u8], limits: Limits) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(tokenizer_json)
            .map_err(|e| Error::input(format!("the judge's tokenizer.json can't be read: {e}")))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| Error::unexpected(e.to_string()))?;
        let probe = tokenizer.encode("a", true).map_err(|e| Error::input(format!("the judge's tokenizer fails: {e}")))?;
        let special = probe.get_special_tokens_mask();
        let prefix = special.iter().take_while(|&&m| m == 1).count();
        let suffix = special[prefix..].iter().rev().take_while(|&&m| m == 1).count();
        let form = parse(kind, templates)?;
        let reader = Self { form, marks_split: true, tokenizer, prefix, suffix, limits };
        reader.check_limits()?;
        Ok(reader)
    }

    pub fn open(kind: JudgeKind, templates: &[String], tokenizer: &Path, limits: Limits) -> Result<Self> {
        let json = std::fs::read(tokenizer)
            .map_err(|e| Error::io("read", tokenizer, &e).help("a judge's folder holds model.onnx and tokenizer.json"))?;
        Self::new(kind, templates, &json, limits).map_err(|e| match e.place {
            None => e.in_file(tokenizer),
            Some(_) => e,
        })
    }

    /// The same, but one text's question doesn't say where its first completion ends: only our own judges want to know.
    pub fn without_split(self) -> Self {
        Self { marks_split: false, ..self }
    }

    /// How many ids the tokenizer gives out, added ones included.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab(true).values().max().map_or(0, |&largest| largest as usize + 1)
    }

    /// Refuses limits under which nothing could be read.
    fn check_limits(&self) -> Result<()> {
        let Limits { max_length, prompt, .. } = self.limits;
        let around = self.prefix + self.suffix;
        let nothing = |name: &str, value: usize| Err(Error::usage(format!("{name} = {value} leaves a judge nothing to read")));
        match &self.form {
            Form::One(_) if max_length <= around => nothing("max_length", max_length),
            Form::One(_) => Ok(()),
            Form::Pair(_) if max_length < self.around_pair() + 2 => nothing("max_length", max_length),
            Form::Pair(_) => Ok(()),
            Form::Apart(_) => match prompt {
                None => Err(Error::usage("a judge that reads three texts doesn't say how long the first may be")
                    .help("write `prompt_max_length` in its [[judge]] table; PairRM was trained with 1224 of max_length = 2048")),
                Some(prompt) if prompt <= around => nothing("prompt_max_length", prompt),
                Some(prompt) if max_length < prompt + 2 * (around + 1) => Err(Error::usage(format!(
                    "max_length = {max_length} leaves the completions nothing beside a prompt of prompt_max_length = {prompt}"
                ))),
                Some(_) => Ok(()),
            },
        }
    }

    /// Fills the templates with `texts` (one for each of `fields(kind)`) and tokenises them.
    pub fn read(&self, texts: &[&str]) -> Result<Question> {
        match &self.form {
            Form::One(parts) => self.read_one(parts, texts),
            Form::Pair(parts) => self.read_pair([0, 1].map(|i| filled(&parts[i], texts))),
            Form::Apart(parts) => {
                let [prompt, a, b] = [0, 1, 2].map(|i| self.encoded(&filled(&parts[i], texts)));
                let (mut ids, cut) = self.cut(prompt?.get_ids(), self.limits.prompt.unwrap_or(self.limits.max_length));
                let share = (self.limits.max_length - ids.len()) / 2;
                let mut truncated = cut;
                for side in [a?, b?] {
                    let (side, cut) = self.cut(side.get_ids(), share);
                    ids.extend(side);
                    truncated |= cut;
                }
                Ok(Question { ids, split: None, truncated })
            }
        }
    }

    /// How many special tokens stand around the texts of a pair and between them.
    fn around_pair(&self) -> usize {
        self.tokenizer.get_post_processor().map_or(0, |post| post.added_tokens(true))
    }

    /// Cut as transformers' fast tokenizers cut by `longest_first`: by hand, as versions of the library differ in the odd token.
    fn read_pair(&self, texts: [String; 2]) -> Result<Question> {
        let [first, second] = texts
            .each_ref()
            .map(|text| self.tokenizer.encode(text.as_str(), false).map_err(|e| cannot(&format!("{text:?}"), &e)));
        let (mut first, mut second) = (first?, second?);
        let (room, whole) = (self.limits.max_length - self.around_pair(), first.len() + second.len());
        let direction = match self.limits.side {
            Side::Left => TruncationDirection::Left,
            Side::Right => TruncationDirection::Right,
        };
        let lengths = shares(first.len(), second.len(), room);
        first.truncate(lengths.0, 0, direction);
        second.truncate(lengths.1, 0, direction);
        second.set_type_ids(vec![1; lengths.1]);
        let joined = self.tokenizer.post_process(first, Some(second), true);
        let encoding = joined.map_err(|e| cannot(&format!("the pair {texts:?}"), &e))?;
        let split = split_of(encoding.get_type_ids()).ok_or_else(|| {
            let message =
                "the tokenizer marks the texts of a pair in a form that isn't supported: token types other than 0 … 0 1 … 1";
            Error::input(message).help("write one template, with what stands between the texts in it")
        })?;
        Ok(Question { ids: encoding.get_ids().to_vec(), split, truncated: whole > room })
    }

    fn encoded(&self, text: &str) -> Result<Encoding> {
        self.tokenizer.encode(text, true).map_err(|e| cannot(&format!("{text:?}"), &e))
    }

    /// `ids` cut to `length`, with what the tokenizer put around them, and whether it was.
    fn cut(&self, ids: &[u32], length: usize) -> (Vec<u32>, bool) {
        let Some(excess) = ids.len().checked_sub(length).filter(|&n| n > 0) else { return (ids.to_vec(), false) };
        let at = match self.limits.side {
            Side::Left => self.prefix,
            Side::Right => ids.len() - self.suffix - excess,
        };
        ([&ids[..at], &ids[at + excess..]].concat(), true)
    }

    fn read_one(&self, parts: &[Part], texts: &[&str]) -> Result<Question> {
        let whole = filled(parts, texts);
        let encoding = self.encoded(&whole)?;
        let ids = encoding.get_ids();
        let (front, rest) = ids.split_at(self.prefix);
        let doubled = if rest.starts_with(front) { self.prefix } else { 0 };
        let (ids, offsets) = (&ids[doubled..], &encoding.get_offsets()[doubled..]);
        let begins_before = |end: usize| offsets.iter().rposition(|&(start, stop)| start < end && stop > start);
        let boundary = self.marks_split.then(|| boundary(parts, texts)).flatten();
        let split = boundary.map(|end| begins_before(end).unwrap_or(0));
        let (cut, truncated) = self.cut(ids, self.limits.max_length);
        let excess = ids.len() - cut.len();
        let split = split.map(|at| match self.limits.side {
            Side::Left if truncated => at.saturating_sub(excess).max(self.prefix.saturating_sub(1)),
            Side::Right if truncated => at.min(cut.len() - 1),
            _ => at,
        });
        Ok(Question { ids: cut, split, truncated })
    }
}

fn cannot(whole: &str, error: &tokenizers::Error) -> Error {
    Error::input(format!("the judge's tokenizer can't encode {whole}: {error}"))
}

fn filled(parts: &[Part], texts: &[&str]) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Field(index) => texts[*index].to_owned(),
    };
    parts.iter().map(text).collect()
}

/// How many tokens two texts keep of `room`: the longer loses first, and where both lose, it keeps the odd one.
fn shares(first: usize, second: usize, room: usize) -> (usize, usize) {
    if first > second {
        let (second, first) = shares(second, first, room);
        return (first, second);
    }
    let longer = second.min(room.saturating_sub(first)).max(first.min(second));
    if first + longer > room { (room / 2, room - room / 2) } else { (first, longer) }
}

/// Where the first of two completions ends, in bytes of the whole.
fn boundary(parts: &[Part], texts: &[&str]) -> Option<usize> {
    let first = parts.iter().position(|part| *part == Part::Field(1)).filter(|_| texts.len() > 2)?;
    Some(filled(&parts[..=first], texts).len())
}

/// The last position of the first text by the token types 0 … 0 1 … 1; the inner none where they don't tell the texts apart. None for other
/// forms.
fn split_of(types: &[u32]) -> Option<Option<usize>> {
    let first = types.iter().take_while(|&&t| t == 0).count();
    let rest = &types[first..];
    match rest {
        [] => Some(None),
        _ if first > 0 && rest.iter().all(|&t| t == 1) => Some(Some(first - 1)),
        _ => None,
    }
}

fn parse(kind: JudgeKind, templates: &[String]) -> Result<Form> {
    let parts = templates.iter().map(|template| parts(kind, template)).collect::<Result<Vec<_>>>()?;
    // A judge may do without the prompt, but not without what it judges.
    for (field, name) in fields(kind).iter().enumerate().skip(1) {
        if !parts.iter().flatten().any(|part| *part == Part::Field(field)) {
            return Err(wrong(kind, &templates.concat(), format!("lacks {{{name}}}")));
        }
    }
    match <[Vec<Part>; 1]>::try_from(parts) {
        Ok([one]) => Ok(Form::One(one)),
        Err(parts) => match <[Vec<Part>; 2]>::try_from(parts) {
            Ok(pair) => Ok(Form::Pair(pair)),
            Err(parts) => {
                let number = parts.len();
                let apart = <[Vec<Part>; 3]>::try_from(parts)
                    .map_err(|_| Error::usage(format!("a judge reads one, two or three texts, not {number}")))?;
                Ok(Form::Apart(apart))
            }
        },
    }
}

fn wrong(kind: JudgeKind, template: &str, what: String) -> Error {
    let listed = fields(kind).iter().map(|n| format!("{{{n}}}")).collect::<Vec<_>>().join(", ");
    Error::usage(format!("the judge template {template:?} {what}")).help(format!("its placeholders are {listed}"))
}

fn parts(kind: JudgeKind, template: &str) -> Result<Vec<Part>> {
    let names = fields(kind);
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        let close = after.find('}').ok_or_else(|| wrong(kind, template, "has a `{` without its `}`".to_owned()))?;
        let name = &after[1..close];
        let field = names.iter().position(|n| *n == name).ok_or_else(|| wrong(kind, template, format!("names {{{name}}}")))?;
        parts.push(Part::Text(before.to_owned()));
        parts.push(Part::Field(field));
        rest = &after[close + 1..];
    }
    parts.push(Part::Text(rest.to_owned()));
    parts.retain(|part| *part != Part::Text(String::new()));
    Ok(parts)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::data::tokenize::TextTokenizer;

    pub(crate) const PAIRWISE: &str = "{prompt}\n\nA:{a}\n\nB:{b}\n\nBetter:";
    pub(crate) const REWARD: &str = "{prompt}{completion}";

    /// A byte-level tokenizer of 300 entries.
    pub(crate) fn tokenizer() -> TextTokenizer {
        let corpus: Vec<String> =
            (0..200).map(|i| format!("The lamp number {} is bright, but the kettle is {}.", i % 7, i % 5)).collect();
        TextTokenizer::train(&corpus, 300).unwrap()
    }

    fn one(kind: JudgeKind, template: &str, tokenizer: &TextTokenizer, max_length: usize) -> Result<Reader> {
        Reader::new(kind, &[template.to_owned()], tokenizer.json(), Limits::of(max_length))
    }

    #[test]
    fn a_question_is_the_filled_template_as_one_text() {
        let tokenizer = tokenizer();
        let reader = one(JudgeKind::Pairwise, PAIRWISE, &tokenizer, 500).unwrap();
        let question = reader.read(&["Say {a}.", " one", " two"]).unwrap();
        assert_eq!(question.ids, tokenizer.prompt("Say {a}.\n\nA: one\n\nB: two\n\nBetter:"));
        assert!(!question.truncated);
        let split = question.split.expect("a pairwise question has two texts");
        assert_eq!(tokenizer.decode(&question.ids[..=split]), "Say {a}.\n\nA: one");
    }

    #[test]
    fn bos_that_a_chat_template_wrote_stands_there_once() {
        let tokenizer = tokenizer();
        let reader = |max_length| one(JudgeKind::Pairwise, PAIRWISE, &tokenizer, max_length).unwrap();
        let plain = reader(500).read(&["Say.", " one", " two"]).unwrap();
        let templated = reader(500).read(&["<s>Say.", " one", " two"]).unwrap();
        assert_eq!(templated, plain);
        assert_eq!(templated.ids.iter().filter(|&&id| Some(id) == tokenizer.bos()).count(), 1);
        let length = plain.ids.len() - 2;
        assert_eq!(
            reader(length).read(&["<s>Say.", " one", " two"]).unwrap(),
            reader(length).read(&["Say.", " one", " two"]).unwrap()
        );
    }

    #[test]
    fn a_long_question_keeps_bos_and_the_cue_at_its_end() {
        let tokenizer = tokenizer();
        let reader = one(JudgeKind::Pairwise, PAIRWISE, &tokenizer, 12).unwrap();
        let question = reader.read(&[&"long ".repeat(50), " one", " two"]).unwrap();
        assert!(question.truncated);
        assert_eq!(question.ids.len(), 12);
        assert_eq!(question.ids.first().copied(), tokenizer.bos());
        assert!(tokenizer.decode(&question.ids).ends_with("Better:"));
    }

    #[test]
    fn a_pair_shares_its_room_and_the_longer_text_loses_first() {
        for ((first, second, room), expected) in [
            ((3, 4, 9), (3, 4)),
            ((3, 9, 9), (3, 6)),
            ((9, 3, 9), (6, 3)),
            ((9, 8, 9), (5, 4)),
            ((8, 9, 9), (4, 5)),
            ((9, 9, 9), (4, 5)),
            ((0, 12, 9), (0, 9)),
            ((40, 50, 9), (4, 5)),
        ] {
            assert_eq!(shares(first, second, room), expected, "{first} and {second} in {room}");
        }
    }

    #[test]
    fn templates_with_wrong_placeholders_are_refused_by_name() {
        for (template, what) in [("{a} {c}", "names {c}"), ("{a}", "lacks {b}"), ("{a} {b", "without its `}`")] {
            let error = parse(JudgeKind::Pairwise, &[template.to_owned()]).unwrap_err();
            assert!(error.message.contains(what), "{error}");
        }
        assert!(parse(JudgeKind::RewardModel, &[REWARD.to_owned()]).is_ok());
    }
}
