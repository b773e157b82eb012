use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

/// The rows of a file of this name, as JSON; the file's folder is cut from errors.
fn rows(name: &str, bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let shown = format!("{}/", folder.path().display());
    rows_of(&path).map_err(|e| e.to_string().replace(&shown, ""))
}

fn rows_of(path: &Path) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for_each_row(path, |record| {
        rows.push(format!("{}: {}", record.place.shown(), serde_json::to_string(&record.fields).unwrap()));
        Ok(true)
    })?;
    Ok(rows)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/data").join(name)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

const LINES: &str = "{\"b\": 1, \"a\": \"é\"}\n\n{\"b\": null, \"a\": [true, {\"z\": 0.5, \"y\": {}}]}\n";

#[test]
fn the_same_rows_come_out_of_every_file_format() {
    let expected = ["{\"b\":1,\"a\":\"é\"}", "{\"b\":null,\"a\":[true,{\"z\":0.5,\"y\":{}}]}"];
    let lines = [format!("line 1: {}", expected[0]), format!("line 3: {}", expected[1])];
    assert_eq!(rows("a.jsonl", LINES.as_bytes()).unwrap(), lines);
    assert_eq!(rows("a.jsonl.gz", &gzip(LINES.as_bytes())).unwrap(), lines);
    // Whatever the name, and in two frames.
    let (first, second) = LINES.split_once("\n\n").unwrap();
    let frames = [zstandard(format!("\u{feff}{first}\n\n").as_bytes()), zstandard(second.as_bytes())].concat();
    assert_eq!(rows("a.txt", &frames).unwrap(), lines);
    let list = format!("\u{feff} [{}, \n {}]\n", expected[0], expected[1]);
    let listed = [format!("row 1: {}", expected[0]), format!("row 2: {}", expected[1])];
    assert_eq!(rows("a.json", list.as_bytes()).unwrap(), listed);
    assert_eq!(rows("a.json.zst", &zstandard(list.as_bytes())).unwrap(), listed);
    assert_eq!(rows("a.json", b"[]").unwrap(), [""; 0]);
}

#[test]
fn csv_has_a_header_and_quoted_values_over_several_lines() {
    let text = "prompt,chosen\n\"a, \"\"b\"\"\nc\",x\n\nd,\n";
    let expected = ["row 1: {\"prompt\":\"a, \\\"b\\\"\\nc\",\"chosen\":\"x\"}", "row 2: {\"prompt\":\"d\",\"chosen\":\"\"}"];
    assert_eq!(rows("a.csv", text.as_bytes()).unwrap(), expected);
    assert_eq!(
        rows("a.csv", format!("\u{feff}{text}").replace('\n', "\r\n").replace("\\r\\n", "\\n").as_bytes()).unwrap().len(),
        2
    );
    assert_eq!(rows("a.CSV.gz", &gzip(text.as_bytes())).unwrap(), expected);
    assert_eq!(rows("a.tsv", b"prompt\tchosen\n1\ttrue\n").unwrap(), ["row 1: {\"prompt\":\"1\",\"chosen\":\"true\"}"]);
}

/// `golden/data/files.py` says what was written.
#[test]
fn parquet_is_read_under_the_compressions_that_shards_have() {
    let expected: Vec<String> = (0..5)
        .map(|n| {
            let say = |role: &str, text: String| format!("{{\"role\":\"{role}\",\"content\":\"{text}\"}}");
            let prompt = [say("system", "Be brief.".into()), say("user", format!("What is {n} + {n}?"))].join(",");
            let (chosen, rejected) = (say("assistant", format!("{}", 2 * n)), format!("{}, naïvely 漢", 2 * n + 1));
            let rejected = say("assistant", rejected);
            let score = f64::from(n) / 4.0;
            // Other columns are there, though bytes have no JSON.
            format!(
                "row {}: {{\"prompt\":[{prompt}],\"chosen\":[{chosen}],\"rejected\":[{rejected}],\"score\":{score:?},\"raw\":null}}",
                n + 1
            )
        })
        .collect();
    for codec in ["snappy", "zstd", "gzip"] {
        let mut rows = rows_of(&golden(&format!("conversations.{codec}.parquet"))).unwrap();
        // Arrow orders the fields of a struct by the first message.
        rows.iter_mut().for_each(|row| *row = in_order(row));
        assert_eq!(rows, expected, "{codec}");
    }
}

/// Messages with the role first.
fn in_order(row: &str) -> String {
    let (place, json) = row.split_once(": ").unwrap();
    let Field::Object(mut fields) = serde_json::from_str(json).unwrap() else { panic!("{row}") };
    for (_, value) in &mut fields.0 {
        let Field::List(messages) = value else { continue };
        for message in messages {
            let Field::Object(message) = message else { panic!("{row}") };
            message.0.sort_by(|a, b| b.0.cmp(&a.0));
        }
    }
    format!("{place}: {}", serde_json::to_string(&fields).unwrap())
}

#[test]
fn every_kind_of_broken_file_gets_one_sentence_with_its_place() {
    let mut many = "{\"a\": \"a long enough text\"}\n".repeat(2000).into_bytes();
    let cut = |bytes: &[u8]| bytes[..bytes.len() * 2 / 3].to_vec();
    let noise: Vec<u8> =
        (0..40_000u64).flat_map(|i| format!("{{\"a\": {}}}\n", i * i * 2_654_435_761 % 1_000_003).into_bytes()).collect();
    let mut damaged = zstandard(&noise);
    damaged[20..80].fill(0xff);
    let parquet = std::fs::read(golden("labelled.parquet")).unwrap();
    let long = format!("[{{\"a\": 1}}, {{\"a\": \"{}\"}}]", "x".repeat(50 << 20));
    many.extend(b"{\"a\": ");
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("truncated gzip", "a.jsonl.gz", cut(&gzip(&noise))),
        ("truncated Zstandard", "a.jsonl.zst", cut(&zstandard(&noise))),
        ("damaged Zstandard", "a.jsonl.zst", damaged),
        ("truncated gzip of a list", "a.json.gz", cut(&gzip(format!("[{}", r#"{"a": 1},"#.repeat(1000)).as_bytes()))),
        ("truncated gzip of CSV", "a.csv.gz", cut(&gzip(format!("a,b\n{}", "1,2\n".repeat(1000)).as_bytes()))),
        ("a file that ends within a row", "a.jsonl", many),
        ("50 MB line", "a.jsonl", format!("{{\"a\": 1}}\n{{\"a\": \"{}\"}}", "x".repeat(50 << 20)).into_bytes()),
        ("50 MB row of a list", "a.json", long.into_bytes()),
        ("50 MB row of CSV", "a.csv", format!("a,b\n1,2\n\"{}", "x\n".repeat(25 << 20)).into_bytes()),
        ("bad UTF-8", "a.jsonl", b"{\"a\": 1}\n{\"a\": \"\xff\"}".to_vec()),
        ("bad UTF-8 in a list", "a.json", b"[{\"a\": 1}, {\"a\": \"\xff\"}]".to_vec()),
        ("bad UTF-8 in CSV", "a.csv", b"a,b\n1,2\n1,\xff\n".to_vec()),
        ("a list that ends early", "a.json", b"[{\"a\": 1},\n {\"a\": 2".to_vec()),
        ("a list of texts", "a.json", b"[\"a\"]".to_vec()),
        ("a list and more", "a.json", b"[{\"a\": 1}] x".to_vec()),
        ("an object over lines", "a.json", b"{\n\"a\": 1\n}".to_vec()),
        ("too few values", "a.csv", b"a,b\n1,2\n1\n".to_vec()),
        ("a column twice", "a.csv", b"a,a\n1,2\n".to_vec()),
        ("truncated Parquet", "a.parquet", cut(&parquet)),
        ("Parquet without rows' bytes", "a.parquet", [&parquet[..4], &parquet[300..]].concat()),
        ("Parquet under Brotli", "a.parquet", std::fs::read(golden("labelled.brotli.parquet")).unwrap()),
    ];
    let shown: Vec<String> = cases
        .iter()
        .map(|(what, name, bytes)| format!("{what}\n{}\n", rows(name, bytes).map(|rows| rows.len()).unwrap_err()))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn what_is_read_stops_where_the_caller_stops() {
    for (name, text) in
        [("a.jsonl", "{\"a\": 1}\nno JSON"), ("a.json", "[{\"a\": 1}, no JSON"), ("a.csv", "a\n1\n\"no\" CSV,2\n")]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        for_each_row(&path, |_| Ok(false)).unwrap();
        let error = for_each_row(&path, |record| Err(record.error("no"))).unwrap_err().to_string();
        assert!(error.ends_with("no"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), which in 0..4usize) {
        let start: [&[u8]; 4] = [b"", b"[", b"a,b\n", &[0x28, 0xb5, 0x2f, 0xfd]];
        let _ = rows(["a.jsonl", "a.json", "a.csv", "a.zst"][which], &[start[which], &bytes].concat());
    }

    #[test]
    fn no_damage_makes_the_parquet_reader_panic(at in 4..1392usize, byte: u8, file in 0..2usize) {
        let mut bytes = std::fs::read(golden(["labelled.parquet", "conversations.snappy.parquet"][file])).unwrap();
        bytes[at] = byte;
        let _ = rows("a.parquet", &bytes);
    }
}

#[test]
fn what_is_named_parquet_and_is_none_is_told_so() {
    let error = rows("pairs.PARQUET", b"<html>404</html>").unwrap_err();
    assert!(error.contains("no Parquet file") && error.contains("pairs.PARQUET"), "{error}");
}
