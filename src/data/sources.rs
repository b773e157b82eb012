//! All that a suite reads: one file, or several with weights.
//!
//! A source's weight is how often an epoch sees each of its training rows: 2 is twice, 0.5 half of them, chosen by the digest of their ids
//! so that rows added to a file move none of the others. So the share of a source among the examples is weight × rows over the sum of it,
//! an epoch keeps a definite end, and the order is that of every training (`dataset.sampling`, its own random stream). Held-out, judges'
//! and evaluation rows are taken once: what is measured doesn't depend on weights.

use crate::data::files::{RowFile, Rows};
use crate::data::forms::Columns;
use crate::data::template::ChatTemplate;
use crate::data::{AuditItem, LabelledCompletion, Pair, PreferenceRow};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::suite::Suite;
use crate::suite::settings::{PairsSettings, SourceSettings};

/// Rows that files hold.
pub trait FileRow: PreferenceRow + Clone {
    fn of_file(file: &RowFile<'_>) -> Result<Rows<Self>>;
    fn set_id(&mut self, id: String);
    /// Refuses rows that can't be learnt from.
    fn check(rows: &[Self], what: &str) -> Result<()>;
}

impl FileRow for Pair {
    fn of_file(file: &RowFile<'_>) -> Result<Rows<Self>> {
        file.pairs()
    }

    fn set_id(&mut self, id: String) {
        self.id = id;
    }

    fn check(_: &[Self], _: &str) -> Result<()> {
        Ok(())
    }
}

impl FileRow for LabelledCompletion {
    fn of_file(file: &RowFile<'_>) -> Result<Rows<Self>> {
        file.labelled()
    }

    fn set_id(&mut self, id: String) {
        self.id = id;
    }

    fn check(rows: &[Self], what: &str) -> Result<()> {
        super::files::both_labels(rows.iter().map(|row| row.label), what)
    }
}

/// Reads what a suite names. Ids of rows of several sources begin with the source's name.
pub fn read<R: FileRow>(suite: &Suite, settings: &PairsSettings, template: Option<&ChatTemplate>) -> Result<Rows<R>> {
    let what = "rows that are read";
    if settings.sources.is_empty() {
        let path = suite.locate_data(&settings.path);
        let read = R::of_file(&RowFile::of_settings(&path, settings, template))?;
        R::check(&read.rows, what).map_err(|e| e.in_file(&path))?;
        return Ok(read);
    }
    let (mut rows, mut audits) = (Vec::new(), Vec::new());
    for source in &settings.sources {
        let path = suite.locate_data(&source.path);
        let file = RowFile {
            limit: source.limit,
            columns: Columns(source.columns.clone()),
            template,
            ratings: settings.reading.ratings,
            ..RowFile::new(&path, source.format)
        };
        let read = R::of_file(&file)?;
        rows.extend(read.rows.into_iter().map(|mut row| {
            row.set_id(format!("{}/{}", source.name, row.id()));
            row
        }));
        audits.push((source.name.as_str(), read.audit));
    }
    R::check(&rows, what)?;
    Ok(Rows { rows, audit: together(audits) })
}

/// The counts of several sources: of all together, then of each by itself.
fn together(audits: Vec<(&str, Vec<AuditItem>)>) -> Vec<AuditItem> {
    let mut sums: Vec<AuditItem> = Vec::new();
    for (name, items) in &audits {
        for item in items {
            match sums.iter_mut().find(|sum| sum.id == item.id) {
                None => sums.push(AuditItem { message: format!("`{name}`: {}", item.message), ..item.clone() }),
                Some(sum) => {
                    (sum.count, sum.total) = (sum.count + item.count, sum.total + item.total);
                    sum.message = format!("{}; `{name}`: {}", sum.message, item.message);
                }
            }
        }
    }
    let each = audits.into_iter().flat_map(|(name, items)| items.into_iter().map(move |item| of_source(name, item)));
    sums.into_iter().chain(each).collect()
}

/// The same count, as one of a source alone.
pub fn of_source(name: &str, item: AuditItem) -> AuditItem {
    AuditItem { id: format!("{name}/{}", item.id), ..item }
}

/// Whether a count is of one source alone: those of all sources are what limits and findings are about.
pub fn is_of_one_source(item: &AuditItem) -> bool {
    item.id.contains('/')
}

/// The source that a row comes from.
pub fn source_of<'a>(id: &str, settings: &'a PairsSettings) -> Option<&'a SourceSettings> {
    let name = id.split_once('/')?.0;
    settings.sources.iter().find(|source| source.name == name)
}

/// The rows as an epoch sees them: first all that it sees, then all that it sees a second time, and so on.
pub fn weighted<R: PreferenceRow + Clone>(rows: Vec<R>, settings: &PairsSettings) -> Result<Vec<R>> {
    if settings.sources.iter().all(|source| source.weight == 1.0) {
        return Ok(rows);
    }
    let times: Vec<usize> =
        rows.iter().map(|row| source_of(row.id(), settings).map_or(1, |source| repeats(row.id(), source.weight))).collect();
    let most = times.iter().copied().max().unwrap_or_default();
    let seen = |pass: usize| rows.iter().zip(&times).filter(move |(_, times)| **times > pass).map(|(row, _)| row.clone());
    let all: Vec<R> = (0..most).flat_map(seen).collect();
    match all.is_empty() && !rows.is_empty() {
        true => Err(Error::input("the sources' weights leave no row to train on").help("raise `weight` in [[dataset.source]]")),
        false => Ok(all),
    }
}

/// How often an epoch sees a row of a source with this weight.
fn repeats(id: &str, weight: f64) -> usize {
    let digest = Digest::of_bytes(format!("dpo-eval source weight v1\n{id}").as_bytes());
    weight as usize + usize::from(super::split::fraction(&digest) < weight.fract())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::suite::settings::{PairsFormat, ReadingSettings, Sampling};

    fn settings(weights: &[(&str, f64)]) -> PairsSettings {
        let source = |&(name, weight): &(&str, f64)| SourceSettings {
            name: name.to_owned(),
            path: format!("{name}.jsonl").into(),
            format: PairsFormat::Explicit,
            limit: None,
            columns: BTreeMap::new(),
            weight,
        };
        PairsSettings {
            path: "".into(),
            format: PairsFormat::Explicit,
            limit: None,
            sources: weights.iter().map(source).collect(),
            max_prompt_length: None,
            heldout_share: 0.1,
            judge_share: 0.1,
            eval_share: 0.1,
            eval_prompts: 10,
            sampling: Sampling::Shuffle,
            reading: ReadingSettings::default(),
        }
    }

    fn rows(source: &str, count: usize) -> Vec<Pair> {
        let row = |i: usize| Pair {
            id: format!("{source}/line-{i:06}"),
            prompt_id: i.to_string(),
            prompt: i.to_string(),
            chosen: "a".into(),
            rejected: "b".into(),
            gold: None,
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn weights_are_how_often_an_epoch_sees_a_row_and_added_rows_move_none() {
        let settings = settings(&[("a", 2.0), ("b", 0.25), ("c", 1.5)]);
        let all = [rows("a", 3), rows("b", 4000), rows("c", 4000)].concat();
        let seen = weighted(all.clone(), &settings).unwrap();
        let of = |rows: &[Pair], name: &str| rows.iter().filter(|row| row.id.starts_with(name)).count();
        assert_eq!(of(&seen, "a/"), 6);
        // Binomial: four standard errors.
        assert!((of(&seen, "b/") as f64 - 1000.0).abs() < 4.0 * (4000.0f64 * 0.25 * 0.75).sqrt());
        assert!((of(&seen, "c/") as f64 - 6000.0).abs() < 4.0 * (4000.0f64 * 0.25).sqrt());
        // A pass over everything comes before anything is seen again.
        assert_eq!(seen[..3], all[..3]);
        assert!(seen[3..6].iter().all(|row| !row.id.starts_with("a/")));
        let few = weighted(rows("b", 100), &settings).unwrap();
        assert_eq!(weighted(rows("b", 4000), &settings).unwrap()[..few.len()], few);
    }

    #[test]
    fn equal_weights_change_nothing_and_weights_that_leave_nothing_are_an_error() {
        let all = rows("a", 5);
        assert_eq!(weighted(all.clone(), &settings(&[("a", 1.0)])).unwrap(), all);
        assert_eq!(weighted(all.clone(), &settings(&[])).unwrap(), all);
        let error = weighted(rows("a", 2), &settings(&[("a", 1e-9)])).unwrap_err();
        assert!(error.message.contains("leave no row"), "{error}");
    }
}
