//! Every refusal of ours: its code, its status, its words. The only place that knows the status of a refusal.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::AnswerBody;
use super::limits::show_rate;
use crate::domain::budget::{OverBudget, Period};
use crate::domain::id::ProductId;
use crate::domain::limit::{Kind, Level};
use crate::domain::pool::Shortage;
use crate::protocol::chat::{ErrorFields, error_body_api, error_body_llm};
use crate::protocol::head::HeadFault;
use crate::protocol::signature::SignatureFault;
use crate::service::authenticate::AuthError;
use crate::service::failures::{Blamed, TooMany};
use crate::service::limits::Refused;
use crate::service::meter::AdmitError;

/// What a refusal is about. Stable: clients and dashboards may depend on the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is explained by its row in `Code::facts` and by docs/errors.md")]
pub enum Code {
    InvalidRequest,
    HeadTooLarge,
    UpgradeUnsupported,
    ExpectationUnknown,
    EncodingUnsupported,
    RequestTimeout,
    MissingApiKey,
    InvalidApiKey,
    ApiKeyDisabled,
    ApiKeyExpired,
    InvalidSignature,
    SignatureExpired,
    InvalidAppCode,
    SchemeNotAccepted,
    TlsRequired,
    AmbiguousCredentials,
    ProductNotAllowed,
    ModelNotAllowed,
    ModelNotFound,
    PathNotFound,
    ReceiptNotFound,
    RequestTooLarge,
    RateLimitExceeded,
    TooManyFailures,
    BudgetExhausted,
    NoPackage,
    PackageExhausted,
    PackageExpired,
    PackageNotYetValid,
    MeteringUnavailable,
    StoreUnavailable,
    Overloaded,
    ReceiptUnavailable,
    UpstreamConnect,
    UpstreamBroke,
    SellerAuth,
    UpstreamTimeout,
}

/// What a code means on the wire.
struct Facts {
    status: StatusCode,
    /// OpenAI's `type` and `code`; the code is our own name unless the SDKs know a better one.
    kind: &'static str,
    openai_code: Option<&'static str>,
    apig_code: &'static str,
}

/// What APIG's messages about apps begin with.
const APP_AUTH: &str = "Incorrect app authentication information";
const INVALID: &str = "invalid_request_error";
const QUOTA: &str = "insufficient_quota";
const SERVER: &str = "server_error";

const fn facts(status: StatusCode, kind: &'static str, apig_code: &'static str) -> Facts {
    Facts { status, kind, openai_code: None, apig_code }
}

/// Used-up quota: the SDKs' own code for it (and APIG's, under the SDKs' status).
const fn quota() -> Facts {
    Facts { status: StatusCode::TOO_MANY_REQUESTS, kind: QUOTA, openai_code: Some(QUOTA), apig_code: "APIG.0501" }
}

impl Code {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::HeadTooLarge => "head_too_large",
            Self::UpgradeUnsupported => "upgrade_unsupported",
            Self::ExpectationUnknown => "expectation_unknown",
            Self::EncodingUnsupported => "encoding_unsupported",
            Self::RequestTimeout => "request_timeout",
            Self::MissingApiKey => "missing_api_key",
            Self::InvalidApiKey => "invalid_api_key",
            Self::ApiKeyDisabled => "api_key_disabled",
            Self::ApiKeyExpired => "api_key_expired",
            Self::InvalidSignature => "invalid_signature",
            Self::SignatureExpired => "signature_expired",
            Self::InvalidAppCode => "invalid_app_code",
            Self::SchemeNotAccepted => "scheme_not_accepted",
            Self::TlsRequired => "tls_required",
            Self::AmbiguousCredentials => "ambiguous_credentials",
            Self::ProductNotAllowed => "product_not_allowed",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::ModelNotFound => "model_not_found",
            Self::PathNotFound => "path_not_found",
            Self::ReceiptNotFound => "receipt_not_found",
            Self::RequestTooLarge => "request_too_large",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::TooManyFailures => "too_many_failures",
            Self::BudgetExhausted => "budget_exhausted",
            Self::NoPackage => "no_package",
            Self::PackageExhausted => "package_exhausted",
            Self::PackageExpired => "package_expired",
            Self::PackageNotYetValid => "package_not_yet_valid",
            Self::MeteringUnavailable => "metering_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::Overloaded => "overloaded",
            Self::ReceiptUnavailable => "receipt_unavailable",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamBroke => "upstream_broke",
            Self::SellerAuth => "seller_auth",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    const fn facts(self) -> Facts {
        match self {
            Self::InvalidRequest | Self::AmbiguousCredentials => facts(StatusCode::BAD_REQUEST, INVALID, "APIG.0201"),
            Self::HeadTooLarge => facts(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID, "APIG.0201"),
            Self::UpgradeUnsupported => facts(StatusCode::NOT_IMPLEMENTED, INVALID, "APIG.0607"),
            Self::ExpectationUnknown => facts(StatusCode::EXPECTATION_FAILED, INVALID, "APIG.0201"),
            Self::EncodingUnsupported => facts(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "APIG.0201"),
            Self::RequestTimeout => facts(StatusCode::REQUEST_TIMEOUT, INVALID, "APIG.0201"),
            Self::MissingApiKey
            | Self::InvalidApiKey
            | Self::ApiKeyDisabled
            | Self::ApiKeyExpired
            | Self::InvalidSignature
            | Self::SignatureExpired
            | Self::InvalidAppCode
            | Self::SchemeNotAccepted => facts(StatusCode::UNAUTHORIZED, INVALID, "APIG.0303"),
            Self::TlsRequired => facts(StatusCode::FORBIDDEN, "permission_error", "APIG.0306"),
            Self::ProductNotAllowed | Self::ModelNotAllowed => {
                facts(StatusCode::FORBIDDEN, "permission_error", "APIG.0304")
            }
            Self::ModelNotFound | Self::PathNotFound | Self::ReceiptNotFound => {
                facts(StatusCode::NOT_FOUND, INVALID, "APIG.0101")
            }
            Self::RequestTooLarge => facts(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "APIG.0201"),
            Self::RateLimitExceeded | Self::TooManyFailures => {
                facts(StatusCode::TOO_MANY_REQUESTS, "requests", "APIG.0308")
            }
            Self::BudgetExhausted
            | Self::NoPackage
            | Self::PackageExhausted
            | Self::PackageExpired
            | Self::PackageNotYetValid => quota(),
            Self::MeteringUnavailable | Self::StoreUnavailable | Self::Overloaded | Self::ReceiptUnavailable => {
                facts(StatusCode::SERVICE_UNAVAILABLE, SERVER, "APIG.0601")
            }
            Self::UpstreamConnect | Self::UpstreamBroke | Self::SellerAuth => {
                facts(StatusCode::BAD_GATEWAY, SERVER, "APIG.0202")
            }
            Self::UpstreamTimeout => facts(StatusCode::GATEWAY_TIMEOUT, SERVER, "APIG.0203"),
        }
    }
}

/// A call that is refused by us, or that its seller did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What it is about.
    pub code: Code,
    /// What is wrong and what to do next, for the caller.
    message: Cow<'static, str>,
    /// The request's field at fault.
    param: Option<&'static str>,
    /// Whether the connection's state is in doubt.
    close: bool,
    /// How long until trying again helps.
    wait: Option<Duration>,
    /// The rate that is used up: its calls, and how long until all of them are there again.
    rate: Option<(u32, Duration)>,
}

/// A wait that SDKs sleep through; a longer one is told to people alone.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// What is said where nobody knows how long: calls that are under way end when they end.
const WAIT_UNKNOWN: Duration = Duration::from_secs(1);

impl Rejection {
    /// A refusal in the given words.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), param: None, close: false, wait: None, rate: None }
    }

    /// Names the request's field at fault.
    pub fn param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    /// Ends the connection with the answer.
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// A head that the gate refused.
    pub fn head(fault: HeadFault) -> Self {
        let code = match fault {
            HeadFault::TooLarge | HeadFault::TooManyFields => Code::HeadTooLarge,
            HeadFault::UpgradeOffered => Code::UpgradeUnsupported,
            HeadFault::ExpectationUnknown => Code::ExpectationUnknown,
            HeadFault::Malformed(_) => Code::InvalidRequest,
        };
        Self::new(code, fault.reason()).closing()
    }

    /// A key that opens nothing.
    pub fn auth(error: &AuthError) -> Self {
        match error {
            AuthError::Malformed(fault) => {
                Self::new(Code::InvalidApiKey, format!("this is not an API key of this service: {fault}"))
            }
            AuthError::Unknown => Self::new(
                Code::InvalidApiKey,
                "the API key is not known; check that it was copied whole and was not revoked, or create a new one",
            ),
            AuthError::Disabled => {
                Self::new(Code::ApiKeyDisabled, "the API key is disabled; enable it, or use another one")
            }
            AuthError::Expired => Self::new(Code::ApiKeyExpired, "the API key has expired; create a new one"),
            AuthError::TooMany(too_many) => Self::too_many(too_many),
            AuthError::Unavailable(_) => Self::store(),
        }
    }

    /// A signature that is refused whoever made it.
    pub fn signature(fault: &SignatureFault) -> Self {
        let code = match fault {
            SignatureFault::Expired { .. } => Code::SignatureExpired,
            SignatureFault::Malformed
            | SignatureFault::SignedHeaders
            | SignatureFault::DateMissing
            | SignatureFault::DateMalformed
            | SignatureFault::HeaderMissing(_)
            | SignatureFault::HashRepeated
            | SignatureFault::BodyChanged
            | SignatureFault::Unsigned => Code::InvalidSignature,
        };
        Self::new(code, format!("{APP_AUTH}: {fault}"))
    }

    /// A signature that does not fit, of an AppKey that nobody has, or of an app that is not bound: one answer for all.
    /// `signed` is what was checked, without values.
    pub fn wrong_signature(signed: Option<&str>) -> Self {
        let next = "check AppKey and AppSecret, that the app is bound to this product, and that nothing changes the \
                    request after it is signed; `tollgate verify` finds the difference";
        let signed = signed.map(|signed| format!(", canonicalRequest:{signed}")).unwrap_or_default();
        Self::new(Code::InvalidSignature, format!("{APP_AUTH}: verify signature fail{signed}; {next}"))
    }

    /// An AppCode that nobody has, or of an app that is not bound: one answer for both.
    pub fn unknown_app_code() -> Self {
        let next = "check that it was copied whole and that its app is bound to this product";
        Self::new(Code::InvalidAppCode, format!("{APP_AUTH}: the AppCode opens nothing here; {next}"))
    }

    /// The store does not answer.
    pub fn store() -> Self {
        Self::new(Code::StoreUnavailable, "accounts cannot be read at the moment; try again shortly")
    }

    /// A call beyond a limit.
    pub fn limited(refused: &Refused, product: &ProductId) -> Self {
        let Refused { level, over } = refused;
        let limit = over.limit;
        let whose = match level {
            Level::Product => format!("{product} serves all its callers"),
            Level::Account => "the account may make".to_owned(),
            Level::Key => "the API key may make".to_owned(),
            Level::App => "the app may make".to_owned(),
        };
        let what = match over.kind {
            Kind::Second => format!("{limit} calls a second"),
            Kind::Minute => format!("{limit} calls a minute"),
            Kind::Day => format!("{limit} calls a day"),
            Kind::Concurrent => format!("{limit} calls at one time"),
        };
        let next = match over.wait {
            Some(wait) => format!("try again in {} s", seconds_up(wait)),
            None => "try again when one of them has ended".to_owned(),
        };
        let message = format!("{whose} {what}, and these are used up; {next}, or ask the operator for more");
        let rate = over.fresh_in.map(|fresh_in| (over.limit, fresh_in));
        let wait = Some(over.wait.unwrap_or(WAIT_UNKNOWN));
        Self { wait, rate, ..Self::new(Code::RateLimitExceeded, message) }
    }

    /// A call beyond its key's budget.
    pub fn budget(over: &OverBudget) -> Self {
        let OverBudget::Exhausted { period, limit, renewed } = over else {
            let message = "this gateway's share of what is left of the API key's budget is used until the other gateways \
                           have heard of it; try again in a second";
            return Self { wait: Some(WAIT_UNKNOWN), ..Self::new(Code::RateLimitExceeded, message) };
        };
        let how = match period {
            Period::Day => " a day",
            Period::Month => " a month",
            Period::Total => " in all",
        };
        let renewed = renewed.map(|at| format!("it begins anew at {at}; ")).unwrap_or_default();
        let message = format!(
            "the API key's budget of {limit} units{how} is used up; {renewed}ask the account's owner for a larger one, \
             or use another key"
        );
        Self::new(Code::BudgetExhausted, message)
    }

    /// A credential that is not looked at: too many have failed.
    pub fn too_many(too_many: &TooMany) -> Self {
        let whose = match too_many.blamed {
            Blamed::Address => "from this address",
            Blamed::Credential => "with this credential",
        };
        let wait = seconds_up(too_many.wait);
        let message =
            format!("too many authentications {whose} have failed; check the credential, try again in {wait} s");
        Self { wait: Some(too_many.wait), ..Self::new(Code::TooManyFailures, message) }
    }

    /// A call without quota. `buy_url` is where more can be had.
    pub fn quota(error: &AdmitError, product: &ProductId, buy_url: Option<&str>) -> Self {
        let (code, what) = match error {
            AdmitError::Journal => {
                return Self::new(
                    Code::MeteringUnavailable,
                    "calls cannot be counted at the moment, so none are served; try again shortly",
                );
            }
            AdmitError::Unavailable => return Self::store(),
            AdmitError::Empty(Shortage::NoPackage) => {
                (Code::NoPackage, format!("the account has no package of {product}"))
            }
            AdmitError::Empty(Shortage::UsedUp) => {
                (Code::PackageExhausted, format!("0 calls of {product} are left: the package is used up"))
            }
            AdmitError::Empty(Shortage::Expired { at }) => {
                (Code::PackageExpired, format!("0 calls of {product} are left: the package expired at {at}"))
            }
            AdmitError::Empty(Shortage::NotYetValid { from }) => {
                (Code::PackageNotYetValid, format!("the package of {product} can be used from {from} on"))
            }
        };
        let next =
            buy_url.map_or(Cow::from("ask the operator for a new one"), |url| format!("buy more at {url}").into());
        Self::new(code, format!("{what}; {next}"))
    }

    /// The answer. `llm` chooses the shape: the SDKs of LLM routes read more than APIG's.
    pub fn answer(&self, request_id: &str, llm: bool) -> Response<AnswerBody> {
        let facts = self.code.facts();
        let fields = ErrorFields {
            message: &self.message,
            kind: facts.kind,
            param: self.param,
            code: Some(facts.openai_code.unwrap_or(self.code.name())),
            reason: self.code.name(),
            apig_code: facts.apig_code,
            request_id,
        };
        let body = if llm { error_body_llm(&fields) } else { error_body_api(&fields) };
        let mut response = Response::new(AnswerBody::full(body));
        *response.status_mut() = facts.status;
        self.fill(response.headers_mut(), &facts);
        response
    }

    fn fill(&self, headers: &mut HeaderMap, facts: &Facts) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-tollgate-error-source", HeaderValue::from_static("gateway"));
        headers.insert("x-tollgate-error-code", HeaderValue::from_static(self.code.name()));
        if facts.kind == QUOTA {
            // Trying again cannot help, whatever the SDK thinks of 429.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(wait) = self.wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(wait)));
            headers.insert("retry-after-ms", HeaderValue::from(millis_up(wait)));
            if wait > WAIT_MAX {
                // Some SDKs would sleep for hours.
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
        }
        if let Some((limit, fresh_in)) = self.rate {
            show_rate(headers, (limit, 0, fresh_in));
        }
        if facts.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if facts.status == StatusCode::UNAUTHORIZED {
            let scheme = if matches!(self.code, Code::InvalidSignature | Code::SignatureExpired) {
                "SDK-HMAC-SHA256"
            } else if self.code == Code::InvalidAppCode {
                "APPCODE"
            } else {
                "Bearer"
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        self.code.facts().status.as_u16()
    }
}

/// Whole seconds that are no less.
fn seconds_up(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Whole milliseconds that are no less.
fn millis_up(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
