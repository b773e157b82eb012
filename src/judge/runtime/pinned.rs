//! The pinned build of ONNX Runtime: which file, from which wheel, with which digests, and how it gets into the cache.
//!
//! Versions of the library differ in the last bits of a score, so one is pinned. It comes out of the wheel on the Python
//! package index, through the user's own `pip`, whose mirrors and certificates therefore hold.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::digest::Digest;
use crate::error::{Error, Result};

pub(crate) const VERSION: &str = "1.31.1";

/// One platform's wheel and the library inside it. The wheels carry CPython tags, but the library doesn't use Python.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wheel {
    pub os: &'static str,
    pub arch: &'static str,
    /// The last part of the wheel's name.
    pub platform_tag: &'static str,
    pub wheel_sha256: &'static str,
    /// The library's file name; in the wheel it lies in `onnxruntime/capi/`.
    pub library: &'static str,
    pub library_sha256: &'static str,
}

/// Recorded from the index on the day of pinning; `os` and `arch` as in `std::env::consts`.
const WHEELS: [Wheel; 4] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform_tag: "manylinux_2_28_x86_64",
        wheel_sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        library: "libonnxruntime.so.1.31.1",
        library_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform_tag: "manylinux_2_28_aarch64",
        wheel_sha256: "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
        library: "libonnxruntime.so.1.31.1",
        library_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform_tag: "macosx_14_0_arm64",
        wheel_sha256: "60b6b69bfe580eab576cacc5d132a0e9cf2a37fcfd18d46dd191042b1d1ed0d7",
        library: "libonnxruntime.1.31.1.dylib",
        library_sha256: "f8b06155feece624e55e49124340eea279da812529ae6fbc46a9f2be9c9cad2e",
    },
    Wheel {
        os: "windows",
        arch: "x86_64",
        platform_tag: "win_amd64",
        wheel_sha256: "c3d91b5de31e2fc82d71bd65b2b22bddee8b49057a3a36338e9a868e0ea90c05",
        library: "onnxruntime.dll",
        library_sha256: "8482d2ee174e28504f99730fb01d6861575870283de4ed3a897ad39170d9a9b9",
    },
];

impl Wheel {
    pub fn for_this_machine() -> Option<Self> {
        Self::of(std::env::consts::OS, std::env::consts::ARCH)
    }

    pub fn of(os: &str, arch: &str) -> Option<Self> {
        WHEELS.into_iter().find(|w| w.os == os && w.arch == arch)
    }

    pub fn file_name(&self) -> String {
        format!("onnxruntime-{VERSION}-cp311-cp311-{}.whl", self.platform_tag)
    }

    /// `<cache>/onnxruntime-<version>-<platform>/`: the library lies here, and a wheel placed by hand is found here.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(format!("onnxruntime-{VERSION}-{}", self.platform_tag))
    }

    pub fn library_in(&self, cache: &Path) -> PathBuf {
        self.folder(cache).join(self.library)
    }

    /// The command that fetches exactly this wheel into `folder`.
    fn pip(&self, python: &str, requirements: &Path, folder: &Path) -> Command {
        let mut command = Command::new(python);
        command
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation", "cp"])
            .args(["--python-version", "3.11", "--abi", "cp311", "--platform", self.platform_tag])
            .arg("--dest")
            .arg(folder)
            .arg("--requirement")
            .arg(requirements)
            .stdin(std::process::Stdio::null());
        command
    }

    /// A command line for people whose machine has no network: fetch elsewhere, then place the wheel by hand.
    pub fn pip_by_hand(&self) -> String {
        format!(
            "python3 -m pip download --no-deps --only-binary=:all: --implementation cp --python-version 3.11 \
             --abi cp311 --platform {} onnxruntime=={VERSION}",
            self.platform_tag
        )
    }
}

/// What lies in the cache at the library's place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cached {
    Good(PathBuf),
    Missing,
    /// A file with another digest (or an unreadable one): the reason.
    Bad(String),
}

pub(crate) fn cached(wheel: &Wheel, cache: &Path) -> Cached {
    let path = wheel.library_in(cache);
    if !path.is_file() {
        return Cached::Missing;
    }
    match Digest::of_file(&path) {
        Ok(digest) if digest.to_string() == wheel.library_sha256 => Cached::Good(path),
        Ok(digest) => Cached::Bad(format!("its SHA-256 is {}…, not {}…", digest.short(), &wheel.library_sha256[..12])),
        Err(error) => Cached::Bad(error.message),
    }
}

/// Puts the library into the cache: from a wheel placed there by hand, else, when `python` names an interpreter, by pip.
///
/// Safe against other processes: one fetches at a time (a lock file), and the library appears by renaming, whole or not
/// at all.
pub(crate) fn install(wheel: &Wheel, cache: &Path, python: Option<&str>) -> Result<PathBuf> {
    let folder = wheel.folder(cache);
    fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, &e))?;
    let lock_path = folder.join("lock");
    let lock = fs::File::create(&lock_path).map_err(|e| Error::io("create", &lock_path, &e))?;
    // A file system without locks only costs a second download: the rename below keeps it right.
    let _ = lock.lock();
    if let Cached::Good(path) = cached(wheel, cache) {
        return Ok(path);
    }
    let placed = folder.join(wheel.file_name());
    if placed.is_file() {
        return extract(wheel, &placed, cache);
    }
    let Some(python) = python else {
        return Err(Error::input(format!("no wheel {} was placed there", placed.display())));
    };
    let scratch = folder.join(format!("fetch-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(|e| Error::io("create", &scratch, &e))?;
    let result = download(wheel, python, &scratch).and_then(|file| extract(wheel, &file, cache));
    let _ = fs::remove_dir_all(&scratch);
    result
}

fn download(wheel: &Wheel, python: &str, folder: &Path) -> Result<PathBuf> {
    let requirements = folder.join("requirements.txt");
    let line = format!("onnxruntime=={VERSION} --hash=sha256:{}\n", wheel.wheel_sha256);
    fs::write(&requirements, line).map_err(|e| Error::io("write", &requirements, &e))?;
    let output = wheel
        .pip(python, &requirements, folder)
        .output()
        .map_err(|e| Error::input(format!("`{python} -m pip` can't be started: {e}")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or("it gave no reason");
        return Err(Error::input(format!("pip failed: {last}")));
    }
    Ok(folder.join(wheel.file_name()))
}

/// Takes the library out of a wheel, checks both digests, and renames it into place.
fn extract(wheel: &Wheel, file: &Path, cache: &Path) -> Result<PathBuf> {
    let digest = Digest::of_file(file)?;
    if digest.to_string() != wheel.wheel_sha256 {
        return Err(Error::input(format!("{} has SHA-256 {digest}, but {} is pinned", file.display(), wheel.wheel_sha256)));
    }
    let opened = fs::File::open(file).map_err(|e| Error::io("read", file, &e))?;
    let unreadable = |e: zip::result::ZipError| Error::input(format!("{}: {e}", file.display()));
    let mut archive = zip::ZipArchive::new(opened).map_err(unreadable)?;
    let mut member = archive.by_name(&format!("onnxruntime/capi/{}", wheel.library)).map_err(unreadable)?;
    let mut bytes = Vec::new();
    member.read_to_end(&mut bytes).map_err(|e| Error::io("unpack", file, &e))?;
    let digest = Digest::of_bytes(&bytes);
    if digest.to_string() != wheel.library_sha256 {
        return Err(Error::input(format!(
            "{} in {} has SHA-256 {digest}, but {} is pinned",
            wheel.library,
            file.display(),
            wheel.library_sha256
        )));
    }
    let target = wheel.library_in(cache);
    let temporary = wheel.folder(cache).join(format!(".{}.{}", wheel.library, std::process::id()));
    fs::write(&temporary, &bytes).map_err(|e| Error::io("write", &temporary, &e))?;
    fs::rename(&temporary, &target).map_err(|e| Error::io("write", &target, &e))?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_digest_has_the_form_of_one() {
        for wheel in WHEELS {
            assert!(wheel.wheel_sha256.parse::<Digest>().is_ok(), "{wheel:?}");
            assert!(wheel.library_sha256.parse::<Digest>().is_ok(), "{wheel:?}");
            assert!(wheel.library.contains("onnxruntime"));
        }
    }

    #[test]
    fn a_damaged_library_in_the_cache_is_not_taken() {
        let cache = tempfile::tempdir().unwrap();
        let wheel = Wheel::of("linux", "x86_64").unwrap();
        assert_eq!(cached(&wheel, cache.path()), Cached::Missing);
        fs::create_dir_all(wheel.folder(cache.path())).unwrap();
        fs::write(wheel.library_in(cache.path()), b"not a library").unwrap();
        assert!(matches!(cached(&wheel, cache.path()), Cached::Bad(why) if why.contains("fc44112fbe06")));
    }

    #[test]
    fn a_placed_wheel_with_another_digest_is_refused() {
        let cache = tempfile::tempdir().unwrap();
        let wheel = Wheel::of("linux", "x86_64").unwrap();
        fs::create_dir_all(wheel.folder(cache.path())).unwrap();
        fs::write(wheel.folder(cache.path()).join(wheel.file_name()), b"zip?").unwrap();
        let error = install(&wheel, cache.path(), None).unwrap_err();
        assert!(error.message.contains("is pinned"), "{error}");
        assert!(!wheel.library_in(cache.path()).exists());
    }
}
