//! What a suite reads from files, split into files of its own: rows come and go one chunk at a time.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::data::audit::{CHUNK, LongPrompts, check_length};
use crate::data::files::{JsonlFile, Labels, write_jsonl};
use crate::data::sources::{self, FileRow};
use crate::data::split::{Place, Splitter};
use crate::data::template::ChatTemplate;
use crate::data::tokenize::TextTokenizer;
use crate::data::{AuditItem, Prompt};
use crate::error::{Error, Result};
use crate::suite::Suite;
use crate::suite::settings::PairsSettings;

/// What reading a suite's rows takes.
pub struct Reading<'a> {
    pub suite: &'a Suite,
    pub settings: &'a PairsSettings,
    pub template: Option<&'a ChatTemplate>,
    pub tokenizer: &'a TextTokenizer,
    /// Tokens that the model can hold; with none, long prompts are no error.
    pub context: Option<usize>,
}

/// The files, in a folder.
pub struct Parts(pub PathBuf);

impl Parts {
    /// The names of the files. Where the suite has an [sft] table it imitates the demonstrations: the chosen sides of the training pairs, or
    /// their desirable completions.
    pub const FILES: [&str; 5] =
        ["demonstrations.jsonl", "train_pairs.jsonl", "heldout_pairs.jsonl", "judge_pairs.jsonl", "eval_prompts.jsonl"];

    pub fn demonstrations(&self) -> PathBuf {
        self.0.join(Self::FILES[0])
    }

    pub fn train(&self) -> PathBuf {
        self.0.join(Self::FILES[1])
    }

    pub fn heldout(&self) -> PathBuf {
        self.0.join(Self::FILES[2])
    }

    pub fn judge(&self) -> PathBuf {
        self.0.join(Self::FILES[3])
    }

    pub fn eval(&self) -> PathBuf {
        self.0.join(Self::FILES[4])
    }
}

/// The files being written.
struct Writing<'a> {
    splitter: Splitter<'a>,
    demonstrations: JsonlFile,
    rows: [(Place, JsonlFile); 3],
    /// Of the training rows.
    labels: Labels,
}

impl<'a> Writing<'a> {
    fn into(parts: &Parts, settings: &'a PairsSettings) -> Result<Self> {
        let rows = [
            (Place::Train, JsonlFile::create(&parts.train())?),
            (Place::Heldout, JsonlFile::create(&parts.heldout())?),
            (Place::Judge, JsonlFile::create(&parts.judge())?),
        ];
        let demonstrations = JsonlFile::create(&parts.demonstrations())?;
        Ok(Self { splitter: Splitter::new(settings)?, demonstrations, rows, labels: Labels::default() })
    }

    fn add<R: FileRow + Serialize>(&mut self, row: &R) -> Result<()> {
        let place = self.splitter.place(row);
        if place == Place::Train {
            row.label().into_iter().for_each(|label| self.labels.add(label));
            row.demonstration().iter().try_for_each(|demonstration| self.demonstrations.add(demonstration))?;
        }
        let file = self.rows.iter_mut().find(|(of, _)| *of == place);
        file.map_or(Ok(()), |(_, file)| file.add(row))
    }

    fn finish(self) -> Result<(Vec<Prompt>, Labels)> {
        self.demonstrations.finish()?;
        self.rows.into_iter().try_for_each(|(_, file)| file.finish())?;
        Ok((self.splitter.finish()?, self.labels))
    }
}

impl Reading<'_> {
    /// Reads and splits all rows into files in `folder`. Returns what was left out or looks odd.
    pub fn split_into<R: FileRow + Serialize + Send + Sync>(&self, folder: &Path) -> Result<(Parts, Vec<AuditItem>)> {
        let parts = Parts(folder.to_owned());
        let mut long = self.settings.max_prompt_length.map(|longest| LongPrompts::above(longest, R::UNIT));
        let mut writing = Writing::into(&parts, self.settings)?;
        let mut chunk: Vec<R> = Vec::with_capacity(CHUNK);
        let mut items = sources::each(self.suite, self.settings, self.template, &mut |row: R| {
            chunk.push(row);
            if chunk.len() == CHUNK { self.put(&mut chunk, long.as_mut(), &mut writing) } else { Ok(()) }
        })?;
        self.put(&mut chunk, long.as_mut(), &mut writing)?;
        if let Some(long) = long {
            items.push(long.item().map_err(|e| self.about(e))?);
        }
        let (eval, labels) = writing.finish()?;
        write_jsonl(&parts.eval(), &eval)?;
        labels.both("rows of the training split").map_err(|e| self.about(e))?;
        Ok((parts, items))
    }

    /// Sorts a chunk of rows into their files, and empties it.
    fn put<R: FileRow + Serialize + Send + Sync>(
        &self,
        chunk: &mut Vec<R>,
        mut long: Option<&mut LongPrompts>,
        writing: &mut Writing<'_>,
    ) -> Result<()> {
        let lengths: Vec<usize> = chunk.par_iter().map(|row| self.tokenizer.prompt(row.prompt()).len()).collect();
        for (row, length) in chunk.drain(..).zip(lengths) {
            if long.as_mut().is_some_and(|long| !long.keeps(row.id(), length)) {
                continue;
            }
            if let Some(context) = self.context {
                check_length(row.id(), length, context, 1).map_err(|e| self.about(e))?;
            }
            writing.add(&row)?;
        }
        Ok(())
    }

    /// An error about rows, with their file where there is one.
    fn about(&self, error: Error) -> Error {
        match self.settings.sources.is_empty() {
            true => error.in_file(self.suite.locate_data(&self.settings.path)),
            false => error,
        }
    }
}
