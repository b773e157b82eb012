use super::*;

/// What `text` becomes, line by line.
fn converted(text: &str, to: To, messages: bool) -> std::result::Result<(Vec<String>, Converted), String> {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl.gz"));
    std::fs::write(&input, text).unwrap();
    let done = convert(&input, &output, to, messages);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() == 1 + usize::from(done.is_ok()), "{left:?}");
    let done = done.map_err(|e| e.to_string().replace(&format!("{}/", folder.path().display()), ""))?;
    let mut lines = Vec::new();
    for_each_row(&output, |record| {
        lines.push(serde_json::to_string(&record.fields).unwrap());
        Ok(true)
    })
    .unwrap();
    assert_eq!(lines.len(), done.written);
    Ok((lines, done))
}

const HH: &str = r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why\n\nAssistant: So.", "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why\n\nAssistant: No.\n\nHuman: x\n\nAssistant: y"}"#;

#[test]
fn transcripts_become_pairs_of_texts_or_of_messages() {
    let (lines, _) = converted(HH, To::Pairs, false).unwrap();
    let prompt = r#""prompt":"\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why\n\nAssistant:""#;
    let sides = r#""chosen":" So.","rejected":" No.\n\nHuman: x\n\nAssistant: y""#;
    assert_eq!(lines, [format!("{{\"id\":\"line-000001\",{prompt},{sides}}}")]);
    let (lines, _) = converted(HH, To::Pairs, true).unwrap();
    let say = |role: &str, text: &str| format!("{{\"role\":\"{role}\",\"content\":\"{text}\"}}");
    let prompt = [say("user", "Hi"), say("assistant", "Yes?"), say("user", "Why")].join(",");
    let (chosen, further) =
        (say("assistant", "So."), [say("assistant", "No."), say("user", "x"), say("assistant", "y")].join(","));
    assert_eq!(
        lines,
        [format!("{{\"id\":\"line-000001\",\"prompt\":[{prompt}],\"chosen\":[{chosen}],\"rejected\":[{further}]}}")]
    );
    // And what was written is read as what it is.
    let (again, _) = converted(&lines[0], To::Pairs, true).unwrap();
    assert_eq!(again, lines);
}

#[test]
fn pairs_become_labelled_completions_demonstrations_and_prompts() {
    let pair = r#"{"prompt": "p", "chosen": "c", "rejected": "r", "tools": [{"b": 1, "a": 2}]}"#;
    let lines = |to| converted(pair, to, false).unwrap().0;
    let tools = r#""tools":[{"b":1,"a":2}]"#;
    let labelled = [("c", true), ("r", false)]
        .map(|(text, label)| format!("{{\"prompt\":\"p\",\"completion\":\"{text}\",\"label\":{label},{tools}}}"));
    assert_eq!(lines(To::Unpaired), labelled);
    assert_eq!(lines(To::Completions), [format!("{{\"prompt\":\"p\",\"completion\":\"c\",{tools}}}")]);
    assert_eq!(lines(To::Prompts), [format!("{{\"prompt\":\"p\",{tools}}}")]);
    let desirable = converted(&labelled.join("\n"), To::Completions, false).unwrap().0;
    assert_eq!(desirable, lines(To::Completions));
}

#[test]
fn what_cannot_be_converted_says_so_and_leaves_no_file() {
    let error = converted(r#"{"prompt": "p", "completion": "c", "label": true}"#, To::Pairs, false).unwrap_err();
    assert_eq!(error, "in.jsonl:1: the row is no pair, and pairs can't be made of single completions");
    assert!(converted("", To::Pairs, false).unwrap_err().contains("no rows"));
    let say = |text: &str| format!("{{\"role\": \"user\", \"content\": \"{text}\"}}");
    let answer = r#"{"role": "assistant", "content": "A"}"#;
    let split = |a: &str, b: &str| format!("{{\"chosen\": [{}, {answer}], \"rejected\": [{}, {answer}]}}", say(a), say(b));
    let (lines, done) = converted(&[split("a", "a"), split("a", "b")].join("\n"), To::Pairs, false).unwrap();
    assert_eq!((lines.len(), done.left_out, done.first_left_out.as_deref()), (1, 1, Some("line 2")));
}
