//! Finding things in a report: which judges there are, the last checkpoint, the estimate of a cell of a table.

use crate::estimates::{Estimate, find};
use crate::judge::GOLD;

use super::{ReportData, VariantInfo};

impl ReportData {
    /// The estimate of a metric over everything (no slice). `seed` None: pooled.
    pub(crate) fn estimate(
        &self,
        metric: &str,
        variant: &str,
        checkpoint: Option<u64>,
        seed: Option<u64>,
        judge: Option<&str>,
    ) -> Option<&Estimate> {
        find(&self.estimates, metric, variant, checkpoint, seed, judge)
    }

    /// An estimate at the variant's last checkpoint, pooled over seeds.
    pub(crate) fn headline(&self, metric: &str, variant: &str, judge: Option<&str>) -> Option<&Estimate> {
        self.estimate(metric, variant, self.last_checkpoint(variant), None, judge)
    }

    /// The checkpoint that the conclusion about this variant rests on.
    pub(crate) fn last_checkpoint(&self, variant: &str) -> Option<u64> {
        let concluded = self.conclusions.iter().find(|c| c.variant == variant);
        concluded.map_or_else(
            || self.estimates.iter().filter(|e| e.variant == variant).filter_map(|e| e.checkpoint).max(),
            |c| c.win_rate.checkpoint,
        )
    }

    /// The checkpoints at which a metric was estimated, ascending.
    pub(crate) fn checkpoints_of(&self, metric: &str, variant: &str) -> Vec<u64> {
        let matching = self.estimates.iter().filter(|e| e.metric == metric && e.variant == variant);
        let mut found: Vec<u64> = matching.filter_map(|e| e.checkpoint).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Judges in the order of presentation: the deciding one, the others as they appear, gold last.
    pub(crate) fn judges(&self) -> Vec<&str> {
        let mut judges = vec![self.judge.as_str()];
        let seen = self.estimates.iter().filter_map(|e| e.judge.as_deref());
        let seen = seen.chain(self.judgments.iter().map(|j| j.judge.as_str()));
        let mut gold = self.judge == GOLD;
        for judge in seen.chain(self.judge_trials.iter().map(|t| t.judge.as_str())) {
            if judge == GOLD {
                gold = true;
            } else if !judges.contains(&judge) {
                judges.push(judge);
            }
        }
        judges.retain(|j| *j != GOLD);
        judges.extend(gold.then_some(GOLD));
        judges
    }

    pub(crate) fn has_gold(&self) -> bool {
        self.judges().contains(&GOLD)
    }

    pub(crate) fn variant(&self, name: &str) -> Option<&VariantInfo> {
        self.suite.variants.iter().find(|v| v.name == name)
    }

    /// A checkpoint of a variant, in words: its step, or from how many completions one was chosen.
    pub(crate) fn place(&self, variant: &str, checkpoint: u64) -> String {
        match self.variant(variant).is_some_and(|v| v.best_of_n) {
            true => format!("n = {checkpoint}"),
            false => format!("step {checkpoint}"),
        }
    }

    /// The label for people, or the name where the suite says nothing.
    pub(crate) fn label<'a>(&'a self, name: &'a str) -> &'a str {
        self.variant(name).map(|v| v.label.as_str()).filter(|l| !l.is_empty()).unwrap_or(name)
    }
}
