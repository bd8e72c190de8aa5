//! URLs, host names and path prefixes as a configuration may hold them. Nothing here resolves or connects.

use http::Uri;
use http::uri::Authority;

use super::bounds::HOST_BYTES_MAX;

/// A seller's address as `base_url` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseUrl {
    pub(super) https: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: Authority,
    pub(super) path: String,
}

impl BaseUrl {
    /// Reads `http://host:port/path`. The slash at the end is dropped, because every request's path brings its own.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "write `http://host:port/path` or `https://host/path`";
        let uri = web_url(text, RIGHT)?;
        if text.contains('?') {
            return Err(format!("a base URL has no query; {RIGHT}"));
        }
        let https = uri.scheme_str() == Some("https");
        let authority = uri.authority().cloned().ok_or_else(|| format!("no host; {RIGHT}"))?;
        let port = match authority.port_u16() {
            Some(0) => return Err("port 0 cannot be connected to; write the seller's port".to_owned()),
            Some(port) => port,
            None if https => 443,
            None => 80,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let path = plain_path(uri.path()).map_err(|why| format!("{why}; {RIGHT}"))?;
        Ok(Self { https, host, port, path: path.to_owned(), authority })
    }
}

/// Checks that a text is an http or https URL with a host, without userinfo and fragment.
pub(super) fn web_url(text: &str, right: &str) -> Result<Uri, String> {
    if !(text.starts_with("http://") || text.starts_with("https://")) {
        return Err(format!("`{text}` does not begin with `http://` or `https://`; {right}"));
    }
    if text.contains('#') {
        return Err(format!("a URL's fragment (`#…`) is never sent; {right}"));
    }
    let uri: Uri = text.parse().map_err(|error| format!("`{text}` is not a URL ({error}); {right}"))?;
    let authority = uri.authority().map_or("", Authority::as_str);
    if authority.contains('@') {
        // The text is not repeated: it may hold a password.
        return Err(format!("a name or password before `@` is not sent; use `api_key` or `headers`; {right}"));
    }
    let host = uri.host().unwrap_or_default();
    let port_lost = uri.port_u16().is_none() && authority.len() != host.len();
    if port_lost {
        return Err(format!("`{authority}` has no port from 1 to 65535 after its `:`; {right}"));
    }
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let named = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host_name(host),
    };
    if !named {
        return Err(format!("`{host}` is not a host; {right}"));
    }
    Ok(uri)
}

/// Whether a text can be a host name or an IPv4 address. Underscores are let through: container names have them.
pub fn host_name(text: &str) -> bool {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.len() <= HOST_BYTES_MAX && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// A path without the slash at its end; empty for `/`. Refuses what two readers could take for two paths.
pub(super) fn plain_path(text: &str) -> Result<&str, String> {
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    if trimmed.is_empty() {
        return Ok(trimmed);
    }
    let Some(inner) = trimmed.strip_prefix('/') else {
        return Err(format!("the path `{text}` does not begin with `/`"));
    };
    for segment in inner.split('/') {
        if segment.is_empty() {
            return Err(format!("the path `{text}` has two slashes in a row"));
        }
        if segment == "." || segment == ".." {
            return Err(format!("the path `{text}` has a `{segment}` in it"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
        if !segment.bytes().all(plain) {
            return Err(format!("the path `{text}` has a character other than letters, digits and -._~!$&'()*+,;=:@"));
        }
    }
    Ok(trimmed)
}

/// Whether one path is the other or a prefix of it, segment by segment. Both without a slash at the end.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let within =
        |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    within(a, b) || within(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, https: bool, host: &str, port: u16, path: &str) {
        let url = BaseUrl::read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((url.https, url.host.as_str(), url.port, url.path.as_str()), (https, host, port, path), "{text}");
    }

    fn refused(text: &str, word: &str) {
        let message = BaseUrl::read(text).err().unwrap_or_default();
        assert!(message.contains(word), "{text}: {message:?}");
    }

    #[test]
    fn base_urls() {
        check("http://127.0.0.1:9000/v1", false, "127.0.0.1", 9000, "/v1");
        check("http://127.0.0.1:9000/v1/", false, "127.0.0.1", 9000, "/v1");
        check("http://seller", false, "seller", 80, "");
        check("http://seller/", false, "seller", 80, "");
        check("https://API.Example.com", true, "api.example.com", 443, "");
        check("https://[::1]:8443/a/b", true, "::1", 8443, "/a/b");
        check("http://model_server:1/x", false, "model_server", 1, "/x");
        assert_eq!(BaseUrl::read("https://a.example:444/v1").unwrap().authority, "a.example:444");
    }

    #[test]
    fn what_is_no_base_url() {
        refused("", "does not begin with");
        refused("127.0.0.1:9000", "does not begin with");
        refused("ftp://x", "does not begin with");
        refused("HTTP://x", "does not begin with");
        refused("http://", "not a URL");
        refused("http:///v1", "not a URL");
        refused("http://:80/v1", "is not a host");
        refused("http://a b/v1", "not a URL");
        refused("http://x?a=b", "no query");
        refused("http://x/?", "no query");
        refused("http://x/#top", "fragment");
        refused("http://user:pw@x/", "before `@`");
        refused("http://x:0/", "port 0");
        refused("http://x:65536/", "no port");
        refused("http://x:/", "no port");
        refused("http://x:y/", "no port");
        refused("http://a..b/", "is not a host");
        refused("http://-%41/", "not a");
        refused("http://[::g]/", "is not a host");
        refused("http://x//v1", "two slashes");
        refused("http://x/v1//", "two slashes");
        refused("http://x/a/../b", "`..`");
        refused("http://x/a%2fb", "a character other than");
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let message = BaseUrl::read("http://user:hunter2@x/").unwrap_err();
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn paths_overlap_by_whole_segments() {
        for (a, b, expected) in [
            ("", "/v1", true),
            ("/v1", "/v1", true),
            ("/v1", "/v1/infers", true),
            ("/v1/weather", "/v1", true),
            ("/v1beta", "/v1", false),
            ("/weather", "/v1", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
        }
    }
}
