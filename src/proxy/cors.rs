//! Cross-origin calls from browsers: whose pages may call which product and read its answers, our refusals included.
//! Preflights are answered here, and are neither authenticated, forwarded nor billed.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::body::AnswerBody;
use super::catalog::{Shelf, Sold};
use super::route::Route;
use crate::config::{CorsRule, Methods, Origins};

/// Our own answer headers that a page may read.
const EXPOSED: &str = "x-request-id, x-should-retry, retry-after, retry-after-ms, x-ratelimit-limit-requests, \
     x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-tollgate-remaining, x-tollgate-unit, \
     x-tollgate-package-expires, x-tollgate-error-source, x-tollgate-error-code";

/// Everybody's.
const ANY: HeaderValue = HeaderValue::from_static("*");

/// What a preflight's answer depends on.
const PREFLIGHT_VARIES: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// A product's rule, ready to be written into answers.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    /// `None`: whatever is asked for.
    methods: Option<HeaderValue>,
    exposed: HeaderValue,
    /// In seconds.
    max_age: HeaderValue,
}

impl Cors {
    /// Prepares a rule.
    pub fn new(rule: &CorsRule) -> Self {
        let text = |text: String| HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        let exposed = std::iter::once(EXPOSED).chain(rule.exposed.iter().map(HeaderName::as_str));
        Self {
            origins: rule.origins.clone(),
            methods: match &rule.methods {
                Methods::Any => None,
                // Made of visible characters.
                Methods::These(methods) => {
                    Some(text(methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")))
                }
            },
            exposed: text(exposed.collect::<Vec<_>>().join(", ")), // same
            max_age: HeaderValue::from(rule.max_age.as_secs()),
        }
    }

    /// What `Access-Control-Allow-Origin` says to an origin.
    fn allows(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(ANY),
            Origins::These(origins) => origins.iter().any(|known| known == origin).then(|| origin.clone()),
        }
    }

    /// Whether answers differ by who asks, though no page asked.
    fn varies(&self) -> bool {
        match &self.origins {
            Origins::Any => false,
            Origins::These(origins) => !origins.is_empty(),
        }
    }
}

/// The rules that a call may come under: that of its product, or, as long as that is not known, those of all that it may
/// turn out to be.
fn rules<'s>(shelf: &'s Shelf, sold: Option<&'s Sold>, llm: bool) -> impl Iterator<Item = &'s Cors> {
    let others = shelf.sold.iter().filter(move |other| sold.is_none() && (other.llm || !llm));
    sold.into_iter().chain(others.map(|other| &**other)).map(|sold| &sold.cors)
}

/// The origin of the page that makes a call; none if the request names several.
pub fn origin(headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    (headers.get_all(header::ORIGIN).iter().count() == 1).then(|| origin.clone())
}

/// The method that a browser asks permission for, if it asks.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    (method == Method::OPTIONS && headers.contains_key(header::ORIGIN)).then(|| asked.clone())
}

/// The answer to a preflight: the permission, or nothing, which browsers take for a refusal. A call needs a key all the
/// same.
pub fn permit(shelf: &Shelf, route: Option<&Route>, asked: &HeaderMap) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::VARY, PREFLIGHT_VARIES);
    let (sold, llm) = match route {
        Some(Route::Product { sold, .. } | Route::Models { sold: Some(sold), .. }) => (Some(&**sold), sold.llm),
        Some(Route::ByModel { .. } | Route::Models { sold: None, .. }) => (None, true),
        Some(Route::Receipts { .. } | Route::ReceiptKeys) | None => (None, false),
    };
    let origin = origin(asked);
    let permitted = |cors: &'_ Cors| Some((cors.allows(origin.as_ref()?)?, cors.methods.clone(), cors.max_age.clone()));
    let Some((origin, methods, max_age)) = rules(shelf, sold, llm).find_map(permitted) else { return response };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if let Some(methods) = methods.or_else(|| asked.get(header::ACCESS_CONTROL_REQUEST_METHOD).cloned()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
    response
}

/// Whether a seller's header tells pages what they may read: it speaks for its own origin, and ends here. Though no page
/// asked: a cache may hand the answer to one.
pub fn is_sellers(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
}

/// Lets a page read the answer to its call, or not.
pub fn expose(answer: &mut HeaderMap, origin: Option<&HeaderValue>, (shelf, sold, llm): (&Shelf, Option<&Sold>, bool)) {
    if rules(shelf, sold, llm).any(Cors::varies) {
        answer.append(header::VARY, HeaderValue::from_static("origin"));
    }
    let Some(origin) = origin else { return };
    let allowed = rules(shelf, sold, llm).find_map(|cors| Some((cors.allows(origin)?, &cors.exposed)));
    if let Some((origin, exposed)) = allowed {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
    }
}
