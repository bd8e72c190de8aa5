//! TLS towards an admin listener: whom commands trust, and the certificate that they show.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::args::certificate::AdminTls;

/// What the flags say together.
///
/// # Errors
/// What is wrong with a file, or that one is missing.
pub(super) fn client(flags: &AdminTls) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match &flags.admin_ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots);
    match (&flags.admin_cert_file, &flags.admin_key_file) {
        (None, None) => Ok(Arc::new(builder.with_no_client_auth())),
        (Some(shown), Some(file)) => {
            let key = PrivateKeyDer::from_pem_file(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let config = builder.with_client_auth_cert(certificates(shown)?, key);
            config.map(Arc::new).map_err(|error| format!("{}: {error}", shown.display()))
        }
        (_, _) => {
            Err("a certificate and its key belong together; set --admin-cert-file and --admin-key-file".to_owned())
        }
    }
}

/// The certificates of a file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| format!("{}: {error}", file.display()))?;
    if read.is_empty() { Err(format!("{} holds no certificate", file.display())) } else { Ok(read) }
}
