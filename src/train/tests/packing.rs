//! Fine-tuning on bins: what a batch counts and learns, and that no bit depends on how it is computed.

use std::path::Path;

use super::models::{Stop, demonstrations, model, pairs, six_steps};
use super::settings;
use crate::data::TokenizedExample;
use crate::model::{Gradients, Packed};
use crate::suite::settings::{PackingStrategy, TrainSettings};
use crate::train::packing::{Part, bins};
use crate::train::{Learner, SftTask, Task, run};
use crate::watch::{Silent, Watch};

#[test]
fn a_packed_batch_counts_bins_and_learns_from_each_of_their_examples_as_if_alone() {
    let examples = demonstrations(&pairs(18));
    let length = |e: &TokenizedExample| e.prompt.len() + e.completion.len();
    let max_length = 2 * examples.iter().map(length).max().unwrap();
    let packed = TrainSettings { packing: true, max_length: Some(max_length), ..settings() };
    let task = SftTask::new(model(3, false), &examples, &packed).unwrap();
    let alone = SftTask::new(model(3, false), &examples, &TrainSettings { packing: false, ..packed }).unwrap();
    assert!(task.examples() < 12 && alone.examples() == 18, "{}", task.examples());
    let mut seen = Vec::new();
    for bin in 0..task.examples() {
        let ids = task.example_id(bin);
        let members: Vec<usize> = ids.split(" + ").map(|id| id.strip_prefix("prompt-").unwrap().parse().unwrap()).collect();
        assert!(members.iter().map(|&i| length(&examples[i])).sum::<usize>() <= max_length, "{ids}");
        let bits = |task: &SftTask, batch: &[usize]| {
            let (pass, outputs) = task.forward(batch);
            let result = task.loss(batch, &outputs);
            let mut grads = Gradients::of(task.learner().parameters());
            task.backward(pass, batch, &result.gradients, &mut grads);
            assert_eq!((outputs.len(), result.losses.len()), (batch.len(), batch.len()));
            (result.loss.to_bits(), result.tokens, result.metrics, grads.total().digest())
        };
        assert_eq!(bits(&task, &[bin]), bits(&alone, &members), "{ids}");
        seen.extend(members);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..18).collect::<Vec<_>>());
}

/// The definition again, by scoring each bin as plain sequences: parts of a demonstration alone, wrapped ones one after another. A
/// sequence's first token is never learnt.
#[test]
fn split_and_wrapped_bins_teach_every_completion_token_but_first_ones_after_what_their_sequence_holds() {
    let (model, examples) = (model(3, false), demonstrations(&pairs(18)));
    for strategy in [PackingStrategy::BfdSplit, PackingStrategy::Wrapped] {
        let capacity = 10;
        let settings = TrainSettings { packing: true, packing_strategy: strategy, max_length: Some(capacity), ..settings() };
        let task = SftTask::new(model.clone(), &examples, &settings).unwrap();
        let lengths: Vec<usize> = examples.iter().map(|e| e.prompt.len() + e.completion.len()).collect();
        let bins = bins(strategy, &lengths, capacity);
        assert_eq!(task.examples(), bins.len());
        for (number, parts) in bins.iter().enumerate() {
            let together = strategy == PackingStrategy::Wrapped;
            let sequences: Vec<&[Part]> = if together { vec![parts] } else { parts.chunks(1).collect() };
            let (mut sum, mut learnt, mut tokens) = (0.0, 0, 0);
            for parts in sequences {
                let token = |part: &Part, at: usize| {
                    let e = &examples[part.sequence];
                    let (prompt, text) = (e.prompt.len(), e.prompt.iter().chain(&e.completion));
                    (*text.clone().nth(at).unwrap(), at >= prompt)
                };
                let all: Vec<(u32, bool)> = parts.iter().flat_map(|p| p.tokens.clone().map(|at| token(p, at))).collect();
                let mut packed = Packed::new();
                let whole = packed.push(&all.iter().map(|t| t.0).collect::<Vec<_>>());
                let scores = model.score(&packed, &packed.targets_within(whole));
                let taught = scores.iter().zip(&all[1..]).filter(|(_, (_, taught))| *taught);
                sum += taught.clone().map(|(score, _)| f64::from(score.logp)).sum::<f64>();
                (learnt, tokens) = (learnt + taught.count(), tokens + all.len());
            }
            let result = task.loss(&[number], &task.forward(&[number]).1);
            assert_eq!(result.tokens as usize, tokens);
            let expected = -sum / learnt as f64;
            assert!((result.loss - expected).abs() < 1e-12 || learnt == 0, "{strategy:?} {number}: {} {expected}", result.loss);
        }
    }
}

#[test]
fn packed_fine_tuning_depends_on_neither_micro_batches_nor_interruptions() {
    for strategy in [PackingStrategy::Bfd, PackingStrategy::BfdSplit, PackingStrategy::Wrapped] {
        let train = |micro_batch, work: &Path, watch: &dyn Watch| {
            let settings = TrainSettings {
                packing: true,
                packing_strategy: strategy,
                max_length: Some(if strategy == PackingStrategy::Bfd { 40 } else { 14 }),
                per_device_train_batch_size: micro_batch,
                gradient_accumulation_steps: 4 / micro_batch,
                ..six_steps()
            };
            let mut task = SftTask::new(model(3, true), demonstrations(&pairs(18)), &settings).unwrap();
            let metrics = run(&mut task, &settings, 1, work, watch)?;
            Ok::<_, crate::Error>((metrics, task.into_model().parameters.digest()))
        };
        let folder = || tempfile::tempdir().unwrap();
        let whole = train(4, folder().path(), &Silent).unwrap();
        for micro_batch in [1, 2] {
            assert_eq!(train(micro_batch, folder().path(), &Silent).unwrap(), whole);
        }
        let work = folder();
        assert!(train(4, work.path(), &Stop(2, 0.into())).is_err());
        assert_eq!(train(4, work.path(), &Silent).unwrap(), whole);
    }
}
