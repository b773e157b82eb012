use std::path::PathBuf;

use super::*;
use crate::error::Kind;

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn read_text(name: &str, text: &str) -> Result<Vec<RecordedPreference>> {
    let folder = tempfile::tempdir().unwrap();
    read(&file(&folder, name, text), &Reading::default())
}

/// The message without the folder.
fn error(name: &str, text: &str) -> String {
    let error = read_text(name, text).unwrap_err();
    assert_eq!(error.kind, Kind::Input, "{error}");
    let shown = error.to_string();
    shown[shown.find(name).unwrap()..].to_owned()
}

fn preferences(rows: &[RecordedPreference]) -> Vec<Option<f64>> {
    rows.iter().map(|r| r.preference).collect()
}

#[test]
fn alpaca_annotations_count_from_one_and_zero_is_a_tie() {
    let text = r#"[
        {"instruction": "Say hi", "output_1": "Hello", "generator_1": "base", "output_2": "Hé!", "generator_2": "mine",
         "annotator": "gpt", "preference": 1.25},
        {"instruction": "Say no", "output_1": "", "generator_1": "base", "output_2": "No.", "generator_2": "mine",
         "annotator": "gpt", "preference": null},
        {"instruction": "Say so", "output_1": "So", "generator_1": "base", "output_2": "So", "generator_2": "mine",
         "annotator": "gpt", "preference": 0}
    ]"#;
    let rows = read_text("annotations.json", text).unwrap();
    assert_eq!(preferences(&rows), [Some(0.25), None, Some(0.5)]);
    assert_eq!(rows[0].length, Some(Sides { policy: 3, baseline: 5 }));
    assert_eq!((rows[0].policy.as_deref(), rows[0].judge.as_deref()), (Some("mine"), Some("gpt")));
    assert_eq!((rows[2].prompt_id.as_str(), rows[2].row), ("Say so", 2));
}

#[test]
fn the_numbers_of_alpaca_annotations_are_read_without_texts() {
    let header = "row,instruction_index,preference,len_output_1,len_output_2\n";
    let rows = read_text("m.csv", &format!("{header}0,7,1.75,20,10\n1,9,,30,40\n")).unwrap();
    assert_eq!(preferences(&rows), [Some(0.75), None]);
    assert_eq!((rows[1].prompt_id.as_str(), rows[1].length), ("9", Some(Sides { policy: 40, baseline: 30 })));
}

#[test]
fn preferences_outside_their_range_are_errors_unless_alpacas_rule_is_asked_for() {
    let text = "row,instruction_index,preference,len_output_1,len_output_2\n0,7,2.5,20,10\n";
    insta::assert_snapshot!(error("m.csv", text), @r#"
    m.csv:2: row 1: "preference" is 2.5, outside 1 to 2
    help: AlpacaEval's preferences are 1 (baseline) to 2 (model), or 0
    "#);
    let folder = tempfile::tempdir().unwrap();
    // A layout that is stated isn't guessed at: no column of these would tell it.
    let stated = Reading {
        layout: Some(Layout::AlpacaEval),
        columns: Columns(vec![("prompt_id".to_owned(), "q".to_owned())]),
        ..Reading::default()
    };
    assert_eq!(preferences(&read(&file(&folder, "s.csv", "q,preference\n1,1.25\n"), &stated).unwrap()), [Some(0.25)]);
    let lenient = Reading { lenient: true, ..Reading::default() };
    assert_eq!(preferences(&read(&file(&folder, "m.csv", text), &lenient).unwrap()), [None]);
}

#[test]
fn arena_hard_games_give_two_verdicts_with_their_strength() {
    let line = |first: &str, second: &str| {
        format!(r#"{{"uid": "q", "model": "m", "judge": "j", "games": [{{"score": {first}}}, {second}]}}"#)
    };
    let rows = read_text("m.jsonl", &line("\"B>>A\"", r#"{"judgment": {"answer": "[[a>b]] at first, but [[A=B]]"}}"#)).unwrap();
    let seen: Vec<_> = rows.iter().map(|r| (r.preference, r.strength, r.first)).collect();
    assert_eq!(seen, [(Some(1.0), 3, Some(Side::Baseline)), (Some(0.5), 1, Some(Side::Policy))]);
    // One order alone doesn't count.
    let rows = read_text("m.jsonl", &line("\"A>B\"", r#"{"score": null, "judgment": "no idea"}"#)).unwrap();
    assert_eq!(preferences(&rows), [None, None]);
}

#[test]
fn arena_hard_verdicts_meet_the_reference() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/reference/vectors/arena_hard.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: {path} is absent");
        return;
    };
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let games = vectors["games_g1_baselineIsA__g2_modelIsA"].as_array().unwrap();
    let lines: Vec<String> = games
        .iter()
        .enumerate()
        .map(|(i, g)| format!(r#"{{"uid": "{i}", "model": "m", "games": [{{"score": {}}}, {{"score": {}}}]}}"#, g[0], g[1]))
        .collect();
    let rows = read_text("m.jsonl", &lines.join("\n")).unwrap();
    for (prompt, expected) in vectors["exploded_scores"].as_array().unwrap().iter().enumerate() {
        // Upstream lists the second game first.
        let games = [&rows[2 * prompt + 1], &rows[2 * prompt]];
        let exploded: Vec<f64> = games.iter().flat_map(|g| vec![g.preference.unwrap(); g.strength as usize]).collect();
        assert_eq!(exploded.len(), expected.as_array().unwrap().len());
        assert!(exploded.iter().zip(expected.as_array().unwrap()).all(|(found, e)| e.as_f64() == Some(*found)));
    }
}

#[test]
fn the_last_verdict_token_counts_and_double_brackets_come_first() {
    let token = |text: &str| verdicts::last_token(&text.to_uppercase());
    assert_eq!(token("[[A>B]] or rather [[b>>a]]. See [A=B]").as_deref(), Some("B>>A"));
    assert_eq!(token("so [A<B]").as_deref(), Some("A<B"));
    assert_eq!(token("nothing [[C]] [] [[]]"), None);
}

#[test]
fn mt_bench_pairs_are_two_orders_of_a_turn() {
    let line = |g1: &str, g2: &str| {
        format!(
            r#"{{"question_id": 81, "model_1": "m", "model_2": "b", "g1_winner": "{g1}", "g2_winner": "{g2}",
            "judge": ["gpt-4", "pair-v2"], "turn": 2}}"#
        )
        .replace('\n', " ")
    };
    let rows = read_text("pair.jsonl", &line("model_1", "tie")).unwrap();
    assert_eq!(preferences(&rows), [Some(1.0), Some(0.5)]);
    let of = &rows[1];
    assert_eq!((of.prompt_id.as_str(), of.sample.as_str(), of.judge.as_deref()), ("81", "2", Some("gpt-4")));
    assert_eq!(preferences(&read_text("pair.jsonl", &line("model_1", "error")).unwrap()), [None, None]);
    insta::assert_snapshot!(error("pair.jsonl", &line("model_3", "tie")), @r#"
    pair.jsonl:1: "g1_winner" is "model_3"
    help: winners are model_1, model_2 and tie; error where no verdict could be read
    "#);
}

#[test]
fn comparisons_name_a_side_or_a_winner() {
    let rows = read_text("food.csv", "left,right,winner\npizza,sushi,left\nsushi,pasta,pasta\npasta,pizza,tie\npizza,pasta,\n");
    let rows = rows.unwrap();
    assert_eq!(preferences(&rows), [Some(1.0), Some(0.0), Some(0.5), None]);
    assert_eq!((rows[1].policy.as_deref(), rows[1].baseline.as_deref()), (Some("sushi"), Some("pasta")));
    let arena = r#"{"model_a": "x", "model_b": "y", "winner": "tie (bothbad)", "question_id": 3, "turn": 1, "judge": "someone"}"#;
    assert_eq!(preferences(&read_text("arena.jsonl", arena).unwrap()), [Some(0.5)]);
    insta::assert_snapshot!(error("food.csv", "left,right,winner\na,a,left\n"), @r#"
    food.csv:2: row 1: "a" is compared with itself
    help: leave the row out
    "#);
}

#[test]
fn labels_have_a_preference_or_a_winner_and_columns_of_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "labels.csv", "question,rater,vote\nq1,ann,policy\nq1,bob,tie\nq2,ann,reference\nq3,ann,NA\n");
    let columns = [("prompt_id", "question"), ("judge", "rater"), ("winner", "vote")];
    let columns = Columns(columns.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec());
    let rows = read(&path, &Reading { columns, ..Reading::default() }).unwrap();
    assert_eq!(preferences(&rows), [Some(1.0), Some(0.5), Some(0.0), None]);

    let rows = read_text(
        "l.jsonl",
        r#"{"prompt_id": 4, "preference": 0.9, "first": "baseline", "policy_length": 3, "baseline_length": 4}"#,
    );
    let row = &rows.unwrap()[0];
    assert_eq!((row.first, row.length), (Some(Side::Baseline), Some(Sides { policy: 3, baseline: 4 })));
}

#[test]
fn broken_rows_are_told_by_file_row_and_column() {
    let errors = [
        error("a.csv", "prompt_id,preference\nq1,0.5\nq2,often\n"),
        error("b.csv", "prompt_id,preference\nq1,1.5\n"),
        error("c.csv", "question,answer\nq1,1\n"),
        error("d.csv", "prompt_id,winner\nq1,policy\nq1,baseline\n"),
        error("e.csv", "preference\n0.5\n"),
        error("f.csv", "prompt_id,preference\n"),
        error("g.csv", "prompt_id,preference,policy_length\nq,0.5,3\n"),
        error("h.jsonl", r#"{"uid": "q", "games": [{"score": "A>B"}]}"#),
        error("i.csv", "prompt_id,winner\nq1,left\n"),
    ];
    insta::assert_snapshot!(errors.join("\n\n"));
}

#[test]
fn the_other_side_of_a_verdict_is_its_mirror() {
    let text = r#"{"prompt_id": "q", "preference": 0.9, "first": "policy", "policy": "m", "baseline": "b",
        "policy_output": "Yes", "baseline_output": "Never"}"#;
    let rows = read_text("l.jsonl", &text.replace('\n', " ")).unwrap();
    let turned = rows[0].clone().turned();
    assert!((turned.preference.unwrap() - 0.1).abs() < 1e-15);
    assert_eq!((turned.first, turned.length), (Some(Side::Baseline), Some(Sides { policy: 5, baseline: 3 })));
    assert_eq!(turned.policy.as_deref(), Some("b"));
    assert_eq!(turned.text.as_ref().unwrap().policy, "Never");
    assert_eq!(turned.turned().length, rows[0].length);
}

#[test]
fn outputs_are_joined_by_instruction() {
    let folder = tempfile::tempdir().unwrap();
    let outputs = |name: &str, second: &str| {
        let text = format!(
            r#"[{{"instruction": "b", "output": "{second}", "generator": "{name}"}}, {{"instruction": "a", "output": "four"}}]"#
        );
        file(&folder, name, &text)
    };
    let (policy, baseline) = (outputs("policy.json", "né"), outputs("baseline.json", "longer"));
    let verdicts = file(&folder, "v.jsonl", "{\"prompt_id\": \"b\", \"preference\": 1}\n");
    let mut rows = read(&verdicts, &Reading::default()).unwrap();
    let read_both =
        Sides { policy: outputs::Outputs::read(&policy).unwrap(), baseline: outputs::Outputs::read(&baseline).unwrap() };
    assert_eq!((read_both.policy.average_length(), read_both.policy.generator.as_deref()), (3, Some("policy.json")));
    let files = Sides { policy: policy.as_path(), baseline: &baseline };
    let both = Sides { policy: &read_both.policy, baseline: &read_both.baseline };
    outputs::join(&mut rows, &verdicts, files, both).unwrap();
    assert_eq!(rows[0].length, Some(Sides { policy: 2, baseline: 6 }));
    rows[0].prompt_id = "c".to_owned();
    let error = outputs::join(&mut rows, &verdicts, files, both).unwrap_err();
    assert!(error.message.ends_with("policy.json has no output for the instruction \"c\""), "{error}");
}
