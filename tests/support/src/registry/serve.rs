//! Requests to answers.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use oci::Digest;
use serde_json::{Value, json};

use super::body::OddBody;
use super::{Oddity, RecordedRequest, Shared, State};

/// A request, taken apart.
pub(super) struct Asked {
    pub(super) address: SocketAddr,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// An answer, not yet odd.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// Accepts connections until it is dropped.
pub(super) async fn run(listener: std::net::TcpListener, state: Shared, address: SocketAddr) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        let service = service_fn(move |request| {
            let state = state.clone();
            async move { handle(&state, address, request).await }
        });
        tokio::spawn(async move {
            // Broken connections are part of the tests.
            let _broken =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn handle(
    state: &Shared,
    address: SocketAddr,
    request: Request<Incoming>,
) -> io::Result<Response<OddBody>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text =
        |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<(String, String)> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let mut asked = Asked {
        address,
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers,
        body,
    };
    let oddity = record(state, &asked, parts.uri.to_string());
    if let Some(Oddity::Slow(pause)) = oddity {
        tokio::time::sleep(pause).await;
    }
    if let Some(Oddity::IgnoreRange) = oddity {
        asked.headers.retain(|(name, _)| name != "range");
    }
    if let Some(Oddity::Status(status, headers, body)) = &oddity {
        let mut answer = Answer { status: *status, headers: vec![], body: body.clone().into() };
        answer.headers.extend(headers.iter().map(|(name, value)| ((*name).into(), value.clone())));
        return Ok(answer.into_response(&asked.method, None));
    }
    if let Some(Oddity::HangUp) = oddity {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let answer = state.lock().answer(&asked);
    Ok(answer.into_response(&asked.method, oddity))
}

fn record(state: &Shared, asked: &Asked, path: String) -> Option<Oddity> {
    let (method, headers, body) = (asked.method.clone(), asked.headers.clone(), asked.body.clone());
    let request = RecordedRequest { method, path, headers, body };
    let mut state = state.lock();
    let oddity = state.oddity(&request.line());
    state.requests.push(request);
    oddity
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.path == "/token" {
            return self.give_token(asked);
        }
        let Some(path) = asked.path.strip_prefix("/v2/") else {
            return error(404, "NOT_FOUND", "no such page");
        };
        if path.is_empty() {
            return self.turn_away(asked, &[]).unwrap_or_else(|| Answer::new(200));
        }
        let kinds = ["/blobs/uploads/", "/blobs/", "/manifests/"];
        let place = kinds.iter().find_map(|kind| {
            path.split_once(kind).map(|(repository, name)| (repository, *kind, name))
        });
        let Some((repository, kind, name)) = place else {
            return error(404, "NOT_FOUND", "no such page");
        };
        if let Some(refusal) = self.turn_away(asked, &needs(asked, repository)) {
            return refusal;
        }
        match (kind, asked.method.as_str()) {
            ("/blobs/", "GET" | "HEAD") => self.get_blob(asked, repository, name),
            ("/manifests/", "GET" | "HEAD") => self.get_manifest(repository, name),
            ("/manifests/", "PUT") => self.put_manifest(asked, repository, name),
            ("/blobs/uploads/", "POST") => self.start_upload(asked, repository),
            ("/blobs/uploads/", "PATCH") => self.patch(asked, repository, name),
            ("/blobs/uploads/", "PUT") => self.finish_upload(asked, repository, name),
            _ => error(405, "UNSUPPORTED", "no such method"),
        }
    }

    fn get_blob(&self, asked: &Asked, repository: &str, name: &str) -> Answer {
        let digest = name.parse::<Digest>().ok();
        let blobs = self.repositories.get(repository).map(|repository| &repository.blobs);
        let blob = digest.and_then(|digest| blobs?.get(&digest));
        let Some(blob) = blob else { return error(404, "BLOB_UNKNOWN", "blob unknown") };
        let start = asked.header("range").and_then(|range| {
            range.strip_prefix("bytes=")?.split_once('-')?.0.parse::<usize>().ok()
        });
        let answer = match start {
            Some(start) if start < blob.len() => {
                let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
                Answer::new(206).body(blob.slice(start..)).with("content-range", &range)
            }
            Some(_) => return error(416, "RANGE_INVALID", "there are not so many bytes"),
            None => Answer::new(200).body(blob.clone()),
        };
        answer.with("docker-content-digest", name).with("content-type", "application/octet-stream")
    }

    fn get_manifest(&self, repository: &str, name: &str) -> Answer {
        let repository = self.repositories.get(repository);
        let Some((media_type, bytes)) = repository.and_then(|found| found.manifest(name)) else {
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let digest = Digest::of(bytes).to_string();
        let answer = Answer::new(200).body(bytes.clone()).with("content-type", media_type);
        answer.with("docker-content-digest", &digest)
    }

    fn put_manifest(&mut self, asked: &Asked, repository: &str, name: &str) -> Answer {
        let Ok(manifest) = serde_json::from_slice::<Value>(&asked.body) else {
            return error(400, "MANIFEST_INVALID", "manifest is no JSON");
        };
        let media_type = asked.header("content-type").unwrap_or_default().to_owned();
        let repository = self.repository(repository);
        let blobs = named(&manifest, "layers").chain(digest_of(&manifest["config"]));
        let missing_blob = blobs.into_iter().find(|digest| !repository.blobs.contains_key(digest));
        let mut manifests = named(&manifest, "manifests");
        let missing_manifest = manifests.find(|digest| !repository.manifests.contains_key(digest));
        if let Some(missing) = missing_blob.or(missing_manifest) {
            return error(400, "MANIFEST_BLOB_UNKNOWN", &format!("{missing} is not here"));
        }
        let digest = repository.put_manifest(name, media_type, asked.body.clone()).to_string();
        Answer::new(201).with("docker-content-digest", &digest)
    }

    fn start_upload(&mut self, asked: &Asked, repository: &str) -> Answer {
        let from = asked.parameter("from").and_then(|from| self.repositories.get(&from));
        let digest = asked.parameter("mount").and_then(|mount| mount.parse::<Digest>().ok());
        let mounted = digest.and_then(|digest| Some((digest, from?.blobs.get(&digest)?.clone())));
        if let Some((digest, blob)) = mounted {
            self.repository(repository).blobs.insert(digest, blob);
            return Answer::new(201);
        }
        let name = self.new_name("upload");
        self.uploads.insert(name.clone(), vec![]);
        // The state must come back with the next request.
        Answer::new(202)
            .with("location", &format!("/v2/{repository}/blobs/uploads/{name}?_state=secret"))
    }

    fn patch(&mut self, asked: &Asked, repository: &str, name: &str) -> Answer {
        let Some(upload) = self.upload(asked, name) else {
            return error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
        };
        let start = asked.header("content-range").and_then(|range| range.split_once('-'));
        if start.is_none_or(|(start, _)| start != upload.len().to_string()) {
            return error(416, "RANGE_INVALID", "pieces must come in order");
        }
        upload.extend_from_slice(&asked.body);
        let location = format!("/v2/{repository}/blobs/uploads/{name}?_state=secret");
        Answer::new(202).with("location", &location)
    }

    fn finish_upload(&mut self, asked: &Asked, repository: &str, name: &str) -> Answer {
        let Some(upload) = self.upload(asked, name) else {
            return error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
        };
        upload.extend_from_slice(&asked.body);
        let bytes = Bytes::from(std::mem::take(upload));
        self.uploads.remove(name);
        let digest = Digest::of(&bytes);
        if asked.parameter("digest") != Some(digest.to_string()) {
            return error(400, "DIGEST_INVALID", "the bytes have another digest");
        }
        self.repository(repository).blobs.insert(digest, bytes);
        Answer::new(201).with("docker-content-digest", &digest.to_string())
    }

    fn upload(&mut self, asked: &Asked, name: &str) -> Option<&mut Vec<u8>> {
        if self.adopts_uploads {
            return Some(self.uploads.entry(name.to_owned()).or_default());
        }
        asked.parameter("_state").filter(|state| state == "secret")?;
        self.uploads.get_mut(name)
    }
}

/// The scopes that a request needs.
fn needs(asked: &Asked, repository: &str) -> Vec<String> {
    let reads = matches!(asked.method.as_str(), "GET" | "HEAD");
    let actions = if reads { "pull" } else { "pull,push" };
    let mut needs = vec![format!("repository:{repository}:{actions}")];
    needs.extend(asked.parameter("from").map(|from| format!("repository:{from}:pull")));
    needs
}

fn named<'m>(manifest: &'m Value, list: &str) -> impl Iterator<Item = Digest> + use<'m> {
    manifest[list].as_array().into_iter().flatten().filter_map(digest_of)
}

fn digest_of(descriptor: &Value) -> Option<Digest> {
    descriptor["digest"].as_str()?.parse().ok()
}

/// An answer in the specification's form for errors.
pub(super) fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::new(status).json(&json!({"errors": [{"code": code, "message": message}]}))
}

/// Takes the percent signs out of a query's value.
pub(super) fn unescaped(value: &str) -> String {
    let mut bytes = vec![];
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escape = || std::str::from_utf8(tail.get(..2)?).ok();
        match (first, escape().and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| unescaped(value))
    }
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: vec![], body: Bytes::new() }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.body(body.to_string().into()).with("content-type", "application/json")
    }

    fn body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    fn into_response(mut self, method: &str, oddity: Option<Oddity>) -> Response<OddBody> {
        let body = match oddity {
            Some(Oddity::CutAfter(bytes)) => OddBody::cut(&self.body, bytes),
            Some(Oddity::Bytes(bytes)) => OddBody::whole(bytes),
            Some(Oddity::Extra(extra)) => OddBody::chunked([self.body.clone(), extra]),
            Some(Oddity::Header(name, value)) => {
                self.headers.retain(|(key, _)| key != name);
                self.headers.extend(value.map(|value| (name.to_owned(), value)));
                OddBody::whole(self.body.clone())
            }
            Some(Oddity::Endless(status, piece, pause)) => {
                self.status = status;
                OddBody::endless(piece, pause)
            }
            Some(Oddity::Status(..) | Oddity::HangUp | Oddity::IgnoreRange | Oddity::Slow(_))
            | None => OddBody::whole(self.body.clone()),
        };
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        if method == "HEAD" {
            response = response.header("content-length", self.body.len());
            return response.body(OddBody::default()).expect("valid headers");
        }
        response.body(body).expect("valid headers")
    }
}
