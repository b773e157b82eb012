//! Which policy, against what, by which judge: the rows of a file sorted into subjects, and rows into items.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::judge::Outcome;
use crate::judge::recorded::{RecordedPreference, Side, Sides, Texts, names};
use crate::suite::with_suggestion;

/// Which of the names in a file are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub policy: Option<String>,
    pub baseline: Option<String>,
}

/// All items of one policy by one judge.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// As the file calls it, or the file's own name.
    pub policy: String,
    pub baseline: Option<String>,
    pub judge: Option<String>,
    pub checkpoint: Option<u64>,
    pub items: Vec<Item>,
    /// Items without a verdict, left out of every win rate.
    pub unreadable: usize,
    /// Whether some item was asked in one order alone, and which side stood first in how many of those.
    pub one_order: Option<Sides<usize>>,
}

/// One comparison of two completions, both orders averaged.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub prompt_id: String,
    /// Which of the prompt's completions, turns or conversations; empty where there is one.
    pub sample: String,
    /// Of its first verdict, from 0.
    pub row: usize,
    /// None: no verdict in one of its orders.
    pub preference: Option<f64>,
    /// The verdict: the file's own where it states one, else whether the preference lies above one half.
    pub outcome: Option<Outcome>,
    /// (policy shown first, baseline shown first), where both were asked.
    pub orders: Option<[f64; 2]>,
    pub length: Option<Sides<u64>>,
    pub text: Option<Texts>,
    /// The verdicts as they were recorded, with the number of times that each counts.
    pub verdicts: Vec<(Option<f64>, u32)>,
}

/// Sorts rows into subjects, in the order of their first rows. `merge`: verdicts of a completion in several orders are one item; else
/// each row is.
///
/// # Errors
/// A name that isn't there; a file of comparisons that doesn't say which side is the policy.
pub fn subjects(path: &Path, rows: Vec<RecordedPreference>, choice: &Choice, merge: bool) -> Result<Vec<Subject>> {
    let rows = chosen(path, rows, choice)?;
    let rows = last_checkpoints(rows);
    let mut groups: Vec<(Key, Vec<RecordedPreference>)> = Vec::new();
    let mut places: BTreeMap<Key, usize> = BTreeMap::new();
    for row in rows {
        let key = (row.policy.clone(), row.checkpoint, row.judge.clone());
        let place = *places.entry(key.clone()).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(row);
    }
    groups.into_iter().map(|(key, rows)| subject(path, key, rows, merge)).collect()
}

type Key = (Option<String>, Option<u64>, Option<String>);

/// The rows of the chosen sides, turned so that the policy is the policy.
fn chosen(path: &Path, rows: Vec<RecordedPreference>, choice: &Choice) -> Result<Vec<RecordedPreference>> {
    let both = |of: fn(&RecordedPreference) -> Option<&str>| names(&rows, of);
    let (left, right) = (both(|r| r.policy.as_deref()), both(|r| r.baseline.as_deref()));
    let all: Vec<String> = left.union(&right).map(|name| (*name).to_owned()).collect();
    for name in [&choice.policy, &choice.baseline].into_iter().flatten() {
        if !all.contains(name) {
            let help = match all.is_empty() {
                true => "the rows name neither side: leave --policy and --baseline out".to_owned(),
                false => with_suggestion(name, &all, "names are "),
            };
            return Err(Error::new(Kind::NothingSelected, format!("no row names `{name}`")).in_file(path).help(help));
        }
    }
    if choice == &Choice::default() {
        if let Some(both) = left.intersection(&right).next() {
            return Err(Error::usage(format!("`{both}` stands on both sides of the comparisons, so that no side is the policy"))
                .in_file(path)
                .help(format!("say --policy NAME, perhaps with --baseline NAME; names are {}", all.join(", "))));
        }
        return Ok(rows);
    }
    let fits = |row: &RecordedPreference| {
        let is = |name: &Option<String>, wanted: &Option<String>| wanted.is_none() || name == wanted;
        is(&row.policy, &choice.policy) && is(&row.baseline, &choice.baseline)
    };
    let turn = |row: RecordedPreference| if fits(&row) { Some(row) } else { Some(row.turned()).filter(fits) };
    let rows: Vec<RecordedPreference> = rows.into_iter().filter_map(turn).collect();
    match rows.is_empty() {
        true => Err(Error::new(Kind::NothingSelected, "no row compares these two").in_file(path)),
        false => Ok(rows),
    }
}

/// Of each policy with checkpoints, the last one's rows.
pub(crate) fn last_checkpoints(mut rows: Vec<RecordedPreference>) -> Vec<RecordedPreference> {
    let mut last: BTreeMap<Option<String>, u64> = BTreeMap::new();
    for row in &rows {
        let Some(checkpoint) = row.checkpoint else { continue };
        let known = last.entry(row.policy.clone()).or_insert(checkpoint);
        *known = (*known).max(checkpoint);
    }
    rows.retain(|row| row.checkpoint.is_none() || row.checkpoint == last.get(&row.policy).copied());
    rows
}

fn subject(path: &Path, key: Key, rows: Vec<RecordedPreference>, merge: bool) -> Result<Subject> {
    let (policy, checkpoint, judge) = key;
    let baselines = names(&rows, |r| r.baseline.as_deref());
    let baseline = baselines.iter().next().filter(|_| baselines.len() == 1).map(|name| (*name).to_owned());
    if baselines.len() > 1 {
        let listed: Vec<&str> = baselines.into_iter().collect();
        return Err(Error::usage(format!("`{}` is compared with several others", policy.unwrap_or_default()))
            .in_file(path)
            .help(format!("say --baseline NAME (of {}), or rate them all: dpo-eval ratings", listed.join(", "))));
    }
    let own_name = || path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut one_order = Sides { policy: 0, baseline: 0 };
    let mut alone = false;
    let mut items: Vec<Item> = Vec::new();
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    // The first side, the preference and the strength of each verdict on an item.
    type Order = (Option<Side>, Option<f64>, u32);
    let mut orders: Vec<Vec<Order>> = Vec::new();
    for row in rows {
        let verdict = (row.first, row.preference, row.strength);
        let known = places.get(&(row.prompt_id.clone(), row.sample.clone())).copied().filter(|_| merge);
        if let Some(place) = known {
            orders[place].push(verdict);
            continue;
        }
        places.insert((row.prompt_id.clone(), row.sample.clone()), items.len());
        orders.push(vec![verdict]);
        items.push(Item {
            prompt_id: row.prompt_id,
            sample: row.sample,
            row: row.row,
            preference: row.preference,
            outcome: row.outcome,
            orders: None,
            length: row.length,
            text: row.text,
            verdicts: Vec::new(),
        });
    }
    for (item, orders) in items.iter_mut().zip(&orders) {
        item.preference = average(orders);
        item.outcome = item.outcome.filter(|_| orders.len() == 1).or(item.preference.map(verdict));
        item.orders = both_orders(orders);
        item.verdicts = orders.iter().map(|(_, preference, strength)| (*preference, *strength)).collect();
        if let [(Some(first), ..)] = orders.as_slice() {
            alone = true;
            *(if *first == Side::Policy { &mut one_order.policy } else { &mut one_order.baseline }) += 1;
        }
    }
    let unreadable = items.iter().filter(|item| item.preference.is_none()).count();
    Ok(Subject {
        policy: policy.unwrap_or_else(own_name),
        baseline,
        judge,
        checkpoint,
        items,
        unreadable,
        one_order: alone.then_some(one_order),
    })
}

/// The mean over verdicts, each as often as it counts; none where one of them can't be read.
fn average(orders: &[(Option<Side>, Option<f64>, u32)]) -> Option<f64> {
    let (mut sum, mut total) = (0.0, 0.0);
    for (_, preference, strength) in orders {
        sum += f64::from(*strength) * (*preference)?;
        total += f64::from(*strength);
    }
    Some(sum / total)
}

/// Preferences with the policy first and with the baseline first.
fn both_orders(orders: &[(Option<Side>, Option<f64>, u32)]) -> Option<[f64; 2]> {
    match orders {
        [(Some(Side::Policy), Some(a), _), (Some(Side::Baseline), Some(b), _)]
        | [(Some(Side::Baseline), Some(b), _), (Some(Side::Policy), Some(a), _)] => Some([*a, *b]),
        _ => None,
    }
}

pub(super) fn verdict(preference: f64) -> Outcome {
    match preference {
        p if p > 0.5 => Outcome::Win,
        p if p < 0.5 => Outcome::Loss,
        _ => Outcome::Tie,
    }
}
