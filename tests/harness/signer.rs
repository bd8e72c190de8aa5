//! A client that signs, written apart from the gateway: the algorithm in its plainest form, for requests whose path and
//! query need no escapes.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::client::Request;

/// An app's credentials.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    pub(crate) app_key: String,
    pub(crate) secret: String,
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The form of `X-Sdk-Date`.
pub(crate) fn date(at: jiff::Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

impl Signer {
    /// The request with its date and signature.
    pub(crate) fn sign(&self, request: Request) -> Request {
        self.sign_at(request, jiff::Timestamp::now())
    }

    /// The same, as if signed at another time.
    pub(crate) fn sign_at(&self, request: Request, at: jiff::Timestamp) -> Request {
        let payload = hex(Sha256::digest(request.body_bytes()));
        self.sign_with(request.field("X-Sdk-Date", &date(at)), &payload)
    }

    /// Signs all headers that are there, with whatever stands for the body.
    pub(crate) fn sign_with(&self, request: Request, payload: &str) -> Request {
        let (path, query) = request.target().split_once('?').unwrap_or((request.target(), ""));
        let slash = if path.ends_with('/') { "" } else { "/" };
        let mut pairs: Vec<String> = query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
        pairs.sort_by_key(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut headers: Vec<(String, String)> =
            request.fields().iter().map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
        headers.retain(|(name, _)| !matches!(name.as_str(), "content-length" | "authorization" | "connection"));
        headers.sort();
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let (method, query) = (request.method(), pairs.join("&"));
        let canonical = format!("{method}\n{path}{slash}\n{query}\n{lines}\n{names}\n{payload}");
        let date = &headers.iter().find(|(name, _)| name == "x-sdk-date").unwrap().1;
        let text = format!("SDK-HMAC-SHA256\n{date}\n{}", hex(Sha256::digest(canonical)));
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let signature = hex(mac.finalize().into_bytes());
        let value = format!("SDK-HMAC-SHA256 Access={}, SignedHeaders={names}, Signature={signature}", self.app_key);
        request.field("Authorization", &value)
    }
}
