//! What a judge reads: a template filled with the texts, tokenised as one text. Training and judging share this file, so
//! that a judge is asked in exactly the form it was trained on.
//!
//! Too long an input loses its beginning: what the tokenizer puts in front (BOS) stays, and so does the template's end. The
//! prompt is therefore the first to be cut. Each cut is counted.
//!
//! A chat template may have written what the tokenizer puts in front already (BOS): it then stands there once, not twice.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::suite::settings::JudgeKind;

#[derive(Debug, Clone)]
pub(crate) struct Reader {
    parts: Vec<Part>,
    tokenizer: Tokenizer,
    /// How many special tokens the tokenizer puts in front of a text.
    prefix: usize,
    max_length: usize,
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
    /// Of a pairwise question: the position of the last token of the first text, {a}.
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
    pub fn new(kind: JudgeKind, template: &str, tokenizer_json: &[u8], max_length: usize) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_bytes(tokenizer_json)
            .map_err(|e| Error::input(format!("the judge's tokenizer.json can't be read: {e}")))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| Error::unexpected(e.to_string()))?;
        let probe = tokenizer.encode("a", true).map_err(|e| Error::input(format!("the judge's tokenizer fails: {e}")))?;
        let prefix = probe.get_special_tokens_mask().iter().take_while(|&&m| m == 1).count();
        if max_length <= prefix {
            return Err(Error::usage(format!("max_length = {max_length} leaves a judge nothing to read")));
        }
        Ok(Self { parts: parse(kind, template)?, tokenizer, prefix, max_length })
    }

    pub fn open(kind: JudgeKind, template: &str, tokenizer: &Path, max_length: usize) -> Result<Self> {
        let json = std::fs::read(tokenizer)
            .map_err(|e| Error::io("read", tokenizer, &e).help("a judge's folder holds model.onnx and tokenizer.json"))?;
        Self::new(kind, template, &json, max_length).map_err(|e| match e.place {
            None => e.in_file(tokenizer),
            Some(_) => e,
        })
    }

    /// Fills the template with `texts` (one for each of `fields(kind)`) and tokenises the whole.
    pub fn read(&self, texts: &[&str]) -> Result<Question> {
        let mut whole = String::new();
        // Where the first of two completions ends, in bytes.
        let mut boundary = None;
        for part in &self.parts {
            match part {
                Part::Text(text) => whole.push_str(text),
                Part::Field(index) => {
                    whole.push_str(texts[*index]);
                    if *index == 1 && texts.len() > 2 && boundary.is_none() {
                        boundary = Some(whole.len());
                    }
                }
            }
        }
        let encoding = self
            .tokenizer
            .encode(whole.as_str(), true)
            .map_err(|e| Error::input(format!("the judge's tokenizer can't encode {whole:?}: {e}")))?;
        let ids = encoding.get_ids();
        let (front, rest) = ids.split_at(self.prefix);
        let doubled = if rest.starts_with(front) { self.prefix } else { 0 };
        let (ids, offsets) = (&ids[doubled..], &encoding.get_offsets()[doubled..]);
        let begins_before = |end: usize| offsets.iter().rposition(|&(start, stop)| start < end && stop > start);
        let split = boundary.map(|end| begins_before(end).unwrap_or(0));
        let Some(excess) = ids.len().checked_sub(self.max_length).filter(|&n| n > 0) else {
            return Ok(Question { ids: ids.to_vec(), split, truncated: false });
        };
        let (kept, rest) = ids.split_at(self.prefix);
        let split = split.map(|at| at.saturating_sub(excess).max(self.prefix.saturating_sub(1)));
        Ok(Question { ids: [kept, &rest[excess..]].concat(), split, truncated: true })
    }
}

fn parse(kind: JudgeKind, template: &str) -> Result<Vec<Part>> {
    let names = fields(kind);
    let listed = names.iter().map(|n| format!("{{{n}}}")).collect::<Vec<_>>().join(", ");
    let wrong = |what: String| {
        Error::usage(format!("the judge template {template:?} {what}")).help(format!("its placeholders are {listed}"))
    };
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        let close = after.find('}').ok_or_else(|| wrong("has a `{` without its `}`".to_owned()))?;
        let name = &after[1..close];
        let field = names.iter().position(|n| *n == name).ok_or_else(|| wrong(format!("names {{{name}}}")))?;
        parts.push(Part::Text(before.to_owned()));
        parts.push(Part::Field(field));
        rest = &after[close + 1..];
    }
    parts.push(Part::Text(rest.to_owned()));
    parts.retain(|part| *part != Part::Text(String::new()));
    // A judge may do without the prompt, but not without what it judges.
    for (field, name) in names.iter().enumerate().skip(1) {
        if !parts.contains(&Part::Field(field)) {
            return Err(wrong(format!("lacks {{{name}}}")));
        }
    }
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

    #[test]
    fn a_question_is_the_filled_template_as_one_text() {
        let tokenizer = tokenizer();
        let reader = Reader::new(JudgeKind::Pairwise, PAIRWISE, tokenizer.json(), 500).unwrap();
        let question = reader.read(&["Say {a}.", " one", " two"]).unwrap();
        assert_eq!(question.ids, tokenizer.prompt("Say {a}.\n\nA: one\n\nB: two\n\nBetter:"));
        assert!(!question.truncated);
        let split = question.split.expect("a pairwise question has two texts");
        assert_eq!(tokenizer.decode(&question.ids[..=split]), "Say {a}.\n\nA: one");
    }

    #[test]
    fn bos_that_a_chat_template_wrote_stands_there_once() {
        let tokenizer = tokenizer();
        let reader = |max_length| Reader::new(JudgeKind::Pairwise, PAIRWISE, tokenizer.json(), max_length).unwrap();
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
        let reader = Reader::new(JudgeKind::Pairwise, PAIRWISE, tokenizer.json(), 12).unwrap();
        let question = reader.read(&[&"long ".repeat(50), " one", " two"]).unwrap();
        assert!(question.truncated);
        assert_eq!(question.ids.len(), 12);
        assert_eq!(question.ids.first().copied(), tokenizer.bos());
        assert!(tokenizer.decode(&question.ids).ends_with("Better:"));
    }

    #[test]
    fn templates_with_wrong_placeholders_are_refused_by_name() {
        for (template, what) in [("{a} {c}", "names {c}"), ("{a}", "lacks {b}"), ("{a} {b", "without its `}`")] {
            let error = parse(JudgeKind::Pairwise, template).unwrap_err();
            assert!(error.message.contains(what), "{error}");
        }
        assert!(parse(JudgeKind::RewardModel, REWARD).is_ok());
    }
}
