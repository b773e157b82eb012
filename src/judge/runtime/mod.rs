//! Finds, fetches and starts ONNX Runtime, the library that runs the judges.
//!
//! Where it is looked for, in this order: the file that `ORT_DYLIB_PATH` names; the pinned copy in the user's cache
//! (SHA-256 checked); the pinned wheel, fetched by pip, unless `DPO_EVAL_OFFLINE` forbids it; an installed `onnxruntime`
//! Python package; a system library. The pinned copy comes before installed ones because versions differ in the last bits.

mod pinned;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ort::environment::Environment;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use pinned::{Cached, Wheel};

/// Which library runs the judges. Scores are comparable to the last bit only under the same digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    pub version: String,
    pub library: Digest,
    pub path: PathBuf,
    pub source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Named by `ORT_DYLIB_PATH`.
    Environment,
    /// The pinned build, digest checked.
    Pinned,
    /// An `onnxruntime` package of the user's Python: another version may differ in the last bits.
    PythonPackage,
    /// A library of the system: another version may differ in the last bits.
    System,
}

/// Where to look. Read from the environment once; tests make their own.
#[derive(Debug, Clone)]
struct Places {
    dylib_path: Option<OsString>,
    /// This program's folder in the user's cache.
    cache: Option<PathBuf>,
    offline: bool,
    python: String,
    wheel: Option<Wheel>,
    system_folders: Vec<PathBuf>,
}

/// One step of the search and how it ended, for the error and for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    place: String,
    outcome: String,
}

struct Started {
    environment: Environment,
    info: RuntimeInfo,
}

/// Finds (fetching if need be) and starts ONNX Runtime, once per process; later calls give the first call's answer.
pub fn ensure() -> Result<RuntimeInfo> {
    started().map(|s| s.info.clone())
}

/// The instruction sets of this CPU that ONNX Runtime has kernels for: it chooses by them, and its last bits follow.
pub fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx", std::is_x86_feature_detected!("avx")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bw", std::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
        ("avxvnni", std::is_x86_feature_detected!("avxvnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let found = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found: [(&str, bool); 0] = [];
    found.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// The digest of the library that `ensure` is going to give, without fetching or loading anything: for plans.
pub fn expected_library() -> Digest {
    let places = Places::from_environment();
    let named = places.dylib_path.as_ref().and_then(|path| Digest::of_file(Path::new(path)).ok());
    let pinned = || places.wheel.and_then(|wheel| wheel.library_sha256.parse().ok());
    named.or_else(pinned).unwrap_or_else(|| Digest::of_bytes(b"no build is pinned for this platform"))
}

/// The process-wide environment that sessions are made in.
pub(crate) fn environment() -> Result<Environment> {
    started().map(|s| s.environment.clone())
}

fn started() -> Result<&'static Started> {
    static STARTED: OnceLock<Result<Started>> = OnceLock::new();
    STARTED.get_or_init(|| start(&Places::from_environment())).as_ref().map_err(Clone::clone)
}

/// What a search would find now, without fetching or loading anything: one line a place.
pub fn doctor_lines() -> Vec<String> {
    let places = Places::from_environment();
    let mut lines = vec![format!("ONNX Runtime {} runs the judges; looked for in this order:", pinned::VERSION)];
    lines.push(match &places.dylib_path {
        None => "  ORT_DYLIB_PATH: not set".to_owned(),
        Some(path) if Path::new(path).is_file() => format!("  ORT_DYLIB_PATH: {} (taken)", Path::new(path).display()),
        Some(path) => format!("  ORT_DYLIB_PATH: {} is no file", Path::new(path).display()),
    });
    match (&places.wheel, &places.cache) {
        (Some(wheel), Some(cache)) => {
            let path = wheel.library_in(cache);
            let state = match pinned::cached(wheel, cache) {
                Cached::Good(_) => format!("present, SHA-256 {} as pinned", wheel.library_sha256),
                Cached::Missing => "not there yet; fetched when a judge first needs it".to_owned(),
                Cached::Bad(why) => format!("damaged ({why}); fetched again when a judge needs it"),
            };
            lines.push(format!("  pinned copy {}: {state}", path.display()));
            lines.push(format!("  wheel placed by hand {}", wheel.folder(cache).join(wheel.file_name()).display()));
        }
        (None, _) => lines.push(format!("  pinned copy: no build is pinned for {}", this_platform())),
        (_, None) => lines.push("  pinned copy: this user has no home folder for a cache".to_owned()),
    }
    lines.push(if places.offline {
        "  fetch with pip: forbidden by DPO_EVAL_OFFLINE".to_owned()
    } else {
        format!("  fetch with pip: {}", pip_version(&places.python))
    });
    let mut steps = Vec::new();
    for (path, source) in installed(&places, &mut steps) {
        lines.push(format!("  {}: {} (only if all of the above fail)", source.words(), path.display()));
    }
    lines.extend(steps.iter().map(|s| format!("  {}: {}", s.place, s.outcome)));
    lines
}

fn pip_version(python: &str) -> String {
    match Command::new(python).args(["-m", "pip", "--version"]).output() {
        Ok(out) if out.status.success() => {
            let text = String::from_utf8_lossy(&out.stdout);
            format!("{} is there", text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        }
        Ok(_) => format!("{python} has no pip"),
        Err(_) => format!("there is no {python}"),
    }
}

impl Source {
    fn words(self) -> &'static str {
        match self {
            Self::Environment => "ORT_DYLIB_PATH",
            Self::Pinned => "pinned copy",
            Self::PythonPackage => "installed onnxruntime package",
            Self::System => "system library",
        }
    }
}

impl Places {
    fn from_environment() -> Self {
        use etcetera::BaseStrategy;
        let cache = etcetera::choose_base_strategy().ok().map(|s| s.cache_dir().join("dpo-eval"));
        let set = |name| std::env::var_os(name).filter(|v: &OsString| !v.is_empty());
        let mut system_folders: Vec<PathBuf> =
            set("LD_LIBRARY_PATH").map(|v| std::env::split_paths(&v).collect()).unwrap_or_default();
        let usual = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/opt/homebrew/lib"];
        system_folders.extend(usual.map(PathBuf::from));
        Self {
            dylib_path: set("ORT_DYLIB_PATH"),
            cache,
            offline: set("DPO_EVAL_OFFLINE").is_some_and(|v| v != "0"),
            python: if cfg!(windows) { "python" } else { "python3" }.to_owned(),
            wheel: Wheel::for_this_machine(),
            system_folders,
        }
    }
}

fn this_platform() -> String {
    format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// A line on stderr; a closed stderr is no reason to stop.
fn announce(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn start(places: &Places) -> Result<Started> {
    let mut environment = None;
    let (path, source) = find(places, &mut |path| {
        environment = Some(load(path)?);
        Ok(())
    })?;
    let library = Digest::of_file(&path)?;
    let environment = environment.ok_or_else(|| Error::unexpected("ONNX Runtime was found but not loaded"))?;
    let version = version(&path);
    if matches!(source, Source::PythonPackage | Source::System) {
        announce(&format!(
            "warning: the judges run on ONNX Runtime {version} of {}, not on the pinned {}; scores may differ in the last bits",
            path.display(),
            pinned::VERSION
        ));
    }
    Ok(Started { environment, info: RuntimeInfo { version, library, path, source } })
}

/// Loads the library and makes the process's environment. `ort` panics on some defects of a library, so panics are caught.
fn load(path: &Path) -> std::result::Result<Environment, String> {
    let attempt = std::panic::catch_unwind(|| {
        let builder = ort::init_from(path).map_err(|e| e.to_string())?;
        builder.with_name("dpo-eval").with_telemetry(false).build().map_err(|e| e.to_string())
    });
    attempt.unwrap_or_else(|_| Err("it isn't a usable ONNX Runtime".to_owned()))
}

/// The loaded library's version, from its build information (`git-branch=rel-1.31.1`), else from its file name.
fn version(path: &Path) -> String {
    let built = std::panic::catch_unwind(ort::info).unwrap_or_default();
    let branch = built.split("git-branch=").nth(1).and_then(|rest| rest.split([',', ' ']).next());
    if let Some(version) = branch.and_then(|b| b.strip_prefix("rel-")) {
        return version.to_owned();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let digits: String = name.chars().skip_while(|c| !c.is_ascii_digit()).collect();
    let digits = digits.trim_end_matches(".dylib");
    if digits.is_empty() { "of unknown version".to_owned() } else { digits.to_owned() }
}

/// Goes through the places in order; `load` says whether a library that was found works.
fn find(places: &Places, load: &mut dyn FnMut(&Path) -> std::result::Result<(), String>) -> Result<(PathBuf, Source)> {
    if let Some(path) = &places.dylib_path {
        return named(Path::new(path), load).map(|path| (path, Source::Environment));
    }
    let mut steps = vec![Step { place: "ORT_DYLIB_PATH".to_owned(), outcome: "not set".to_owned() }];
    if let Some(path) = find_pinned(places, &mut steps) {
        match load(&path) {
            Ok(()) => return Ok((path, Source::Pinned)),
            Err(why) => {
                steps.push(Step { place: format!("load {}", path.display()), outcome: why });
            }
        }
    }
    for (path, source) in installed(places, &mut steps) {
        match load(&path) {
            Ok(()) => return Ok((path, source)),
            Err(why) => {
                steps.push(Step { place: format!("{} {}", source.words(), path.display()), outcome: why });
            }
        }
    }
    Err(not_found(places, &steps))
}

/// A library the user named is taken or refused; nothing else is tried in its stead.
fn named(path: &Path, load: &mut dyn FnMut(&Path) -> std::result::Result<(), String>) -> Result<PathBuf> {
    let help = "set ORT_DYLIB_PATH to an ONNX Runtime library (libonnxruntime.so, 1.19 or newer), or unset it";
    let refuse =
        |why: &str| Error::input(format!("ORT_DYLIB_PATH names {}, which can't be used: {why}", path.display())).help(help);
    // `ort` would resolve a relative path against the executable's folder first.
    let absolute = std::path::absolute(path).map_err(|e| refuse(&e.to_string()))?;
    if !absolute.is_file() {
        return Err(refuse("there is no such file"));
    }
    load(&absolute).map_err(|why| refuse(&why))?;
    Ok(absolute)
}

fn find_pinned(places: &Places, steps: &mut Vec<Step>) -> Option<PathBuf> {
    let mut note = |place: String, outcome: String| steps.push(Step { place, outcome });
    let Some(wheel) = &places.wheel else {
        note("pinned copy".to_owned(), format!("no build is pinned for {}", this_platform()));
        return None;
    };
    let Some(cache) = &places.cache else {
        note("pinned copy".to_owned(), "this user has no home folder for a cache".to_owned());
        return None;
    };
    let place = format!("pinned copy {}", wheel.library_in(cache).display());
    match pinned::cached(wheel, cache) {
        Cached::Good(path) => return Some(path),
        Cached::Missing => note(place, "not there".to_owned()),
        Cached::Bad(why) => note(place, format!("damaged: {why}")),
    }
    let placed = wheel.folder(cache).join(wheel.file_name());
    if places.offline && !placed.is_file() {
        note(format!("wheel placed by hand {}", placed.display()), "not there".to_owned());
        note("fetch with pip".to_owned(), "forbidden by DPO_EVAL_OFFLINE".to_owned());
        return None;
    }
    if !placed.is_file() {
        announce(&format!(
            "fetching ONNX Runtime {} (24 MB, SHA-256 pinned) with pip into {}",
            pinned::VERSION,
            wheel.folder(cache).display()
        ));
    }
    match pinned::install(wheel, cache, (!places.offline).then_some(places.python.as_str())) {
        Ok(path) => Some(path),
        Err(error) => {
            note("fetch with pip".to_owned(), error.message);
            None
        }
    }
}

/// Libraries that others installed: the user's Python package first, then the system's folders.
fn installed(places: &Places, steps: &mut Vec<Step>) -> Vec<(PathBuf, Source)> {
    let mut found = Vec::new();
    let script = "import importlib.util as u; s = u.find_spec('onnxruntime'); print(list(s.submodule_search_locations)[0])";
    let package = match Command::new(&places.python).args(["-c", script]).output() {
        Ok(out) if out.status.success() => {
            let folder = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()).join("capi");
            library_in(&folder).ok_or_else(|| format!("no library in {}", folder.display()))
        }
        Ok(_) => Err(format!("{} has none", places.python)),
        Err(_) => Err(format!("there is no {}", places.python)),
    };
    match package {
        Ok(path) => found.push((path, Source::PythonPackage)),
        Err(why) => steps.push(Step { place: Source::PythonPackage.words().to_owned(), outcome: why }),
    }
    let before = found.len();
    found.extend(places.system_folders.iter().filter_map(|f| library_in(f)).map(|p| (p, Source::System)));
    if found.len() == before {
        let folders: Vec<String> = places.system_folders.iter().map(|f| f.display().to_string()).collect();
        let outcome = format!("none in {}", folders.join(", "));
        steps.push(Step { place: Source::System.words().to_owned(), outcome });
    }
    found
}

/// The ONNX Runtime library in a folder: the one whose name sorts first (`libonnxruntime.so` before `.so.1.31.1`).
fn library_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |name: &str| {
        let stem = format!("{}onnxruntime.", std::env::consts::DLL_PREFIX);
        name.starts_with(&stem) && name.contains(std::env::consts::DLL_SUFFIX)
    };
    let entries = std::fs::read_dir(folder).ok()?;
    let mut names: Vec<PathBuf> =
        entries.filter_map(|e| e.ok()).filter(|e| e.file_name().to_str().is_some_and(is_library)).map(|e| e.path()).collect();
    names.sort();
    names.into_iter().next()
}

fn not_found(places: &Places, steps: &[Step]) -> Error {
    let tried: Vec<String> = steps.iter().map(|s| format!("  {}: {}", s.place, s.outcome)).collect();
    let error =
        Error::input(format!("the ONNX Runtime library, which runs the judges, was not found; tried:\n{}", tried.join("\n")));
    let Some((wheel, cache)) = places.wheel.as_ref().zip(places.cache.as_ref()) else {
        return error.help("install ONNX Runtime and set ORT_DYLIB_PATH to its library");
    };
    let unset = if places.offline { "unset DPO_EVAL_OFFLINE; or " } else { "" };
    error.help(format!(
        "{unset}on a machine with network run `{}` and place the wheel in {}; or set ORT_DYLIB_PATH to a library",
        wheel.pip_by_hand(),
        wheel.folder(cache).display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere(cache: &Path) -> Places {
        Places {
            dylib_path: None,
            cache: Some(cache.to_owned()),
            offline: true,
            python: "no-such-python".to_owned(),
            wheel: Wheel::of("linux", "x86_64"),
            system_folders: vec![cache.join("lib")],
        }
    }

    #[test]
    fn offline_without_a_library_the_error_lists_every_step_and_the_remedy() {
        let cache = tempfile::tempdir().unwrap();
        let error = find(&nowhere(cache.path()), &mut |_| Ok(())).unwrap_err();
        let shown = error.to_string().replace(&cache.path().display().to_string(), "CACHE");
        assert_eq!(
            shown,
            "the ONNX Runtime library, which runs the judges, was not found; tried:
  ORT_DYLIB_PATH: not set
  pinned copy CACHE/onnxruntime-1.31.1-manylinux_2_28_x86_64/libonnxruntime.so.1.31.1: not there
  wheel placed by hand CACHE/onnxruntime-1.31.1-manylinux_2_28_x86_64/onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl: not there
  fetch with pip: forbidden by DPO_EVAL_OFFLINE
  installed onnxruntime package: there is no no-such-python
  system library: none in CACHE/lib
help: unset DPO_EVAL_OFFLINE; or on a machine with network run `python3 -m pip download --no-deps --only-binary=:all: \
--implementation cp --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64 onnxruntime==1.31.1` and place the \
wheel in CACHE/onnxruntime-1.31.1-manylinux_2_28_x86_64; or set ORT_DYLIB_PATH to a library"
        );
        assert_eq!(error.kind, crate::error::Kind::Input);
    }

    #[test]
    fn a_named_library_that_is_missing_is_an_error_and_nothing_else_is_tried() {
        let cache = tempfile::tempdir().unwrap();
        let mut places = nowhere(cache.path());
        places.dylib_path = Some(cache.path().join("libonnxruntime.so").into());
        let error = find(&places, &mut |_| Ok(())).unwrap_err();
        assert!(error.message.contains("there is no such file"), "{error}");
    }

    #[test]
    #[ignore = "a_file_that_is_no_library_is_refused_without_a_panic runs it in a process of its own"]
    fn ensure_tells_what_it_found() {
        println!("{:?}", ensure());
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_without_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        std::fs::write(&path, b"plain text").unwrap();
        // A process can load one library only, so this one, which the other tests share, can't try.
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "judge::runtime::tests::ensure_tells_what_it_found", "--ignored", "--nocapture"])
            .env("ORT_DYLIB_PATH", &path)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success(), "{told}{}", String::from_utf8_lossy(&child.stderr));
        assert!(told.contains("Err(") && told.contains("can't be used: failed to load"), "{told}");
    }

    #[test]
    fn a_system_library_is_the_last_resort_and_one_that_fails_is_named() {
        let cache = tempfile::tempdir().unwrap();
        let lib = cache.path().join("lib");
        std::fs::create_dir_all(&lib).unwrap();
        let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        std::fs::write(lib.join(&name), b"").unwrap();
        let (path, source) = find(&nowhere(cache.path()), &mut |_| Ok(())).unwrap();
        assert_eq!((path, source), (lib.join(&name), Source::System));
        let error = find(&nowhere(cache.path()), &mut |_| Err("wrong machine".to_owned())).unwrap_err();
        assert!(error.message.contains("wrong machine"), "{error}");
    }

    #[test]
    fn the_pinned_library_is_fetched_checked_and_loaded() {
        let info = ensure().unwrap();
        let lines = doctor_lines().join("\n");
        assert!(lines.contains("ORT_DYLIB_PATH"), "{lines}");
        if info.source == Source::Pinned {
            assert_eq!(info.version, pinned::VERSION);
            assert_eq!(info.library.to_string(), Wheel::for_this_machine().unwrap().library_sha256);
        }
        assert_eq!(ensure().unwrap(), info);
    }
}
