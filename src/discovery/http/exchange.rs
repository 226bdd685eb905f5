//! One request to one address, and its answer.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::line::{Line, Stream};
use super::message::{Body, BodyError, Head, read_head};
use super::proxy::Proxy;
use super::race::{Stages, from_io};
use super::{Deadline, HttpError, Wish, tls};
use crate::discovery::tracker::clean_text;
use crate::discovery::url::{Scheme, Url};

const USER_AGENT: &str = concat!("ringtide/", env!("CARGO_PKG_VERSION"));

/// Bytes taken from the connection at a time.
const READ_LEN: usize = 16 * 1024;

/// How long a connection may be silent within a body before it is looked at whether what came is all: servers say wrong
/// lengths, and keep connections that they were asked to close.
const LULL: Duration = Duration::from_secs(1);

/// An answer as it came.
pub(super) struct Response {
    pub(super) addr: SocketAddr,
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// What is asked, at whichever address.
pub(super) struct Asking {
    pub(super) url: Url,
    pub(super) proxy: Option<Proxy>,
    pub(super) wish: Wish,
    /// Set before the first byte of the request itself goes out.
    pub(super) is_sent: Arc<AtomicBool>,
}

impl Asking {
    pub(super) fn exchange(
        &self,
        addr: SocketAddr,
        deadline: &Deadline,
        stages: &Stages,
    ) -> Result<Response, HttpError> {
        let mut stream = self.connect(addr, deadline)?;
        stages.connected();
        self.is_sent.store(true, Ordering::Release);
        let failed = |error: &std::io::Error| from_io(error, deadline);
        stream
            .write_all(self.request().as_bytes())
            .and_then(|()| stream.flush())
            .map_err(|error| failed(&error))?;
        let (head, rest) = read_whole_head(&mut *stream, deadline)?;
        stages.answering();
        let body = self.read_body(&mut *stream, &head, &rest, deadline, stages)?;
        Ok(Response { addr, head, body })
    }

    /// Connects to the host itself, or to it through the proxy.
    fn connect(&self, addr: SocketAddr, deadline: &Deadline) -> Result<Box<dyn Stream>, HttpError> {
        let line = Line::open(addr, deadline.at).map_err(|error| from_io(&error, deadline))?;
        let mut stream: Box<dyn Stream> = Box::new(line);
        if let Some(Proxy { url: proxy }) = &self.proxy {
            if proxy.scheme() == Scheme::Https {
                stream = tls::wrap(proxy.host(), stream, deadline)?;
            }
            if self.url.scheme() == Scheme::Https {
                self.tunnel(&mut *stream, proxy, deadline)?;
            }
        }
        if self.url.scheme() == Scheme::Https {
            tls::wrap(self.url.host(), stream, deadline)
        } else {
            Ok(stream)
        }
    }

    /// Has a proxy pass on all that follows.
    fn tunnel(&self, stream: &mut dyn Stream, proxy: &Url, deadline: &Deadline) -> Result<(), HttpError> {
        let to = format!("{}:{}", self.url.host(), self.url.port());
        let authorization = authorization("Proxy-Authorization", proxy);
        let request =
            format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {USER_AGENT}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| from_io(&error, deadline))?;
        let (head, rest) = read_whole_head(stream, deadline)?;
        let refused = |text: String| HttpError::Proxy { proxy: proxy.masked(), text };
        match head.status {
            // What follows the head would be lost. A server of TLS says nothing unasked.
            200..=299 if rest.is_empty() => Ok(()),
            200..=299 => Err(refused("it says something before it was asked".to_owned())),
            status => Err(refused(format!(
                "it answers with HTTP error {status} {}",
                clean_text(head.reason.as_bytes())
            ))),
        }
    }

    fn request(&self) -> String {
        let Self { url, proxy, .. } = self;
        let is_relayed = proxy.is_some() && url.scheme() == Scheme::Http;
        let origin = if is_relayed { format!("http://{}", url.authority()) } else { String::new() };
        let mut authorizations = authorization("Authorization", url);
        if let Some(Proxy { url: proxy }) = proxy.as_ref().filter(|_| is_relayed) {
            authorizations += &authorization("Proxy-Authorization", proxy);
        }
        format!(
            "GET {origin}{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n{authorizations}\
             Connection: close\r\n\r\n",
            url.target(),
            url.authority()
        )
    }

    fn read_body(
        &self,
        stream: &mut dyn Stream,
        head: &Head,
        begun: &[u8],
        deadline: &Deadline,
        stages: &Stages,
    ) -> Result<Vec<u8>, HttpError> {
        let failed = |error: BodyError| match error {
            BodyError::TooLarge => HttpError::TooLarge { max: self.wish.len_max },
            BodyError::Malformed(text) => HttpError::Malformed { text: text.to_owned() },
        };
        let mut body = Body::new(head, self.wish.len_max).map_err(failed)?;
        let is_redirect = head.is_redirect();
        let mut is_whole = body.feed(begun).map_err(failed)?;
        let mut part = vec![0; READ_LEN];
        let mut untold = 0;
        stream.limit_wait(Some(LULL));
        loop {
            // The place to look at next is in the head, and some servers are slow to send the rest.
            if is_redirect || stages.is_over() {
                return Ok(body.bytes);
            }
            // A length may be that of the packed body, of which a relay has made a longer one.
            if is_whole && (body.bytes.is_empty() || (self.wish.is_whole)(&body.bytes)) {
                return Ok(body.bytes);
            }
            match stream.read(&mut part) {
                Ok(0) => return Ok(body.bytes),
                Ok(len) => {
                    is_whole |= body.feed(&part[..len]).map_err(failed)?;
                    untold += len;
                    if untold >= READ_LEN {
                        untold = 0;
                        stages.answering();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    deadline.left()?;
                    if is_whole || (self.wish.is_whole)(&body.bytes) {
                        return Ok(body.bytes);
                    }
                }
                // What came may be all: a server that is done may reset instead of closing.
                Err(error)
                    if error.kind() == ErrorKind::ConnectionReset && (self.wish.is_whole)(&body.bytes) =>
                {
                    return Ok(body.bytes);
                }
                Err(error) => return Err(from_io(&error, deadline)),
            }
        }
    }
}

/// The head of an answer, and what came of the body with it.
fn read_whole_head(stream: &mut dyn Stream, deadline: &Deadline) -> Result<(Head, Vec<u8>), HttpError> {
    let malformed = |text: &str| HttpError::Malformed { text: text.to_owned() };
    let mut bytes = Vec::new();
    let mut part = vec![0; READ_LEN];
    loop {
        let len = stream.read(&mut part).map_err(|error| from_io(&error, deadline))?;
        bytes.extend_from_slice(&part[..len]);
        if let Some((head, len)) = read_head(&bytes).map_err(malformed)? {
            return Ok((head, bytes.split_off(len)));
        }
        if len == 0 {
            return Err(malformed("it ends within its head"));
        }
    }
}

/// The header that says who asks, with its line end; nothing where the URL does not say it.
fn authorization(name: &str, url: &Url) -> String {
    let Some(user_info) = url.user_info() else { return String::new() };
    format!("{name}: Basic {}\r\n", base64(&user_info))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
