//! The suites that `suite init` writes. `world` is also the reference of every key with its default; a test holds it to the
//! defaults that the code has.

/// A commented suite file to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    pub name: &'static str,
    /// What it is for, in a line.
    pub summary: &'static str,
    pub text: &'static str,
}

pub const TEMPLATES: [Template; 3] = [
    Template {
        name: "world",
        summary: "a synthetic world whose truth is known; needs no model and no data",
        text: include_str!("templates/world.toml"),
    },
    Template { name: "pairs", summary: "your own model and preference pairs", text: include_str!("templates/pairs.toml") },
    Template {
        name: "checkpoint",
        summary: "policies that were trained elsewhere",
        text: include_str!("templates/checkpoint.toml"),
    },
];

pub fn template(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.name == name)
}
