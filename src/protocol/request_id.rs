//! Says whether a client's `X-Request-Id` may be kept. Making a new one is the proxy's.

/// Longest request id that is kept, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Whether the bytes are a request id that can go into logs, records and headers as they are: one
/// to [`REQUEST_ID_BYTES_MAX`] letters, digits, hyphens, underscores, full stops or colons.
pub fn valid_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_ids_that_are_safe_everywhere() {
        for good in ["a", "0", "9f3c-11", "a_b.c:d", "0195c1de-5a3e-7bd0-9b2f-3f2d5f0d8a11", &"x".repeat(128)] {
            assert!(valid_request_id(good.as_bytes()), "{good}");
        }
        for bad in ["", " ", "a b", "a/b", "a\"b", "a\nb", "\0", "a,b", "ü", "{}", "a;b", &"x".repeat(129)] {
            assert!(!valid_request_id(bad.as_bytes()), "{bad}");
        }
    }
}
