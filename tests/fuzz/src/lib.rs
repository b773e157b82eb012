//! What is fuzzed: each function reads bytes as the program reads a file, and must end in a value or an error, never in a panic.
//!
//! libFuzzer runs them (`cargo +nightly fuzz run rows --fuzz-dir tests/fuzz`), and so does a test of the commands, with mutations of its own.

use std::io::Write;
use std::path::Path;

use dpo_eval::data::convert::{self, To};
use dpo_eval::data::field::{Field, Object};
use dpo_eval::data::files::RowFile;
use dpo_eval::data::template::ChatTemplate;
use dpo_eval::model::Parameters;
use dpo_eval::suite::settings::PairsFormat;

/// A file of rows. Its first byte says what the file is called, as names tell CSV.
pub fn rows(bytes: &[u8]) {
    let Some((&first, content)) = bytes.split_first() else { return };
    let name = ["rows.jsonl", "rows.csv", "rows.tsv"][usize::from(first) % 3];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::File::create(&path).and_then(|mut file| file.write_all(content)).expect("it is written");
    let template = ChatTemplate::plain();
    if let Ok(format) = convert::format_of(&path) {
        let file = RowFile { template: Some(&template), ..RowFile::new(&path, format) };
        let told = if format.is_unpaired() { file.labelled().map(drop) } else { file.pairs().map(drop) };
        drop(told.map_err(|error| error.to_string()));
    }
    drop(RowFile::new(&path, PairsFormat::Hh).pairs());
    drop(convert::convert(&path, &folder.path().join("out.jsonl"), To::Prompts, true));
}

/// A chat template, on a conversation with everything in it.
pub fn template(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let special = vec![("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())];
    let Ok(template) = ChatTemplate::new(source, special, None) else { return };
    let message = |role: &str, content: &str| {
        Object(vec![("role".to_owned(), Field::from(role)), ("content".to_owned(), Field::from(content))])
    };
    let messages = [message("system", "Be kind."), message("user", "1 + 1?"), message("assistant", "<think>2</think>2")];
    drop(template.cut(&messages[..2], &messages[2..], Some(&Field::List(Vec::new()))));
}

/// A file of weights.
pub fn weights(bytes: &[u8]) {
    drop(Parameters::from_safetensors(bytes));
}

/// A suite file.
pub fn suite(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = dpo_eval::suite::parse(text, Path::new("suite.toml")) {
        drop(error.to_string());
    }
}
