//! What the data audit counted, as findings. Counts describe the data at hand completely, so they have no interval.

use super::{Finding, Severity, finding};
use crate::data::AuditItem;
use crate::data::sources::is_of_one_source;
use crate::suite::settings::AuditLimits;

/// A count that doesn't invalidate anything warns from this share on; below it is only told.
const WARN_SHARE: f64 = 0.05;
/// Labels that don't follow length have the longer side chosen in about half of the pairs.
const LONGER_SHARE: f64 = 0.6;

pub(super) fn findings(audit: &[AuditItem], limits: Option<&AuditLimits>) -> Vec<Finding> {
    let told = audit.iter().filter(|item| item.count > 0 && !is_of_one_source(item));
    told.map(|item| of(item, limits.and_then(|limits| limits.0.get(&item.id)))).collect()
}

/// `accepted`: the largest share that the suite accepts.
fn of(item: &AuditItem, accepted: Option<&f64>) -> Finding {
    let share = item.share();
    let (limit, beyond) = match item.id.as_str() {
        // They count what was measured.
        "prompt-length" | "chosen-length" | "rejected-length" | "completion-length" => (1.0, ""),
        // A bound, and a loose one.
        "label-noise-at-most" => (1.0, ""),
        "chosen-longer" => (LONGER_SHARE, "length alone tells much of the label: watch the length ratio of the policies"),
        "prompts-too-long" => {
            (WARN_SHARE, "results describe the shorter prompts: raise max_prompt_length if the model can read more")
        }
        _ => (WARN_SHARE, "look at the cases: results describe the data as it is, these included"),
    };
    let (severity, threshold, hint) = if let Some(&accepted) = accepted.filter(|&&accepted| share > accepted) {
        (Severity::Fail, accepted, "the suite accepts no more in [dataset.audit]: mend the data, or the limit")
    } else if item.must_be_zero {
        (Severity::Fail, 0.0, "this must be zero: remove the cases from one of the two sides and run again")
    } else if share > limit {
        (Severity::Warn, limit, beyond)
    } else {
        (Severity::Info, limit, "nothing to do unless these cases matter to you")
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
        let found = findings(&[item(0, true), item(1, true), item(1, false), item(6, false)], None);
        let severities: Vec<Severity> = found.iter().map(|f| f.severity).collect();
        assert_eq!(severities, [Severity::Fail, Severity::Info, Severity::Warn]);
        assert_eq!(found[0].value, Some(0.01));
        let limits = AuditLimits([("overlap".to_owned(), 0.05)].into());
        let severities = findings(&[item(5, false), item(6, false)], Some(&limits)).into_iter().map(|f| f.severity);
        assert_eq!(severities.collect::<Vec<_>>(), [Severity::Info, Severity::Fail]);
    }

    #[test]
    fn longer_chosen_sides_are_no_warning_while_they_are_about_half() {
        let item = |count| AuditItem {
            id: "chosen-longer".to_owned(),
            count,
            total: 100,
            must_be_zero: false,
            message: "pairs have the longer side chosen".to_owned(),
        };
        let severities: Vec<Severity> = findings(&[item(52), item(75)], None).iter().map(|f| f.severity).collect();
        assert_eq!(severities, [Severity::Info, Severity::Warn]);
    }
}
