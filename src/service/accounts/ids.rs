//! New ids: a short word and 80 random or hashed bits as lower-case base32.

use sha2::{Digest, Sha256};

use crate::domain::id::{AccountId, AppCodeId, AppId, CommandId, KeyId, PackageId};
use crate::ports::clock::Entropy;

/// Bytes behind an id; five of them make eight characters.
const ID_BYTES: usize = 10;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A command's id, for callers that bring none.
pub fn command_from(entropy: &dyn Entropy) -> CommandId {
    well_formed(CommandId::new(&text("cmd", random(entropy))))
}

/// A new package's id.
pub(super) fn package_from(entropy: &dyn Entropy) -> PackageId {
    well_formed(PackageId::new(&text("pkg", random(entropy))))
}

/// The id of the account that a command opens: the same for the same command, so that asking again finds it.
pub(super) fn account_of(command: &CommandId) -> AccountId {
    well_formed(AccountId::new(&text("acct", hashed(&["account", command.as_str()]))))
}

/// The id of the key that a command adds to an account; see [`account_of`].
pub(super) fn key_of(account: &AccountId, command: &CommandId) -> KeyId {
    well_formed(KeyId::new(&text("key", hashed(&["key", account.as_str(), command.as_str()]))))
}

/// The id of the app that a command adds to an account; see [`account_of`].
pub(super) fn app_of(account: &AccountId, command: &CommandId) -> AppId {
    well_formed(AppId::new(&text("app", hashed(&["app", account.as_str(), command.as_str()]))))
}

/// The id of the AppCode that a command adds to an account's app; see [`account_of`].
pub(super) fn code_of(account: &AccountId, command: &CommandId) -> AppCodeId {
    well_formed(AppCodeId::new(&text("code", hashed(&["code", account.as_str(), command.as_str()]))))
}

/// The id under which a decision on a package's suspense is remembered.
pub(super) fn resolution_of(package: &PackageId, command: &CommandId) -> CommandId {
    well_formed(CommandId::new(&text("cmd", hashed(&["resolution", package.as_str(), command.as_str()]))))
}

#[expect(clippy::expect_used, reason = "a prefix, a hyphen and 16 characters of a-z2-7 always make an id")]
fn well_formed<T, E: std::fmt::Debug>(id: Result<T, E>) -> T {
    id.expect("a well-formed id")
}

fn random(entropy: &dyn Entropy) -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    entropy.fill(&mut bytes);
    bytes
}

fn hashed(parts: &[&str]) -> [u8; ID_BYTES] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part); // no part holds the separator: ids have no slash
        hash.update(b"/");
    }
    let mut bytes = [0; ID_BYTES];
    for (byte, hashed) in bytes.iter_mut().zip(hash.finalize()) {
        *byte = hashed;
    }
    bytes
}

fn text(prefix: &str, bytes: [u8; ID_BYTES]) -> String {
    let mut text = format!("{prefix}-");
    for five in bytes.chunks(5) {
        let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let digits = (0..8).rev().map(|place| (bits >> (5 * place)) as usize % BASE32.len());
        text.extend(digits.filter_map(|digit| BASE32.get(digit)).map(|byte| char::from(*byte)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: [u8; ID_BYTES], expected: &str) {
        assert_eq!(text("x", bytes), format!("x-{expected}"));
    }

    #[test]
    fn ids_are_base32_in_lower_case() {
        check([0; 10], "aaaaaaaaaaaaaaaa");
        check([0xff; 10], "7777777777777777");
        check(*b"foobar1234", "mzxw6ytboiytemzu")
    }

    #[test]
    fn the_same_command_makes_the_same_ids_within_one_account() {
        let (one, two) = (CommandId::new("c-1").unwrap(), CommandId::new("c-2").unwrap());
        let (mine, yours) = (AccountId::new("a").unwrap(), AccountId::new("b").unwrap());
        assert_eq!(account_of(&one), account_of(&one));
        assert_ne!(account_of(&one), account_of(&two));
        assert_eq!(key_of(&mine, &one), key_of(&mine, &one));
        assert_ne!(key_of(&mine, &one), key_of(&yours, &one));
    }
}
