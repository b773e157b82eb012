//! Exit codes: one public enum, documented in the README.

use std::process::ExitCode;

use crate::error::{Error, Kind};
use crate::report::Verdict;
use crate::suite::settings::OnInconclusive;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Pass = 0,
    /// A defect, or a failure of the machine.
    Unexpected = 1,
    /// Usage, or an invalid suite.
    Usage = 2,
    /// An input is missing or has another digest.
    Input = 3,
    NothingSelected = 4,
    /// Cells are missing.
    Incomplete = 5,
    /// Try again: the disk was full, or another process held what was needed.
    TryAgain = 75,
    GateFailed = 100,
    /// Inconclusive, and the suite says that this fails.
    Inconclusive = 102,
    NotReproducible = 103,
    Interrupted = 130,
}

impl Code {
    pub fn of(error: &Error) -> Self {
        match error.kind {
            Kind::Unexpected => Self::Unexpected,
            Kind::Usage => Self::Usage,
            Kind::Input => Self::Input,
            Kind::NothingSelected => Self::NothingSelected,
            Kind::Incomplete => Self::Incomplete,
            Kind::TryAgain => Self::TryAgain,
            Kind::NotReproducible => Self::NotReproducible,
            Kind::Interrupted => Self::Interrupted,
        }
    }

    pub fn of_verdict(verdict: Verdict, on_inconclusive: OnInconclusive) -> Self {
        match (verdict, on_inconclusive) {
            (Verdict::Pass, _) | (Verdict::Inconclusive, OnInconclusive::Pass) => Self::Pass,
            (Verdict::Fail, _) => Self::GateFailed,
            (Verdict::Inconclusive, OnInconclusive::Fail) => Self::Inconclusive,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_follows_from_the_verdict_and_what_the_suite_says_of_inconclusive_ones() {
        let code = |verdict, on| Code::of_verdict(verdict, on) as u8;
        assert_eq!(code(Verdict::Pass, OnInconclusive::Fail), 0);
        assert_eq!(code(Verdict::Fail, OnInconclusive::Pass), 100);
        assert_eq!(code(Verdict::Inconclusive, OnInconclusive::Fail), 102);
        assert_eq!(code(Verdict::Inconclusive, OnInconclusive::Pass), 0);
    }
}
