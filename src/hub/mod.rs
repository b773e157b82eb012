//! Models and data from the Hugging Face hub, by commit: `org/name@<40 hex>`, and `:file` after it where one file is meant.
//!
//! What is fetched lies in the cache that `huggingface_hub` keeps, laid out as it lays it out: what one of the two fetched, the other
//! finds. Every file is held against the digest that names it. `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT` and
//! `HF_HUB_OFFLINE` mean what they mean there; `DPO_EVAL_OFFLINE` forbids the network too.

mod cache;
mod fetch;
mod http;
mod reference;
mod select;

use std::path::PathBuf;

pub use cache::{digests, verified_digest};
pub use fetch::State;
pub use reference::{Reference, Repo, Written};
pub use select::Files;

/// Where the hub is, and where its cache lies.
#[derive(Debug, Clone)]
pub struct Hub {
    pub cache: PathBuf,
    /// Without a slash at its end.
    pub endpoint: String,
    pub token: Option<String>,
    /// The variable that forbids the network, if one does.
    pub offline: Option<&'static str>,
    /// The first wait before a failed request is repeated; each further one is twice as long.
    pub pause: std::time::Duration,
}

/// One thing that is needed of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub reference: Reference,
    pub files: Files,
}

impl Hub {
    pub const ENDPOINT: &str = "https://huggingface.co";

    /// As the environment says.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let home = hugging_face_home(&set);
        let from_file = || {
            let path = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), |path| expanded(&path));
            std::fs::read_to_string(path).ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        let is_true = |name: &str| set(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()));
        let offline = if is_true("HF_HUB_OFFLINE") {
            Some("HF_HUB_OFFLINE")
        } else {
            set("DPO_EVAL_OFFLINE").filter(|value| value != "0").map(|_| "DPO_EVAL_OFFLINE")
        };
        Self {
            cache: cache_folder(),
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| Self::ENDPOINT.to_owned()).trim_end_matches('/').to_owned(),
            token: set("HF_TOKEN").or_else(from_file),
            offline,
            pause: std::time::Duration::from_millis(500),
        }
    }
}

/// The folder of all repositories.
fn cache_folder() -> PathBuf {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")) {
        Some(path) => expanded(&path),
        None => hugging_face_home(&set).join("hub"),
    }
}

fn hugging_face_home(set: &impl Fn(&str) -> Option<String>) -> PathBuf {
    match (set("HF_HOME"), set("XDG_CACHE_HOME")) {
        (Some(home), _) => expanded(&home),
        (None, Some(cache)) => expanded(&cache).join("huggingface"),
        (None, None) => expanded("~/.cache").join("huggingface"),
    }
}

/// A path whose `~` is the user's home.
fn expanded(path: &str) -> PathBuf {
    match path.strip_prefix("~/") {
        Some(rest) => etcetera::home_dir().unwrap_or_default().join(rest),
        None => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests;
