//! Judges of every kind in suites, and by themselves on files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{assert_same_files, copy_of_finished_smoke, edit, run_expecting, workplace};

const SUITE: &str = "suites/smoke.toml";

/// The smoke suite with judges of all the other kinds; people label what gold says of the last checkpoint of one variant.
const JUDGES: &str = r#"
[[judge]]
name = "rules"
kind = "rubric"
min_accuracy = 0
rule = [{ regex = '\b(good|great|lovely)\b', weight = 1.0, per_match = true }, { words = [8, 24], weight = 0.5 }]

[[judge]]
name = "own"
kind = "implicit"
path = "../trained/final"
min_accuracy = 0

[[judge]]
name = "panel"
kind = "panel"
members = ["pairwise", "reward", "rules"]
min_accuracy = 0

[[judge]]
name = "people"
kind = "replay"
path = "../people.csv"

[statistics]
labels = "people"
"#;

fn rows_of(folder: &Path, file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("reports/smoke").join(file)).unwrap();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

fn column(rows: &[Vec<String>], name: &str) -> usize {
    rows[0].iter().position(|column| column == name).unwrap_or_else(|| panic!("no column {name}"))
}

/// What gold says of every other prompt at the last checkpoint, as if people had said it; how many rows that is.
fn write_labels(folder: &Path) -> usize {
    let rows = rows_of(folder, "judgments.csv");
    let [judge, checkpoint, prompt] = ["judge", "checkpoint", "prompt_id"].map(|name| column(&rows, name));
    let even = |row: &Vec<String>| row[prompt].ends_with(['0', '2', '4', '6', '8']);
    let kept: Vec<_> = rows[1..].iter().filter(|row| row[judge] == "gold" && row[checkpoint] == "6" && even(row)).collect();
    let mut writer = csv::Writer::from_path(folder.join("people.csv")).unwrap();
    writer.write_record(&rows[0]).unwrap();
    kept.iter().for_each(|row| writer.write_record(*row).unwrap());
    writer.flush().unwrap();
    kept.len()
}

/// The folder of a finished cell.
fn cell(folder: &Path, id: &str) -> PathBuf {
    let text = run_expecting(folder, &["suite", "plan", SUITE, "--format", "json"], 0).stdout;
    let plan: Value = serde_json::from_str(&text).unwrap();
    let found = plan["cells"].as_array().unwrap().iter().find(|cell| cell["id"] == id).unwrap_or_else(|| panic!("no {id}"));
    folder.join(".dpo-eval/cells").join(found["key"].as_str().unwrap())
}

#[test]
fn judges_of_every_kind_go_the_whole_way_beside_each_other() {
    let folder = copy_of_finished_smoke();
    let folder = folder.path();
    let labelled = write_labels(folder);
    run_expecting(folder, &["train", SUITE, "--variant", "dpo-b0.1", "--output", "trained", "--quiet"], 0);
    let before = fs::read_to_string(folder.join("reports/smoke/judgments.csv")).unwrap();
    edit(&folder.join(SUITE), "[compare]", &format!("{JUDGES}\n[compare]"));
    run_expecting(folder, &["suite", "check", SUITE], 0);
    run_expecting(folder, &["suite", "run", SUITE, "--quiet"], 0);
    let judgments = rows_of(folder, "judgments.csv");
    let of = |judge: &str| judgments.iter().filter(|row| row[0] == judge).count();
    let all = of("pairwise");
    assert_eq!(["rules", "own", "panel", "people"].map(of), [all, all, all, labelled]);
    let after = fs::read_to_string(folder.join("reports/smoke/judgments.csv")).unwrap();
    assert!(before.lines().all(|line| after.contains(line)), "the other judges say what they said");

    let estimates = rows_of(folder, "estimates.csv");
    let found = |metric: &str, judge: &str| estimates.iter().filter(|e| e[0] == metric && e[4] == judge).count();
    for judge in ["pairwise", "reward", "rules", "own", "panel"] {
        assert_eq!((found("judge_kappa", judge), found("probe_filler_gain", judge)), (1, 1), "{judge}: {estimates:?}");
        // People labelled four prompts: too few to correct a win rate by, which is told.
        assert_eq!(found("win_rate_corrected", judge), 0, "{judge}");
    }
    assert_eq!(found("panel_alpha", "panel"), 2, "one a variant");
    assert_eq!((found("probe_filler_gain", "people"), found("win_rate_corrected", "people")), (0, 0));
    let probes = rows_of(folder, "judge_probes.csv");
    let identical = probes.iter().filter(|row| row[0] == "pairwise" && row[1] == "identical");
    assert!(identical.clone().count() > 0 && identical.into_iter().all(|row| row[3] == "0.5"));
    let findings = fs::read_to_string(folder.join("reports/smoke/findings.csv")).unwrap();
    assert!(findings.contains("labels-few,,warn") && findings.contains("used of 4 prompts"), "{findings}");
    assert!(findings.contains("judge-missing,,info") && !findings.contains("people` was never measured"), "{findings}");

    // What needs no library is repeated bit for bit.
    let ran = run_expecting(
        folder,
        &["repro", "smoke", "--cells", "*/rules*,*/own*", "--thread-counts", "2", "--micro-batches", "2"],
        0,
    );
    assert!(ran.stdout.contains("judgments/rules/dpo-b0.1/seed-1"), "{}", ran.stdout);
    run_expecting(folder, &["runs", "prune"], 0);
    assert_eq!(fs::read_dir(folder.join(".dpo-eval/answers")).unwrap().count(), 0);
}

#[test]
fn judgments_are_taken_from_the_journal_and_damaged_ones_are_made_again() {
    let folder = copy_of_finished_smoke();
    let folder = folder.path();
    let report = folder.join("reports/smoke");
    let kept = folder.join("kept");
    fs::rename(&report, &kept).unwrap();
    let forget = || {
        for id in ["judgments/pairwise/dpo-b0.1/seed-1", "judgments/reward/dpo-b0.5/seed-2", "probes/pairwise"] {
            fs::remove_file(cell(folder, id).with_extension("json")).unwrap();
        }
    };
    let journals = || -> Vec<(PathBuf, u64)> {
        let mut files: Vec<_> = fs::read_dir(folder.join(".dpo-eval/answers")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::metadata(path).unwrap().len())).collect()
    };
    let before = journals();
    assert_eq!(before.len(), 2, "a journal for each of the judges that are asked");
    forget();
    run_expecting(folder, &["suite", "run", SUITE, "--quiet"], 0);
    assert_eq!(journals(), before, "nothing was judged again");
    assert_same_files(&kept, &report);

    for (path, _) in &before {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replacen("\"answer\":", "\"answer\":1", 1)).unwrap();
    }
    forget();
    let ran = run_expecting(folder, &["suite", "run", SUITE], 0);
    assert!(ran.stderr.contains("1 entry is damaged; what they answered is asked again"), "{}", ran.stderr);
    assert_same_files(&kept, &report);
}

const ROWS: &str = "{\"prompt\": \"Review of a lamp:\", \"chosen\": \" A good lamp.\", \"rejected\": \" A lamp.\"}\n\
                    {\"id\": \"second\", \"prompt\": \"Review of a desk:\", \"chosen\": \" A desk.\", \"rejected\": \" A lovely desk, great.\"}\n";
const RULES: &str =
    "\n[[judge]]\nname = \"rules\"\nkind = \"rubric\"\nrule = [{ regex = '\\b(good|great|lovely)\\b', per_match = true }]\n";

#[test]
fn a_judge_scores_files_by_itself() {
    let folder = copy_of_finished_smoke();
    let folder = folder.path();
    edit(&folder.join(SUITE), "[compare]", &format!("{RULES}\n[compare]"));
    fs::write(folder.join("pairs.jsonl"), ROWS).unwrap();
    fs::write(folder.join("texts.csv"), "prompt,completion\nReview:,so good\nReview:,so so\n").unwrap();
    let score = |arguments: &[&str]| run_expecting(folder, &[&["judge", "score"], arguments].concat(), 0).stdout;
    let rules = score(&[SUITE, "--judge", "rules", "pairs.jsonl", "--format", "csv"]);
    assert_eq!(
        rules,
        "row,preference,outcome,logit_first_first,logit_second_first,score_first,score_second,truncated\n\
         line-000001,0.7310585786300049,win,,,1.0,0.0,false\nsecond,0.11920292202211755,loss,,,0.0,2.0,false\n"
    );
    assert_eq!(
        score(&[SUITE, "--judge", "rules", "texts.csv", "--format", "json"]),
        "{\"row\":\"row-000001\",\"score\":1.0}\n{\"row\":\"row-000002\",\"score\":0.0}\n"
    );
    insta::assert_snapshot!("judge_score_table", score(&[SUITE, "--judge", "rules", "pairs.jsonl"]));

    // The judge that the suite trained, by its name and as a folder of its own, says the same.
    let named = score(&[SUITE, "pairs.jsonl", "--format", "json"]);
    fs::create_dir(folder.join("judge")).unwrap();
    for name in ["model.onnx", "tokenizer.json", "judge.json"] {
        fs::copy(cell(folder, "judge/pairwise").join("judge").join(name), folder.join("judge").join(name)).unwrap();
    }
    assert_eq!(score(&["judge", "pairs.jsonl", "--format", "json"]), named);
    let first: Value = serde_json::from_str(named.lines().next().unwrap()).unwrap();
    let logit = |name: &str| first[name].as_f64().unwrap();
    let expected = 1.0 / (1.0 + (-(logit("logit_first_first") - logit("logit_second_first")) / 2.0).exp());
    assert!((first["preference"].as_f64().unwrap() - expected).abs() < 1e-12);
    let refused = run_expecting(folder, &["judge", "score", "judge", "texts.csv"], 2);
    assert!(refused.stderr.contains("compares two completions"), "{}", refused.stderr);
    fs::remove_file(folder.join("judge/judge.json")).unwrap();
    let refused = run_expecting(folder, &["judge", "score", "judge", "pairs.jsonl"], 2);
    assert!(refused.stderr.contains("--kind pairwise"), "{}", refused.stderr);
}

#[test]
fn a_folders_labels_are_declared_on_the_command_line() {
    let folder = workplace();
    let folder = folder.path();
    fs::write(folder.join("pairs.jsonl"), ROWS).unwrap();
    let judge = format!("{}/golden/judges/deberta", env!("CARGO_MANIFEST_DIR"));
    let score = |labels: &[&str], code| {
        let asked = ["judge", "score", &judge, "pairs.jsonl", "--kind", "pairwise", "--format", "json"];
        let template = ["--template", "{prompt} {a}", "--template", "{prompt} {b}"];
        run_expecting(folder, &[&asked[..], &template, labels].concat(), code)
    };
    let preference = |labels| {
        let rows = score(&["--labels", labels], 0).stdout;
        let first: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
        first["preference"].as_f64().unwrap()
    };
    let (one, other) = (preference("first,second"), preference("second,first"));
    assert!((one + other - 1.0).abs() < 1e-9 && (one - 0.5).abs() > 1e-6, "{one} {other}");
    let unsaid = score(&[], 3).stderr;
    assert!(unsaid.contains("which of its 2 classes means") && unsaid.contains("--labels"), "{unsaid}");
    for (labels, code, what) in [
        ("first,first", 2, "names `first` twice"),
        ("good,bad", 2, "names `good`, which this kind of judge can't say"),
        ("first,third", 2, "it is one of first, second, tie, good, bad"),
        ("first,second,tie", 2, "has 2 classes"),
    ] {
        let refused = score(&["--labels", labels], code).stderr;
        assert!(refused.contains(what), "{refused}");
    }
}

#[test]
fn the_fitness_of_a_judge_decides_the_exit_code() {
    let folder = copy_of_finished_smoke();
    let folder = folder.path();
    let fit = RULES.replace("[{", "[{ format = 'sentence', weight = 0.1 }, {");
    edit(&folder.join(SUITE), "[compare]", &format!("{fit}\n[compare]"));
    let pairs: String = (0..40)
        .map(|i| format!("{{\"prompt\": \"Review {i}:\", \"chosen\": \" A good lamp, {i}.\", \"rejected\": \" A lamp {i}.\"}}\n"))
        .collect();
    fs::write(folder.join("pairs.jsonl"), &pairs).unwrap();
    let fitness = |code, more: &[&str]| {
        run_expecting(folder, &[&["judge", "fitness", SUITE, "--judge", "rules"], more].concat(), code).stdout
    };
    // One constant text has as many good words as any answer, and saying a sentence twice adds one.
    let unfit = fitness(100, &["pairs.jsonl"]);
    insta::assert_snapshot!("judge_fitness_table", unfit);
    let json: Value = serde_json::from_str(&fitness(100, &["pairs.jsonl", "--format", "json"])).unwrap();
    assert_eq!((&json["fit"], &json["judge"]), (&Value::Bool(false), &Value::from("rules")));
    let accepted = "kind = \"rubric\"\nfitness = { max_null_win_rate = 0.6, max_empty_win_rate = 0.5, max_filler_gain = 0.5 }";
    edit(&folder.join(SUITE), "kind = \"rubric\"", accepted);
    assert!(fitness(0, &["pairs.jsonl"]).contains("✓ judge `rules` is fit"));
    let csv = fitness(0, &["pairs.jsonl", "--format", "csv"]);
    assert!(csv.starts_with(
        "metric,variant,checkpoint,seed,judge,slice,value,lower,upper,level,n,clusters,method\njudge_accuracy,,,,rules,,1.0,"
    ));
}

#[test]
fn recorded_verdicts_are_held_against_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let labels = |votes: [&str; 8]| -> String {
        let rows = votes.iter().enumerate().map(|(i, vote)| format!("p{i},{vote}\n"));
        std::iter::once("prompt_id,preference\n".to_owned()).chain(rows).collect()
    };
    fs::write(folder.join("large.csv"), labels(["1", "1", "1", "0", "0", "0.5", "1", "0"])).unwrap();
    fs::write(folder.join("people.csv"), labels(["1", "1", "0", "0", "0", "0.5", "1", "1"])).unwrap();
    let table = run_expecting(folder, &["judge", "agree", "large.csv", "--humans", "people.csv"], 0).stdout;
    insta::assert_snapshot!("judge_agree_table", table);
    let csv = run_expecting(folder, &["judge", "agree", "large.csv", "people.csv", "--format", "csv"], 0).stdout;
    assert!(
        csv.starts_with("measure,first,second,value,lower,upper,level,items,prompts\npercent,large.csv,people.csv,0.75,"),
        "{csv}"
    );
    run_expecting(folder, &["judge", "agree", "large.csv"], 4);
}
