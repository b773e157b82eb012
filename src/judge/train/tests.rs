use super::*;
use crate::judge::asking::Asking;
use crate::judge::protocol;
use crate::judge::reader::tests::{PAIRWISE, REWARD};
use crate::judge::session::OnnxJudge;
use crate::numerics::isa;
use crate::rng::Stream;
use crate::suite::settings::{
    EvaluationSettings, FreshModel, JudgeSource, Numerics, ObjectiveSettings, OnnxSettings, Optimizer, PackingStrategy, Pooling,
    Sampling, Scheduler,
};

const GOOD: [&str; 4] = ["bright", "sturdy", "lovely", "quiet"];
const BAD: [&str; 4] = ["dull", "flimsy", "ugly", "noisy"];

/// Pairs in which the chosen side praises and the rejected one doesn't.
fn pairs(n: usize, purpose: &str) -> Vec<Pair> {
    let mut stream = Stream::of(3, purpose, 0);
    let pair = |i| {
        let (good, bad) = (*stream.choose(&GOOD), *stream.choose(&BAD));
        let thing = *stream.choose(&["lamp", "kettle", "desk"]);
        Pair {
            id: format!("{purpose}-{i}"),
            prompt_id: format!("{purpose}-{i}"),
            prompt: format!("Review the {thing}."),
            chosen: format!(" The {thing} is {good}."),
            rejected: format!(" The {thing} is {bad}."),
            gold: None,
        }
    };
    (0..n).map(pair).collect()
}

fn tokenizer() -> TextTokenizer {
    let texts: Vec<String> =
        pairs(100, "corpus").into_iter().flat_map(|p| [p.prompt.clone() + &p.chosen, p.prompt + &p.rejected]).collect();
    TextTokenizer::train(&texts, 320).unwrap()
}

fn base(tokenizer: &TextTokenizer) -> Llama {
    let model = FreshModel {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        initializer_range: 0.1,
        tie_word_embeddings: true,
    };
    Llama::fresh(&model, tokenizer.vocab_size(), tokenizer.bos().unwrap(), tokenizer.eos(), 1)
}

fn training(max_steps: u64) -> TrainSettings {
    TrainSettings {
        lora: None,
        objective: ObjectiveSettings::default(),
        learning_rate: 3e-3,
        lr_scheduler_type: Scheduler::Constant,
        warmup_steps: 0,
        optim: Optimizer::Adamw,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        momentum: 0.0,
        weight_decay: 0.0,
        max_grad_norm: Some(1.0),
        per_device_train_batch_size: 8,
        gradient_accumulation_steps: 1,
        num_train_epochs: 1.0,
        max_steps: Some(max_steps),
        max_length: None,
        packing: false,
        packing_strategy: PackingStrategy::Bfd,
        resid_pdrop: 0.0,
        gradient_checkpointing: false,
        save_steps: None,
        sampling: Sampling::Shuffle,
        rounds: None,
        online: None,
        evaluation: EvaluationSettings::default(),
    }
}

fn settings(kind: JudgeKind) -> JudgeSettings {
    JudgeSettings {
        name: "toy".to_owned(),
        kind,
        source: JudgeSource::Train(Box::new(training(1))),
        template: if kind == JudgeKind::Pairwise { PAIRWISE } else { REWARD }.to_owned().into(),
        max_length: Some(64),
        tie_width: 0.0,
        min_accuracy: 0.5,
        encoding: EncodingSettings::default(),
        onnx: OnnxSettings::default(),
        fitness: Default::default(),
    }
}

const ENCODER: EncodingSettings = EncodingSettings { attention: Attention::Bidirectional, pooling: Pooling::Mean };

/// How judges can read.
const ENCODINGS: [EncodingSettings; 4] = [
    EncodingSettings { attention: Attention::Causal, pooling: Pooling::Last },
    EncodingSettings { attention: Attention::Causal, pooling: Pooling::Mean },
    EncodingSettings { attention: Attention::Bidirectional, pooling: Pooling::Last },
    ENCODER,
];

const KINDS: [JudgeKind; 2] = [JudgeKind::Pairwise, JudgeKind::RewardModel];

fn trained(settings: &JudgeSettings, steps: u64, work: &Path) -> TrainedJudge {
    let (tokenizer, pairs) = (tokenizer(), pairs(64, "train"));
    train_judge(settings, &training(steps), &base(&tokenizer), &tokenizer, &pairs, 7, work, &Silent).unwrap()
}

#[test]
fn both_kinds_learn_and_their_onnx_files_judge_unseen_pairs_right() {
    let causal = EncodingSettings::default();
    for (kind, encoding, steps) in [
        (JudgeKind::RewardModel, causal, 40),
        (JudgeKind::Pairwise, causal, 120),
        (JudgeKind::RewardModel, ENCODER, 40),
        (JudgeKind::Pairwise, ENCODER, 120),
    ] {
        let work = tempfile::tempdir().unwrap();
        let settings = JudgeSettings { encoding, ..settings(kind) };
        let judge = trained(&settings, steps, work.path());
        assert!(judge.disagreement <= TOLERANCE, "{}", judge.disagreement);
        let onnx = OnnxJudge::open(&judge.folder, &settings, 1).unwrap();
        let mut judge = Asking::new("j", onnx, 0.0, None);
        let trials = protocol::trials(&mut judge, "j", &pairs(40, "unseen"), &Silent).unwrap();
        let right = trials.iter().filter(|t| t.preference > 0.5).count();
        assert!(right >= 38, "{kind:?} {encoding:?}: {right} of 40");
    }
}

/// A model of another family with random weights for this tokenizer.
fn base_of(family: &str, tokenizer: &TextTokenizer) -> Llama {
    let (vocabulary, eos) = (tokenizer.vocab_size(), tokenizer.eos());
    let sizes = match family {
        "gpt2" => r#""n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64"#,
        _ => {
            r#""hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
            "max_position_embeddings": 64, "head_dim": 8"#
        }
    };
    let sizes = if family == "gpt_neox" || family == "phi" { sizes.replace(", \"head_dim\": 8", "") } else { sizes.to_owned() };
    let sizes = if family == "gpt_neox" { sizes.replace("\"num_key_value_heads\": 2,", "") } else { sizes };
    let config = format!("{{\"model_type\": \"{family}\", \"vocab_size\": {vocabulary}, \"eos_token_id\": {eos}, {sizes}}}");
    Llama::random(LlamaConfig::from_json(&config).unwrap(), 1)
}

#[test]
fn a_judge_over_another_family_is_trained_and_exported() {
    let (tokenizer, pairs, work) = (tokenizer(), pairs(4, "train"), tempfile::tempdir().unwrap());
    for family in ["mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "phi", "gemma", "gemma2", "gemma3_text"] {
        let base = base_of(family, &tokenizer);
        for (kind, encoding) in KINDS.into_iter().flat_map(|kind| [EncodingSettings::default(), ENCODER].map(|e| (kind, e))) {
            let settings = JudgeSettings { encoding, ..settings(kind) };
            let work = work.path().join(format!("{family} {kind:?} {:?}", encoding.attention));
            let judge = train_judge(&settings, &training(2), &base, &tokenizer, &pairs, 7, &work, &Silent).unwrap();
            assert!(judge.disagreement <= TOLERANCE, "{family} {settings:?}");
            let trained = Scorer::load(&judge.folder).unwrap();
            let moved = |name: &str| trained.parameters.get(name).values != base.parameters.get(name).values;
            assert!(moved(&format!("{}.weight", base.config.family.names().final_norm)), "{family}");
            // A bias that all scores share is no part of any answer.
            let bias = format!("{}.bias", base.config.family.names().final_norm);
            assert!(trained.parameters.find(&bias).is_none() || !moved(&bias), "{family}");
        }
    }
}

#[test]
fn the_same_training_gives_the_same_files() {
    let files = |work: &Path| {
        let judge = trained(&settings(JudgeKind::Pairwise), 3, work);
        ["model.onnx", "model.safetensors", "judge.json", "tokenizer.json"].map(|f| std::fs::read(judge.folder.join(f)).unwrap())
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = files(one.path());
    assert!(first == files(two.path()));
    assert!(first == files(one.path()), "a call on a finished folder");
}

#[test]
fn threads_micro_batches_and_instruction_sets_change_no_bit_of_twenty_steps() {
    let (tokenizer, pairs) = (tokenizer(), pairs(64, "train"));
    let base = base(&tokenizer);
    let files = |isa, threads, micro_batch, kind, encoding| {
        let work = tempfile::tempdir().unwrap();
        let settings = JudgeSettings { encoding, ..settings(kind) };
        let training = TrainSettings {
            per_device_train_batch_size: micro_batch,
            gradient_accumulation_steps: 8 / micro_batch,
            ..training(20)
        };
        let pool = isa::pool(isa, threads).unwrap();
        pool.install(|| learn(&settings, &training, &base, &tokenizer, &pairs, 7, work.path(), &Silent)).unwrap();
        ["judge/model.safetensors", "train/chain.jsonl"].map(|file| Digest::of_file(&work.path().join(file)).unwrap())
    };
    for (kind, encoding) in KINDS.into_iter().flat_map(|kind| [EncodingSettings::default(), ENCODER].map(|e| (kind, e))) {
        let expected = files(isa::active(), 1, 8, kind, encoding);
        assert_eq!(files(isa::active(), 2, 1, kind, encoding), expected, "{kind:?} {encoding:?}: micro-batches of one");
        assert_eq!(files(isa::active(), 4, 2, kind, encoding), expected, "{kind:?} {encoding:?}: micro-batches of two");
        for isa in isa::native() {
            assert_eq!(files(isa, 1, 8, kind, encoding), expected, "{kind:?} {encoding:?}: {isa}");
        }
    }
}

#[test]
fn an_untrained_pair_costs_ln_2_and_gradients_are_the_losss_slope() {
    for kind in [JudgeKind::Pairwise, JudgeKind::RewardModel] {
        assert!((loss(kind, &[0.0, 0.0]).0 - std::f64::consts::LN_2).abs() < 1e-15);
        for answers in [[0.3, -1.2], [-2.0, 5.0], [40.0, -40.0]] {
            let gradient = loss(kind, &answers).1;
            for side in 0..2 {
                let at = |shift: f64| {
                    let mut moved = answers;
                    moved[side] += shift;
                    loss(kind, &moved).0
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((slope - gradient[side]).abs() < 1e-9, "{kind:?} {answers:?}: {slope} {gradient:?}");
            }
        }
    }
}

/// Two questions that begin alike, and a model of this form for them.
fn asked(form: Form) -> (Scorer, [Question; 2]) {
    let tokenizer = tokenizer();
    let model = Scorer::from_llama(&base(&tokenizer), 2);
    let questions = ["Review the lamp. It is dull.", "Review the lamp. It is so lovely."].map(|text| {
        let ids = tokenizer.prompt(text);
        Question { split: Some(ids.len() / 2), ids, truncated: false }
    });
    match form.encoding.attention {
        Attention::Causal => (model, questions),
        Attention::Bidirectional => (model.in_both_directions(), questions),
    }
}

fn forms() -> impl Iterator<Item = Form> {
    KINDS.into_iter().flat_map(|kind| ENCODINGS.map(|encoding| Form { kind, encoding }))
}

#[test]
fn questions_asked_together_score_as_if_alone() {
    for form in forms() {
        let (model, questions) = asked(form);
        let (mut together, mut reads) = (Packed::new(), Reads::new(form));
        reads.push_both(&mut together, &questions);
        let shares = together.rows() < questions.iter().map(|q| q.ids.len()).sum();
        assert_eq!(shares, form.encoding.attention == Attention::Causal, "{form:?}");
        let alone = |question: &Question| {
            let (mut packed, mut reads) = (Packed::new(), Reads::new(form));
            reads.push(&mut packed, question);
            reads.answers(&model.score(&packed, &reads.rows))
        };
        let expected: Vec<f32> = questions.iter().flat_map(alone).collect();
        assert_eq!(reads.answers(&model.score(&together, &reads.rows)), expected, "{form:?}");
        assert!(expected[0] != expected[1] && expected[0] != 0.0, "{form:?}: {expected:?}");
    }
}

#[test]
fn the_answers_gradients_are_their_slopes() {
    for form in forms() {
        let (_, questions) = asked(form);
        let (mut packed, mut reads) = (Packed::new(), Reads::new(form));
        questions.iter().for_each(|question| reads.push(&mut packed, question));
        let scores: Vec<f32> = (0..reads.rows.len()).map(|i| (i * i % 7) as f32).collect();
        let gradients = reads.gradients([2.0, -3.0].into_iter());
        for (i, gradient) in gradients.iter().enumerate() {
            let at = |by: f32| {
                let mut moved = scores.clone();
                moved[i] += by;
                let answers = reads.answers(&moved);
                2.0 * answers[0] - 3.0 * answers[1]
            };
            assert!(((at(1.0) - at(-1.0)) / 2.0 - gradient).abs() < 1e-4, "{form:?}, row {i}: {gradient}");
        }
    }
}

#[test]
fn what_follows_a_text_changes_an_encoders_score_of_it_alone() {
    let states = |model: &Scorer, ids: &[u32]| {
        let mut packed = Packed::new();
        packed.push(ids);
        model.score(&packed, &[0, 1])
    };
    for encoding in [EncodingSettings::default(), ENCODER] {
        let (model, [question, _]) = asked(Form { kind: JudgeKind::RewardModel, encoding });
        let mut other = question.ids.clone();
        *other.last_mut().unwrap() += 1;
        let seen = states(&model, &question.ids) != states(&model, &other);
        assert_eq!(seen, encoding == ENCODER);
    }
}

#[test]
fn a_text_of_no_tokens_scores_nothing() {
    let mut reads = Reads::new(Form { kind: JudgeKind::Pairwise, encoding: ENCODER });
    let question = Question { ids: vec![1, 5, 9], split: Some(2), truncated: false };
    reads.push(&mut Packed::new(), &question);
    assert_eq!((reads.answers(&[1.0, 2.0, 6.0]), reads.gradients([1.5].into_iter())), (vec![3.0], vec![0.5; 3]));
}

#[test]
fn an_export_agrees_in_every_form_and_one_that_doesnt_is_an_error_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for form in forms() {
        let (model, questions) = asked(form);
        let questions = [&questions[0], &questions[1]];
        let (_, apart) = export(&model, form, &BTreeMap::new(), &questions, folder.path()).unwrap();
        assert!(apart <= TOLERANCE);
        let mut other = model.clone();
        other.parameters.get_mut("score.weight").values[0] += 0.1;
        let error = disagreement(&other, form, &questions, &folder.path().join(MODEL_FILE)).unwrap_err();
        assert!(error.message.contains("more than 0.00001 apart"), "{error}");
    }
}

#[test]
fn the_fast_arithmetic_trains_encoders_to_about_the_same_weights() {
    let (tokenizer, pairs) = (tokenizer(), pairs(16, "train"));
    let learnt = |numerics, encoding| {
        let (work, base) = (tempfile::tempdir().unwrap(), base(&tokenizer).with_numerics(numerics));
        let settings = JudgeSettings { encoding, ..settings(JudgeKind::Pairwise) };
        let learnt = learn(&settings, &training(2), &base, &tokenizer, &pairs, 7, work.path(), &Silent).unwrap();
        learnt.metrics.last().unwrap().loss
    };
    let [strict, fast] = [Numerics::Strict, Numerics::Fast].map(|numerics| learnt(numerics, ENCODER));
    assert!((strict - fast).abs() < 1e-5 * strict && strict > 0.0, "{strict} {fast}");
    assert!((learnt(Numerics::Fast, EncodingSettings::default()) - fast).abs() > 1e-4 * fast);
}

#[test]
fn an_encoder_reads_no_more_than_its_layers_see() {
    let tokenizer = tokenizer();
    let mut base = base(&tokenizer);
    base.config.block.windows = vec![None, Some(40)];
    let of = |encoding, max_length| {
        let settings = JudgeSettings { encoding, max_length: Some(max_length), ..settings(JudgeKind::Pairwise) };
        check_length(&settings, &base.config)
    };
    assert!(of(EncodingSettings::default(), 64).is_ok() && of(ENCODER, 40).is_ok());
    let error = of(ENCODER, 41).unwrap_err();
    assert!(error.to_string().contains("see 40 at a time") && error.to_string().contains("to 40 or less"), "{error}");
}

#[test]
fn a_judge_longer_than_its_base_models_context_is_refused() {
    let (tokenizer, work) = (tokenizer(), tempfile::tempdir().unwrap());
    let settings = JudgeSettings { max_length: Some(65), ..settings(JudgeKind::Pairwise) };
    let (base, pairs) = (base(&tokenizer), pairs(4, "train"));
    let error = train_judge(&settings, &training(1), &base, &tokenizer, &pairs, 1, work.path(), &Silent).unwrap_err();
    assert!(error.message.contains("takes at most 64 tokens"), "{error}");
}
