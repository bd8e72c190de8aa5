//! Who may say where calls come from.

use super::Cx;
use crate::config::Proxies;
use crate::config::bounds::TRUSTED_MAX;
use crate::config::raw::{RawProxies, RawProxyHeader};
use crate::config::read::Given;
use crate::domain::network::{Network, ProxyHeader};

pub(super) fn proxies(raw: RawProxies, cx: Cx<'_>) -> Option<Proxies> {
    let trusted = trusted(raw.trusted, cx);
    let header = raw.header.or(RawProxyHeader::XForwardedFor).map(|header| match header {
        RawProxyHeader::XForwardedFor => ProxyHeader::XForwardedFor,
        RawProxyHeader::Forwarded => ProxyHeader::Forwarded,
    });
    let place = raw.proxy_protocol.value().map(|at| at.place);
    let proxy_protocol = raw.proxy_protocol.or(false);
    if let (Some(place), Some(true), Some([])) = (place, proxy_protocol, trusted.as_deref()) {
        cx.report.note(place, "nobody is trusted to speak it; name the proxies in `trusted`");
        return None;
    }
    Some(Proxies { trusted: trusted?, header: header?, proxy_protocol: proxy_protocol? })
}

fn trusted(given: Given<Vec<Given<String>>>, cx: Cx<'_>) -> Option<Vec<Network>> {
    let Some(at) = given.optional()? else { return Some(Vec::new()) };
    cx.at_most(TRUSTED_MAX, at.value.len(), "entries", at.place)?;
    let networks: Vec<_> = at.value.into_iter().map(|given| cx.text(given, Network::new)).collect();
    networks.into_iter().map(|network| network.flatten().map(|at| at.value)).collect()
}
