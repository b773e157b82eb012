//! The suite file: `spec` is what was written (with source spans), `settings` what it means (defaults filled, valid by
//! construction).

pub mod settings;

pub use settings::Suite;
