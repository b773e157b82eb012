//! Dropout in the residual stream against PyTorch under the same masks, and against differences of the loss.

use super::{bits, check_central_differences, tiny, trees};
use crate::model::{Gradients, Llama, Packed, Parameters};

const SHARE: f64 = 0.3;

/// `golden/train/resid_dropout.py` made the masks anew from their definition, and what transformers' Llama gives under them.
#[test]
fn scores_and_gradients_under_dropout_are_those_of_pytorch_under_the_same_masks() {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"));
    let bytes = std::fs::read(root.join("train/resid_dropout.safetensors")).unwrap();
    let expected = Parameters::from_safetensors(&bytes).unwrap();
    let model = Llama::load(&root.join("lora/base")).unwrap();
    let mut packed = Packed::new();
    let whole = packed.push(&expected.get("ids").values.iter().map(|id| *id as u32).collect::<Vec<_>>());
    let targets = packed.targets_within(whole);
    let states = (0..packed.rows() as u64).collect();
    let tape = model.forward_under_dropout(&packed, &targets, None, Some((SHARE, states)));
    for (found, expected) in model.token_scores(&tape, &targets).iter().zip(&expected.get("logps").values) {
        assert!((found.logp - expected).abs() < 2e-5, "{} {expected}", found.logp);
    }
    let mut grads = Gradients::of(&model.parameters);
    model.backward(tape, &packed, &targets, &expected.get("weights").values, &mut grads);
    for (name, grad) in grads.total().iter() {
        let expected = &expected.get(&format!("grad.{name}")).values;
        let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (a, b) in grad.values.iter().zip(expected) {
            assert!((a - b).abs() < 2e-5 * largest.max(1.0), "{name}: {a} {b}");
        }
    }
}

#[test]
fn gradients_under_dropout_are_those_of_central_differences_also_after_a_shared_prompt() {
    check_central_differences(&tiny(true), "dropout", |model, packed, targets| {
        let states = (0..packed.rows() as u64).map(|row| 7 * row).collect();
        model.forward_under_dropout(packed, targets, None, Some((SHARE, states)))
    });
}

#[test]
fn a_pass_that_drops_next_to_nothing_is_nearly_the_plain_one_and_other_states_drop_others() {
    let model = tiny(false);
    let (packed, targets) = trees(model.config.vocab_size);
    let scores = |share: f64, offset: u64| {
        let states = (0..packed.rows() as u64).map(|row| 1000 * offset + row).collect();
        model.token_scores(&model.forward_under_dropout(&packed, &targets, None, Some((share, states))), &targets)
    };
    let plain = model.token_scores(&model.forward(&packed, &targets), &targets);
    // The branches' chains start from zero here, so that last bits may differ.
    for (a, b) in scores(1e-12, 1).iter().zip(&plain) {
        assert!((a.logp - b.logp).abs() < 2e-5, "{} {}", a.logp, b.logp);
    }
    assert_eq!(bits(&scores(SHARE, 1)), bits(&scores(SHARE, 1)));
    assert_ne!(bits(&scores(SHARE, 1)), bits(&scores(SHARE, 2)));
}
