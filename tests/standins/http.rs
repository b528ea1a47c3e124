//! A small HTTP/1.1 server that can misbehave on purpose, at the level of the socket: the ground on which the stand-ins
//! stand. It knows nothing of what is spoken over it.
//!
//! Beside what its handler answers, it answers `POST /_faults?fault=…&method=…&path=…&times=…` and `GET /_log`.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Fields of a form, as a browser sends it.
    pub fn form(&self) -> Vec<(String, String)> {
        pairs(&self.text())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn empty(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn of(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: body.into(),
        }
    }

    pub fn json(status: u16, value: &serde_json::Value) -> Answer {
        Answer::of(status, "application/json", value.to_string())
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// What stands behind a server.
pub trait Handle: Send + Sync + 'static {
    fn answer(&self, request: &Request) -> Answer;
}

impl<F: Fn(&Request) -> Answer + Send + Sync + 'static> Handle for F {
    fn answer(&self, request: &Request) -> Answer {
        self(request)
    }
}

/// How a server misbehaves for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It answers this, and does nothing. With `Retry-After` in seconds, if said.
    Status(u16, Option<u32>),
    /// It closes the connection and does nothing.
    CutBefore,
    /// It does what is asked, and closes the connection without an answer.
    CutAfter,
    /// It does what is asked, and closes in the middle of the answer.
    HalfAnswer,
    /// It never answers, and does nothing.
    Hang,
    /// It does what is asked, and never answers.
    HangAfter,
    /// It does what is asked, and answers so much later.
    Late(Duration),
    /// It does what is asked, and gives its answer twice: the second time when the next request is on its way, or after a moment.
    Twice,
    /// It answers 200 with a page for people, as a gateway in maintenance does, and does nothing.
    HtmlPage,
    /// It sends the caller to another address of its own, and does nothing.
    Redirect,
    /// It answers with this many bytes.
    Flood(usize),
}

impl FromStr for Fault {
    type Err = String;

    /// `status-503`, `status-503-7` (with `Retry-After: 7`), `cut-before`, `cut-after`, `half-answer`, `hang`,
    /// `hang-after`, `late-2000` (milliseconds), `twice`, `html-page`, `redirect`, `flood-1000000`.
    fn from_str(text: &str) -> Result<Fault, String> {
        let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text}: {error}"));
        Ok(match text {
            "cut-before" => Fault::CutBefore,
            "cut-after" => Fault::CutAfter,
            "half-answer" => Fault::HalfAnswer,
            "hang" => Fault::Hang,
            "hang-after" => Fault::HangAfter,
            "twice" => Fault::Twice,
            "html-page" => Fault::HtmlPage,
            "redirect" => Fault::Redirect,
            _ => match text.split_once('-') {
                Some(("late", millis)) => Fault::Late(Duration::from_millis(u64::from(number(millis)?))),
                Some(("flood", bytes)) => Fault::Flood(number(bytes)? as usize),
                Some(("status", rest)) => match rest.split_once('-') {
                    None => Fault::Status(number(rest)? as u16, None),
                    Some((status, after)) => Fault::Status(number(status)? as u16, Some(number(after)?)),
                },
                _ => return Err(format!("no such fault: {text}")),
            },
        })
    }
}

/// When a second answer comes at the latest.
const SECOND: Duration = Duration::from_millis(50);

struct Planned {
    method: String,
    path: String,
    fault: Fault,
    times: u32,
}

/// A server that runs.
#[derive(Clone)]
pub struct Server {
    /// `http://127.0.0.1:1234`, or `https://localhost:1234`.
    pub url: String,
    faults: Arc<Mutex<VecDeque<Planned>>>,
    log: watch::Sender<Vec<Request>>,
}

impl Server {
    /// Starts a server on the loopback, on this port or one of the kernel's choice.
    pub async fn start(handler: Arc<dyn Handle>, port: u16) -> io::Result<Server> {
        Server::start_at(handler, (Ipv4Addr::LOCALHOST, port).into(), None).await
    }

    /// Starts a server at an address, over TLS if there is a configuration.
    pub async fn start_at(
        handler: Arc<dyn Handle>,
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let url = match tls {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        let server = Server { url, faults: Arc::default(), log: watch::Sender::new(Vec::new()) };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (this, handler, tls) = (this.clone(), handler.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => drop(this.connection(stream, &*handler).await),
                        Some(tls) => {
                            if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                                drop(this.connection(stream, &*handler).await);
                            }
                        }
                    }
                });
            }
        });
        Ok(server)
    }

    /// Misbehaves for the next requests of this method whose path begins so.
    pub fn misbehave(&self, method: &str, path: &str, fault: Fault, times: u32) {
        let planned = Planned { method: method.to_owned(), path: path.to_owned(), fault, times };
        self.faults.lock().unwrap().push_back(planned);
    }

    /// From here on it behaves: what was planned and has not happened does not.
    #[allow(dead_code)]
    pub fn behave(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// Every request of this method whose path begins so, in order.
    pub fn requests(&self, method: &str, path: &str) -> Vec<Request> {
        let of = |request: &&Request| request.method == method && request.path.starts_with(path);
        self.log.borrow().iter().filter(of).cloned().collect()
    }

    /// Waits until so many requests of this method and path have come; those that have.
    pub async fn until(&self, method: &str, path: &str, count: usize) -> Vec<Request> {
        let mut log = self.log.subscribe();
        let wait = log.wait_for(|_| self.requests(method, path).len() >= count);
        let came = tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok();
        let requests = self.requests(method, path);
        assert!(came, "{} of {count} requests {method} {path} came within a minute", requests.len());
        requests
    }

    fn fault(&self, request: &Request) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let planned = faults.iter_mut().find(|planned| {
            planned.times > 0 && planned.method == request.method && request.path.starts_with(&planned.path)
        })?;
        planned.times -= 1;
        Some(planned.fault.clone())
    }

    fn control(&self, request: &Request) -> Option<Answer> {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/_faults") => {
                let fault = request.query("fault").unwrap_or_default().parse::<Fault>();
                let times = request.query("times").and_then(|times| times.parse().ok()).unwrap_or(1);
                Some(match fault {
                    Ok(fault) => {
                        let method = request.query("method").unwrap_or("POST");
                        self.misbehave(method, request.query("path").unwrap_or("/"), fault, times);
                        Answer::empty(204)
                    }
                    Err(what) => Answer::of(400, "text/plain", what),
                })
            }
            ("GET", "/_log") => {
                let lines: Vec<String> = self
                    .log
                    .borrow()
                    .iter()
                    .map(|request| format!("{} {}\n", request.method, request.path))
                    .collect();
                Some(Answer::of(200, "text/plain", lines.concat()))
            }
            _ => None,
        }
    }

    async fn connection(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        handler: &dyn Handle,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(request) = read(&mut stream, &mut buffer).await? {
            if let Some(answer) = self.control(&request) {
                write(&mut stream, &answer, usize::MAX).await?;
                continue;
            }
            let fault = self.fault(&request);
            let note = || self.log.send_modify(|log| log.push(request.clone()));
            let answer = match fault {
                Some(Fault::Status(status, after)) => {
                    let answer = Answer::empty(status);
                    match after {
                        None => answer,
                        Some(seconds) => answer.with("Retry-After", &seconds.to_string()),
                    }
                }
                Some(Fault::HtmlPage) => Answer::of(
                    200,
                    "text/html; charset=utf-8",
                    "<!DOCTYPE html><html><head><title>Maintenance</title><body>We are back soon<br></html>",
                ),
                Some(Fault::Redirect) => {
                    Answer::empty(302).with("Location", &format!("{}/elsewhere", self.url))
                }
                Some(Fault::Flood(bytes)) => {
                    Answer::of(200, "application/json", [b"\"", vec![b'x'; bytes].as_slice(), b"\""].concat())
                }
                Some(Fault::CutBefore) => {
                    note();
                    return Ok(());
                }
                Some(Fault::Hang) => {
                    note();
                    return std::future::pending().await;
                }
                Some(Fault::CutAfter) => {
                    handler.answer(&request);
                    note();
                    return Ok(());
                }
                Some(Fault::HangAfter) => {
                    handler.answer(&request);
                    note();
                    return std::future::pending().await;
                }
                Some(Fault::Late(later)) => {
                    let answer = handler.answer(&request);
                    tokio::time::sleep(later).await;
                    answer
                }
                Some(Fault::Twice) => {
                    let answer = handler.answer(&request);
                    write(&mut stream, &answer, usize::MAX).await?;
                    // Worst when the connection is used again: then it stands where the answer to the next request should.
                    if buffer.is_empty() {
                        let _ = tokio::time::timeout(SECOND, stream.read_buf(&mut buffer)).await;
                    }
                    answer
                }
                Some(Fault::HalfAnswer) => {
                    let answer = handler.answer(&request);
                    note();
                    let half = answer.body.len() / 2;
                    return write(&mut stream, &answer, half).await;
                }
                None => handler.answer(&request),
            };
            note();
            write(&mut stream, &answer, usize::MAX).await?;
        }
        Ok(())
    }
}

/// One request, or none if the caller has closed.
async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 4);
            break head;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (first.next(), first.next()) else {
        return Err(bad("no request line"));
    };
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: pairs(query),
        headers,
        body: Vec::new(),
    };
    if request.header("transfer-encoding").is_some() {
        return Err(bad("chunked requests are not read by the stand-ins"));
    }
    let length =
        request.header("content-length").map_or(Ok(0), str::parse).map_err(|_| bad("content-length"))?;
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    request.body = buffer.drain(..length).collect();
    Ok(Some(request))
}

/// Writes an answer, at most so many bytes of its body.
async fn write(stream: &mut (impl AsyncWrite + Unpin), answer: &Answer, most: usize) -> io::Result<()> {
    let mut head =
        format!("HTTP/1.1 {} Stand-in\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend(answer.body.iter().take(most));
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// `a=1&b=x%20y` as pairs.
fn pairs(text: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'+' => out.push(b' '),
                b'%' => {
                    let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                    out.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
                }
                other => out.push(other),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}
