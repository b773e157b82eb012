mod server;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::error::{Error, Kind};
use crate::watch::{Silent, Watch};
use server::{COMMIT, Reply, Request, Server, Stored, serve, stored};

/// What is said while something is fetched.
#[derive(Default)]
struct Heard {
    warnings: Mutex<Vec<String>>,
    progress: Mutex<Vec<(u64, u64)>>,
}

impl Watch for Heard {
    fn advance(&self, done: u64, total: u64, _: &str) {
        self.progress.lock().unwrap().push((done, total));
    }

    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }
}

fn weights() -> Vec<u8> {
    (0..300_000u32).map(|i| (i % 251) as u8).collect()
}

fn repository() -> Vec<Stored> {
    vec![
        stored("README.md", "not needed"),
        stored("config.json", "{}"),
        stored("model.safetensors", weights()),
        stored("pytorch_model.bin", "not needed"),
        stored("tokenizer.json", "{\"t\": 1}"),
        stored("tokenizer_config.json", "{\"c\": 1}"),
    ]
}

fn hub(cache: &Path, server: &Server) -> Hub {
    Hub {
        cache: cache.to_owned(),
        endpoint: server.address.clone(),
        token: Some("hf_secret".to_owned()),
        offline: None,
        pause: Duration::from_millis(1),
    }
}

fn wanted(files: Files) -> Wanted {
    let Written::Hub(reference) = Written::of(Repo::Model, Path::new(&format!("org/name@{COMMIT}"))) else { unreachable!() };
    Wanted { reference, files }
}

fn data(file: &str) -> Wanted {
    let written = format!("org/name@{COMMIT}:{file}");
    let Written::Hub(reference) = Written::of(Repo::Dataset, Path::new(&written)) else { panic!("{written}") };
    Wanted { reference, files: Files::One }
}

/// Fetches a model from a server that answers as `misbehave` says.
fn fetched(
    cache: &Path,
    misbehave: impl Fn(&Request, usize, &[u8]) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Result<(), Error>) {
    let server = serve(&repository(), misbehave);
    let outcome = hub(cache, &server).fetch(&wanted(Files::Model), &Silent);
    (server, outcome)
}

/// Whether a request is for the weights.
fn for_weights(request: &Request) -> bool {
    request.path.ends_with("/model.safetensors")
}

/// The weights as the cache holds them.
fn cached_weights(cache: &Path) -> Option<Vec<u8>> {
    fs::read(wanted(Files::Model).reference.place_in(cache).join("model.safetensors")).ok()
}

#[test]
fn what_is_written_is_a_place_a_commit_or_wrong() {
    let of = |text: &str| Written::of(Repo::Model, Path::new(text));
    for local in ["models/tiny", "../a@b/c", "/abs/a@main", "a/b/c@main", "plain", ".hidden/x@main", "a--b/c@main"] {
        assert_eq!(of(local), Written::Local, "{local}");
    }
    for branch in ["org/name@main", "org/name@v1.0", "org/name@0123456", "name@refs/pr/1"] {
        assert!(matches!(of(branch), Written::Wrong(why, _) if why.contains("is no commit of")), "{branch}");
    }
    assert!(matches!(of(&format!("org/name@{}", COMMIT.to_uppercase())), Written::Wrong(..)));
    for escape in ["../x", "a/../../x", "", "/etc/passwd", "a\\b", "a//b"] {
        assert!(matches!(of(&format!("org/name@{COMMIT}:{escape}")), Written::Wrong(..)), "{escape}");
    }
    let Written::Hub(reference) = of(&format!("org/name@{COMMIT}:data/train.jsonl")) else { panic!() };
    assert_eq!(reference.to_string(), "org/name@0123456789ab:data/train.jsonl");
    let Written::Hub(alone) = of(&format!("gpt2@{COMMIT}")) else { panic!() };
    assert_eq!(alone.place_in(Path::new("c")), Path::new(&format!("c/models--gpt2/snapshots/{COMMIT}")));
}

#[test]
fn files_lie_where_huggingface_hub_keeps_them_and_are_fetched_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = serve(&repository(), |_, _, _| None);
    let (hub, heard) = (hub(cache.path(), &server), Heard::default());
    assert!(matches!(hub.state(&wanted(Files::Model)).unwrap(), State::Missing(_)));
    hub.fetch(&wanted(Files::Model), &heard).unwrap();
    let repo = cache.path().join("models--org--name");
    for file in repository() {
        let name = repo.join("snapshots").join(COMMIT).join(file.name);
        let needed = !["README.md", "pytorch_model.bin"].contains(&file.name);
        assert_eq!(name.exists(), needed, "{}", file.name);
        if needed {
            assert_eq!(fs::read(&name).unwrap(), file.content);
            assert_eq!(fs::read(repo.join("blobs").join(file.digest())).unwrap(), file.content);
            #[cfg(unix)]
            assert_eq!(fs::read_link(&name).unwrap(), Path::new("../../blobs").join(file.digest()));
            assert_eq!(verified_digest(&name).unwrap(), crate::digest::Digest::of_bytes(&file.content));
        }
    }
    assert!(repo.join(".no_exist").join(COMMIT).join("chat_template.jinja").is_file());
    let progress = heard.progress.lock().unwrap();
    let (done, total) = *progress.last().unwrap();
    assert_eq!((done, total), (weights().len() as u64 + 2 + 8 + 8, total));
    let before = server.requests().len();
    assert_eq!(hub.state(&wanted(Files::Model)).unwrap(), State::Complete);
    hub.fetch(&wanted(Files::Model), &Silent).unwrap();
    assert_eq!(server.requests().len(), before, "nothing is asked for again");
    assert!(server.requests().iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_secret")));
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let cache = tempfile::tempdir().unwrap();
    let (server, outcome) = fetched(cache.path(), |request, before, content| {
        // Three times it breaks, each time after 70,000 further bytes.
        (for_weights(request) && before < 3).then(|| Reply::part(request, content).cut_after(70_000))
    });
    outcome.unwrap();
    assert_eq!(cached_weights(cache.path()).unwrap(), weights());
    let starts: Vec<usize> = server.requests().iter().filter(|r| for_weights(r)).map(|r| r.start).collect();
    assert_eq!(starts, [0, 70_000, 140_000, 210_000]);
}

#[test]
fn a_server_that_never_sends_all_fails_and_what_came_is_kept_for_the_next_time() {
    let cache = tempfile::tempdir().unwrap();
    let stuck = |request: &Request, _: usize, content: &[u8]| {
        for_weights(request).then(|| {
            let rest = 1000usize.saturating_sub(request.start);
            Reply::part(request, content).cut_after(rest)
        })
    };
    let (_, outcome) = fetched(cache.path(), stuck);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, Kind::TryAgain);
    assert!(error.message.contains("comes incomplete, 1000 of 300000 bytes"), "{error}");
    let (server, outcome) = fetched(cache.path(), |_, _, _| None);
    outcome.unwrap();
    assert_eq!(server.requests().iter().find(|r| for_weights(r)).unwrap().start, 1000);
    assert_eq!(cached_weights(cache.path()).unwrap(), weights());
}

#[test]
fn a_server_that_knows_no_ranges_is_read_from_the_beginning_again() {
    let cache = tempfile::tempdir().unwrap();
    let (_, outcome) = fetched(cache.path(), |request, before, content| {
        for_weights(request).then(|| {
            let whole = Reply::ok(content);
            if before == 0 { whole.cut_after(5000) } else { whole }
        })
    });
    outcome.unwrap();
    assert_eq!(cached_weights(cache.path()).unwrap(), weights());
}

#[test]
fn contents_that_are_not_what_the_list_says_are_refused_and_not_kept() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Damage); 2] = [
        ("came with the digest", |content| content.iter().map(|byte| byte ^ 1).collect()),
        ("comes with more than the 300000 bytes", |content| [content, b"x"].concat()),
    ];
    for (sentence, changed) in cases {
        let cache = tempfile::tempdir().unwrap();
        let (_, outcome) =
            fetched(cache.path(), move |request, _, content| for_weights(request).then(|| Reply::ok(changed(content))));
        let error = outcome.unwrap_err();
        assert!(error.message.contains(sentence) && error.kind == Kind::Input, "{error}");
        assert_eq!(cached_weights(cache.path()), None);
        let blobs: Vec<_> = fs::read_dir(cache.path().join("models--org--name/blobs"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert!(blobs.iter().all(|&length| length < 100), "{blobs:?}");
    }
}

#[test]
fn the_beginning_that_another_process_left_is_not_trusted() {
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let digest = repository()[2].digest();
    fs::write(blobs.join(format!("{digest}.incomplete")), vec![7; 1234]).unwrap();
    let (server, outcome) = fetched(cache.path(), |_, _, _| None);
    outcome.unwrap();
    assert_eq!(cached_weights(cache.path()).unwrap(), weights());
    let starts: Vec<usize> = server.requests().iter().filter(|r| for_weights(r)).map(|r| r.start).collect();
    assert_eq!(starts, [1234, 0]);
}

#[test]
fn refusals_say_what_is_refused_and_what_to_do() {
    let of = |reply: fn() -> Reply, token: Option<&str>| {
        let cache = tempfile::tempdir().unwrap();
        let server = serve(&repository(), move |request, _, _| request.path.starts_with("/api/").then(reply));
        let hub = Hub { token: token.map(str::to_owned), ..hub(cache.path(), &server) };
        let error = hub.fetch(&wanted(Files::Model), &Silent).unwrap_err();
        assert_eq!(server.requests().len(), 1, "{error}");
        (error.kind, error.to_string())
    };
    let (kind, gated) = of(|| Reply::status(401), None);
    assert!(kind == Kind::Input && gated.contains("private, or gated") && gated.contains("set HF_TOKEN"), "{gated}");
    let (_, refused) = of(|| Reply::status(403).header("X-Error-Code", "GatedRepo"), Some("hf_x"));
    assert!(refused.contains("doesn't let the token in HF_TOKEN") && refused.contains("accept its terms at http"), "{refused}");
    assert!(!refused.contains("hf_x"), "{refused}");
    let (kind, none) = of(|| Reply::status(404).header("X-Error-Code", "RepoNotFound"), None);
    assert!(kind == Kind::Input && none.contains("the hub has no org/name@0123456789ab"), "{none}");
    let (_, commit) = of(|| Reply::status(404).header("X-Error-Code", "RevisionNotFound"), None);
    assert!(commit.contains(&format!("org/name has no commit {COMMIT}")), "{commit}");
    let (kind, later) = of(|| Reply::status(429).header("Retry-After", 3600), None);
    assert!(kind == Kind::TryAgain && later.contains("after 3600 seconds"), "{later}");
    let (_, strange) = of(|| Reply::ok("<html>"), None);
    assert!(strange.contains("describes org/name@0123456789ab strangely"), "{strange}");
    let (_, other) = of(|| Reply::ok("{\"sha\": \"ffff\", \"siblings\": []}"), None);
    assert!(other.contains("it answers with commit ffff"), "{other}");
}

#[test]
fn a_server_in_trouble_is_asked_again_and_not_for_ever() {
    let cache = tempfile::tempdir().unwrap();
    let (server, outcome) = fetched(cache.path(), |request, before, _| match (for_weights(request), before) {
        (true, 0) => Some(Reply::status(429).header("Retry-After", 0)),
        (true, 1) => Some(Reply::status(503)),
        _ => None,
    });
    outcome.unwrap();
    assert_eq!(server.requests().iter().filter(|r| for_weights(r)).count(), 3);
    let cache = tempfile::tempdir().unwrap();
    let (server, outcome) = fetched(cache.path(), |_, _, _| Some(Reply::status(502)));
    let error = outcome.unwrap_err();
    assert!(error.kind == Kind::TryAgain && error.message.contains("answers with 502"), "{error}");
    assert_eq!(server.requests().len(), 6);
    let nobody = Hub { endpoint: "http://127.0.0.1:9".to_owned(), ..hub(cache.path(), &server) };
    let error = nobody.fetch(&wanted(Files::Model), &Silent).unwrap_err();
    assert!(error.kind == Kind::TryAgain && error.message.contains("http://127.0.0.1:9 doesn't answer"), "{error}");
}

#[test]
fn the_token_stays_with_its_host() {
    let elsewhere = Server::start(|request, _| Reply::part(request, &weights()));
    let target = elsewhere.address.clone();
    let cache = tempfile::tempdir().unwrap();
    let (server, outcome) = fetched(cache.path(), move |request, _, _| {
        let to_elsewhere = for_weights(request).then(|| Reply::status(302).header("Location", format!("{target}/cdn?sig=1")));
        let renamed = request.path.starts_with("/api/models/org/name").then(|| {
            let new = request.path.replace("/api/models/", "/api/models/moved/");
            Reply::status(307).header("Location", new)
        });
        to_elsewhere.or(renamed)
    });
    outcome.unwrap();
    assert_eq!(cached_weights(cache.path()).unwrap(), weights());
    assert_eq!(elsewhere.paths(), ["/cdn?sig=1"]);
    assert_eq!(elsewhere.requests()[0].authorization, None);
    assert!(server.requests().iter().all(|request| request.authorization.is_some()), "{:?}", server.requests());
    assert!(server.paths().iter().any(|path| path.starts_with("/api/models/moved/")));
}

#[test]
fn without_network_the_cache_is_taken_or_its_gap_named() {
    let cache = tempfile::tempdir().unwrap();
    let server = serve(&repository(), |_, _, _| None);
    let online = hub(cache.path(), &server);
    let offline = Hub { offline: Some("HF_HUB_OFFLINE"), ..online.clone() };
    let error = offline.fetch(&wanted(Files::Model), &Silent).unwrap_err();
    assert_eq!(error.kind, Kind::Input);
    assert!(error.message.contains("config.json, tokenizer.json, model.safetensors is missing"), "{error}");
    assert!(error.message.contains("HF_HUB_OFFLINE forbids"), "{error}");
    assert_eq!(server.requests().len(), 0);
    online.fetch(&wanted(Files::Model), &Silent).unwrap();
    let heard = Heard::default();
    offline.fetch(&wanted(Files::Model), &heard).unwrap();
    assert!(heard.warnings.lock().unwrap().is_empty());
    // Another program has fetched the same, and didn't ask for what else there may be.
    fs::remove_dir_all(cache.path().join("models--org--name/.no_exist")).unwrap();
    offline.fetch(&wanted(Files::Model), &heard).unwrap();
    assert!(heard.warnings.lock().unwrap()[0].contains("has chat_template.jinja too"));
}

#[test]
fn shards_adapters_and_data_are_fetched_as_far_as_they_are_needed() {
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let shard = |name| stored(name, weights());
    let files = [
        stored("config.json", "{}"),
        stored("model.safetensors.index.json", index),
        shard("model-00001-of-00002.safetensors"),
        shard("model-00002-of-00002.safetensors"),
    ];
    let cache = tempfile::tempdir().unwrap();
    let server = serve(&files, |_, _, _| None);
    hub(cache.path(), &server).fetch(&wanted(Files::Policy), &Silent).unwrap();
    let snapshot = wanted(Files::Policy).reference.place_in(cache.path());
    assert!(files.iter().all(|file| snapshot.join(file.name).is_file()));
    // Both shards have the same contents: one blob, fetched once.
    assert_eq!(server.paths().iter().filter(|path| path.contains("model-0000")).count(), 1);

    let adapter = [stored("adapter_config.json", "{}"), stored("adapter_model.safetensors", weights()), files[0].clone()];
    let cache = tempfile::tempdir().unwrap();
    let server = serve(&adapter, |_, _, _| None);
    hub(cache.path(), &server).fetch(&wanted(Files::Policy), &Silent).unwrap();
    assert_eq!(server.requests().len(), 3, "{:?}", server.paths());

    let rows = [stored("harmless/test.jsonl.gz", "rows"), stored("harmless/train.jsonl.gz", "more rows")];
    let cache = tempfile::tempdir().unwrap();
    let server = serve(&rows, |_, _, _| None);
    let one = data("harmless/test.jsonl.gz");
    hub(cache.path(), &server).fetch(&one, &Silent).unwrap();
    let place = one.reference.place_in(cache.path());
    assert!(place.ends_with(format!("datasets--org--name/snapshots/{COMMIT}/harmless/test.jsonl.gz")));
    assert_eq!(fs::read(place).unwrap(), b"rows");
    let paths = server.paths();
    assert!(
        paths[0].starts_with("/api/datasets/org/name/revision/") && paths[1].starts_with("/datasets/org/name/resolve/"),
        "{paths:?}"
    );
    let error = hub(cache.path(), &server).fetch(&data("harmless/dev.jsonl.gz"), &Silent).unwrap_err().to_string();
    assert!(error.contains("has no harmless/dev.jsonl.gz") && error.contains("it has harmless/test.jsonl.gz"), "{error}");
}

#[test]
fn a_repository_without_safetensors_says_so() {
    let files: Vec<Stored> = repository().into_iter().filter(|file| file.name != "model.safetensors").collect();
    let cache = tempfile::tempdir().unwrap();
    let server = serve(&files, |_, _, _| None);
    let error = hub(cache.path(), &server).fetch(&wanted(Files::Model), &Silent).unwrap_err().to_string();
    assert!(error.contains("has no model.safetensors") && error.contains("PyTorch's format"), "{error}");
}

#[test]
fn damage_in_the_cache_is_told_by_the_files_name() {
    let cache = tempfile::tempdir().unwrap();
    fetched(cache.path(), |_, _, _| None).1.unwrap();
    let snapshot = wanted(Files::Model).reference.place_in(cache.path());
    for (name, index) in [("model.safetensors", 2), ("config.json", 1)] {
        let blob = cache.path().join("models--org--name/blobs").join(repository()[index].digest());
        fs::write(&blob, "[]").unwrap();
        let error = verified_digest(&snapshot.join(name)).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains(&repository()[index].digest()), "{error}");
    }
}

#[test]
fn one_process_waits_while_another_fetches_the_same_file() {
    let cache = tempfile::tempdir().unwrap();
    let locks = cache.path().join(".locks/models--org--name");
    fs::create_dir_all(&locks).unwrap();
    let held = fs::File::create(locks.join(format!("{}.lock", repository()[2].digest()))).unwrap();
    held.lock().unwrap();
    let server = serve(&repository(), |_, _, _| None);
    let (hub, heard) = (hub(cache.path(), &server), Heard::default());
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| hub.fetch(&wanted(Files::Model), &heard));
        while heard.warnings.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!server.paths().iter().any(|path| path.ends_with("/model.safetensors")));
        drop(held);
        fetching.join().unwrap().unwrap();
    });
    assert!(heard.warnings.lock().unwrap()[0].contains("another process fetches from org/name"));
    assert_eq!(cached_weights(cache.path()).unwrap(), weights());
}
