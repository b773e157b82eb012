//! The data and the pairs made of them: a world's, sampled and labelled, or a file's, split.

use std::collections::BTreeSet;
use std::fs::File;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rounds::untempered;
use super::{Body, names};
use crate::data::audit::{self, AuditInput, Audited, Pass, filed, held};
use crate::data::files::{JsonlFile, read_jsonl, write_jsonl};
use crate::data::parts::{self, Reading};
use crate::data::template;
use crate::data::tokenize::TextTokenizer;
use crate::data::{AuditItem, LabelledCompletion, Pair, PreferenceRow, Prompt, label, world};
use crate::error::{Error, Result};
use crate::generate;
use crate::model::Limits;
use crate::run::plan;
use crate::suite::settings::{Dataset, ModelSource, PairsSettings, WorldSettings};

/// Share of the judges' own prompts on which they are trained; the rest measures them.
const JUDGE_TRAINING_SHARE: f64 = 0.75;
const PAIR_FILES: [&str; 5] = ["train.jsonl", "heldout.jsonl", "judge_train.jsonl", "judge_heldout.jsonl", "audit.jsonl"];

impl Body<'_> {
    pub(super) fn data(&self) -> Result<Vec<String>> {
        match &self.suite.dataset {
            Dataset::World(settings) => self.world_data(settings),
            Dataset::Pairs(settings) => self.file_data(settings),
        }
    }

    fn world_data(&self, settings: &WorldSettings) -> Result<Vec<String>> {
        let world = world::make(settings, self.suite.seed)?;
        let tokenizer = match &self.suite.model {
            ModelSource::Fresh(_) => TextTokenizer::train(&world.corpus, settings.vocab_size)?,
            ModelSource::Folder { path } => TextTokenizer::load(&self.suite.locate(path))?,
        };
        let saved = tokenizer.save(self.work())?;
        write_jsonl(&self.work().join("demonstrations.jsonl"), &world.demonstrations)?;
        let sets = [("train", &world.train), ("heldout", &world.heldout), ("judge", &world.judge), ("eval", &world.eval)];
        for (name, prompts) in sets {
            write_jsonl(&self.work().join(format!("{name}_prompts.jsonl")), prompts)?;
        }
        let own =
            ["demonstrations.jsonl", "train_prompts.jsonl", "heldout_prompts.jsonl", "judge_prompts.jsonl", "eval_prompts.jsonl"];
        Ok([names(&own), saved].concat())
    }

    fn file_data(&self, settings: &PairsSettings) -> Result<Vec<String>> {
        let ModelSource::Folder { path } = &self.suite.model else {
            return Err(Error::usage("pairs from a file need a model folder with its tokenizer: set [model] path"));
        };
        let model = self.suite.locate(path);
        let tokenizer = self.reading(TextTokenizer::load(&model)?);
        let tokenizer = match template::own(self.suite, settings)? {
            Some(source) => tokenizer.with_chat_template(source),
            None => tokenizer,
        };
        let saved = tokenizer.save(self.work())?;
        let context = Limits::load(&model)?.context;
        let template = template::of_suite(self.suite, settings, &model)?;
        let (suite, template) = (self.suite, template.as_ref());
        let reading = Reading { suite, settings, template, tokenizer: &tokenizer, context: Some(context) };
        let items = match settings.is_unpaired() {
            true => reading.split_into::<LabelledCompletion>(self.work())?,
            false => reading.split_into::<Pair>(self.work())?,
        };
        write_jsonl(&self.work().join("audit.jsonl"), &items)?;
        Ok([names(&parts::FILES), names(&["audit.jsonl"]), saved].concat())
    }

    pub(super) fn pairs(&self) -> Result<Vec<String>> {
        match &self.suite.dataset {
            Dataset::World(settings) => self.sampled_pairs(settings),
            Dataset::Pairs(settings) if settings.is_unpaired() => self.pairs_of_file::<LabelledCompletion>(),
            Dataset::Pairs(_) => self.pairs_of_file::<Pair>(),
        }
    }

    fn sampled_pairs(&self, settings: &WorldSettings) -> Result<Vec<String>> {
        let mut items: Vec<AuditItem> = Vec::new();
        let (train, heldout, judge) = self.world_pairs(settings, &mut items)?;
        items.extend(self.audit::<Pair>([&held(&train), &held(&heldout), &held(&judge)])?);
        write_jsonl(&self.work().join("train.jsonl"), &train)?;
        write_jsonl(&self.work().join("heldout.jsonl"), &heldout)?;
        self.of_judges(&held(&judge))?;
        write_jsonl(&self.work().join("audit.jsonl"), &items)?;
        Ok(names(&PAIR_FILES))
    }

    /// The splits that the data cell made of a file: to learn from, held out, for the judges.
    fn pairs_of_file<R: Audited + DeserializeOwned + Serialize + Clone>(&self) -> Result<Vec<String>> {
        let file = |name: &str| self.context.file("data", name);
        let (train, heldout, judge) = (file(parts::TRAIN)?, file(parts::HELDOUT)?, file(parts::JUDGE)?);
        let items = self.audit::<R>([&filed(&train), &filed(&heldout), &filed(&judge)])?;
        for (from, to) in [(&train, "train.jsonl"), (&heldout, "heldout.jsonl")] {
            let to = self.work().join(to);
            let mut reader = File::open(from).map_err(|e| Error::io("read", from, &e))?;
            let mut writer = File::create(&to).map_err(|e| Error::io("write", &to, &e))?;
            std::io::copy(&mut reader, &mut writer).map_err(|e| Error::io("write", &to, &e))?;
        }
        self.of_judges::<R>(&filed(&judge))?;
        write_jsonl(&self.work().join("audit.jsonl"), &items)?;
        Ok(names(&PAIR_FILES))
    }

    /// Writes the judges' rows so that a prompt's rows stay together; the first share of the prompts trains them.
    fn of_judges<R: PreferenceRow + Serialize>(&self, rows: &Pass<'_, R>) -> Result<()> {
        let (mut seen, mut prompts): (BTreeSet<String>, Vec<String>) = Default::default();
        rows(&mut |rows: &[R]| {
            for row in rows {
                if seen.insert(row.prompt_id().to_owned()) {
                    prompts.push(row.prompt_id().to_owned());
                }
            }
            Ok(())
        })?;
        prompts.truncate((prompts.len() as f64 * JUDGE_TRAINING_SHARE).round() as usize);
        let training: BTreeSet<String> = prompts.into_iter().collect();
        let [mut train, mut heldout] = [
            JsonlFile::create(&self.work().join("judge_train.jsonl"))?,
            JsonlFile::create(&self.work().join("judge_heldout.jsonl"))?,
        ];
        rows(&mut |rows: &[R]| {
            rows.iter().try_for_each(|row| if training.contains(row.prompt_id()) { train.add(row) } else { heldout.add(row) })
        })?;
        train.finish()?;
        heldout.finish()
    }

    /// Counts what is odd in all the suite's texts, and refuses prompts that the model can't hold. The rows: to learn from, held out, for the
    /// judges.
    fn audit<R: Audited + Clone>(&self, [train, heldout, judge]: [&Pass<'_, R>; 3]) -> Result<Vec<AuditItem>> {
        let tokenizer = self.tokenizer()?;
        let context = Limits::load(&self.context.folder("reference")?)?.context;
        let eval: Vec<Prompt> = read_jsonl(&self.context.file("data", "eval_prompts.jsonl")?)?;
        let demonstrations = self.context.file("data", "demonstrations.jsonl")?;
        let (imitated, none) = (filed(&demonstrations), held(&[]));
        let room = self.suite.generate.max_new_tokens;
        audit::check_lengths(&tokenizer, context, room, eval.iter().map(|p| (p.id.as_str(), p.text.as_str())))?;
        let input = AuditInput {
            demonstrations: if self.suite.sft.is_some() { &imitated } else { &none },
            train,
            heldout,
            judge,
            eval: &eval,
            tokenizer: Some(&tokenizer),
            max_length: Some(plan::shortest_max_length(self.suite).map_or(context, |m| m.min(context))),
            full: self.suite.dataset.audit_limits().is_some(),
        };
        let mut items = audit::audit(&input)?;
        if let Dataset::Pairs(settings) = &self.suite.dataset {
            items.extend(audit::audit_by_source(&input, settings)?);
        }
        Ok(items)
    }

    /// Samples from the reference, labelled by Bradley–Terry on the gold reward.
    fn world_pairs(&self, settings: &WorldSettings, items: &mut Vec<AuditItem>) -> Result<(Vec<Pair>, Vec<Pair>, Vec<Pair>)> {
        let (model, tokenizer) = (self.evaluated_reference()?, self.tokenizer()?);
        let sampling = untempered(self.suite.generate.max_new_tokens, settings.samples_per_prompt);
        let mut label_set = |name: &str, noise: f64| -> Result<Vec<Pair>> {
            let prompts: Vec<Prompt> = read_jsonl(&self.context.file("data", &format!("{name}_prompts.jsonl"))?)?;
            let purpose = format!("pairs/sample/{name}");
            let samples =
                generate::sample(model.as_ref(), &tokenizer, &prompts, &sampling, self.suite.seed, &purpose, self.context.watch)?;
            let texts: Vec<Vec<String>> =
                samples.chunks(settings.samples_per_prompt).map(|c| c.iter().map(|s| s.text.clone()).collect()).collect();
            let purpose = format!("pairs/{name}");
            let (count, temperature) = (settings.pairs_per_prompt, settings.label_temperature);
            let labelled = label::pairs(&prompts, &texts, count, temperature, noise, self.suite.seed, &purpose);
            items.extend(labelled.audit);
            Ok(labelled.pairs)
        };
        Ok((label_set("train", settings.label_noise)?, label_set("heldout", 0.0)?, label_set("judge", 0.0)?))
    }
}
