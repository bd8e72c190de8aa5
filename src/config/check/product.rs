//! One product: how calls find it, who may call, what is counted. What products must fulfil among themselves is in
//! `together`.

use std::collections::BTreeMap;

use super::{Cx, cors, credentials, headers, limits, upstream};
use crate::config::address::{host_name, plain_path, web_url};
use crate::config::bounds::{DEPLOYMENT_BYTES_MAX, MODEL_BYTES_MAX, MODELS_MAX, PRODUCTS_MAX};
use crate::config::problem::PlaceId;
use crate::config::raw::{RawAccess, RawBreakRule, RawDurability, RawKind, RawMeter, RawProduct, defaults};
use crate::config::read::{At, Given};
use crate::config::scalar::Size;
use crate::config::{Access, BreakRule, Durability, Meter, Product, ProductKind};
use crate::domain::id::ProductId;

/// What the gateway answers itself on every host: receipts.
const OWN: &str = "/.well-known/tollgate";

/// What the file says about one product. Parts that were wrong are `None`, so that the others can still be compared.
pub(super) struct Sold {
    pub(super) id: Option<At<ProductId>>,
    pub(super) route: Option<Route>,
    pub(super) meter: Option<Meter>,
    pub(super) body_max: Option<At<u64>>,
    pub(super) product: Option<Product>,
}

/// How calls find a product, with the places of its parts.
pub(super) struct Route {
    pub(super) kind: ProductKind,
    /// Of the deployment, or of the path or host.
    pub(super) place: PlaceId,
    /// Of each model name.
    pub(super) models: BTreeMap<String, PlaceId>,
}

pub(super) fn products(given: Given<Vec<Given<RawProduct>>>, root: PlaceId, cx: Cx<'_>) -> Vec<Sold> {
    const WHY: &str =
        "a gateway needs at least one product; add it, as in `products: [{ id: …, kind: llm, upstream: … }]`";
    let (place, raw) = match given {
        Given::Absent => {
            cx.report.note_below(root, "products", WHY);
            return Vec::new();
        }
        Given::Bad => return Vec::new(),
        Given::Value(at) => (at.place, at.value),
    };
    if raw.is_empty() {
        cx.report.note(place, WHY);
    }
    if cx.at_most(PRODUCTS_MAX, raw.len(), "products", place).is_none() {
        return Vec::new();
    }
    let broken = || Sold { id: None, route: None, meter: None, body_max: None, product: None };
    raw.into_iter()
        .map(|given| match given {
            Given::Value(at) => product(at, cx),
            Given::Absent | Given::Bad => broken(),
        })
        .collect()
}

fn product(at: At<RawProduct>, cx: Cx<'_>) -> Sold {
    let At { place, value: mut raw } = at;
    let id = std::mem::take(&mut raw.id).required("id", place, "my-product", cx.report);
    let id = id.and_then(|at| cx.rule(at, ProductId::new));
    let kind = raw.kind.value().map(|at| at.value);
    let route = route(&mut raw, id.as_ref(), place, cx);
    let accept = credentials::accept(raw.accept, kind, cx);
    let app_code_query = credentials::app_code_query(raw.app_code_query, accept.as_deref(), cx);
    let (unsigned_payload, signature_debug) = (raw.unsigned_payload.or(false), raw.signature_debug.or(false));
    let replay_protection = credentials::replay_protection(raw.replay_protection, accept.as_deref(), cx);
    let access_place = raw.access.value().map_or(place, |at| at.place);
    let access = raw.access.or(RawAccess::Keys);
    let meter = raw.meter.or(RawMeter::Calls);
    if (access, meter) == (Some(RawAccess::Open), Some(RawMeter::Calls)) {
        let message = "an anonymous caller has no package that calls could be taken from; with `access: open` \
             write `meter: none`";
        cx.report.note(access_place, message);
    }
    let meter = meter.map(|meter| match meter {
        RawMeter::Calls => Meter::Calls,
        RawMeter::None => Meter::None,
    });
    let buy_url = cx.text(raw.buy_url, |text| {
        web_url(text, "write where a buyer gets more, as in `https://shop.example.com/calls`").map(|_| text.to_owned())
    });
    let upstream = raw.upstream.required("upstream", place, "{ base_url: \"https://api.example.com\" }", cx.report);
    let upstream = upstream.and_then(|at| upstream::upstream(at, cx));
    let timeouts = raw.timeouts.section(place).and_then(|at| upstream::timeouts(at.value, cx));
    let body_place = raw.body_max.value().map_or(place, |at| at.place);
    let body_max = raw.body_max.or(Size(defaults::BODY_MAX)).map(|size| size.0);
    let on_seller_break = raw.on_seller_break.optional().map(|given| given.map(|at| break_rule(at.value)));
    let durability = raw.durability.or(RawDurability::Os).map(|durability| match durability {
        RawDurability::Os => Durability::Os,
        RawDurability::Disk => Durability::Disk,
    });
    let limits = limits::limits(raw.limits, place);
    let end_user_header = cx.text(raw.end_user_header, headers::end_user);
    let more_headers = response_headers(raw.response_headers, cx);
    let cors = raw.cors.section(place).and_then(|at| cors::rule(at.value, cx));
    let build = || {
        let kind = route.as_ref()?.kind.clone();
        Some(Product {
            id: id.as_ref()?.value.clone(),
            response_headers: headers::rule(&kind, more_headers?, &upstream.as_ref()?.headers),
            kind,
            access: match access? {
                RawAccess::Keys => Access::Keys,
                RawAccess::Open => Access::Open,
            },
            accept: accept?,
            unsigned_payload: unsigned_payload?,
            replay_protection: replay_protection?,
            signature_debug: signature_debug?,
            app_code_query: app_code_query?,
            meter: meter?,
            buy_url: buy_url?.map(|at| at.value),
            upstream: upstream?,
            timeouts: timeouts?,
            body_max: body_max?,
            on_seller_break: on_seller_break?,
            durability: durability?,
            limits: limits?.0,
            each: limits?.1,
            end_user_header: end_user_header?.map(|at| at.value),
            cors: cors?,
        })
    };
    let product = build();
    Sold { id, route, meter, body_max: body_max.map(|value| At { place: body_place, value }), product }
}

fn break_rule(raw: RawBreakRule) -> BreakRule {
    match raw {
        RawBreakRule::Bill => BreakRule::Bill,
        RawBreakRule::Void => BreakRule::Void,
    }
}

fn route(raw: &mut RawProduct, id: Option<&At<ProductId>>, place: PlaceId, cx: Cx<'_>) -> Option<Route> {
    let kind = std::mem::take(&mut raw.kind).required("kind", place, "llm", cx.report)?.value;
    let stray = |key: &str, at: Option<PlaceId>, other: &str, own: &str| {
        if let Some(at) = at {
            cx.report
                .note(at, format!("`{key}` is for `kind: {other}`; a product of `kind: {own}` has none, take it out"));
        }
    };
    match kind {
        RawKind::Llm => {
            stray("host", raw.host.value().map(|at| at.place), "http", "llm");
            stray("path", raw.path.value().map(|at| at.place), "http", "llm");
            stray("strip_path", raw.strip_path.value().map(|at| at.place), "http", "llm");
            llm(raw, id, cx)
        }
        RawKind::Http => {
            stray("deployment", raw.deployment.value().map(|at| at.place), "llm", "http");
            stray("models", raw.models.value().map(|at| at.place), "llm", "http");
            http(raw, place, cx)
        }
    }
}

fn llm(raw: &mut RawProduct, id: Option<&At<ProductId>>, cx: Cx<'_>) -> Option<Route> {
    let deployment = cx.text(std::mem::take(&mut raw.deployment), deployment);
    let models = models(std::mem::take(&mut raw.models), cx);
    let deployment = match deployment? {
        Some(at) => at,
        None => id.map(|at| At { place: at.place, value: at.value.as_str().to_owned() })?,
    };
    let (names, models) = models?;
    let kind = ProductKind::Llm { deployment: deployment.value, models: names };
    Some(Route { kind, place: deployment.place, models })
}

fn deployment(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let dots = text.bytes().all(|b| b == b'.'); // also the empty text
    if !plain || dots || text.len() > DEPLOYMENT_BYTES_MAX {
        return Err(format!(
            "`{text}` is not one segment of a path; write 1 to {DEPLOYMENT_BYTES_MAX} characters of A-Z a-z 0-9 . _ -"
        ));
    }
    Ok(text.to_owned())
}

type Models = (BTreeMap<String, String>, BTreeMap<String, PlaceId>);

fn models(given: Given<BTreeMap<String, Given<Option<String>>>>, cx: Cx<'_>) -> Option<Models> {
    let Some(At { place, value: raw }) = given.optional()? else { return Some(Models::default()) };
    cx.at_most(MODELS_MAX, raw.len(), "model names", place)?;
    let mut complete = true;
    let (mut names, mut places) = Models::default();
    for (name, given) in raw {
        let Given::Value(At { place, value }) = given else {
            complete = false;
            continue;
        };
        let sellers = value.unwrap_or_else(|| name.clone());
        for text in [&name, &sellers] {
            if text.trim().is_empty() || text.len() > MODEL_BYTES_MAX || text.contains(char::is_control) {
                let message =
                    format!("{text:?} is not a model's name; write 1 to {MODEL_BYTES_MAX} characters on one line");
                cx.report.note(place, message);
                complete = false;
            }
        }
        places.insert(name.clone(), place);
        names.insert(name, sellers);
    }
    complete.then_some((names, places))
}

fn http(raw: &mut RawProduct, product: PlaceId, cx: Cx<'_>) -> Option<Route> {
    let host = cx.text(std::mem::take(&mut raw.host), |text| {
        let host = text.to_ascii_lowercase();
        let right = "write a name without port, as in `api.example.com`";
        if host_name(&host) { Ok(host) } else { Err(format!("`{text}` is not a host; {right}")) }
    });
    let path = cx.text(std::mem::take(&mut raw.path), |text| {
        let path = plain_path(text).map(str::to_owned);
        path.map_err(|why| format!("{why}; write a plain prefix, as in `/weather`")).and_then(|path| {
            if text.is_empty() {
                return Err("the path is empty; write `/` for every path".to_owned());
            }
            if path == OWN || path.strip_prefix(OWN).is_some_and(|rest| rest.starts_with('/')) {
                return Err(format!("`{OWN}` is the gateway's own; write another path"));
            }
            Ok(path)
        })
    });
    let strip_path = std::mem::take(&mut raw.strip_path).or(false);
    let (host, path, strip_path) = (host?, path?, strip_path?);
    let place = path.as_ref().map(|at| at.place).or(host.as_ref().map(|at| at.place));
    let Some(place) = place else {
        let message =
            "nothing says which calls are for this product; a product of `kind: http` needs `host`, `path` or both";
        cx.report.note(product, message);
        return None;
    };
    let path = path.map(|at| at.value).filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let kind = ProductKind::Http { host: host.map(|at| at.value), path, strip_path };
    Some(Route { kind, place, models: BTreeMap::new() })
}

fn response_headers(given: Given<Vec<Given<String>>>, cx: Cx<'_>) -> Option<Vec<String>> {
    let Some(at) = given.optional()? else { return Some(Vec::new()) };
    let patterns: Vec<_> = at.value.into_iter().map(|given| cx.text(given, headers::pattern)).collect();
    patterns.into_iter().map(|pattern| pattern.flatten().map(|at| at.value)).collect()
}
