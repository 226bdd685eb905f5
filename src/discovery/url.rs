//! The URLs that trackers have: `http` or `https`, a host, a port, a path with a query. Pure.
//!
//! Announce URLs come from torrents and redirects from servers, so both are hostile: what a [`Url`] renders to is
//! visible ASCII only (a line break cannot smuggle a header into the request) and its scheme is one of two.

use std::fmt;

/// Bytes of the longest URL that is read.
pub const URL_LEN_MAX: usize = 8 * 1024;

/// A URL that can be asked over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    secure: bool,
    host: String,
    /// `None` is the scheme's own.
    port: Option<u16>,
    /// Path and query; starts with `/`, has no fragment.
    target: String,
}

/// Why a text is not a URL that can be asked over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UrlError {
    /// It is longer than [`URL_LEN_MAX`].
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// It has no `scheme://` in front.
    NoScheme,
    /// Its scheme is neither `http` nor `https`.
    Scheme {
        /// The scheme, in lower case.
        scheme: String,
    },
    /// The host is empty or has characters that no host name has.
    Host {
        /// The host as it stands in the URL.
        host: String,
    },
    /// The host is an IPv6 address in brackets, which the HTTP client cannot take.
    Ipv6Host,
    /// It carries a user name or a password.
    UserInfo,
    /// The port is not a number from 1 to 65535.
    Port {
        /// The port as it stands in the URL.
        port: String,
    },
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(f, "a URL of {len} bytes, at most {URL_LEN_MAX} are read"),
            Self::NoScheme => f.write_str("not a URL: expected http:// or https:// in front"),
            Self::Scheme { scheme } if scheme == "udp" => f.write_str("udp trackers are not supported yet"),
            Self::Scheme { scheme } => {
                write!(f, "URLs of scheme {scheme} are not supported, only http and https")
            }
            Self::Host { host } => write!(f, "{host:?} is not the name or address of a host"),
            Self::Ipv6Host => f.write_str("an IPv6 address in a URL is not supported, use a host name"),
            Self::UserInfo => f.write_str("a user name or password in a URL is not supported"),
            Self::Port { port } => write!(f, "port {port:?} is not a number from 1 to 65535"),
        }
    }
}

impl std::error::Error for UrlError {}

impl Url {
    /// Reads an absolute URL. White space around it and a fragment are dropped; bytes of the path and the query that
    /// no URL may contain are percent-encoded.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim_ascii();
        if text.len() > URL_LEN_MAX {
            return Err(UrlError::TooLong { len: text.len() });
        }
        let (scheme, rest) = split_scheme(text).ok_or(UrlError::NoScheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(UrlError::Scheme { scheme: other.to_owned() }),
        };
        let rest = rest.strip_prefix("//").ok_or(UrlError::NoScheme)?;
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = split_authority(authority)?;
        Ok(Self { secure, host, port, target: clean_target(target) })
    }

    /// Where a redirect leads: `location` is absolute or relative to this URL (RFC 3986, section 5).
    pub fn resolve(&self, location: &str) -> Result<Self, UrlError> {
        let location = location.trim_ascii();
        if location.len() > URL_LEN_MAX {
            return Err(UrlError::TooLong { len: location.len() });
        }
        if split_scheme(location).is_some() {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme()));
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let target = match location.as_bytes().first() {
            None | Some(b'#') => self.target.clone(),
            Some(b'/') => without_dots(location),
            Some(b'?') => format!("{path}{location}"),
            Some(_) => without_dots(&format!("{}{location}", &path[..=path.rfind('/').unwrap_or(0)])),
        };
        Ok(Self { target: clean_target(&target), ..self.clone() })
    }

    /// This URL with `parameters` (`a=1&b=2`, already encoded) after the query it has.
    #[must_use]
    pub fn with_query(&self, parameters: &str) -> Self {
        let joint = match self.target.as_bytes().last() {
            Some(b'?' | b'&') => "",
            _ if self.target.contains('?') => "&",
            _ => "?",
        };
        Self { target: format!("{}{joint}{parameters}", self.target), ..self.clone() }
    }

    const fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.target)
    }
}

/// `http://host` as `http` and `//host`; `None` for what has no scheme, as a relative reference.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    valid.then_some((scheme, rest))
}

fn split_authority(authority: &str) -> Result<(String, Option<u16>), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    if authority.starts_with('[') {
        return Err(UrlError::Ipv6Host);
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if host.is_empty() || !host.bytes().all(is_host_byte) {
        return Err(UrlError::Host { host: host.to_owned() });
    }
    if port.is_empty() {
        return Ok((host.to_ascii_lowercase(), None));
    }
    match port.parse::<u16>() {
        Ok(number @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((host.to_ascii_lowercase(), Some(number)))
        }
        _ => Err(UrlError::Port { port: port.to_owned() }),
    }
}

/// Path and query, with a `/` in front, without a fragment, in visible ASCII.
fn clean_target(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let mut clean = String::with_capacity(target.len() + 1);
    if !target.starts_with('/') {
        clean.push('/');
    }
    for byte in target.bytes() {
        if byte.is_ascii_graphic() {
            clean.push(char::from(byte));
        } else {
            push_percent(&mut clean, byte);
        }
    }
    clean
}

/// Takes `.` and `..` out of the path in front of a query.
fn without_dots(target: &str) -> String {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let (path, rest) = target.split_at(end);
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            name => {
                kept.push(name);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    format!("/{}{rest}", kept.join("/"))
}

/// Appends `%XX`.
pub(super) fn push_percent(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_renders_as_it_was_read() {
        for text in [
            "http://tracker.example/announce",
            "https://tracker.example:8443/a/b?passkey=%00x&y=1",
            "http://127.0.0.1:1/",
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_loose_forms_are_made_strict() {
        for (text, expected) in [
            (" HTTP://Tracker.Example \n", "http://tracker.example/"),
            ("http://host?passkey=1", "http://host/?passkey=1"),
            ("http://host:/x#fragment", "http://host/x"),
            ("http://host/a b\r\nX: y", "http://host/a%20b%0D%0AX:%20y"),
            ("http://host/é", "http://host/%C3%A9"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let scheme = |scheme: &str| UrlError::Scheme { scheme: scheme.to_owned() };
        let host = |host: &str| UrlError::Host { host: host.to_owned() };
        let port = |port: &str| UrlError::Port { port: port.to_owned() };
        for (text, expected) in [
            ("", UrlError::NoScheme),
            ("tracker.example/announce", UrlError::NoScheme),
            ("http:/host", UrlError::NoScheme),
            ("UDP://host:1/announce", scheme("udp")),
            ("file:///etc/passwd", scheme("file")),
            ("http://", host("")),
            ("http:///announce", host("")),
            ("http://ho st/", host("ho st")),
            ("http://bücher.example/", host("bücher.example")),
            ("http://[::1]:80/", UrlError::Ipv6Host),
            ("http://user:pw@host/", UrlError::UserInfo),
            ("http://host:0/", port("0")),
            ("http://host:65536/", port("65536")),
            ("http://host:+1/", port("+1")),
            ("http://host:1:2/", port("1:2")),
        ] {
            assert_eq!(Url::parse(text), Err(expected), "{text}");
        }
        let long = format!("http://host/{}", "a".repeat(URL_LEN_MAX));
        assert_eq!(Url::parse(&long), Err(UrlError::TooLong { len: long.len() }));
        assert_eq!(scheme("udp").to_string(), "udp trackers are not supported yet");
    }

    #[test]
    fn a_location_is_resolved_against_the_url_that_sent_it() {
        let base = Url::parse("http://host:81/a/b/announce?x=1").unwrap();
        for (location, expected) in [
            ("https://other/z?q", "https://other/z?q"),
            ("//other:9/z", "http://other:9/z"),
            ("/z?q=1", "http://host:81/z?q=1"),
            ("z", "http://host:81/a/b/z"),
            ("../z?u=/../", "http://host:81/a/z?u=/../"),
            ("./", "http://host:81/a/b/"),
            ("../../../../..", "http://host:81/"),
            ("/x/./y/../z", "http://host:81/x/z"),
            ("?y=2", "http://host:81/a/b/announce?y=2"),
            ("", "http://host:81/a/b/announce?x=1"),
        ] {
            assert_eq!(base.resolve(location).unwrap().to_string(), expected, "{location}");
        }
        assert_eq!(base.resolve("file:///etc/passwd"), Err(UrlError::Scheme { scheme: "file".to_owned() }));
    }

    #[test]
    fn parameters_follow_the_query_that_is_there() {
        for (text, expected) in [
            ("http://h/a", "http://h/a?k=v"),
            ("http://h/a?", "http://h/a?k=v"),
            ("http://h/a?passkey=1", "http://h/a?passkey=1&k=v"),
            ("http://h/a?passkey=1&", "http://h/a?passkey=1&k=v"),
        ] {
            assert_eq!(Url::parse(text).unwrap().with_query("k=v").to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn a_rendered_url_is_visible_ascii_and_reads_back(text in "https?://[a-z.]{1,9}(:[0-9]{1,5})?[/?].{0,40}", location in ".{0,40}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert_eq!(Url::parse(&url.to_string()), Ok(url.clone()));
                if let Ok(next) = url.resolve(&location) {
                    prop_assert!(next.to_string().bytes().all(|b| b.is_ascii_graphic()));
                    prop_assert_eq!(Url::parse(&next.to_string()), Ok(next));
                }
            }
        }
    }
}
