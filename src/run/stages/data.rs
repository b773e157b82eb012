//! The data and the pairs made of them: a world's, sampled and labelled, or a file's, split.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rounds::untempered;
use super::{Body, names};
use crate::data::audit::{self, AuditInput, Audited};
use crate::data::files::{Rows, read_jsonl, write_jsonl};
use crate::data::sources::{self, FileRow};
use crate::data::template;
use crate::data::tokenize::TextTokenizer;
use crate::data::{AuditItem, Demonstration, LabelledCompletion, Pair, PreferenceRow, Prompt, label, split, world};
use crate::error::{Error, Result};
use crate::generate;
use crate::model::Limits;
use crate::run::plan;
use crate::suite::settings::{Dataset, ModelSource, PairsSettings, WorldSettings};

/// Share of the judges' own prompts on which they are trained; the rest measures them.
const JUDGE_TRAINING_SHARE: f64 = 0.75;

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
        if settings.is_unpaired() {
            let file = sources::read::<LabelledCompletion>(self.suite, settings, template.as_ref())?;
            self.split_rows(settings, file, &tokenizer, context)?;
        } else {
            let file = sources::read::<Pair>(self.suite, settings, template.as_ref())?;
            self.split_rows(settings, file, &tokenizer, context)?;
        }
        let own = [
            "demonstrations.jsonl",
            "train_pairs.jsonl",
            "heldout_pairs.jsonl",
            "judge_pairs.jsonl",
            "eval_prompts.jsonl",
            "audit.jsonl",
        ];
        Ok([names(&own), saved].concat())
    }

    /// Splits the rows of files and writes the splits. `context`: of the model, tokens.
    fn split_rows<R: FileRow + Serialize + Sync>(
        &self,
        settings: &PairsSettings,
        file: Rows<R>,
        tokenizer: &TextTokenizer,
        context: usize,
    ) -> Result<()> {
        let Rows { mut rows, audit: mut items } = file;
        let about = |error: Error| match settings.sources.is_empty() {
            true => error.in_file(self.suite.locate_data(&settings.path)),
            false => error,
        };
        if let Some(longest) = settings.max_prompt_length {
            let (kept, left_out) = audit::without_long_prompts(tokenizer, rows, longest).map_err(about)?;
            rows = kept;
            items.push(left_out);
        }
        let prompts = rows.iter().map(|row| (row.id(), row.prompt()));
        audit::check_lengths(tokenizer, context, 1, prompts).map_err(about)?;
        let splits = split::split(rows, settings)?;
        // Where the suite has an [sft] table, it imitates the chosen sides, or the desirable completions.
        let demonstrations: Vec<Demonstration> = splits.train.iter().filter_map(R::demonstration).collect();
        write_jsonl(&self.work().join("demonstrations.jsonl"), &demonstrations)?;
        for (name, rows) in [("train", &splits.train), ("heldout", &splits.heldout), ("judge", &splits.judge)] {
            write_jsonl(&self.work().join(format!("{name}_pairs.jsonl")), rows)?;
        }
        write_jsonl(&self.work().join("eval_prompts.jsonl"), &splits.eval)?;
        write_jsonl(&self.work().join("audit.jsonl"), &items)?;
        R::check(&splits.train, "rows of the training split").map_err(about)
    }

    pub(super) fn pairs(&self) -> Result<Vec<String>> {
        match &self.suite.dataset {
            Dataset::World(settings) => {
                let mut items: Vec<AuditItem> = Vec::new();
                let pairs = self.world_pairs(settings, &mut items)?;
                self.audited(pairs, items)
            }
            Dataset::Pairs(settings) if settings.is_unpaired() => {
                self.audited(self.rows_of_file::<LabelledCompletion>()?, Vec::new())
            }
            Dataset::Pairs(_) => self.audited(self.rows_of_file::<Pair>()?, Vec::new()),
        }
    }

    /// The splits that the data cell made of a file: to learn from, held out, for the judges.
    fn rows_of_file<R: DeserializeOwned>(&self) -> Result<(Vec<R>, Vec<R>, Vec<R>)> {
        let read = |name: &str| read_jsonl::<R>(&self.context.file("data", name)?);
        Ok((read("train_pairs.jsonl")?, read("heldout_pairs.jsonl")?, read("judge_pairs.jsonl")?))
    }

    /// Writes the rows of each purpose, with the audit after `items`.
    fn audited<R: Audited + Serialize + Clone>(
        &self,
        (train, heldout, judge): (Vec<R>, Vec<R>, Vec<R>),
        mut items: Vec<AuditItem>,
    ) -> Result<Vec<String>> {
        items.extend(self.audit(&train, &heldout, &judge)?);
        write_jsonl(&self.work().join("audit.jsonl"), &items)?;
        let (judge_train, judge_heldout) = split_by_prompt(judge, JUDGE_TRAINING_SHARE);
        for (name, rows) in
            [("train", &train), ("heldout", &heldout), ("judge_train", &judge_train), ("judge_heldout", &judge_heldout)]
        {
            write_jsonl(&self.work().join(format!("{name}.jsonl")), rows)?;
        }
        Ok(names(&["train.jsonl", "heldout.jsonl", "judge_train.jsonl", "judge_heldout.jsonl", "audit.jsonl"]))
    }

    /// Counts what is odd in all the suite's texts, and refuses prompts that the model can't hold.
    fn audit<R: Audited + Clone>(&self, train: &[R], heldout: &[R], judge: &[R]) -> Result<Vec<AuditItem>> {
        let tokenizer = self.tokenizer()?;
        let context = Limits::load(&self.context.folder("reference")?)?.context;
        let eval: Vec<Prompt> = read_jsonl(&self.context.file("data", "eval_prompts.jsonl")?)?;
        let demonstrations: Vec<Demonstration> = match self.suite.sft {
            Some(_) => read_jsonl(&self.context.file("data", "demonstrations.jsonl")?)?,
            None => Vec::new(),
        };
        let room = self.suite.generate.max_new_tokens;
        audit::check_lengths(&tokenizer, context, room, eval.iter().map(|p| (p.id.as_str(), p.text.as_str())))?;
        let input = AuditInput {
            demonstrations: &demonstrations,
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

/// Splits rows so that a prompt's rows stay together; the first share of the prompts comes first.
fn split_by_prompt<R: PreferenceRow>(rows: Vec<R>, share: f64) -> (Vec<R>, Vec<R>) {
    let mut seen = BTreeSet::new();
    let prompts: Vec<&str> = rows.iter().map(R::prompt_id).filter(|id| seen.insert(*id)).collect();
    let first: BTreeSet<String> =
        prompts.iter().take((prompts.len() as f64 * share).round() as usize).map(|&id| id.to_owned()).collect();
    rows.into_iter().partition(|row| first.contains(row.prompt_id()))
}
