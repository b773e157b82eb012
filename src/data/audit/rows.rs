//! What is odd in a row by itself, and what it says, for each kind of row.

use crate::data::label::Count;
use crate::data::{AuditItem, LabelledCompletion, Pair, PreferenceRow};

use super::noise::{Evidence, key};
use super::repeats::Said;

/// Rows that can be audited.
pub trait Audited: PreferenceRow + Sync {
    /// The names of `completions`.
    const SIDES: &[&str];

    /// All that may be learnt or judged.
    fn completions(&self) -> Vec<&str>;

    fn said(&self) -> Said;

    /// What it shows of how many labels are wrong.
    fn evidence(&self) -> Evidence;

    /// How often each of [`Self::items`] is true of it.
    fn odd(&self) -> [u64; 3];

    /// `odd`: of all rows; `repeated` and `contradicted`: rows that say what another says, or its opposite.
    fn items(total: u64, odd: [Count; 3], repeated: Count, contradicted: Count) -> Vec<AuditItem>;
}

fn blank(side: &str) -> u64 {
    u64::from(side.trim().is_empty())
}

impl Audited for Pair {
    const SIDES: &[&str] = &["chosen", "rejected"];

    fn completions(&self) -> Vec<&str> {
        vec![&self.chosen, &self.rejected]
    }

    /// The label is that the side which comes first by the alphabet is the better one.
    fn said(&self) -> Said {
        let (prompt, chosen, rejected) = (self.prompt.as_str(), self.chosen.as_str(), self.rejected.as_str());
        let label = chosen <= rejected;
        let [first, last] = if label { [chosen, rejected] } else { [rejected, chosen] };
        Said { texts: key(&[prompt, first, last]), label }
    }

    fn evidence(&self) -> Evidence {
        Evidence::of_pair(&self.prompt, &self.chosen, &self.rejected)
    }

    fn odd(&self) -> [u64; 3] {
        let longer = self.chosen.chars().count() > self.rejected.chars().count();
        [u64::from(self.chosen == self.rejected), blank(&self.chosen) + blank(&self.rejected), u64::from(longer)]
    }

    fn items(total: u64, [identical, empty, longer]: [Count; 3], repeated: Count, contradicted: Count) -> Vec<AuditItem> {
        let mut identical = identical.item("identical-sides", total, "pairs have identical sides");
        identical.must_be_zero = true;
        vec![
            identical,
            repeated.item("duplicate-pairs", total, "pairs repeat another word for word"),
            contradicted.item("contradictory-pairs", total, "pairs prefer what another rejects for the same prompt"),
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

    fn said(&self) -> Said {
        Said { texts: key(&[&self.prompt, &self.completion]), label: self.label }
    }

    fn evidence(&self) -> Evidence {
        Evidence::of_completion(&self.prompt, &self.completion, self.label)
    }

    fn odd(&self) -> [u64; 3] {
        [blank(&self.completion), u64::from(!self.label), 0]
    }

    fn items(total: u64, [empty, undesirable, _]: [Count; 3], repeated: Count, contradicted: Count) -> Vec<AuditItem> {
        let contradictory = "rows give a completion the other label than another row does";
        vec![
            repeated.item("duplicate-rows", total, "rows repeat another word for word"),
            contradicted.item("contradictory-labels", total, contradictory),
            empty.item("empty-completions", total, "completions are empty"),
            undesirable.item("undesirable", total, "rows are labelled undesirable"),
        ]
    }
}
