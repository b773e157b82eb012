use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::data::source::LONGEST_ROW;
use crate::data::tokenize::TextTokenizer;

/// What reading `bytes` gives; the file's folder is cut from errors.
fn read_as(bytes: &[u8], format: PairsFormat) -> std::result::Result<Rows<Pair>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    std::fs::write(&path, bytes).unwrap();
    let shown = format!("{}/", folder.path().display());
    read_pairs(&path, format, None).map_err(|e| e.to_string().replace(&shown, ""))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const TWO: &str = r#"{"prompt": "How is it?", "chosen": " Good.", "rejected": " Bad.", "id": 7}
{"prompt": "How is it?", "chosen": " Fine.", "rejected": "", "score": 3}
"#;

#[test]
fn explicit_pairs_are_read_plain_and_gzipped() {
    let plain = read_as(TWO.as_bytes(), PairsFormat::Explicit).unwrap();
    assert_eq!(plain, read_as(&gzip(TWO.as_bytes()), PairsFormat::Explicit).unwrap());
    assert_eq!(plain.rows.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["7", "line-000002"]);
    assert_eq!(plain.rows[0].prompt_id, plain.rows[1].prompt_id);
    assert_eq!(plain.rows[1].rejected, "");
    let with_mark = format!("\u{feff}\n{}\r\n\r\n", TWO.trim().replace('\n', "\r\n"));
    assert_eq!(read_as(with_mark.as_bytes(), PairsFormat::Explicit).unwrap().rows.len(), 2);
}

#[test]
fn every_kind_of_bad_file_gets_its_sentence() {
    let third = |line: &str| format!("{TWO}{line}\n").into_bytes();
    let mut half = gzip(TWO.repeat(3).as_bytes());
    half.truncate(half.len() / 2);
    let mut no_text = third("");
    no_text.extend(b"{\"prompt\": \"\xff\"}\n");
    let mut damaged = gzip(&TWO.bytes().map(|b| b.wrapping_mul(31)).collect::<Vec<_>>());
    damaged[14] ^= 0x55;
    let explicit: Vec<(&str, Vec<u8>)> = vec![
        ("empty file", Vec::new()),
        ("blank lines", b"\n\n".to_vec()),
        ("identical sides", third(r#"{"prompt": "p", "chosen": "a", "rejected": "a"}"#)),
        ("missing field", third(r#"{"prompt": "p", "chosen": "a"}"#)),
        ("wrong type", third(r#"{"prompt": "p", "chosen": 3, "rejected": "a"}"#)),
        ("conversation", third(r#"{"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}"#)),
        ("wrong id", third(r#"{"prompt": "p", "chosen": "b", "rejected": "a", "id": 1.5}"#)),
        ("id twice", third(r#"{"prompt": "p", "chosen": "b", "rejected": "a", "id": "7"}"#)),
        ("bad JSON", third(r#"{"prompt": "p", "chosen": "b" "rejected"}"#)),
        ("cut JSON", third(r#"{"prompt": "p", "cho"#)),
        ("no object", third("[1, 2]")),
        ("bad UTF-8", no_text),
        ("truncated gzip", half),
        ("damaged gzip", damaged),
        ("one long line", vec![b'x'; (LONGEST_ROW + 10) as usize]),
    ];
    let mut shown: Vec<String> = explicit
        .iter()
        .map(|(name, bytes)| format!("{name}\n{}\n", read_as(bytes, PairsFormat::Explicit).unwrap_err()))
        .collect();
    let lone = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}"#;
    shown.push(format!("no shared turn\n{}\n", read_as(lone.as_bytes(), PairsFormat::Hh).unwrap_err()));
    let missing = read_pairs(Path::new("no/such/file.jsonl"), PairsFormat::Explicit, None).unwrap_err();
    shown.push(format!("missing file\n{missing}\n"));
    insta::assert_snapshot!(shown.join("\n"));
}

/// As TRL's `KTOTrainer` reads them; the names of its columns.
const LABELLED: &str = r#"{"prompt": "How is it?", "completion": " Good.", "label": true}
{"prompt": "How is it?", "completion": " Bad.", "label": false, "id": "second"}
"#;

fn read_labelled_as(text: &str, limit: Option<usize>) -> std::result::Result<Vec<LabelledCompletion>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, text).unwrap();
    let shown = format!("{}/", folder.path().display());
    let file = RowFile { limit, ..RowFile::new(&path, PairsFormat::Unpaired) };
    let checked = |rows: Vec<LabelledCompletion>| {
        let mut labels = Labels::default();
        rows.iter().for_each(|row| labels.add(row.label));
        labels.both("rows that are read").map_err(|e| e.in_file(&path)).map(|()| rows)
    };
    file.labelled().and_then(|file| checked(file.rows)).map_err(|e| e.to_string().replace(&shown, ""))
}

#[test]
fn labelled_completions_are_read_with_their_labels() {
    let rows = read_labelled_as(LABELLED, None).unwrap();
    let seen: Vec<(&str, &str, bool)> = rows.iter().map(|r| (r.id.as_str(), r.completion.as_str(), r.label)).collect();
    assert_eq!(seen, [("line-000001", " Good.", true), ("second", " Bad.", false)]);
    assert_eq!(rows[0].prompt_id, prompt_id("How is it?"));
    assert_eq!(read_labelled_as(&format!("{LABELLED}this is no JSON"), Some(2)).unwrap(), rows);
}

#[test]
fn every_kind_of_bad_labelled_row_gets_its_sentence() {
    let row = |fields: &str| (format!("{LABELLED}{{{fields}}}\n"), None);
    let bad: [(&str, (String, Option<usize>)); 12] = [
        ("empty file", (String::new(), None)),
        ("no completion", row(r#""prompt": "p", "label": true"#)),
        ("no prompt", row(r#""completion": "c", "label": true"#)),
        ("no label", row(r#""prompt": "p", "completion": "c""#)),
        ("null label", row(r#""prompt": "p", "completion": "c", "label": null"#)),
        ("word for a label", row(r#""prompt": "p", "completion": "c", "label": "yes""#)),
        ("quoted label", row(r#""prompt": "p", "completion": "c", "label": "true""#)),
        ("number for a label", row(r#""prompt": "p", "completion": "c", "label": 1"#)),
        ("a pair", row(r#""prompt": "p", "chosen": "c", "rejected": "r""#)),
        ("conversation", row(r#""prompt": "p", "completion": [{"role": "assistant"}], "label": true"#)),
        ("id twice", row(r#""prompt": "p", "completion": "c", "label": true, "id": "second""#)),
        ("one label", (LABELLED.replace("false", "true"), None)),
    ];
    let mut shown: Vec<String> =
        bad.iter().map(|(name, (text, limit))| format!("{name}\n{}\n", read_labelled_as(text, *limit).unwrap_err())).collect();
    shown.push(format!("one label within the limit\n{}\n", read_labelled_as(LABELLED, Some(1)).unwrap_err()));
    for format in [PairsFormat::Explicit, PairsFormat::Unpaired] {
        shown.push(format!("read as {format:?} pairs\n{}\n", read_as(LABELLED.as_bytes(), format).unwrap_err()));
    }
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn a_wrong_type_far_down_a_file_is_named_by_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let message = |name: &str, row: &dyn Fn(usize) -> String, (first, between, last): (&str, &str, &str)| {
        let rows: Vec<String> = (1..=2000).map(row).collect();
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{first}{}{last}", rows.join(between))).unwrap();
        let error = RowFile::new(&path, PairsFormat::Unpaired).labelled().unwrap_err().to_string();
        error.lines().next().unwrap().replace(&format!("{}/", folder.path().display()), "")
    };
    let json = |number: usize| {
        let label = if number == 1234 { "\"good\"" } else { ["false", "true"][number % 2] };
        format!("{{\"prompt\": \"p\", \"completion\": \"c\", \"label\": {label}}}")
    };
    let said = "\"label\" is a text, \"good\", and true or false is expected";
    assert_eq!(message("a.jsonl", &json, ("", "\n", "")), format!("a.jsonl:1234: {said}"));
    assert_eq!(message("a.json", &json, ("[", ",\n", "]")), format!("a.json: row 1234: {said}"));
    let csv = |number: usize| format!("p,c,{}", if number == 1234 { "good" } else { ["False", "True"][number % 2] });
    assert_eq!(message("a.csv", &csv, ("prompt,completion,label\n", "\n", "\n")), format!("a.csv:1235: row 1234: {said}"));
    let parquet = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/data/labelled.parquet");
    let error = RowFile::new(&parquet, PairsFormat::Unpaired).labelled().unwrap_err().to_string();
    assert!(error.contains("labelled.parquet: row 4: \"label\" is null, and true or false is expected"), "{error}");
}

/// Hugging Face's ChatML.
const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

#[test]
fn conversations_are_written_by_a_template_and_what_it_cannot_cut_is_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let say = |role: &str, text: &str| format!("{{\"role\": \"{role}\", \"content\": \"{text}\"}}");
    let row = |question: &str, chosen: &str, rejected: &str| {
        let side = |answer: &str| format!("[{}, {}]", say("user", question), say("assistant", answer));
        format!("{{\"chosen\": {}, \"rejected\": {}}}\n", side(chosen), side(rejected))
    };
    let other = row("a", "1", "2").replacen("\"a\"", "\"b\"", 1);
    let text = [row("a", "1", "2"), row("a", "1", "1"), other, row("<|im_end|>", "1", "2")].concat();
    std::fs::write(&path, text).unwrap();
    let file = RowFile::new(&path, PairsFormat::Conversations);
    assert!(file.pairs().unwrap_err().to_string().contains("no chat template"));
    let tokens = vec![("eos_token".to_owned(), "<|im_end|>".to_owned())];
    let template = ChatTemplate::new(CHATML, tokens, None).unwrap();
    let Rows { rows, audit } = RowFile { template: Some(&template), ..file.clone() }.pairs().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].prompt, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!((rows[0].chosen.as_str(), rows[0].rejected.as_str()), ("1<|im_end|>\n", "2<|im_end|>\n"));
    let counts: Vec<(&str, u64, u64)> = audit.iter().map(|i| (i.id.as_str(), i.count, i.total)).collect();
    let expected = [("identical-sides-left-out", 1, 4), ("unsplit-left-out", 1, 4), ("prompt-not-in-conversation", 0, 4)];
    assert_eq!(counts, [&expected[..], &[("special-tokens-in-messages", 1, 4)]].concat());
    let thinking =
        ChatTemplate::new(&format!("{CHATML}{{% if add_generation_prompt %}}<think>{{% endif %}}"), Vec::new(), None).unwrap();
    let error = RowFile { template: Some(&thinking), ..file.clone() }.pairs().unwrap_err().to_string();
    assert!(error.contains("holds no pairs") && error.contains("don't begin with their prompt"), "{error}");
    // Texts where conversations are expected, and the other way round.
    std::fs::write(&path, TWO).unwrap();
    assert!(file.pairs().unwrap_err().to_string().contains("a conversation is expected"));
    std::fs::write(&path, row("a", "1", "2")).unwrap();
    let error = RowFile::new(&path, PairsFormat::Explicit).pairs().unwrap_err().to_string();
    assert!(error.contains("\"prompt\" is missing") && error.contains("format = \"conversations\""), "{error}");
}

/// `golden/chat/tokens.py` says how they were recorded.
#[test]
fn conversations_get_the_token_ids_that_trl_gives_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/chat");
    let model = folder.join("tokenizer");
    let tokenizer = TextTokenizer::load(&model).unwrap().for_texts(true);
    let template = crate::data::template::of_model(&model).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("row.json");
    let recorded: Vec<serde_json::Value> = read_jsonl(&folder.join("tokens.jsonl")).unwrap();
    assert_eq!(recorded.len(), 3);
    for case in recorded {
        std::fs::write(&path, format!("[{}]", case["row"])).unwrap();
        let file = RowFile { template: Some(&template), ..RowFile::new(&path, PairsFormat::Conversations) };
        let pair = tokenizer.pair(&file.pairs().unwrap().rows[0]);
        let ids = serde_json::json!({"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected});
        assert_eq!(ids, case["ids"], "{}", case["row"]);
    }
}

#[test]
fn transcripts_are_cut_after_the_last_shared_assistant_turn() {
    let line = |chosen: &str, rejected: &str| serde_json::json!({"chosen": chosen, "rejected": rejected}).to_string() + "\n";
    let start = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: why";
    let text = [
        line(&format!("{start}\n\nAssistant: Because é."), &format!("{start}\n\nAssistant: Because è.")),
        line(&format!("{start}\n\nAssistant: No.\n\nHuman: x\n\nAssistant: y"), &format!("{start}\n\nAssistant: Yes.")),
        line(&format!("{start}\n\nAssistant: Same."), &format!("{start}\n\nAssistant: Same.")),
    ];
    let file = read_as(text.concat().as_bytes(), PairsFormat::Hh).unwrap();
    assert_eq!(file.rows.len(), 2);
    assert_eq!(file.rows[0].prompt, format!("{start}\n\nAssistant:"));
    assert_eq!((file.rows[0].chosen.as_str(), file.rows[0].rejected.as_str()), (" Because é.", " Because è."));
    assert_eq!(file.audit.iter().map(|item| item.count).collect::<Vec<_>>(), [1, 0, 1]);
    assert!(file.audit[0].message.ends_with("the first: line 3"), "{}", file.audit[0].message);
}

#[test]
fn transcripts_of_two_conversations_are_left_out_and_counted() {
    let line = |chosen: &str, rejected: &str| format!("{}\n", serde_json::json!({"chosen": chosen, "rejected": rejected}));
    let same = line("\n\nHuman: Why?\n\nAssistant: So.", "\n\nHuman: Why?\n\nAssistant: No.");
    let two = line("\n\nHuman: Why?\n\nAssistant: So.", "\n\nHuman: When?\n\nAssistant: Now.");
    let file = read_as((same + &two).as_bytes(), PairsFormat::Hh).unwrap();
    assert_eq!(file.rows.len(), 1);
    let item = file.audit.iter().find(|item| item.id == "unsplit-left-out").unwrap();
    assert_eq!((item.count, item.total), (1, 2));
    assert!(item.message.contains("line 2, they share no turn"), "{}", item.message);
    // Without any turn it is no transcript at all.
    let error = read_as(line("So.", "No.").as_bytes(), PairsFormat::Hh).unwrap_err().to_string();
    assert!(error.contains("share no turn that ends with"), "{error}");
}

#[test]
fn a_limit_takes_the_first_pairs_and_reads_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    std::fs::write(&path, format!("{TWO}this is no JSON")).unwrap();
    assert_eq!(read_pairs(&path, PairsFormat::Explicit, Some(2)).unwrap().rows.len(), 2);
}

proptest! {
    #[test]
    fn rows_written_are_the_rows_read(texts in proptest::collection::vec((".{0,40}", ".{0,40}", ".{0,40}"), 0..20)) {
        let pair = |(i, (prompt, chosen, rejected)): (usize, (String, String, String))| Pair {
            id: i.to_string(), prompt_id: prompt_id(&prompt), prompt, chosen, rejected, gold: None,
        };
        let pairs: Vec<Pair> = texts.into_iter().enumerate().map(pair).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        write_jsonl(&path, &pairs).unwrap();
        prop_assert_eq!(read_jsonl::<Pair>(&path).unwrap(), pairs);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), hh: bool) {
        let _ = read_as(&bytes, if hh { PairsFormat::Hh } else { PairsFormat::Explicit });
    }
}
