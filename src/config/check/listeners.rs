//! Where the gateway listens, and the certificates that it shows there.

use std::path::PathBuf;

use jiff::Timestamp;

use super::Cx;
use crate::config::bounds::CERTIFICATES_MAX;
use crate::config::certificate::{CertificateFault, CertificateFiles};
use crate::config::load::Purpose;
use crate::config::problem::PlaceId;
use crate::config::raw::{RawCertificate, RawListeners, defaults};
use crate::config::read::{At, Given};
use crate::config::scalar::Listen;
use crate::config::{Listener, ServerTls};

/// The data and the admin listener.
pub(super) fn listeners(given: Given<RawListeners>, root: PlaceId, cx: Cx<'_>) -> Option<(Listener, Listener)> {
    let raw = given.section(root)?;
    let place = raw.value.admin.value().map_or(raw.place, |at| at.place);
    let data = raw.value.data.section(raw.place);
    let admin = raw.value.admin.section(raw.place);
    let data = data.and_then(|At { value, .. }| {
        let tls = match value.tls.optional() {
            Some(Some(At { place, value })) => tls(value.certificates, place, cx).map(Some),
            absent => absent.map(|_| None),
        };
        let address = value.address.or(Listen(defaults::DATA_LISTENER));
        let (tls, h2c) = (tls?, value.h2c.optional()?);
        if let Some(at) = h2c.as_ref().filter(|at| at.value && tls.is_some()) {
            cx.report
                .note(at.place, "h2c is HTTP/2 without TLS, and TLS is on; take `h2c` out: HTTP/2 is spoken anyway");
            return None;
        }
        Some(Listener { address: address?.0, tls, h2c: h2c.is_some_and(|at| at.value) })
    });
    let admin = admin.and_then(|At { value, .. }| {
        let tls = match value.tls.optional() {
            Some(Some(At { place, value })) => {
                let shown = tls(value.certificates, place, cx);
                let asked = client_ca(value.client_ca_file, cx);
                shown.zip(asked).map(|(shown, client_ca_file)| Some(ServerTls { client_ca_file, ..shown }))
            }
            absent => absent.map(|_| None),
        };
        let address = value.address.or(Listen(defaults::ADMIN_LISTENER));
        Some(Listener { address: address?.0, tls: tls?, h2c: false })
    });
    let (data, admin) = (data?, admin?);
    let (a, b) = (data.address, admin.address);
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    if a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || everywhere) {
        let message = format!("both listeners would take port {}; give each its own", a.port());
        cx.report.note(place, message);
        return None;
    }
    Some((data, admin))
}

fn tls(given: Given<Vec<Given<RawCertificate>>>, place: PlaceId, cx: Cx<'_>) -> Option<ServerTls> {
    const EXAMPLE: &str = "[{ cert_file: server.pem, key_file: server.key }]";
    let At { place, value: list } = given.required("certificates", place, EXAMPLE, cx.report)?;
    if list.is_empty() || list.len() > CERTIFICATES_MAX {
        let message = format!("{} certificates; write 1 to {CERTIFICATES_MAX}", list.len());
        cx.report.note(place, message);
        return None;
    }
    let each = |given: Given<RawCertificate>| match given.optional()? {
        Some(at) => certificate(at, cx),
        None => None,
    };
    let each: Vec<_> = list.into_iter().map(each).collect();
    let certificates = each.into_iter().collect::<Option<Vec<_>>>()?;
    Some(ServerTls { certificates, client_ca_file: None })
}

fn certificate(at: At<RawCertificate>, cx: Cx<'_>) -> Option<CertificateFiles> {
    let At { place, value: raw } = at;
    let certificate = raw.cert_file.required("cert_file", place, "server.pem", cx.report);
    let key = raw.key_file.required("key_file", place, "server.key", cx.report);
    let (certificate, key) = (certificate?, key?);
    let places = (certificate.place, key.place);
    let files = CertificateFiles { certificate: cx.path(certificate)?, key: cx.path(key)? };
    if cx.purpose == Purpose::Reload {
        return Some(files);
    }
    match files.read().and_then(|bytes| files.pair(&bytes, Timestamp::now())) {
        Ok(_) => Some(files),
        Err(CertificateFault::Certificate(why)) => {
            cx.report.note(places.0, why);
            None
        }
        Err(CertificateFault::Key(why)) => {
            cx.report.note(places.1, why);
            None
        }
    }
}

fn client_ca(given: Given<String>, cx: Cx<'_>) -> Option<Option<PathBuf>> {
    let Some(at) = given.optional()? else { return Some(None) };
    let place = at.place;
    let path = cx.path(at)?;
    if let Err(why) = super::upstream::holds_certificates(&path) {
        let message = format!("the file {} {why}; name a PEM file with certificates of authorities", path.display());
        cx.report.note(place, message);
        return None;
    }
    Some(Some(path))
}
