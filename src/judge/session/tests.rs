use std::path::PathBuf;

use prost::Message;
use serde_json::Value;

use super::*;
use crate::judge::onnx::classifier::tests::{bytes, config, random, sequences};
use crate::judge::onnx::classifier::{INPUT_IDS, LOGITS};
use crate::judge::onnx::graph::{Attribute, Dim, Graph};
use crate::judge::onnx::proto::DataType;
use crate::judge::reader::tests::{PAIRWISE, tokenizer};
use crate::suite::one_or_many::OneOrMany;
use crate::suite::settings::{EncodingSettings, InputRole, JudgeSource, Label, OnnxSettings, Provider, Values};
use crate::watch::Silent;

/// Judges that transformers made and torch exported, and what PyTorch says of texts: `golden/judges/export.py`.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/judges").join(name)
}

fn expected(name: &str) -> Value {
    let text = std::fs::read_to_string(golden("expected.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[name].take()
}

fn settings(kind: JudgeKind, templates: &[&str]) -> JudgeSettings {
    JudgeSettings {
        name: "j".to_owned(),
        kind,
        source: JudgeSource::Folder { path: PathBuf::new() },
        template: OneOrMany(templates.iter().map(|&t| t.to_owned()).collect()),
        max_length: None,
        tie_width: 0.0,
        min_accuracy: 0.5,
        encoding: EncodingSettings::default(),
        onnx: OnnxSettings::default(),
        fitness: Default::default(),
    }
}

const CROSS: [&str; 2] = ["{prompt} {a}", "{prompt} {b}"];

fn bert() -> JudgeSettings {
    settings(JudgeKind::Pairwise, &CROSS)
}

fn deberta() -> JudgeSettings {
    let onnx = OnnxSettings { labels: vec![Label::Second, Label::First], ..OnnxSettings::default() };
    JudgeSettings { onnx, ..bert() }
}

fn reward() -> JudgeSettings {
    settings(JudgeKind::RewardModel, &["{prompt} {completion}"])
}

fn pairrm() -> JudgeSettings {
    let templates = ["<|source|>{prompt}", "<|candidate1|>{a}", "<|candidate2|>{b}"];
    let onnx = OnnxSettings { prompt_max_length: Some(20), ..OnnxSettings::default() };
    JudgeSettings { max_length: Some(44), onnx, ..settings(JudgeKind::Pairwise, &templates) }
}

/// The questions of a golden file as the judge reads them.
fn questions(judge: &OnnxJudge, golden: &Value) -> Vec<Question> {
    let read = |texts: &Value| {
        let texts: Vec<&str> = texts.as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        judge.reader.read(&texts).unwrap()
    };
    golden["questions"].as_array().unwrap().iter().map(read).collect()
}

fn numbers(rows: &Value) -> Vec<Vec<f64>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    rows.as_array().unwrap().iter().map(row).collect()
}

fn check(name: &str, judge: &mut OnnxJudge, of: impl Fn(&[f64]) -> f64) {
    let golden = expected(name);
    let questions = questions(judge, &golden);
    let ids: Vec<Vec<f64>> = questions.iter().map(|q| q.ids.iter().map(|&id| f64::from(id)).collect()).collect();
    assert_eq!(ids, numbers(&golden["ids"]), "{name}: transformers encodes otherwise");
    // Each of PairRM's questions has a completion that is longer than its share.
    assert!(questions.iter().any(|q| q.truncated) && (name == "pairrm" || questions.iter().any(|q| !q.truncated)));
    let answers = judge.ask(&questions, &Silent).unwrap();
    for (answer, row) in answers.iter().zip(numbers(&golden["outputs"])) {
        assert!((answer - of(&row)).abs() < 1e-4, "{name}: {answer}, PyTorch gives {row:?}");
    }
}

/// By the definition: softmax, a tie half for each side, and the logit of that.
fn of_three(row: &[f64]) -> f64 {
    let e: Vec<f64> = row.iter().map(|x| x.exp()).collect();
    ((e[0] + e[2] / 2.0) / (e[1] + e[2] / 2.0)).ln()
}

#[test]
fn judges_exported_from_transformers_score_as_pytorch_does() {
    check("bert", &mut OnnxJudge::open(&golden("bert"), &bert(), 2).unwrap(), of_three);
    check("deberta", &mut OnnxJudge::open(&golden("deberta"), &deberta(), 2).unwrap(), |row| row[1] - row[0]);
    for name in ["roberta", "llama"] {
        check(name, &mut OnnxJudge::open(&golden(name), &reward(), 2).unwrap(), |row| row[0]);
    }
    check("pairrm", &mut OnnxJudge::open(&golden("pairrm"), &pairrm(), 2).unwrap(), |row| row[0]);
}

#[test]
fn what_the_folder_says_of_lengths_and_sides_is_taken_and_recorded() {
    let record = |name, settings| OnnxJudge::open(&golden(name), &settings, 1).unwrap().record().unwrap();
    let of = |record: SessionRecord| (record.max_length, record.truncation_side);
    assert_eq!(of(record("bert", bert())), (48, Side::Right));
    assert_eq!(of(record("roberta", reward())), (40, Side::Right));
    assert_eq!(of(record("llama", reward())), (56, Side::Left));
    let bert = serde_json::to_value(record("bert", bert())).unwrap();
    assert_eq!(bert["inputs"]["token_type_ids"], "token_type_ids");
    assert_eq!(bert["meaning"], serde_json::json!({"values": "logits", "labels": ["first", "second", "tie"]}));
    assert_eq!(bert["provider"], "cpu");
    assert!(bert["runtime_version"].as_str().unwrap().starts_with(char::is_numeric));
    let llama = serde_json::to_value(record("llama", reward())).unwrap();
    assert_eq!(llama["padding"]["token"], 3);
}

/// The BERT's folder with another model in it.
fn variant(model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        std::fs::copy(golden("bert").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::copy(golden(model), folder.path().join(MODEL_FILE)).unwrap();
    folder
}

#[test]
fn other_forms_of_a_model_score_as_the_plain_one_does() {
    for model in ["int32", "probabilities"] {
        let folder = variant(&format!("variants/{model}.onnx"));
        check("bert", &mut OnnxJudge::open(folder.path(), &bert(), 1).unwrap(), of_three);
    }
    let folder = variant("variants/external.onnx");
    let error = OnnxJudge::open(folder.path(), &bert(), 1).err().expect("weights are missing");
    assert!(error.message.contains("external.onnx.data"), "{error}");
    std::fs::copy(golden("variants/external.onnx.data"), folder.path().join("external.onnx.data")).unwrap();
    let mut external = OnnxJudge::open(folder.path(), &bert(), 1).unwrap();
    check("bert", &mut external, of_three);
    let before = external.model_digest();
    let path = folder.path().join("external.onnx.data");
    let mut weights = std::fs::read(&path).unwrap();
    weights[5] ^= 1;
    std::fs::write(&path, weights).unwrap();
    assert_ne!(OnnxJudge::open(folder.path(), &bert(), 1).unwrap().model_digest(), before);
}

#[test]
fn half_precision_and_int8_score_as_onnxruntime_in_python_does_and_int8_is_asked_one_by_one() {
    let plain = numbers(&expected("bert")["outputs"]);
    for (name, to_runtime, to_pytorch) in [("half", 1e-2, 1e-2), ("int8", 1e-5, 0.1)] {
        let folder = variant(&format!("variants/{name}.onnx"));
        let mut judge = OnnxJudge::open(folder.path(), &bert(), 2).unwrap();
        let answers = judge.ask(&questions(&judge, &expected("bert")), &Silent).unwrap();
        for ((answer, runtime), pytorch) in answers.iter().zip(numbers(&expected(name)["runtime"])).zip(&plain) {
            assert!((answer - of_three(&runtime)).abs() < to_runtime, "{name}: {answer}, Python has {runtime:?}");
            assert!((answer - of_three(pytorch)).abs() < to_pytorch, "{name}: {answer}, PyTorch has {pytorch:?}");
        }
        if name == "int8" {
            assert_eq!(judge.model.batching, Batching::Alone);
            assert!(judge.audit().is_some_and(|item| item.message.contains("one by one")));
        }
    }
}

#[test]
fn an_answer_has_the_same_bits_whatever_else_is_asked() {
    for (name, settings) in
        [("bert", bert()), ("deberta", deberta()), ("roberta", reward()), ("llama", reward()), ("pairrm", pairrm())]
    {
        let mut judge = OnnxJudge::open(&golden(name), &settings, 2).unwrap();
        let questions = questions(&judge, &expected(name));
        let together = judge.ask(&questions, &Silent).unwrap();
        for (question, expected) in questions.iter().zip(&together) {
            let alone = judge.ask(std::slice::from_ref(question), &Silent).unwrap();
            assert_eq!(alone[0].to_bits(), expected.to_bits(), "{name} ({:?})", judge.model.batching);
        }
    }
}

#[test]
fn the_cut_of_a_candidate_is_counted_and_a_cut_prompt_too() {
    let judge = OnnxJudge::open(&golden("pairrm"), &pairrm(), 1).unwrap();
    let cut = |prompt: &str, a: &str, b: &str| judge.reader.read(&[prompt, a, b]).unwrap().truncated;
    let long = "The lamp is bright. ".repeat(20);
    assert!(!cut("Say.", "Good.", "Bad."));
    assert!(cut("Say.", "Good.", &long) && cut("Say.", &long, "Bad.") && cut(&long, "Good.", "Bad."));
    let settings = JudgeSettings { onnx: OnnxSettings::default(), ..pairrm() };
    let error = OnnxJudge::open(&golden("pairrm"), &settings, 1).err().expect("no length of the prompt");
    assert!(error.help.as_ref().is_some_and(|h| h.contains("prompt_max_length")), "{error}");
}

#[test]
fn what_the_suite_declares_wins_over_the_folder() {
    let onnx = OnnxSettings {
        truncation_side: Some(Side::Right),
        padding_side: Some(Side::Left),
        pad_token_id: Some(0),
        labels: vec![Label::Bad],
        ..OnnxSettings::default()
    };
    let declared = JudgeSettings { max_length: Some(30), onnx, ..reward() };
    let mut judge = OnnxJudge::open(&golden("llama"), &declared, 1).unwrap();
    let record = serde_json::to_value(judge.record().unwrap()).unwrap();
    assert_eq!((&record["truncation_side"], &record["padding"]["side"]), (&"right".into(), &"left".into()));
    let said = judge.reader.read(&[&"long ".repeat(60), "end"]).unwrap();
    assert!(said.truncated && said.ids.len() == 30);
    // The plain judge says the same of a short text with the other sign.
    let short = judge.reader.read(&["Say why.", "Good."]).unwrap();
    let mut plain = OnnxJudge::open(&golden("llama"), &reward(), 1).unwrap();
    let answers = [judge.ask(std::slice::from_ref(&short), &Silent).unwrap()[0], plain.ask(&[short], &Silent).unwrap()[0]];
    assert_eq!(answers[0], -answers[1]);
}

#[test]
fn a_gpu_that_the_library_has_no_code_for_is_an_error_and_no_fallback() {
    let onnx = OnnxSettings { provider: Some(Provider::Cuda), ..OnnxSettings::default() };
    match OnnxJudge::open(&golden("bert"), &JudgeSettings { onnx, ..bert() }, 1) {
        Ok(judge) => assert_eq!(serde_json::to_value(judge.record().unwrap()).unwrap()["provider"], "cuda"),
        Err(error) => {
            assert!(error.message.contains("can't compute on a GPU"), "{error}");
            assert!(error.help.is_some_and(|help| help.contains("ORT_DYLIB_PATH")));
        }
    }
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(MODEL_FILE);
    std::fs::write(&path, bytes).unwrap();
    tokenizer().save(folder.path()).unwrap();
    (folder, path)
}

fn ours(path: &Path, threads: usize) -> Model {
    Model::open(path, JudgeKind::RewardModel, threads).unwrap()
}

#[test]
fn a_score_of_our_own_judges_depends_neither_on_its_batch_nor_on_its_worker() {
    let (_folder, path) = written(&bytes(&random()));
    let mut sequences = sequences();
    let varied = |i: usize| sequences[i % 7].iter().map(|&id| (id + i as u32) % 300).collect();
    let more: Vec<Vec<u32>> = (0..90).map(varied).collect();
    sequences.extend(more);
    let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let together = ours(&path, 3).logits(&rows, &Silent).unwrap();
    let mut one = ours(&path, 1);
    for (row, expected) in rows.iter().zip(&together) {
        assert_eq!(one.logits(&[row], &Silent).unwrap()[0].to_bits(), expected.to_bits());
    }
}

#[test]
fn a_model_with_damaged_weights_is_refused_at_opening() {
    let mut model = random();
    model.parameters.get_mut("model.norm.weight").values[3] = f32::NAN;
    let (folder, path) = written(&bytes(&model));
    let error = ours(&path, 1).logits(&[&[1, 2, 3]], &Silent).unwrap_err();
    assert!(error.message.contains("gave NaN for a sequence of 3 tokens"), "{error}");
    let settings = settings(JudgeKind::RewardModel, &["{prompt}{completion}"]);
    let error = OnnxJudge::open(folder.path(), &settings, 1).err().expect("NaN");
    assert!(error.message.contains("the model gave NaN"), "{error}");
}

/// A model that sums an input of the given name and form.
fn summing(input: &str, data_type: DataType, dims: &[Dim], output: &str, axis: i64) -> Vec<u8> {
    let mut g = Graph::default();
    let x = g.input(input, data_type, dims);
    let float = g.op_with("Cast", &[&x], &[("to", Attribute::Int(1))]);
    let axis = g.ints("axis", &[axis]);
    let sum = g.op("ReduceSum", &[&float, &axis]);
    g.output(&sum, output, DataType::Float, &dims.iter().map(|_| Dim::Named("any")).collect::<Vec<_>>());
    g.into_model("summing", &BTreeMap::new()).encode_to_vec()
}

#[test]
fn models_with_another_signature_are_refused_with_what_is_wrong_and_the_key_to_write() {
    use Dim::{Fixed, Named};
    let (batch, sequence) = (Named("batch"), Named("sequence"));
    let cases = [
        (summing("tokens", DataType::Int64, &[batch, sequence], LOGITS, -1), "what its input `tokens` is", "inputs = "),
        (summing(INPUT_IDS, DataType::Int64, &[batch, sequence, sequence], LOGITS, -1), "i64 with 3 dimensions", "int64"),
        (summing(INPUT_IDS, DataType::Float, &[batch, sequence], LOGITS, -1), "`input_ids` is f32 with 2 dimensions", "int64"),
        (summing(INPUT_IDS, DataType::Int64, &[Fixed(1), Fixed(8)], LOGITS, -1), "has the fixed shape [1, 8]", "dynamic_axes"),
        (summing(INPUT_IDS, DataType::Int64, &[Fixed(1), sequence], LOGITS, -1), "has the fixed shape", "dynamic_axes"),
    ];
    for (bytes, what, help) in cases {
        let (_folder, path) = written(&bytes);
        let error = Model::open(&path, JudgeKind::RewardModel, 1).err().expect("a model that can't judge");
        assert!(error.message.contains(what), "{error}");
        assert!(error.help.as_ref().is_some_and(|h| h.contains(help)), "{error:?}");
    }
}

#[test]
fn other_names_are_declared_and_a_sum_of_ids_is_asked_without_a_mask() {
    let dims = [Dim::Named("batch"), Dim::Named("sequence")];
    let (folder, _path) = written(&summing("tokens", DataType::Int64, &dims, "total", -1));
    let plain = settings(JudgeKind::RewardModel, &["{prompt}{completion}"]);
    let onnx = OnnxSettings {
        inputs: BTreeMap::from([(InputRole::InputIds, "tokens".to_owned())]),
        output: Some("total".to_owned()),
        values: Some(Values::Logits),
        labels: vec![Label::Good],
        ..OnnxSettings::default()
    };
    let mut settings = JudgeSettings { max_length: Some(40), onnx, ..plain };
    let mut judge = OnnxJudge::open(folder.path(), &settings, 1).unwrap();
    // Without a mask the model would sum padding too, were there any.
    assert_eq!(judge.model.batching, Batching::EqualLengths);
    assert!(judge.audit().is_some_and(|item| item.message.contains("of one length")));
    let questions: Vec<Question> =
        ["Good", "Very bright", "It"].iter().map(|t| judge.reader.read(&["Say", t]).unwrap()).collect();
    let answers = judge.ask(&questions, &Silent).unwrap();
    let sums: Vec<f64> = questions.iter().map(|q| q.ids.iter().map(|&id| f64::from(id)).sum()).collect();
    assert_eq!(answers, sums);
    settings.onnx.output = Some("sum".to_owned());
    let error = OnnxJudge::open(folder.path(), &settings, 1).err().expect("no such output");
    assert!(error.message.contains("no output `sum`") && error.help.is_some_and(|h| h.contains("`total`")));
    settings.onnx.output = None;
    settings.max_length = None;
    let error = OnnxJudge::open(folder.path(), &settings, 1).err().expect("no length");
    assert!(error.help.as_ref().is_some_and(|h| h.contains("max_length")), "{error}");
}

#[test]
fn a_judge_that_was_probed_is_asked_as_then_unless_what_its_scores_rest_on_changed() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("session.json");
    let judge = OnnxJudge::open(&golden("bert"), &bert(), 1).unwrap();
    let found = judge.model.batching;
    assert_ne!(found, Batching::Alone);
    let asked = |key: &str, value: &str, settings: &JudgeSettings| {
        let mut recorded = serde_json::to_value(judge.record().unwrap()).unwrap();
        recorded[key] = value.into();
        std::fs::write(&record, recorded.to_string()).unwrap();
        OnnxJudge::reopen(&golden("bert"), settings, 2, &record).unwrap().model.batching
    };
    // What no probe of this model would find is taken from the record, so that none was made.
    assert_eq!(asked("batching", "alone", &bert()), Batching::Alone);
    assert_eq!(asked("batching", "nonsense", &bert()), found);
    for (key, value) in [("model", "another"), ("runtime_library", "another"), ("provider", "cuda")] {
        let other = OnnxJudge::reopen(&golden("bert"), &bert(), 2, &record).unwrap().model.batching;
        assert_eq!((asked(key, value, &bert()), other), (found, found), "{key}");
    }
    let shorter = JudgeSettings { max_length: Some(20), ..bert() };
    assert_eq!(asked("batching", "alone", &shorter), found);
    assert_eq!(OnnxJudge::reopen(&golden("bert"), &bert(), 1, Path::new("nowhere")).unwrap().model.batching, found);
}

#[test]
fn a_number_that_is_one_of_many_a_text_is_no_answer() {
    let dims = [Dim::Named("batch"), Dim::Named("sequence")];
    let onnx = OnnxSettings { labels: vec![Label::Good], ..OnnxSettings::default() };
    let settings = JudgeSettings { max_length: Some(40), onnx, ..settings(JudgeKind::RewardModel, &["{prompt}{completion}"]) };
    // Sums over the batch: (1, sequence), or (sequence), whose form alone could be (batch).
    let mut g = Graph::default();
    let x = g.input(INPUT_IDS, DataType::Int64, &dims);
    let float = g.op_with("Cast", &[&x], &[("to", Attribute::Int(1))]);
    let axis = g.ints("axis", &[0]);
    let sum = g.op_with("ReduceSum", &[&float, &axis], &[("keepdims", Attribute::Int(0))]);
    g.output(&sum, LOGITS, DataType::Float, &[Dim::Named("any")]);
    let flat = g.into_model("summing", &BTreeMap::new()).encode_to_vec();
    for (bytes, what) in [
        (summing(INPUT_IDS, DataType::Int64, &dims, LOGITS, 0), "`logits` is f32 with 2 dimensions [1, -1]"),
        (flat, "numbers of `logits` for 1 sequences"),
    ] {
        let (folder, _path) = written(&bytes);
        let error = OnnxJudge::open(folder.path(), &settings, 1).err().expect("a number a token");
        assert!(error.message.contains(what), "{error}");
    }
}

#[test]
fn files_that_are_missing_or_no_model_are_refused_by_name() {
    let (folder, _path) = written(b"not a model");
    let error = OnnxJudge::open(folder.path(), &reward(), 1).err().expect("no model");
    assert!(error.to_string().contains("model.onnx: ONNX Runtime can't load it"), "{error}");
    let folder = variant("bert/model.onnx");
    std::fs::remove_file(folder.path().join(TOKENIZER_FILE)).unwrap();
    let error = OnnxJudge::open(folder.path(), &bert(), 1).err().expect("no tokenizer");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model_is_refused() {
    let folder = variant("bert/model.onnx");
    let path = folder.path().join(TOKENIZER_FILE);
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let size = json["model"]["vocab"].as_object().unwrap().len();
    json["model"]["vocab"]["unheard"] = size.into();
    std::fs::write(&path, json.to_string()).unwrap();
    for config in [true, false] {
        let error = OnnxJudge::open(folder.path(), &bert(), 1).err().expect("an id without a place");
        let said = if config { "vocab_size of its config.json" } else { "fails on the last of them" };
        assert!(error.message.contains(&format!("{} different tokens", size + 1)) && error.message.contains(said), "{error}");
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.path().join("config.json")).unwrap()).unwrap();
        config.as_object_mut().unwrap().remove("vocab_size");
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    }
}

#[test]
fn a_length_beyond_the_models_positions_is_tried_and_refused() {
    let too_long = JudgeSettings { max_length: Some(80), ..bert() };
    let error = OnnxJudge::open(&golden("bert"), &too_long, 1).err().expect("only 64 positions");
    assert!(error.message.contains("can't read max_length = 80 tokens; its config.json says 64"), "{error}");
    // Relative positions have no end.
    assert!(OnnxJudge::open(&golden("deberta"), &JudgeSettings { max_length: Some(80), ..deberta() }, 1).is_ok());
}

#[test]
fn a_judge_of_ours_is_refused_a_longer_input_than_its_model_takes() {
    let (folder, _path) = written(&bytes(&random()));
    let one = settings(JudgeKind::Pairwise, &[PAIRWISE]);
    let positions = config().max_position_embeddings;
    assert!(OnnxJudge::open(folder.path(), &JudgeSettings { max_length: Some(positions), ..one.clone() }, 1).is_ok());
    let settings = JudgeSettings { max_length: Some(positions + 1), ..one };
    let error = OnnxJudge::open(folder.path(), &settings, 1).err().expect("too long");
    assert!(error.message.contains("takes at most 64 tokens"), "{error}");
}
