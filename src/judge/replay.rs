use crate::error::Result;
use crate::judge::verdict::{Judge, Texts, Verdict};
use crate::watch::Watch;
pub struct Replay {}
impl Replay {
    pub fn open(_: &std::path::Path, _: f64) -> Result<Self> {
        Ok(Self {})
    }
}
impl Judge for Replay {
    fn ask(&mut self, texts: &[Texts], _: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        Ok(texts.iter().map(|_| None).collect())
    }
}
