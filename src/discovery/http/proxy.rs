//! The proxy that the environment names, by the rules of curl. Pure, but for [`Proxy::of_environment`].

use std::env;
use std::net::IpAddr;

use super::HttpError;
use crate::discovery::mask::masked;
use crate::discovery::url::{Host, Scheme, Url};

/// A proxy that HTTP goes through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Proxy {
    /// Where it is; `http` or `https`.
    pub(super) url: Url,
}

impl Proxy {
    /// The proxy for a URL, if it is to go through one.
    pub(super) fn of_environment(url: &Url) -> Result<Option<Self>, HttpError> {
        Self::choose(url, |name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn choose(url: &Url, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, HttpError> {
        let names: &[&'static str] = match url.scheme() {
            // `HTTP_PROXY` is what a CGI program gets for the header `Proxy` of a request, so it is nobody's wish.
            Scheme::Http => &["http_proxy", "all_proxy", "ALL_PROXY"],
            Scheme::Https => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
            Scheme::Udp => &[],
        };
        let Some((name, value)) = names.iter().find_map(|&name| Some((name, variable(name)?))) else {
            return Ok(None);
        };
        if variable("no_proxy")
            .or_else(|| variable("NO_PROXY"))
            .is_some_and(|list| is_exempt(url.host(), &list))
        {
            return Ok(None);
        }
        let with_scheme = if value.contains("://") { value.clone() } else { format!("http://{value}") };
        let unusable =
            |text: String| HttpError::Proxy { proxy: format!("{} of {name}", masked(&value)), text };
        let scheme = with_scheme.split("://").next().unwrap_or_default().to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(unusable(format!("proxies of kind {scheme} are not supported, only http and https")));
        }
        let url = Url::parse(&with_scheme).map_err(|error| unusable(error.to_string()))?;
        // Without a port it is the one that curl takes.
        let url = if url.has_port() || scheme == "https" { url } else { url.with_port(PORT) };
        Ok(Some(Self { url }))
    }
}

/// The port of a proxy that names none.
const PORT: u16 = 1080;

/// Whether a host is in the list of `no_proxy`: a domain, with all below it; an address or a range of them; `*`.
fn is_exempt(host: &Host, list: &str) -> bool {
    let ip = match host {
        Host::V6(ip) => Some(IpAddr::from(*ip)),
        Host::Name(name) => name.parse().ok(),
    };
    let name = host.to_string();
    let name = name.trim_end_matches('.');
    list.split([',', ' ', '\t']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some(ip) = ip {
            return is_in_range(ip, entry);
        }
        let domain = entry.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase();
        let above = name.strip_suffix(&domain);
        !domain.is_empty() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    })
}

/// Whether `range` is this address, or one with a length of prefix that holds it.
fn is_in_range(ip: IpAddr, range: &str) -> bool {
    let (base, bits) = range.split_once('/').map_or((range, None), |(base, bits)| (base, Some(bits)));
    let Ok(base) = base.trim_matches(['[', ']']).parse::<IpAddr>() else { return false };
    let (width, differing) = match (ip, base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) => (32, u128::from(u32::from(ip) ^ u32::from(base))),
        (IpAddr::V6(ip), IpAddr::V6(base)) => (128, u128::from(ip) ^ u128::from(base)),
        _ => return false,
    };
    let bits = match bits.map(str::parse::<u32>) {
        None => width,
        Some(Ok(bits)) if bits <= width => bits,
        Some(_) => return false,
    };
    differing.checked_shr(width - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(url: &str, variables: &[(&str, &str)]) -> Result<Option<String>, HttpError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxy = Proxy::choose(&Url::parse(url).unwrap(), variable)?;
        Ok(proxy.map(|proxy| proxy.url.to_string()))
    }

    #[test]
    fn each_scheme_has_its_variables() {
        let all: &[_] = &[("http_proxy", "p:1"), ("HTTPS_PROXY", "http://q:2/"), ("ALL_PROXY", "r:3")];
        assert_eq!(choose("http://h/", all).unwrap().unwrap(), "http://p:1/");
        assert_eq!(choose("https://h/", all).unwrap().unwrap(), "http://q:2/");
        assert_eq!(choose("udp://h:1/", all).unwrap(), None);
        assert_eq!(choose("http://h/", &all[1..]).unwrap().unwrap(), "http://r:3/");
        assert_eq!(choose("http://h/", &[("HTTP_PROXY", "evil:1")]).unwrap(), None);
        assert_eq!(choose("http://h/", &[("http_proxy", "p")]).unwrap().unwrap(), "http://p:1080/");
        assert_eq!(choose("https://h/", &[("https_proxy", "https://p")]).unwrap().unwrap(), "https://p/");
    }

    #[test]
    fn what_cannot_be_gone_through_is_said() {
        for value in ["socks5://u:pw@p:1", "socks5h://p:1", "SOCKS4://p", "ftp://p", "http://", "p:99999"] {
            let error = choose("http://h/", &[("all_proxy", value)]).unwrap_err();
            let HttpError::Proxy { proxy, .. } = &error else { panic!("{error:?}") };
            assert!(proxy.ends_with(" of all_proxy") && !error.to_string().contains("pw"), "{error}");
        }
    }

    #[test]
    fn exempt_hosts_are_gone_to_directly() {
        for (host, list, is_exempt) in [
            ("tracker.example.org", "example.org", true),
            ("tracker.example.org", ".example.org", true),
            ("tracker.example.org", "*.example.org", true),
            ("example.org", " x.y , EXAMPLE.org", true),
            ("example.org.", "example.org", true),
            ("badexample.org", "example.org", false),
            ("example.org", "tracker.example.org", false),
            ("example.org", "", false),
            ("example.org", ",.,", false),
            ("anything", "*", true),
            ("[::1]", "*", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("11.1.2.3", "0.0.0.0/0", true),
            ("10.1.2.3", "10.0.0.0/33", false),
            ("10.1.2.3", "2.3", false),
            ("[fd00::1]", "fd00::/8", true),
            ("[fd00::1]", "[fd00::1]", true),
            ("[fd00::1]", "::/0", true),
            ("[fd00::1]", "fe80::/10", false),
        ] {
            let proxied = choose(&format!("http://{host}/"), &[("http_proxy", "p:1"), ("no_proxy", list)]);
            assert_eq!(proxied.unwrap().is_none(), is_exempt, "{host} and {list:?}");
        }
    }
}
