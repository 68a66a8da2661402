//! A hub for tests: the protocol of huggingface.co over two local ports, one of which stands for the host that large
//! files are redirected to, with faults on demand.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What goes wrong with the next answer whose path contains a text.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Another status, with headers.
    Status(u16, Vec<(&'static str, String)>),
    /// One byte of the content is another one.
    Corrupt,
    /// So many bytes more are announced and sent.
    Longer(usize),
    /// More bytes than announced, without a length.
    Endless,
    /// Ranges are ignored, and the answer ends after so many bytes.
    NoRange(usize),
    /// Another body.
    Body(&'static str),
    /// A header of the answer is replaced.
    Header(&'static str, String),
}

#[derive(Clone, Debug)]
pub struct Request {
    pub cdn: bool,
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Clone)]
struct Stored {
    path: String,
    bytes: Arc<Vec<u8>>,
    large: bool,
}

#[derive(Default)]
struct State {
    repos: HashMap<String, (String, Vec<Stored>)>,
    renamed: HashMap<String, String>,
    log: Vec<Request>,
    faults: Vec<(String, usize, Fault)>,
    token: Option<String>,
    gated: bool,
    listed: Vec<String>,
}

#[derive(Clone)]
pub struct Hub {
    pub endpoint: String,
    cdn: String,
    state: Arc<Mutex<State>>,
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

pub fn git(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

impl Hub {
    pub fn start() -> Hub {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, cdn) = (bind(), bind());
        let address = |l: &TcpListener| format!("http://{}", l.local_addr().unwrap());
        let hub_state = Hub { endpoint: address(&hub), cdn: address(&cdn), state: Arc::default() };
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let state = hub_state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || state.serve(stream, is_cdn));
                }
            });
        }
        hub_state
    }

    /// A repository with files; those named `.gguf` and `.safetensors` are large ones.
    pub fn repo(&self, name: &str, files: &[(&str, &[u8])]) -> String {
        let stored = |(path, bytes): &(&str, &[u8])| Stored {
            path: path.to_string(),
            bytes: Arc::new(bytes.to_vec()),
            large: path.ends_with(".gguf") || path.ends_with(".safetensors"),
        };
        let files: Vec<Stored> = files.iter().map(stored).collect();
        let all: Vec<u8> = files.iter().flat_map(|f| f.path.bytes().chain(f.bytes.iter().copied())).collect();
        let commit = sha256(&all)[..40].to_owned();
        self.state.lock().unwrap().repos.insert(name.to_owned(), (commit.clone(), files));
        commit
    }

    pub fn rename(&self, old: &str, new: &str) {
        self.state.lock().unwrap().renamed.insert(old.to_owned(), new.to_owned());
    }

    /// Names that the list of files has on top of what there is.
    pub fn list(&self, names: &[&str]) {
        self.state.lock().unwrap().listed = names.iter().map(|n| n.to_string()).collect();
    }

    /// The next `times` answers to paths with `path` in them have a fault.
    pub fn fault(&self, path: &str, times: usize, fault: Fault) {
        self.state.lock().unwrap().faults.push((path.to_owned(), times, fault));
    }

    /// Only requests with this token are answered.
    pub fn private(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    pub fn gated(&self) {
        self.state.lock().unwrap().gated = true;
    }

    /// The requests since the last call.
    pub fn log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    fn serve(&self, stream: TcpStream, cdn: bool) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = read_request(&mut reader, cdn) {
            let fault = {
                let mut state = self.state.lock().unwrap();
                state.log.push(request.clone());
                let hit = state.faults.iter_mut().find(|f| f.1 > 0 && matches(&f.0, &request));
                hit.map(|f| {
                    f.1 -= 1;
                    f.2.clone()
                })
            };
            let mut answer = match (&fault, cdn) {
                (Some(Fault::Status(status, headers)), _) => {
                    let mut a = Answer::new(*status, b"{}".to_vec());
                    a.headers.extend(headers.iter().map(|(k, v)| (k.to_string(), v.clone())));
                    a
                }
                (_, true) => self.content(&request),
                (_, false) => self.api(&request),
            };
            let mut end = usize::MAX;
            let mut length = true;
            match fault {
                Some(Fault::Cut(n)) => end = n,
                Some(Fault::Body(body)) => answer.body = body.as_bytes().to_vec(),
                Some(Fault::Corrupt) => answer.body[0] ^= 1,
                Some(Fault::Longer(n)) => answer.body.extend(vec![b'x'; n]),
                Some(Fault::Endless) => {
                    answer.body.extend(vec![b'x'; 1000]);
                    length = false;
                }
                Some(Fault::Header(name, value)) => {
                    answer.headers.retain(|(k, _)| !k.eq_ignore_ascii_case(name));
                    answer.headers.push((name.to_owned(), value));
                }
                _ => {}
            }
            if let Some(Fault::NoRange(n)) = self.no_range(&request) {
                answer = self.content(&Request { range: None, ..request.clone() });
                end = n;
            } else if let (206, Some(range)) = (answer.status, &request.range)
                && length
            {
                let total = answer.total.unwrap_or(0) + answer.body.len() - answer.kept;
                let from = range.trim_start_matches("bytes=").trim_end_matches('-');
                answer.headers.push(("Content-Range".into(), format!("bytes {from}-{}/{total}", total - 1)));
            }
            if !length {
                answer.status = 200;
            }
            if !answer.write(&stream, &request.method, length, end) {
                return;
            }
        }
    }

    fn no_range(&self, request: &Request) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        if !request.cdn {
            return None;
        }
        let hit = state.faults.iter_mut().find(|f| f.1 > 0 && matches!(f.2, Fault::NoRange(_)))?;
        hit.1 -= 1;
        Some(hit.2.clone())
    }

    fn api(&self, request: &Request) -> Answer {
        let state = self.state.lock().unwrap();
        let path = request.path.split('?').next().unwrap();
        let error = |status, code: &str, message: &str| {
            let mut a = Answer::new(status, b"{\"error\":\"no\"}".to_vec());
            a.header("X-Error-Code", code);
            a.header("X-Error-Message", message);
            a
        };
        for (old, new) in &state.renamed {
            if path.contains(&format!("/{old}/")) {
                let mut a = Answer::new(307, Vec::new());
                a.header("Location", &request.path.replace(old, new));
                return a;
            }
        }
        let authorized = state.token.as_ref().is_none_or(|t| request.authorization == Some(format!("Bearer {t}")));
        if !authorized {
            return match &request.authorization {
                None => error(401, "RepoNotFound", "Repository not found"),
                Some(_) => error(401, "", "Invalid credentials in Authorization header"),
            };
        }
        let (repo, rest) = match path.strip_prefix("/api/models/").map(|p| p.split_once("/revision/")) {
            Some(Some(found)) => found,
            _ => match path.strip_prefix("/").and_then(|p| p.split_once("/resolve/")) {
                Some(found) => found,
                None => match path.strip_prefix("/kept/") {
                    // Where small files are redirected to, on the hub itself.
                    Some(rest) => return self.small(&state, rest, request),
                    None => return error(404, "", ""),
                },
            },
        };
        let Some((commit, files)) = state.repos.get(repo) else {
            return error(404, "RepoNotFound", "Repository not found");
        };
        let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
        if revision != "main" && revision != commit && revision != "refs%2Fpr%2F1" {
            return error(404, "RevisionNotFound", "Invalid rev id");
        }
        if path.starts_with("/api/") {
            let mut siblings: Vec<serde_json::Value> = files
                .iter()
                .map(|f| match f.large {
                    true => serde_json::json!({ "rfilename": f.path, "size": f.bytes.len(), "blobId": "0".repeat(40),
                        "lfs": { "sha256": sha256(&f.bytes), "size": f.bytes.len(), "pointerSize": 100 } }),
                    false => serde_json::json!({ "rfilename": f.path, "size": f.bytes.len(), "blobId": git(&f.bytes) }),
                })
                .collect();
            siblings.extend(state.listed.iter().map(|n| serde_json::json!({ "rfilename": n, "size": 3 })));
            let body = serde_json::json!({ "id": repo, "sha": commit, "private": false, "siblings": siblings });
            return Answer::new(200, body.to_string().into_bytes());
        }
        if state.gated {
            return error(403, "GatedRepo", "Access to this model is restricted");
        }
        let file = file.replace("%20", " ");
        let Some(stored) = files.iter().find(|f| f.path == file) else {
            return error(404, "EntryNotFound", "Entry not found");
        };
        let mut a = Answer::new(302, Vec::new());
        a.header("X-Repo-Commit", commit);
        match stored.large {
            true => {
                let hash = sha256(&stored.bytes);
                a.header("X-Linked-Etag", &format!("\"{hash}\""));
                a.header("X-Linked-Size", &stored.bytes.len().to_string());
                a.header("Location", &format!("{}/{hash}/{}?Signature=s", self.cdn, stored.path.replace(' ', "%20")));
            }
            false => {
                a.status = 307;
                a.header("Location", &format!("/kept/{}/{repo}", git(&stored.bytes)));
            }
        }
        a
    }

    fn small(&self, state: &State, rest: &str, request: &Request) -> Answer {
        let (hash, repo) = rest.split_once('/').unwrap_or((rest, ""));
        let repo = state.repos.get(repo);
        let found = repo.and_then(|(commit, files)| Some((commit, files.iter().find(|f| git(&f.bytes) == hash)?)));
        let Some((commit, file)) = found else { return Answer::new(404, Vec::new()) };
        let mut a = ranged(&file.bytes, request);
        a.header("ETag", &format!("\"{hash}\""));
        a.header("X-Repo-Commit", commit);
        a
    }

    fn content(&self, request: &Request) -> Answer {
        let state = self.state.lock().unwrap();
        let hash = request.path.split('/').nth(1).unwrap_or("");
        let found = state.repos.values().flat_map(|r| &r.1).find(|f| sha256(&f.bytes) == hash);
        match found {
            Some(f) => ranged(&f.bytes, request),
            None => Answer::new(404, Vec::new()),
        }
    }
}

fn matches(path: &str, request: &Request) -> bool {
    // "GET x" is a method and a path.
    match path.split_once(' ') {
        Some((method, path)) => request.method == method && request.path.contains(path),
        None => request.path.contains(path),
    }
}

fn ranged(bytes: &[u8], request: &Request) -> Answer {
    let from =
        request.range.as_ref().and_then(|r| r.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().ok());
    let mut a = Answer::new(200, bytes[from.unwrap_or(0).min(bytes.len())..].to_vec());
    if from.is_some() {
        a.status = 206;
        a.total = Some(bytes.len());
        a.kept = a.body.len();
    }
    a
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    total: Option<usize>,
    kept: usize,
}

impl Answer {
    fn new(status: u16, body: Vec<u8>) -> Answer {
        Answer { status, headers: Vec::new(), body, total: None, kept: usize::MAX }
    }

    fn header(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Writes the answer, of the body at most `end` bytes; whether the connection goes on.
    fn write(&self, mut stream: &TcpStream, method: &str, length: bool, end: usize) -> bool {
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match length {
            true => head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len())),
            false => head.push_str("Connection: close\r\n\r\n"),
        }
        let body = match method {
            "HEAD" => &[][..],
            _ => &self.body[..end.min(self.body.len())],
        };
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let whole = sent.is_ok() && length && (method == "HEAD" || body.len() == self.body.len());
        if !whole {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        whole
    }
}

fn read_request(reader: &mut BufReader<TcpStream>, cdn: bool) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { cdn, method, path, range: None, authorization: None };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim();
        if line.is_empty() {
            return Some(request);
        }
        let (name, value) = line.split_once(':')?;
        match name.to_lowercase().as_str() {
            "range" => request.range = Some(value.trim().to_owned()),
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
}
