//! All that a suite reads: one file, or several with weights.
//!
//! A source's weight is how often an epoch sees each of its training rows: 2 is twice, 0.5 half of them, chosen by the digest of their ids
//! so that rows added to a file move none of the others. So the share of a source among the examples is weight × rows over the sum of it,
//! an epoch keeps a definite end, and the order is that of every training (`dataset.sampling`, its own random stream). Held-out, judges'
//! and evaluation rows are taken once: what is measured doesn't depend on weights.

use crate::data::files::{Labels, RowFile};
use crate::data::forms::Columns;
use crate::data::template::ChatTemplate;
use crate::data::{AuditItem, LabelledCompletion, Pair, PreferenceRow};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::suite::Suite;
use crate::suite::settings::{PairsSettings, SourceSettings};

/// Rows that files hold.
pub trait FileRow: PreferenceRow + Clone {
    fn each_of_file(file: &RowFile<'_>, give: &mut dyn FnMut(Self) -> Result<()>) -> Result<Vec<AuditItem>>;
    fn set_id(&mut self, id: String);
    /// Of a single completion.
    fn label(&self) -> Option<bool>;
}

impl FileRow for Pair {
    fn each_of_file(file: &RowFile<'_>, give: &mut dyn FnMut(Self) -> Result<()>) -> Result<Vec<AuditItem>> {
        file.each_pair(give)
    }

    fn set_id(&mut self, id: String) {
        self.id = id;
    }

    fn label(&self) -> Option<bool> {
        None
    }
}

impl FileRow for LabelledCompletion {
    fn each_of_file(file: &RowFile<'_>, give: &mut dyn FnMut(Self) -> Result<()>) -> Result<Vec<AuditItem>> {
        file.each_labelled(give)
    }

    fn set_id(&mut self, id: String) {
        self.id = id;
    }

    fn label(&self) -> Option<bool> {
        Some(self.label)
    }
}

/// Gives every row that a suite names, and returns what was left out or looks odd. Ids of rows of several sources begin with the source's
/// name.
pub fn each<R: FileRow>(
    suite: &Suite,
    settings: &PairsSettings,
    template: Option<&ChatTemplate>,
    give: &mut dyn FnMut(R) -> Result<()>,
) -> Result<Vec<AuditItem>> {
    let (what, mut labels) = ("rows that are read", Labels::default());
    let mut give = |row: R| {
        row.label().into_iter().for_each(|label| labels.add(label));
        give(row)
    };
    if settings.sources.is_empty() {
        let path = suite.locate_data(&settings.path);
        let audit = R::each_of_file(&RowFile::of_settings(&path, settings, template), &mut give)?;
        labels.both(what).map_err(|e| e.in_file(&path))?;
        return Ok(audit);
    }
    let mut audits = Vec::new();
    for source in &settings.sources {
        let path = suite.locate_data(&source.path);
        let file = RowFile {
            limit: source.limit,
            columns: Columns(source.columns.clone()),
            template,
            ratings: settings.reading.ratings,
            ..RowFile::new(&path, source.format)
        };
        let audit = R::each_of_file(&file, &mut |mut row: R| {
            row.set_id(format!("{}/{}", source.name, row.id()));
            give(row)
        })?;
        audits.push((source.name.as_str(), audit));
    }
    labels.both(what)?;
    Ok(together(audits))
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

/// Gives rows as an epoch sees them: first all that it sees, then all that it sees a second time, and so on. `read` gives all rows, as
/// often as that takes.
pub fn each_weighted<R: PreferenceRow>(
    settings: &PairsSettings,
    read: impl Fn(&mut dyn FnMut(R) -> Result<()>) -> Result<()>,
    give: &mut dyn FnMut(R) -> Result<()>,
) -> Result<()> {
    if settings.sources.iter().all(|source| source.weight == 1.0) {
        return read(give);
    }
    let (mut pass, mut most, mut rows) = (0, 1, 0);
    while pass < most {
        read(&mut |row: R| {
            let times = source_of(row.id(), settings).map_or(1, |source| repeats(row.id(), source.weight));
            (most, rows) = (most.max(times), rows + usize::from(times > 0));
            if times > pass { give(row) } else { Ok(()) }
        })?;
        pass += 1;
    }
    match rows {
        0 => Err(Error::input("the sources' weights leave no row to train on").help("raise `weight` in [[dataset.source]]")),
        _ => Ok(()),
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

    fn weighted(rows: Vec<Pair>, settings: &PairsSettings) -> Result<Vec<Pair>> {
        let mut all = Vec::new();
        each_weighted(settings, |give| rows.iter().cloned().try_for_each(give), &mut |row| {
            all.push(row);
            Ok(())
        })?;
        Ok(all)
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
