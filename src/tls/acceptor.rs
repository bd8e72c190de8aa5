//! One listener's TLS: its certificates of this moment, and the handshake with a client.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::{HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::TlsStream;
use super::resolver::ByName;
use crate::config::{Pair, PairBytes, ServerTls};
use crate::telemetry::metrics::{HandshakeFailure, TlsMetrics};

/// What one connection may hold of an answer in TLS's own buffers, in bytes, besides what the engine holds.
const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// The first byte of every TLS connection: a handshake record.
const HANDSHAKE: u8 = 22;
/// What a client that does not speak TLS is told.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 44\r\nconnection: close\r\n\r\n\
    this port speaks TLS; write https:// instead";
/// How long the answer to such a client is waited for.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// How much it may still send meanwhile, so that it reads the answer and no reset.
const FAREWELL_BYTES_MAX: u64 = 64 * 1024;

/// Why a listener's certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listeners.{listener}.tls: {why}")]
pub struct TlsError {
    listener: &'static str,
    why: String,
}

/// One listener's TLS.
pub struct Acceptor {
    listener: &'static str,
    settings: ServerTls,
    /// What is spoken above TLS, the best first.
    protocols: Vec<Vec<u8>>,
    live: ArcSwap<ServerConfig>,
    /// What the files held when they were last looked at.
    seen: Mutex<Seen>,
    metrics: TlsMetrics,
}

/// What the files of a pair held, and the pair that was made of it.
type Shown = (PairBytes, Pair);

/// What a listener's files held, and the key of its session tickets.
struct Seen {
    pairs: Vec<Shown>,
    client_ca: Option<Vec<u8>>,
    tickets: Arc<dyn ProducesTickets>,
}

impl Acceptor {
    /// Reads the certificates.
    ///
    /// # Errors
    /// One of them is not good.
    pub fn new(
        listener: &'static str,
        settings: &ServerTls,
        protocols: &[&str],
        metrics: &TlsMetrics,
    ) -> Result<Self, TlsError> {
        let fault = |why| TlsError { listener, why };
        let tickets = || rustls::crypto::ring::Ticketer::new().map_err(|error| fault(error.to_string()));
        let (pairs, client_ca) = read(settings).map_err(fault)?;
        let pairs = judge(settings, pairs, (&[], Timestamp::now())).map_err(fault)?;
        let seen = Seen { pairs, client_ca, tickets: tickets()? };
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let live = build(settings, &protocols, &seen, (listener, metrics)).map_err(fault)?;
        Ok(Self {
            listener,
            settings: settings.clone(),
            protocols,
            live: ArcSwap::from_pointee(live),
            seen: Mutex::new(seen),
            metrics: metrics.clone(),
        })
    }

    /// Looks at the files; takes over what has changed, if all of it is good. Returns whether anything was taken over.
    /// Connections that are open keep what they have.
    ///
    /// # Errors
    /// What has changed is not good, and the last good certificates stay.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.reload_at(Timestamp::now())
    }

    fn reload_at(&self, now: Timestamp) -> Result<bool, TlsError> {
        let fault = |why| TlsError { listener: self.listener, why };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner); // whole between any two assignments
        let (pairs, client_ca) = read(&self.settings).map_err(fault)?;
        if pairs.iter().eq(seen.pairs.iter().map(|(bytes, _)| bytes)) && client_ca == seen.client_ca {
            return Ok(false);
        }
        let pairs = judge(&self.settings, pairs, (&seen.pairs, now)).map_err(fault)?;
        // A ticket spares the client's certificate: those of other authorities must not outlive them.
        let tickets = if client_ca == seen.client_ca {
            Arc::clone(&seen.tickets)
        } else {
            rustls::crypto::ring::Ticketer::new().map_err(|error| fault(error.to_string()))?
        };
        let next = Seen { pairs, client_ca, tickets };
        let live = build(&self.settings, &self.protocols, &next, (self.listener, &self.metrics)).map_err(fault)?;
        self.live.store(Arc::new(live));
        *seen = next;
        Ok(true)
    }

    /// The listener's name in the configuration.
    pub fn listener(&self) -> &'static str {
        self.listener
    }

    /// Shakes hands with a client, within `limit`. `None`: in vain, and the connection is closed.
    pub async fn accept(&self, stream: TcpStream, limit: Duration) -> Option<TlsStream> {
        let in_time = Instant::now() + limit;
        let begins = timeout_at(in_time, begins(&stream)).await.unwrap_or(Err(HandshakeFailure::Timeout));
        if let Err(why) = begins {
            self.metrics.failed(self.listener, why);
            if why == HandshakeFailure::NotTls {
                say_farewell(stream).await; // in its own time: the client has done its part
            }
            return None;
        }
        let shaken = timeout_at(in_time, self.shake_hands(stream)).await;
        match shaken.unwrap_or(Err(HandshakeFailure::Timeout)) {
            Ok(stream) => {
                let (_, session) = stream.get_ref();
                let newest = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
                let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
                self.metrics.succeeded(self.listener, (newest, resumed));
                Some(stream)
            }
            Err(why) => {
                self.metrics.failed(self.listener, why);
                None
            }
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<TlsStream, HandshakeFailure> {
        let acceptor = TlsAcceptor::from(self.live.load_full());
        let accept = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(BUFFER_BYTES_MAX)));
        // What rustls refuses is invalid data to it; all else is the socket's.
        let refused = |error: io::Error| error.kind() == io::ErrorKind::InvalidData;
        accept.await.map_err(|error| if refused(error) { HandshakeFailure::Refused } else { HandshakeFailure::Gone })
    }
}

/// Waits for the client's first byte, which tells whether it speaks TLS.
async fn begins(stream: &TcpStream) -> Result<(), HandshakeFailure> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first == [HANDSHAKE] => Ok(()),
        Ok(1) => Err(HandshakeFailure::NotTls),
        Ok(_) | Err(_) => Err(HandshakeFailure::Gone),
    }
}

/// Tells a client that speaks something else, and waits a moment until it has read that.
async fn say_farewell(mut stream: TcpStream) {
    let farewell = async {
        stream.write_all(NOT_TLS).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(FAREWELL_BYTES_MAX), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await; // whoever does not listen is not waited for
}

/// What the files hold: the pairs, and the clients' authorities.
type Files = (Vec<PairBytes>, Option<Vec<u8>>);

fn read(settings: &ServerTls) -> Result<Files, String> {
    let pairs = settings.certificates.iter().map(|files| files.read().map_err(|fault| fault.to_string()));
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    let client_ca = settings.client_ca_file.as_ref().map(|path| {
        std::fs::read(path).map_err(|error| format!("the file {} cannot be read ({error})", path.display()))
    });
    Ok((pairs, client_ca.transpose()?))
}

/// Makes pairs of what was read. One whose files hold what they held `before` is kept as it is: that its certificate has
/// run out meanwhile must not keep a new one of another name from being shown.
fn judge(
    settings: &ServerTls,
    read: Vec<PairBytes>,
    (before, now): (&[Shown], Timestamp),
) -> Result<Vec<Shown>, String> {
    let each = settings.certificates.iter().zip(read).enumerate().map(|(at, (files, bytes))| {
        let pair = match before.get(at) {
            Some((known, pair)) if *known == bytes => pair.clone(),
            Some(_) | None => files.pair(&bytes, now).map_err(|fault| fault.to_string())?,
        };
        Ok((bytes, pair))
    });
    each.collect()
}

fn build(
    settings: &ServerTls,
    protocols: &[Vec<u8>],
    seen: &Seen,
    (listener, metrics): (&'static str, &TlsMetrics),
) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?;
    let builder = match &seen.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut authorities = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|error| format!("client_ca_file is not well-formed ({error})"))?;
                authorities.add(certificate).map_err(|error| format!("client_ca_file: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| format!("client_ca_file: {error}"))?)
        }
    };
    let keys = seen.pairs.iter().map(|(_, pair)| Arc::clone(&pair.key)).collect();
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = protocols.to_vec();
    config.ticketer = Arc::clone(&seen.tickets);
    for (files, (_, pair)) in settings.certificates.iter().zip(&seen.pairs) {
        metrics.shows(listener, &files.certificate.to_string_lossy(), pair.not_after.as_second());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use jiff::ToSpan;

    use super::*;
    use crate::config::CertificateFiles;
    use crate::telemetry::metrics::Metrics;

    /// Writes a certificate that is valid from 2020 until a year, and its key; `name` names the files.
    fn write(folder: &Path, name: &str, until: i32) -> CertificateFiles {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let (pem, key_file) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&pem, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        CertificateFiles { certificate: pem, key: key_file }
    }

    #[test]
    fn a_certificate_that_has_run_out_does_not_keep_back_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = vec![write(folder.path(), "a", 2400), write(folder.path(), "b", 2200)];
        let settings = ServerTls { certificates, client_ca_file: None };
        let metrics = Metrics::new().unwrap();
        let start = || Acceptor::new("data", &settings, &["http/1.1"], &metrics.tls);
        let acceptor = start().unwrap();
        let later: Timestamp = "2300-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(acceptor.reload_at(later), Ok(false), "nothing has changed");
        write(folder.path(), "a", 2500);
        assert_eq!(acceptor.reload_at(later), Ok(true));
        assert_eq!(acceptor.reload_at(later + 1.hour()), Ok(false));
        // A new one is judged.
        write(folder.path(), "b", 2250);
        let refused = acceptor.reload_at(later).unwrap_err().to_string();
        assert!(refused.contains("b.pem holds a certificate that expired at 2250-01-01"), "{refused}");
        write(folder.path(), "b", 2400);
        assert_eq!(acceptor.reload_at(later), Ok(true));
        // And each one at a start.
        write(folder.path(), "b", 2021);
        let refused = start().err().unwrap().to_string();
        assert!(refused.contains("b.pem holds a certificate that expired at 2021-01-01"), "{refused}");
    }
}
