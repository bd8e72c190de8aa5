//! Which product does a call mean? By deployment, by host and path, or, under plain `/v1`, by the body's model.

use std::sync::Arc;

use super::catalog::{Shelf, Sold};
use super::rejection::{Code, Rejection};
use super::words::{Said, texts};
use crate::config::ProductKind;
use crate::domain::usage::{MODEL_BYTES_MAX, kept};
use crate::protocol::request_id::valid_request_id;
use crate::protocol::target::{
    Target, TargetFault, collapsed, decoded, has_path_prefix, read_target, with_models_slashes,
};
use crate::service::authenticate::Caller;

/// What the gateway answers itself on any host, before products are looked at.
const OWN: &str = "/.well-known/tollgate/";
/// Where the marketplace publishes LLM products.
const INFERS: &str = "/v1/infers/";
/// The base that SDKs are set to.
const V1: &str = "/v1";

/// What a target leads to.
#[derive(Debug)]
pub enum Route {
    /// One product. `path` is what follows the seller's base path, as it will be forwarded.
    Product {
        /// The product.
        sold: Arc<Sold>,
        /// Begins with a slash, or is empty.
        path: String,
    },
    /// An LLM call that does not say which product: its model does, or the key.
    ByModel {
        /// See above.
        path: String,
    },
    /// The receipts of calls.
    Receipts {
        /// Their request id.
        request_id: String,
    },
    /// The public keys of receipts.
    ReceiptKeys,
    /// The list of models: of one product, or of all that the key may call. `model` asks for one of them.
    Models {
        /// The product, if the path names it.
        sold: Option<Arc<Sold>>,
        /// The model, if the path names it.
        model: Option<String>,
    },
}

impl Route {
    /// The product, if the request's target names it.
    pub fn sold(&self) -> Option<&Sold> {
        match self {
            Self::Product { sold, .. } | Self::Models { sold: Some(sold), .. } => Some(sold),
            Self::Models { sold: None, .. } | Self::ByModel { .. } | Self::Receipts { .. } | Self::ReceiptKeys => None,
        }
    }
}

/// Finds the route of a call. `host` is the Host header, with or without a port; `target` the path and query.
pub fn find(shelf: &Shelf, host: &str, target: &str, get: bool) -> Result<Route, Rejection> {
    let read = match read_target(target) {
        Ok(read) => read,
        Err(fault) => return own_model(shelf, host, (target, fault), get),
    };
    if let Some(rest) = read.path.strip_prefix(OWN) {
        return own(rest, get);
    }
    if let Some(sold) = find_api(shelf, host, &read.path) {
        let path = forwarded_api_path(&sold, target, &read);
        return Ok(Route::Product { sold, path });
    }
    let path = collapsed(&read.path);
    let with_query = |rest: &str| match read.query {
        Some(query) => [rest, "?", query].concat(),
        None => rest.to_owned(),
    };
    if let Some(rest) = path.strip_prefix(INFERS) {
        let (deployment, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let found = shelf.deployments.get(deployment).and_then(|index| shelf.sold.get(*index));
        let Some(sold) = found else { return Err(no_deployment(shelf, deployment)) };
        let Some(rest) = under_v1(rest) else {
            let right = format!("{INFERS}{deployment}/v1");
            let message = texts::PRODUCTS_PATHS.with([("right", right.into())]);
            return Err(Rejection::new(Code::PathNotFound, message));
        };
        let sold = Arc::clone(sold);
        return Ok(match models(rest, get) {
            Some(model) => Route::Models { sold: Some(sold), model },
            None => Route::Product { sold, path: with_query(rest) },
        });
    }
    match under_v1(&path).filter(|_| !shelf.deployments.is_empty()) {
        Some(rest) => Ok(match models(rest, get) {
            Some(model) => Route::Models { sold: None, model },
            None => Route::ByModel { path: with_query(rest) },
        }),
        None => {
            let message = texts::NOTHING_HERE.with([("paths", right_paths(shelf))]);
            Err(Rejection::new(Code::PathNotFound, message))
        }
    }
}

/// The route of a path with encoded slashes: one model, which the gateway shows itself, may have them in its name. No
/// seller hears of such a path.
fn own_model(shelf: &Shelf, host: &str, (target, fault): (&str, TargetFault), get: bool) -> Result<Route, Rejection> {
    let resolved = with_models_slashes(target).filter(|_| fault == TargetFault::EncodedSeparator);
    match resolved.map(|target| find(shelf, host, &target, get)) {
        Some(Ok(route @ Route::Models { .. })) => Ok(route),
        Some(Ok(_) | Err(_)) | None => Err(Rejection::new(Code::InvalidRequest, fault.to_string())),
    }
}

/// A path of ours.
fn own(rest: &str, get: bool) -> Result<Route, Rejection> {
    match rest.strip_prefix("receipts/") {
        _ if !get => {}
        Some(request_id) if valid_request_id(request_id.as_bytes()) => {
            return Ok(Route::Receipts { request_id: request_id.to_owned() });
        }
        None if rest == "receipt-keys" => return Ok(Route::ReceiptKeys),
        Some(_) | None => {}
    }
    Err(Rejection::new(Code::PathNotFound, texts::OWN_PATHS.with([("own", OWN.into())])))
}

/// What follows `/v1`, if the path lies under it.
fn under_v1(path: &str) -> Option<&str> {
    path.strip_prefix(V1).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a call under `/v1` asks for models; `Some(Some(_))` for one of them.
fn models(rest: &str, get: bool) -> Option<Option<String>> {
    let rest = rest.strip_prefix("/models").filter(|_| get)?;
    match rest.strip_prefix('/') {
        None => rest.is_empty().then_some(None),
        Some("") => Some(None),
        Some(model) => Some(Some(decoded(model))),
    }
}

fn find_api(shelf: &Shelf, host: &str, path: &str) -> Option<Arc<Sold>> {
    if shelf.apis.is_empty() {
        return None;
    }
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(host, _)| host);
    let fits = |sold: &&Arc<Sold>| match &sold.product.kind {
        ProductKind::Http { host: wanted, path: prefix, .. } => {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(host)) && has_path_prefix(path, prefix)
        }
        ProductKind::Llm { .. } => false,
    };
    shelf.apis.iter().filter_map(|index| shelf.sold.get(*index)).find(fits).map(Arc::clone)
}

/// The target as it came; less the prefix, if the product says so.
fn forwarded_api_path(sold: &Sold, target: &str, read: &Target<'_>) -> String {
    let ProductKind::Http { path: prefix, strip_path: true, .. } = &sold.product.kind else { return target.to_owned() };
    let prefix = prefix.trim_end_matches('/');
    let rest = match (target.strip_prefix(prefix), read.path.strip_prefix(prefix), read.query) {
        (Some(rest), _, _) => rest.to_owned(),
        // The prefix was spelled with escapes: the normalised copy says the same.
        (None, Some(rest), Some(query)) => format!("{rest}?{query}"),
        (None, rest, _) => rest.unwrap_or_default().to_owned(),
    };
    if rest.starts_with('/') { rest } else { format!("/{rest}") }
}

/// The LLM products that a caller may call; without a key only those that are open to all.
pub fn callable<'a>(shelf: &'a Shelf, caller: Option<&'a Caller>) -> impl Iterator<Item = &'a Arc<Sold>> {
    shelf.sold.iter().filter(move |sold| sold.llm && may_call(sold, caller))
}

/// Whether a caller may call a product.
pub fn may_call(sold: &Sold, caller: Option<&Caller>) -> bool {
    match sold.product.access {
        crate::config::Access::Open => true,
        crate::config::Access::Keys => caller.is_some_and(|caller| caller.opens(&sold.product.id)),
    }
}

/// The product of an LLM call that names only a model, or nothing.
pub fn by_model(shelf: &Shelf, caller: Option<&Caller>, model: Option<&str>) -> Result<Arc<Sold>, Rejection> {
    if let Some(model) = model
        && let Some(sold) = shelf.models.get(model).and_then(|index| shelf.sold.get(*index))
    {
        return Ok(Arc::clone(sold));
    }
    let mut callable_ones = callable(shelf, caller);
    let only = callable_ones.next().filter(|_| callable_ones.next().is_none());
    match (only, model) {
        (Some(only), None) => Ok(Arc::clone(only)),
        (Some(only), Some(model)) => check_model(only, model).map(|()| Arc::clone(only)),
        (None, Some(model)) => {
            let known = names(shelf.models.keys());
            let values = [("model", quoted(model)), ("known", known), ("paths", right_paths(shelf))];
            let message = texts::MODEL_NOT_SOLD.with(values);
            Err(Rejection::new(Code::ModelNotFound, message).param("model"))
        }
        (None, None) => {
            let message = texts::NO_MODEL_NAMED.with([("paths", right_paths(shelf))]);
            Err(Rejection::new(Code::PathNotFound, message))
        }
    }
}

/// Refuses a model that the product does not have.
pub fn check_model(sold: &Sold, model: &str) -> Result<(), Rejection> {
    match &sold.product.kind {
        ProductKind::Llm { models, .. } if !models.is_empty() && !models.contains_key(model) => {
            let product = sold.product.id.to_string().into();
            let values = [("product", product), ("model", quoted(model)), ("known", names(models.keys()))];
            let message = texts::PRODUCT_WITHOUT_MODEL.with(values);
            Err(Rejection::new(Code::ModelNotFound, message).param("model"))
        }
        ProductKind::Llm { .. } | ProductKind::Http { .. } => Ok(()),
    }
}

/// Refuses a body that was not read where the product has no model but those that it lists.
pub fn check_unread(sold: &Sold) -> Result<(), Rejection> {
    match &sold.product.kind {
        ProductKind::Llm { models, .. } if !models.is_empty() => {
            let values = [("product", sold.product.id.to_string().into()), ("known", names(models.keys()))];
            Err(Rejection::new(Code::EncodingUnsupported, texts::PRODUCT_MODEL_UNREAD.with(values)).closing())
        }
        ProductKind::Llm { .. } | ProductKind::Http { .. } => Ok(()),
    }
}

/// A name that a caller sent, as a message repeats it: never at any length.
pub fn quoted(name: &str) -> Said {
    format!("{:?}", kept(name, MODEL_BYTES_MAX)).into()
}

/// The path of a product, as its buyers use it.
pub fn published_path(sold: &Sold) -> String {
    match &sold.product.kind {
        ProductKind::Llm { deployment, .. } => format!("{INFERS}{deployment}/v1"),
        ProductKind::Http { host, path, .. } => format!("{}{path}", host.as_deref().unwrap_or_default()),
    }
}

fn no_deployment(shelf: &Shelf, deployment: &str) -> Rejection {
    let values = [("deployment", quoted(deployment)), ("paths", right_paths(shelf))];
    let message = texts::NO_PRODUCT.with(values);
    Rejection::new(Code::PathNotFound, message)
}

/// Names at most this many products or models in a message.
const NAMED_MAX: usize = 8;

fn right_paths(shelf: &Shelf) -> Said {
    let mut paths: Vec<String> = shelf.sold.iter().map(|sold| published_path(sold)).collect();
    paths.sort();
    texts::PUBLISHED_AT.with([("paths", names(paths.iter()))])
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> Said {
    let mut all: Vec<&str> = all.map(String::as_str).collect();
    all.sort_unstable();
    let rest = all.len().saturating_sub(NAMED_MAX);
    let shown = all.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    match (shown.is_empty(), rest) {
        (true, _) => (&texts::NONE_BY_NAME).into(),
        (false, 0) => shown.into(),
        (false, rest) => texts::AND_MORE.with([("shown", shown.into()), ("rest", rest.to_string().into())]),
    }
}
