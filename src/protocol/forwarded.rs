//! What proxies say of whom they speak for: `X-Forwarded-For` and `Forwarded` (RFC 7239). Read from the right, where the
//! nearest proxy has written; what stands left of the first address that is no trusted proxy's is whatever the client
//! wrote, and is never looked at.

use std::net::IpAddr;

use crate::domain::network::{Network, ProxyHeader, any_contains};

/// One entry of such a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hop {
    /// The address that the proxy spoke with.
    Address(IpAddr),
    /// The proxy does not say.
    Hidden,
}

/// An entry that should be a trusted proxy's word and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header {name} is malformed")]
pub struct ForwardedFault {
    /// The header's name.
    pub name: &'static str,
}

/// The address of the client: the right-most one that is not a trusted proxy's. `peer` is who speaks with us, `lines` are
/// the header's lines in the order in which they came. Where all are trusted, the left-most one; where a trusted proxy
/// does not say whom it spoke with, that proxy.
///
/// # Errors
/// When a trusted proxy's entry is no address: whatever was taken instead, allow-lists and limits would count it as the
/// client's.
pub fn client_of<'l>(
    peer: IpAddr,
    (header, lines): (ProxyHeader, impl DoubleEndedIterator<Item = &'l [u8]>),
    trusted: &[Network],
) -> Result<IpAddr, ForwardedFault> {
    walk(peer, (header, lines), trusted).map(|(client, _)| client)
}

/// Whether the entry of `Forwarded` that names the client says that it spoke TLS with the proxy.
pub fn is_tls<'l>(peer: IpAddr, lines: impl DoubleEndedIterator<Item = &'l [u8]>, trusted: &[Network]) -> bool {
    let walked = walk(peer, (ProxyHeader::Forwarded, lines), trusted);
    let mut protocols = walked.ok().and_then(|(_, element)| element).into_iter().flat_map(pairs).filter_map(|pair| {
        let (name, value) = pair.trim_matches([' ', '\t']).split_once('=')?;
        name.eq_ignore_ascii_case("proto").then(|| value.trim_matches('"'))
    });
    let first = protocols.next();
    first.is_some_and(|first| first.eq_ignore_ascii_case("https")) && protocols.next().is_none()
}

/// The header beside `X-Forwarded-For` that says how a proxy was spoken with.
pub const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Whether the lines of [`FORWARDED_PROTO`] say so: all that they say, since nothing tells whose word is whose.
pub fn are_tls<'l>(lines: impl Iterator<Item = &'l [u8]>) -> bool {
    let mut words = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).peekable();
    words.peek().is_some() && words.all(|word| word.eq_ignore_ascii_case(b"https"))
}

/// The client's address, and the entry that names it.
fn walk<'l>(
    peer: IpAddr,
    (header, lines): (ProxyHeader, impl DoubleEndedIterator<Item = &'l [u8]>),
    trusted: &[Network],
) -> Result<(IpAddr, Option<&'l str>), ForwardedFault> {
    let (mut client, mut named_by) = (peer.to_canonical(), None);
    if !any_contains(trusted, client) {
        return Ok((client, None));
    }
    let name = header_name(header);
    for line in lines.rev() {
        let line = std::str::from_utf8(line).map_err(|_| ForwardedFault { name })?;
        let elements = match header {
            ProxyHeader::XForwardedFor => Some(line.split(',').collect()),
            ProxyHeader::Forwarded => elements(line),
        };
        for element in elements.ok_or(ForwardedFault { name })?.into_iter().rev() {
            let element = element.trim_matches([' ', '\t']);
            if element.is_empty() {
                continue; // lists may have empty elements (RFC 9110 section 5.6.1)
            }
            let hop = match header {
                ProxyHeader::XForwardedFor => plain_hop(element),
                ProxyHeader::Forwarded => forwarded_hop(element),
            };
            match hop.ok_or(ForwardedFault { name })? {
                Hop::Hidden => return Ok((client, Some(element))),
                Hop::Address(address) => (client, named_by) = (address.to_canonical(), Some(element)),
            }
            if !any_contains(trusted, client) {
                return Ok((client, named_by));
            }
        }
    }
    Ok((client, named_by))
}

/// The header's name, in lower case.
pub const fn header_name(header: ProxyHeader) -> &'static str {
    match header {
        ProxyHeader::XForwardedFor => "x-forwarded-for",
        ProxyHeader::Forwarded => "forwarded",
    }
}

/// An entry of `X-Forwarded-For`: an address, by some proxies with the port.
fn plain_hop(element: &str) -> Option<Hop> {
    if element.eq_ignore_ascii_case("unknown") {
        return Some(Hop::Hidden);
    }
    let bare = element.parse().ok().map(Hop::Address);
    bare.or_else(|| with_port(element))
}

/// `a.b.c.d`, `a.b.c.d:port`, `[v6]` or `[v6]:port`.
fn with_port(node: &str) -> Option<Hop> {
    let (address, port): (IpAddr, _) = match node.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
            (IpAddr::V6(address.parse().ok()?), port)
        }
        None => {
            let (address, port) = node.split_once(':').map_or((node, None), |(address, port)| (address, Some(port)));
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    let numeric = |port: &str| matches!(port.len(), 1..=5) && port.bytes().all(|digit| digit.is_ascii_digit());
    port.is_none_or(|port| numeric(port) || hidden(port)).then_some(Hop::Address(address))
}

/// An identifier that stands for an address or a port without telling it (RFC 7239 section 6.3).
fn hidden(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(inside))
}

/// Splits a line of `Forwarded` at the commas outside of quotes. The whole line must be well quoted: a client's open quote
/// would swallow what the proxy has written behind it.
fn elements(line: &str) -> Option<Vec<&str>> {
    let (mut elements, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped, mut closed) = (false, false, false);
    let mut before = ' ';
    for (at, letter) in line.char_indices() {
        let after_quote = std::mem::take(&mut closed);
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if quoted => (quoted, closed) = (false, true),
            '"' if before == '=' => quoted = true,
            '"' => return None,
            _ if quoted => {}
            ',' => {
                elements.push(line.get(start..at)?);
                start = at.checked_add(1)?;
            }
            ';' | ' ' | '\t' => {}
            _ if after_quote => return None,
            _ => {}
        }
        before = letter;
    }
    if quoted {
        return None;
    }
    elements.push(line.get(start..)?);
    Some(elements)
}

/// An element of `Forwarded`: pairs, of which `for` counts.
fn forwarded_hop(element: &str) -> Option<Hop> {
    let mut found = None;
    for pair in pairs(element) {
        let pair = pair.trim_matches([' ', '\t']);
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        if !name.eq_ignore_ascii_case("for") {
            continue;
        }
        let unquoted = value.strip_prefix('"').map_or(Some(value), |inner| inner.strip_suffix('"'));
        let node = unquoted?;
        let hop = if node.eq_ignore_ascii_case("unknown") || hidden(node) { Hop::Hidden } else { with_port(node)? };
        if found.replace(hop).is_some() {
            return None; // two of them: who is meant?
        }
    }
    Some(found.unwrap_or(Hop::Hidden))
}

/// Splits an element at the semicolons outside of quotes; its quotes are known to be closed.
fn pairs(element: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    element.split(move |letter| {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' => return !quoted,
            _ => {}
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxies of the tests: 10.0.0.0/8 and 2001:db8:a::/48.
    fn client(peer: &str, header: ProxyHeader, lines: &[&str]) -> Option<String> {
        let trusted = ["10.0.0.0/8", "2001:db8:a::/48"].map(|text| Network::new(text).unwrap());
        let lines = lines.iter().map(|line| line.as_bytes());
        client_of(peer.parse().unwrap(), (header, lines), &trusted).ok().map(|client| client.to_string())
    }

    #[test]
    fn the_clients_own_entry_says_whether_it_spoke_tls() {
        let tls = |peer: &str, lines: &[&str]| {
            let trusted = ["10.0.0.0/8", "2001:db8:a::/48"].map(|text| Network::new(text).unwrap());
            is_tls(peer.parse().unwrap(), lines.iter().map(|line| line.as_bytes()), &trusted)
        };
        assert!(tls("10.0.0.1", &["for=203.0.113.7;proto=https"]));
        assert!(tls("10.0.0.1", &["for=203.0.113.7; PROTO=\"HTTPS\""]));
        assert!(tls("10.0.0.1", &["for=198.51.100.1", "proto=https;for=203.0.113.7, for=10.0.0.2;proto=http"]));
        assert!(tls("10.0.0.1", &["for=unknown;proto=https"]));
        assert!(!tls("203.0.113.9", &["for=203.0.113.7;proto=https"]), "no proxy of ours");
        for line in [
            "for=203.0.113.7",
            "for=203.0.113.7;proto=http",
            "for=203.0.113.7;proto=https;proto=http",
            "for=198.51.100.1;proto=https, for=203.0.113.7;proto=http",
            "for=198.51.100.1;proto=https, for=203.0.113.7",
            "for=203.0.113.7;by=\"x;proto=https\"",
            "for=garbled!;proto=https",
            "",
        ] {
            assert!(!tls("10.0.0.1", &[line]), "{line}");
        }
    }

    #[test]
    fn all_words_of_x_forwarded_proto_must_say_tls() {
        let tls = |lines: &[&str]| are_tls(lines.iter().map(|line| line.as_bytes()));
        assert!(tls(&["https"]) && tls(&[" HTTPS , https"]) && tls(&["https", "https"]));
        for lines in [&[][..], &[""], &["http"], &["https, http"], &["https", "http"], &["https,"], &["wss"]] {
            assert!(!tls(lines), "{lines:?}");
        }
    }

    fn plain(peer: &str, lines: &[&str], expected: &str) {
        assert_eq!(client(peer, ProxyHeader::XForwardedFor, lines).as_deref(), Some(expected), "{peer} {lines:?}");
    }

    fn forwarded(lines: &[&str], expected: &str) {
        assert_eq!(client("10.0.0.1", ProxyHeader::Forwarded, lines).as_deref(), Some(expected), "{lines:?}");
    }

    #[test]
    fn who_is_no_proxy_cannot_choose_an_address() {
        plain("192.0.2.1", &[], "192.0.2.1");
        plain("192.0.2.1", &["203.0.113.9"], "192.0.2.1");
        plain("192.0.2.1", &["203.0.113.9, 10.0.0.1"], "192.0.2.1");
        plain("192.0.2.1", &["rubbish"], "192.0.2.1");
        plain("::ffff:192.0.2.1", &["203.0.113.9"], "192.0.2.1");
        plain("2001:db8:b::1", &["203.0.113.9"], "2001:db8:b::1");
    }

    #[test]
    fn the_right_most_address_that_is_no_proxys_counts() {
        plain("10.0.0.1", &[], "10.0.0.1");
        plain("10.0.0.1", &["192.0.2.1"], "192.0.2.1");
        plain("10.0.0.1", &["203.0.113.9, 192.0.2.1"], "192.0.2.1");
        plain("10.0.0.1", &["203.0.113.9, 192.0.2.1, 10.9.9.9"], "192.0.2.1");
        plain("10.0.0.1", &["203.0.113.9", "192.0.2.1, 10.9.9.9", "2001:db8:a::7"], "192.0.2.1");
        plain("10.0.0.1", &["192.0.2.1", ""], "192.0.2.1");
        plain("10.0.0.1", &["192.0.2.1, ,\t,"], "192.0.2.1");
        plain("10.0.0.1", &["rubbish, \"even this, 192.0.2.1"], "192.0.2.1");
        plain("::ffff:10.0.0.1", &["192.0.2.1"], "192.0.2.1");
        plain("2001:db8:a::1", &["2001:db8:b::1"], "2001:db8:b::1");
    }

    #[test]
    fn where_all_are_proxies_the_first_counts() {
        plain("10.0.0.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3");
        plain("10.0.0.1", &["2001:db8:a::3", "10.2.2.2"], "2001:db8:a::3");
    }

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        plain("10.0.0.1", &["192.0.2.1:4711"], "192.0.2.1");
        plain("10.0.0.1", &["2001:db8:b::1"], "2001:db8:b::1");
        plain("10.0.0.1", &["[2001:db8:b::1]"], "2001:db8:b::1");
        plain("10.0.0.1", &["[2001:db8:b::1]:4711"], "2001:db8:b::1");
        plain("10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1");
        plain("10.0.0.1", &["192.0.2.1, ::ffff:10.7.7.7"], "192.0.2.1");
        plain("10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1");
    }

    #[test]
    fn a_proxys_entry_that_is_no_address_is_a_fault() {
        for bad in [
            "rubbish",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.01",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:123456",
            "[::1",
            "::1]",
            "[::1]x",
            "[192.0.2.1]",
            "[::1]:",
            "fe80::1%eth0",
            "192.0.2.1 192.0.2.2",
            "\"192.0.2.1\"",
            "192.0.2.1;",
            "_hidden",
            "for=192.0.2.1",
            "192.0.2.1\u{a0}",
            "192.0.2.1, \u{ff}",
        ] {
            assert_eq!(client("10.0.0.1", ProxyHeader::XForwardedFor, &[bad]), None, "{bad:?}");
            assert_eq!(client("10.0.0.1", ProxyHeader::XForwardedFor, &["192.0.2.1", bad]), None, "{bad:?}");
            plain("10.0.0.1", &[bad, "192.0.2.1"], "192.0.2.1");
            plain("10.0.0.1", &[&format!("{bad}, 192.0.2.1, 10.5.5.5")], "192.0.2.1");
        }
        let trusted = [Network::new("10.0.0.0/8").unwrap()];
        let lines = [&b"\xff"[..]].into_iter();
        assert!(client_of("10.0.0.1".parse().unwrap(), (ProxyHeader::XForwardedFor, lines), &trusted).is_err());
    }

    #[test]
    fn the_standard_header_says_the_same() {
        forwarded(&[], "10.0.0.1");
        forwarded(&["for=192.0.2.1"], "192.0.2.1");
        forwarded(&["For=\"192.0.2.1\""], "192.0.2.1");
        forwarded(&["for=192.0.2.1:80"], "192.0.2.1");
        forwarded(&["for=\"[2001:db8:b::1]:4711\""], "2001:db8:b::1");
        forwarded(&["for=203.0.113.9, for=192.0.2.1;proto=https;by=10.0.0.1, for=10.9.9.9"], "192.0.2.1");
        forwarded(&["for=203.0.113.9", "proto=http ; for=192.0.2.1", "for=\"10.9.9.9:1\""], "192.0.2.1");
        forwarded(&["for=192.0.2.1;host=\"a, b; c \\\" for=1.1.1.1\""], "192.0.2.1");
        forwarded(&["for=192.0.2.1, for=unknown"], "10.0.0.1");
        forwarded(&["for=192.0.2.1, for=_gateway"], "10.0.0.1");
        forwarded(&["for=192.0.2.1, proto=http"], "10.0.0.1");
        forwarded(&["for=192.0.2.1:_port"], "192.0.2.1");
        forwarded(&["rubbish, for=192.0.2.1"], "192.0.2.1");
    }

    #[test]
    fn quotes_that_do_not_close_hide_nobody() {
        for bad in [
            "for=\"203.0.113.9, for=192.0.2.1",
            "for=\"203.0.113.9, for=\"[2001:db8:b::1]\"",
            "for=203.0.113.9\", for=\"192.0.2.1\"",
            "a=\"\\\", for=192.0.2.1",
            "for=192.0.2.1;for=203.0.113.9",
            "for=2001:db8:b::1",
            "for=\"192.0.2.1\"x",
            "for=",
            "for",
            "for=\"\"",
        ] {
            assert_eq!(client("10.0.0.1", ProxyHeader::Forwarded, &[bad]), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_client_writes_changes_what_the_proxy_adds(rubbish in "[ -~]{0,60}") {
            plain("10.0.0.1", &[&format!("{rubbish}, 192.0.2.1")], "192.0.2.1");
            plain("10.0.0.1", &[&rubbish, "192.0.2.1"], "192.0.2.1");
            let found = client("10.0.0.1", ProxyHeader::Forwarded, &[&format!("{rubbish}, for=192.0.2.1")]);
            proptest::prop_assert!(found.is_none() || found.as_deref() == Some("192.0.2.1"), "{:?}", found);
            forwarded(&[&rubbish, "for=192.0.2.1"], "192.0.2.1");
        }
    }
}
