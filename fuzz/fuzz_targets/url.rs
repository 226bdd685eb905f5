//! Announce URLs of torrents, and where redirects lead. The first line is the URL, the rest is the `Location`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtide::discovery::url::{Scheme, Url};

fuzz_target!(|text: &str| {
    let (base, location) = text.split_once('\n').unwrap_or((text, ""));
    let url = match Url::parse(base) {
        Ok(url) => url,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    check(&url);
    let asked = url.with_query("info_hash=%00&port=1");
    check(&asked);
    if let Some(scrape) = url.scrape() {
        check(&scrape);
    }
    if let Ok(next) = url.resolve(location) {
        check(&next);
        assert!(next.scheme() != Scheme::Udp, "{next}");
    }
});

/// What goes into a request line and a header: visible ASCII of one of three schemes, which reads back as itself.
fn check(url: &Url) {
    let text = url.to_string();
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    assert!(["http://", "https://", "udp://"].iter().any(|scheme| text.starts_with(scheme)), "{text:?}");
    assert!(url.port() != 0);
    if let Err(error) = Url::parse(&text).map(|again| assert_eq!(again, *url)) {
        // Percent-encoding makes it up to three times as long.
        assert!(text.len() > ringtide::discovery::url::URL_LEN_MAX, "{text:?}: {error}");
    }
}
