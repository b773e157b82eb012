//! `[dataset]` and `[model]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::Result;
use crate::suite::defaults;
use crate::suite::document::{Document, Table};
use crate::suite::reading::{
    AuditLimits, AuditSpec, ColumnsSpec, RatingSettings, ReadingSettings, SourceSettings, SourceSpec, TemplateFile,
};
use crate::suite::rules;
use crate::suite::settings::{Dataset, FreshModel, ModelSource, PairsFormat, PairsSettings, WorldSettings};
use crate::suite::spec::{DatasetKind, DatasetSpec, ModelSpec, SuiteSpec};

/// Keys of `[dataset]` that every kind takes.
const COMMON: [&str; 3] = ["kind", "sampling", "eval_prompts"];
const PAIRS_ONLY: [&str; 15] = [
    "path",
    "source",
    "rated_by",
    "rejected_by",
    "format",
    "columns",
    "chat_template",
    "chat_date",
    "tokenization",
    "audit",
    "limit",
    "max_prompt_length",
    "heldout_share",
    "judge_share",
    "eval_share",
];

pub(super) fn dataset(written: &DatasetSpec, document: &Document) -> Result<Dataset> {
    let table = &document.table("dataset");
    let (kind, stranger) = match written.kind {
        DatasetKind::World => ("world", table.first_key(|key| PAIRS_ONLY.contains(&key))),
        DatasetKind::Pairs => ("pairs", table.first_key(|key| !PAIRS_ONLY.contains(&key) && !COMMON.contains(&key))),
    };
    if let Some(key) = stranger {
        let other = if kind == "world" { "pairs" } else { "world" };
        return Err(table
            .at_key(key, format!("`{key}` has no effect with kind = \"{kind}\""))
            .help(format!("leave it out, or set kind = \"{other}\"")));
    }
    match written.kind {
        DatasetKind::World => world(written, table).map(Dataset::World),
        DatasetKind::Pairs => pairs(written, table, document).map(Dataset::Pairs),
    }
}

fn world(written: &DatasetSpec, table: &Table<'_>) -> Result<WorldSettings> {
    let mut world = defaults::world();
    table.set(&mut world.demonstrations, "demonstrations", written.demonstrations, rules::AT_LEAST_ONE)?;
    table.set(&mut world.vocab_size, "vocab_size", written.vocab_size, rules::VOCABULARY)?;
    table.set(&mut world.train_prompts, "train_prompts", written.train_prompts, rules::AT_LEAST_ONE)?;
    table.set(&mut world.heldout_prompts, "heldout_prompts", written.heldout_prompts, rules::TWO_OR_MORE)?;
    table.set(&mut world.judge_prompts, "judge_prompts", written.judge_prompts, rules::TWO_OR_MORE)?;
    table.set(&mut world.eval_prompts, "eval_prompts", written.eval_prompts, rules::TWO_OR_MORE)?;
    table.set(&mut world.samples_per_prompt, "samples_per_prompt", written.samples_per_prompt, rules::TWO_OR_MORE)?;
    table.set(&mut world.pairs_per_prompt, "pairs_per_prompt", written.pairs_per_prompt, rules::AT_LEAST_ONE)?;
    table.set(&mut world.label_temperature, "label_temperature", written.label_temperature, rules::POSITIVE)?;
    table.set(&mut world.label_noise, "label_noise", written.label_noise, rules::UNIT)?;
    table.set(&mut world.sampling, "sampling", written.sampling, rules::any())?;
    let samples = world.samples_per_prompt;
    let most = samples.saturating_mul(samples - 1) / 2;
    if world.pairs_per_prompt > most {
        let message = format!("pairs_per_prompt = {} is too many: {samples} samples make {most} pairs", world.pairs_per_prompt);
        let key = if table.has("pairs_per_prompt") { "pairs_per_prompt" } else { "samples_per_prompt" };
        return Err(table.at_value(key, message).help("lower pairs_per_prompt or raise samples_per_prompt"));
    }
    Ok(world)
}

fn pairs(written: &DatasetSpec, table: &Table<'_>, document: &Document) -> Result<PairsSettings> {
    let path = match (&written.path, written.source.is_empty()) {
        (Some(path), true) => path.clone(),
        (None, false) => PathBuf::new(),
        (Some(_), false) => {
            let error = table.at_key("path", "`path` and [[dataset.source]] can't both say where the data is");
            return Err(error.help("leave one of them out: the file of `path` can be a source too"));
        }
        (None, true) => {
            let error = table.at_value("kind", "[dataset] with kind = \"pairs\" needs `path`");
            return Err(error.help("name the file with the preference pairs, relative to the suite file"));
        }
    };
    let [heldout_share, judge_share, eval_share] = defaults::SHARES;
    let mut pairs = PairsSettings {
        path,
        format: defaults::PAIRS_FORMAT,
        limit: written.limit,
        sources: sources(written, table, document)?,
        max_prompt_length: None,
        heldout_share,
        judge_share,
        eval_share,
        eval_prompts: defaults::EVAL_PROMPTS,
        sampling: defaults::SAMPLING,
        reading: ReadingSettings::default(),
    };
    table.set(&mut pairs.format, "format", written.format, rules::any())?;
    if let Some(first) = pairs.sources.first() {
        pairs.format = first.format;
    }
    pairs.reading = reading(written, &pairs, document)?;
    if let Some(limit) = &mut pairs.limit {
        table.set(limit, "limit", written.limit, rules::AT_LEAST_ONE)?;
    }
    let longest = written.max_prompt_length;
    table.set_or_none(&mut pairs.max_prompt_length, "max_prompt_length", longest, rules::AT_LEAST_ONE)?;
    if pairs.is_unpaired() {
        if table.has("judge_share") {
            let message = "`judge_share` has no effect: an unpaired file has no pairs to train or measure judges with";
            return Err(table.at_key("judge_share", message).help("leave it out"));
        }
        pairs.judge_share = 0.0;
    }
    let heldout = if pairs.is_unpaired() { rules::BELOW_ONE } else { rules::SHARE };
    table.set(&mut pairs.heldout_share, "heldout_share", written.heldout_share, heldout)?;
    table.set(&mut pairs.judge_share, "judge_share", written.judge_share, rules::BELOW_ONE)?;
    table.set(&mut pairs.eval_share, "eval_share", written.eval_share, rules::SHARE)?;
    table.set(&mut pairs.eval_prompts, "eval_prompts", written.eval_prompts, rules::TWO_OR_MORE)?;
    table.set(&mut pairs.sampling, "sampling", written.sampling, rules::any())?;
    let sum = pairs.heldout_share + pairs.judge_share + pairs.eval_share;
    if sum >= 1.0 {
        let key = table.first_key(|key| key.ends_with("_share")).unwrap_or("kind");
        let message = format!("heldout_share, judge_share and eval_share sum to {sum:.3}, so nothing is left to train on");
        return Err(table.at_key(key, message).help("the three shares must sum to less than 1"));
    }
    Ok(pairs)
}

/// How the file is read.
fn reading(written: &DatasetSpec, pairs: &PairsSettings, document: &Document) -> Result<ReadingSettings> {
    let (table, format) = (document.table("dataset"), pairs.format);
    if let Some(key) = table.first_key(|key| key.starts_with("chat_")).filter(|_| !format.is_conversational()) {
        let error = table.at_key(key, format!("`{key}` has no effect: texts are taken as they are"));
        return Err(error.help("leave it out, or set format = \"conversations\""));
    }
    let rated = |key: &str| ["rated_by", "rejected_by"].contains(&key);
    let formats: Vec<PairsFormat> = pairs.sources.iter().map(|source| source.format).chain([format]).collect();
    if let Some(key) = table.first_key(rated).filter(|_| !formats.contains(&PairsFormat::Ultrafeedback)) {
        let error = table.at_key(key, format!("`{key}` has no effect: no completions are rated"));
        return Err(error.help("leave it out, or set format = \"ultrafeedback\""));
    }
    if let Some(date) = &written.chat_date
        && date.parse::<jiff::civil::Date>().is_err()
    {
        let error = table.at_value("chat_date", format!("\"{date}\" is no date"));
        return Err(error.help("write the year, the month and the day: \"2026-01-31\""));
    }
    Ok(ReadingSettings {
        columns: columns(written.columns.as_ref(), format, &document.table("dataset.columns"))?,
        audit: written.audit.as_ref().map(|audit| limits(audit, &document.table("dataset.audit"))).transpose()?,
        chat_template: written.chat_template.clone().map(|path| TemplateFile { path }),
        chat_date: written.chat_date.clone(),
        ratings: RatingSettings { by: written.rated_by.unwrap_or_default(), rejected: written.rejected_by.unwrap_or_default() },
        tokenization: written.tokenization.unwrap_or_default(),
    })
}

/// What a file calls the columns of its format.
fn columns(written: Option<&ColumnsSpec>, format: PairsFormat, columns: &Table<'_>) -> Result<BTreeMap<String, String>> {
    let names: &[&str] = match format {
        PairsFormat::Ultrafeedback => &["id", "instruction"],
        PairsFormat::Explicit => &["id", "prompt", "chosen", "rejected"],
        PairsFormat::Hh => &["id", "chosen", "rejected"],
        PairsFormat::Unpaired => &["id", "prompt", "completion", "label"],
        PairsFormat::UnpairedConversations => &["id", "prompt", "completion", "label", "tools"],
        PairsFormat::Conversations => {
            &["id", "prompt", "chosen", "rejected", "tools", "conversations", "instruction", "input", "system", "history"]
        }
    };
    if let Some(key) = columns.first_key(|key| !names.contains(&key)) {
        let error = columns.at_key(key, format!("`{key}` has no effect: files of this format have no such column"));
        return Err(error.help(format!("its columns are {}", names.join(", "))));
    }
    Ok(written.into_iter().flat_map(ColumnsSpec::written).map(|(name, column)| (name.to_owned(), column)).collect())
}

/// The files that are read instead of one.
fn sources(written: &DatasetSpec, table: &Table<'_>, document: &Document) -> Result<Vec<SourceSettings>> {
    let of_one_file = ["format", "columns", "limit"];
    if let Some(key) = table.first_key(|key| of_one_file.contains(&key)).filter(|_| !written.source.is_empty()) {
        let error = table.at_key(key, format!("`{key}` has no effect beside [[dataset.source]]: each source has its own"));
        return Err(error.help(format!("write `{key}` into the sources that it is about")));
    }
    let names: Vec<&str> = written.source.iter().map(|source| source.name.as_str()).collect();
    super::names_differ(&names, "dataset.source", document)?;
    let path = |index: usize| format!("dataset.source[{index}]");
    let all: Vec<SourceSettings> =
        written.source.iter().enumerate().map(|(index, one)| source(one, &path(index), document)).collect::<Result<_>>()?;
    for (index, other) in all.iter().enumerate().skip(1) {
        let kind = |format: PairsFormat| (format.is_unpaired(), format.is_conversational());
        if kind(other.format) != kind(all[0].format) {
            let message = format!("source `{}` is of another kind than `{}`", other.name, all[0].name);
            let help = "all sources are pairs, or all are single completions; and all are texts, or all are conversations";
            return Err(document.table(path(index)).at_value("format", message).help(help));
        }
    }
    Ok(all)
}

fn source(written: &SourceSpec, path: &str, document: &Document) -> Result<SourceSettings> {
    let table = document.table(path);
    super::name_is_usable(&written.name, &table)?;
    let format = written.format.unwrap_or(defaults::PAIRS_FORMAT);
    let mut source = SourceSettings {
        name: written.name.clone(),
        path: written.path.clone(),
        format,
        limit: written.limit,
        columns: columns(written.columns.as_ref(), format, &document.table(format!("{path}.columns")))?,
        weight: 1.0,
    };
    if let Some(limit) = &mut source.limit {
        table.set(limit, "limit", written.limit, rules::AT_LEAST_ONE)?;
    }
    table.set(&mut source.weight, "weight", written.weight, rules::WEIGHT)?;
    Ok(source)
}

/// The audit's limits by the ids of its items.
fn limits(written: &AuditSpec, table: &Table<'_>) -> Result<AuditLimits> {
    let mut limits = AuditLimits::default();
    for (key, share) in written.written() {
        let mut limit = share;
        table.set(&mut limit, key, Some(share), rules::UNIT)?;
        limits.0.insert(key.replace('_', "-"), limit);
    }
    Ok(limits)
}

pub(super) fn model(spec: &SuiteSpec, dataset: &Dataset, document: &Document) -> Result<ModelSource> {
    let table = document.table("model");
    let written = spec.model.clone().unwrap_or_default();
    if let Some(path) = written.path {
        if let Some(key) = table.first_key(|key| key != "path") {
            let error = table.at_key(key, format!("`{key}` has no effect: the folder's config.json describes the model"));
            return Err(error.help(format!("leave out `{key}`, or leave out `path` for a fresh model")));
        }
        let data = document.table("dataset");
        if data.has("vocab_size") {
            let error = data.at_key("vocab_size", "`vocab_size` has no effect: the model's folder brings its tokenizer");
            return Err(error.help("leave it out"));
        }
        return Ok(ModelSource::Folder { path });
    }
    if matches!(dataset, Dataset::Pairs(_)) {
        let error = table.at_header("a fresh model can't read a pairs file: it has no tokenizer");
        return Err(error.help("give a Hugging Face folder in [model] `path`, or set kind = \"world\" in [dataset]"));
    }
    fresh_model(&written, &table).map(ModelSource::Fresh)
}

fn fresh_model(written: &ModelSpec, table: &Table<'_>) -> Result<FreshModel> {
    let mut m = defaults::fresh_model();
    table.set(&mut m.hidden_size, "hidden_size", written.hidden_size, rules::AT_LEAST_ONE)?;
    m.intermediate_size = defaults::intermediate_size(m.hidden_size);
    table.set(&mut m.intermediate_size, "intermediate_size", written.intermediate_size, rules::AT_LEAST_ONE)?;
    table.set(&mut m.num_hidden_layers, "num_hidden_layers", written.num_hidden_layers, rules::AT_LEAST_ONE)?;
    table.set(&mut m.num_attention_heads, "num_attention_heads", written.num_attention_heads, rules::AT_LEAST_ONE)?;
    m.num_key_value_heads = m.num_attention_heads;
    table.set(&mut m.num_key_value_heads, "num_key_value_heads", written.num_key_value_heads, rules::AT_LEAST_ONE)?;
    let context = written.max_position_embeddings;
    table.set(&mut m.max_position_embeddings, "max_position_embeddings", context, rules::TWO_OR_MORE)?;
    table.set(&mut m.rope_theta, "rope_theta", written.rope_theta, rules::POSITIVE)?;
    table.set(&mut m.rms_norm_eps, "rms_norm_eps", written.rms_norm_eps, rules::POSITIVE)?;
    table.set(&mut m.initializer_range, "initializer_range", written.initializer_range, rules::POSITIVE)?;
    table.set(&mut m.tie_word_embeddings, "tie_word_embeddings", written.tie_word_embeddings, rules::any())?;
    let (hidden, heads, shared) = (m.hidden_size, m.num_attention_heads, m.num_key_value_heads);
    let blame = |keys: [&'static str; 2]| if table.has(keys[0]) { keys[0] } else { keys[1] };
    if hidden % heads != 0 || !(hidden / heads).is_multiple_of(2) {
        let message = format!("hidden_size = {hidden} doesn't split into {heads} heads of an even size");
        let error = table.at_value(blame(["num_attention_heads", "hidden_size"]), message);
        return Err(error.help("hidden_size must be a multiple of 2 × num_attention_heads (rotary embeddings turn pairs)"));
    }
    if heads % shared != 0 {
        let message = format!("{heads} attention heads can't share {shared} heads of keys and values evenly");
        let error = table.at_value(blame(["num_key_value_heads", "num_attention_heads"]), message);
        return Err(error.help("num_key_value_heads must divide num_attention_heads"));
    }
    Ok(m)
}
