//! `winrate` on plain files: the published numbers of AlpacaEval, a report's own, labels, errors.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{dpo_eval, finished_smoke, repository, run_expecting, shared};

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let ran = run_expecting(folder, &[&["winrate"], arguments, &["--format", "json"]].concat(), 0);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stdout))
}

#[track_caller]
fn close(found: &Value, name: &str, expected: f64, tolerance: f64) {
    let value = found[name].as_f64().unwrap_or_else(|| panic!("no {name} in {found}"));
    assert!((value - expected).abs() <= tolerance, "{name} is {value}, expected {expected}");
}

/// Rows of a CSV without quotation marks, by column.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    lines.map(|line| header.iter().cloned().zip(line).collect()).collect()
}

#[test]
fn alpaca_evals_published_numbers_come_out_of_its_verdicts() {
    let Some(folder) = shared("reference/alpaca_eval") else { return };
    for row in rows(&folder.join("expected.csv")) {
        let expected = |name: &str| row[name].parse::<f64>().unwrap();
        let file = format!("{}.csv", row["model"]);
        let files = ["--difficulty", "instruction_difficulty.csv", "--gamed", "gamed_baselines.csv"];
        let quick = ["--resamples", "100"];
        let compat = [&[file.as_str(), "--compat", "alpaca-eval"], &files[..], &quick].concat();
        let published = json(&folder, &[&compat[..], &["--c", &row["inferred_C"]]].concat());
        for name in ["n_total", "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "discrete_win_rate"] {
            close(&published, name, expected(name), 1e-9);
        }
        let controlled = "length_controlled_winrate";
        close(&published, controlled, expected(controlled), 0.02);
        // The fit's own tests choose C for every model.
        if file.starts_with("claude") {
            close(&json(&folder, &compat), controlled, expected(controlled), 0.15);
        }
        if let Ok(error) = row["lc_standard_error"].parse() {
            close(&published, "lc_standard_error", error, 0.002);
        }
        assert!(published["lc_standard_error_bootstrap"].as_f64() > published["lc_standard_error"].as_f64());
        let bound = |side: &str| published[format!("{controlled}_{side}")].as_f64().unwrap();
        assert!(bound("lower") < expected(controlled) && expected(controlled) < bound("upper"));
    }
}

#[test]
fn two_models_get_their_paired_difference() {
    let Some(folder) = shared("reference/alpaca_eval") else { return };
    let found = json(&folder, &["claude-2.1_concise.csv", "claude-2.1.csv", "--resamples", "200"]);
    let (results, difference) = (&found["results"], &found["differences"][0]);
    let of = |value: &Value, name: &str| value[name].as_f64().unwrap();
    for name in ["win_rate", "discrete_win_rate", "length_controlled_winrate"] {
        close(difference, name, of(&results[1], name) - of(&results[0], name), 1e-9);
        let width = |value: &Value| of(value, &format!("{name}_upper")) - of(value, &format!("{name}_lower"));
        assert!(width(difference) < width(&results[0]).hypot(width(&results[1])), "pairing gains nothing for {name}");
    }
    assert_eq!(of(difference, "prompts"), 805.0);
    // Concise answers lose by length alone: the difference shrinks where it is held equal, in our fit too.
    assert!(of(difference, "length_controlled_winrate").abs() > 1.0);
}

#[test]
fn a_reports_own_judgments_give_the_win_rates_of_the_report() {
    let report = finished_smoke().join("reports/smoke");
    let found = json(&report, &[".", "--resamples", "100"]);
    let results = found["results"].as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
    let estimates = rows(&report.join("estimates.csv"));
    let mut compared = 0;
    for result in &results {
        let is = |row: &&BTreeMap<String, String>, metric: &str| {
            row["metric"] == metric
                && row["seed"].is_empty()
                && Some(row["variant"].as_str()) == result["policy"].as_str()
                && Some(row["judge"].as_str()) == result["judge"].as_str()
                && row["checkpoint"].parse().ok() == result["checkpoint"].as_u64()
        };
        for (metric, name) in [("win_rate", "win_rate"), ("win_rate_hard", "discrete_win_rate")] {
            let row = estimates.iter().find(|row| is(row, metric)).unwrap_or_else(|| panic!("{metric} of {result}"));
            for (column, suffix) in [("value", ""), ("lower", "_lower"), ("upper", "_upper")] {
                close(result, &format!("{name}{suffix}"), 100.0 * row[column].parse::<f64>().unwrap(), 1e-9);
            }
            compared += 1;
        }
        // Texts are in the report's completions.
        assert!(result["length_controlled_winrate"].is_number() && result["style_controlled_winrate"].is_number(), "{result}");
    }
    assert!(compared >= 4, "{found}");
}

#[test]
fn recorded_verdicts_are_shown_as_a_table_and_corrected_by_labels() {
    let folder = repository().join("tests/readme");
    let ran = run_expecting(&folder, &["winrate", "annotations.json", "--labels", "people.csv", "--sequential"], 0);
    insta::assert_snapshot!(ran.stdout);
    let found = json(&folder, &["annotations.json", "--labels", "people.csv"]);
    let of = |name: &str| found[name].as_f64().unwrap();
    assert!(of("effective_labels") > of("labels"), "{found}");
    let width = |name: &str| of(&format!("{name}_upper")) - of(&format!("{name}_lower"));
    assert!(width("win_rate_corrected") > width("win_rate"), "labels bring their own uncertainty");
    let csv = run_expecting(&folder, &["winrate", "annotations.json", "--format", "csv"], 0).stdout;
    assert_eq!(csv.lines().count(), 2);
    assert!(csv.starts_with("kind,file,policy,baseline,judge,checkpoint,win_rate,win_rate_lower,win_rate_upper,"), "{csv}");
}

#[test]
fn threads_and_order_of_arguments_change_no_bit() {
    let folder = repository().join("tests/readme");
    let of = |threads: &str| {
        run_expecting(&folder, &["winrate", "annotations.json", "--format", "json", "--threads", threads], 0).stdout
    };
    assert_eq!(of("1"), of("3"));
    let seeded = run_expecting(&folder, &["winrate", "annotations.json", "--format", "json", "--seed", "1"], 0).stdout;
    assert_ne!(of("1"), seeded);
}

#[test]
fn files_and_options_that_do_not_fit_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("m.csv", "row,instruction_index,preference,len_output_1,len_output_2\n0,0,1.5,10,20\n1,5,1.2,10,30\n");
    write("difficulty.csv", "index,instruction_difficulty\n0,0.5\n1,0.1\n");
    write("labels.csv", "prompt_id,winner\n7,policy\n");
    fs::create_dir(folder.join("empty")).unwrap();
    let told: Vec<String> = [
        (&["m.csv", "--difficulty", "difficulty.csv"][..], 3),
        (&["m.csv", "--labels", "labels.csv"], 3),
        (&["m.csv", "--c", "1"], 2),
        (&["m.csv", "--compat", "arena-hard", "--difficulty", "difficulty.csv"], 2),
        (&["m.csv", "--outputs", "a.json", "--outputs", "b.json"], 2),
        (&["m.csv", "--columns", "prompt=x,promt_id=y"], 2),
        (&["m.csv", "--policy", "claude"], 4),
        (&["empty"], 3),
        (&["nowhere.csv"], 3),
    ]
    .into_iter()
    .map(|(arguments, code)| {
        format!("winrate {}\n{}", arguments.join(" "), run_expecting(folder, &[&["winrate"], arguments].concat(), code).stderr)
    })
    .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn many_policies_are_rated_and_those_that_cannot_be_told_apart_have_no_rank() {
    let folder = repository().join("tests/readme");
    let ran = run_expecting(&folder, &["ratings", "comparisons.csv"], 0);
    insta::assert_snapshot!(ran.stdout);
    let found: Value =
        serde_json::from_str(&run_expecting(&folder, &["ratings", "comparisons.csv", "--format", "json"], 0).stdout).unwrap();
    let players = found["players"].as_array().unwrap();
    assert!(players.iter().any(|p| p["separable"] == false) && players.iter().any(|p| p["separable"] == true), "{found}");
    let csv = run_expecting(&folder, &["ratings", "comparisons.csv", "--format", "csv"], 0).stdout;
    assert_eq!(csv.lines().count(), 1 + players.len());
    // A report's variants meet each other in the reference.
    let report = finished_smoke().join("reports/smoke");
    let of_report = run_expecting(&report, &["ratings", ".", "--format", "json"], 0).stdout;
    assert!(of_report.contains("\"player\": \"reference\""), "{of_report}");
}

#[test]
fn verdicts_come_through_pipes_as_they_come_from_files() {
    let folder = repository().join("tests/readme");
    let piped = |arguments: &[&str], file: &str| {
        let pipe = fs::File::open(folder.join(file)).unwrap();
        // A pipe that can't be read twice, and not a file under another name.
        let mut cat = std::process::Command::new("cat").stdin(pipe).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let through = cat.stdout.take().unwrap();
        let ran = crate::support::ran(&dpo_eval(&folder).args(arguments).stdin(through).output().unwrap());
        cat.wait().unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    let direct = |arguments: &[&str]| run_expecting(&folder, arguments, 0).stdout;
    assert_eq!(piped(&["winrate", "-"], "annotations.json"), direct(&["winrate", "annotations.json"]));
    assert_eq!(piped(&["ratings", "-"], "comparisons.csv"), direct(&["ratings", "comparisons.csv"]));
    let labelled = ["winrate", "annotations.json", "--labels"];
    assert_eq!(
        piped(&[&labelled[..], &["/dev/stdin"]].concat(), "people.csv"),
        direct(&[&labelled[..], &["people.csv"]].concat())
    );
    let agreed = |text: String| text.replace("votes.csv", "stdin");
    let found = piped(&["judge", "agree", "-", "--humans", "humans.csv", "--format", "csv"], "votes.csv");
    assert_eq!(found, agreed(direct(&["judge", "agree", "votes.csv", "--humans", "humans.csv", "--format", "csv"])));
}
