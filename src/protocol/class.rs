//! Which bytes may stand where in HTTP/1, as one table that is built at compile time.
//! What a field means is not decided here.

const NAME: u8 = 1;
const TOKEN: u8 = 1 << 1;
const TARGET: u8 = 1 << 2;
const HOST: u8 = 1 << 3;
const PLAIN_NAME: u8 = 1 << 4;
const TOKEN68: u8 = 1 << 5;

static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "runs at compile time, where a wrong index does not build")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let mut bits = 0;
        if byte.is_ascii_alphanumeric() {
            bits |= NAME | PLAIN_NAME | TOKEN | HOST;
        }
        if byte == b'-' {
            bits |= PLAIN_NAME;
        }
        // RFC 9110 section 5.6.2; the underscore is a token byte, but not one of ours in a name.
        if matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'`' | b'|' | b'~'
        ) {
            bits |= NAME | TOKEN;
        }
        if byte == b'_' {
            bits |= TOKEN;
        }
        if matches!(byte, b'-' | b'.' | b'_' | b'~') {
            bits |= HOST;
        }
        // RFC 9110 section 11.2, without what it may end in.
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/') {
            bits |= TOKEN68;
        }
        // The engine's own parser knows no `"`, `<`, `>` or backtick in a target: refused here, so
        // that the refusal is ours. A fragment (`#`) never travels.
        if byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'`') {
            bits |= TARGET;
        }
        table[at] = bits;
        at += 1;
    }
    table
}

#[inline]
fn has(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|bits| bits & class != 0)
}

/// Whether the byte may stand in a field name: a token byte that is no underscore.
#[inline]
pub(super) fn is_name(byte: u8) -> bool {
    has(byte, NAME)
}

/// Whether the byte stands in the names of all fields that mean something here: a letter, a digit or a hyphen.
#[inline]
pub(super) fn is_plain_name(byte: u8) -> bool {
    has(byte, PLAIN_NAME)
}

/// Whether the byte may stand in a token (a method, a connection option).
#[inline]
pub(super) fn is_token(byte: u8) -> bool {
    has(byte, TOKEN)
}

/// Whether the byte may stand in a credential of the form token68, before the `=` that it may end in.
#[inline]
pub(super) fn is_token68(byte: u8) -> bool {
    has(byte, TOKEN68)
}

/// Whether the byte may stand in a request target.
#[inline]
pub(super) fn is_target(byte: u8) -> bool {
    has(byte, TARGET)
}

/// Whether the byte may stand in a host name or an IPv4 address.
#[inline]
pub(super) fn is_host(byte: u8) -> bool {
    has(byte, HOST)
}

/// Whether the byte may stand in a field value: no control byte but the tab; 0x80 and above may.
#[inline]
pub(super) fn is_value(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// Whether all bytes may stand in a field value. Eight at a time: of what a head holds most is values.
#[inline]
pub(super) fn are_values(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [b' '; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let odd_in = |odd, word: &[u8; 8]| odd | odd_bytes(u64::from_le_bytes(*word));
    let odd = words.iter().fold(odd_in(0, &last), odd_in);
    odd == 0 || text.iter().all(|byte| is_value(*byte)) // a tab is odd, and may stand there
}

/// Not 0 if and only if one of eight bytes is a control byte, the tab among them. (A byte below 32 borrows its highest
/// bit when 32 is taken from it, one above 127 has it before; 127 is what becomes 0 by exclusive or with itself.)
#[inline]
fn odd_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let deleted = word ^ u64::from_le_bytes([0x7f; 8]);
    let low = word.wrapping_sub(u64::from_le_bytes([b' '; 8])) & !word;
    (low | deleted.wrapping_sub(ONES) & !deleted) & HIGH
}

/// The text without the spaces and tabs around it.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Headers that the gateway itself reads, adds or signs over. A client may neither strike one out
/// by naming it in `Connection` nor slip one in as a trailer. `name` is in lower case.
pub(super) fn is_guarded(name: &[u8]) -> bool {
    matches!(
        name,
        b"host" | b"authorization" | b"content-length" | b"content-type" | b"cookie" | b"x-request-id" | b"x-api-key"
    ) || [b"x-apig-".as_slice(), b"x-sdk-", b"x-tollgate-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a careless server could take a name for one that frames, or that the gateway relies on. Some write each byte
/// that is no letter or digit as an underscore, as CGI has it, and a hyphen too; some leave such bytes out.
pub(super) fn resembles_guarded(name: &[u8]) -> bool {
    if resembles_framing(name) {
        return true;
    }
    let mut hyphened = [0; NAME_KEPT_BYTES];
    for (to, from) in hyphened.iter_mut().zip(name) {
        *to = if from.is_ascii_alphanumeric() { from.to_ascii_lowercase() } else { b'-' };
    }
    is_guarded(hyphened.get(..name.len()).unwrap_or(&hyphened))
}

/// Whether a name is that of a field that frames, or would be without its punctuation.
#[inline]
pub(super) fn resembles_framing(name: &[u8]) -> bool {
    let letters = || name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
    letters().eq(b"transferencoding".iter().copied()) || letters().eq(b"contentlength".iter().copied())
}

/// Bytes kept of a name that is compared with the guarded ones: more than the longest has.
pub(super) const NAME_KEPT_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_the_bytes_of_their_rules() {
        let count = |member: fn(u8) -> bool| (0..=u8::MAX).filter(|byte| member(*byte)).count();
        assert_eq!(count(is_token), 77);
        assert_eq!(count(is_name), 76);
        assert_eq!(count(is_plain_name), 63);
        assert_eq!(count(is_target), 94 - 5);
        assert_eq!(count(is_host), 62 + 4);
        assert_eq!(count(is_value), 256 - 33 + 1);
    }

    proptest::proptest! {
        #[test]
        fn values_by_eights_are_values_one_by_one(
            plain in "[ -~]{0,40}",
            bytes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0..=u8::MAX), 0..3),
        ) {
            let mut text = plain.into_bytes();
            for (at, byte) in bytes {
                text.insert(at.index(text.len() + 1), byte);
            }
            proptest::prop_assert_eq!(are_values(&text), text.iter().all(|byte| is_value(*byte)));
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_value() {
        for (byte, place, length) in
            (0..=u8::MAX).flat_map(|byte| (0..20).map(move |at| (byte, at % 10, 10 + at / 10 * 7)))
        {
            let mut text = vec![b'a'; length];
            text[place] = byte;
            assert_eq!(are_values(&text), is_value(byte), "{byte} at {place} of {length}");
        }
    }

    #[test]
    fn trims_both_ends_only() {
        assert_eq!(trim(b" \t a b \t"), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b""), b"");
    }

    #[test]
    fn names_that_resemble_guarded_ones() {
        for name in [
            "Transfer.Encoding",
            "TRANSFER+ENCODING",
            "!transfer-encoding",
            "Content~Length",
            "contentlength|",
            "X.Sdk.Date",
            "host",
            "X-Api.Key",
        ] {
            assert!(resembles_guarded(name.as_bytes()), "{name}");
        }
        for name in [
            "x.y",
            "hosts",
            "transfer.encodings",
            "x-sdk",
            "a.host",
            "!",
            "a-name-that-is-longer-than-what-is-kept.of-it",
        ] {
            assert!(!resembles_guarded(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn every_guarded_name_fits_what_is_kept() {
        assert!(is_guarded(b"x-tollgate-anything"));
        assert!(!is_guarded(b"x-tollgate"));
        assert!(!is_guarded(b"accept"));
        assert!(b"proxy-authorization".len() < NAME_KEPT_BYTES);
    }
}
