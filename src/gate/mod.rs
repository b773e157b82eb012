//! `ReportData` against a golden file: pass, fail or inconclusive.
//!
//! Four kinds of rows, in this order:
//!
//! - `digest`: with the suite of the golden, each cell that doesn't pass through ONNX Runtime must have the same bits. With a
//!   changed suite (a deliberate change of the policy, say) bits need not hold, and one row says so.
//! - `win-rate`: new minus golden at each variant's last checkpoint by the deciding judge, paired by prompt. Fail: the interval
//!   lies below −margin; pass: above; else inconclusive, with the prompts that would decide. Where every completion has the
//!   golden's bits the policies are one and the difference is zero, whatever the number of prompts.
//! - `curve`: with the suite of the golden, loss and reward margins in training, within a relative tolerance.
//! - `finding`: failures that the golden didn't have.
//!
//! The whole fails if any row fails, else is inconclusive if any is, else passes.

mod compare;
mod golden;

pub use compare::compare;
pub use golden::{Curve, Golden, GoldenVariant, describe, diff};

use crate::report::Verdict;
use crate::suite::settings::OnInconclusive;

/// The exit code of a verdict: 0 pass, 100 fail, 102 inconclusive where the suite says that this fails.
pub fn exit_code(verdict: Verdict, on_inconclusive: OnInconclusive) -> u8 {
    match (verdict, on_inconclusive) {
        (Verdict::Pass, _) | (Verdict::Inconclusive, OnInconclusive::Pass) => 0,
        (Verdict::Fail, _) => 100,
        (Verdict::Inconclusive, OnInconclusive::Fail) => 102,
    }
}

#[cfg(test)]
mod tests;
