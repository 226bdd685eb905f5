//! The URLs of trackers, of torrents that are fetched and of proxies: `http`, `https` or `udp`, a host, a port, a path
//! with a query. Pure.
//!
//! Announce URLs come from torrents and redirects from servers, so both are hostile: what a [`Url`] renders to is
//! visible ASCII only (a line break cannot smuggle a header into the request), its scheme is one of three, and that of
//! a redirect one of two.

use std::fmt;
use std::net::Ipv6Addr;

use super::mask::masked;

/// Bytes of the longest URL that is read.
pub const URL_LEN_MAX: usize = 8 * 1024;

/// How a tracker is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// HTTP over TCP.
    Http,
    /// HTTP over TLS.
    Https,
    /// Datagrams (BEP 15).
    Udp,
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Udp => "udp",
        }
    }
}

/// Where a tracker is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// A name or an IPv4 address: letters in lower case, digits, `.`, `-` and `_`.
    Name(String),
    /// An IPv6 address, in brackets in the URL.
    V6(Ipv6Addr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// A URL that a tracker can be asked by.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    scheme: Scheme,
    /// `user:password`, still percent-encoded; never empty.
    user_info: Option<String>,
    host: Host,
    /// `None` is the scheme's own.
    port: Option<u16>,
    /// Path and query; starts with `/`, has no fragment.
    target: String,
}

/// Why a text is not a URL that a tracker can be asked by. What was taken for the host or the port is not told: it may
/// be a part of a password that should have been percent-encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UrlError {
    /// It is longer than [`URL_LEN_MAX`].
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// It has no `scheme://` in front.
    NoScheme,
    /// Its scheme is none of `http`, `https` and `udp`.
    Scheme {
        /// The scheme, in lower case.
        scheme: String,
    },
    /// It is where a redirect leads, and would leave HTTP.
    UdpRedirect,
    /// The host is empty or has characters that no host name has.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(f, "a URL of {len} bytes, at most {URL_LEN_MAX} are read"),
            Self::NoScheme => f.write_str("not a URL: expected http://, https:// or udp:// in front"),
            Self::Scheme { scheme } => {
                write!(f, "URLs of scheme {scheme} are not supported, only http, https and udp")
            }
            Self::UdpRedirect => f.write_str("a redirect may lead to http and https only"),
            Self::Host => f.write_str("the host is neither a name nor an address"),
            Self::Port => f.write_str("the port is not a number from 1 to 65535"),
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
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "udp" => Scheme::Udp,
            other => return Err(UrlError::Scheme { scheme: other.to_owned() }),
        };
        let rest = rest.strip_prefix("//").ok_or(UrlError::NoScheme)?;
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user_info, authority) = match authority.rsplit_once('@') {
            Some((user_info, authority)) => (Some(user_info).filter(|text| !text.is_empty()), authority),
            None => (None, authority),
        };
        let (host, port) = split_authority(authority)?;
        let user_info = user_info.map(visible);
        Ok(Self { scheme, user_info, host, port, target: clean_target(target) })
    }

    /// Where a redirect leads: `location` is absolute or relative to this URL (RFC 3986, section 5). Never to `udp`.
    /// The user information goes along to the same scheme, host and port and to no others.
    pub fn resolve(&self, location: &str) -> Result<Self, UrlError> {
        let mut next = self.join(location)?;
        if next.scheme == Scheme::Udp {
            return Err(UrlError::UdpRedirect);
        }
        let origin = |url: &Self| (url.scheme, url.host.clone(), url.port());
        if next.user_info.is_none() && origin(&next) == origin(self) {
            next.user_info.clone_from(&self.user_info);
        }
        Ok(next)
    }

    fn join(&self, location: &str) -> Result<Self, UrlError> {
        let location = location.trim_ascii();
        if location.len() > URL_LEN_MAX {
            return Err(UrlError::TooLong { len: location.len() });
        }
        if split_scheme(location).is_some() {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme.name()));
        }
        let path = self.path();
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

    /// The URL that is asked for counts instead of peers (BEP 48): `announce` at the start of the last part of the path
    /// becomes `scrape`; where it is not there, the tracker cannot be scraped. `udp` has one URL for both (BEP 15).
    #[must_use]
    pub fn scrape(&self) -> Option<Self> {
        if self.scheme == Scheme::Udp {
            return Some(self.clone());
        }
        let (folder, file) = self.target.split_at(self.path().rfind('/')? + 1);
        let target = format!("{folder}scrape{}", file.strip_prefix("announce")?);
        Some(Self { target, ..self.clone() })
    }

    /// How the tracker is asked.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Where the tracker is.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port, whether it is written or the scheme's own; never 0.
    pub fn port(&self) -> u16 {
        // A `udp` URL without one is taken as other clients do.
        self.port.unwrap_or(if self.scheme == Scheme::Https { 443 } else { 80 })
    }

    /// Whether the port is written.
    pub(super) const fn has_port(&self) -> bool {
        self.port.is_some()
    }

    /// The same at another port.
    pub(super) fn with_port(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }

    /// The `user:password` of Basic authorization (RFC 7617), percent-decoded, if the URL has a user.
    pub(super) fn user_info(&self) -> Option<Vec<u8>> {
        let mut decoded = percent_decode(self.user_info.as_deref()?);
        if !decoded.contains(&b':') {
            decoded.push(b':');
        }
        Some(decoded)
    }

    /// The URL as it may be shown: see [`masked`].
    pub fn masked(&self) -> String {
        masked(&self.to_string())
    }

    /// Path and query: visible ASCII with a `/` in front.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The host and, where it is written, the port: the `Host` of an HTTP request.
    pub(super) fn authority(&self) -> String {
        self.port.map_or_else(|| self.host.to_string(), |port| format!("{}:{port}", self.host))
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// All of it, secrets included. What is shown is [`Url::masked`].
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user_info, at) = self.user_info.as_deref().map_or(("", ""), |text| (text, "@"));
        write!(f, "{}://{user_info}{at}{}{}", self.scheme.name(), self.authority(), self.target)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({})", self.masked())
    }
}

/// `http://host` as `http` and `//host`; `None` for what has no scheme, as a relative reference.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    valid.then_some((scheme, rest))
}

fn split_authority(authority: &str) -> Result<(Host, Option<u16>), UrlError> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(_) => authority.split_at(authority.find(']').map_or(authority.len(), |end| end + 1)),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let known = read_host(host).ok_or(UrlError::Host)?;
    let port = match rest.strip_prefix(':') {
        Some(port) => port,
        None if rest.is_empty() => "",
        None => return Err(UrlError::Host),
    };
    if port.is_empty() {
        return Ok((known, None));
    }
    match port.parse::<u16>() {
        Ok(number @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((known, Some(number))),
        _ => Err(UrlError::Port),
    }
}

fn read_host(host: &str) -> Option<Host> {
    if let Some(inside) = host.strip_prefix('[') {
        return inside.strip_suffix(']')?.parse().ok().map(Host::V6);
    }
    host_name(&String::from_utf8(percent_decode(host)).ok()?).map(Host::Name)
}

/// A name or IPv4 address as resolvers take it: in lower case, and in punycode where it has other characters than ASCII
/// (RFC 5891). `None` for what is none.
pub(super) fn host_name(text: &str) -> Option<String> {
    let name = if text.is_ascii() { text.to_ascii_lowercase() } else { idna::domain_to_ascii(text).ok()? };
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_name = !name.is_empty() && name.bytes().all(is_host_byte);
    is_name.then_some(name)
}

/// Path and query, with a `/` in front, without a fragment, in visible ASCII.
fn clean_target(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    if target.starts_with('/') { visible(target) } else { visible(&format!("/{target}")) }
}

/// The text with all but visible ASCII percent-encoded.
fn visible(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() {
            clean.push(char::from(byte));
        } else {
            push_percent(&mut clean, byte);
        }
    }
    clean
}

/// The bytes behind `%XX`. A `%` that is not followed by two digits stands for itself.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digit = |place: usize| Some(char::from(*tail.get(place)?).to_digit(16)? as u8);
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            decoded.push(high << 4 | low);
            rest = &tail[2..];
        } else {
            decoded.push(*first);
        }
    }
    decoded
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
            "udp://tracker.example:6969/announce?passkey=1",
            "udp://[2001:db8::1]:1/",
            "http://[::1]/announce",
            "https://[::1]:8443/announce",
            "http://user:pass%40word@host/announce",
            "udp://user@host/announce",
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
            ("UDP://[0:0::1]:9?x", "udp://[::1]:9/?x"),
            ("http://[::1]:/", "http://[::1]/"),
            ("http://b\u{fc}cher.example:81/\u{fc}", "http://xn--bcher-kva.example:81/%C3%BC"),
            ("http://B\u{dc}CHER.example/", "http://xn--bcher-kva.example/"),
            ("http://bu\u{308}cher.example/", "http://xn--bcher-kva.example/"),
            ("http://b%C3%BCcher.example/", "http://xn--bcher-kva.example/"),
            ("udp://\u{440}\u{444}\u{3002}example:1", "udp://xn--p1ai.example:1/"),
            ("http://\u{ff11}27.0.0.1/", "http://127.0.0.1/"),
            ("http://@host/", "http://host/"),
            ("http://a b:c@host/", "http://a%20b:c@host/"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let scheme = |scheme: &str| UrlError::Scheme { scheme: scheme.to_owned() };
        for (text, expected) in [
            ("", UrlError::NoScheme),
            ("tracker.example/announce", UrlError::NoScheme),
            ("http:/host", UrlError::NoScheme),
            ("file:///etc/passwd", scheme("file")),
            ("http://", UrlError::Host),
            ("http:///announce", UrlError::Host),
            ("http://ho st/", UrlError::Host),
            ("http://a%2Fb/", UrlError::Host),
            ("http://a%0d%0ab/", UrlError::Host),
            ("http://%ff/", UrlError::Host),
            ("http://xn--\u{fc}/", UrlError::Host),
            ("udp://[::1", UrlError::Host),
            ("udp://[::1]x:1/", UrlError::Host),
            ("udp://[127.0.0.1]:1/", UrlError::Host),
            ("udp://[fe80::1%25eth0]:1/", UrlError::Host),
            ("udp://::1/", UrlError::Host),
            ("http://host:0/", UrlError::Port),
            ("http://host:65536/", UrlError::Port),
            ("http://host:+1/", UrlError::Port),
            ("http://host:1:2/", UrlError::Port),
        ] {
            assert_eq!(Url::parse(text), Err(expected), "{text}");
        }
        let long = format!("http://host/{}", "a".repeat(URL_LEN_MAX));
        assert_eq!(Url::parse(&long), Err(UrlError::TooLong { len: long.len() }));
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
        assert_eq!(base.resolve("udp://host:1/"), Err(UrlError::UdpRedirect));
        assert_eq!(base.resolve("http://[::1]:1/").unwrap().to_string(), "http://[::1]:1/");
    }

    #[test]
    fn a_user_is_decoded_and_told_to_nobody_else() {
        for (text, expected) in [
            ("http://h/", None),
            ("http://user@h/", Some("user:")),
            ("http://user:@h/", Some("user:")),
            ("http://:pw@h/", Some(":pw")),
            ("http://us%65r:p%40s%3as%@h/", Some("user:p@s:s%")),
            ("http://u:p@w@h/", Some("u:p@w")),
        ] {
            let user_info = Url::parse(text).unwrap().user_info();
            assert_eq!(user_info.as_deref(), expected.map(str::as_bytes), "{text}");
        }
        let base = Url::parse("http://user:pw@host:81/a").unwrap();
        assert!(!format!("{base:?} {}", base.masked()).contains("pw"));
        for (location, is_told) in [
            ("/b", true),
            ("http://host:81/b", true),
            ("//HOST:81/b", true),
            ("http://host/b", false),
            ("https://host:81/b", false),
            ("http://other:81/b", false),
            ("http://other@host:81/b", false),
        ] {
            let next = base.resolve(location).unwrap();
            assert_eq!(next.user_info() == base.user_info(), is_told, "{location}");
        }
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

    #[test]
    fn the_scrape_url_differs_in_the_last_part_of_the_path() {
        for (text, expected) in [
            ("http://h/announce", Some("http://h/scrape")),
            ("http://h/x/announce?passkey=1/2", Some("http://h/x/scrape?passkey=1/2")),
            ("http://h/announce.php", Some("http://h/scrape.php")),
            ("https://h/announce/announce", Some("https://h/announce/scrape")),
            ("http://h/a", None),
            ("http://h/announce/", None),
            ("http://h/?/announce", None),
            ("udp://h:1/x", Some("udp://h:1/x")),
        ] {
            let scrape = Url::parse(text).unwrap().scrape().map(|url| url.to_string());
            assert_eq!(scrape.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_port_that_is_not_written_is_the_schemes() {
        for (text, port) in
            [("http://h", 80), ("https://h", 443), ("udp://h:7", 7), ("udp://h/a", 80), ("https://h:8", 8)]
        {
            assert_eq!(Url::parse(text).unwrap().port(), port, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_rendered_url_is_visible_ascii_and_reads_back(
            text in "(https?|udp)://([a-z.]{1,9}|\\[[0-9:]{2,9}\\])(:[0-9]{1,5})?[/?].{0,40}",
            location in ".{0,40}",
        ) {
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
