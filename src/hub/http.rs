//! Requests to the hub: with its token, which goes to no other host, and with patience.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::{Hub, Reference};
use crate::error::{Error, Kind, Result};
use crate::watch::Watch;

/// How often a request is made before it counts as failed.
pub(super) const ATTEMPTS: u32 = 6;
/// A longer wait than this is the user's to decide on.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 8;
/// Of the answer to a question about a repository.
const LONGEST_TEXT: u64 = 64 << 20;

pub(super) struct Client<'a> {
    hub: &'a Hub,
    agent: Agent,
    watch: &'a dyn Watch,
}

/// Why there is no answer: `again` if another attempt may help, after so long if the server says so.
struct Failure {
    error: Error,
    again: bool,
    after: Option<Duration>,
}

impl<'a> Client<'a> {
    pub fn new(hub: &'a Hub, watch: &'a dyn Watch) -> Result<Self> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, so that it is seen where to.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("dpo-eval/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        // What runs on this machine isn't asked through a proxy.
        if ["http://127.0.0.1", "http://localhost"].iter().any(|local| hub.endpoint.starts_with(local)) {
            config = config.proxy(None);
        }
        if let Some(roots) = own_roots()? {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self { hub, agent: config.build().into(), watch })
    }

    /// The text of an answer about `of`.
    pub fn text(&self, address: &str, of: &Reference) -> Result<String> {
        self.patiently(|| {
            let response = self.once(address, of, 0)?;
            let mut text = String::new();
            let read = response.into_body().into_reader().take(LONGEST_TEXT).read_to_string(&mut text);
            read.map_err(|e| self.broken(address, &e.to_string()))?;
            Ok(text)
        })
    }

    /// The contents of a file from a byte on; the answer says whether it begins there (206) or at the beginning (200).
    pub fn from(&self, address: &str, of: &Reference, start: u64) -> Result<Response<Body>> {
        self.patiently(|| self.once(address, of, start))
    }

    fn patiently<T>(&self, mut attempt: impl FnMut() -> std::result::Result<T, Failure>) -> Result<T> {
        for number in 1.. {
            let failure = match attempt() {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let wait = failure.after.unwrap_or(self.hub.pause * 2u32.pow(number - 1));
            if !failure.again || number == ATTEMPTS || wait > LONGEST_WAIT {
                return Err(failure.error);
            }
            self.sleep(wait)?;
        }
        unreachable!("the last attempt returns")
    }

    /// Waits before attempt `number` is repeated, listening to the user.
    pub fn pause(&self, number: u32) -> Result<()> {
        self.sleep((self.hub.pause * 2u32.pow(number - 1)).min(LONGEST_WAIT))
    }

    fn sleep(&self, wait: Duration) -> Result<()> {
        let until = Instant::now() + wait;
        loop {
            self.watch.check()?;
            match until.checked_duration_since(Instant::now()) {
                None => return Ok(()),
                Some(left) => std::thread::sleep(left.min(Duration::from_millis(100))),
            }
        }
    }

    fn once(&self, address: &str, of: &Reference, start: u64) -> std::result::Result<Response<Body>, Failure> {
        let mut address = address.to_owned();
        for _ in 0..REDIRECTS {
            let mut request = self.agent.get(&address);
            if let Some(token) = self.hub.token.as_ref().filter(|_| origin(&address) == origin(&self.hub.endpoint)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if start > 0 {
                request = request.header("Range", format!("bytes={start}-"));
            }
            let response = request.call().map_err(|e| self.broken(&address, &e.to_string()))?;
            if !response.status().is_redirection() {
                return self.accepted(response, &address, of);
            }
            let to = response.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or_default();
            address = redirected(&address, to).ok_or_else(|| Failure {
                error: Error::input(format!("{address} leads to \"{to}\", where nothing is fetched from")),
                again: false,
                after: None,
            })?;
        }
        Err(self.broken(&address, "it leads from one address to the next without end"))
    }

    fn broken(&self, address: &str, reason: &str) -> Failure {
        let mirror = "check the network; HF_ENDPOINT names a mirror, and HF_HUB_OFFLINE=1 takes what is in the cache";
        let error = Error::new(Kind::TryAgain, format!("{} doesn't answer as it should: {reason}", origin(address)));
        Failure { error: error.help(mirror), again: true, after: None }
    }

    fn accepted(&self, response: Response<Body>, address: &str, of: &Reference) -> std::result::Result<Response<Body>, Failure> {
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let after = header("retry-after").and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        if again {
            let error = Error::new(Kind::TryAgain, format!("{} answers with {status}", origin(address)));
            let wait = after.map_or_else(|| "some time".to_owned(), |after| format!("{} seconds", after.as_secs()));
            let help = format!("run the same command again after {wait}; what is fetched is kept");
            return Err(Failure { error: error.help(help), again, after });
        }
        let page = format!("{}/{}", self.hub.endpoint, of.in_address());
        let (message, help) = match (status.as_u16(), header("x-error-code")) {
            (401 | 403, _) if self.hub.token.is_none() => (
                format!("the hub doesn't let everybody read {of}: it is private, or gated, or doesn't exist"),
                format!(
                    "accept its terms at {page}, and set HF_TOKEN to a token that may read it (`hf auth login` keeps one in a file)"
                ),
            ),
            (401 | 403, _) => (
                format!("the hub doesn't let the token in HF_TOKEN, or in its file, read {of}"),
                format!("accept its terms at {page}, and let the token read it: fine-grained tokens name what they may"),
            ),
            (404, Some("RevisionNotFound")) => {
                (format!("{} has no commit {}", of.id, of.commit), format!("see its commits at {page}/commits/main"))
            }
            (404, Some("EntryNotFound")) => (format!("{of} isn't there"), format!("see its files at {page}/tree/{}", of.commit)),
            (404, _) => (format!("the hub has no {of}"), format!("see {page}; what is private needs HF_TOKEN")),
            _ => (format!("{address} is answered with {status}"), format!("see {page}")),
        };
        Err(Failure { error: Error::input(message).help(help), again: false, after: None })
    }
}

/// Certificates that the user trusts instead of the usual ones: `SSL_CERT_FILE`, as OpenSSL and Python take it.
fn own_roots() -> Result<Option<RootCerts>> {
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) else { return Ok(None) };
    let pem = std::fs::read(&path).map_err(|e| Error::io("read SSL_CERT_FILE", path.as_ref(), &e))?;
    let certificate = |item| if let Ok(PemItem::Certificate(certificate)) = item { Some(certificate) } else { None };
    let roots: Vec<Certificate<'static>> = parse_pem(&pem).filter_map(certificate).collect();
    Ok(Some(RootCerts::Specific(Arc::new(roots))))
}

/// Scheme, host and port of an address, in lower case.
fn origin(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    format!("{scheme}://{}", rest.split(['/', '?', '#']).next().unwrap_or_default()).to_lowercase()
}

/// Where `to` leads from `address`; none if it is no web address, or leaves an encrypted connection.
fn redirected(address: &str, to: &str) -> Option<String> {
    let whole = match to {
        to if to.starts_with("//") => format!("{}:{to}", address.split("://").next()?),
        to if to.starts_with('/') => format!("{}{to}", origin(address)),
        to => to.to_owned(),
    };
    let encrypted = whole.starts_with("https://");
    (encrypted || whole.starts_with("http://") && !address.starts_with("https://")).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_without_paths_and_case() {
        assert_eq!(origin("https://HuggingFace.co/a/b?c"), origin("https://huggingface.co"));
        assert_ne!(origin("https://huggingface.co"), origin("http://huggingface.co"));
        assert_ne!(origin("http://a:80/x"), origin("http://a:81/x"));
        assert_ne!(origin("https://huggingface.co.evil.example/x"), origin("https://huggingface.co"));
    }

    #[test]
    fn redirects_lead_on_and_never_out_of_encryption() {
        let from = "https://a.b/c/d";
        assert_eq!(redirected(from, "/e").unwrap(), "https://a.b/e");
        assert_eq!(redirected(from, "//x.y/e").unwrap(), "https://x.y/e");
        assert_eq!(redirected(from, "https://x.y/e?f").unwrap(), "https://x.y/e?f");
        assert_eq!(redirected(from, "http://x.y/e"), None);
        assert_eq!(redirected(from, "file:///etc/passwd"), None);
        assert_eq!(redirected("http://a.b/c", "http://x.y/e").unwrap(), "http://x.y/e");
    }
}
