//! Chooses the certificate that a client is shown.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The first certificate that is made out to the name the client asks for, else the first.
#[derive(Debug)]
pub(super) struct ByName(pub(super) Vec<Arc<CertifiedKey>>);

impl ByName {
    fn named(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = ServerName::try_from(name).ok()?;
        self.0.iter().find(|certified| {
            let parsed = certified.cert.first().and_then(|first| ParsedCertificate::try_from(first).ok());
            parsed.is_some_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
        })
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = if self.0.len() > 1 { hello.server_name().and_then(|name| self.named(name)) } else { None };
        named.or(self.0.first()).map(Arc::clone)
    }
}
