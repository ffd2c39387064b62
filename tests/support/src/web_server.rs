//! A web server for the files and git repositories of a directory, which may want a password.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The server; its thread ends with the test.
pub struct WebServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct WebRequest {
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers by their names in lower case.
    pub headers: HashMap<String, String>,
    /// The command lines of all processes at that moment, words apart by blanks.
    pub processes: Vec<String>,
    body: Vec<u8>,
}

struct Shared {
    directory: PathBuf,
    login: Option<String>,
    redirects: Mutex<Vec<(String, String)>>,
    requests: Mutex<Vec<WebRequest>>,
}

impl WebServer {
    /// Serves `directory` to everyone, or to those who show `login`, which is `user:password`.
    ///
    /// # Panics
    ///
    /// If it can't listen.
    pub fn start(directory: &Path, login: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let login = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
        let (redirects, requests) = Default::default();
        let directory = directory.to_owned();
        let shared = Arc::new(Shared { directory, login, redirects, requests });
        let for_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = for_thread.clone();
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { address, shared }
    }

    /// `127.0.0.1` and its port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Sends whoever asks for what begins with `prefix` to `location` with the rest behind it.
    pub fn redirect(&self, prefix: &str, location: &str) {
        self.shared.redirects.lock().unwrap().push((prefix.to_owned(), location.to_owned()));
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<WebRequest> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) {
        let Some(request) = WebRequest::read(stream) else { return };
        self.requests.lock().unwrap().push(request.clone());
        let answer = self.answer(&request);
        let _nobody_reads_it = stream.write_all(&answer);
    }

    fn answer(&self, request: &WebRequest) -> Vec<u8> {
        let redirects = self.redirects.lock().unwrap().clone();
        for (prefix, location) in redirects {
            if let Some(rest) = request.target.strip_prefix(&prefix) {
                return plain(&format!("302 Found\r\nLocation: {location}{rest}"), b"");
            }
        }
        if self.login.is_some() && request.headers.get("authorization") != self.login.as_ref() {
            return plain("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"", b"");
        }
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        if path.contains(".git/") {
            return self.git(request, path, query);
        }
        match std::fs::read(self.directory.join(path.trim_start_matches('/'))) {
            Ok(content) => plain("200 OK", &content),
            Err(_) => plain("404 Not Found", b""),
        }
    }

    /// What git itself answers.
    fn git(&self, request: &WebRequest, path: &str, query: &str) -> Vec<u8> {
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        let mut git = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.directory)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", &request.method)
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .env("GIT_PROTOCOL", header("git-protocol"))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("git runs");
        let _it_may_not_read = git.stdin.take().unwrap().write_all(&request.body);
        let output = git.wait_with_output().unwrap().stdout;
        let status = match output.strip_prefix(b"Status: ") {
            Some(_) => &b"HTTP/1.1 "[..],
            None => b"HTTP/1.1 200 OK\r\n",
        };
        let rest = output.strip_prefix(b"Status: ").unwrap_or(&output);
        [status, b"", rest].concat()
    }
}

impl WebRequest {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            Some(line.trim_end().to_owned())
        };
        let first = line()?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut headers = HashMap::new();
        while let Some((name, value)) = line()?.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let body = body(&mut reader, &headers)?;
        Some(Self { method, target, headers, processes: processes(), body })
    }
}

fn body(reader: &mut BufReader<&TcpStream>, headers: &HashMap<String, String>) -> Option<Vec<u8>> {
    let mut body = vec![];
    if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..]).ok()?;
            reader.read_line(&mut String::new()).ok()?;
            if size == 0 {
                break;
            }
        }
    }
    Some(body)
}

fn processes() -> Vec<String> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

fn plain(status: &str, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), content].concat()
}
