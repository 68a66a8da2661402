//! Requests to a hub: its API, its answers, its errors.
//!
//! Redirects are followed here and not by the HTTP library, because the token may go to the hub only, and because the
//! hub describes a file in the very answer that sends the reader elsewhere for its content.

use std::io::Read;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use crate::choose::Entry;
use crate::error::printable;
use crate::name::check_file;
use crate::settings::Token;
use crate::{Error, Event, RepoId, Result, Settings};

/// Left as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const MOST_REDIRECTS: usize = 10;
/// Times that a request is repeated before it counts as failed.
pub(crate) const TRIES: u32 = 5;
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Longest list of files that is read.
const MOST_LISTING: u64 = 64 << 20;
/// Most files of a repository that are looked at.
const MOST_FILES: usize = 100_000;

/// A hub that can be asked.
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    pause: Duration,
}

/// What a repository holds at a commit.
pub(crate) struct Listing {
    pub(crate) commit: String,
    pub(crate) entries: Vec<Entry>,
    /// Names that would lead out of a folder.
    pub(crate) refused: Vec<String>,
}

/// What the hub says of a file.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
    pub(crate) commit: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// What a request is about, for errors.
#[derive(Clone, Copy)]
struct About<'a> {
    repo: &'a RepoId,
    revision: &'a str,
    file: &'a str,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Client> {
        let roots = match &settings.certificates {
            None => RootCerts::WebPki,
            Some(file) => {
                let pem = std::fs::read(file).map_err(|e| Error::io(file, "read the certificates", e))?;
                let certificate = |item| match item {
                    Ok(PemItem::Certificate(c)) => Some(c),
                    _ => None,
                };
                parse_pem(&pem).filter_map(certificate).collect::<Vec<_>>().into()
            }
        };
        // What is on this machine is not asked for through another.
        let host = origin(&settings.endpoint).map_or_else(String::new, |o| o.1);
        let local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        let config = Agent::config_builder()
            .proxy(if local { None } else { Proxy::try_from_env() })
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("imaginal/", env!("CARGO_PKG_VERSION")))
            // Sizes and ranges are those of the files themselves.
            .accept_encoding("identity")
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .build();
        Ok(Client {
            agent: config.new_agent(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            pause: settings.pause,
        })
    }

    fn file_url(&self, about: About) -> String {
        let file: Vec<String> = about.file.split('/').map(encode).collect();
        format!("{}/{}/resolve/{}/{}", self.endpoint, about.repo, encode(about.revision), file.join("/"))
    }

    /// The files of a repository and the commit of a revision.
    pub(crate) fn listing(&self, repo: &RepoId, revision: &str, on: &mut dyn FnMut(Event)) -> Result<Listing> {
        let about = About { repo, revision, file: "" };
        let url = format!("{}/api/models/{repo}/revision/{}?blobs=true", self.endpoint, encode(revision));
        let body = self.retrying(on, || {
            let (url, response) = self.send("GET", &url, None, about)?;
            let mut body = Vec::new();
            let read = response.into_body().into_reader().take(MOST_LISTING + 1).read_to_end(&mut body);
            read.map_err(|e| Trouble::Again(network(&url, e)))?;
            Ok(body)
        })?;
        if body.len() as u64 > MOST_LISTING {
            return Err(Error::protocol(&url, format_args!("the list of files is longer than {MOST_LISTING} bytes")));
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|e| Error::protocol(&url, format_args!("no list of files ({e})")))?;
        let commit = answer.sha.filter(|sha| good_name(sha)).ok_or_else(|| Error::protocol(&url, "no commit (sha)"))?;
        let (mut entries, mut refused) = (Vec::new(), Vec::new());
        for s in answer.siblings.into_iter().take(MOST_FILES) {
            if check_file(&s.rfilename).is_err() {
                refused.push(printable(&s.rfilename));
                continue;
            }
            let (sha256, size) = s.lfs.map_or((None, None), |l| (l.sha256, l.size));
            entries.push(Entry { path: s.rfilename, size: size.or(s.size), sha256, git: s.blob_id });
        }
        Ok(Listing { commit, entries, refused })
    }

    /// Name of the blob and length of a file.
    pub(crate) fn head(&self, repo: &RepoId, commit: &str, file: &str, on: &mut dyn FnMut(Event)) -> Result<Head> {
        let about = About { repo, revision: commit, file };
        let mut url = self.file_url(about);
        let mut head = Head { etag: String::new(), size: None, commit: None };
        for _ in 0..MOST_REDIRECTS {
            let (_, response) = self.retrying(on, || self.once("HEAD", &url, None, about))?;
            let headers = response.headers();
            let linked = text(headers, "x-linked-etag").map(str::to_owned);
            let found = linked.clone().or_else(|| text(headers, "etag").map(str::to_owned));
            head.etag = found.map_or(head.etag, |e| e.trim_start_matches("W/").trim_matches('"').to_owned());
            head.commit = text(headers, "x-repo-commit").map(str::to_owned).or(head.commit);
            head.size = number(headers, "x-linked-size").or(head.size);
            let Some(next) = location(&url, &response)? else {
                head.size = head.size.or_else(|| number(headers, "content-length"));
                break;
            };
            // What lies elsewhere is described here; another path of the hub describes itself.
            if linked.is_some() || !same_origin(&next, &url) {
                break;
            }
            url = next;
        }
        match good_name(&head.etag) {
            true => Ok(head),
            false => Err(Error::protocol(&url, "the answer has no ETag that could name a file")),
        }
    }

    /// The content of a file from a byte on.
    pub(crate) fn get(&self, repo: &RepoId, commit: &str, file: &str, from: u64) -> Attempt<(String, Response<Body>)> {
        let about = About { repo, revision: commit, file };
        self.send("GET", &self.file_url(about), Some(from), about)
    }

    /// Sends a request and follows redirects.
    fn send(&self, method: &str, url: &str, from: Option<u64>, about: About) -> Attempt<(String, Response<Body>)> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let (at, response) = self.once(method, &url, from, about)?;
            match location(&at, &response)? {
                Some(next) => url = next,
                None => return Ok((at, response)),
            }
        }
        Err(Error::protocol(&url, "too many redirects").into())
    }

    /// One request, and its errors.
    fn once(&self, method: &str, url: &str, from: Option<u64>, about: About) -> Attempt<(String, Response<Body>)> {
        let own = same_origin(url, &self.endpoint);
        let mut request = match method {
            "HEAD" => self.agent.head(url),
            _ => self.agent.get(url),
        };
        if let Some(token) = self.token.as_ref().filter(|_| own) {
            request = request.header("authorization", format!("Bearer {}", token.secret));
        }
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        let shown = url.split('?').next().unwrap_or(url);
        let response = request.call().map_err(|e| match e {
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => Trouble::Final(Error::protocol(shown, e)),
            // Certificates do not get better by asking again.
            e if untrusted(&e) => {
                let advice = "SSL_CERT_FILE names the certificates to trust where a hub or proxy has its own";
                Trouble::Final(network(shown, format_args!("{e} ({advice})")))
            }
            e => Trouble::Again(network(shown, e)),
        })?;
        let status = response.status().as_u16();
        if status < 400 {
            return Ok((url.to_owned(), response));
        }
        let headers = response.headers();
        let code = text(headers, "x-error-code").unwrap_or("");
        let message = text(headers, "x-error-message").map(|m| format!(": {}", printable(m))).unwrap_or_default();
        let repo = about.repo.to_string();
        let endpoint = self.endpoint.clone();
        let token = self.token.is_some();
        let other = || Error::Status { url: shown.to_owned(), status, message: message.clone() };
        Err(match (status, code) {
            (429, _) => {
                let seconds = number(headers, "retry-after").unwrap_or(0);
                let wait = Duration::from_secs(seconds);
                Trouble::Wait(wait, Error::TooManyRequests { url: shown.to_owned(), seconds })
            }
            (408 | 500 | 502 | 503 | 504, _) => Trouble::Again(other()),
            _ if !own => Trouble::Final(other()),
            (_, "RevisionNotFound") => Error::RevisionNotFound { repo, revision: about.revision.to_owned() }.into(),
            (_, "EntryNotFound") => Error::EntryNotFound { repo, file: about.file.to_owned() }.into(),
            (_, "GatedRepo") => Error::Gated { endpoint, repo, token }.into(),
            (401, _) if message.contains("Invalid credentials") => {
                let source_of_token = self.token.as_ref().map_or("nobody".into(), |t| t.source.clone());
                Error::Token { endpoint, source_of_token }.into()
            }
            // The hub answers 401 of what is private, gated or not there to those whom it does not know.
            (_, "RepoNotFound") | (401 | 404, _) => Error::RepositoryNotFound { endpoint, repo, token }.into(),
            _ => Trouble::Final(other()),
        })
    }

    /// Repeats what may succeed later.
    pub(crate) fn retrying<T>(&self, on: &mut dyn FnMut(Event), mut act: impl FnMut() -> Attempt<T>) -> Result<T> {
        let mut tries = 0;
        loop {
            match act() {
                Ok(value) => return Ok(value),
                Err(trouble) => self.wait(trouble, &mut tries, on)?,
            }
        }
    }

    /// Waits before what is tried again, or gives up.
    pub(crate) fn wait(&self, trouble: Trouble, tries: &mut u32, on: &mut dyn FnMut(Event)) -> Result<()> {
        *tries += 1;
        let (pause, error) = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Wait(asked, error) if asked > LONGEST_PAUSE => return Err(error),
            Trouble::Wait(asked, error) => (asked.max(self.pause), error),
            Trouble::Again(error) => (self.pause * 2u32.pow((*tries).min(6) - 1), error),
        };
        if *tries >= TRIES {
            return Err(error);
        }
        // The advice is for when it was the last try.
        let why = match &error {
            Error::Network { url, problem } => format!("{url}: {problem}"),
            error => error.to_string(),
        };
        on(Event::Waiting { why, pause });
        std::thread::sleep(pause);
        Ok(())
    }
}

/// Why a request failed, and whether to repeat it.
pub(crate) enum Trouble {
    /// It would fail again.
    Final(Error),
    /// The network or the server may be better soon.
    Again(Error),
    /// The server says when.
    Wait(Duration, Error),
}

pub(crate) type Attempt<T> = std::result::Result<T, Trouble>;

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Final(error)
    }
}

pub(crate) fn network(url: &str, problem: impl ToString) -> Error {
    Error::Network { url: url.to_owned(), problem: printable(&problem.to_string()) }
}

/// Whether TLS itself failed; rustls hands its errors out as invalid data.
fn untrusted(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
        ureq::Error::Io(e) => e.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

/// A commit or an ETag that can be the name of a file.
fn good_name(name: &str) -> bool {
    (1..=200).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(crate) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_lowercase(), port))
}

fn same_origin(a: &str, b: &str) -> bool {
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// Where an answer sends the reader, as a whole address.
fn location(url: &str, response: &Response<Body>) -> Result<Option<String>> {
    if !response.status().is_redirection() {
        return Ok(None);
    }
    let to =
        text(response.headers(), "location").ok_or_else(|| Error::protocol(url, "a redirect without an address"))?;
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let host = rest.split(['/', '?']).next().unwrap_or(rest);
    let next = if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{host}{to}")
    } else {
        to.to_owned()
    };
    match origin(&next) {
        Some((next, ..)) if next == "https" || (next == "http" && scheme == "http") => {}
        _ => {
            return Err(Error::protocol(url, format_args!("a redirect to {:?}, which is not followed", printable(to))));
        }
    }
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_knows_its_host() {
        assert!(same_origin("https://hub.example/a", "https://HUB.example:443/b?c"));
        for other in [
            "http://hub.example/",
            "https://hub.example:444/",
            "https://hub.example.evil/",
            "https://x@evil/",
            "https://evil/hub.example",
        ] {
            assert!(!same_origin("https://hub.example", other), "{other}");
        }
    }

    #[test]
    fn names_are_encoded_into_one_segment() {
        assert_eq!(encode("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encode("a b#c?.gguf"), "a%20b%23c%3F.gguf");
    }
}
