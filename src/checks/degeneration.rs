//! O12: does the text fall apart? Repetition (rep-4, Welleck et al. 2020, "Neural Text Generation With Unlikelihood Training", §6), loops at
//! the end (Holtzman et al. 2020), empty answers, special tokens written out, letters of scripts that nobody asked for. Each as a rise
//! over the reference's on the same prompts.

use std::collections::BTreeSet;

use regex::Regex;
use std::sync::LazyLock;

use super::inspection::{Inspection, Measure, Rise, Seen};
use crate::estimates::summary::{Policy, reference, yes};
use crate::generate::Completion;
use crate::statistics::text::{ends_in_a_loop, repetition};

pub(super) const MEASURES: &[Measure] = &[
    Measure { check: "O12", id: "repetition", title: "Rise of repeated 4-grams", by_seed: true, look: repeated },
    Measure { check: "O12", id: "loops", title: "Rise of completions that end in a loop", by_seed: true, look: loops },
    Measure { check: "O12", id: "empty", title: "Rise of empty completions", by_seed: true, look: empty },
    Measure {
        check: "O12",
        id: "special-tokens",
        title: "Rise of completions with special tokens",
        by_seed: true,
        look: special_tokens,
    },
    Measure {
        check: "O12",
        id: "other-script",
        title: "Rise of completions with letters of other scripts",
        by_seed: true,
        look: other_script,
    },
];

fn repeated<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let about = Rise {
        id: "repetition",
        subject: "the share of 4-grams",
        what: "that repeat earlier ones",
        claim: "a win rate above one half may reward degenerate text",
        hint: this.milder("read the samples; raise beta or take an earlier checkpoint"),
    };
    this.risen(policy, |c| repetition(&c.text), this.limits().more.repetition_rise_fail, about)
}

fn loops<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let about = Rise {
        id: "loops",
        subject: "the share of completions",
        what: "that end in a loop",
        claim: "a win rate above one half may reward degenerate text",
        hint: this.milder("read the samples; raise beta or take an earlier checkpoint"),
    };
    this.risen(policy, |c| yes(ends_in_a_loop(&c.text)), this.limits().more.loop_rise_fail, about)
}

fn empty<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let about = Rise {
        id: "empty",
        subject: "the share of completions",
        what: "without text",
        claim: "an empty answer is judged as if it were one",
        hint: "read the samples; see that the first token of completions isn't EOS in training",
    };
    this.risen(policy, |c| yes(c.text.trim().is_empty()), this.limits().more.empty_rise_fail, about)
}

/// What chat templates and tokenizers put between texts, written out as text.
static SPECIAL: LazyLock<Regex> = LazyLock::new(|| {
    let marks = r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(start|end)_of_turn>|<(pad|unk|bos|eos|mask)>|\[(PAD|UNK|CLS|SEP|MASK)\]";
    Regex::new(marks).expect("a valid expression")
});

fn special_tokens<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let about = Rise {
        id: "special-tokens",
        subject: "the share of completions",
        what: "that hold special tokens as text",
        claim: "the policy writes a template's marks, which a judge may take for structure",
        hint: "see that the training pairs hold no special tokens as text, and that the template writes them as tokens",
    };
    this.risen(policy, |c| yes(SPECIAL.is_match(&c.text)), this.limits().more.leak_rise_fail, about)
}

/// Scripts by the blocks of Unicode that most of their letters stand in; others count as one.
fn script(letter: char) -> Option<&'static str> {
    if !letter.is_alphabetic() {
        return None;
    }
    Some(match letter as u32 {
        0x0000..=0x024F | 0x1E00..=0x1EFF | 0xFF21..=0xFF5A => "Latin",
        0x0370..=0x03FF | 0x1F00..=0x1FFF => "Greek",
        0x0400..=0x052F => "Cyrillic",
        0x0590..=0x05FF => "Hebrew",
        0x0600..=0x06FF | 0x0750..=0x077F => "Arabic",
        0x0900..=0x097F => "Devanagari",
        0x0E00..=0x0E7F => "Thai",
        0x1100..=0x11FF | 0xAC00..=0xD7AF => "Hangul",
        0x3040..=0x30FF => "Kana",
        0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0x20000..=0x2FFFF => "Han",
        _ => "another",
    })
}

fn scripts(text: &str) -> impl Iterator<Item = &'static str> {
    text.chars().filter_map(script)
}

fn other_script<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let rows = reference(this.evidence);
    let usual: BTreeSet<&str> = rows.iter().flat_map(|c| scripts(&c.text).chain(scripts(&c.prompt))).collect();
    let about = Rise {
        id: "other-script",
        subject: "the share of completions",
        what: "with letters of a script that neither prompts nor the reference write",
        claim: "the policy changed its language",
        hint: "read the samples; see what the chosen completions are written in",
    };
    let foreign = |c: &Completion| yes(scripts(&c.text).any(|script| !usual.contains(script)));
    this.risen(policy, foreign, this.limits().more.script_rise_fail, about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_are_told_from_text() {
        for text in ["so <|im_end|>", "</s>", "[INST] hi", "<start_of_turn>user", "a <pad> b"] {
            assert!(SPECIAL.is_match(text), "{text}");
        }
        for text in ["a < b and b > c", "<b>bold</b>", "[1] see", "| a | b |", "<span>"] {
            assert!(!SPECIAL.is_match(text), "{text}");
        }
    }

    #[test]
    fn letters_have_scripts_and_signs_have_none() {
        assert_eq!(scripts("Né, 12! π да 好").collect::<Vec<_>>(), ["Latin", "Latin", "Greek", "Cyrillic", "Cyrillic", "Han"]);
    }
}
