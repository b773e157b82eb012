//! What judges answered, kept in the store, so that nothing is judged twice: not after a kill, not for another variant, not in another run.
//!
//! One file a judge, named by the judge's identity: the digest of everything that can change an answer (the library that runs it, the
//! model, the tokenizer, the template), and of nothing else. One line an answer, under the digest of the texts asked about:
//!
//! ```text
//! {"key": "<sha-256>", "answer": -0.25, "truncated": false, "check": "<first 16 digits of the SHA-256 of the rest>"}
//! ```
//!
//! Lines are appended chunk by chunk. A line that isn't whole, or has another digest, is dropped with a warning, and the question is
//! asked again: answers can always be had anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::judge::asking::{Answer, Question};
use crate::store::{Store, write_atomically};
use crate::watch::Watch;

/// Raised whenever the same identity and texts would give another answer.
const FORMAT: &str = "dpo-eval answers 1";

pub struct Journal<'a> {
    store: &'a Store,
    identity: Digest,
    path: PathBuf,
    kept: BTreeMap<Digest, Answer>,
    /// Bytes of the file that `kept` holds: other workers append to it too.
    read: usize,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: Digest,
    answer: f64,
    truncated: bool,
    check: String,
}

impl Line {
    fn new(key: Digest, Answer { value, truncated }: Answer) -> Self {
        Self { key, answer: value, truncated, check: check(key, value, truncated) }
    }

    fn parse(text: &str) -> Option<Self> {
        let line: Self = serde_json::from_str(text).ok()?;
        (line.check == check(line.key, line.answer, line.truncated)).then_some(line)
    }
}

fn check(key: Digest, answer: f64, truncated: bool) -> String {
    let mut digits = Digest::of_bytes(format!("{key} {:016x} {truncated}", answer.to_bits()).as_bytes()).to_string();
    digits.truncate(16);
    digits
}

impl<'a> Journal<'a> {
    /// `identity`: everything that can change an answer of this judge.
    pub fn open<T: Serialize>(store: &'a Store, identity: &T) -> Result<Self> {
        let identity = Digest::of_value(&(FORMAT, identity));
        let path = store.answers_path(identity)?;
        Ok(Self { store, identity, path, kept: BTreeMap::new(), read: 0 })
    }

    /// The answers that are kept, one entry a question.
    pub(super) fn look_up(&mut self, questions: &[&Question], watch: &dyn Watch) -> Result<Vec<Option<Answer>>> {
        self.refresh(watch)?;
        Ok(questions.iter().map(|question| self.kept.get(&key(question)).copied()).collect())
    }

    /// Keeps one answer a question.
    pub(super) fn add(&mut self, questions: &[&Question], answers: &[Answer]) -> Result<()> {
        let mut text = String::new();
        for (question, &answer) in questions.iter().zip(answers) {
            let key = key(question);
            self.kept.insert(key, answer);
            text += &serde_json::to_string(&Line::new(key, answer)).expect("a line is plain data");
            text.push('\n');
        }
        let _lease = self.store.lease(self.identity, || ())?;
        let io = |e: std::io::Error| Error::io("write", &self.path, &e);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(io)
    }

    /// Reads what was appended since the last time, and mends the file where it is damaged.
    fn refresh(&mut self, watch: &dyn Watch) -> Result<()> {
        let _lease = self.store.lease(self.identity, || watch.advance(0, 1, "waiting for another process's answers"))?;
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("read", &self.path, &e)),
        };
        // Shorter than it was: the store was pruned, or the file mended by another process.
        let unread = bytes.get(self.read..).unwrap_or(&bytes);
        let mut damaged = 0;
        for line in unread.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match std::str::from_utf8(line).ok().and_then(Line::parse) {
                Some(line) => {
                    self.kept.insert(line.key, Answer { value: line.answer, truncated: line.truncated });
                }
                None => damaged += 1,
            }
        }
        self.read = bytes.len();
        if damaged > 0 || !(bytes.is_empty() || bytes.ends_with(b"\n")) {
            self.mend(&bytes, damaged, watch)?;
        }
        Ok(())
    }

    /// Writes the whole lines again, without those that are damaged.
    fn mend(&mut self, bytes: &[u8], damaged: usize, watch: &dyn Watch) -> Result<()> {
        let whole = |line: &&[u8]| std::str::from_utf8(line).ok().and_then(Line::parse).is_some();
        let mut mended = Vec::with_capacity(bytes.len());
        for line in bytes.split(|&byte| byte == b'\n').filter(whole) {
            mended.extend_from_slice(line);
            mended.push(b'\n');
        }
        if damaged > 0 {
            let entries = if damaged == 1 { "1 entry is".to_owned() } else { format!("{damaged} entries are") };
            watch.warn(&format!("{}: {entries} damaged; what they answered is asked again", self.path.display()));
        }
        self.read = mended.len();
        write_atomically(&self.path, &[&mended])
    }
}

/// The digest of the texts, each with its length before it, so that no text can pass for two.
fn key(question: &Question) -> Digest {
    let mut bytes = Vec::with_capacity(question.iter().map(|text| text.len() + 8).sum());
    for text in question {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    Digest::of_bytes(&bytes)
}
