use std::path::Path;

use super::*;
use crate::data::source::Position;

fn record(json: &str) -> Record<'static> {
    let Field::Object(fields) = serde_json::from_str(json).unwrap() else { panic!("{json}") };
    Record { path: Path::new("rows.jsonl"), place: Position::Row(1234), untyped: false, fields }
}

/// The form that is seen, and the row as `role: text` lines.
fn read(json: &str) -> std::result::Result<String, String> {
    let (record, columns) = (record(json), Columns::default());
    let shown = |content: &Content| match content {
        Content::Text(text) => format!("{text:?}"),
        Content::Messages(messages) => {
            let one = |m: &Object| format!("{}: {}", role(m), m.get("content").and_then(Field::text).unwrap_or("–"));
            format!("[{}]", messages.iter().map(one).collect::<Vec<_>>().join(" | "))
        }
    };
    let row = Form::of(&record, &columns).and_then(|form| Ok((form, form.read(&record, &columns)?)));
    let (form, row) = row.map_err(|e| e.to_string())?;
    let said = match &row.said {
        Said::Pair { chosen, rejected } => format!("{} > {}", shown(chosen), shown(rejected)),
        Said::Labelled { completion, label } => format!("{} is {label}", shown(completion)),
        Said::Completion(completion) => shown(completion),
        Said::Nothing => "nothing".to_owned(),
        Said::Unsplit(reason) => format!("unsplit: {reason}"),
        Said::Rated(completions) => completions
            .iter()
            .map(|c| format!("{:?} {:?} {:?}", c.text, c.overall_score, c.rating))
            .collect::<Vec<_>>()
            .join(", "),
        Said::Unrated(reason) => format!("unrated: {reason}"),
    };
    Ok(format!("{}: {} -> {said}", form.name(), shown(&row.prompt)))
}

const HI: &str = r#"{"role": "user", "content": "Hi"}"#;
const A: &str = r#"{"role": "assistant", "content": "A"}"#;
const B: &str = r#"{"role": "assistant", "content": "B"}"#;

#[test]
fn every_published_form_is_told_by_its_columns_and_read() {
    let cases = [
        // TRL, "Dataset formats and types".
        r#"{"prompt": "Hi", "chosen": " A", "rejected": " B"}"#.to_owned(),
        format!(r#"{{"prompt": [{HI}], "chosen": [{A}], "rejected": [{B}]}}"#),
        format!(r#"{{"chosen": [{HI}, {A}], "rejected": [{HI}, {B}]}}"#),
        r#"{"prompt": "Hi", "completion": " A", "label": true}"#.to_owned(),
        format!(r#"{{"prompt": [{HI}], "completion": [{A}], "label": false}}"#),
        r#"{"prompt": "Hi", "completion": " A"}"#.to_owned(),
        format!(r#"{{"prompt": [{HI}], "completion": [{A}]}}"#),
        r#"{"prompt": "Hi"}"#.to_owned(),
        format!(r#"{{"prompt": [{HI}]}}"#),
        // HH-RLHF.
        r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": "\n\nHuman: Hi\n\nAssistant: B"}"#.to_owned(),
        // UltraFeedback, binarized.
        format!(
            r#"{{"prompt": "Hi", "prompt_id": "x", "chosen": [{HI}, {A}], "rejected": [{HI}, {B}], "score_chosen": 8.5, "messages": []}}"#
        ),
        // LLaMA-Factory, ranking.
        r#"{"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"}, "system": "Brief."}"#
            .to_owned(),
        r#"{"instruction": "Hi", "input": "", "chosen": "A", "rejected": "B"}"#.to_owned(),
        // UltraFeedback, as it was collected.
        r#"{"source": "x", "instruction": "Hi", "completions": [{"response": "A", "overall_score": 7.5, "annotations":
            {"honesty": {"Rating": "4"}, "truthfulness": {"Rating": 5}, "helpfulness": {"Rating": "N/A"}}}, {"response": "B"}]}"#
            .to_owned(),
        r#"{"instruction": "Hi", "input": "there", "chosen": "A", "rejected": "B", "history": [["x", "y"]], "system": "s"}"#
            .to_owned(),
    ];
    let shown: Vec<String> = cases.iter().map(|json| read(json).unwrap()).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn implicit_prompts_end_where_a_message_ends_and_what_cannot_be_split_says_so() {
    let split = |chosen: &str, rejected: &str| read(&format!(r#"{{"chosen": [{chosen}], "rejected": [{rejected}]}}"#)).unwrap();
    // Characters in common are no prompt: TRL's `extract_prompt` on texts would give "The sky is bl".
    let text = read(r#"{"chosen": "The sky is blue.", "rejected": "The sky is black."}"#).unwrap_err();
    assert!(text.contains("no turns") && text.contains("row 1234"), "{text}");
    let more = r#"{"role": "user", "content": "?"}"#;
    assert_eq!(
        split(&format!("{HI},{A},{more},{B}"), &format!("{HI},{A}")),
        "conversations: [user: Hi] -> [assistant: A | user: ? | assistant: B] > [assistant: A]"
    );
    assert_eq!(split(&format!("{HI},{A}"), &format!("{HI},{A}")), "conversations: [user: Hi] -> [assistant: A] > [assistant: A]");
    assert!(split(&format!("{HI},{A}"), &format!("{more},{A}")).ends_with("unsplit: they share no first message"));
    assert!(split(A, A).ends_with("unsplit: they share no first message"));
    assert!(split(&format!("{HI},{A},{HI},{B}"), &format!("{HI},{A},{more},{B}")).ends_with("that isn't the assistant's"));
}

#[test]
fn every_kind_of_bad_row_gets_one_sentence_with_file_and_row() {
    let cases = [
        r#"{}"#.to_owned(),
        r#"{"question": "Hi", "chosen": "A"}"#.to_owned(),
        r#"{"messages": []}"#.to_owned(),
        r#"{"instruction": "Hi", "completions": [{"response": "A"}, {"text": "B"}]}"#.to_owned(),
        format!(r#"{{"prompt": [{HI}], "chosen": "A", "rejected": "B"}}"#),
        format!(r#"{{"prompt": "Hi", "chosen": [{A}], "rejected": "B"}}"#),
        r#"{"chosen": [{"role": "user"}], "rejected": []}"#.to_owned(),
        r#"{"chosen": [{"content": "x"}], "rejected": []}"#.to_owned(),
        r#"{"chosen": ["x"], "rejected": []}"#.to_owned(),
        r#"{"chosen": [{"role": "user", "content": 3}], "rejected": []}"#.to_owned(),
        r#"{"conversations": [{"from": "function_call", "value": "x"}], "chosen": {}, "rejected": {}}"#.to_owned(),
        r#"{"conversations": "x", "chosen": {}, "rejected": {}}"#.to_owned(),
        r#"{"instruction": "Hi", "input": 3, "chosen": "A", "rejected": "B"}"#.to_owned(),
        r#"{"instruction": "Hi", "history": [["x"]], "chosen": "A", "rejected": "B"}"#.to_owned(),
        format!(r#"{{"prompt": "Hi", "completion": [{A}], "label": true}}"#),
        r#"{"prompt": "Hi", "completion": "A", "label": "maybe"}"#.to_owned(),
        r#"{"prompt": "Hi", "completion": "A", "label": 0.5}"#.to_owned(),
        r#"{"prompt": 3}"#.to_owned(),
        format!(r#"{{"prompt": [{HI}], "tools": 3}}"#),
    ];
    let shown: Vec<String> = cases.iter().map(|json| format!("{json}\n{}\n", read(json).unwrap_err())).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn columns_may_have_other_names_and_messages_name_the_files_own() {
    let columns = Columns([("prompt", "question"), ("chosen", "good")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    let mapped = |json: &str| {
        let record = record(json);
        Form::of(&record, &columns).and_then(|form| form.read(&record, &columns)).map_err(|e| e.to_string())
    };
    let row = mapped(r#"{"question": "Hi", "prompt": "unused", "good": "A", "chosen": 7, "rejected": "B"}"#).unwrap();
    assert_eq!(row.prompt, Content::Text("Hi".to_owned()));
    let wrong = record(r#"{"question": 3, "good": "A", "rejected": "B"}"#);
    let wrong = Form::Pairs.read(&wrong, &columns).unwrap_err().to_string();
    assert!(wrong.starts_with("rows.jsonl: row 1234: \"question\" is a number"), "{wrong}");
    assert!(mapped(r#"{"prompt": "Hi", "rejected": "B"}"#).unwrap_err().contains("\"prompt\", \"rejected\""));
}

#[test]
fn tools_are_a_list_or_its_json_and_labels_of_csv_are_words() {
    let tools = |json: &str| {
        let record = record(&format!(r#"{{"prompt": [{HI}], "tools": {json}}}"#));
        Form::Prompts.read(&record, &Columns::default()).unwrap().tools
    };
    assert_eq!(tools(r#"[{"b": 1, "a": 2}]"#), tools(r#""[{\"b\": 1, \"a\": 2}]""#));
    assert!(tools(r#"[{"b": 1}]"#).is_some());
    assert_eq!((tools("[]"), tools("null"), tools(r#""""#)), (None, None, None));
    let label = |text: &str, untyped| {
        let record = Record { untyped, ..record(&format!(r#"{{"prompt": "p", "completion": "c", "label": {text}}}"#)) };
        Form::Labelled.read(&record, &Columns::default()).map(|row| matches!(row.said, Said::Labelled { label: true, .. }))
    };
    assert!(label(r#""True""#, true).unwrap() && !label(r#""false""#, true).unwrap());
    assert!(label(r#""1""#, true).unwrap_err().to_string().contains("else false"));
    assert!(label(r#""true""#, false).is_err());
}

#[test]
fn half_a_pair_lacks_its_other_side() {
    let error = read(r#"{"prompt": "p", "chosen": "a"}"#).unwrap_err();
    assert!(error.contains("row 1234") && error.contains("\"rejected\" is missing"), "{error}");
    let error = read(r#"{"prompt": "p", "chosen": null, "rejected": "a", "completion": "c"}"#).unwrap_err();
    assert!(error.contains("\"chosen\" is missing"), "{error}");
}
