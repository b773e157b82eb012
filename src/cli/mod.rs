//! Arguments, printing, exit codes. Data goes to stdout, everything else to stderr.

mod args;
mod baseline;
mod data;
mod display;
mod doctor;
mod exit;
mod hub;
mod input;
mod judge;
mod ratings;
mod repro;
mod runs;
mod stage;
mod suite;
mod winrate;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};

use crate::error::{Error, Result};

use args::{Arguments, Command};
pub use exit::Code;

/// Set by Ctrl-C and SIGTERM; long work looks at it.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The program: parses, runs, reports errors, gives the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let help = !error.use_stderr();
            let _ = error.print();
            return if help { Code::Pass } else { Code::Usage }.into();
        }
    };
    watch_signals();
    match run(parsed) {
        Ok(code) => code.into(),
        Err(error) => {
            anstream::eprintln!("{}: {error}", display::red("error"));
            Code::of(&error).into()
        }
    }
}

/// The first signal asks the work to stop, keeping what it has; the second ends the process.
fn watch_signals() {
    let installed = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(Code::Interrupted as i32);
        }
        anstream::eprintln!("stopping; finished work is kept (press Ctrl-C again to stop at once)");
    });
    if let Err(error) = installed {
        anstream::eprintln!("warning: Ctrl-C stops at once: {error}");
    }
}

fn run(arguments: Arguments) -> Result<Code> {
    let common = &arguments.common;
    crate::numerics::isa::check().map_err(|e| crate::Error::usage(e.message).help(e.help))?;
    match &arguments.command {
        Command::Suite(command) => suite::run(command, common),
        Command::Gate(command) => baseline::gate(command, common),
        Command::Compare(command) => baseline::compare(command, common),
        Command::Repro(command) => repro::run(command, common),
        Command::Report(command) => baseline::report(command, common),
        Command::Baseline(command) => baseline::run(command, common),
        Command::Train(command) => stage::train(command, common),
        Command::Logps(command) => stage::logps(command, common),
        Command::Merge(command) => stage::merge(command),
        Command::Judge(command) => judge::run(command, common),
        Command::Winrate(command) => winrate::run(command, common),
        Command::Ratings(command) => ratings::run(command),
        Command::Data(command) => data::run(command, common),
        Command::Runs(command) => runs::run(command, common),
        Command::Doctor => doctor::run(common),
        Command::Completions { shell } => {
            let mut bytes = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "dpo-eval", &mut bytes);
            print(&String::from_utf8_lossy(&bytes))?;
            Ok(Code::Pass)
        }
    }
}

/// Writes to stdout. A reader that went away is a normal end.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(Code::Pass as i32),
        Err(e) => Err(Error::unexpected(format!("cannot write to the standard output: {e}"))),
    }
}
