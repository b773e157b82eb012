//! Compiles the kernels of `cuda/`: with nvcc to PTX under the feature `cuda`, with the C compiler for the emulator under `emulator`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cuda");
    println!("cargo:rustc-check-cfg=cfg(emulated)");
    #[cfg(feature = "cuda")]
    ptx::compile();
    #[cfg(feature = "emulator")]
    emulator();
}

/// The emulator's fibers stand on POSIX's contexts, which musl doesn't have.
#[cfg(feature = "emulator")]
fn emulator() {
    let musl = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl");
    if std::env::var_os("CARGO_CFG_UNIX").is_none() || musl {
        return;
    }
    println!("cargo:rustc-cfg=emulated");
    let mut build = cc::Build::new();
    build.file("cuda/emulator.c").file("cuda/emulated.c").opt_level(2).flag("-ffp-contract=off").flag("-fno-strict-aliasing");
    // Jumps between stacks are what a fortified `longjmp` forbids.
    build.flag("-U_FORTIFY_SOURCE").flag("-Wno-unknown-pragmas");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        build.flag("-mfma");
    }
    build.compile("dpo_eval_emulator");
}

#[cfg(feature = "cuda")]
mod ptx {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// PTX for compute capability 8.0, which the driver compiles for every later card.
    const ARCHITECTURE: &str = "compute_80";

    pub fn compile() {
        for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "DPO_EVAL_WITHOUT_NVCC"] {
            println!("cargo:rerun-if-env-changed={name}");
        }
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names a folder")).join("kernels.ptx");
        if std::env::var("DPO_EVAL_WITHOUT_NVCC").is_ok_and(|value| value == "1") {
            return std::fs::write(out, "").expect("cargo's folder can be written");
        }
        let Some(nvcc) = nvcc() else {
            panic!(
                "the feature `cuda` needs nvcc, which is neither in NVCC, CUDA_HOME, CUDA_PATH nor PATH: install a CUDA toolkit, or run \
                 src/numerics/cuda/toolkit.sh, which fetches the compiler from PyPI and says what to set; DPO_EVAL_WITHOUT_NVCC=1 builds \
                 without kernels, to check the code"
            );
        };
        // Every rounding in the kernels is named; the flag only says so again.
        let mut command = Command::new(&nvcc);
        command.args(["-ptx", "-arch", ARCHITECTURE, "-fmad=false", "cuda/kernels.cu", "-o"]).arg(&out);
        match command.status() {
            Ok(status) if status.success() => check(&std::fs::read_to_string(&out).expect("nvcc wrote its output")),
            Ok(status) => panic!("{} failed on cuda/kernels.cu ({status}); its messages stand above", nvcc.display()),
            Err(error) => panic!("{} does not start: {error}", nvcc.display()),
        }
    }

    /// Every operation on floats is the IEEE one, rounded to nearest even, subnormals kept: whatever nvcc was told.
    fn check(ptx: &str) {
        const ROUNDED: [&str; 6] = ["add.", "sub.", "mul.", "div.", "fma.", "sqrt."];
        const INEXACT: [&str; 8] = ["mad.", "rcp.", "rsqrt.", "ex2.", "lg2.", "tanh.", "sin.", "cos."];
        let instructions = ptx.lines().filter_map(|line| line.split_whitespace().find(|word| !word.starts_with('@')));
        for of in instructions.filter(|of| of.ends_with(".f32") || of.ends_with(".f64")) {
            let starts = |names: &[&str]| names.iter().any(|name| of.starts_with(name));
            let rounded = of.contains(".rn.") && !of.contains(".ftz");
            assert!(
                !starts(&INEXACT) && (rounded || !starts(&ROUNDED)),
                "nvcc made `{of}` of the kernels, which leaves rounding open"
            );
        }
    }

    fn nvcc() -> Option<PathBuf> {
        let name = if cfg!(windows) { "nvcc.exe" } else { "nvcc" };
        let named = std::env::var_os("NVCC").map(PathBuf::from);
        let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
        let homes = homes.map(|home| Path::new(&home).join("bin").join(name));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|folder| folder.join(name)).collect::<Vec<_>>();
        named.into_iter().chain(homes).chain(on_path).find(|found| found.is_file())
    }
}
