//! Rows that say what another says, or its opposite, told by hashes of their texts. Among a million rows, two different ones share a
//! hash of 64 bits with a chance of 3 in 10⁸.

use std::collections::BTreeMap;

use crate::data::AuditItem;
use crate::data::label::Count;
use crate::data::sorter::Sorter;
use crate::error::Result;

/// What a row says: its texts in an order that the label doesn't change, and the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    pub texts: u64,
    pub label: bool,
}

/// How many rows there are of a kind, and the first of them with the row that it repeats or contradicts.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub count: u64,
    pub first: Option<[u32; 2]>,
}

impl Found {
    pub fn add(&mut self, row: u32, other: u32) {
        self.count += 1;
        if self.first.is_none_or(|[first, _]| row < first) {
            self.first = Some([row, other]);
        }
    }

    /// With the first case's names, which `names` has.
    pub fn count_of(self, between: Option<&str>, names: &BTreeMap<u32, String>) -> Count {
        let mut count = Count::default();
        if let Some([row, other]) = self.first {
            let (row, other) = (&names[&row], &names[&other]);
            count.add(self.count, &between.map_or_else(|| row.clone(), |between| format!("{row} {between} {other}")));
        }
        count
    }
}

/// A count whose first case is to be named.
pub(super) struct Told {
    pub id: &'static str,
    pub total: u64,
    pub what: String,
    pub found: Found,
    /// Stands between the two rows of the first case; none: the first is named alone.
    pub between: Option<&'static str>,
}

impl Told {
    pub fn item(self, names: &BTreeMap<u32, String>) -> AuditItem {
        self.found.count_of(self.between, names).item(self.id, self.total, &self.what)
    }
}

/// Rows with the same texts, by label.
pub(super) struct Group {
    pub yes: Vec<u32>,
    pub no: Vec<u32>,
}

/// What all rows say.
#[derive(Default)]
pub(super) struct Repeats {
    /// Hash of the texts; twice the row's number, and the label.
    rows: Sorter<2>,
}

impl Repeats {
    pub fn add(&mut self, row: u32, said: Said) -> Result<()> {
        self.rows.add([said.texts, 2 * u64::from(row) + u64::from(said.label)])
    }

    /// Texts that more than one row has.
    pub fn each_group(&mut self, mut give: impl FnMut(Group)) -> Result<()> {
        self.rows.each_group(|same| {
            let of = |label: u64| same.iter().filter(|[_, row]| row % 2 == label).map(|[_, row]| (row / 2) as u32).collect();
            if same.len() > 1 {
                give(Group { yes: of(1), no: of(0) });
            }
        })
    }

    /// Rows that repeat an earlier one, and rows that an earlier one contradicts.
    pub fn found(&mut self) -> Result<[Found; 2]> {
        let mut found = [Found::default(); 2];
        self.each_group(|Group { yes, no }| {
            for (own, opposite) in [(&yes, &no), (&no, &yes)] {
                own.windows(2).for_each(|two| found[0].add(two[1], two[0]));
                for row in own {
                    let before = opposite.partition_point(|other| other < row);
                    if let Some(last) = before.checked_sub(1) {
                        found[1].add(*row, opposite[last]);
                    }
                }
            }
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repeated_and_the_first_contradicted_row_are_named_with_the_last_one_before() {
        let mut repeats = Repeats::default();
        let rows = [(7, true), (5, false), (7, false), (7, true), (5, false), (9, true), (7, false)];
        for (row, (texts, label)) in rows.into_iter().enumerate() {
            repeats.add(row as u32, Said { texts, label }).unwrap();
        }
        let [repeated, contradicted] = repeats.found().unwrap();
        assert_eq!(repeated, Found { count: 3, first: Some([3, 0]) });
        assert_eq!(contradicted, Found { count: 3, first: Some([2, 0]) });
    }
}
