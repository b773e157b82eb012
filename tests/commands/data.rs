//! `data audit` and `data convert`, and a suite over conversations.

use std::fs;
use std::path::Path;

use crate::errors::own_pairs;
use crate::support::{edit, run_expecting};

/// ChatML, with the end token of the quickstart's tokenizer.
const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ message.role + ':\\n' + message.content.strip() + eos_token + '\\n' }}\
                        {% endfor %}{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}";

fn items(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let ran = run_expecting(folder, &[&["data", "audit"], arguments, &["--format", "json"]].concat(), 0);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn count(items: &serde_json::Value, id: &str) -> u64 {
    let item = items.as_array().unwrap().iter().find(|item| item["id"] == id).unwrap_or_else(|| panic!("no {id} in {items}"));
    item["count"].as_u64().unwrap()
}

#[test]
fn a_suite_over_conversations_runs_from_conversion_to_report() {
    let folder = own_pairs();
    let (folder, suite) = (folder.path(), folder.path().join("mine.toml"));
    let ran = run_expecting(folder, &["data", "convert", "pairs.jsonl", "chats.jsonl.zst", "--messages"], 0);
    assert_eq!(ran.stderr, "wrote 40 rows to chats.jsonl.zst\n");
    edit(&suite, "path = \"pairs.jsonl\"\nformat = \"explicit\"", "path = \"chats.jsonl.zst\"\nformat = \"conversations\"");
    let ran = run_expecting(folder, &["suite", "run", "mine.toml", "--quiet"], 3);
    assert!(ran.stderr.contains("has no chat template"), "{}", ran.stderr);
    fs::write(folder.join("chat.jinja"), TEMPLATE).unwrap();
    edit(&suite, "[train]", "chat_template = \"chat.jinja\"\n[dataset.audit]\nmissing_bos = 0\nmissing_eos = 0\n\n[train]");
    let audit = items(folder, &["mine.toml"]);
    assert_eq!((count(&audit, "missing-bos"), count(&audit, "double-bos"), count(&audit, "boundary-mismatch")), (0, 0, 0));
    run_expecting(folder, &["suite", "run", "mine.toml", "--quiet"], 0);
    let completions = fs::read_to_string(folder.join("reports/mine/completions.csv")).unwrap();
    assert!(completions.contains("assistant:"), "{completions}");
    // The template is part of what the data is made of.
    fs::write(folder.join("chat.jinja"), TEMPLATE.replace(":\\n", "=\\n")).unwrap();
    run_expecting(folder, &["suite", "run", "mine.toml", "--quiet"], 0);
    assert!(fs::read_to_string(folder.join("reports/mine/completions.csv")).unwrap().contains("assistant="));
    // A template without the end token, and a suite that accepts no such completion.
    fs::write(folder.join("chat.jinja"), TEMPLATE.replace(" + eos_token", "")).unwrap();
    let ran = run_expecting(folder, &["data", "audit", "mine.toml"], 3);
    assert!(ran.stderr.contains("accepts a share of 0 and no more") && ran.stderr.contains("`missing_eos`"), "{}", ran.stderr);
}

#[test]
fn files_are_audited_by_what_their_first_row_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("a.csv"), "prompt,completion,label\np,c,True\np,d,False\np,d,False\n").unwrap();
    assert_eq!(count(&items(folder, &["a.csv"]), "duplicate-rows"), 1);
    let say = |role: &str, text: &str| format!("{{\"role\": \"{role}\", \"content\": \"{text}\"}}");
    let row = format!(
        "{{\"prompt\": [{}], \"chosen\": [{}], \"rejected\": [{}]}}",
        say("user", "a"),
        say("assistant", "bc"),
        say("assistant", "d")
    );
    fs::write(folder.join("b.json"), format!("[{row}, {row}]")).unwrap();
    let audit = items(folder, &["b.json"]);
    assert_eq!((count(&audit, "duplicate-pairs"), count(&audit, "chosen-longer")), (1, 2));
    fs::write(folder.join("c.jsonl"), "{\"text\": \"x\"}\n").unwrap();
    let ran = run_expecting(folder, &["data", "audit", "c.jsonl"], 3);
    assert!(ran.stderr.contains("c.jsonl:1: the row has \"text\""), "{}", ran.stderr);
    run_expecting(folder, &["data", "convert", "a.csv", "d.jsonl", "--to", "completions"], 0);
    assert_eq!(fs::read_to_string(folder.join("d.jsonl")).unwrap(), "{\"prompt\":\"p\",\"completion\":\"c\"}\n");
    let ran = run_expecting(folder, &["data", "convert", "a.csv", "e.jsonl"], 3);
    assert!(ran.stderr.contains("row 1: the row is no pair") && !folder.join("e.jsonl").exists(), "{}", ran.stderr);
}

/// One row with `chosen` as it is given, after 1,233 good ones.
fn row_1234(chosen: &str) -> String {
    let row = |i: usize, chosen: &str| format!("{{\"prompt\": \"p{i}\", \"chosen\": {chosen}, \"rejected\": \"r\"}}\n");
    (1..1234).map(|i| row(i, "\"c\"")).collect::<String>() + &row(1234, chosen)
}

#[test]
fn broken_files_end_in_one_sentence_with_file_and_row() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let gzipped = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let whole = gzipped(&row_1234("\"c\""));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/data");
    // Within the page of the last row, where the decoder of the Parquet crate panics.
    let mut damaged = fs::read(golden.join("conversations.snappy.parquet")).unwrap();
    damaged[4817] = 255;
    let label = |label: &str| format!("{{\"prompt\": \"p\", \"completion\": \"c\", \"label\": {label}}}\n");
    let cases: [(&str, Vec<u8>, &str); 11] = [
        ("cut.jsonl.gz", whole[..whole.len() / 2].to_vec(), ": the gzip file is truncated"),
        (
            "utf8.jsonl",
            [row_1234("\"c\"").as_bytes(), b"{\"prompt\": \"\xff\"}"].concat(),
            "utf8.jsonl:1235: the line is no UTF-8 text",
        ),
        (
            "column.csv",
            b"prompt,chosen\na,b\n".to_vec(),
            "column.csv:2: row 1: the row has \"prompt\", \"chosen\", and \"rejected\" is missing",
        ),
        ("type.jsonl", row_1234("17").into_bytes(), "type.jsonl:1234: \"chosen\" is a number"),
        (
            "type.json",
            format!("[{}]", row_1234("17").trim().replace('\n', ",")).into_bytes(),
            "type.json: row 1234: \"chosen\" is a number",
        ),
        ("empty.jsonl", Vec::new(), "empty.jsonl: the file holds no rows"),
        ("header.csv", b"prompt,chosen,rejected\n".to_vec(), "header.csv: the file holds no rows"),
        ("long.jsonl", vec![b'x'; 50 << 20], "long.jsonl:1: the line is longer than 16 MiB"),
        (
            "label.jsonl",
            (label("true") + &label("\"yes\"")).into_bytes(),
            "label.jsonl:2: \"label\" is a text, \"yes\", and true or false is expected",
        ),
        ("label.csv", b"prompt,completion,label\np,c,True\np,d,1\n".to_vec(), "label.csv:3: row 2: \"label\" is a text, \"1\""),
        ("damaged.parquet", damaged, "damaged.parquet: row 5: the Parquet file is truncated or damaged: a page can't be decoded"),
    ];
    for (name, bytes, sentence) in cases {
        fs::write(folder.join(name), bytes).unwrap();
        let ran = run_expecting(folder, &["data", "audit", name], 3);
        let error = ran.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{name}: {}", ran.stderr));
        assert!(error.contains(sentence), "{name}: {error}");
        assert!(error.lines().skip(1).all(|line| line.starts_with("help: ")) && ran.stdout.is_empty(), "{name}: {error}");
    }
}

#[test]
fn several_sources_are_learnt_from_by_their_weights_and_audited_each_by_itself() {
    let folder = own_pairs();
    let (folder, suite) = (folder.path(), folder.path().join("mine.toml"));
    let pairs = fs::read_to_string(folder.join("pairs.jsonl")).unwrap();
    let lines: Vec<&str> = pairs.lines().collect();
    fs::write(folder.join("a.jsonl"), lines[..20].join("\n")).unwrap();
    let row = |i: usize| format!("Review number {i}:, it is good., it is bad number {i}.\n");
    let csv: String = (20..40).map(row).collect();
    fs::write(folder.join("b.csv"), format!("question,chosen,rejected\n{csv}")).unwrap();
    let own = "\n[[dataset.source]]\nname = \"first\"\npath = \"a.jsonl\"\nweight = 3\n\n[[dataset.source]]\nname = \"second\"\n\
               path = \"b.csv\"\n[dataset.source.columns]\nprompt = \"question\"\n\n[dataset.audit]\nduplicate_pairs = 0\n\n[train]\n";
    edit(&suite, "path = \"pairs.jsonl\"\nformat = \"explicit\"\n", "");
    edit(&suite, "[train]\nmax_steps = 2\n", &format!("{own}num_train_epochs = 1\n"));
    let audit = items(folder, &["mine.toml"]);
    let (first, second) = (count(&audit, "first/rows"), count(&audit, "second/rows"));
    assert!(first > 2 && second > 2, "{audit}");
    assert_eq!(count(&audit, "first/chosen-longer") + count(&audit, "second/chosen-longer"), count(&audit, "chosen-longer"));
    run_expecting(folder, &["suite", "run", "mine.toml", "--quiet"], 0);
    let log = fs::read_to_string(folder.join("reports/mine/train_log.csv")).unwrap();
    assert_eq!(log.lines().count() as u64 - 1, (3 * first + second).div_ceil(4), "{first} {second}\n{log}");
    let page = fs::read_to_string(folder.join("reports/mine/index.html")).unwrap();
    assert!(page.contains("second&#x2f;rows") && page.contains("id=\"data\""));
    assert!(page.contains("<code dir=\"auto\">label-noise-at-least</code>"));
    let findings = fs::read_to_string(folder.join("reports/mine/findings.csv")).unwrap();
    assert!(!findings.contains("second/"), "{findings}");
    let scores = fs::read_to_string(folder.join("reports/mine/pair_scores.csv")).unwrap();
    assert!(scores.contains("first/line-0000") && scores.contains("second/row-0000"), "{scores}");
}

#[test]
fn raw_ultrafeedback_becomes_pairs_and_what_is_tied_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rated = |text: &str, rating: &str| {
        format!(
            "{{\"response\": \"{text}\", \"overall_score\": 5, \"annotations\": {{\"honesty\": {{\"Rating\": \"{rating}\"}}}}}}"
        )
    };
    let row = |completions: &[String]| {
        format!("{{\"source\": \"x\", \"instruction\": \"why?\", \"completions\": [{}]}}\n", completions.join(", "))
    };
    let rows = [row(&[rated("so", "4"), rated("because", "5"), rated("hm", "N/A")]), row(&[rated("a", "3"), rated("b", "3")])];
    fs::write(folder.join("raw.jsonl"), rows.concat()).unwrap();
    let ran = run_expecting(folder, &["data", "convert", "raw.jsonl", "pairs.jsonl"], 0);
    assert!(ran.stderr.contains("no pair can be made of 1 rows") && ran.stderr.contains("line 2"), "{}", ran.stderr);
    let say = |role: &str, text: &str| format!("[{{\"role\":\"{role}\",\"content\":\"{text}\"}}]");
    let expected = format!(
        "{{\"id\":\"line-000001\",\"prompt\":{},\"chosen\":{},\"rejected\":{}}}\n",
        say("user", "why?"),
        say("assistant", "because"),
        say("assistant", "so")
    );
    assert_eq!(fs::read_to_string(folder.join("pairs.jsonl")).unwrap(), expected);
    let audit = items(folder, &["raw.jsonl"]);
    assert_eq!((count(&audit, "unrated-left-out"), count(&audit, "chosen-longer")), (1, 1));
}

#[test]
fn the_tokenisation_that_a_suite_names_is_what_is_audited_and_trained_on() {
    let folder = own_pairs();
    let (folder, suite) = (folder.path(), folder.path().join("mine.toml"));
    // A token of "good" reaches over the boundary, so that each rule gives ids of its own.
    let pair = |i: usize| {
        format!("{{\"prompt\": \"Review number {i}: it is go\", \"chosen\": \"od.\", \"rejected\": \"od, or number {i}.\"}}\n")
    };
    fs::write(folder.join("pairs.jsonl"), (0..40).map(pair).collect::<String>()).unwrap();
    let joint = fs::read_to_string(&suite).unwrap();
    let mut logs = Vec::new();
    for rule in ["joint", "separate", "walk_back"] {
        let own = format!("format = \"explicit\"\ntokenization = \"{rule}\"\n");
        fs::write(&suite, joint.replace("format = \"explicit\"\n", &own)).unwrap();
        let audit = items(folder, &["mine.toml"]);
        let boundary = audit.as_array().unwrap().iter().find(|item| item["id"] == "boundary-mismatch").unwrap();
        let named = boundary["message"].as_str().unwrap().contains(&format!("(tokenization = \"{rule}\")"));
        assert_eq!((named, boundary["count"].as_u64() > Some(0)), (rule != "joint", true), "{boundary}");
        // Without BOS, as TRL had it, is what `separate` is known by.
        assert_eq!(count(&audit, "missing-bos") > 0, rule == "separate", "{audit}");
        run_expecting(folder, &["train", "mine.toml", "--variant", "dpo", "--output", rule, "--quiet"], 0);
        logs.push(fs::read_to_string(folder.join(rule).join("train_log.csv")).unwrap());
    }
    assert!(logs[0] != logs[1] && logs[0] != logs[2] && logs[1] != logs[2], "{logs:#?}");
    // The rule of today needs no key.
    fs::write(&suite, &joint).unwrap();
    run_expecting(folder, &["train", "mine.toml", "--variant", "dpo", "--output", "unsaid", "--quiet"], 0);
    assert_eq!(fs::read_to_string(folder.join("unsaid/train_log.csv")).unwrap(), logs[0]);
}
