//! Every refusal of ours: its code, its status, its words. The only place that knows the status of a refusal.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::AnswerBody;
use super::limits::show_rate;
use super::words::{Said, Text, texts};
use crate::domain::budget::{Allowed, OverBudget, Period};
use crate::domain::id::ProductId;
use crate::domain::limit::{Kind, Level};
use crate::domain::money::Price;
use crate::domain::pool::Shortage;
use crate::protocol::chat::{BodyFault, ErrorFields, error_body_anthropic, error_body_api, error_body_llm};
use crate::protocol::framing::FramingFault;
use crate::protocol::head::HeadFault;
use crate::protocol::language::Language;
use crate::protocol::signature::SignatureFault;
use crate::service::authenticate::AuthError;
use crate::service::failures::{Blamed, TooMany};
use crate::service::limits::Refused;
use crate::service::meter::AdmitError;
use crate::service::replay::ReplayFault;

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
    SignatureReplayed,
    InvalidAppCode,
    SchemeNotAccepted,
    TlsRequired,
    AmbiguousCredentials,
    AddressNotAllowed,
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
    ReplayUnavailable,
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

impl Facts {
    /// Anthropic's `type`. Theirs go by status, but for quota that is used up.
    fn anthropic_kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS if self.kind == QUOTA => "billing_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::GATEWAY_TIMEOUT => "timeout_error",
            status if status.is_server_error() => "api_error",
            _ => INVALID,
        }
    }
}

/// How a refusal is written: what the SDKs of a route read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// APIG's.
    Api,
    /// OpenAI's, and APIG's in it.
    OpenAi,
    /// The same in Anthropic's terms.
    Anthropic,
}

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
            Self::SignatureReplayed => "signature_replayed",
            Self::InvalidAppCode => "invalid_app_code",
            Self::SchemeNotAccepted => "scheme_not_accepted",
            Self::TlsRequired => "tls_required",
            Self::AmbiguousCredentials => "ambiguous_credentials",
            Self::AddressNotAllowed => "address_not_allowed",
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
            Self::ReplayUnavailable => "replay_unavailable",
            Self::Overloaded => "overloaded",
            Self::ReceiptUnavailable => "receipt_unavailable",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamBroke => "upstream_broke",
            Self::SellerAuth => "seller_auth",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    /// What it says by itself.
    const fn text(self) -> &'static Text {
        match self {
            Self::InvalidRequest => &texts::INVALID_REQUEST,
            Self::HeadTooLarge => &texts::HEAD_TOO_LARGE,
            Self::UpgradeUnsupported => &texts::UPGRADE_UNSUPPORTED,
            Self::ExpectationUnknown => &texts::EXPECTATION_UNKNOWN,
            Self::EncodingUnsupported => &texts::ENCODING_UNSUPPORTED,
            Self::RequestTimeout => &texts::REQUEST_TIMEOUT,
            Self::MissingApiKey => &texts::MISSING_API_KEY,
            Self::InvalidApiKey => &texts::INVALID_API_KEY,
            Self::ApiKeyDisabled => &texts::API_KEY_DISABLED,
            Self::ApiKeyExpired => &texts::API_KEY_EXPIRED,
            Self::InvalidSignature => &texts::INVALID_SIGNATURE,
            Self::SignatureExpired => &texts::SIGNATURE_EXPIRED,
            Self::SignatureReplayed => &texts::SIGNATURE_REPLAYED,
            Self::InvalidAppCode => &texts::INVALID_APP_CODE,
            Self::SchemeNotAccepted => &texts::SCHEME_NOT_ACCEPTED,
            Self::TlsRequired => &texts::TLS_REQUIRED,
            Self::AmbiguousCredentials => &texts::AMBIGUOUS_CREDENTIALS,
            Self::AddressNotAllowed => &texts::ADDRESS_NOT_ALLOWED,
            Self::ProductNotAllowed => &texts::PRODUCT_NOT_ALLOWED,
            Self::ModelNotAllowed => &texts::MODEL_NOT_ALLOWED,
            Self::ModelNotFound => &texts::MODEL_NOT_FOUND,
            Self::PathNotFound => &texts::PATH_NOT_FOUND,
            Self::ReceiptNotFound => &texts::RECEIPT_NOT_FOUND,
            Self::RequestTooLarge => &texts::REQUEST_TOO_LARGE,
            Self::RateLimitExceeded => &texts::RATE_LIMIT_EXCEEDED,
            Self::TooManyFailures => &texts::TOO_MANY_FAILURES,
            Self::BudgetExhausted => &texts::BUDGET_EXHAUSTED,
            Self::NoPackage => &texts::NO_PACKAGE,
            Self::PackageExhausted => &texts::PACKAGE_EXHAUSTED,
            Self::PackageExpired => &texts::PACKAGE_EXPIRED,
            Self::PackageNotYetValid => &texts::PACKAGE_NOT_YET_VALID,
            Self::MeteringUnavailable => &texts::METERING_UNAVAILABLE,
            Self::StoreUnavailable => &texts::STORE_UNAVAILABLE,
            Self::Overloaded => &texts::OVERLOADED,
            Self::ReplayUnavailable => &texts::REPLAY_UNAVAILABLE,
            Self::ReceiptUnavailable => &texts::RECEIPT_UNAVAILABLE,
            Self::UpstreamConnect => &texts::UPSTREAM_CONNECT,
            Self::UpstreamBroke => &texts::UPSTREAM_BROKE,
            Self::SellerAuth => &texts::SELLER_AUTH,
            Self::UpstreamTimeout => &texts::UPSTREAM_TIMEOUT,
        }
    }

    const fn facts(self) -> Facts {
        match self {
            Self::InvalidRequest | Self::AmbiguousCredentials => facts(StatusCode::BAD_REQUEST, INVALID, "APIG.0201"),
            Self::HeadTooLarge => facts(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID, "APIG.0201"),
            Self::UpgradeUnsupported => facts(StatusCode::BAD_REQUEST, INVALID, "APIG.0607"),
            Self::ExpectationUnknown => facts(StatusCode::EXPECTATION_FAILED, INVALID, "APIG.0201"),
            Self::EncodingUnsupported => facts(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "APIG.0201"),
            Self::RequestTimeout => facts(StatusCode::REQUEST_TIMEOUT, INVALID, "APIG.0201"),
            Self::MissingApiKey
            | Self::InvalidApiKey
            | Self::ApiKeyDisabled
            | Self::ApiKeyExpired
            | Self::InvalidSignature
            | Self::SignatureExpired
            | Self::SignatureReplayed
            | Self::InvalidAppCode
            | Self::SchemeNotAccepted => facts(StatusCode::UNAUTHORIZED, INVALID, "APIG.0303"),
            Self::TlsRequired | Self::AddressNotAllowed => {
                facts(StatusCode::FORBIDDEN, "permission_error", "APIG.0306")
            }
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
            Self::MeteringUnavailable
            | Self::StoreUnavailable
            | Self::ReplayUnavailable
            | Self::Overloaded
            | Self::ReceiptUnavailable => facts(StatusCode::SERVICE_UNAVAILABLE, SERVER, "APIG.0601"),
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
    message: Said,
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
    pub fn new(code: Code, message: impl Into<Said>) -> Self {
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

    /// A body that says no model.
    pub fn body(fault: &BodyFault) -> Self {
        let number = |name, number: &usize| (name, number.to_string().into());
        let message = match fault {
            BodyFault::Syntax { line, column } => {
                texts::NOT_JSON.with([number("line", line), number("column", column)])
            }
            BodyFault::Encoding { offset } => texts::NOT_UTF8.with([number("offset", offset)]),
            BodyFault::Ambiguous { field } => texts::FIELD_AMBIGUOUS.with([("field", (*field).into())]),
            BodyFault::ModelEscape { offset } => texts::MODEL_ESCAPE.with([number("offset", offset)]),
            BodyFault::NotAnObject
            | BodyFault::ModelNotText
            | BodyFault::ModelTooLong
            | BodyFault::StreamNotBoolean => fault.to_string().into(),
        };
        Self::new(Code::InvalidRequest, message)
    }

    /// A body that broke off, or that the gate found to be none.
    pub fn broken_body(fault: Option<FramingFault>) -> Self {
        let message = fault.map_or_else(|| Said::from(&texts::BODY_BROKEN), |fault| fault.to_string().into());
        Self::new(Code::InvalidRequest, message).closing()
    }

    /// A key that opens nothing.
    pub fn auth(error: &AuthError) -> Self {
        match error {
            AuthError::Malformed(fault) => {
                Self::new(Code::InvalidApiKey, texts::NO_KEY_OF_OURS.with([("fault", fault.to_string().into())]))
            }
            AuthError::Unknown => Self::new(Code::InvalidApiKey, &texts::KEY_UNKNOWN),
            AuthError::Disabled => Self::new(Code::ApiKeyDisabled, &texts::API_KEY_DISABLED),
            AuthError::Expired => Self::new(Code::ApiKeyExpired, &texts::API_KEY_EXPIRED),
            AuthError::Replaced => Self::new(Code::ApiKeyExpired, &texts::KEY_REPLACED),
            AuthError::TooMany(too_many) => Self::too_many(too_many),
            AuthError::Unavailable(_) => Self::store(),
        }
    }

    /// A signature that is refused whoever made it.
    pub fn signature(fault: &SignatureFault) -> Self {
        let (code, fault) = match fault {
            SignatureFault::Expired { signed, now } => {
                let values = [("signed", signed.clone().into()), ("now", now.clone().into())];
                (Code::SignatureExpired, texts::SIGNATURE_OLD.with(values))
            }
            SignatureFault::HeaderMissing(header) => {
                let values = [("header", header.clone().into())];
                (Code::InvalidSignature, texts::SIGNED_HEADER_MISSING.with(values))
            }
            SignatureFault::Malformed
            | SignatureFault::SignedHeaders
            | SignatureFault::DateMissing
            | SignatureFault::DateMalformed
            | SignatureFault::HashRepeated
            | SignatureFault::BodyChanged
            | SignatureFault::Unsigned => (Code::InvalidSignature, fault.to_string().into()),
        };
        Self::app_auth(code, fault)
    }

    /// In APIG's words about apps.
    fn app_auth(code: Code, fault: Said) -> Self {
        Self::new(code, texts::APP_AUTH.with([("fault", fault)]))
    }

    /// A signature that does not fit, of an AppKey that nobody has, or of an app that is not bound: one answer for all.
    /// `signed` is what was checked, without values.
    pub fn wrong_signature(signed: Option<&str>) -> Self {
        let signed = signed.map(|signed| texts::CANONICAL.with([("signed", signed.to_owned().into())]));
        let signed = signed.unwrap_or_else(|| "".into());
        Self::app_auth(Code::InvalidSignature, texts::WRONG_SIGNATURE.with([("signed", signed)]))
    }

    /// An AppCode that nobody has, or of an app that is not bound: one answer for both.
    pub fn unknown_app_code() -> Self {
        Self::app_auth(Code::InvalidAppCode, (&texts::APP_CODE_OPENS_NOTHING).into())
    }

    /// A signature that is right and is not accepted, or not any more.
    pub fn replay(fault: &ReplayFault) -> Self {
        let (code, text) = match fault {
            ReplayFault::Expired(expired) => return Self::signature(expired),
            ReplayFault::Replayed => (Code::SignatureReplayed, &texts::SIGNATURE_REPLAYED),
            ReplayFault::Unsure => (Code::ReplayUnavailable, &texts::SIGNATURE_TOO_OLD_TO_TELL),
            ReplayFault::Full => (Code::ReplayUnavailable, &texts::TOO_MANY_SIGNATURES),
            ReplayFault::Unavailable => (Code::ReplayUnavailable, &texts::REPLAY_UNAVAILABLE),
        };
        Self::new(code, text)
    }

    /// The store does not answer.
    pub fn store() -> Self {
        Self::new(Code::StoreUnavailable, &texts::ACCOUNTS_UNREAD)
    }

    /// A call beyond a limit.
    pub fn limited(refused: &Refused, product: &ProductId) -> Self {
        let Refused { level, over } = refused;
        let whose = match level {
            Level::Product => texts::PRODUCT_SERVES.with([("product", product.to_string().into())]),
            Level::Account => (&texts::ACCOUNT_MAY).into(),
            Level::Key => (&texts::KEY_MAY).into(),
            Level::App => (&texts::APP_MAY).into(),
        };
        let what = match over.kind {
            Kind::Second => &texts::CALLS_A_SECOND,
            Kind::Minute => &texts::CALLS_A_MINUTE,
            Kind::Day => &texts::CALLS_A_DAY,
            Kind::Concurrent => &texts::CALLS_AT_ONE_TIME,
        };
        let what = what.with([("limit", over.limit.to_string().into())]);
        let next = over.wait.map_or_else(|| (&texts::WHEN_ONE_HAS_ENDED).into(), try_again_in);
        let message = texts::LIMITED.with([("whose", whose), ("what", what), ("next", next)]);
        let rate = over.fresh_in.map(|fresh_in| (over.limit, fresh_in));
        let wait = Some(over.wait.unwrap_or(WAIT_UNKNOWN));
        Self { wait, rate, ..Self::new(Code::RateLimitExceeded, message) }
    }

    /// A call beyond its key's budget.
    pub fn budget(over: &OverBudget) -> Self {
        let OverBudget::Exhausted { period, allowed, renewed } = over else {
            let refused = Self::new(Code::RateLimitExceeded, &texts::BUDGETS_SHARE_USED);
            return Self { wait: Some(WAIT_UNKNOWN), ..refused };
        };
        let how = match period {
            Period::Day => &texts::A_DAY,
            Period::Month => &texts::A_MONTH,
            Period::Total => &texts::IN_ALL,
        };
        let renewed = renewed.map(|at| texts::BEGINS_ANEW.with([("at", at.to_string().into())]));
        let (how, renewed) = (("how", how.into()), ("renewed", renewed.unwrap_or_else(|| "".into())));
        let message = match allowed {
            Allowed::Units(limit) => texts::UNITS_USED_UP.with([("units", limit.to_string().into()), how, renewed]),
            Allowed::Money { limit, left } => {
                let left = Price { amount: *left, ..*limit };
                let (money, left) = (limit.to_string().into(), left.to_string().into());
                texts::MONEY_USED_UP.with([("money", money), ("left", left), how, renewed])
            }
        };
        Self::new(Code::BudgetExhausted, message)
    }

    /// A credential that is not looked at: too many have failed.
    pub fn too_many(too_many: &TooMany) -> Self {
        let text = match too_many.blamed {
            Blamed::Address => &texts::TOO_MANY_FROM_ADDRESS,
            Blamed::Credential => &texts::TOO_MANY_WITH_CREDENTIAL,
        };
        let message = text.with([("next", try_again_in(too_many.wait))]);
        Self { wait: Some(too_many.wait), ..Self::new(Code::TooManyFailures, message) }
    }

    /// A call without quota. `buy_url` is where more can be had.
    pub fn quota(error: &AdmitError, product: &ProductId, buy_url: Option<&str>) -> Self {
        let next = buy_url.map_or_else(
            || (&texts::ASK_THE_OPERATOR).into(),
            |url| texts::BUY_AT.with([("url", url.to_owned().into())]),
        );
        let product = || ("product", product.to_string().into());
        let next = ("next", next);
        let (code, message) = match error {
            AdmitError::Journal => return Self::new(Code::MeteringUnavailable, &texts::NONE_COUNTED),
            AdmitError::Unavailable => return Self::store(),
            AdmitError::Empty(Shortage::NoPackage) => (Code::NoPackage, texts::NO_PACKAGE_OF.with([product(), next])),
            AdmitError::Empty(Shortage::UsedUp) => (Code::PackageExhausted, texts::USED_UP.with([product(), next])),
            AdmitError::Empty(Shortage::SetAside) => {
                let refused = Self::new(Code::PackageExhausted, texts::SET_ASIDE.with([product(), next]));
                return Self { wait: Some(WAIT_UNKNOWN), ..refused };
            }
            AdmitError::Empty(Shortage::Expired { at }) => {
                (Code::PackageExpired, texts::OVER.with([product(), ("at", at.to_string().into()), next]))
            }
            AdmitError::Empty(Shortage::NotYetValid { from }) => {
                (Code::PackageNotYetValid, texts::NOT_BEGUN.with([product(), ("from", from.to_string().into()), next]))
            }
        };
        Self::new(code, message)
    }

    /// What the caller is told.
    fn message(&self, language: Language) -> Cow<'_, str> {
        let words = self.message.render(language);
        if language == Language::English || self.message.has_chinese() {
            return words;
        }
        Cow::Owned(format!("{}（{words}）", self.code.text().chinese))
    }

    /// The answer.
    pub fn answer(&self, request_id: &str, shape: Shape, language: Language) -> Response<AnswerBody> {
        let facts = self.code.facts();
        let fields = ErrorFields {
            message: &self.message(language),
            kind: if shape == Shape::Anthropic { facts.anthropic_kind() } else { facts.kind },
            param: self.param,
            code: Some(facts.openai_code.unwrap_or(self.code.name())),
            reason: self.code.name(),
            apig_code: facts.apig_code,
            request_id,
        };
        let body = match shape {
            Shape::Api => error_body_api(&fields),
            Shape::OpenAi => error_body_llm(&fields),
            Shape::Anthropic => error_body_anthropic(&fields),
        };
        let mut response = Response::new(AnswerBody::full(body));
        *response.status_mut() = facts.status;
        self.fill(response.headers_mut(), &facts);
        response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-language"));
        response
    }

    fn fill(&self, headers: &mut HeaderMap, facts: &Facts) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-tollgate-error-source", HeaderValue::from_static("gateway"));
        headers.insert("x-tollgate-error-code", HeaderValue::from_static(self.code.name()));
        if facts.kind == QUOTA && self.wait.is_none() {
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
            let signature = [Code::InvalidSignature, Code::SignatureExpired, Code::SignatureReplayed];
            let scheme = if signature.contains(&self.code) {
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

fn try_again_in(wait: Duration) -> Said {
    texts::TRY_AGAIN_IN.with([("wait", seconds_up(wait).to_string().into())])
}

/// Whole seconds that are no less.
fn seconds_up(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Whole milliseconds that are no less.
fn millis_up(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
