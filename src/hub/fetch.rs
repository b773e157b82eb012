//! Fetching what isn't in the cache: file by file, going on where a broken connection stopped, held against the digests that the hub's
//! list of files gives.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use ureq::http::StatusCode;

use super::cache::{Snapshot, git_digest};
use super::http::{ATTEMPTS, Client};
use super::select::Known;
use super::{Hub, Reference, Repo, Wanted};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::watch::Watch;

/// What is in the cache of something that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Complete,
    /// The needed files are here; of others nobody knows whether the repository has them.
    Usable(Vec<String>),
    /// The first needed files that aren't here.
    Missing(Vec<String>),
}

/// The hub's list of a repository's files.
#[derive(Deserialize)]
struct Listing {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: String,
    size: u64,
}

/// A file of the repository.
#[derive(Debug, Clone)]
struct Listed {
    /// What names its contents in the cache: SHA-256 (64 digits) or Git's SHA-1 (40).
    digest: String,
    size: u64,
}

/// How much of a repository's files is here, for the user.
struct Progress<'a> {
    watch: &'a dyn Watch,
    before: u64,
    total: u64,
}

impl Hub {
    pub fn state(&self, wanted: &Wanted) -> Result<State> {
        let snapshot = Snapshot::new(&self.cache, &wanted.reference);
        let selection = snapshot.selection(&wanted.reference, wanted.files)?;
        let all = |names: &[String], known: &[Known]| -> Vec<String> {
            names.iter().filter(|name| known.contains(&snapshot.known(name))).cloned().collect()
        };
        let missing = all(&selection.required, &[Known::Absent, Known::Unknown]);
        let unknown = all(&selection.optional, &[Known::Unknown]);
        Ok(match (missing.is_empty(), unknown.is_empty()) {
            (false, _) => State::Missing(missing),
            (true, false) => State::Usable(unknown),
            (true, true) => State::Complete,
        })
    }

    /// Makes sure that the cache holds what is wanted.
    pub fn fetch(&self, wanted: &Wanted, watch: &dyn Watch) -> Result<()> {
        match (self.state(wanted)?, self.offline) {
            (State::Complete, _) => Ok(()),
            (State::Usable(unknown), Some(variable)) => {
                watch.warn(&format!(
                    "{variable} is set, so nobody can say whether {} has {} too, which the cache doesn't hold",
                    wanted.reference,
                    unknown.join(", ")
                ));
                Ok(())
            }
            (State::Missing(missing), Some(variable)) => {
                let place = wanted.reference.snapshot_in(&self.cache);
                let error = Error::input(format!(
                    "{} isn't in the cache ({} is missing), and {variable} forbids fetching it",
                    wanted.reference,
                    missing.join(", ")
                ));
                Err(error.help(format!("unset {variable}, or copy what another machine has fetched to {}", place.display())))
            }
            (_, None) => self.fetch_missing(wanted, watch),
        }
    }

    fn fetch_missing(&self, wanted: &Wanted, watch: &dyn Watch) -> Result<()> {
        let reference = &wanted.reference;
        let client = Client::new(self, watch)?;
        let listing = self.listing(&client, reference)?;
        let snapshot = Snapshot::new(&self.cache, reference);
        let known = |name: &str| match snapshot.known(name) {
            Known::Here => Known::Here,
            _ if listing.contains_key(name) => Known::Listed,
            _ => Known::Absent,
        };
        // An index of weights tells what else is needed once it is here.
        loop {
            let selection = snapshot.select(reference, wanted.files, &known)?;
            if let Some(name) = selection.required.iter().find(|name| known(name) == Known::Absent) {
                return Err(self.lacks(reference, name, &listing));
            }
            for name in selection.optional.iter().filter(|name| known(name) == Known::Absent) {
                snapshot.mark_absent(name)?;
            }
            let mut missing: Vec<&String> =
                selection.required.iter().chain(&selection.optional).filter(|name| known(name) == Known::Listed).collect();
            missing.dedup();
            if missing.is_empty() {
                return Ok(());
            }
            let total = missing.iter().map(|name| listing[*name].size).sum();
            let mut progress = Progress { watch, before: 0, total };
            for name in missing {
                self.fetch_file(&client, &snapshot, reference, name, &listing[name], &progress)?;
                progress.before += listing[name].size;
            }
        }
    }

    fn lacks(&self, reference: &Reference, name: &str, listing: &BTreeMap<String, Listed>) -> Error {
        let mut others: Vec<&str> = listing.keys().map(String::as_str).collect();
        let weights = others.iter().any(|other| other.ends_with(".bin") || other.ends_with(".pth"));
        let error = Error::input(format!("{}@{} has no {name}", reference.id, &reference.commit[..12]));
        if name.ends_with(".safetensors") && weights {
            return error.help("its weights are in PyTorch's format: take a commit with safetensors, or convert them");
        }
        let (shown, left) = (others.len().min(12), others.len().saturating_sub(12));
        others.truncate(shown);
        let more = if left > 0 { format!(" and {left} more") } else { String::new() };
        error.help(format!("it has {}{more}", others.join(", ")))
    }

    fn listing(&self, client: &Client<'_>, reference: &Reference) -> Result<BTreeMap<String, Listed>> {
        let address = format!("{}/api/{}/revision/{}?blobs=true", self.endpoint, reference.in_api(), reference.commit);
        let text = client.text(&address, reference)?;
        let strange = |what: String| {
            Error::input(format!("{} describes {reference} strangely: {what}", self.endpoint))
                .help("is HF_ENDPOINT a Hugging Face hub, or a mirror of one?")
        };
        let listing: Listing = serde_json::from_str(&text).map_err(|e| strange(e.to_string()))?;
        if let Some(sha) = listing.sha.filter(|sha| *sha != reference.commit) {
            return Err(strange(format!("it answers with commit {sha}")));
        }
        let listed = |sibling: Sibling| {
            let (digest, size) = match sibling.lfs {
                Some(large) => (large.sha256, Some(large.size)),
                None => (sibling.blob_id.unwrap_or_default(), sibling.size),
            };
            let is_digest = [40, 64].contains(&digest.len()) && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            match size.filter(|_| is_digest && super::reference::is_file(&sibling.rfilename)) {
                Some(size) => Ok((sibling.rfilename, Listed { digest: digest.to_lowercase(), size })),
                None => Err(strange(format!("{:?} has no size or no digest", sibling.rfilename))),
            }
        };
        listing.siblings.into_iter().map(listed).collect()
    }

    fn fetch_file(
        &self,
        client: &Client<'_>,
        snapshot: &Snapshot,
        reference: &Reference,
        name: &str,
        listed: &Listed,
        progress: &Progress<'_>,
    ) -> Result<()> {
        let blob = snapshot.blob(&listed.digest);
        let _lock = Lock::take(&self.cache, reference, &listed.digest, progress.watch)?;
        if !blob.is_file() {
            let of = Reference { file: Some(name.to_owned()), ..reference.clone() };
            let address = format!("{}/{}/resolve/{}/{}", self.endpoint, reference.in_address(), reference.commit, escaped(name));
            download(client, &of, &address, listed, &blob, progress)?;
        }
        snapshot.link(name, &listed.digest)
    }
}

/// Fetches one file to its place: first beside it, and what is there of an earlier attempt is kept.
fn download(
    client: &Client<'_>,
    of: &Reference,
    address: &str,
    listed: &Listed,
    blob: &Path,
    progress: &Progress<'_>,
) -> Result<()> {
    let partial = blob.with_file_name(format!("{}.incomplete", listed.digest));
    let folder = blob.parent().expect("it lies in a folder");
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
    let io = |e: std::io::Error| Error::io("write", &partial, &e);
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&partial).map_err(io)?;
    let mut resumed = file.metadata().map_err(io)?.len() > 0;
    let (mut fruitless, mut last) = (0, String::new());
    loop {
        let have = file.seek(SeekFrom::End(0)).map_err(io)?;
        if have > listed.size {
            file.set_len(0).map_err(io)?;
            continue;
        }
        if have == listed.size {
            file.sync_all().map_err(io)?;
            let found = digest_of(&partial, listed)?;
            if found == listed.digest {
                return fs::rename(&partial, blob).map_err(|e| Error::io("rename", &partial, &e));
            }
            file.set_len(0).map_err(io)?;
            // What an earlier process left may be what is wrong.
            if std::mem::take(&mut resumed) {
                continue;
            }
            let _ = fs::remove_file(&partial);
            let expected = &listed.digest;
            return Err(Error::input(format!("{of} came with the digest {found}, and the hub's list says {expected}"))
                .help("try again later; if it stays so, what lies between here and the hub changes files"));
        }
        if fruitless == ATTEMPTS {
            return Err(Error::new(Kind::TryAgain, format!("{of} comes incomplete, {have} of {} bytes: {last}", listed.size))
                .help("run the same command again: it goes on where it stopped"));
        }
        if fruitless > 0 {
            client.pause(fruitless)?;
        }
        let ended = receive(client, of, address, &mut file, have, listed.size, progress)?;
        let now = file.seek(SeekFrom::End(0)).map_err(io)?;
        fruitless = if now > have { 1 } else { fruitless + 1 };
        last = ended.unwrap_or_else(|| "the server ends it early".to_owned());
    }
}

/// Appends what the server sends from byte `have` on; gives why it ended early, if it was an error.
fn receive(
    client: &Client<'_>,
    of: &Reference,
    address: &str,
    file: &mut File,
    have: u64,
    size: u64,
    progress: &Progress<'_>,
) -> Result<Option<String>> {
    let response = client.from(address, of, have)?;
    let io = |e: std::io::Error| Error::io("write", Path::new(&format!("{of}")), &e);
    let starts_at_have = response.status() == StatusCode::PARTIAL_CONTENT && {
        let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
        range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()) == Some(have)
    };
    let mut at = have;
    if !starts_at_have && have > 0 {
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)).map(drop)).map_err(io)?;
        at = 0;
    }
    if !response.status().is_success() || response.status() == StatusCode::PARTIAL_CONTENT && !starts_at_have {
        return Ok(Some(format!("it answers with {} and another range", response.status())));
    }
    let (mut body, mut buffer) = (response.into_body().into_reader(), vec![0; 1 << 17]);
    loop {
        progress.watch.check()?;
        let read = match body.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(read) => read,
            Err(e) => return Ok(Some(e.to_string())),
        };
        at += read as u64;
        if at > size {
            file.set_len(0).map_err(io)?;
            return Err(Error::input(format!("{of} comes with more than the {size} bytes that the hub's list says"))
                .help("try again later; if it stays so, what lies between here and the hub changes files"));
        }
        file.write_all(&buffer[..read]).map_err(io)?;
        progress.watch.advance(progress.before + at, progress.total, of.file.as_deref().unwrap_or_default());
    }
}

fn digest_of(path: &Path, listed: &Listed) -> Result<String> {
    if listed.digest.len() == 64 { Ok(Digest::of_file(path)?.to_string()) } else { git_digest(path) }
}

/// A file's name in an address.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Held while one file is fetched, by whichever program (`huggingface_hub` takes the same lock).
struct Lock {
    _file: Option<File>,
}

impl Lock {
    fn take(cache: &Path, reference: &Reference, digest: &str, watch: &dyn Watch) -> Result<Self> {
        let folder: PathBuf = cache.join(".locks").join(reference.folder_name());
        let path = folder.join(format!("{digest}.lock"));
        let io = |e: std::io::Error| Error::io("create", &path, &e);
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, &e))?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: Some(file) }),
                Err(fs::TryLockError::WouldBlock) => {}
                // A file system without locks costs a second download at worst: digests keep it right.
                Err(fs::TryLockError::Error(_)) => return Ok(Self { _file: None }),
            }
            if !std::mem::replace(&mut told, true) {
                watch.warn(&format!("another process fetches from {} already: waiting for it", reference.id));
            }
            watch.check()?;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

impl Wanted {
    /// As messages name it.
    pub fn kind(&self) -> &'static str {
        match (self.reference.repo, self.files) {
            (Repo::Dataset, _) => "data",
            (_, super::Files::Judge) => "judge",
            (_, super::Files::Adapter) => "adapter",
            (_, super::Files::One) => "file",
            _ => "model",
        }
    }
}
