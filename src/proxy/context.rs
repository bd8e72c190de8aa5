//! What is known of a call while it lasts, and its one way out: metered, logged, counted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};

use super::catalog::Sold;
use super::client::Client;
use super::conn::Conn;
use super::rejection::Shape;
use super::server::Core;
use crate::config::BreakRule;
use crate::domain::credential::Scheme;
use crate::domain::usage::{CallerRef, Ending};
use crate::protocol::language::Language;
use crate::service::authenticate::Caller;
use crate::service::budgets::KeyHold;
use crate::service::ledger::Read;
use crate::service::limits::Permit;
use crate::service::meter::OpenCall;
use crate::service::replay::Signed;
use crate::telemetry::access::Line;

/// One call.
pub struct Call {
    /// The core that serves it.
    pub core: Rc<Core>,
    /// The connection that it came on.
    pub conn: Rc<Conn>,
    /// Whom a trusted proxy's header names, if it is not the connection's own client.
    pub forwarded_for: Option<Box<Client>>,
    /// The client's id if it sent a valid one, else ours.
    pub request_id: HeaderValue,
    /// When its head was read, by the clock on the wall.
    pub arrived: Timestamp,
    /// The same, by the stopwatch.
    pub started: Instant,
    /// For the log.
    pub method: http::Method,
    /// For the log: without the query, which may hold a secret.
    pub path: String,
    /// The origin of the page that makes it, if a page does.
    pub origin: Option<HeaderValue>,
    /// Whether it has the form of Anthropic's API, whose SDKs send the key as `x-api-key`.
    pub anthropic: bool,
    /// Of our own messages.
    pub language: Language,
    /// Once it is known.
    pub sold: Option<Arc<Sold>>,
    /// How the caller proves who it is.
    pub scheme: Option<Scheme>,
    /// Whether it has a key that is none of ours by its beginning, until the product is known: one that is open to all
    /// does not look at it.
    pub placeholder: bool,
    /// Once it is known beyond doubt.
    pub caller: Option<Arc<Caller>>,
    /// The signature that proved it; once the product is known, only if it is used by this call.
    pub signed: Option<Signed>,
    /// What finding the caller has brought, until quota is set aside.
    pub read: Option<Box<Read>>,
    /// How long the store was waited for to find the caller.
    pub waited: Duration,
    /// Whether its body is larger than the engine drops without a word, and not read: a refusal ends the connection.
    pub body_unread: bool,
    /// As the buyer named it.
    pub model: Option<Arc<str>>,
    /// Whom the buyer's own user is said to be; for the record alone.
    pub end_user: Option<Arc<str>>,
    /// Counts the call as under way, once the limits have let it pass.
    pub permit: Option<Permit>,
    /// A unit of the key's budget, until quota is set aside.
    pub budget: Option<KeyHold>,
    /// Quota, once it is set aside.
    pub open: Option<OpenCall>,
    /// How often the request was sent to the seller.
    pub attempts: u8,
    /// The answer's status, once there is one.
    pub status: Option<u16>,
    /// The code of our refusal, if we refused.
    pub code: Option<&'static str>,
    /// Whose limit has refused it, and what it counts.
    pub limit: Option<(&'static str, &'static str)>,
    /// The first byte of the answer's head.
    pub head_at: Option<Instant>,
    /// Whether the answer is an event stream, and whether an event of it has passed.
    pub stream: Option<StreamState>,
    /// Bytes of the answer's body so far.
    pub body_bytes: u64,
}

/// What is known of an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// No event yet.
    Silent,
    /// At least one event has passed.
    Spoke,
    /// What passed last was the event that ends OpenAI's streams.
    Done,
}

impl Call {
    /// Takes over what the head asked for that the gate has refused: the engine got another in its place.
    pub fn take_asked(&mut self) {
        let Some(asked) = self.conn.take_asked() else { return };
        self.method = http::Method::from_bytes(asked.method.as_bytes()).unwrap_or_default();
        self.path = asked.path;
        let value = |text: String| HeaderValue::from_str(&text).ok();
        if let Some(id) = asked.request_id.and_then(value) {
            self.request_id = id;
        }
        self.origin = asked.origin.and_then(value);
    }

    /// Where it comes from.
    pub fn client(&self) -> &Client {
        self.forwarded_for.as_deref().unwrap_or(&self.conn.client)
    }

    /// The request id as text.
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default() // made of visible characters
    }

    /// Whether our own words should have the shape that LLM SDKs read.
    pub fn speaks_llm(&self) -> bool {
        match &self.sold {
            Some(sold) => sold.llm,
            None => self.path.trim_start_matches('/').starts_with("v1/"),
        }
    }

    /// How a refusal of it is written.
    pub fn shape(&self) -> Shape {
        match (self.speaks_llm(), self.anthropic) {
            (true, true) => Shape::Anthropic,
            (true, false) => Shape::OpenAi,
            (false, _) => Shape::Api,
        }
    }

    /// What it is when its client has gone. One that leaves at the last event, without waiting for the body's end as
    /// some SDKs do, has had everything.
    pub fn left(&self) -> Ending {
        if self.stream == Some(StreamState::Done) { Ending::Complete } else { Ending::ClientGone }
    }

    /// Whether a charge stands, given how the call ended.
    fn billed(&self, ending: Ending) -> bool {
        if ending != Ending::SellerBroke && ending != Ending::TimedOut {
            return true;
        }
        let rule = self.sold.as_ref().and_then(|sold| sold.product.on_seller_break);
        match (rule, self.stream) {
            (Some(rule), _) => rule == BreakRule::Bill,
            (None, stream) => matches!(stream, Some(StreamState::Spoke | StreamState::Done)),
        }
    }

    /// What the clock on the wall shows at an instant. By the stopwatch: that clock may have been set meanwhile.
    pub fn moment(&self, at: Instant) -> Timestamp {
        let after = SignedDuration::try_from(at.duration_since(self.started)).unwrap_or_default();
        let moment = self.arrived.as_duration().checked_add(after).map(Timestamp::from_duration);
        moment.and_then(Result::ok).unwrap_or(self.arrived)
    }

    /// The end of every call: its quota is settled, its line written, its counters moved. An answer that was whole when its
    /// head left is complete, whatever came of its client.
    pub fn finish(mut self: Box<Self>, ending: Ending) {
        let known = self.open.as_ref().and_then(OpenCall::charged).is_some_and(|charged| charged.ended);
        let ending = if known { Ending::Complete } else { ending };
        let billed = self.billed(ending);
        let now = Instant::now();
        let duration = now.duration_since(self.started);
        let mut units = 0;
        if let Some(open) = self.open.take() {
            let charged = open.charged().map_or(0, |charged| charged.units.get());
            units = if billed { charged } else { 0 };
            if let Some(sold) = &self.sold {
                let counter = if billed { &sold.metrics.charged } else { &sold.metrics.voided };
                counter.inc_by(charged);
            }
            if known {
                self.core.meter.settle(open);
            } else {
                self.core.meter.end(open, ending, billed, self.moment(now));
            }
        }
        if let Some(sold) = &self.sold {
            // A client that left before any answer is counted under nginx's number for it.
            sold.metrics.calls(self.status.unwrap_or(499)).inc();
            sold.metrics.duration.observe(duration.as_secs_f64());
            if self.code.is_none() {
                sold.metrics.ending(ending).inc();
            }
        }
        self.core.shared.metrics.calls_open.dec();
        self.conn.end_call();
        self.log(ending, units, duration.as_micros());
    }

    fn log(&self, ending: Ending, units: u64, duration_us: u128) {
        let Some(access) = &self.core.access else { return };
        let micros = |micros: u128| u64::try_from(micros).unwrap_or(u64::MAX);
        let (key, app) = match self.caller.as_ref().map(|caller| &caller.reference) {
            Some(CallerRef::Key(key)) => (Some(key), None),
            Some(CallerRef::App(app)) => (None, Some(app)),
            None => (None, None),
        };
        let limit = self.limit.map(|(level, kind)| format!("{level}/{kind}"));
        let first_byte = self.head_at.map_or(0, |at| at.duration_since(self.started).as_micros());
        access.add(&Line {
            time: self.arrived,
            request_id: self.request_id(),
            client: self.client().text.to_str().unwrap_or_default(), // made of visible characters
            method: self.method.as_str(),
            path: &self.path,
            product: self.sold.as_ref().map(|sold| &sold.product.id),
            account: self.caller.as_ref().map(|caller| &caller.account),
            key,
            app,
            model: self.model.as_deref(),
            status: self.status.unwrap_or(499),
            source: if self.code.is_some() { "gateway" } else { "seller" },
            code: self.code,
            limit: limit.as_deref(),
            ending: ending.name(),
            units,
            attempts: self.attempts,
            response_bytes: self.body_bytes,
            first_byte_us: micros(first_byte),
            duration_us: micros(duration_us),
        });
    }
}

/// Holds a call until it is handed to its end. If it is dropped before (the client hung up, and the engine let go of
/// the call's future), the core's sweep ends it: a destructor does no accounting.
pub struct CallGuard(Option<Box<Call>>);

impl CallGuard {
    /// Guards a call.
    pub fn new(call: Call) -> Self {
        Self(Some(Box::new(call)))
    }

    /// A guard whose call has been handed on.
    pub fn empty() -> Self {
        Self(None)
    }

    /// The call, while it lasts.
    pub fn call(&mut self) -> Option<&mut Call> {
        self.0.as_deref_mut()
    }

    /// Ends the call.
    pub fn finish(&mut self, ending: Ending) {
        if let Some(call) = self.0.take() {
            call.finish(ending);
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            let core = Rc::clone(&call.core);
            core.abandon(call);
        }
    }
}
