//! What may stand in `Host`: a name or an address, and at most a port. Names are not resolved.

use std::net::Ipv6Addr;

use crate::protocol::class;

/// Whether the text is `host`, `host:port`, `[v6]` or `[v6]:port`. Narrower than RFC 3986: of its
/// reg-name only letters, digits and `-._~`, because a comma or a percent sign is read in two ways.
pub(super) fn is_host(text: &[u8]) -> bool {
    if let Some(rest) = text.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else {
            return false;
        };
        let Some((address, after)) = rest.split_at_checked(end) else {
            return false;
        };
        let port = match after {
            [b']'] => true,
            [b']', b':', port @ ..] => is_port(port),
            _ => false,
        };
        return port && std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    }
    let end = class::span(text, class::HOST);
    match text.get(end..) {
        Some([]) => end > 0,
        Some([b':', port @ ..]) => end > 0 && is_port(port),
        Some(_) | None => false,
    }
}

fn is_port(text: &[u8]) -> bool {
    let number = text.iter().try_fold(0_u32, |number, byte| {
        byte.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u32::from(byte - b'0')))
    });
    (1..=5).contains(&text.len()) && number.is_some_and(|number| number <= u32::from(u16::MAX))
}
