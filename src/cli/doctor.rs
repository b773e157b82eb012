//! `dpo-eval doctor`: what this machine offers and what is missing.

use crate::cli::args::Common;
use crate::cli::suite::CANDLE;
use crate::cli::{Code, print};
use crate::error::Result;
use crate::judge::runtime;
use crate::model::evaluated_families;
use crate::numerics::isa;
use crate::store::Store;

pub fn run(common: &Common) -> Result<Code> {
    let available: Vec<&str> = isa::available().into_iter().map(isa::Isa::name).collect();
    let mut lines = vec![
        format!("dpo-eval        {}", env!("CARGO_PKG_VERSION")),
        format!("kernels         {} (this machine has {})", isa::active().name(), available.join(", ")),
        format!("threads         {}", common.threads()),
    ];
    lines.push(format!("evaluated only  {}; by {CANDLE}", evaluated_families().join(", ")));
    let store = match Store::open(&common.store) {
        Ok(store) => format!("store           {}: {} finished runs", common.store.display(), store.runs()?.len()),
        Err(error) => format!("store           unusable: {error}"),
    };
    lines.push(store);
    let runtime = runtime::ensure();
    lines.extend(runtime::doctor_lines());
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    runtime.map(|_| Code::Pass)
}
