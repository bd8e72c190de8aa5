//! Which bytes may stand where in HTTP/1, as one table that is built at compile time.
//! What a field means is not decided here.

/// In a field name: a token byte that is no underscore.
pub(super) const NAME: u8 = 1;
/// In a token (a method, a connection option).
pub(super) const TOKEN: u8 = 1 << 1;
/// In a request target.
pub(super) const TARGET: u8 = 1 << 2;
/// In a host name or an IPv4 address.
pub(super) const HOST: u8 = 1 << 3;
/// In the names of all fields that mean something here: a letter, a digit or a hyphen.
pub(super) const PLAIN_NAME: u8 = 1 << 4;
/// In RFC 9110's token68, before the `=` at its end.
pub(super) const TOKEN68: u8 = 1 << 5;

static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "runs at compile time, where a wrong index does not build")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let mut bits = 0;
        if byte.is_ascii_alphanumeric() {
            bits |= NAME | PLAIN_NAME | TOKEN | HOST | TOKEN68;
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
            bits |= HOST | TOKEN68;
        }
        if matches!(byte, b'+' | b'/') {
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

/// The classes that a byte is of.
#[inline]
fn classes_of(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Whether the byte is of a class.
#[inline]
pub(super) fn is(byte: u8, class: u8) -> bool {
    classes_of(byte) & class != 0
}

/// Whether all bytes are of a class.
#[inline]
pub(super) fn are(text: &[u8], class: u8) -> bool {
    span(text, class) == text.len()
}

/// How many bytes stand before the first that is not of a class. Four at a time: most texts are longer.
#[inline]
pub(super) fn span(text: &[u8], class: u8) -> usize {
    let are = |four: &[u8; 4]| four.iter().fold(class, |common, byte| common & classes_of(*byte)) != 0;
    let mut rest = text;
    while let Some((four, after)) = rest.split_first_chunk()
        && are(four)
    {
        rest = after;
    }
    while let Some((byte, after)) = rest.split_first()
        && is(*byte, class)
    {
        rest = after;
    }
    text.len() - rest.len()
}

/// Whether the byte may stand in a field value: no control byte but the tab; 0x80 and above may.
#[inline]
pub(super) fn is_value(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}

/// Whether all bytes may stand in a field value.
#[inline]
pub(super) fn are_values(text: &[u8]) -> bool {
    span_without_control(text) == text.len() || text.iter().all(|byte| is_value(*byte)) // tabs are rare
}

/// How many bytes stand before the first control byte, which a tab is too. Eight at a time: of what a head holds most is
/// values.
#[inline]
pub(super) fn span_without_control(text: &[u8]) -> usize {
    let (eights, rest) = text.as_chunks::<8>();
    let mut passed = 0;
    for eight in eights {
        let control = control_bytes(u64::from_le_bytes(*eight));
        if control != 0 {
            return passed + control.trailing_zeros() as usize / 8;
        }
        passed += 8;
    }
    passed + rest.iter().take_while(|byte| !byte.is_ascii_control()).count()
}

/// Not 0 if and only if one of eight bytes is a control byte; its lowest bit lies in the first of them. (A byte below 32
/// borrows its highest bit when 32 is taken from it, one above 127 has it before; 127 is what becomes 0 by exclusive or
/// with itself. A borrow alters the bytes behind its own alone.)
#[inline]
fn control_bytes(word: u64) -> u64 {
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
        let count = |class: u8| (0..=u8::MAX).filter(|byte| is(*byte, class)).count();
        assert_eq!(count(TOKEN), 77);
        assert_eq!(count(NAME), 76);
        assert_eq!(count(PLAIN_NAME), 63);
        assert_eq!(count(TARGET), 94 - 5);
        assert_eq!(count(HOST), 62 + 4);
        assert_eq!(count(TOKEN68), 62 + 6);
        assert_eq!((0..=u8::MAX).filter(|byte| is_value(*byte)).count(), 256 - 33 + 1);
    }

    #[test]
    fn a_span_ends_at_the_first_byte_of_another_class() {
        for length in 0..20 {
            let mut text = vec![b'a'; length];
            assert_eq!(span(&text, HOST), length);
            for at in (0..length).rev() {
                text[at] = b'/';
                assert_eq!(span(&text, HOST), at, "of {length}");
                assert_eq!(span(&text, TARGET), length);
            }
        }
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
            let control = text.iter().position(u8::is_ascii_control).unwrap_or(text.len());
            proptest::prop_assert_eq!(span_without_control(&text), control);
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
            let span = if byte.is_ascii_control() { place } else { length };
            assert_eq!(span_without_control(&text), span, "{byte} at {place} of {length}");
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
