//! Ed25519 keys as values: read, checked, printed. Keys are PEM as other tools make and read them (PKCS#8, SPKI).

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// Bytes of a public key, and of what a private one is made from.
pub const KEY_BYTES: usize = 32;
/// What stands before a key's bytes in PKCS#8 and in SPKI (RFC 8410).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Not a private key.
    #[error("no private Ed25519 key in PEM; make one with `tollgate receipt keygen`")]
    Private,
    /// Not a public key.
    #[error("no public Ed25519 key in PEM; `tollgate receipt keygen` prints one")]
    Public,
}

/// A key that signs. What it is made of is never shown.
#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

impl SigningKey {
    /// Reads PKCS#8 in PEM, with or without the public key in it.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_pem(pem: &str) -> Result<Self, KeyFault> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyFault::Private)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        pair.map(|pair| Self(Arc::new(pair))).map_err(|_| KeyFault::Private)
    }

    /// PKCS#8 in PEM of the key that is made from a random seed.
    pub fn pem_of(seed: [u8; KEY_BYTES]) -> String {
        pem("PRIVATE KEY", &[&PKCS8[..], &seed].concat())
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY_BYTES];
        bytes.iter_mut().zip(self.0.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        PublicKey(bytes)
    }

    /// Signs bytes; the same bytes get the same signature.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {:?})", self.public())
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}

/// A key that verifies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; KEY_BYTES]);

impl PublicKey {
    /// Reads SPKI in PEM.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_pem(pem: &str) -> Result<Self, KeyFault> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyFault::Public)?;
        let key = der.strip_prefix(&SPKI[..]).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or(KeyFault::Public)
    }

    /// SPKI in PEM.
    pub fn to_pem(self) -> String {
        pem("PUBLIC KEY", &[&SPKI[..], &self.0].concat())
    }

    /// Whether the other half has signed these bytes.
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(bytes, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// Both kinds of keys fit into one line of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_verify_what_they_signed_and_nothing_else() {
        let key = SigningKey::from_pem(&SigningKey::pem_of([7; 32])).unwrap();
        let public = PublicKey::from_pem(&key.public().to_pem()).unwrap();
        assert_eq!(public, key.public());
        let signature = key.sign(b"bytes");
        assert!(public.verifies(b"bytes", &signature));
        assert!(!public.verifies(b"bytes.", &signature));
        assert!(!public.verifies(b"bytes", signature.get(1..).unwrap()));
        let other = SigningKey::from_pem(&SigningKey::pem_of([8; 32])).unwrap();
        assert!(!other.public().verifies(b"bytes", &signature));
        assert!(!format!("{key:?}").contains("BwcH"), "the seed is not shown");
    }

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
            0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let key = SigningKey::from_pem(&SigningKey::pem_of(seed)).unwrap();
        assert_eq!(key.public().0.get(..4), Some(&[0xd7, 0x5a, 0x98, 0x01][..]));
        assert_eq!(key.sign(b"").get(..4), Some(&[0xe5, 0x56, 0x43, 0x00][..]));
    }

    #[test]
    fn what_is_no_key() {
        let (private, public) = (SigningKey::pem_of([7; 32]), SigningKey::from_pem(&SigningKey::pem_of([7; 32])));
        let public = public.unwrap().public().to_pem();
        for bad in ["", "text", &public, &private.replace("MC4", "MC5")] {
            assert_eq!(SigningKey::from_pem(bad).err(), Some(KeyFault::Private), "{bad}");
        }
        for bad in ["", "text", &private] {
            assert_eq!(PublicKey::from_pem(bad), Err(KeyFault::Public), "{bad}");
        }
    }
}
