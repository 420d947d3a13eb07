//! gRPC on HTTP/2, as little of it as unary calls need.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};

use crate::client::Endpoint;

/// Flow control windows: large enough that no answer waits for one.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 26;
/// Pause after a refused connection, so that a dead server is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// One connection, made anew when it breaks. For tasks of one thread.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    path: &'static str,
    dial_timeout: Duration,
    /// With the number of times it was made, so that a late error does not take away a newer one.
    current: RefCell<Option<(u64, Link)>>,
    made: tokio::sync::Mutex<u64>,
}

/// What a request needs.
#[derive(Clone, Debug)]
struct Link {
    sender: SendRequest<Bytes>,
    head: Request<()>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn open(
        endpoint: Endpoint,
        path: &'static str,
        dial_timeout: Duration,
    ) -> Result<Self, String> {
        let made = tokio::sync::Mutex::new(0);
        let connection = Self { endpoint, path, dial_timeout, current: RefCell::new(None), made };
        connection.link().await?;
        Ok(connection)
    }

    /// Sends a framed request and waits for the whole answer; returns the message's size.
    ///
    /// # Errors
    /// What the server or the connection said: short, as it is counted.
    pub(super) async fn call(&self, message: Bytes) -> Result<usize, String> {
        let (number, link) = self.link().await?;
        match exchange(link, message).await {
            Ok(Answer { bytes, status: None }) => Ok(bytes),
            Ok(Answer { status: Some(status), .. }) => Err(status),
            Err(error) => {
                self.forget(number);
                Err(format!("connection: {error}"))
            }
        }
    }

    /// The link there is, or a new one.
    async fn link(&self) -> Result<(u64, Link), String> {
        if let Some(link) = self.current.borrow().clone() {
            return Ok(link);
        }
        let mut made = self.made.lock().await;
        if let Some(link) = self.current.borrow().clone() {
            return Ok(link);
        }
        match tokio::time::timeout(self.dial_timeout, self.connect()).await {
            Ok(Ok(link)) => {
                *made += 1;
                *self.current.borrow_mut() = Some((*made, link.clone()));
                Ok((*made, link))
            }
            Ok(Err(error)) => {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                Err(error)
            }
            Err(_) => Err(format!("no connection within {:?}", self.dial_timeout)),
        }
    }

    fn forget(&self, number: u64) {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_some_and(|(existing, _)| *existing == number) {
            *current = None;
        }
    }

    async fn connect(&self) -> Result<Link, String> {
        let stream = self.endpoint.connect().await.map_err(|error| error.to_string())?;
        let (sender, driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| error.to_string())?;
        // Its end shows in the requests that it carries.
        tokio::task::spawn_local(async move { drop(driver.await) });
        let head = Request::post(self.endpoint.url(self.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        Ok(Link { sender, head })
    }
}

struct Answer {
    bytes: usize,
    /// What the server says when it is not content.
    status: Option<String>,
}

async fn exchange(link: Link, message: Bytes) -> Result<Answer, h2::Error> {
    let mut sender = link.sender.ready().await?;
    let (response, mut body) = sender.send_request(link.head, false)?;
    body.send_data(message, true)?;
    let (head, mut body) = response.await?.into_parts();
    if head.status != StatusCode::OK {
        return Ok(Answer { bytes: 0, status: Some(format!("HTTP {}", head.status)) });
    }
    let mut bytes: usize = 0;
    while let Some(part) = body.data().await {
        let part = part?;
        bytes += part.len();
        // Windows are given back at once; nothing is kept.
        body.flow_control().release_capacity(part.len())?;
    }
    // An answer without a message has its status in the head.
    let trailers = body.trailers().await?;
    let status = status(trailers.as_ref().unwrap_or(&head.headers));
    Ok(Answer { bytes: bytes.saturating_sub(5), status })
}

/// The error in an answer's last headers, if there is one.
fn status(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => None,
        Some(code) => {
            Some(text("grpc-message").map_or_else(|| format!("gRPC status {code}"), percent_decoded))
        }
        None => Some("an answer without a gRPC status".to_owned()),
    }
}

/// Undoes the escapes that gRPC puts in a message (`%20`).
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_messages_are_undone() {
        assert_eq!(percent_decoded("a%20b%C3%A9%"), "a bé%");
        assert_eq!(percent_decoded("100%zz"), "100%zz");
    }

    #[test]
    fn only_status_zero_is_good() {
        let check = |pairs: &[(&'static str, &'static str)], expected: Option<&str>| {
            let headers =
                pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            assert_eq!(status(&headers).as_deref(), expected);
        };
        check(&[("grpc-status", "0")], None);
        check(&[("grpc-status", "3"), ("grpc-message", "etcdserver: key%20")], Some("etcdserver: key "));
        check(&[("grpc-status", "14")], Some("gRPC status 14"));
        check(&[], Some("an answer without a gRPC status"));
    }
}
