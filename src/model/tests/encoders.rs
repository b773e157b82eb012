//! Models of several families as encoders held against transformers (`golden/judges/encoders.py`).

use std::path::Path;

use super::families::{assert_near, load};
use super::*;
use crate::model::Parameters;

const NAMES: [&str; 8] = ["llama-llama3", "mistral-window", "qwen3", "gpt2", "gpt-neox", "phi", "gemma2", "gemma3"];

/// The model of this name with the recorded head, what was recorded, and its two sequences.
fn case(name: &str) -> (Scorer, Parameters, [Vec<u32>; 2]) {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/judges/encoders")).join(format!("{name}.safetensors"));
    let recorded = Parameters::from_safetensors(&std::fs::read(file).unwrap()).unwrap();
    let mut model = Scorer::from_llama(&load(name), 1).in_both_directions();
    *model.parameters.get_mut("score.weight") = recorded.get("head").clone();
    let ids = ["ids.0", "ids.1"].map(|ids| recorded.get(ids).values.iter().map(|id| *id as u32).collect());
    (model, recorded, ids)
}

#[test]
fn an_encoders_scores_and_gradients_are_those_of_transformers() {
    for name in NAMES {
        let (model, recorded, ids) = case(name);
        let mut packed = Packed::new();
        for ids in &ids {
            packed.push(ids);
        }
        let rows: Vec<usize> = (0..packed.rows()).collect();
        let (scores, tape) = model.forward(&packed, &rows);
        let (first, second) = scores.split_at(ids[0].len());
        let means = [first, second].map(|scores| scores.iter().sum::<f32>() / scores.len() as f32);
        assert_near(&means, &recorded.get("scores").values, 1e-5, name);
        let weights = &recorded.get("weights").values;
        let dscores: Vec<f32> =
            ids.iter().zip(weights).flat_map(|(ids, w)| ids.iter().map(move |_| w / ids.len() as f32)).collect();
        let mut grads = Gradients::of(&model.parameters);
        model.backward(tape, &packed, &rows, &dscores, &mut grads);
        for (tensor, gradient) in grads.total().iter() {
            let expected = &recorded.get(&format!("grad.{tensor}")).values;
            let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert_near(&gradient.values, expected, 1e-3 * largest, &format!("{name} {tensor}"));
        }
        assert_eq!(grads.total().len(), recorded.iter().filter(|(tensor, _)| tensor.starts_with("grad.")).count(), "{name}");
    }
}

#[test]
fn an_encoder_is_saved_as_one_and_is_no_causal_model() {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let (model, ..) = case(name);
        model.save(folder.path()).unwrap();
        let read = Scorer::load(folder.path()).unwrap();
        assert_eq!((&read.config, &read.parameters), (&model.config, &model.parameters), "{name}");
        assert!(read.config.block.bidirectional);
        let error = Llama::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`is_causal` is false") && error.contains("config.json"), "{error}");
    }
}
