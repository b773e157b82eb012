//! `dpo-eval doctor`: what this machine offers and what is missing.

use crate::cli::args::Common;
use crate::cli::suite::CANDLE;
use crate::cli::{Code, print};
use crate::error::Result;
use crate::judge::runtime;
use crate::model::evaluated_families;
use crate::numerics::device::{self, Found};
use crate::numerics::isa;
use crate::store::Store;

pub fn run(common: &Common) -> Result<Code> {
    let available: Vec<&str> = isa::available().into_iter().map(isa::Isa::name).collect();
    let mut lines = vec![
        format!("dpo-eval        {}", env!("CARGO_PKG_VERSION")),
        format!("kernels         {} (this machine has {})", isa::active().name(), available.join(", ")),
        format!("threads         {}", common.threads()),
    ];
    lines.push(format!("CUDA devices    {}", cuda_devices()));
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

/// What `device` in a suite can name, or why there is nothing.
fn cuda_devices() -> String {
    const GIBIBYTE: f64 = (1u64 << 30) as f64;
    let shown =
        |(number, found): (usize, Found)| format!("cuda:{number} {} ({:.1} GiB)", found.name, found.memory as f64 / GIBIBYTE);
    match device::found() {
        Ok(found) if found.is_empty() => "none".to_owned(),
        Ok(found) => found.into_iter().enumerate().map(shown).collect::<Vec<_>>().join(", "),
        Err(why) => format!("none: {}", why.message),
    }
}
