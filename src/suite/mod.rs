//! The suite file: `spec` is what was written, `settings` what it means (defaults filled, valid by construction).
//!
//! `load` reads a file, `resolve` lays what it says over the `defaults`, and `document` lets every error point to the line
//! it is about. Nothing here reads a model or a pair: that the named inputs are there is all that is asked of them.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hub::{Reference, Repo, Wanted, Written};

mod defaults;
mod document;
mod inputs;
mod limits;
pub mod one_or_many;
pub mod reading;
mod resolve;
mod rules;
mod schema;
pub mod settings;
pub mod spec;
mod study;
pub mod templates;
mod translate;

use one_or_many::OneOrMany;
pub use schema::schema;
pub use settings::Suite;
use settings::{CheckSettings, EncodingSettings, FitnessSettings, JudgeKind, JudgeSettings, JudgeSource, Label, OnnxSettings};
pub(crate) use translate::with_suggestion;

/// Reads, resolves and checks a suite file. The files and folders it names must be there; the golden file needn't.
pub fn load(path: &Path) -> Result<Suite> {
    let text = read(path)?;
    let (suite, document) = understand(text, path)?;
    inputs::check(&suite, &document)?;
    Ok(suite)
}

/// A judge in a folder, outside of any suite: what isn't given is as in one.
pub fn judge_of_folder(
    name: &str,
    kind: JudgeKind,
    path: PathBuf,
    template: Option<OneOrMany<String>>,
    max_length: Option<usize>,
    labels: &[Label],
) -> Result<JudgeSettings> {
    if let Some(fault) = resolve::fault_of_labels(kind, labels).filter(|_| !labels.is_empty()) {
        return Err(Error::usage(format!("the labels {}", fault.what)).help(fault.help));
    }
    Ok(JudgeSettings {
        name: name.to_owned(),
        kind,
        source: JudgeSource::Folder { path },
        template: template.unwrap_or_else(|| defaults::template(kind).to_owned().into()),
        max_length,
        tie_width: defaults::TIE_WIDTH,
        min_accuracy: defaults::MIN_ACCURACY,
        encoding: EncodingSettings::default(),
        onnx: OnnxSettings { labels: labels.to_vec(), ..OnnxSettings::default() },
        fitness: FitnessSettings::default(),
    })
}

/// The level of intervals where no suite says one.
pub fn default_level() -> f64 {
    defaults::statistics().level
}

/// The position effect that is warned of where no suite says one.
pub fn default_position_warn() -> f64 {
    CheckSettings::default().position_warn
}

/// Resolves and checks the text of a suite file without asking for the files that it names. `file` is what errors point to,
/// and its folder is where relative paths start.
pub fn parse(text: &str, file: &Path) -> Result<Suite> {
    Ok(understand(text.to_owned(), file)?.0)
}

fn understand(text: String, file: &Path) -> Result<(Suite, document::Document)> {
    let document = document::Document::parse(text, file)?;
    let spec = document.spec()?;
    let base = file.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok((resolve::resolve(&spec, &document, base)?, document))
}

fn read(path: &Path) -> Result<String> {
    if path.is_dir() {
        return Err(Error::input(format!("{} is a folder, not a suite file", path.display())).help("name the suite's .toml file"));
    }
    let bytes = std::fs::read(path).map_err(|source| {
        let error = Error::io("read the suite", path, &source);
        match source.kind() {
            std::io::ErrorKind::NotFound => {
                error.help(format!("check the name, or write a suite with `dpo-eval suite init {}`", path.display()))
            }
            _ => error,
        }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
        Error::usage("the file is not UTF-8 text").at_line(path, line).help("save the suite as UTF-8")
    })
}

impl Suite {
    /// The digest of everything the suite says, with paths as written: equal wherever the checkout lies and however the
    /// file is laid out.
    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }

    /// Where a model's folder, or another path written in the suite, lies: relative paths start at the suite file's folder, and what is
    /// the hub's lies in its cache, fetched or not.
    pub fn locate(&self, written: &Path) -> PathBuf {
        self.located(Repo::Model, written)
    }

    /// The same for files of preference data.
    pub fn locate_data(&self, written: &Path) -> PathBuf {
        self.located(Repo::Dataset, written)
    }

    fn located(&self, repo: Repo, written: &Path) -> PathBuf {
        match Written::of(repo, written) {
            Written::Hub(reference) => reference.place(),
            Written::Local | Written::Wrong(..) => self.base.join(written),
        }
    }

    /// What the suite names on the hub, each once.
    pub fn on_hub(&self) -> Vec<Wanted> {
        let mut all: Vec<Wanted> = Vec::new();
        for input in inputs::inputs(self) {
            if let Written::Hub(reference) = Written::of(input.repo(), input.path) {
                let wanted = Wanted { reference, files: input.files };
                if !all.contains(&wanted) {
                    all.push(wanted);
                }
            }
        }
        all
    }

    pub fn variant(&self, name: &str) -> Option<&settings::Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }

    /// The model of the hub that a path names, if it does.
    pub fn model_on_hub(written: &Path) -> Option<Reference> {
        match Written::of(Repo::Model, written) {
            Written::Hub(reference) => Some(reference),
            Written::Local | Written::Wrong(..) => None,
        }
    }
}

#[cfg(test)]
mod tests;
