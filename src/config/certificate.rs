//! A certificate and its key as files: read, held against each other and against the clock. Who shows them, and when
//! they are read again, is the `tls` module's.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret, SecretSlice};

/// Largest file with certificates or a key, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Permission bits that let others than the owner read or change a file.
const OTHERS: u32 = 0o077;

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM file with the certificate, then those that lead from it to the authority.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
}

/// What the two files hold.
pub struct PairBytes {
    certificate: Vec<u8>,
    key: SecretSlice<u8>,
}

impl PartialEq for PairBytes {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.key.expose_secret() == other.key.expose_secret()
    }
}

impl Eq for PairBytes {}

/// A certificate that can be shown.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate and its key.
    pub key: Arc<CertifiedKey>,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// Why a pair cannot be used: which of the two files is to blame, and what is wrong with it, its name included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFault {
    /// The certificate.
    Certificate(String),
    /// The key.
    Key(String),
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) | Self::Key(why) => f.write_str(why),
        }
    }
}

impl CertificateFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// One cannot be read, or others than its owner may read the key.
    pub fn read(&self) -> Result<PairBytes, CertificateFault> {
        let certificate = read_file(&self.certificate).map_err(CertificateFault::Certificate)?;
        let key = read_key(&self.key).map_err(CertificateFault::Key)?;
        Ok(PairBytes { certificate, key: key.into() })
    }

    /// Makes a pair of what was read.
    ///
    /// # Errors
    /// A file does not hold what it should, the key is another certificate's, or the certificate is not valid now.
    pub fn pair(&self, bytes: &PairBytes, now: Timestamp) -> Result<Pair, CertificateFault> {
        let blame = |why: &str| CertificateFault::Certificate(format!("the file {} {why}", self.certificate.display()));
        let blame_key = |why: &str| CertificateFault::Key(format!("the file {} {why}", self.key.display()));
        let chain: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(&bytes.certificate).collect();
        let chain = chain
            .map_err(|error| blame(&format!("is not well-formed ({error}); name a PEM file with the certificate")))?;
        let first = chain.first().ok_or_else(|| blame("holds no certificate; name a PEM file with one"))?;
        let validity = validity(first).ok_or_else(|| blame("holds what is not a certificate; make a new one"))?;
        if now > validity.not_after {
            return Err(blame(&format!("holds a certificate that expired at {}; get a new one", validity.not_after)));
        }
        if now < validity.not_before {
            let message = format!(
                "holds a certificate that is not valid before {}; use another until then, and see that this machine's \
                 clock is right",
                validity.not_before
            );
            return Err(blame(&message));
        }
        let key = PrivateKeyDer::from_pem_slice(bytes.key.expose_secret())
            .map_err(|_| blame_key("holds no private key; name a PEM file with one"))?;
        let provider = rustls::crypto::ring::default_provider();
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            blame_key("holds a key of a kind that is not known here; use RSA, ECDSA (P-256, P-384) or Ed25519")
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(blame_key(&format!(
                    "is not the key of the certificate in {}; name the key that the certificate was made with",
                    self.certificate.display()
                )));
            }
            Err(error) => return Err(blame(&format!("holds what is not a certificate ({error}); make a new one"))),
        }
        Ok(Pair { key: Arc::new(certified), not_after: validity.not_after })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| {
        format!("the file {} cannot be read ({error}); name a file that this process may read", path.display())
    };
    let found = fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        let path = path.display();
        return Err(format!("{path} is not a regular file of at most {FILE_BYTES_MAX} bytes; name a PEM file"));
    }
    fs::read(path).map_err(unreadable)
}

fn read_key(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read_file(path)?;
    let mode = fs::metadata(path).map_or(OTHERS, |found| found.permissions().mode());
    if mode & OTHERS != 0 {
        let path = path.display();
        return Err(format!("others than its owner may read or change the file {path}; run `chmod 600 {path}`"));
    }
    Ok(bytes)
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

// ASN.1 tags (X.690) of what stands before a certificate's validity, and of the two forms of a time.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Reads the validity of a certificate (RFC 5280 section 4.1): the libraries that check certificates do not tell it.
fn validity(certificate: &[u8]) -> Option<Validity> {
    let (whole, _) = element(certificate, Some(SEQUENCE))?;
    let (mut rest, _) = element(whole, Some(SEQUENCE))?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest, None)?.1;
    }
    for _ in ["serial number", "signature algorithm", "issuer"] {
        rest = element(rest, None)?.1;
    }
    let (times, _) = element(rest, Some(SEQUENCE))?;
    let (not_before, times) = time(times)?;
    let (not_after, _) = time(times)?;
    Some(Validity { not_before, not_after })
}

/// The content of the first element, which must have this tag if one is given, and what follows it.
fn element(bytes: &[u8], tag: Option<u8>) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if tag.is_some_and(|tag| tag != *first) {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let tag = *bytes.first()?;
    let (text, rest) = element(bytes, None)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // Two digits of a year: 1950 to 2049 (RFC 5280 section 4.1.2.5.1).
        UTC_TIME => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%SZ", &text).ok()?;
    Some((civil.to_zoned(TimeZone::UTC).ok()?.timestamp(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
        [head, content.to_vec()].concat()
    }

    fn certificate(version: &[u8], times: &[u8]) -> Vec<u8> {
        let before = [der(2, b"\x01"), der(SEQUENCE, b""), der(SEQUENCE, &[0; 100])].concat();
        let inner = [version.to_vec(), before, der(SEQUENCE, times), der(SEQUENCE, b"the rest")].concat();
        der(SEQUENCE, &[der(SEQUENCE, &inner), der(SEQUENCE, b"")].concat())
    }

    #[test]
    fn validities_are_read_in_both_forms() {
        let times = [der(UTC_TIME, b"490101000000Z"), der(GENERALIZED_TIME, b"20500203040506Z")].concat();
        let expected = Validity {
            not_before: "2049-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2050-02-03T04:05:06Z".parse().unwrap(),
        };
        assert_eq!(validity(&certificate(&der(VERSION, b"\x02\x01\x02"), &times)), Some(expected));
        assert_eq!(validity(&certificate(b"", &times)), Some(expected));
        let old = [der(UTC_TIME, b"500101000000Z"), der(UTC_TIME, b"991231235959Z")].concat();
        let old = validity(&certificate(b"", &old)).unwrap();
        assert_eq!(old.not_before, "1950-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(old.not_after, "1999-12-31T23:59:59Z".parse().unwrap());
    }

    #[test]
    fn what_is_no_certificate_has_no_validity() {
        let good = certificate(b"", &[der(UTC_TIME, b"490101000000Z"), der(UTC_TIME, b"490101000000Z")].concat());
        assert!(validity(&good).is_some());
        for cut in 0..good.len() - 2 {
            let _ = validity(&good[..cut]); // no panic
        }
        assert_eq!(validity(b""), None);
        assert_eq!(validity(b"\x30\x80\x00\x00"), None);
        assert_eq!(validity(b"\x30\x84\xff\xff\xff\xff"), None);
        for times in [&b""[..], &der(UTC_TIME, b"490101000000Z"), &der(UTC_TIME, b"4901010000Z"), &der(4, b"")] {
            assert_eq!(validity(&certificate(b"", times)), None);
        }
    }
}
