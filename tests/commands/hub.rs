//! Suites whose models and data lie on the hub, served by a small one on this machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};

use crate::errors::own_pairs;
use crate::support::{Ran, dpo_eval, edit, ran, repository};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves a folder as every repository, each file as a large one (LFS).
struct Hub {
    address: String,
    requests: Arc<AtomicUsize>,
}

impl Hub {
    fn of(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (folder, requests) = (folder.to_owned(), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                answer(stream.unwrap(), &folder);
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, folder: &Path) {
    let mut lines = BufReader::new(&stream).lines();
    let first = lines.next().unwrap().unwrap();
    lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
    let path = first.split(' ').nth(1).unwrap();
    let body = match path.split_once(&format!("/resolve/{COMMIT}/")) {
        Some((_, name)) => fs::read(folder.join(name)).unwrap(),
        None => {
            let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
            let siblings: Vec<_> = files.map(|path| sibling(&path)).collect();
            serde_json::to_vec(&serde_json::json!({"sha": COMMIT, "siblings": siblings})).unwrap()
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn sibling(path: &Path) -> serde_json::Value {
    let content = fs::read(path).unwrap();
    let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().unwrap().to_str().unwrap();
    serde_json::json!({"rfilename": name, "lfs": {"sha256": digest, "size": content.len()}})
}

fn with_hub(folder: &Path, cache: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command: Command = dpo_eval(folder);
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "DPO_EVAL_OFFLINE", "HF_ENDPOINT"] {
        command.env_remove(name);
    }
    ran(&command.env("HF_HOME", cache).envs(variables.iter().copied()).args(arguments).output().unwrap())
}

/// The keys of a suite's cells.
fn keys(ran: &Ran) -> Vec<String> {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    plan["cells"].as_array().unwrap().iter().map(|cell| cell["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_suite_over_the_hub_fetches_what_it_names_and_has_the_keys_of_its_contents() {
    let folder = own_pairs();
    let (folder, suite) = (folder.path(), folder.path().join("mine.toml"));
    let plan = ["suite", "plan", "mine.toml", "--format", "json", "--quiet"];
    let cache = folder.join("cache");
    let local = keys(&with_hub(folder, &cache, &[], &plan));
    fs::copy(folder.join("pairs.jsonl"), folder.join("model/pairs.jsonl")).unwrap();
    let hub = Hub::of(&folder.join("model"));
    let endpoint = ("HF_ENDPOINT", hub.address.as_str());
    edit(&suite, "path = \"model\"", "path = \"org/tiny@main\"");
    edit(&suite, "path = \"pairs.jsonl\"", &format!("path = \"org/pairs@{COMMIT}:pairs.jsonl\""));

    let branch = with_hub(folder, &cache, &[endpoint], &["suite", "check", "mine.toml"]);
    assert_eq!(branch.code, 2);
    assert!(branch.stderr.contains("\"main\" is no commit of org/tiny"), "{}", branch.stderr);
    assert!(branch.stderr.contains("what a branch or a tag names can change"), "{}", branch.stderr);
    edit(&suite, "org/tiny@main", &format!("org/tiny@{COMMIT}"));

    let check = with_hub(folder, &cache, &[endpoint], &["suite", "check", "mine.toml"]);
    assert_eq!((check.code, hub.requests()), (0, 0), "{}", check.stderr);
    assert!(check.stdout.contains("data org/pairs@0123456789ab:pairs.jsonl isn't in the cache"), "{}", check.stdout);
    assert!(check.stdout.contains(&format!("is fetched from {} when the suite runs", hub.address)), "{}", check.stdout);
    let offline = with_hub(folder, &cache, &[endpoint, ("HF_HUB_OFFLINE", "1")], &plan);
    assert_eq!((offline.code, hub.requests()), (3, 0));
    assert!(offline.stderr.contains("HF_HUB_OFFLINE forbids fetching it"), "{}", offline.stderr);

    assert_eq!(keys(&with_hub(folder, &cache, &[endpoint], &plan)), local);
    let asked = hub.requests();
    assert!(asked > 4, "{asked}");
    assert_eq!(keys(&with_hub(folder, &cache, &[endpoint], &plan)), local);
    assert_eq!(hub.requests(), asked, "nothing is asked for again");
    let check = with_hub(folder, &cache, &[("DPO_EVAL_OFFLINE", "1")], &["suite", "check", "mine.toml"]);
    assert!(check.code == 0 && check.stdout.lines().count() == 1, "{}{}", check.stdout, check.stderr);

    let run = with_hub(folder, &cache, &[("HF_HUB_OFFLINE", "1")], &["suite", "run", "mine.toml", "--quiet"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // Damage that nobody else would see.
    let weights = fs::canonicalize(cache.join("hub/models--org--tiny/snapshots").join(COMMIT).join("model.safetensors")).unwrap();
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let damaged = with_hub(folder, &cache, &[("HF_HUB_OFFLINE", "1")], &plan);
    assert!(damaged.code == 3 && damaged.stderr.contains("is damaged"), "{}", damaged.stderr);
}

#[test]
fn the_suite_of_the_paper_is_resolved_and_says_what_it_would_fetch() {
    let folder = tempfile::tempdir().unwrap();
    let suite: PathBuf = repository().join("suites/hh.toml");
    let check = with_hub(folder.path(), &folder.path().join("cache"), &[], &["suite", "check", suite.to_str().unwrap()]);
    assert_eq!(check.code, 0, "{}", check.stderr);
    assert_eq!(check.stdout.lines().count(), 6, "{}", check.stdout);
    assert!(check.stdout.contains("model EleutherAI/pythia-2.8b@2a259cdd96a4 isn't in the cache"), "{}", check.stdout);
    assert!(check.stdout.contains("harmless-base/train.jsonl.gz"), "{}", check.stdout);
}
