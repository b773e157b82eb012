//! What a reference said is kept: found again by everyone whom it serves, by nobody else, and never when it was changed.

use std::fs;
use std::sync::Mutex;

use super::models::{model, pairs};
use super::settings;
use crate::data::TokenizedPair;
use crate::model::{Adapter, Llama};
use crate::store::Store;
use crate::suite::settings::{Linear, LoraSettings, LossType, ObjectiveSettings, TrainSettings};
use crate::train::{Feedback, PairScore, PreferenceTask, ScoreCache, ScoredPolicy, Task, UnpairedTask, pair_scores};
use crate::watch::Watch;

/// Counts how often a reference was asked, and keeps warnings.
#[derive(Default)]
struct Counting {
    asked: Mutex<u32>,
    warnings: Mutex<Vec<String>>,
}

impl Watch for Counting {
    fn advance(&self, _: u64, _: u64, note: &str) {
        *self.asked.lock().unwrap() += u32::from(note == "reference log-probabilities");
    }
    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }
}

struct Asking {
    store: Store,
    engine: u32,
    watch: Counting,
}

impl Asking {
    fn of(folder: &tempfile::TempDir) -> Self {
        Self { store: Store::open(folder.path()).unwrap(), engine: 2, watch: Counting::default() }
    }

    /// The loss of the first batch by a policy that isn't the reference; and whether the reference was asked.
    fn loss(&self, reference: &Llama, pairs: &[TokenizedPair], settings: &TrainSettings) -> (f64, bool) {
        let (cache, policy) = (ScoreCache::new(&self.store, self.engine), model(4, false).with_numerics(reference.numerics));
        let before = *self.watch.asked.lock().unwrap();
        let loss = if settings.objective.is_unpaired() {
            let examples = Feedback::of_pairs(pairs);
            let task = UnpairedTask::with_cache(policy, reference, &examples, settings, Some(&cache), &self.watch).unwrap();
            task.loss(&[0, 1, 2], &task.forward(&[0, 1, 2]).1).loss
        } else {
            let task = PreferenceTask::with_cache(policy, reference, pairs, settings, Some(&cache), &self.watch).unwrap();
            task.loss(&[0, 1, 2], &task.forward(&[0, 1, 2]).1).loss
        };
        (loss, *self.watch.asked.lock().unwrap() > before)
    }
}

fn of(loss: LossType) -> TrainSettings {
    TrainSettings { objective: ObjectiveSettings { loss_type: vec![loss], ..ObjectiveSettings::default() }, ..settings() }
}

#[test]
fn variants_with_the_same_reference_ask_it_once_and_any_other_difference_asks_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mut asking, reference, pairs) = (Asking::of(&folder), model(3, false), pairs(6));
    let first = asking.loss(&reference, &pairs, &of(LossType::Sigmoid));
    assert_eq!(asking.loss(&reference, &pairs, &of(LossType::Sigmoid)), (first.0, false));
    // Another loss, learning rate and seed change nothing in what the reference says.
    let other = TrainSettings { learning_rate: 0.5, ..of(LossType::Ipo) };
    assert!(first.1 && !asking.loss(&reference, &pairs, &other).1);
    let alone = PreferenceTask::new(model(4, false), &reference, &pairs, &of(LossType::Sigmoid), &crate::watch::Silent).unwrap();
    assert_eq!(alone.loss(&[0, 1, 2], &alone.forward(&[0, 1, 2]).1).loss, first.0);
    // One weight, an adapter, one token, the cut, the kind of example, the engine.
    let mut moved = reference.clone();
    let weight = &mut moved.parameters.get_mut("model.norm.weight").values[0];
    *weight = f32::from_bits(weight.to_bits() ^ 1);
    let mut changed = pairs.clone();
    changed[5].rejected[0] = 3 + (changed[5].rejected[0] - 2) % 30;
    let cut = TrainSettings { max_length: Some(12), ..of(LossType::Sigmoid) };
    let theta =
        Llama { config: crate::model::LlamaConfig { rope_theta: 9999.0, ..reference.config.clone() }, ..reference.clone() };
    assert!(asking.loss(&moved, &pairs, &of(LossType::Sigmoid)).1);
    let lora = LoraSettings { r: 2, lora_alpha: 4.0, lora_dropout: 0.0, target_modules: vec![Linear::QProj], use_rslora: false };
    let adapted = reference.clone().with_adapter(Adapter::fresh(&reference.config, &lora, 1)).unwrap();
    assert!(asking.loss(&adapted, &pairs, &of(LossType::Sigmoid)).1);
    assert!(asking.loss(&theta, &pairs, &of(LossType::Sigmoid)).1);
    assert!(asking.loss(&reference, &changed, &of(LossType::Sigmoid)).1);
    assert!(asking.loss(&reference, &pairs, &cut).1);
    assert!(asking.loss(&reference, &pairs, &of(LossType::ApoZeroUnpaired)).1);
    assert!(!asking.loss(&reference, &pairs, &of(LossType::ApoZeroUnpaired)).1);
    asking.engine += 1;
    assert!(asking.loss(&reference, &pairs, &of(LossType::Sigmoid)).1);
    assert!(asking.watch.warnings.into_inner().unwrap().is_empty());
}

#[test]
fn checkpoints_are_compared_with_what_the_reference_said_before() {
    let folder = tempfile::tempdir().unwrap();
    let (asking, reference, pairs) = (Asking::of(&folder), model(3, false), pairs(6));
    let cache = ScoreCache::new(&asking.store, asking.engine);
    let scores = |checkpoint, cache: Option<&ScoreCache<'_>>| {
        let of = ScoredPolicy { variant: "dpo", seed: Some(1), checkpoint, beta: 0.1 };
        let rows = pair_scores(&of, &model(checkpoint, false), &reference, &pairs, None, cache, &asking.watch).unwrap();
        rows.into_iter().map(|row| PairScore { checkpoint: 0, ..row }).collect::<Vec<_>>()
    };
    let asked = || *asking.watch.asked.lock().unwrap();
    let (first, second) = (scores(4, Some(&cache)), scores(5, Some(&cache)));
    assert_eq!(asked(), 1);
    // It serves training too: the same pairs under the same reference.
    assert!(!asking.loss(&reference, &pairs, &of(LossType::Sigmoid)).1);
    assert_eq!((scores(4, None), scores(5, None)), (first, second));
    assert_eq!(asked(), 3);
}

#[test]
fn kept_scores_that_were_changed_or_cut_off_are_noticed_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (asking, reference, pairs) = (Asking::of(&folder), model(3, false), pairs(6));
    let sound = asking.loss(&reference, &pairs, &of(LossType::Sigmoid)).0;
    let path = fs::read_dir(folder.path().join("scores")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&path).unwrap();
    let mut poisoned = whole.clone();
    // The last bit of the last number.
    let last = whole.len() - 32 - 8;
    poisoned[last] ^= 1;
    for (count, damaged) in [&poisoned[..], &whole[..whole.len() / 2], &whole[..7], &[]].into_iter().enumerate() {
        fs::write(&path, damaged).unwrap();
        assert_eq!(asking.loss(&reference, &pairs, &of(LossType::Sigmoid)), (sound, true));
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert_eq!(asking.watch.warnings.lock().unwrap().len(), count + 1);
    }
}
