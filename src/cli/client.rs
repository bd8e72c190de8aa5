//! A small client of the admin API: HTTP/1.1, plain or under TLS, one connection a request, bounded in time and size.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::args::{AdminAccess, AdminAddress};
use super::tls;
use super::{EXIT_BUG, EXIT_CONFIG, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::admin::wire::ErrorBody;
use crate::domain::id::CommandId;

/// For connecting, asking and reading the answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Where the token is when no file is named.
pub(super) const TOKEN_VARIABLE: &str = "TOLLGATE_ADMIN_TOKEN";

/// Refusals after which nothing was changed nor will be, whatever their status.
const NOT_DONE: [&str; 2] = ["store_full", "account_busy"];

/// Why a command failed. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The flags or the environment are wrong.
    #[error("{0}")]
    Setup(String),
    /// Nobody answers.
    #[error(
        "the admin API does not answer at {at}: {cause}; is `tollgate serve` running? set --admin or TOLLGATE_ADMIN"
    )]
    Away {
        /// Where it was looked for.
        at: String,
        /// What happened.
        cause: String,
        /// Whether it may have heard what was asked.
        asked: bool,
    },
    /// It said no.
    #[error("{message}")]
    Refused {
        /// How.
        status: StatusCode,
        /// What kind of refusal.
        code: String,
        /// Why.
        message: String,
    },
    /// The answer is not what the admin API says.
    #[error("{at} answers {status}, but not as the admin API: {cause}; does --admin name the admin listener?")]
    Strange {
        /// Where.
        at: String,
        /// Its status.
        status: StatusCode,
        /// What is wrong with it.
        cause: String,
    },
    /// Nobody can say whether a change was made.
    #[error(
        "{failure}\nthe change may have been made, or may be made later by itself; repeat the command with \
         --idempotency-key {key}, and it is made once"
    )]
    Doubtful {
        /// What happened.
        failure: Box<Self>,
        /// The change's own name.
        key: CommandId,
    },
}

impl ClientError {
    pub(super) fn exit(&self) -> u8 {
        match self {
            Self::Setup(_) => EXIT_CONFIG,
            Self::Doubtful { failure, .. } => failure.exit(),
            Self::Away { .. } | Self::Strange { .. } => EXIT_UNAVAILABLE,
            Self::Refused { status: StatusCode::UNAUTHORIZED, .. } => EXIT_CONFIG,
            Self::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. } => EXIT_UNAVAILABLE,
            Self::Refused { status, .. } if status.is_client_error() => EXIT_USAGE,
            Self::Refused { .. } => EXIT_BUG,
        }
    }

    /// Whether what was asked may have been done, or may be done yet.
    fn leaves_doubt(&self) -> bool {
        match self {
            Self::Setup(_) => false,
            Self::Away { asked, .. } => *asked,
            Self::Refused { status, code, .. } => status.is_server_error() && !NOT_DONE.contains(&code.as_str()),
            Self::Strange { .. } | Self::Doubtful { .. } => true,
        }
    }
}

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) once: Option<CommandId>,
    pub(super) body: Vec<u8>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, once: None, body: Vec::new() }
    }

    pub(super) fn send(
        method: Method,
        path: &'a str,
        once: Option<CommandId>,
        body: &impl Serialize,
    ) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Setup(error.to_string()))?;
        Ok(Self { method, path, once, body })
    }
}

/// The admin API of one gateway.
pub(super) struct Client {
    host: String,
    port: u16,
    authority: String,
    tls: Option<Arc<ClientConfig>>,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// For calls that need no token.
    pub(super) fn open(address: &AdminAddress) -> Result<Self, ClientError> {
        let fault = |why: &str| {
            let text = format!("--admin {:?} {why}; it looks like http://127.0.0.1:9090", address.admin);
            ClientError::Setup(text)
        };
        let uri: Uri = address.admin.parse().map_err(|_| fault("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(tls::client(&address.tls).map_err(ClientError::Setup)?),
            Some(_) | None => return Err(fault("does not begin with http:// or https://")),
        };
        if !matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/")) {
            return Err(fault("has a path"));
        }
        let authority = uri.authority().ok_or_else(|| fault("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(fault("holds a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Self { host, port, authority: authority.to_string(), tls, authorization: None })
    }

    /// For calls that need the token: from the file, else from the environment.
    pub(super) fn with_token(access: &AdminAccess, environment: Option<String>) -> Result<Self, ClientError> {
        let token = match &access.admin_token_file {
            Some(file) => read_token(file)?,
            None => environment.filter(|token| !token.is_empty()).ok_or_else(|| {
                let text = format!("no admin token: set {TOKEN_VARIABLE}, or name its file with --admin-token-file");
                ClientError::Setup(text)
            })?,
        };
        let bearer = HeaderValue::try_from(format!("Bearer {token}"));
        let mut bearer = bearer.map_err(|_| ClientError::Setup("the admin token holds control characters".into()))?;
        bearer.set_sensitive(true);
        Ok(Self { authorization: Some(bearer), ..Self::open(&access.address)? })
    }

    /// Asks, and reads the answer as JSON.
    pub(super) async fn ask<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, ClientError> {
        let once = ask.once.clone();
        let answer = match self.answer(ask).await {
            Ok((status, body)) => self.read(status, &body),
            Err(failure) => Err(failure),
        };
        match (answer, once) {
            (Err(failure), Some(key)) if failure.leaves_doubt() => {
                Err(ClientError::Doubtful { failure: Box::new(failure), key })
            }
            (answer, _) => answer,
        }
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        self.accepted(status, body)?;
        serde_json::from_slice(body).map_err(|error| self.strange(status, &error))
    }

    /// Asks where a good answer says nothing.
    pub(super) async fn order(&self, ask: Ask<'_>) -> Result<(), ClientError> {
        let (status, body) = self.answer(ask).await?;
        self.accepted(status, &body)
    }

    /// Asks, and gives the answer as it is.
    pub(super) async fn answer(&self, ask: Ask<'_>) -> Result<(StatusCode, Bytes), ClientError> {
        let late = |_| self.silent(&format!("no answer within {} s", ANSWER_TIME_MAX.as_secs()));
        timeout(ANSWER_TIME_MAX, self.exchange(ask)).await.map_err(late)?
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| self.away(&error))?;
        let Some(tls) = &self.tls else { return self.exchange_over(stream, ask).await };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| self.away(&error))?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        self.exchange_over(stream.map_err(|error| self.away(&error))?, ask).await
    }

    async fn exchange_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        ask: Ask<'_>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let connected = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(|error| self.away(&error))?;
        let request = self.request(ask)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| self.silent(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| self.silent(&error))?.to_bytes()))
        };
        // The connection moves the bytes; what it has to say reaches us through the exchange.
        let (answer, _) = futures_util::future::join(exchange, connection).await;
        answer
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(ask.method).uri(ask.path).header(HOST, &self.authority);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(once) = &ask.once {
            request = request.header("idempotency-key", once.as_str());
        }
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let built = request.header("connection", "close").body(Full::new(ask.body.into()));
        built.map_err(|error| ClientError::Setup(error.to_string()))
    }

    fn accepted(&self, status: StatusCode, body: &[u8]) -> Result<(), ClientError> {
        if status.is_success() {
            return Ok(());
        }
        let refusal: ErrorBody = serde_json::from_slice(body).map_err(|error| self.strange(status, &error))?;
        Err(ClientError::Refused { status, code: refusal.error.code, message: refusal.error.message })
    }

    /// Nothing was asked yet.
    fn away(&self, cause: &dyn ToString) -> ClientError {
        ClientError::Away { at: self.url(), cause: cause.to_string(), asked: false }
    }

    /// No answer came.
    fn silent(&self, cause: &dyn ToString) -> ClientError {
        ClientError::Away { at: self.url(), cause: cause.to_string(), asked: true }
    }

    pub(super) fn strange(&self, status: StatusCode, cause: &dyn ToString) -> ClientError {
        ClientError::Strange { at: self.url(), status, cause: cause.to_string() }
    }

    fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

fn read_token(file: &Path) -> Result<String, ClientError> {
    let fault = |why: &str| ClientError::Setup(format!("--admin-token-file {}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| fault(&error.to_string()))?;
    let token = text.trim();
    if token.is_empty() { Err(fault("the file is empty")) } else { Ok(token.to_owned()) }
}
