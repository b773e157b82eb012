//! A study: its claims come first, on every renderer, and every point has its mark.

use crate::checks::{ClaimResult, Decision, Fitted, MethodFit, Ranged, Study, StudyPoint};
use crate::suite::settings::ClaimKind;

use super::*;

fn claim(name: &str, decision: Decision, value: Option<f64>) -> ClaimResult {
    ClaimResult {
        claim: name.to_owned(),
        kind: ClaimKind::Frontier,
        method: "DPO".to_owned(),
        against: Some("PPO".to_owned()),
        expected: format!("`{name}` is so <as> said."),
        decision,
        measured: "mean difference".to_owned(),
        value,
        lower: value.map(|v| v - 0.1),
        upper: value.map(|v| v + 0.1),
        level: 0.95,
        prompts: 150,
        runs: 24,
        found: format!("What was found of `{name}`."),
    }
}

fn studied() -> ReportData {
    let ranged = |value: f64| Ranged { value, lower: value - 0.05, upper: value + 0.05 };
    let variants = ["dpo-b0.1", "dpo-b0.5"];
    let point = |variant: &str, seed, k: u64| StudyPoint {
        method: "DPO".to_owned(),
        variant: variant.to_owned(),
        seed: Some(seed),
        checkpoint: 10 * k,
        kl: (k * k) as f64,
        distance: k as f64,
        reward: 0.3 * k as f64,
        win_rate: Some(0.6),
        gold_win_rate: None,
    };
    let points = variants.iter().flat_map(|v| [1, 2].into_iter().flat_map(move |seed| (1..=3).map(move |k| point(v, seed, k))));
    let fitted = Fitted {
        alpha: ranged(0.5),
        beta: ranged(0.2),
        residual: 0.01,
        reach: [1.0, 3.0],
        peak: Some([ranged(2.5), ranged(0.9)]),
        falls: 0.98,
        curve: (1..=5).map(|i| [0.6 * f64::from(i), 0.3, 0.2, 0.4]).collect(),
    };
    let method = |method: &str, fit| MethodFit {
        method: method.to_owned(),
        variants: variants.map(str::to_owned).to_vec(),
        runs: 4,
        points: 12,
        prompts: 150,
        form: "d (α − β log d)".to_owned(),
        fit,
    };
    let study = Study {
        reward: "gold reward above the reference's".to_owned(),
        methods: vec![method("DPO", Some(fitted)), method("PPO", None)],
        claims: vec![
            claim("yes", Decision::Supported, Some(0.3)),
            claim("no", Decision::Contradicted, Some(-0.3)),
            claim("who-knows", Decision::Undecided, None),
        ],
        points: points.collect(),
    };
    ReportData { study: Some(study), ..fixture::report() }
}

#[test]
fn claims_come_before_the_verdict_with_their_words_and_numbers() {
    let page = html::render(&studied()).unwrap();
    let first = page.find("<h2>").unwrap();
    assert!(page[first..].starts_with("<h2>Claims</h2>"));
    assert!(page.contains("<code>yes</code> is so &lt;as&gt; said.") && page.contains("0.300 [0.200, 0.400]"));
    for word in ["supported", "contradicted", "undecided"] {
        assert!(page.contains(&format!("</span> {word}")), "{word}");
    }
    assert!(page.contains("Its points determine no fit.") && page.contains("Peak at √KL 2.50 [2.45, 2.55]"));
    assert!(page.contains("95 % interval, 150 prompts, 24 runs"));
    assert_eq!(page.matches("seed 2, step 30: 0.900 at √KL 3.00").count(), 2, "a mark a run");
    assert!(!html::render(&fixture::report()).unwrap().contains("id=\"study\""));
}

#[test]
fn terminal_summary_and_tables_tell_the_claims_too() {
    let data = studied();
    let screen = terminal(&data, 100, false);
    assert!(
        screen.contains("Claims\n✓ supported     `yes` is so <as> said.\n                What was found of `yes`.\n"),
        "{screen}"
    );
    let summary = markdown::render(&data);
    assert!(summary.contains("| ✕ contradicted | `no` is so &lt;as&gt; said. | What was found of `no`. |"), "{summary}");
    let files = written(&data);
    let claims = text(&files, "claims.csv");
    assert!(
        claims.contains("\nwho-knows,frontier,DPO,PPO,`who-knows` is so <as> said.,undecided,mean difference,,,,0.95,150,24,")
    );
    assert_eq!(text(&files, "frontier.csv").lines().count(), 1 + 12);
    assert!(text(&files, "frontier.csv").contains("\nDPO,dpo-b0.1,1,10,1.0,1.0,0.3,0.6,\n"));
    let folder = tempfile::tempdir().unwrap();
    write(&data, folder.path()).unwrap();
    assert_eq!(load_json(&folder.path().join("report.json")).unwrap(), data);
}
