//! The rounds of a training after the first: what the policy writes, how that is labelled, and what the next round starts with.

use std::collections::BTreeSet;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::training::{Before, Start};
use super::{Body, PAIRS, checkpoints_in, names};
use crate::data::audit::{self, AuditInput, held};
use crate::data::files::{each_jsonl, read_jsonl, write_jsonl};
use crate::data::label::{self, Count, Labelled};
use crate::data::tokenize::TextTokenizer;
use crate::data::{LabelledCompletion, Pair, PreferenceRow, Prompt};
use crate::error::{Error, Result};
use crate::generate::{self, Sampled};
use crate::judge::protocol::{self, Comparison};
use crate::judge::{GOLD, Outcome};
use crate::model::{Adapter, Limits};
use crate::rng::Stream;
use crate::run::plan;
use crate::suite::settings::{AdapterSource, Dataset, GenerateSettings, RoundReference, RoundSettings, TrainSettings};
use crate::train::{self, TrainStep};

/// What the policy wrote, before anyone labelled it.
const SAMPLES: &str = "samples.jsonl";
/// What the audit counted in a round's pairs.
pub const ROUND_AUDIT: &str = "round_audit.jsonl";

/// What a text generator is asked for where its completions are to be learnt from: what it says by itself.
pub(super) fn untempered(max_new_tokens: usize, samples_per_prompt: usize) -> GenerateSettings {
    GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens, samples_per_prompt }
}

impl Body<'_> {
    /// A round starts from what the one before it ended with, under a seed of its own: other orders and other dropout masks.
    pub(super) fn later_round(&self, name: &str, training: &TrainSettings, seed: u64, round: u64) -> Result<Start> {
        let rounds = rounds_of(name, training)?;
        let folder = self.context.folder(&plan::train_id(name, seed, round - 1))?;
        let steps = last_checkpoint(&folder)?;
        let log: Vec<TrainStep> = read_jsonl(&folder.join("train_log.jsonl"))?;
        let base = self.reference_model()?;
        let last = train::checkpoint_folder(&folder, steps);
        let policy = match &training.lora {
            None => self.load(&last)?,
            Some(source) => {
                let mut adapter = Adapter::load(&last)?;
                adapter.settings.lora_dropout = match source {
                    AdapterSource::Fresh(lora) => lora.lora_dropout,
                    AdapterSource::Folder { lora_dropout, .. } => *lora_dropout,
                };
                base.clone().with_adapter(adapter)?
            }
        };
        let reference = match rounds.reference {
            RoundReference::Previous => policy.clone(),
            RoundReference::Original => self.start(base, training, seed)?.1,
        };
        Ok(Start {
            policy,
            reference,
            settings: training.of_one_round(Some(steps)),
            seed: Stream::of(seed, "train/round", round).next_u64(),
            pairs: plan::round_pairs_id(name, seed, round),
            before: Before { steps: steps * (round - 1), tokens: log.last().map_or(0, |row| row.num_tokens) },
        })
    }

    /// Pairs of what the policy writes after the round before this one.
    pub(super) fn round_pairs(&self, name: &str, seed: u64, round: u64) -> Result<Vec<String>> {
        let training = self.trained(name)?;
        let rounds = rounds_of(name, training)?;
        let tokenizer = self.tokenizer()?;
        let prompts = self.round_prompts()?;
        let samples = self.round_samples(name, seed, round, &prompts, &tokenizer)?;
        let each: Vec<Vec<String>> =
            samples.chunks(rounds.samples_per_prompt).map(|s| s.iter().map(|s| s.text.clone()).collect()).collect();
        let (count, purpose) = (rounds.pairs_per_prompt, format!("pairs/round-{round}"));
        let Labelled { pairs, audit: mut items } = match (&self.suite.dataset, rounds.judge.as_str()) {
            (Dataset::World(world), GOLD) => {
                let (temperature, noise) = (world.label_temperature, world.label_noise);
                label::pairs(&prompts, &each, count, temperature, noise, seed, &purpose)
            }
            (_, judge) => self.judged_pairs(judge, &prompts, &each, count, seed, &purpose)?,
        };
        if pairs.is_empty() {
            return Err(Error::input(format!(
                "round {round} of variant `{name}` has nothing to learn from: none of {} completions made a pair that `{}` labels",
                samples.len(),
                rounds.judge
            ))
            .help("raise round_samples, lower the judge's tie_width, or train with a higher beta: a policy that writes one text makes no pair"));
        }
        let context = Limits::load(&self.context.folder("reference")?)?.context;
        items.extend(audit::audit(&AuditInput {
            demonstrations: &held(&[]),
            train: &held(&pairs),
            heldout: &held(&[]),
            judge: &held(&[]),
            eval: &[],
            tokenizer: Some(&tokenizer),
            max_length: Some(training.max_length.map_or(context, |m| m.min(context))),
            full: self.suite.dataset.audit_limits().is_some(),
        })?);
        write_jsonl(&self.work().join("train.jsonl"), &pairs)?;
        write_jsonl(&self.work().join(ROUND_AUDIT), &items)?;
        Ok(names(&[SAMPLES, "train.jsonl", ROUND_AUDIT]))
    }

    /// As much of `round_pairs` as doesn't pass through a judge.
    pub(super) fn round_pairs_repeated(&self, name: &str, seed: u64, round: u64) -> Result<Vec<String>> {
        if rounds_of(name, self.trained(name)?)?.judge == GOLD {
            return self.round_pairs(name, seed, round);
        }
        self.round_samples(name, seed, round, &self.round_prompts()?, &self.tokenizer()?)?;
        Ok(names(&[SAMPLES]))
    }

    /// Prompt by prompt. Variants of one seed draw the same random numbers.
    fn round_samples(
        &self,
        name: &str,
        seed: u64,
        round: u64,
        prompts: &[Prompt],
        tokenizer: &TextTokenizer,
    ) -> Result<Vec<Sampled>> {
        let rounds = rounds_of(name, self.trained(name)?)?;
        let folder = self.context.folder(&plan::train_id(name, seed, round - 1))?;
        let policy = self.load_policy(&train::checkpoint_folder(&folder, last_checkpoint(&folder)?), &self.reference_model()?)?;
        let sampling = untempered(self.suite.generate.max_new_tokens, rounds.samples_per_prompt);
        let purpose = format!("pairs/round-{round}/sample");
        let samples = generate::sample(&policy, tokenizer, prompts, &sampling, seed, &purpose, self.context.watch)?;
        write_jsonl(&self.work().join(SAMPLES), &samples)?;
        Ok(samples)
    }

    fn judged_pairs(
        &self,
        judge: &str,
        prompts: &[Prompt],
        samples: &[Vec<String>],
        pairs_per_prompt: usize,
        seed: u64,
        purpose: &str,
    ) -> Result<Labelled> {
        let (opposed, items) = label::opposed(prompts, samples, pairs_per_prompt, seed, purpose);
        let texts: Vec<[&str; 3]> = opposed.iter().map(|o| [o.prompt.text.as_str(), o.sides[0], o.sides[1]]).collect();
        let said = protocol::compare(&mut self.open_judge(judge)?, &texts, self.context.watch)?;
        let labels: Vec<Option<bool>> = said.iter().map(first_preferred).collect();
        let mut truncated = Count::default();
        opposed.iter().zip(&said).for_each(|(o, c)| truncated.add(u64::from(c.is_some_and(|c| c.truncated)), &o.prompt.id));
        let Labelled { pairs, audit } = label::by_judge(&opposed, &labels, self.gold().is_some());
        let truncated =
            truncated.item("truncated-to-judge", said.len() as u64, "pairs are too long for the judge that labels them");
        Ok(Labelled { pairs, audit: items.into_iter().chain(audit).chain([truncated]).collect() })
    }

    /// The prompts of the training pairs, each once.
    pub(super) fn round_prompts(&self) -> Result<Vec<Prompt>> {
        match &self.suite.dataset {
            Dataset::World(_) => read_jsonl(&self.context.file("data", "train_prompts.jsonl")?),
            Dataset::Pairs(settings) => {
                let file = self.context.file(PAIRS, "train.jsonl")?;
                match settings.is_unpaired() {
                    true => prompts_of::<LabelledCompletion>(&file),
                    false => prompts_of::<Pair>(&file),
                }
            }
        }
    }

    /// Refuses training prompts that leave no room for a completion, before the first round and not after it. A world's are short.
    pub(super) fn check_round_prompts(&self, tokenizer: &TextTokenizer, context: usize) -> Result<()> {
        if let Dataset::World(_) = self.suite.dataset {
            return Ok(());
        }
        let prompts = self.round_prompts()?;
        let room = self.suite.generate.max_new_tokens;
        audit::check_lengths(tokenizer, context, room, prompts.iter().map(|p| (p.id.as_str(), p.text.as_str())))
    }
}

fn rounds_of<'a>(name: &str, training: &'a TrainSettings) -> Result<&'a RoundSettings> {
    training.rounds.as_ref().ok_or_else(|| Error::unexpected(format!("variant `{name}` is trained in one round")))
}

/// What a round took by its settings. Every round takes as many steps.
fn last_checkpoint(folder: &std::path::Path) -> Result<u64> {
    checkpoints_in(folder)?.pop().ok_or_else(|| Error::unexpected(format!("{} holds no checkpoint", folder.display())))
}

/// None: a tie, or nothing said.
fn first_preferred(said: &Option<Comparison>) -> Option<bool> {
    match said.as_ref()?.outcome {
        Outcome::Win => Some(true),
        Outcome::Tie => None,
        Outcome::Loss => Some(false),
    }
}

fn prompts_of<R: PreferenceRow + DeserializeOwned>(file: &Path) -> Result<Vec<Prompt>> {
    let (mut seen, mut prompts) = (BTreeSet::new(), Vec::new());
    each_jsonl(file, |row: R| {
        if seen.insert(row.prompt_id().to_owned()) {
            prompts.push(Prompt { id: row.prompt_id().to_owned(), text: row.prompt().to_owned() });
        }
        Ok(())
    })?;
    Ok(prompts)
}
