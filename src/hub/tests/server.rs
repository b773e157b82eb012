//! A hub on this machine, which misbehaves as it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha1::Digest as _;

use crate::digest::Digest;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub authorization: Option<String>,
    /// The first byte that is asked for.
    pub start: usize,
}

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Only so many bytes of the body are sent, and the connection ends.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), cut: None }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::ok("no") }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// The rest of `content` from where the request begins.
    pub fn part(request: &Request, content: &[u8]) -> Self {
        match request.start {
            0 => Self::ok(content),
            start => {
                let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                Self { status: 206, ..Self::ok(&content[start..]) }.header("Content-Range", range)
            }
        }
    }

    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

type Handler = dyn Fn(&Request, usize) -> Reply + Send + Sync;

pub struct Server {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `handler` is given each request and how many there were for the same path before.
    pub fn start(handler: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, handler): (_, Arc<Handler>) = (Arc::clone(&requests), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                std::thread::spawn(move || answer(stream.unwrap(), &seen, &*handler));
            }
        });
        Self { address, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.path).collect()
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, handler: &Handler) {
    let Some(request) = read(&stream) else { return };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|other| other.path == request.path).count();
        seen.push(request.clone());
        before
    };
    let reply = handler(&request, before);
    let mut head = format!("HTTP/1.1 {} Word\r\nContent-Length: {}\r\nConnection: close\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let sent = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(b"\r\n")).and_then(|()| stream.write_all(sent));
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut request = Request { path: first.split(' ').nth(1)?.to_owned(), authorization: None, start: 0 };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            "range" => request.start = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?,
            _ => {}
        }
    }
    Some(request)
}

/// A file of a repository, large (LFS) or not.
#[derive(Clone)]
pub struct Stored {
    pub name: &'static str,
    pub content: Vec<u8>,
    pub large: bool,
}

pub fn stored(name: &'static str, content: impl Into<Vec<u8>>) -> Stored {
    Stored { name, content: content.into(), large: name.ends_with(".safetensors") || name.ends_with(".gz") }
}

impl Stored {
    pub fn digest(&self) -> String {
        match self.large {
            true => Digest::of_bytes(&self.content).to_string(),
            false => git(&self.content),
        }
    }
}

pub fn git(content: &[u8]) -> String {
    let whole = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    sha1::Sha1::digest(whole).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the hub's API says of a repository.
pub fn listing(files: &[Stored]) -> Vec<u8> {
    let sibling = |file: &Stored| {
        let mut sibling = serde_json::json!({
            "rfilename": file.name, "size": file.content.len(),
            "blobId": if file.large { git(b"a pointer") } else { file.digest() },
        });
        if file.large {
            sibling["lfs"] = serde_json::json!({"sha256": file.digest(), "size": file.content.len(), "pointerSize": 134});
        }
        sibling
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    serde_json::to_vec(&serde_json::json!({"id": "org/name", "sha": COMMIT, "siblings": siblings})).unwrap()
}

/// A repository as the hub serves it, unless `misbehave` answers in its place.
pub fn serve(files: &[Stored], misbehave: impl Fn(&Request, usize, &[u8]) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let files = files.to_vec();
    Server::start(move |request, before| {
        let path = request.path.split('?').next().unwrap();
        if path.starts_with("/api/") {
            let right = path.ends_with(&format!("org/name/revision/{COMMIT}"));
            let body = listing(&files);
            return misbehave(request, before, &body).unwrap_or_else(|| if right { Reply::ok(body) } else { Reply::status(404) });
        }
        let found = files.iter().find(|file| path.ends_with(&format!("org/name/resolve/{COMMIT}/{}", file.name)));
        let Some(file) = found else { return Reply::status(404).header("X-Error-Code", "EntryNotFound") };
        misbehave(request, before, &file.content).unwrap_or_else(|| Reply::part(request, &file.content))
    })
}
