//! What is part of a key, and what isn't.

use super::*;

fn planned(change: impl Fn(&str) -> String) -> Plan {
    let text = change(include_str!("../../../suites/smoke.toml"));
    let suite = crate::suite::parse(&text, Path::new("smoke.toml")).unwrap_or_else(|e| panic!("{e}"));
    plan(&suite, Digest::of_bytes(b"runtime")).unwrap()
}

/// The smoke suite with these keys in `[train]`.
fn trained_with(keys: &str) -> Plan {
    planned(|text| text.replacen("save_steps = 2", &format!("save_steps = 2\n{keys}"), 1))
}

fn key(plan: &Plan, id: &str) -> Digest {
    plan.cell(id).unwrap_or_else(|| panic!("no cell {id}")).key
}

/// Two keys as they were before there were rounds: an option at its default must not make finished work be done again. They change
/// with `ENGINE` (the second with `MEASURES` too), and else only if the smoke suite does.
#[test]
fn the_keys_of_a_suite_stay_when_options_are_added() {
    let plan = planned(str::to_owned);
    let keys = ["train/dpo-b0.1/seed-1", "evaluate/dpo-b0.1/seed-1"].map(|id| key(&plan, id).to_string());
    assert_eq!(
        keys,
        [
            "27d665374c341cdc5ae21099affec0b0c0ca9584550cc67359a6c53d232ca410",
            "d93625fd8cc9ef944e17128deefa56951584c4513f455d3c466992528de83c98"
        ]
    );
    assert_eq!(plan, trained_with("rounds = 1"));
}

#[test]
fn a_device_enters_no_key() {
    for device in ["cpu", "cuda", "cuda:3"] {
        let plan = planned(|text| text.replacen("seeds = ", &format!("device = \"{device}\"\nseeds = "), 1));
        assert_eq!(plan, planned(str::to_owned), "{device}");
    }
}

#[test]
fn another_round_leaves_the_rounds_before_it_as_they_are() {
    let plans = [1, 2, 3].map(|rounds| trained_with(&format!("rounds = {rounds}")));
    for (shorter, longer) in plans.iter().zip(&plans[1..]) {
        let kept = shorter
            .cells
            .iter()
            .filter(|c| !matches!(c.stage, Stage::Evaluate { variant: Some(_), .. } | Stage::Judgments { .. }));
        assert!(kept.clone().count() > 8);
        kept.for_each(|cell| assert_eq!(key(longer, &cell.id), cell.key, "{}", cell.id));
        assert_eq!(longer.cells.len() - shorter.cells.len(), 2 * 2 * 2);
    }
    let last = plans[2].cell("train/dpo-b0.1/seed-1/round-3").unwrap();
    assert!(last.inputs.contains(&"train/dpo-b0.1/seed-1/round-2".to_owned()), "{last:?}");
    let evaluated = plans[2].cell("evaluate/dpo-b0.1/seed-1").unwrap();
    assert_eq!(evaluated.inputs.iter().filter(|id| id.starts_with("train/")).count(), 3);
}

#[test]
fn what_changes_a_later_round_changes_its_key_and_no_earlier_one() {
    let (first, pairs, second) = ("train/dpo-b0.1/seed-1", "pairs/dpo-b0.1/seed-1/round-2", "train/dpo-b0.1/seed-1/round-2");
    let plain = trained_with("rounds = 2");
    for (keys, changes_pairs) in [
        ("round_reference = \"original\"", false),
        ("round_judge = \"pairwise\"", true),
        ("round_samples = 6", true),
        ("round_pairs = 3", true),
    ] {
        let changed = trained_with(&format!("rounds = 2\n{keys}"));
        assert_eq!(key(&changed, first), key(&plain, first), "{keys}");
        assert_eq!(key(&changed, pairs) != key(&plain, pairs), changes_pairs, "{keys}");
        assert_ne!(key(&changed, second), key(&plain, second), "{keys}");
    }
    let longer = planned(|text| text.replacen("max_steps = 6\nsave_steps", "rounds = 2\nmax_steps = 8\nsave_steps", 1));
    assert_ne!(key(&longer, pairs), key(&plain, pairs), "pairs are written by what the round before left");
}

#[test]
fn what_rests_on_a_judge_is_told_apart() {
    let judged = |plan: &Plan| -> Vec<String> {
        let own = |id: &&str| !["judge/", "probes/", "judgments/"].iter().any(|stage| id.starts_with(stage));
        plan.through_judges().into_iter().filter(own).map(str::to_owned).collect()
    };
    assert_eq!(judged(&trained_with("rounds = 2")), [""; 0]);
    let plan = planned(|text| text.replacen("beta = 0.5", "beta = 0.5\nrounds = 2\nround_judge = \"reward\"", 1));
    let expected = ["evaluate/dpo-b0.5/seed-", "pairs/dpo-b0.5/seed-", "train/dpo-b0.5/seed-"];
    let found = judged(&plan);
    assert!(
        found.len() == 6 && found.iter().zip(expected.iter().flat_map(|e| [e, e])).all(|(id, e)| id.starts_with(e)),
        "{found:?}"
    );
    assert!(found.iter().all(|id| id.starts_with("evaluate/") || id.ends_with("/round-2")), "{found:?}");
    // Another library, and all that a judge labelled may have other bits.
    let suite = crate::suite::parse(include_str!("../../../suites/smoke.toml"), Path::new("smoke.toml")).unwrap();
    let other = super::plan(&suite, Digest::of_bytes(b"other")).unwrap();
    let plain = planned(str::to_owned);
    let through = plain.through_judges();
    for cell in &plain.cells {
        let gold = matches!(&cell.stage, Stage::Judgments { judge, .. } if judge == GOLD);
        assert_eq!(key(&other, &cell.id) != cell.key, through.contains(cell.id.as_str()) && !gold, "{}", cell.id);
    }
}

/// Judges that need no library, and panels of both sorts.
const JUDGES: &str = r#"

[[judge]]
name = "rules"
kind = "rubric"
rule = [{ contains = "lamp" }]

[[judge]]
name = "both"
kind = "panel"
members = ["pairwise", "rules"]

[[judge]]
name = "ruled"
kind = "panel"
members = ["rules", "reward"]
"#;

#[test]
fn judges_without_a_library_are_repeatable_and_panels_ask_after_their_members() {
    let plain = planned(str::to_owned);
    let plan = planned(|text| text.replacen("[compare]", &format!("{JUDGES}\n[compare]"), 1));
    for cell in &plain.cells {
        assert_eq!(key(&plan, &cell.id), cell.key, "{}: other judges change nothing", cell.id);
    }
    let through = plan.through_judges();
    for (id, onnx) in
        [("judge/rules", false), ("probes/rules", false), ("judgments/rules/dpo-b0.1/seed-1", false), ("judge/both", true)]
    {
        assert_eq!(through.contains(id), onnx, "{id}");
    }
    let asked = plan.cell("judgments/both/dpo-b0.1/seed-1").unwrap();
    for input in
        ["judge/both", "judge/pairwise", "judge/rules", "judgments/pairwise/dpo-b0.1/seed-1", "judgments/rules/dpo-b0.1/seed-1"]
    {
        assert!(asked.inputs.iter().any(|id| id == input), "{input} of {:?}", asked.inputs);
    }
    assert!(plan.cell("probes/both").unwrap().inputs.iter().any(|id| id == "probes/pairwise"));
    assert!(plan.cell("probes/gold").is_some());
    let unprobed = planned(|text| text.replace("min_accuracy = 0.99", "min_accuracy = 0.99\nfitness = { probes = 0 }"));
    assert!(!unprobed.cells.iter().any(|c| c.id.starts_with("probes/")));
    assert_eq!(key(&unprobed, "judge/pairwise"), key(&plain, "judge/pairwise"), "thresholds train no judge again");
}
