//! A policy that is another one decoded in another way: what can't be asked of it is told, and all else is asked.

use super::*;

/// The rows of `dpo` as those of a policy without log-probabilities, at its last checkpoint.
fn decoded_rows() -> Rows {
    let mut rows = healthy();
    rows.completions.retain(|c| c.checkpoint != 10);
    rows.judgments.retain(|j| j.checkpoint == 20);
    rows.last().for_each(|c| (c.policy_logp, c.kl, c.kl_k3, c.entropy) = (None, None, None, None));
    Rows { pair_scores: Vec::new(), train_scores: Vec::new(), ..rows }
}

fn decoding(of: Option<&str>, temperature: f64) -> Suite {
    let settings = DecodedSettings { of: of.map(str::to_owned), temperature, top_p: 1.0, top_k: None };
    Suite { variants: vec![Variant { name: "dpo".to_owned(), policy: PolicySource::Decoded(settings) }], ..suite() }
}

#[test]
fn no_number_is_made_of_what_is_not_known_and_each_check_says_why() {
    let rows = decoded_rows();
    let estimates = summarise(&rows.evidence(), 0.95);
    let own = |metric: &str| estimates.iter().any(|e| e.metric == metric && e.variant == "dpo");
    for unknown in ["kl_per_sequence", "kl_per_token", "kl_k1_per_sequence", "kl_k3_per_sequence", "entropy_per_token"] {
        assert!(!own(unknown), "{unknown}");
    }
    assert!(own("win_rate") && own("length_ratio") && own("gold_reward"));
    let looked = rows.looked_at(&decoding(Some("trained"), 0.5));
    assert!(looked.findings.is_empty() && looked.humps.is_empty(), "{:?}", looked.findings);
    let why = |id: &str| {
        let row = looked.checks.iter().find(|row| row.id == id).unwrap();
        assert_eq!(row.outcome, CheckOutcome::Unchecked, "{id}");
        row.message.as_str()
    };
    assert_eq!(
        why("kl-budget"),
        "not checked, because log-probabilities are known of `trained` at temperature 1, not as it is decoded here"
    );
    assert!(why("win-rate-hump").contains("one checkpoint, the last of `trained`"));
    assert!(why("chosen-displacement").contains("on pairs it is `trained` again"));
    assert!(why("self-bleu").contains("one sample a prompt"));
    let asked = |id: &str| looked.checks.iter().any(|row| row.id == id && row.outcome == CheckOutcome::Pass);
    assert!(asked("length-drift") && asked("judge-gold-disagreement") && asked("distinct-collapse"));
    let greedy = rows.looked_at(&decoding(None, 0.0));
    let row = greedy.checks.iter().find(|row| row.id == "self-bleu").unwrap();
    assert!(row.message.contains("greedy decoding writes one text"), "{}", row.message);
    assert!(greedy.checks.iter().any(|row| row.message.contains("the reference, which they are scored against")));
}

#[test]
fn the_best_of_n_is_fitted_by_gaos_other_form_and_told_from_how_many_to_choose() {
    let best = BestOfSettings { best_of_n: (3..=10).map(|step| 10 * step).collect(), reward_model: "reward".to_owned() };
    let suite = Suite { variants: vec![Variant { name: "dpo".to_owned(), policy: PolicySource::BestOfN(best) }], ..suite() };
    // d (α − β d) with α = 0.3 and β = 0.125 is highest at 1.2, the third of the distances 0.4, 0.8, …
    let mut rows = measures::over_checkpoints(|d| 0.5 + d * (0.3 - 0.125 * d));
    let unknown = |c: &mut Completion| (c.policy_logp, c.kl_k3, c.entropy) = (None, None, None);
    rows.completions.iter_mut().filter(|c| c.variant == "dpo").for_each(unknown);
    rows.pair_scores.clear();
    let looked = rows.looked_at(&suite);
    let fit = &looked.humps[0];
    let peak = fit.peak_distance.unwrap();
    assert!(fit.best_of_n && (peak.value - 1.2).abs() < 0.1 && fit.recommended_stop == 50, "{fit:?}");
    let found = looked.findings.iter().find(|found| found.id == "win-rate-peak").unwrap();
    assert!(found.hint.contains("the best of 50") && found.message.contains("n = 100"), "{found:?}");
    let why = |id: &str| looked.checks.iter().find(|row| row.id == id).map(|row| row.message.clone()).unwrap();
    assert!(why("kl-disagreement").contains("known from n") && why("entropy-collapse").contains("whole texts are chosen"));
    assert!(why("kl-per-token").contains("the reference's own"));
    assert!(why("length-coupling").contains("gives pairs no log-probability"));
}
