//! URLs as they may be shown: without passwords and passkeys, which end up in logs, screenshots and bug reports. Pure.

/// What stands in the place of a secret.
const MASK: &str = "***";

/// The shortest mix of letters and digits that is taken for a secret. Passkeys have 32 as a rule.
const SECRET_LEN_MIN: usize = 16;

/// The shortest run of letters alone that is taken for one.
const SECRET_LETTERS_MIN: usize = 32;

/// Parameters whose values are secrets, however short.
const SECRET_KEYS: &[&str] = &[
    "apikey",
    "api_key",
    "auth",
    "authkey",
    "auth_key",
    "hash_id",
    "key",
    "passkey",
    "pass_key",
    "password",
    "passwd",
    "pass",
    "pid",
    "pk",
    "pwd",
    "rsskey",
    "secret",
    "sid",
    "signature",
    "sig",
    "token",
    "torrent_pass",
    "torrentpass",
    "uk",
    "user",
];

/// A URL, or what was meant to be one, without user information, passkeys and the like.
pub fn masked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (authority, target) = rest.split_at(authority_len(rest));
    let mut shown = String::with_capacity(url.len());
    if rest.len() < url.len() {
        shown.push_str(scheme);
        shown.push_str("://");
    }
    match authority.rsplit_once('@') {
        Some((_, host)) => {
            shown.push_str(MASK);
            shown.push('@');
            shown.push_str(host);
        }
        // A host that says so is none of the secrets; what has no scheme may be anything.
        None if !scheme.is_empty() => shown.push_str(authority),
        None => push_masked(&mut shown, authority),
    }
    let (path, query) = target.split_at(target.find(['?', '#']).unwrap_or(target.len()));
    push_masked(&mut shown, path);
    for parameter in query.split_inclusive(['?', '&', ';', '#']) {
        let end = parameter.trim_end_matches(['?', '&', ';', '#']);
        let separator = &parameter[end.len()..];
        match end.split_once('=') {
            Some((key, value)) if !value.is_empty() && is_secret_key(key) => {
                shown.push_str(key);
                shown.push('=');
                shown.push_str(MASK);
            }
            _ => push_masked(&mut shown, end),
        }
        shown.push_str(separator);
    }
    shown
}

/// Where the authority ends, with which the text begins. A password that should have been percent-encoded has the
/// characters in it that end one, and what is cut off with it must not be shown either.
fn authority_len(text: &str) -> usize {
    let end_after = |at: usize| text[at..].find(['/', '?', '#']).map_or(text.len(), |len| at + len);
    let end = end_after(0);
    match text.rfind('@') {
        Some(at) if at > end && !ends_in_host(&text[..end]) => end_after(at),
        _ => end,
    }
}

/// Whether an authority ends in what may be a host, with its port if there is one.
fn ends_in_host(authority: &str) -> bool {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => (host, Some(port)),
        _ => (host, None),
    };
    let is_of_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '%' | '[' | ']' | ':');
    host.chars().all(is_of_host) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_secret_key(key: &str) -> bool {
    SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret))
}

/// Appends the text, but for words in it that look like secrets.
fn push_masked(shown: &mut String, text: &str) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '~' | '%');
    let mut rest = text;
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        shown.push_str(if is_secret(word) { MASK } else { word });
        let (between, tail) = tail.split_at(tail.find(is_word).unwrap_or(tail.len()));
        shown.push_str(between);
        rest = tail;
    }
}

fn is_secret(word: &str) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    word.len() >= if has_digit { SECRET_LEN_MIN } else { SECRET_LETTERS_MIN }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        const HEX: &str = "0123456789abcdef0123456789abcdef";
        for (url, expected) in [
            ("http://user:pa55@host/announce", "http://***@host/announce"),
            ("http://u:p@ss@host:80/", "http://***@host:80/"),
            ("https://host/announce?passkey=abc&x=1", "https://host/announce?passkey=***&x=1"),
            (
                "https://host/a?x=1&AuthKey=a;torrent_pass=b",
                "https://host/a?x=1&AuthKey=***;torrent_pass=***",
            ),
            (&format!("http://host:2710/{HEX}/announce"), "http://host:2710/***/announce"),
            (&format!("http://host/announce/{}", HEX.to_uppercase()), "http://host/announce/***"),
            (&format!("http://host/announce.php?{HEX}"), "http://host/announce.php?***"),
            (&format!("http://host/a?id={HEX}"), "http://host/a?id=***"),
            (&format!("udp://host:1/{HEX}.torrent"), "udp://host:1/***.torrent"),
            ("http://host/9b2c7d1e-4f5a-6b7c-8d9e-0f1a2b3c4d5e/announce", "http://host/***/announce"),
            (&format!("not a URL {HEX}"), "not a URL ***"),
            ("user:secret@host/announce", "***@host/announce"),
            ("http://user:pa#55@proxy:3128", "http://***@proxy:3128"),
            ("http://user:pa/55@host/x", "http://***@host/x"),
            ("http://user:pa?55@host/x?key=y", "http://***@host/x?key=***"),
            ("http://user:/55@host/x", "http://***@host/x"),
            ("http://user:1234567/@host/x", "http://***@host/x"),
            ("http://user:p@$/55@host", "http://***@host"),
            ("http://us:er@p:a/#55@[::1]:80/x", "http://***@[::1]:80/x"),
            ("user:pa#55@proxy:3128", "***@proxy:3128"),
        ] {
            assert_eq!(masked(url), expected);
        }
    }

    #[test]
    fn all_else_is_shown_as_it_is() {
        for url in [
            "http://tracker.example.org:6969/announce",
            "udp://tracker.opentrackr.org:1337/announce",
            "http://127.0.0.1:1/announce.php?x=1&y=&passkey=",
            "https://[2001:db8::1]:443/some/folder/announce",
            "http://host/a/torrents-of-the-open-archive/x#",
            "http://host:80/@user/x",
            "http://xn--e1afmkfd.example/a@b",
            "http://b\u{fc}cher.example/a@b",
            "http://[2001:db8::1]/a@b",
            "http://[2001:db8::1]:80/a@b",
            "",
            "://",
        ] {
            assert_eq!(masked(url), url);
        }
    }

    proptest! {
        #[test]
        fn a_passkey_is_masked_wherever_it_stands(
            key in "[0-9a-zA-Z]{15}[0-9][0-9a-zA-Z]{4,30}",
            form in "http://h/(x/)?KEY(/announce|\\.php)?|http://h/a\\?(b=c&)?(z=)?KEY|\
                http://(KEY|a:KEY|a:[$]?[/?#]KEY)@h/",
        ) {
            prop_assert!(!masked(&form.replace("KEY", &key)).contains(&key));
        }
    }
}
