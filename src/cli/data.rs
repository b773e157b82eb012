//! `data audit` and `data convert`: preference data by itself.

use std::cell::RefCell;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::args::{Common, DataCommand, Format, Layout, Target};
use crate::cli::hub::{fetch_all, located};
use crate::cli::{Code, print};
use crate::data::audit::{AuditInput, Audited, Take, audit, audit_by_source, audit_rows, filed, held, in_chunks};
use crate::data::convert::{self, To};
use crate::data::files::{Labels, RowFile, read_jsonl};
use crate::data::parts::{self, Reading};
use crate::data::sources::FileRow;
use crate::data::template::{self, ChatTemplate};
use crate::data::tokenize::TextTokenizer;
use crate::data::{AuditItem, LabelledCompletion, Pair};
use crate::error::{Error, Result};
use crate::hub::{Files, Repo, Wanted};
use crate::model::Limits;
use crate::run::plan::shortest_max_length;
use crate::suite::Suite;
use crate::suite::settings::{AuditLimits, Dataset, ModelSource, PairsFormat};

pub fn run(command: &DataCommand, common: &Common) -> Result<Code> {
    match command {
        DataCommand::Audit { file, layout, tokenizer, max_length, format } => {
            let is_suite = file.extension().is_some_and(|extension| extension == "toml");
            let mut limits = None;
            let items = match (is_suite, layout, tokenizer) {
                (true, None, None) => {
                    let suite = crate::suite::load(file)?;
                    limits = suite.dataset.audit_limits().cloned();
                    audit_suite(&suite, common.quiet)?
                }
                (true, ..) => {
                    return Err(Error::usage("a suite says itself what its rows are, and brings its tokenizer")
                        .help("leave --layout and --tokenizer out"));
                }
                (false, layout, tokenizer) => {
                    let file = located(Repo::Dataset, file, Files::One, common.quiet)?;
                    let model = |folder| located(Repo::Model, folder, Files::Tokenizer, common.quiet);
                    let tokenizer = tokenizer.as_deref().map(model).transpose()?;
                    audit_file(&file, *layout, tokenizer.as_deref(), *max_length)?
                }
            };
            show(&items, *format)?;
            if let Some((item, accepted)) = beyond(&items, limits.as_ref()) {
                return Err(Error::input(format!("the suite accepts a share of {accepted} and no more: {}", item.message))
                    .help(format!("mend the data, or raise `{}` in [dataset.audit]", item.id.replace('-', "_"))));
            }
        }
        DataCommand::Convert { input, output, to, messages } => {
            let to = match to {
                Target::Pairs => To::Pairs,
                Target::Unpaired => To::Unpaired,
                Target::Completions => To::Completions,
                Target::Prompts => To::Prompts,
            };
            let input = located(Repo::Dataset, input, Files::One, common.quiet)?;
            let done = convert::convert(&input, output, to, *messages)?;
            anstream::eprintln!("wrote {} rows to {}", done.written, output.display());
            if let Some(first) = &done.first_left_out {
                anstream::eprintln!(
                    "warning: no pair can be made of {} rows, which are left out: they have no prompt to be told from their sides, or no rating below the best; the first: {first}",
                    done.left_out
                );
            }
        }
    }
    Ok(Code::Pass)
}

fn show(items: &[AuditItem], format: Format) -> Result<()> {
    match format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(items).expect("counts serialise"))),
        Format::Table => {
            let line = |i: &AuditItem| format!("{:<28} {:>7} of {:<7} {}\n", i.id, i.count, i.total, i.message);
            print(&items.iter().map(line).collect::<String>())
        }
    }
}

/// The first item of which there is more than the suite accepts, and what it accepts.
fn beyond<'a>(items: &'a [AuditItem], limits: Option<&AuditLimits>) -> Option<(&'a AuditItem, f64)> {
    let accepted = |item: &AuditItem| limits.and_then(|limits| limits.0.get(&item.id)).copied();
    items.iter().find_map(|item| accepted(item).filter(|&accepted| item.share() > accepted).map(|accepted| (item, accepted)))
}

/// The audit of a file that isn't split.
fn audit_file(path: &Path, layout: Option<Layout>, folder: Option<&Path>, max_length: Option<usize>) -> Result<Vec<AuditItem>> {
    let format = match layout {
        None => convert::format_of(path)?,
        Some(Layout::Explicit) => PairsFormat::Explicit,
        Some(Layout::Hh) => PairsFormat::Hh,
        Some(Layout::Unpaired) => PairsFormat::Unpaired,
        Some(Layout::Conversations) => PairsFormat::Conversations,
        Some(Layout::UnpairedConversations) => PairsFormat::UnpairedConversations,
        Some(Layout::Ultrafeedback) => PairsFormat::Ultrafeedback,
    };
    let tokenizer = folder.map(TextTokenizer::load).transpose()?.map(|t| t.for_texts(format.is_conversational()));
    let template = match (format.is_conversational(), folder) {
        (false, _) => None,
        (true, None) => Some(ChatTemplate::plain()),
        (true, Some(folder)) => Some(template::of_model(folder)?),
    };
    let file = RowFile { template: template.as_ref(), ..RowFile::new(path, format) };
    Ok(match format.is_unpaired() {
        true => {
            let mut labels = Labels::default();
            let read = |give: &mut dyn FnMut(LabelledCompletion) -> Result<()>| file.each_labelled(give);
            let items = audited(&read, |row| labels.add(row.label), tokenizer.as_ref(), max_length)?;
            labels.both("rows that are read").map_err(|e| e.in_file(path))?;
            items
        }
        false => {
            audited(&|give: &mut dyn FnMut(Pair) -> Result<()>| file.each_pair(give), |_| (), tokenizer.as_ref(), max_length)?
        }
    })
}

/// Gives a file's rows one by one, and says what of it isn't among them.
type Read<'a, R> = dyn Fn(&mut dyn FnMut(R) -> Result<()>) -> Result<Vec<AuditItem>> + 'a;

/// The audit of a file that is read again and again, so that few of its rows are in memory. `look`: at each row.
fn audited<R: Audited>(
    read: &Read<R>,
    look: impl FnMut(&R),
    tokenizer: Option<&TextTokenizer>,
    max_length: Option<usize>,
) -> Result<Vec<AuditItem>> {
    let (left_out, look) = (RefCell::new(Vec::new()), RefCell::new(look));
    let pass = |take: Take<'_, R>| {
        let looked_at = in_chunks(take, |give| {
            read(&mut |row| {
                look.borrow_mut()(&row);
                give(row)
            })
        });
        left_out.replace(looked_at?);
        Ok(())
    };
    let items = audit_rows(&pass, tokenizer, max_length)?;
    Ok(left_out.take().into_iter().chain(items).collect())
}

/// The audit of a suite's file, split as the suite splits it.
fn audit_suite(suite: &Suite, quiet: bool) -> Result<Vec<AuditItem>> {
    let (Dataset::Pairs(settings), ModelSource::Folder { path }) = (&suite.dataset, &suite.model) else {
        return Err(Error::usage("a world's data is made when the suite runs, and audited then")
            .help("name a suite with kind = \"pairs\" in [dataset]"));
    };
    // An audit needs no weights.
    let needed = |wanted: Wanted| match (wanted.reference.repo, wanted.files) {
        (_, Files::One) | (Repo::Dataset, _) => Some(wanted),
        (_, Files::Model) => Some(Wanted { files: Files::Tokenizer, ..wanted }),
        _ => None,
    };
    fetch_all(&suite.on_hub().into_iter().filter_map(needed).collect::<Vec<_>>(), quiet)?;
    let model = suite.locate(path);
    let tokenizer = TextTokenizer::load(&model)?
        .for_texts(settings.format.is_conversational())
        .with_tokenization(suite.dataset.tokenization());
    let template = template::of_suite(suite, settings, &model)?;
    let context = Limits::load(&model)?.context;
    let max_length = shortest_max_length(suite).map_or(context, |length| length.min(context));
    let (template, tokenizer) = (template.as_ref(), &tokenizer);
    let reading = Reading { suite, settings, template, tokenizer, context: None };
    match settings.is_unpaired() {
        true => audit_parts::<LabelledCompletion>(&reading, max_length),
        false => audit_parts::<Pair>(&reading, max_length),
    }
}

fn audit_parts<R: FileRow + Audited + Serialize + DeserializeOwned>(
    reading: &Reading<'_>,
    max_length: usize,
) -> Result<Vec<AuditItem>> {
    let Reading { suite, settings, tokenizer, .. } = *reading;
    let folder = tempfile::tempdir().map_err(|e| Error::io("make a folder in", &std::env::temp_dir(), &e))?;
    let mut items = reading.split_into::<R>(folder.path())?;
    let [demonstrations, train, heldout, judge, eval] = parts::FILES.map(|name| folder.path().join(name));
    let (imitated, none) = (filed(&demonstrations), held(&[]));
    let input = AuditInput::<R> {
        demonstrations: if suite.sft.is_some() { &imitated } else { &none },
        train: &filed(&train),
        heldout: &filed(&heldout),
        judge: &filed(&judge),
        eval: &read_jsonl(&eval)?,
        tokenizer: Some(tokenizer),
        max_length: Some(max_length),
        full: true,
    };
    items.extend(audit(&input)?);
    items.extend(audit_by_source(&input, settings)?);
    Ok(items)
}
