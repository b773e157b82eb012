//! Each of the checks O1 to O14 sees what is planted for it, says what it measured, and why it couldn't where it couldn't.

use super::*;

fn row<'a>(looked: &'a Inspected, id: &str) -> &'a CheckRow {
    looked.checks.iter().find(|row| row.id == id).unwrap_or_else(|| panic!("no {id}"))
}

fn named(rows: &Rows) -> Vec<String> {
    rows.findings().into_iter().map(|(id, _)| id).collect()
}

#[test]
fn every_check_has_its_rows_and_none_passes_in_silence() {
    let looked = healthy().looked_at(&suite());
    for check in 1..=14 {
        assert!(looked.checks.iter().any(|row| row.check == format!("O{check}")), "O{check}");
    }
    for row in &looked.checks {
        match row.outcome {
            CheckOutcome::Unchecked => {
                assert!(row.message.starts_with("not checked, because ") && row.value.is_none(), "{row:?}");
            }
            _ => assert!(row.value.is_some() && row.lower <= row.value && row.value <= row.upper && row.n > 0, "{row:?}"),
        }
    }
    let why = |id| row(&looked, id).message.clone();
    assert!(why("win-rate-peak").contains("5 checkpoints at least, and there are 2"), "{}", why("win-rate-peak"));
    assert!(why("accuracy-decoupled").contains("4 checkpoints"));
    assert!(why("self-bleu").contains("one sample a prompt"));
    assert!(why("opposite-rise").contains("opposites"));
    assert!(why("refusal-drop").contains("refuses none"));
    assert!(why("judge-agreement").contains("fewer than two judges"));
    assert!(why("similarity").contains("weren't compared"));
    assert_eq!(row(&looked, "kl-budget").outcome, CheckOutcome::Pass);
}

#[test]
fn findings_name_their_check_and_the_claim_that_they_endanger() {
    let mut rows = healthy();
    rows.last().for_each(|c| move_by(c, 60.0));
    let found = &rows.inspected(&suite())[0];
    assert_eq!(found.check, "O3");
    assert!(found.claim.starts_with("the win rate of `dpo` by judge `pairwise` at checkpoint 20: 7"), "{}", found.claim);
}

#[test]
fn a_proxy_that_rises_while_gold_falls_is_found() {
    let mut rows = healthy();
    let falls = |j: &&mut Judgment| j.judge == GOLD && j.checkpoint == 20 && j.prompt_id.ends_with(['1', '2', '3', '4', '5']);
    rows.judgments.iter_mut().filter(falls).for_each(|j| j.preference = 0.0);
    let found = named(&rows);
    assert!(found.contains(&"win-rate-hump".to_owned()) && !found.contains(&"proxy-gold-divergence".to_owned()), "{found:?}");
    rows.train_scores.iter_mut().filter(|p| p.checkpoint == 20).for_each(|p| p.policy_chosen += 2.0);
    let found = rows.inspected(&suite());
    assert_eq!((found[0].id.as_str(), found[0].severity), ("proxy-gold-divergence", Severity::Fail));
    assert!(found[0].hint.contains("take checkpoint 10"));
}

/// `rate`: what judge and gold think of the policy at each of eight checkpoints.
pub(super) fn over_checkpoints(rate: fn(f64) -> f64) -> Rows {
    let mut rows = healthy();
    let [completions, judgments, scores] = [rows.completions.len(), rows.judgments.len(), rows.pair_scores.len()];
    for step in 1..=8u64 {
        let d = 0.4 * step as f64;
        let checkpoint = 20 + 10 * step;
        for c in rows.completions.clone().into_iter().take(completions).filter(|c| c.checkpoint == 20) {
            let mut further = Completion { checkpoint, ..c };
            let more = d * d - further.kl.unwrap();
            move_by(&mut further, more);
            rows.completions.push(further);
        }
        for j in rows.judgments.clone().into_iter().take(judgments).filter(|j| j.checkpoint == 20) {
            let preference = (rate(d) + 0.2 * (j.preference - 0.7)).clamp(0.0, 1.0);
            rows.judgments.push(Judgment { checkpoint, preference, ..j });
        }
        for p in rows.pair_scores.clone().into_iter().take(scores).filter(|p| p.checkpoint == 20) {
            rows.pair_scores.push(PairScore { checkpoint, ..p });
        }
    }
    rows.completions.retain(|c| c.variant == REFERENCE || c.checkpoint > 20);
    rows.judgments.retain(|j| j.checkpoint > 20);
    rows.pair_scores.retain(|p| p.checkpoint > 20);
    rows.train_scores.clear();
    rows
}

#[test]
fn a_fitted_peak_that_was_passed_fails_and_names_where_to_stop() {
    let hump = over_checkpoints(|d| 0.5 + d * (0.15 - 0.2 * libm::log(d)));
    let looked = hump.looked_at(&suite());
    let found = looked.findings.iter().find(|f| f.id == "win-rate-peak").expect("a peak");
    // d* = exp(0.15 / 0.2 − 1) = 0.78, and checkpoints lie at 0.4, 0.8, …
    assert_eq!((found.severity, found.hint.contains("checkpoint 40")), (Severity::Fail, true), "{found:?}");
    let fit = &looked.humps[0];
    let peak = fit.peak_distance.unwrap();
    assert!((peak.value - 0.78).abs() < 0.1 && peak.lower < peak.value && peak.value < peak.upper, "{peak:?}");
    assert!(fit.recommended_stop == 40 && fit.curve.len() == 40 && fit.quadratic_peak.is_some());
    let rising = over_checkpoints(|d| 0.5 + 0.1 * d).looked_at(&suite());
    assert_eq!(row(&rising, "win-rate-peak").outcome, CheckOutcome::Pass);
    assert!(rising.findings.iter().all(|f| f.id != "win-rate-peak" && f.id != "win-rate-hump"));
}

#[test]
fn accuracy_that_goes_against_the_win_rate_warns() {
    let mut rows = over_checkpoints(|d| 0.8 - 0.1 * d);
    let right = |p: &&mut PairScore| {
        let prompt: u64 = p.prompt_id[1..].parse().unwrap();
        prompt >= 8 * (p.checkpoint - 20) / 10
    };
    rows.pair_scores.iter_mut().filter(right).for_each(|p| (p.policy_chosen, p.policy_rejected) = (-25.0, -5.0));
    let looked = rows.looked_at(&suite());
    let found = row(&looked, "accuracy-decoupled");
    assert_eq!((found.outcome, found.value), (CheckOutcome::Warn, Some(-1.0)), "{found:?}");
}

#[test]
fn opposites_that_gain_what_chosen_texts_lose_are_found() {
    let mut rows = healthy();
    let opposite = |p: usize| pair_score("dpo", 1, 20, p, -2.0 - 0.01 * p as f64, 1.0 + 0.01 * p as f64);
    rows.opposite_scores = (0..40).map(opposite).collect();
    assert_eq!(ids(&rows), one("opposite-rise", Severity::Fail));
    rows.opposite_scores.iter_mut().for_each(|p| p.policy_chosen += 5.0);
    assert_eq!(ids(&rows), [], "chosen texts gained as well");
}

#[test]
fn refusals_that_go_away_are_found() {
    let mut rows = healthy();
    let refuse = |c: &mut Completion| c.text = "I'm sorry, but I can't help with that today, my friend.".to_owned();
    rows.completions.iter_mut().filter(|c| c.prompt_id.ends_with(['1', '2', '3'])).for_each(refuse);
    assert!(!named(&rows).contains(&"refusal-drop".to_owned()));
    rows.last().for_each(|c| c.text = "the room was clean and the staff were kind".to_owned());
    let found = rows.inspected(&suite()).into_iter().find(|f| f.id == "refusal-drop").expect("found");
    assert_eq!(found.severity, Severity::Fail);
}

#[test]
fn pairs_learnt_by_heart_are_found() {
    let mut rows = healthy();
    let wrong = |p: &&mut PairScore| p.prompt_id.ends_with(['0', '1', '2', '3', '4']);
    rows.pair_scores.iter_mut().filter(wrong).for_each(|p| p.policy_rejected += 5.0);
    assert_eq!(ids(&rows), one("accuracy-gap", Severity::Fail));
    let mut rows = healthy();
    rows.train_scores.iter_mut().for_each(|p| p.policy_chosen += 60.0);
    assert_eq!(ids(&rows), one("margin-saturation", Severity::Warn));
}

#[test]
fn a_win_rate_that_length_explains_is_found() {
    let mut rows = healthy();
    // Two thirds of the answers get a tail, and the judge likes only those.
    let long = |prompt: &str| !prompt.ends_with(['0', '3', '6', '9']);
    rows.last().filter(|c| long(&c.prompt_id)).for_each(|c| c.text += ", so much so that we will surely be back soon enough");
    for (i, j) in rows.judgments.iter_mut().filter(|j| j.judge == "pairwise" && j.checkpoint == 20).enumerate() {
        let noise = if i.is_multiple_of(2) { 0.06 } else { -0.06 };
        j.preference = if long(&j.prompt_id) { 0.85 } else { 0.5 } + noise;
        j.outcome = if j.preference > 0.5 { crate::judge::Outcome::Win } else { crate::judge::Outcome::Loss };
    }
    let found = rows.inspected(&suite());
    let of = |id: &str| found.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no {id} in {found:?}"));
    let matched = of("length-matched");
    assert!(
        matched.severity == Severity::Fail
            && matched.message.contains("is not explained by quality: length-matched it is 50.0 %")
    );
    assert!(of("length-gain").value.unwrap() > 0.05);
}

#[test]
fn a_reward_that_is_length_on_own_samples_is_found() {
    let mut rows = healthy();
    rows.last().for_each(|c| {
        let reward = f64::from(c.tokens) - 12.0;
        c.reference_logp = c.policy_logp.unwrap() - reward;
        (c.kl, c.kl_k3) = (Some(reward), Some(reward));
    });
    for (i, p) in rows.pair_scores.iter_mut().enumerate() {
        (p.chosen_tokens, p.rejected_tokens) = (14 + (i % 5) as u32, 14 + (i * 7 % 11) as u32);
    }
    assert!(named(&rows).contains(&"length-coupling".to_owned()), "{:?}", ids(&rows));
}

#[test]
fn collapse_is_found_in_entropy_bigrams_and_samples() {
    let mut rows = healthy();
    rows.last().for_each(|c| c.entropy = c.entropy.map(|entropy| 0.4 * entropy));
    assert_eq!(ids(&rows), one("entropy-collapse", Severity::Fail));
    // Four samples of each prompt: the reference's differ, the policy's are one.
    let mut rows = healthy();
    let samples = |c: &Completion| -> Vec<Completion> {
        let text = |sample: u32| match c.variant == REFERENCE {
            true => format!("{} on day {sample} at gate {} for {sample} of us", c.text, 7 * sample),
            false => c.text.clone(),
        };
        (0..4).map(|sample| Completion { sample, text: text(sample), ..c.clone() }).collect()
    };
    rows.completions = rows.completions.iter().flat_map(samples).collect();
    let looked = rows.looked_at(&suite());
    assert_eq!(row(&looked, "self-bleu").outcome, CheckOutcome::Fail);
    assert_eq!(row(&looked, "unique-samples").value, Some(0.25));
}

#[test]
fn special_tokens_and_other_scripts_are_found() {
    let mut rows = healthy();
    rows.last().filter(|c| c.prompt_id.ends_with('4')).for_each(|c| c.text += " <|im_end|>");
    assert!(ids(&rows).contains(&("special-tokens".to_owned(), Severity::Fail)), "{:?}", ids(&rows));
    let mut rows = healthy();
    rows.last().filter(|c| c.prompt_id.ends_with('4')).for_each(|c| c.text += " очень");
    assert!(ids(&rows).contains(&("other-script".to_owned(), Severity::Fail)), "{:?}", ids(&rows));
}

#[test]
fn judges_that_disagree_are_found() {
    let mut two = suite();
    two.judges.push(JudgeSettings { name: "other".to_owned(), ..two.judges[0].clone() });
    let mut rows = healthy();
    rows.judge_trials.extend((0..PROMPTS).map(|p| trial("other", p, if p % 5 == 0 { 0.3 } else { 0.8 })));
    let own: Vec<Judgment> = rows.judgments.iter().filter(|j| j.judge == "pairwise").cloned().collect();
    rows.judgments.extend(own.iter().map(|j| Judgment { judge: "other".to_owned(), ..j.clone() }));
    assert_eq!(rows.inspected(&two), []);
    for j in rows.judgments.iter_mut().filter(|j| j.judge == "other" && !j.prompt_id.ends_with(['0', '1'])) {
        j.preference = 1.0 - j.preference;
        j.outcome = if j.preference > 0.5 { crate::judge::Outcome::Win } else { crate::judge::Outcome::Loss };
    }
    let found: Vec<String> = rows.inspected(&two).into_iter().map(|f| f.id).collect();
    assert!(found.contains(&"judge-gap".to_owned()) && found.contains(&"judge-agreement".to_owned()), "{found:?}");
}

#[test]
fn the_suite_sets_the_thresholds() {
    let mut rows = healthy();
    rows.last().for_each(|c| c.entropy = c.entropy.map(|entropy| 0.4 * entropy));
    let mut lenient = suite();
    lenient.checks.more.entropy_ratio_fail = 0.3;
    assert_eq!(rows.inspected(&lenient), []);
}

#[test]
fn alike_pairs_are_named_where_chosen_texts_were_displaced() {
    let mut rows = healthy();
    rows.similarities = (0..PROMPTS)
        .map(|p| PairSimilarity {
            pair_id: format!("train-{p}"),
            prompt_id: format!("p{p:03}"),
            ches: p as f64,
            ches_normalised: p as f64 - 40.0,
            chosen_tokens: 10,
            rejected_tokens: 10,
        })
        .collect();
    let fall = |p: &mut PairScore| p.policy_chosen -= 0.1 * p.prompt_id[1..].parse::<f64>().unwrap();
    rows.pair_scores.iter_mut().for_each(fall);
    rows.train_scores.iter_mut().for_each(fall);
    let looked = rows.looked_at(&suite());
    let found = looked.findings.iter().find(|f| f.id == "chosen-displacement").expect("found");
    assert!(found.hint.contains("`train-79`, `train-78`, `train-77`"), "{}", found.hint);
    assert_eq!(row(&looked, "similarity-predicts").value, Some(-1.0));
}

/// `cargo test --release --lib checks_of_the_quickstart -- --ignored --nocapture`: what the checks cost beside the 75 s that the run took.
#[test]
#[ignore = "a measurement"]
fn checks_of_the_quickstart_take_little_time() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = crate::report::load_json(&root.join("reports/quickstart/report.json")).unwrap();
    let suite = crate::suite::load(&root.join("suites/quickstart.toml")).unwrap();
    let evidence = Evidence {
        completions: &data.completions,
        judgments: &data.judgments,
        pair_scores: &data.pair_scores,
        // As many rows as there would be at most.
        train_scores: &data.pair_scores,
        opposite_scores: &data.pair_scores,
        judge_trials: &data.judge_trials,
        judge_probes: &data.judge_probes,
        similarities: &data.similarities,
    };
    let started = std::time::Instant::now();
    let looked = inspect(&suite, &evidence, &data.estimates, &data.audit);
    eprintln!("{} measures, {} findings: {:?}", looked.checks.len(), looked.findings.len(), started.elapsed());
    let hump = over_checkpoints(|d| 0.5 + d * (0.15 - 0.2 * libm::log(d)));
    let started = std::time::Instant::now();
    let (fits, _) = super::super::hump::fits(&self::suite(), &hump.evidence(), &self::suite().variants[0], 100);
    eprintln!("{} fits with 1,000 joint resamples: {:?}", fits.len(), started.elapsed());
}
