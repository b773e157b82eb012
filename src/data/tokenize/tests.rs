use super::*;

fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).join(path);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn corpus() -> Vec<String> {
    let things = ["desk lamp", "kettle", "backpack", "keyboard", "office chair", "umbrella"];
    let words = ["great", "awful", "sturdy", "noisy", "bright", "flimsy", "remarkably quiet"];
    (0..600).map(|i| format!("The {} is {}, but it isn't {}.", things[i % 6], words[i % 7], words[i * i % 5])).collect()
}

#[derive(serde::Deserialize)]
struct Row {
    prompt: String,
    chosen: String,
    rejected: String,
}

#[derive(serde::Deserialize)]
struct Ids {
    prompt_ids: Vec<u32>,
    chosen_ids: Vec<u32>,
    rejected_ids: Vec<u32>,
}

fn rows<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn the_joint_rule_gives_the_ids_that_trl_recorded() {
    let Some(folder) = shared("reference/trl_parity") else { return };
    let tokenizer = TextTokenizer::load(&folder.join("model")).unwrap();
    let pairs: Vec<Row> = rows(&folder.join("pairs.jsonl"));
    let expected: Vec<Ids> = rows(&folder.join("tokenized.jsonl"));
    assert_eq!(pairs.len(), expected.len());
    for (row, ids) in pairs.into_iter().zip(expected) {
        let Row { prompt, chosen, rejected } = row;
        let pair = Pair { id: String::new(), prompt_id: String::new(), prompt, chosen, rejected, gold: None };
        let tokenized = tokenizer.pair(&pair);
        assert_eq!(tokenized.prompt, ids.prompt_ids);
        assert_eq!(tokenized.chosen, ids.chosen_ids);
        assert_eq!(tokenized.rejected, ids.rejected_ids);
    }
}

#[test]
fn a_pretrained_tokenizer_brings_its_own_bos_and_keeps_the_space_of_a_completion() {
    let Some(folder) = shared("models/stories260k") else { return };
    let tokenizer = TextTokenizer::load(&folder).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.unknown()), (Some(1), 2, Some(0)));
    assert_eq!(tokenizer.vocab_size(), 512);
    assert_eq!(tokenizer.prompt(""), [1]);
    let prompt = tokenizer.prompt("Once upon a time");
    assert_eq!(prompt[0], 1);
    let JointCompletion { ids, boundary_mismatch } = tokenizer.completion("Once upon a time", &prompt, ", Lily ran home.");
    assert!(!boundary_mismatch);
    assert_eq!(ids.last(), Some(&2));
    assert_eq!(tokenizer.decode_after(&prompt, &ids), ", Lily ran home.");
    let spaced = tokenizer.completion("Once", &tokenizer.prompt("Once"), " upon").ids;
    assert_eq!(tokenizer.decode_after(&tokenizer.prompt("Once"), &spaced), " upon");
}

#[test]
fn two_trainings_in_any_order_give_the_same_bytes() {
    let mut texts = corpus();
    let first = TextTokenizer::train(&texts, 400).unwrap();
    texts.reverse();
    for _ in 0..3 {
        assert_eq!(TextTokenizer::train(&texts, 400).unwrap().json, first.json);
    }
    assert_eq!(first.digest(), Digest::of_bytes(first.json()));
}

#[test]
fn a_saved_tokenizer_loads_as_the_same() {
    let tokenizer = TextTokenizer::train(&corpus(), 300).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(1), 2, 300));
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    let again = TextTokenizer::load(folder.path()).unwrap();
    let text = "The kettle is über-great 🙂";
    assert_eq!(again.prompt(text), tokenizer.prompt(text));
    assert_eq!((again.bos(), again.eos(), again.digest()), (Some(1), 2, tokenizer.digest()));
    assert!(again.is_special(0) && again.is_special(2) && !again.is_special(3));
}

#[test]
fn a_chat_template_beside_a_tokenizer_goes_where_it_goes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plain = TextTokenizer::train(&corpus(), 300).unwrap();
    assert_eq!(plain.save(from.path()).unwrap(), ["tokenizer.json", "tokenizer_config.json"]);
    std::fs::write(from.path().join("chat_template.jinja"), "{{ messages }}\r\n").unwrap();
    let loaded = TextTokenizer::load(from.path()).unwrap();
    assert_eq!(loaded.save(to.path()).unwrap(), ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]);
    let written = |to: &Path| std::fs::read_to_string(to.join("chat_template.jinja")).unwrap();
    assert_eq!(written(to.path()), "{{ messages }}\r\n");
    loaded.with_chat_template("own".to_owned()).save(to.path()).unwrap();
    assert_eq!(written(to.path()), "own");
}

#[test]
fn every_text_comes_back_and_special_tokens_do_not() {
    let tokenizer = TextTokenizer::train(&corpus(), 300).unwrap();
    for text in ["", " ", "The kettle.", "  two  spaces\n", "漢字 é\u{301} 🙂\u{0}"] {
        let ids = tokenizer.prompt(text);
        assert_eq!(ids[0], 1);
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(tokenizer.ids(text), ids[1..]);
    }
}

#[test]
fn a_completion_ends_with_one_eos() {
    let tokenizer = TextTokenizer::train(&corpus(), 300).unwrap();
    let prompt = tokenizer.prompt("Review:");
    let plain = tokenizer.completion("Review:", &prompt, " It is great.").ids;
    assert_eq!(tokenizer.completion("Review:", &prompt, " It is great.</s>").ids, plain);
    assert_eq!(plain.iter().filter(|&&id| id == 2).count(), 1);
    assert_eq!(tokenizer.completion("Review:", &prompt, "").ids, [2]);
}

#[test]
fn a_token_over_the_boundary_is_a_mismatch() {
    let tokenizer = TextTokenizer::train(&corpus(), 400).unwrap();
    let prompt = tokenizer.prompt("The ket");
    assert!(tokenizer.completion("The ket", &prompt, "tle is").boundary_mismatch);
    assert!(!tokenizer.completion("The", &tokenizer.prompt("The"), " kettle is").boundary_mismatch);
}

#[test]
fn bad_folders_are_refused_with_the_reason() {
    let tokenizer = TextTokenizer::train(&corpus(), 300).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let message = || TextTokenizer::load(folder.path()).unwrap_err().to_string();
    assert!(message().contains("no such file"), "{}", message());
    write("tokenizer.json", "{}");
    assert!(message().contains("no tokenizer.json that can be read"), "{}", message());
    tokenizer.save(folder.path()).unwrap();
    write("tokenizer_config.json", r#"{"eos_token": "<end>"}"#);
    assert!(message().contains("eos_token is \"<end>\""), "{}", message());
    write("tokenizer_config.json", "{");
    assert!(message().contains("this is no JSON"), "{}", message());
    write("tokenizer_config.json", "{}");
    assert!(message().contains("names no EOS"), "{}", message());
    write("config.json", r#"{"bos_token_id": 1, "eos_token_id": [2, 7]}"#);
    assert!(message().contains("no single id"), "{}", message());
    write("config.json", r#"{"bos_token_id": 1, "eos_token_id": 2}"#);
    assert_eq!(TextTokenizer::load(folder.path()).unwrap().eos(), 2);
    assert!(TextTokenizer::train(&corpus(), 100).unwrap_err().to_string().contains("259"));
    assert!(TextTokenizer::train(&[""], 300).is_err());
}

#[test]
fn texts_of_a_template_are_tokenised_with_nothing_added() {
    let tokenizer = TextTokenizer::train(&corpus(), 300).unwrap().for_texts(true);
    let prompt = tokenizer.prompt("<s>How?</s>");
    assert_eq!((prompt.first(), prompt.last()), (tokenizer.bos().as_ref(), Some(&tokenizer.eos())));
    assert_eq!(prompt.iter().filter(|&&id| Some(id) == tokenizer.bos()).count(), 1);
    let completion = tokenizer.completion("<s>How?</s>", &prompt, " So.</s>\n");
    assert_eq!([prompt, completion.ids].concat(), tokenizer.ids("<s>How?</s> So.</s>\n"));
    assert!(!completion.boundary_mismatch);
}

/// `golden/chat/tokenizations.py`: what TRL 0.19.1's DPOTrainer and TRL 1.16's CPOTrainer make of the same texts.
#[test]
fn other_tokenisations_give_the_ids_that_their_trainers_give() {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/chat"));
    let tokenizer = TextTokenizer::load(&golden.join("tokenizer")).unwrap();
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let (mut compared, mut apart) = (0, 0);
    for line in rows::<Value>(&golden.join("tokenizations.jsonl")) {
        let text = |name: &str| line["row"][name].as_str().unwrap().to_owned();
        let [prompt, chosen, rejected] = ["prompt", "chosen", "rejected"].map(text);
        let read = |tokenization| tokenizer.clone().with_tokenization(tokenization).sequences(&prompt, [&chosen, &rejected]);
        let (start, sides) = read(Tokenization::Separate);
        let separate = &line["separate"];
        assert_eq!((start, sides), (ids(&separate["prompt"]), ["chosen", "rejected"].map(|side| ids(&separate[side]))));
        if line["walk_back"].is_string() {
            // TRL can't read texts of which more than one token reaches over the boundary.
            continue;
        }
        let (start, sides) = read(Tokenization::WalkBack);
        let theirs = ["chosen", "rejected"].map(|side| &line["walk_back"][side]);
        let prompts = theirs.map(|side| side["prompt"].as_u64().unwrap() as usize);
        for (side, theirs) in sides.iter().zip(theirs) {
            assert_eq!([&start[..], side].concat(), ids(&theirs["ids"]), "{prompt:?}");
        }
        assert_eq!(start.len(), prompts[0].min(prompts[1]), "{prompt:?}");
        compared += 1;
        apart += usize::from(prompts[0] != prompts[1]);
    }
    assert_eq!((compared, apart), (8, 1));
    // The joint rule is none of the two.
    let (joint, _) = tokenizer.sequences("Hi", ["!"]);
    assert_eq!(joint, tokenizer.clone().with_tokenization(Tokenization::WalkBack).prompt("Hi"));
    assert_ne!(joint, tokenizer.with_tokenization(Tokenization::Separate).prompt("Hi"));
}
