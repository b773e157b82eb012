use std::path::Path;

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Recorded {
    date: String,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    template: String,
    special_tokens: std::collections::BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Field,
    tools: Option<Field>,
    add_generation_prompt: bool,
    text: Option<String>,
    error: Option<String>,
}

fn objects(messages: &Field) -> Vec<Object> {
    let Field::List(items) = messages else { panic!("messages are a list") };
    let object = |item: &Field| if let Field::Object(object) = item { object.clone() } else { panic!("a message is an object") };
    items.iter().map(object).collect()
}

fn recorded() -> Recorded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/chat/templates.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Recorded {
    fn template(&self, name: &str) -> ChatTemplate {
        let found = self.templates.iter().find(|t| t.name == name).unwrap();
        let tokens = found.special_tokens.clone().into_iter().collect();
        ChatTemplate::new(&found.template, tokens, Some(self.date.parse().unwrap())).unwrap()
    }
}

fn say(role: &str, content: &str) -> Object {
    Object(vec![("role".to_owned(), role.into()), ("content".to_owned(), content.into())])
}

#[test]
fn fourteen_templates_write_what_transformers_writes() {
    let recorded = recorded();
    let mut compared = 0;
    for template in &recorded.templates {
        let ours = recorded.template(&template.name);
        for (index, case) in template.cases.iter().enumerate() {
            let text = ours.render(&objects(&case.messages), case.tools.as_ref(), case.add_generation_prompt);
            let shown = format!("{} case {index}", template.name);
            match (&case.text, &case.error) {
                (Some(expected), None) => assert_eq!(text.as_ref().map_err(ToString::to_string), Ok(expected), "{shown}"),
                (None, Some(expected)) => {
                    let error = text.expect_err(&shown).to_string();
                    assert!(error.ends_with(&format!("the template says: {expected}")), "{shown}: {error}");
                }
                _ => panic!("{shown} has a text or an error"),
            }
            compared += 1;
        }
    }
    assert_eq!((recorded.templates.len(), compared), (14, 88));
}

#[test]
fn a_template_that_asks_for_the_date_gets_the_stated_one_or_none() {
    let date = |date: Option<&str>| {
        let template = ChatTemplate::new("{{ strftime_now('%d.%m.%Y') }}", Vec::new(), date.map(|d| d.parse().unwrap())).unwrap();
        template.render(&[], None, false).map_err(|e| e.to_string())
    };
    assert_eq!(date(Some("2025-02-03")).unwrap(), "03.02.2025");
    assert!(date(None).unwrap_err().contains("state one as chat_date"));
}

#[test]
fn prompt_and_completion_are_cut_where_the_assistants_answer_begins() {
    let recorded = recorded();
    let (prompt, completion) = ([say("user", "Hi")], [say("assistant", "Hello."), say("user", "?"), say("assistant", "!")]);
    let cut = recorded.template("chatml").cut(&prompt, &completion, None).unwrap().unwrap();
    assert_eq!(cut.prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(cut.completion, "Hello.<|im_end|>\n<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n!<|im_end|>\n");
    // DeepSeek's template begins a thought where the answer is to come, and writes none into answers that were given.
    assert_eq!(recorded.template("deepseek-r1").cut(&prompt, &completion[..1], None).unwrap(), None);
}

#[test]
fn a_template_that_is_no_template_is_refused_with_its_line() {
    let error = ChatTemplate::new("a\n{% if %}", Vec::new(), None).unwrap_err().to_string();
    assert!(error.starts_with("line 2 of the chat template isn't understood"), "{error}");
    // What begins a tag and what ends it may share no sign.
    let error = ChatTemplate::new("{%}{{ 1 }}{%}", Vec::new(), None).unwrap_err().to_string();
    assert!(error.contains("the chat template isn't understood"), "{error}");
    let template = ChatTemplate::new("{{ messages[0].content.nothing() }}", Vec::new(), None).unwrap();
    let error = template.render(&[say("user", "Hi")], None, false).unwrap_err().to_string();
    assert!(error.contains("can't write this conversation") && error.contains("nothing"), "{error}");
}

#[test]
fn a_template_that_never_ends_is_an_error() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::new(endless, Vec::new(), None).unwrap();
    let error = template.render(&[say("user", "Hi")], None, false).unwrap_err().to_string();
    assert!(error.contains("can't write this conversation") && error.contains("fuel"), "{error}");
}

#[test]
fn a_folders_template_and_special_tokens_are_found_wherever_tokenizers_keep_them() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert_eq!(of_folder(folder.path()).unwrap(), None);
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#,
    );
    assert_eq!(of_folder(folder.path()).unwrap().as_deref(), Some("d"));
    write(
        "tokenizer_config.json",
        r#"{"chat_template": "c", "bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": null}"#,
    );
    assert_eq!(of_folder(folder.path()).unwrap().as_deref(), Some("c"));
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(special_tokens(folder.path()).unwrap(), tokens);
    write("chat_template.jinja", "j");
    assert_eq!(of_folder(folder.path()).unwrap().as_deref(), Some("j"));
}
