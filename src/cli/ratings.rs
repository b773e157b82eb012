//! `ratings`: comparisons of many policies in, ratings and ranks out.

use super::args::{RatingsArguments, RowFormat};
use super::exit::Code;
use super::input::Input;
use super::winrate::reading;
use super::{display, print};
use crate::error::{Error, Kind, Result};
use crate::estimates::ratings::{Comparisons, ratings};
use crate::estimates::winrate::subjects::last_checkpoints;
use crate::judge::recorded;
use crate::report;

pub fn run(arguments: &RatingsArguments) -> Result<Code> {
    let reading = reading(arguments.layout, &arguments.columns, false)?;
    let mut files = Vec::new();
    for path in &arguments.files {
        let input = Input::of(path)?;
        let rows = last_checkpoints(recorded::read(&input.file, &reading)?);
        let own = input.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        files.push((own, rows));
    }
    let comparisons = Comparisons::new(files);
    if comparisons.rows.is_empty() {
        return Err(Error::new(Kind::NothingSelected, "no verdict can be read").help("look at the winners in the files"));
    }
    let found = ratings(&comparisons, arguments.level);
    print(&match arguments.format {
        RowFormat::Table => report::ratings::table(&found, display::width()),
        RowFormat::Json => report::ratings::json(&found),
        RowFormat::Csv => report::ratings::csv(&found)?,
    })?;
    Ok(Code::Pass)
}
