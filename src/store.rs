//! The store: content-addressed artifacts, receipts, leases.
//!
//! ```text
//! objects/ab/ab12…        a file under its SHA-256, written to a temporary name, synced, renamed
//! cells/<key>.json        a receipt: which outputs a finished cell has; written last, so a receipt implies its objects
//! cells/<key>/            the same outputs under their names (hard links), for people and for readers of folders
//! work/<key>/             scratch of a cell in flight; what an interrupted cell resumes from
//! leases/<key>            locked while a process works on the cell
//! runs/<id>.json          finished runs
//! scores/<key>            what references said of completions: a cache (train::score_cache)
//! answers/<key>.jsonl     what judges answered: a cache (judge::journal)
//! ```
//!
//! Clock times and machine names live in receipts only, never in an object.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};

/// The file name of a training's digest chain, wherever it stands among a cell's outputs.
pub const CHAIN: &str = "chain.jsonl";

/// What a training leaves beside its outputs: no two runs take the same time, and TensorBoard's files repeat the logs. They go into the
/// cell's folder, and no receipt and no digest knows of them.
pub const TIMING: &str = "timing.jsonl";
pub const TENSORBOARD: &str = "tensorboard";

/// Folders of what can always be had anew.
const CACHES: [&str; 2] = ["scores", "answers"];

pub struct Store {
    root: PathBuf,
}

/// What a finished cell left. Everything but `clock` is a function of the cell's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub id: String,
    pub stage: String,
    pub key: Digest,
    pub outputs: BTreeMap<String, Output>,
    pub clock: Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Output {
    pub digest: Digest,
    pub bytes: u64,
}

/// When and how long: for people and for time estimates, outside everything that digests cover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    pub finished: String,
    pub seconds: f64,
    pub threads: usize,
    /// What it ran on; none: the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Receipt {
    /// One digest over the names and digests of all outputs. The digest chain of a training stays out: it is evidence about the
    /// other outputs, compared step by step where they differ.
    pub fn output_digest(&self) -> Digest {
        let chain = self.chain();
        let results = self.outputs.iter().filter(|(name, _)| Some(name.as_str()) != chain);
        let named: BTreeMap<&str, Digest> = results.map(|(name, o)| (name.as_str(), o.digest)).collect();
        Digest::of_value(&named)
    }

    /// Which output is the digest chain of the cell's training; none when the cell doesn't train.
    pub fn chain(&self) -> Option<&str> {
        self.outputs.keys().map(String::as_str).find(|name| name.rsplit('/').next() == Some(CHAIN))
    }
}

/// Held while a process works on a cell; the operating system lets go of it when the process ends, however it ends.
pub struct Lease(#[allow(dead_code, reason = "held for its lock")] fs::File);

impl Store {
    /// Opens the store, making its folders where they are missing.
    pub fn open(root: &Path) -> Result<Self> {
        for folder in ["objects", "cells", "work", "leases", "runs"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|e| {
                let mut error = Error::io("create the store folder", &path, &e);
                error.help.get_or_insert_with(|| "name another store with --store DIR".into());
                error
            })?;
        }
        let store = Self { root: root.to_owned() };
        write_atomically(&root.join("work/.probe"), &[])?;
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn object_path(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        self.root.join("objects").join(&hex[..2]).join(hex)
    }

    fn receipt_path(&self, key: Digest) -> PathBuf {
        self.root.join("cells").join(format!("{key}.json"))
    }

    /// The folder in which a finished cell's outputs stand under their names.
    pub fn folder(&self, key: Digest) -> PathBuf {
        self.root.join("cells").join(key.to_string())
    }

    /// The scratch folder of a cell. Its content survives interruption.
    pub fn work_folder(&self, key: Digest) -> Result<PathBuf> {
        let path = self.root.join("work").join(key.to_string());
        fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, &e))?;
        Ok(path)
    }

    /// Where the scores of a reference are kept.
    pub fn scores_path(&self, key: Digest) -> Result<PathBuf> {
        let folder = self.root.join("scores");
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, &e))?;
        Ok(folder.join(key.to_string()))
    }

    /// Where the answers of a judge are kept.
    pub fn answers_path(&self, identity: Digest) -> Result<PathBuf> {
        let folder = self.root.join("answers");
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, &e))?;
        Ok(folder.join(format!("{identity}.jsonl")))
    }

    /// The receipt of a finished cell whose outputs are all present, or none.
    pub fn receipt(&self, key: Digest) -> Result<Option<Receipt>> {
        let path = self.receipt_path(key);
        let Some(receipt) = read_json_if_present::<Receipt>(&path)? else { return Ok(None) };
        let complete = receipt.outputs.iter().all(|(name, output)| {
            let length = |path: &Path| fs::metadata(path).map(|m| m.len()).ok();
            length(&self.object_path(output.digest)) == Some(output.bytes)
                && length(&self.folder(key).join(name)) == Some(output.bytes)
        });
        Ok(complete.then_some(receipt))
    }

    /// Takes the lease of a cell, waiting for another process that works on it.
    pub fn lease(&self, key: Digest, waiting: impl FnOnce()) -> Result<Lease> {
        let path = self.root.join("leases").join(key.to_string());
        let io = |e: std::io::Error| Error::io("lock", &path, &e);
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(io)?;
            }
            Err(fs::TryLockError::Error(e)) => return Err(io(e)),
        }
        Ok(Lease(file))
    }

    /// Moves the named files of a cell's work folder into the store, writes its receipt, and clears the work folder.
    pub fn publish(&self, id: &str, stage: &str, key: Digest, names: &[String], clock: Clock) -> Result<Receipt> {
        let work = self.work_folder(key)?;
        let mut outputs = BTreeMap::new();
        for name in names {
            let output = self.adopt(&work.join(name))?;
            let link = self.folder(key).join(name);
            link_or_copy(&self.object_path(output.digest), &link)?;
            outputs.insert(name.clone(), output);
        }
        keep_asides(&work, &self.folder(key))?;
        let receipt = Receipt { id: id.into(), stage: stage.into(), key, outputs, clock };
        let json = serde_json::to_vec_pretty(&receipt).expect("a receipt is plain data");
        write_atomically(&self.receipt_path(key), &[&json])?;
        fs::remove_dir_all(&work).map_err(|e| Error::io("remove", &work, &e))?;
        Ok(receipt)
    }

    /// Copies a file into `objects` under its digest.
    fn adopt(&self, source: &Path) -> Result<Output> {
        let digest = Digest::of_file(source)?;
        let path = self.object_path(digest);
        // An object that was damaged in place is made anew.
        if Digest::of_file(&path).ok() != Some(digest) {
            let folder = path.parent().expect("an object has a folder");
            fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
            let mut content = fs::File::open(source).map_err(|e| Error::io("read", source, &e))?;
            write_atomically_with(&path, |file| io::copy(&mut content, file))?;
        }
        let bytes = fs::metadata(source).map_err(|e| Error::io("read", source, &e))?.len();
        Ok(Output { digest, bytes })
    }

    /// The verified path of one output.
    pub fn output(&self, receipt: &Receipt, name: &str) -> Result<PathBuf> {
        let Some(output) = receipt.outputs.get(name) else {
            return Err(Error::unexpected(format!("cell {} has no output `{name}`", receipt.id)));
        };
        let path = self.folder(receipt.key).join(name);
        let found = Digest::of_file(&path)?;
        if found != output.digest {
            return Err(Error::input(format!(
                "{} has digest {}, but the receipt of cell {} says {}",
                path.display(),
                found.short(),
                receipt.id,
                output.digest.short()
            ))
            .help(format!(
                "it was changed after it was made; remove {} to make it again",
                self.receipt_path(receipt.key).display()
            )));
        }
        Ok(path)
    }

    /// The folder of a finished cell, every file in it verified.
    pub fn verified_folder(&self, receipt: &Receipt) -> Result<PathBuf> {
        receipt.outputs.keys().try_for_each(|name| self.output(receipt, name).map(drop))?;
        Ok(self.folder(receipt.key))
    }

    /// Drops finished cells that no recorded run names, their objects, all kept scores and answers, and all scratch. Returns the bytes freed.
    pub fn prune(&self, keep: &dyn Fn(Digest) -> bool) -> Result<u64> {
        let before = folder_size(&self.root);
        let mut kept = std::collections::BTreeSet::new();
        for path in files_in(&self.root.join("cells"))? {
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let Some(receipt) = read_json_if_present::<Receipt>(&path)? else { continue };
            if keep(receipt.key) {
                kept.extend(receipt.outputs.values().map(|o| o.digest.to_string()));
            } else {
                fs::remove_file(&path).map_err(|e| Error::io("remove", &path, &e))?;
                let _ = fs::remove_dir_all(self.folder(receipt.key));
            }
        }
        for folder in files_in(&self.root.join("objects"))? {
            for object in files_in(&folder)? {
                let name = object.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if !kept.contains(&name) {
                    fs::remove_file(&object).map_err(|e| Error::io("remove", &object, &e))?;
                }
            }
        }
        for cache in CACHES {
            for kept in files_in(&self.root.join(cache))? {
                fs::remove_file(&kept).map_err(|e| Error::io("remove", &kept, &e))?;
            }
        }
        for scratch in files_in(&self.root.join("work"))? {
            let _ = fs::remove_dir_all(&scratch);
        }
        Ok(before.saturating_sub(folder_size(&self.root)))
    }
}

/// A record of a finished run: which cells it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub id: String,
    pub suite: String,
    pub suite_digest: Digest,
    /// The suite file as it was, and where: what `repro` reads.
    pub suite_text: String,
    pub suite_file: PathBuf,
    pub finished: String,
    pub seconds: f64,
    /// Whether its judging might stop early.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sequential: bool,
    pub cells: BTreeMap<String, Digest>,
    /// Where the report was written.
    pub report: PathBuf,
}

impl Store {
    pub fn record_run(&self, record: &RunRecord) -> Result<()> {
        let json = serde_json::to_vec_pretty(record).expect("a record is plain data");
        write_atomically(&self.root.join("runs").join(format!("{}.json", record.id)), &[&json])
    }

    /// All recorded runs, oldest first.
    pub fn runs(&self) -> Result<Vec<RunRecord>> {
        let mut runs: Vec<RunRecord> = Vec::new();
        for path in files_in(&self.root.join("runs"))? {
            if path.extension().is_some_and(|e| e == "json") {
                runs.extend(read_json_if_present(&path)?);
            }
        }
        runs.sort_by(|a, b| (&a.finished, &a.id).cmp(&(&b.finished, &b.id)));
        Ok(runs)
    }
}

/// Writes `parts` one after another so that the file is either as before (or absent) or whole: a temporary file beside it,
/// synced, renamed.
pub fn write_atomically(path: &Path, parts: &[&[u8]]) -> Result<()> {
    write_atomically_with(path, |file| parts.iter().try_for_each(|part| file.write_all(part)))
}

/// [`write_atomically`] of what `content` writes piece by piece; returns what it returns.
pub fn write_atomically_with<T>(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> Result<T> {
    // Two threads may write the same object at once, so a name by process alone would be shared.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| Error::usage(format!("{} names no file", path.display())))?;
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{}.{}-{number}", name.display(), std::process::id()));
    let write = || -> io::Result<T> {
        let mut file = BufWriter::new(fs::File::create(&temporary)?);
        let result = content(&mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)?;
        Ok(result)
    };
    let result = write().map_err(|e| {
        // What is left of a failed write is of no use, and the first failure is the one to report.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path, &e)
    })?;
    sync_folder_of(path);
    Ok(result)
}

/// Makes a rename survive a power cut, where the system lets a folder be synced.
fn sync_folder_of(path: &Path) {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = fs::File::open(folder) {
        let _ = folder.sync_all();
    }
}

fn read_json_if_present<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, &e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::new(Kind::Input, format!("{} is damaged: {e}", path.display())).help("remove it; the cell is then made again")
    })
}

/// Moves what stands beside the outputs, of a training in `from` itself or in a folder of it.
fn keep_asides(from: &Path, to: &Path) -> Result<()> {
    let inner = files_in(from)?.into_iter().filter(|path| path.is_dir());
    for folder in std::iter::once(from.to_owned()).chain(inner) {
        for name in [TIMING, TENSORBOARD] {
            let source = folder.join(name);
            let target = to.join(source.strip_prefix(from).expect("it lies within"));
            if !source.exists() {
                continue;
            }
            let io = |e: std::io::Error| Error::io("write", &target, &e);
            if target.is_dir() {
                fs::remove_dir_all(&target).map_err(io)?;
            }
            fs::create_dir_all(target.parent().expect("it has a folder")).map_err(io)?;
            fs::rename(&source, &target).map_err(io)?;
        }
    }
    Ok(())
}

fn link_or_copy(object: &Path, link: &Path) -> Result<()> {
    let folder = link.parent().expect("an output has a folder");
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
    if link.exists() {
        fs::remove_file(link).map_err(|e| Error::io("replace", link, &e))?;
    }
    if fs::hard_link(object, link).is_err() {
        fs::copy(object, link).map_err(|e| Error::io("write", link, &e))?;
    }
    Ok(())
}

/// The entries of a folder in name order; none when it is missing.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", folder, &e)),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    Ok(paths)
}

/// Bytes in objects and caches: what pruning can free (the links beside them share their space).
fn folder_size(root: &Path) -> u64 {
    let objects = files_in(&root.join("objects")).unwrap_or_default();
    let cached = CACHES.iter().flat_map(|cache| files_in(&root.join(cache)).unwrap_or_default());
    objects
        .iter()
        .flat_map(|folder| files_in(folder).unwrap_or_default())
        .chain(cached)
        .filter_map(|path| fs::metadata(path).ok())
        .map(|m| m.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock { finished: "2026-01-01T00:00:00Z".into(), seconds: 1.0, threads: 1, device: None }
    }

    fn published(store: &Store) -> Receipt {
        let key = Digest::of_bytes(b"key");
        let work = store.work_folder(key).unwrap();
        fs::create_dir_all(work.join("sub")).unwrap();
        fs::write(work.join("sub/a.txt"), "hello").unwrap();
        store.publish("cell", "stage", key, &["sub/a.txt".into()], clock()).unwrap()
    }

    #[test]
    fn timings_stand_beside_the_outputs_and_no_digest_knows_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let plain = published(&store);
        for text in ["one", "another"] {
            let work = store.work_folder(plain.key).unwrap();
            fs::create_dir_all(work.join("train/tensorboard")).unwrap();
            fs::write(work.join("timing.jsonl"), text).unwrap();
            fs::write(work.join("train/tensorboard/events"), text).unwrap();
            let receipt = published(&store);
            assert_eq!(receipt, plain);
            let kept = |name: &str| fs::read_to_string(store.verified_folder(&receipt).unwrap().join(name)).unwrap();
            assert_eq!((kept("timing.jsonl"), kept("train/tensorboard/events")), (text.to_owned(), text.to_owned()));
        }
    }

    #[test]
    fn a_published_cell_is_found_again_with_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let receipt = published(&store);
        assert_eq!(store.receipt(receipt.key).unwrap().as_ref(), Some(&receipt));
        assert_eq!(fs::read_to_string(store.output(&receipt, "sub/a.txt").unwrap()).unwrap(), "hello");
        assert_eq!(store.receipt(Digest::of_bytes(b"other")).unwrap(), None);
    }

    #[test]
    fn a_changed_output_is_a_digest_mismatch_and_a_lost_one_unfinishes_the_cell() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let receipt = published(&store);
        let path = store.folder(receipt.key).join("sub/a.txt");
        fs::remove_file(&path).unwrap();
        assert_eq!(store.receipt(receipt.key).unwrap(), None);
        fs::write(&path, "hellO").unwrap();
        let error = store.output(&receipt, "sub/a.txt").unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert!(error.message.contains("digest"), "{error}");
    }

    #[test]
    fn an_object_that_was_damaged_in_place_is_made_anew_with_its_cell() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let receipt = published(&store);
        // The output and the object are one file under two names.
        fs::write(store.folder(receipt.key).join("sub/a.txt"), "hellO").unwrap();
        assert!(store.output(&receipt, "sub/a.txt").is_err());
        let again = published(&store);
        assert_eq!(fs::read_to_string(store.output(&again, "sub/a.txt").unwrap()).unwrap(), "hello");
    }

    #[test]
    fn many_threads_may_write_one_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|_| write_atomically(&path, &[b"al", b"l"]).unwrap()));
            }
        });
        assert_eq!(fs::read(&path).unwrap(), b"all");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn pruning_keeps_what_is_named_and_drops_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let receipt = published(&store);
        assert_eq!(store.prune(&|_| true).unwrap(), 0);
        assert!(store.receipt(receipt.key).unwrap().is_some());
        assert_eq!(store.prune(&|_| false).unwrap(), 5);
        assert!(store.receipt(receipt.key).unwrap().is_none());
    }

    #[test]
    fn a_store_that_cannot_be_made_names_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Store::open(&file.join("store")).err().unwrap();
        assert!(error.help.unwrap().contains("--store"));
    }
}
