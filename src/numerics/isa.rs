//! Which vector instructions the kernels use: chosen once at run time, forced by `DPO_EVAL_ISA`.
//!
//! The choice changes the speed and never a bit of any result; forcing it, for the process or for the threads of one pool, lets
//! tests and `repro` prove that.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

/// `DPO_EVAL_ISA` names an instruction set that is unknown, or that this CPU does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    pub message: String,
    /// What to do next.
    pub help: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for Unavailable {}

/// The environment variable that forces an instruction set.
pub const VARIABLE: &str = "DPO_EVAL_ISA";

/// Proof that this machine's CPU was asked and has the instructions: only this module can make one.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detected(());

/// An instruction set that this machine has. A value can't be made for one that it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Portable Rust, each fused multiply-add worked out in binary64. What `Scalar` is on a CPU without that instruction; of use by
    /// itself to prove that such a CPU gives the same bits.
    Software,
    /// Portable Rust with the CPU's fused multiply-add (x86-64 with FMA, aarch64), else as `Software`.
    Scalar,
    /// Four 4-lane registers a vector. Every aarch64 CPU has it.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 and FMA: two 8-lane registers a vector.
    #[cfg(target_arch = "x86_64")]
    Avx2(Detected),
    /// AVX-512 F: one 16-lane register a vector.
    #[cfg(target_arch = "x86_64")]
    Avx512(Detected),
}

impl Isa {
    /// The name that `DPO_EVAL_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every instruction set that this machine has, slowest first. Tests run each kernel under each.
pub fn available() -> Vec<Isa> {
    #[allow(unused_mut, reason = "only x86-64 and aarch64 add to the portable paths")]
    let mut all = vec![Isa::Software, Isa::Scalar];
    #[cfg(target_arch = "aarch64")]
    all.push(Isa::Neon);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        all.push(Isa::Avx2(Detected(())));
        if is_x86_feature_detected!("avx512f") {
            all.push(Isa::Avx512(Detected(())));
        }
    }
    all
}

/// The same without software arithmetic, which no machine needs that has anything else: what whole trainings are worth repeating under.
pub fn native() -> Vec<Isa> {
    available().into_iter().filter(|isa| *isa != Isa::Software).collect()
}

/// The instruction set of this process: the one that `DPO_EVAL_ISA` names, or the fastest available.
pub fn check() -> Result<Isa, Unavailable> {
    static CHOSEN: OnceLock<Result<Isa, Unavailable>> = OnceLock::new();
    CHOSEN.get_or_init(|| choose(std::env::var_os(VARIABLE).as_deref().map(|v| v.to_string_lossy()).as_deref())).clone()
}

thread_local! {
    static OF_THIS_THREAD: Cell<Option<Isa>> = const { Cell::new(None) };
}

/// What the kernels use on this thread.
///
/// # Panics
/// When `DPO_EVAL_ISA` is wrong. A program calls [`check`] first and shows the error.
pub fn active() -> Isa {
    static ACTIVE: OnceLock<Isa> = OnceLock::new();
    OF_THIS_THREAD.get().unwrap_or_else(|| *ACTIVE.get_or_init(|| check().unwrap_or_else(|error| panic!("{error}"))))
}

/// A pool whose threads use `isa`, whatever the process uses. Kernels called on other threads are not concerned: run everything
/// by `install`.
pub fn pool(isa: Isa, threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let start = move |_| OF_THIS_THREAD.set(Some(isa));
    rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(start).build()
}

fn choose(forced: Option<&str>) -> Result<Isa, Unavailable> {
    let all = available();
    let fastest = all[all.len() - 1];
    let Some(name) = forced.filter(|name| !name.is_empty()) else { return Ok(fastest) };
    if let Some(isa) = all.iter().find(|isa| isa.name() == name) {
        return Ok(*isa);
    }
    let names: Vec<_> = all.iter().map(|isa| isa.name()).collect();
    let what = match name {
        "avx2" | "avx512" | "neon" => format!("{VARIABLE}={name}, but this CPU does not have it"),
        _ => format!("{VARIABLE}={name} names no instruction set"),
    };
    let help = format!("this machine has {}; unset {VARIABLE} to use the fastest", names.join(", "));
    Err(Unavailable { message: what, help })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_or_empty_variable_means_the_fastest() {
        let fastest = *available().last().unwrap();
        assert_eq!(choose(None).unwrap(), fastest);
        assert_eq!(choose(Some("")).unwrap(), fastest);
    }

    #[test]
    fn every_available_set_can_be_forced_by_its_name() {
        for isa in available() {
            assert_eq!(choose(Some(isa.name())).unwrap(), isa);
        }
    }

    #[test]
    fn every_thread_of_a_pool_uses_the_pools_set_and_no_other_thread_does() {
        use rayon::prelude::*;
        let before = active();
        for isa in available() {
            let pool = pool(isa, 3).unwrap();
            let used: Vec<Isa> = pool.install(|| (0..64).into_par_iter().map(|_| active()).collect());
            assert!(used.iter().all(|&u| u == isa), "{isa}: {used:?}");
            assert_eq!(active(), before);
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_what_there_is() {
        let error = choose(Some("sse9")).unwrap_err();
        assert!(error.message.contains("DPO_EVAL_ISA=sse9"));
        assert!(error.help.contains("scalar"));
    }
}
