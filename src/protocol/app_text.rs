//! The texts of an app: AppKey, AppSecret and AppCode, made of random bytes or brought by their owner.

use secrecy::{ExposeSecret, SecretString};

use super::signature::canonical::hex;
use super::signature::is_app_key;

/// Random bytes of a new AppKey or AppSecret.
pub const HALF_BYTES: usize = 16;
/// Random bytes of a new AppCode: with the 62 letters and digits they make 64 characters or more.
pub const CODE_RANDOM_BYTES: usize = 96;
/// Shortest AppKey that is brought, in characters.
pub const APP_KEY_CHARS_MIN: usize = 8;
/// Shortest and longest AppSecret, in characters.
pub const SECRET_CHARS: std::ops::RangeInclusive<usize> = 16..=128;
/// Shortest and longest AppCode, in characters: APIG's figures.
pub const CODE_CHARS: std::ops::RangeInclusive<usize> = 64..=180;
/// First characters of an AppCode that are shown.
const HINT_CHARS: usize = 6;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why a text that was brought is not accepted. The text is no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppTextFault {
    /// Not an AppKey.
    #[error("an AppKey has 8 to 128 visible ASCII characters and no comma")]
    AppKey,
    /// Not an AppSecret.
    #[error("an AppSecret has 16 to 128 visible ASCII characters")]
    Secret,
    /// Not an AppCode.
    #[error(
        "an AppCode has 64 to 180 characters of A-Z a-z 0-9 + _ ! @ # $ % - / = and begins with a letter, a digit, + or /"
    )]
    Code,
}

/// A new AppKey, or a new AppSecret.
pub fn half_from(random: [u8; HALF_BYTES]) -> String {
    hex(&random)
}

/// A new AppCode of 64 characters; `None` if the bytes are so uneven that no 64 come of them.
pub fn code_from(random: [u8; CODE_RANDOM_BYTES]) -> Option<SecretString> {
    // 248 = 4 × 62: below it each character has four bytes.
    let even = random.into_iter().filter(|byte| *byte < 248);
    let digit = |byte: u8| BASE62.get(usize::from(byte) % BASE62.len()).copied().map_or('0', char::from);
    let text: String = even.map(digit).take(*CODE_CHARS.start()).collect();
    (text.len() == *CODE_CHARS.start()).then(|| text.into())
}

/// Checks an AppKey that is brought.
///
/// # Errors
/// [`AppTextFault::AppKey`].
pub fn check_app_key(text: &str) -> Result<(), AppTextFault> {
    if is_app_key(text) && text.len() >= APP_KEY_CHARS_MIN { Ok(()) } else { Err(AppTextFault::AppKey) }
}

/// Checks an AppSecret that is brought.
///
/// # Errors
/// [`AppTextFault::Secret`].
pub fn check_secret(text: &SecretString) -> Result<(), AppTextFault> {
    let text = text.expose_secret();
    let good = SECRET_CHARS.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(()) } else { Err(AppTextFault::Secret) }
}

/// Whether a text can be an AppCode.
pub fn is_code(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+_!@#$%-/=".contains(&byte);
    CODE_CHARS.contains(&text.len()) && first && text.bytes().all(fits)
}

/// Enough to recognise an AppCode by, and too little to use it.
pub fn code_hint(text: &str) -> String {
    format!("{}…", text.get(..HINT_CHARS).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_accepted() {
        let key = half_from(std::array::from_fn(|at| at as u8));
        assert_eq!(key, "000102030405060708090a0b0c0d0e0f");
        assert_eq!((check_app_key(&key), check_secret(&key.into())), (Ok(()), Ok(())));
        let code = code_from(std::array::from_fn(|at| at as u8)).unwrap();
        assert!(is_code(code.expose_secret()));
        assert_eq!(code_hint(code.expose_secret()), "012345…");
        assert!(code_from([255; CODE_RANDOM_BYTES]).is_none());
    }

    #[test]
    fn what_is_brought_has_its_bounds() {
        for (text, good) in [("12345678", true), ("1234567", false), ("1234,5678", false), ("1234 5678", false)] {
            assert_eq!(check_app_key(text).is_ok(), good, "{text}");
        }
        for (text, good) in
            [("0123456789abcdef", true), ("0123456789abcde", false), ("", false), ("0123456789abcdé", false)]
        {
            assert_eq!(check_secret(&text.into()).is_ok(), good, "{text}");
        }
        for (length, good) in [(63, false), (64, true), (180, true), (181, false)] {
            assert_eq!(is_code(&"a".repeat(length)), good, "{length}");
        }
        for (first, good) in [("+", true), ("/", true), ("9", true), ("_", false), ("=", false)] {
            assert_eq!(is_code(&format!("{first}{}", "x_!@#$%-/=".repeat(7))), good, "{first}");
        }
        assert!(!is_code(&format!("a {}", "x".repeat(64))));
    }
}
