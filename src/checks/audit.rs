//! What the data audit counted, as findings. Counts describe the data at hand completely, so they have no interval.

use super::{Finding, Severity, finding};
use crate::data::AuditItem;

/// A count that doesn't invalidate anything warns from this share on; below it is only told.
const WARN_SHARE: f64 = 0.05;

pub(super) fn findings(audit: &[AuditItem]) -> Vec<Finding> {
    audit.iter().filter(|item| item.count > 0).map(of).collect()
}

fn of(item: &AuditItem) -> Finding {
    let share = item.count as f64 / item.total.max(1) as f64;
    let (severity, threshold, hint) = if item.must_be_zero {
        (Severity::Fail, 0.0, "this must be zero: remove the cases from one of the two sides and run again")
    } else if share > WARN_SHARE {
        (Severity::Warn, WARN_SHARE, "look at the cases: results describe the data as it is, these included")
    } else {
        (Severity::Info, WARN_SHARE, "nothing to do unless these cases matter to you")
    };
    let mut finding = finding(&item.id, severity, None).words(
        threshold,
        item.message.clone(),
        format!("data audit: {} of {}", item.count, item.total),
        hint,
    );
    (finding.value, finding.n) = (Some(share), item.total as usize);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_zero_fails_and_the_rest_warns_by_share() {
        let item = |count, must_be_zero| AuditItem {
            id: "overlap".to_owned(),
            count,
            total: 100,
            must_be_zero,
            message: "one prompt is in both".to_owned(),
        };
        let found = findings(&[item(0, true), item(1, true), item(1, false), item(6, false)]);
        let severities: Vec<Severity> = found.iter().map(|f| f.severity).collect();
        assert_eq!(severities, [Severity::Fail, Severity::Info, Severity::Warn]);
        assert_eq!(found[0].value, Some(0.01));
    }
}
