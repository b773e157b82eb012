use super::*;
use crate::digest::Digest;
use crate::judge::session::Model;
use crate::model::{Block, Family, Llama, LlamaConfig, Packed, Parameters, Tensor};
use crate::rng::Stream;
use crate::suite::settings::{Numerics, Pooling};
use crate::watch::Silent;
use candle_core::{DType, Device};
use candle_transformers::models::llama;
use prost::Message;
use std::path::{Path, PathBuf};

pub(crate) fn config() -> LlamaConfig {
    LlamaConfig {
        family: Family::Llama,
        vocab_size: 320,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        initializer_range: 0.2,
        tie_word_embeddings: true,
        bos_token_id: Some(1),
        eos_token_id: vec![2],
        pad_token_id: None,
        block: Block::default(),
    }
}

/// A scorer whose weights are large enough for every part of it to matter.
pub(crate) fn random() -> Scorer {
    let config = config();
    let mut parameters = Parameters::new();
    let mut tensors = config.trunk_tensors();
    tensors.push(("score.weight".to_owned(), vec![1, config.hidden_size]));
    for (i, (name, shape)) in tensors.into_iter().enumerate() {
        let mut stream = Stream::of(5, "test/weights", i as u64);
        let (mean, spread) = if name.contains("norm") { (1.0, 0.1) } else { (0.0, 0.2) };
        let values = (0..shape.iter().product()).map(|_| (mean + spread * stream.normal()) as f32).collect();
        parameters.insert(name, Tensor { shape, values });
    }
    Scorer { config, parameters, numerics: Numerics::Strict, recomputes: false }
}

pub(crate) fn bytes(model: &Scorer) -> Vec<u8> {
    let positions = model.config.max_position_embeddings.to_string();
    let metadata = BTreeMap::from([("dpo_eval.max_positions".to_owned(), positions)]);
    sequence_classifier(model, JudgeKind::RewardModel, Pooling::Last, &metadata).encode_to_vec()
}

pub(crate) fn sequences() -> Vec<Vec<u32>> {
    let mut stream = Stream::of(6, "test/sequences", 0);
    [1, 2, 7, 33, 64, 33, 12].map(|n| (0..n).map(|_| stream.index(config().vocab_size) as u32).collect()).to_vec()
}

/// The same scores by candle's Llama, whose language-model head is here our score head in every row.
fn candle_scores(model: &Scorer, sequences: &[Vec<u32>]) -> Vec<f32> {
    let (shape, device) = (&model.config, Device::Cpu);
    let mut tensors = std::collections::HashMap::new();
    for (name, tensor) in model.parameters.iter() {
        let values = candle_core::Tensor::from_vec(tensor.values.to_vec(), tensor.shape.as_slice(), &device).unwrap();
        if name == "score.weight" {
            let head = values.broadcast_as((shape.vocab_size, shape.hidden_size)).unwrap().contiguous().unwrap();
            tensors.insert("lm_head.weight".to_owned(), head);
        } else {
            tensors.insert(name.to_owned(), values);
        }
    }
    let config = llama::Config {
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        vocab_size: shape.vocab_size,
        num_hidden_layers: shape.num_hidden_layers,
        num_attention_heads: shape.num_attention_heads,
        num_key_value_heads: shape.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: shape.rms_norm_eps,
        rope_theta: shape.rope_theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: shape.max_position_embeddings,
        tie_word_embeddings: false,
    };
    let builder = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &device);
    let model = llama::Llama::load(builder, &config).unwrap();
    let score = |ids: &Vec<u32>| {
        let mut cache = llama::Cache::new(false, DType::F32, &config, &device).unwrap();
        let ids = candle_core::Tensor::new(ids.as_slice(), &device).unwrap().unsqueeze(0).unwrap();
        model.forward(&ids, 0, &mut cache).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
    };
    sequences.iter().map(score).collect()
}

/// A scorer over each recorded model, by its name: every family that is trained here, in its forms.
fn families() -> Vec<(String, Scorer)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/models");
    let mut folders: Vec<_> = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("config.json").is_file());
    folders.sort();
    let model = |folder: &PathBuf| {
        let base = Llama::load(folder).unwrap();
        (folder.file_name().unwrap().to_string_lossy().into_owned(), Scorer::from_llama(&base, 3))
    };
    let all: Vec<_> = folders.iter().map(model).collect();
    let missing: Vec<_> = Family::ALL.into_iter().filter(|f| all.iter().all(|(_, s)| s.config.family != *f)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    all
}

/// As they are exported: both kinds of each family, and each as an encoder, whose score is the mean.
fn exports() -> Vec<(String, ModelProto)> {
    let mut all = Vec::new();
    for (name, model) in families() {
        let encoder = model.clone().in_both_directions();
        for (kind, suffix) in [(JudgeKind::Pairwise, "pairwise"), (JudgeKind::RewardModel, "reward_model")] {
            for (form, model, pooling) in [("", &model, Pooling::Last), ("-encoder", &encoder, Pooling::Mean)] {
                let mut written = sequence_classifier(model, kind, pooling, &BTreeMap::new());
                // A new version of this program writes the same graph.
                written.producer_version = None;
                all.push((format!("{name}-{suffix}{form}"), written));
            }
        }
    }
    all
}

/// `golden/judges/check_ours.py` ran onnx.checker over these files. Weights are those of golden/models; heads are seeded.
#[test]
fn the_exports_are_those_that_onnx_checked() {
    let target = std::env::var_os("DPO_EVAL_WRITE_JUDGES").map(PathBuf::from);
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/judges/ours.json");
    let recorded: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(recorded).unwrap()).unwrap();
    for (name, written) in exports() {
        let bytes = written.encode_to_vec();
        match &target {
            Some(folder) => std::fs::write(folder.join(format!("{name}.onnx")), &bytes).unwrap(),
            None => assert_eq!(recorded["sha256"][&name], Digest::of_bytes(&bytes).to_string(), "{name}"),
        }
    }
}

/// Our own scores are those of transformers in every family (`model::tests::families`, `model::tests::encoders`); the graph must agree with them.
#[test]
fn the_graph_of_every_family_scores_as_our_own_passes_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    for (name, model) in families() {
        let encoder = model.clone().in_both_directions();
        let (context, window) = (model.config.max_position_embeddings, model.config.longest_in_both_directions());
        for (model, pooling, longest) in [(model, Pooling::Last, context), (encoder, Pooling::Mean, window)] {
            let mut stream = Stream::of(6, "test/sequences", 0);
            let lengths = [1, 2, 7, 12, 19, 30].map(|n: usize| n.min(longest));
            let sequences = lengths.map(|n| (0..n).map(|_| stream.index(model.config.vocab_size) as u32).collect::<Vec<_>>());
            let written = sequence_classifier(&model, JudgeKind::RewardModel, pooling, &BTreeMap::new());
            std::fs::write(&path, written.encode_to_vec()).unwrap();
            let theirs = Model::open(&path, JudgeKind::RewardModel, 1)
                .unwrap()
                .logits(&sequences.each_ref().map(Vec::as_slice), &Silent)
                .unwrap();
            let ours = sequences.each_ref().map(|ids| own_score(&model, pooling, ids));
            assert!(ours.iter().any(|score| score.abs() > 1e-3), "scores of nothing");
            for (a, b) in ours.iter().zip(&theirs) {
                assert!((a - b).abs() <= 1e-5, "{name}, {pooling:?}: {ours:?}\n{theirs:?}");
            }
        }
    }
}

fn own_score(model: &Scorer, pooling: Pooling, ids: &[u32]) -> f64 {
    let mut packed = Packed::new();
    let rows = packed.push(ids);
    let rows: Vec<usize> = packed.rows_of(rows).collect();
    let read = if pooling == Pooling::Last { &rows[rows.len() - 1..] } else { &rows[..] };
    let scores = model.score(&packed, read);
    scores.iter().map(|s| f64::from(*s)).sum::<f64>() / read.len() as f64
}

#[test]
fn the_exported_graph_scores_as_candles_llama_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let model = random();
    std::fs::write(&path, bytes(&model)).unwrap();
    let sequences = sequences();
    let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let ours = Model::open(&path, JudgeKind::RewardModel, 2).unwrap().logits(&rows, &Silent).unwrap();
    let theirs = candle_scores(&model, &sequences);
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((a - f64::from(*b)).abs() <= 1e-5, "{ours:?}\n{theirs:?}");
    }
}
