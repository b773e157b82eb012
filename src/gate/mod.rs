//! `ReportData` against a golden file: pass, fail or inconclusive. And against another run's (`runs`): by how much.
//!
//! The kinds of rows, in this order:
//!
//! - `digest`: with the suite of the golden, each cell that doesn't pass through ONNX Runtime must have the same bits. With a
//!   changed suite (a deliberate change of the policy, say) bits need not hold, and one row says so.
//! - `chain`: with the suite of the golden, the digest chain of every training; a difference names the first step.
//! - `numerics`: instead of these, where the run or the golden computed in the fast arithmetic, one row that says so: its bits
//!   are a machine's own.
//! - `win-rate`: new minus golden at each variant's last checkpoint by the deciding judge, paired by prompt. Fail: the interval
//!   lies below −margin, and the loss stands among all variants (Holm); pass: above; else inconclusive, with the prompts that
//!   would decide. Where every completion has the golden's bits the policies are one and the difference is zero, whatever the
//!   number of prompts. Where labels correct the win rates they correct the difference too, with the interval that this has;
//!   where judging might stop early, the interval is one that holds at every time.
//! - `curve`: with the suite of the golden, loss and reward margins in training, within a relative tolerance.
//! - `finding`: failures that the golden didn't have.
//!
//! The whole fails if any row fails, else is inconclusive if any is, else passes.

mod compare;
mod golden;
mod runs;

pub use compare::compare;
pub use golden::{Curve, Golden, GoldenVariant, describe, diff};
pub use runs::compare_runs;

#[cfg(test)]
mod tests;
