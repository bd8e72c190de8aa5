//! A seller's address: its URL, its credential, its headers, its time limits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;

use super::{Cx, headers, period};
use crate::config::address::BaseUrl;
use crate::config::bounds::HEADERS_MAX;
use crate::config::problem::PlaceId;
use crate::config::raw::{RawTimeouts, RawUpstream, defaults};
use crate::config::read::{At, Given};
use crate::config::scalar::{Count, Secret};
use crate::config::{Timeouts, Upstream, UpstreamTls};

/// The largest file of certificate authorities, in bytes.
const CA_FILE_BYTES_MAX: u64 = 4 << 20;

pub(super) fn upstream(at: At<RawUpstream>, cx: Cx<'_>) -> Option<Arc<Upstream>> {
    let At { place, value: raw } = at;
    let url = raw.base_url.required("base_url", place, "https://api.example.com/v1", cx.report);
    let url = url.and_then(|at| cx.rule(at, BaseUrl::read)).map(|at| at.value);
    let api_key = raw.api_key.optional().and_then(|given| match given {
        Some(at) => bearer(at, cx).map(Some),
        None => Some(None),
    });
    let headers = added_headers(raw.headers, matches!(api_key, Some(Some(_))), cx);
    let idle = raw.idle_connections.or(Count(defaults::IDLE_CONNECTIONS)).map(|count| count.0);
    let ca_file = raw.ca_file.optional().and_then(|given| match given {
        Some(at) => ca_file(at, url.as_ref(), cx).map(Some),
        None => Some(None),
    });
    let (url, ca_file, mut headers) = (url?, ca_file?, headers?);
    headers.extend(api_key?.map(|value| (AUTHORIZATION, value)));
    Some(Arc::new(Upstream {
        tls: url.https.then_some(UpstreamTls { ca_file }),
        host: url.host,
        port: url.port,
        authority: url.authority,
        base_path: url.path,
        headers,
        idle_connections: usize::try_from(idle?).ok()?,
    }))
}

fn bearer(at: At<Secret>, cx: Cx<'_>) -> Option<HeaderValue> {
    let secret = cx.secret(at.place, at.value)?;
    let text = secret.expose_secret();
    let value = HeaderValue::try_from(format!("Bearer {text}")).ok();
    let plain = value.filter(|_| text.bytes().all(|b| b.is_ascii_graphic()));
    let Some(mut value) = plain else {
        let message = "the key has a space or another character that no HTTP credential has; write the key alone";
        cx.report.note(at.place, message);
        return None;
    };
    value.set_sensitive(true);
    Some(value)
}

type Headers = Vec<(HeaderName, HeaderValue)>;

fn added_headers(given: Given<BTreeMap<String, Given<Secret>>>, has_key: bool, cx: Cx<'_>) -> Option<Headers> {
    let Some(At { place, value: raw }) = given.optional()? else { return Some(Vec::new()) };
    cx.at_most(HEADERS_MAX, raw.len(), "headers", place)?;
    let mut headers: Option<Headers> = Some(Vec::new());
    for (name, given) in raw {
        let Given::Value(At { place, value }) = given else {
            headers = None;
            continue;
        };
        let twice = |found: &HeaderName| headers.iter().flatten().any(|(name, _)| name == found);
        let header = header_name(&name, has_key, twice)
            .map_err(|message| cx.report.note(place, message))
            .ok()
            .and_then(|name| Some((name, header_value(place, value, cx)?)));
        match (header, headers.as_mut()) {
            (Some(header), Some(headers)) => headers.push(header),
            (Some(_), None) => {}
            (None, _) => headers = None,
        }
    }
    headers
}

fn header_name(text: &str, has_key: bool, twice: impl Fn(&HeaderName) -> bool) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        format!("`{text}` is not the name of a header; write letters, digits and dashes, as in `x-tenant`")
    })?;
    if let Some(why) = headers::refusal(name.as_str()) {
        return Err(format!("the header `{name}` {why}"));
    }
    if has_key && name == AUTHORIZATION {
        return Err("`api_key` already sets `authorization`; keep one of the two".to_owned());
    }
    if twice(&name) {
        return Err(format!("the header `{name}` is given twice, in two spellings; keep one"));
    }
    Ok(name)
}

fn header_value(place: PlaceId, secret: Secret, cx: Cx<'_>) -> Option<HeaderValue> {
    let secret = cx.secret(place, secret)?;
    let text = secret.expose_secret();
    let plain = text.trim() == text && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let value = HeaderValue::from_str(text).ok().filter(|_| plain);
    let Some(mut value) = value else {
        cx.report
            .note(place, "not a header's value; write one line of visible ASCII characters, without spaces around it");
        return None;
    };
    value.set_sensitive(true);
    Some(value)
}

fn ca_file(at: At<String>, url: Option<&BaseUrl>, cx: Cx<'_>) -> Option<PathBuf> {
    if url.is_some_and(|url| !url.https) {
        cx.report.note(
            at.place,
            "only an https seller has a certificate; take `ca_file` out or write `https://` in `base_url`",
        );
        return None;
    }
    let place = at.place;
    let path = cx.path(at)?;
    if let Err(why) = holds_certificates(&path) {
        let message = format!("the file {} {why}; name a PEM file with certificates of authorities", path.display());
        cx.report.note(place, message);
        return None;
    }
    Some(path)
}

pub(super) fn holds_certificates(path: &Path) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read ({error})");
    let found = fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() || found.len() > CA_FILE_BYTES_MAX {
        return Err(format!("is not a regular file of at most {CA_FILE_BYTES_MAX} bytes"));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| format!("is not well-formed ({error:?})"))?;
        authorities.add(certificate).map_err(|error| format!("holds what is not a certificate ({error})"))?;
    }
    if authorities.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(()) }
}

/// The seller's time limits. An absent `head` never exceeds `total`.
pub(super) fn timeouts(raw: RawTimeouts, cx: Cx<'_>) -> Option<Timeouts> {
    let connect = period(raw.connect, defaults::SELLER_CONNECT);
    let idle = period(raw.idle, defaults::SELLER_IDLE);
    let head_place = raw.head.value().map(|at| at.place);
    let total = period(raw.total, defaults::SELLER_TOTAL);
    let longest = total.unwrap_or(Duration::MAX);
    let head = period(raw.head, defaults::SELLER_HEAD.min(longest));
    let (head, total) = (head?, total?);
    if let Some(place) = head_place.filter(|_| head > total) {
        let message = format!(
            "the head may take {}s but the whole answer only {}s; make `head` at most `total`",
            head.as_secs_f64(),
            total.as_secs_f64()
        );
        cx.report.note(place, message);
        return None;
    }
    Some(Timeouts { connect: connect?, head, idle: idle?, total })
}
