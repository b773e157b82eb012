use super::*;
use crate::judge::asking::Asking;
use crate::judge::protocol;
use crate::judge::reader::tests::{PAIRWISE, REWARD};
use crate::judge::session::OnnxJudge;
use crate::model::RopeScaling;
use crate::numerics::isa;
use crate::rng::Stream;
use crate::suite::settings::{
    EvaluationSettings, FreshModel, JudgeSource, ObjectiveSettings, OnnxSettings, Optimizer, PackingStrategy, Sampling, Scheduler,
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
        onnx: OnnxSettings::default(),
        fitness: Default::default(),
    }
}

fn trained(kind: JudgeKind, steps: u64, work: &Path) -> TrainedJudge {
    let (tokenizer, pairs) = (tokenizer(), pairs(64, "train"));
    train_judge(&settings(kind), &training(steps), &base(&tokenizer), &tokenizer, &pairs, 7, work, &Silent).unwrap()
}

#[test]
fn both_kinds_learn_and_their_onnx_files_judge_unseen_pairs_right() {
    for (kind, steps) in [(JudgeKind::RewardModel, 40), (JudgeKind::Pairwise, 120)] {
        let work = tempfile::tempdir().unwrap();
        let judge = trained(kind, steps, work.path());
        assert!(judge.disagreement <= TOLERANCE, "{}", judge.disagreement);
        let onnx = OnnxJudge::open(&judge.folder, &settings(kind), 1).unwrap();
        let mut judge = Asking::new("j", onnx, 0.0, None);
        let trials = protocol::trials(&mut judge, "j", &pairs(40, "unseen"), &Silent).unwrap();
        let right = trials.iter().filter(|t| t.preference > 0.5).count();
        assert!(right >= 38, "{kind:?}: {right} of 40");
    }
}

#[test]
fn a_judge_over_another_family_is_trained_and_exported() {
    let (tokenizer, pairs, work) = (tokenizer(), pairs(4, "train"), tempfile::tempdir().unwrap());
    let mut base = base(&tokenizer);
    base.config.block.rope_scaling = Some(RopeScaling::Linear { factor: 2.0 });
    base.config.block.windows = vec![Some(8); 2];
    for kind in [JudgeKind::RewardModel, JudgeKind::Pairwise] {
        let judge = train_judge(
            &settings(kind),
            &training(1),
            &base,
            &tokenizer,
            &pairs,
            7,
            &work.path().join(format!("{kind:?}")),
            &Silent,
        );
        assert!(judge.unwrap().disagreement <= TOLERANCE);
    }
}

#[test]
fn the_same_training_gives_the_same_files() {
    let files = |work: &Path| {
        let judge = trained(JudgeKind::Pairwise, 3, work);
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
    let files = |isa, threads, micro_batch, kind| {
        let work = tempfile::tempdir().unwrap();
        let settings = settings(kind);
        let training = TrainSettings {
            per_device_train_batch_size: micro_batch,
            gradient_accumulation_steps: 8 / micro_batch,
            ..training(20)
        };
        let pool = isa::pool(isa, threads).unwrap();
        pool.install(|| learn(&settings, &training, &base, &tokenizer, &pairs, 7, work.path(), &Silent)).unwrap();
        ["judge/model.safetensors", "train/chain.jsonl"].map(|file| Digest::of_file(&work.path().join(file)).unwrap())
    };
    for kind in [JudgeKind::Pairwise, JudgeKind::RewardModel] {
        let expected = files(isa::active(), 1, 8, kind);
        assert_eq!(files(isa::active(), 2, 1, kind), expected, "{kind:?}: micro-batches of one");
        assert_eq!(files(isa::active(), 4, 2, kind), expected, "{kind:?}: micro-batches of two");
        for isa in isa::native() {
            assert_eq!(files(isa, 1, 8, kind), expected, "{kind:?}: {isa}");
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

#[test]
fn questions_that_share_their_beginning_score_as_if_alone() {
    let tokenizer = tokenizer();
    let model = Scorer::from_llama(&base(&tokenizer), 2);
    for kind in [JudgeKind::Pairwise, JudgeKind::RewardModel] {
        let questions = ["Review the lamp. It is dull.", "Review the lamp. It is so lovely."].map(|text| {
            let ids = tokenizer.prompt(text);
            Question { split: Some(ids.len() / 2), ids, truncated: false }
        });
        let (mut shared, mut rows) = (Packed::new(), Vec::new());
        push_both(kind, &mut shared, &questions, &mut rows);
        assert!(shared.rows() < questions.iter().map(|q| q.ids.len()).sum());
        let alone = |question: &Question| {
            let mut packed = Packed::new();
            packed.push(&question.ids);
            model.score(&packed, &read_rows(kind, question, |at| at))
        };
        assert_eq!(model.score(&shared, &rows), questions.iter().flat_map(alone).collect::<Vec<_>>());
    }
}

#[test]
fn an_export_that_disagrees_is_an_error_and_leaves_no_file() {
    let (tokenizer, folder) = (tokenizer(), tempfile::tempdir().unwrap());
    let model = Scorer::from_llama(&base(&tokenizer), 2);
    let ids = tokenizer.prompt("Review the lamp.");
    let question = Question { split: Some(ids.len() / 2), ids, truncated: false };
    for kind in [JudgeKind::Pairwise, JudgeKind::RewardModel] {
        export(&model, kind, &BTreeMap::new(), &[&question], folder.path()).unwrap();
        let mut other = model.clone();
        other.parameters.get_mut("score.weight").values[0] += 0.1;
        let error = disagreement(&other, kind, &[&question], &folder.path().join(MODEL_FILE)).unwrap_err();
        assert!(error.message.contains("more than 0.00001 apart"), "{error}");
    }
}

#[test]
fn a_judge_longer_than_its_base_models_context_is_refused() {
    let (tokenizer, work) = (tokenizer(), tempfile::tempdir().unwrap());
    let settings = JudgeSettings { max_length: Some(65), ..settings(JudgeKind::Pairwise) };
    let (base, pairs) = (base(&tokenizer), pairs(4, "train"));
    let error = train_judge(&settings, &training(1), &base, &tokenizer, &pairs, 1, work.path(), &Silent).unwrap_err();
    assert!(error.message.contains("takes at most 64 tokens"), "{error}");
}
