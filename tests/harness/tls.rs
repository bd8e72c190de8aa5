//! TLS for clients that speak plain bytes: certificates as the project makes them, and a tunnel that puts TLS around
//! whatever a raw client sends, so that everything else in the harness works as without it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::process::run;
use super::within;

/// A folder with an authority and what it has signed.
#[derive(Debug, Clone)]
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    /// Makes them with `tollgate dev-certificate`: for a server of this name, and for the client `operator`.
    pub(crate) fn make(dir: &Path, host: &str) -> Self {
        let arguments = ["dev-certificate", dir.to_str().unwrap(), "--host", host, "--client", "operator"];
        let (code, out, said) = run(&arguments);
        assert_eq!(code, Some(0), "{out}{said}");
        Self(dir.to_owned())
    }

    /// The value of `certificates` for one of them, or several.
    pub(crate) fn listed(files: &[&Self]) -> Value {
        let each = files
            .iter()
            .map(|files| json!({ "cert_file": files.0.join("server.pem"), "key_file": files.0.join("server.key") }));
        each.collect()
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client_with(rustls::ALL_VERSIONS, None)
    }

    /// One that speaks some versions only, and shows a client's certificate of another folder.
    pub(crate) fn client_with(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        shows: Option<&Self>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.0.join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        match shows {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let certificate = CertificateDer::from_pem_file(files.0.join("client.pem")).unwrap();
                let key = PrivateKeyDer::from_pem_file(files.0.join("client.key")).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        }
    }
}

/// Connects and shakes hands.
pub(crate) async fn connect(
    to: SocketAddr,
    client: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within("a TLS handshake", TlsConnector::from(Arc::clone(client)).connect(name, stream)).await
}

/// Puts TLS around every connection to the address that it returns, for as long as the test lasts.
pub(crate) async fn tunnel(to: SocketAddr, client: Arc<ClientConfig>, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                if let Ok(mut wrapped) = connect(to, &client, name).await {
                    // Whichever side breaks off, the other sees the end of its connection.
                    let _ = tokio::io::copy_bidirectional(&mut plain, &mut wrapped).await;
                }
            });
        }
    });
    address
}
