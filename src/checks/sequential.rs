//! `stopped-early`: how many prompts were judged where judging might stop, and what its intervals mean then.

use super::{Finding, Severity};
use crate::estimates::sequential::Stopped;

pub fn stopped(rows: &[Stopped]) -> Vec<Finding> {
    rows.iter().map(finding).collect()
}

fn finding(s: &Stopped) -> Finding {
    let (used, variant) = (s.prompts.len(), &s.variant);
    let from = if s.compared { "one half and from the golden's less the margin" } else { "one half" };
    let why = match s.decided {
        true => format!("its win rate could be told from {from}"),
        false => format!("all were judged, and its win rate can't be told from {from} by an interval that holds at every time"),
    };
    Finding {
        id: "stopped-early".to_owned(),
        check: String::new(),
        severity: Severity::Info,
        variant: variant.clone(),
        checkpoint: None,
        seed: None,
        message: format!(
            "`{variant}` was judged on {used} of {} prompts: {why}. Win rates and tie rates have intervals that hold whenever a run stops; other intervals made of judgments are those of a number of prompts fixed beforehand.",
            s.of
        ),
        value: Some(used as f64),
        lower: None,
        upper: None,
        threshold: None,
        n: used,
        evidence: format!("prompts judged by `{}` in the order of a hash", s.judge),
        hint: "run without --sequential to judge all prompts: nothing that was judged is asked again".to_owned(),
        claim: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_learns_how_many_prompts_were_judged_and_why_no_more() {
        let mut row = Stopped {
            variant: "dpo".to_owned(),
            judge: "pairwise".to_owned(),
            prompts: (0..40).map(|p| p.to_string()).collect(),
            of: 400,
            decided: true,
            compared: false,
        };
        let message = |row: &Stopped| stopped(std::slice::from_ref(row)).remove(0).message;
        assert!(message(&row).starts_with("`dpo` was judged on 40 of 400 prompts: its win rate could be told from one half."));
        row.compared = true;
        assert!(message(&row).contains("from one half and from the golden's less the margin"));
        row.decided = false;
        assert!(message(&row).contains("all were judged"));
    }
}
