//! How long work reports its progress and learns that it should stop.

use crate::error::{Error, Kind, Result};

/// Called from inside long loops; implementations are cheap and never fail.
pub trait Watch: Sync {
    /// `done` of `total` units, with a short note (`loss 0.6120 margin 0.35 acc 0.72 1834 tok/s`).
    fn advance(&self, done: u64, total: u64, note: &str);

    fn interrupted(&self) -> bool {
        false
    }

    /// Something to know that doesn't stop the work.
    fn warn(&self, _message: &str) {}

    /// The step after which a training breaks off, keeping its state as when it is interrupted: for those who want to see its
    /// beginning only.
    fn last_step(&self) -> Option<u64> {
        None
    }

    /// An error when the user asked to stop.
    fn check(&self) -> Result<()> {
        if self.interrupted() {
            Err(Error::new(Kind::Interrupted, "interrupted; run the same command again to go on"))
        } else {
            Ok(())
        }
    }
}

/// Watches nothing.
pub struct Silent;

impl Watch for Silent {
    fn advance(&self, _: u64, _: u64, _: &str) {}
}
