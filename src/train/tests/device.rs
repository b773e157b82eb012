//! Trainings on a device have the bits of the CPU's: weights, metrics of every step, digest chain. Models are made and trained there.

use super::families::models;
use super::invariance::{KINDS, Kind, adapted, brief, train};
use super::models::{model, pairs};
use crate::digest::Digest;
use crate::generate::tests::{completions, model as writer, tokenizer};
use crate::model::{Llama, Packed};
use crate::numerics::device::{Device, pool};
use crate::suite::settings::TrainSettings;
use crate::watch::Silent;

/// The same on the CPU and, if there is one, on the device that tests run on.
fn same<T: PartialEq + Send>(what: &str, run: impl Fn() -> T + Sync) {
    let Some(device) = Device::for_tests() else { return };
    let expected = pool(None, 2).unwrap().install(&run);
    assert!(pool(Some(device), 2).unwrap().install(&run) == expected, "{what}");
}

fn trained(kind: Kind, model: &Llama, settings: &TrainSettings) -> [Digest; 3] {
    let work = tempfile::tempdir().unwrap();
    train(kind, model, &pairs(18), settings, work.path(), &Silent).unwrap()
}

#[test]
fn every_kind_of_training_gives_the_bits_of_the_cpu() {
    for kind in KINDS {
        same(&format!("{kind:?}"), || trained(kind, &model(3, true), &brief(8)));
    }
    same("untied, in micro-batches", || trained(Kind::Preferences, &model(3, false), &brief(2)));
}

#[test]
fn every_family_is_trained_to_the_bits_of_the_cpu() {
    let settings = TrainSettings { max_steps: Some(3), ..brief(8) };
    for i in 0..models().len() {
        for kind in [Kind::Preferences, Kind::Lora, Kind::Dropout] {
            same(&format!("family {i}, {kind:?}"), || trained(kind, &models()[i], &settings));
        }
    }
}

#[test]
fn completions_and_their_scores_have_the_bits_of_the_cpu() {
    same("completions", || {
        let tokenizer = tokenizer();
        completions(&writer(&tokenizer, 5), &tokenizer, &writer(&tokenizer, 6))
    });
    same("scores under an adapter", || {
        let (mut packed, model) = (Packed::new(), adapted(&model(3, true)));
        let whole = packed.push(&[1, 7, 9, 4, 30, 11]);
        let targets = packed.targets_within(whole);
        format!("{:?} {:?}", model.score(&packed, &targets), &model.hidden_states(&packed, &targets)[..])
    });
}
