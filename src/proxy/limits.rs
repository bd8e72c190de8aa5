//! Limits on the path of a call: asked when quota is set aside, shown on the answer.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::catalog::Sold;
use super::context::Call;
use super::rejection::Rejection;
use super::server::Shared;
use crate::config::Meter;
use crate::domain::budget::OverBudget;
use crate::domain::limit::Level;
use crate::domain::money::Money;
use crate::service::authenticate::Caller;
use crate::service::budgets::KeyUse;
use crate::service::failures::TooMany;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// Lets a call pass if its key's budget and every limit that it meets do; it is `worth` what the package asks that pays, if
/// one does. What refuses it leaves all as it was.
pub fn pass(call: &mut Call, sold: &Sold, worth: Option<Money>) -> Result<(), Rejection> {
    hold_budget(call, sold)?;
    let weighed = worth.map_or(Ok(()), |worth| weigh(call, worth, sold));
    let passed = weighed.and_then(|()| pass_limits(call, sold));
    if passed.is_err() {
        call.budget = None;
    }
    passed
}

/// Sets one unit of the key's budget aside, if it has one and the call may cost something.
fn hold_budget(call: &mut Call, sold: &Sold) -> Result<(), Rejection> {
    let budgeted = call.caller.as_deref().filter(|_| sold.product.meter == Meter::Calls);
    let Some((caller, (budget, used))) = budgeted.and_then(|caller| Some((caller, caller.budget()?))) else {
        return Ok(());
    };
    let shared = &call.core.shared;
    let gateways = shared.limiter.gateways().get();
    match used.hold(budget, gateways, call.arrived) {
        Ok((hold, near)) => {
            if near {
                tell_soon(shared, (caller, used), sold);
            }
            call.budget = Some(hold);
            Ok(())
        }
        Err(over) => {
            if over == OverBudget::Share {
                tell_soon(shared, (caller, used), sold);
            }
            Err(over_budget(call, &over))
        }
    }
}

/// It is known which package pays for a call: its key's budget in money, if it has one, must cover what that is worth.
fn weigh(call: &mut Call, worth: Money, sold: &Sold) -> Result<(), Rejection> {
    let Call { caller, budget: Some(hold), core, arrived, .. } = call else { return Ok(()) };
    let Some((caller, (budget, used))) = caller.as_deref().and_then(|caller| Some((caller, caller.budget()?))) else {
        return Ok(());
    };
    let gateways = core.shared.limiter.gateways().get();
    let weighed = hold.weigh(worth, budget, gateways, *arrived);
    if matches!(weighed, Ok(true) | Err(OverBudget::Share)) {
        tell_soon(&core.shared, (caller, used), sold);
    }
    weighed.map(drop).map_err(|over| over_budget(call, &over))
}

/// The books should hear soon of what was used, so that this gateway's share does not run out while there is more.
fn tell_soon(shared: &Shared, (caller, used): (&Caller, &Arc<KeyUse>), sold: &Sold) {
    let pool = caller.pool(&sold.product.id, &shared.ledger);
    pool.note_budget(used);
    shared.ledger.tell_soon(&pool);
}

fn over_budget(call: &mut Call, over: &OverBudget) -> Rejection {
    let named = (Level::Key.name(), "budget");
    call.core.shared.metrics.limited(named).inc();
    call.limit = Some(named);
    Rejection::budget(over)
}

fn pass_limits(call: &mut Call, sold: &Sold) -> Result<(), Rejection> {
    let shared = &call.core.shared;
    let caller = call.caller.as_deref();
    let each = caller.zip(sold.each.as_ref());
    let at = each.map(|(caller, each)| caller.limits_at(&sold.product.id, each, &shared.limiter));
    let [account, own] = caller.map(|caller| caller.limits().each_ref().map(Option::as_ref)).unwrap_or_default();
    let [account_at, own_at] = at.as_ref().map(|at| at.limited.each_ref().map(Option::as_ref)).unwrap_or_default();
    let met = [sold.limited.as_ref(), account, account_at, own, own_at];
    if met.iter().all(Option::is_none) {
        return Ok(());
    }
    match shared.limiter.admit(met.into_iter().flatten(), Instant::now()) {
        Ok(permit) => {
            call.permit = Some(permit);
            Ok(())
        }
        Err(refused) => {
            let named = (refused.level.name(), refused.over.kind.name());
            shared.metrics.limited(named).inc();
            call.limit = Some(named);
            Err(Rejection::limited(&refused, &sold.product.id))
        }
    }
}

/// Refuses a call from where too many authentications have failed.
pub fn too_many(call: &mut Call, too_many: &TooMany) -> Rejection {
    let named = (too_many.blamed.name(), "failures");
    call.core.shared.metrics.limited(named).inc();
    call.limit = Some(named);
    Rejection::too_many(too_many)
}

/// A call that has passed is refused after all: it uses nothing.
pub fn give_back(call: &mut Call) {
    call.budget = None;
    if let Some(permit) = call.permit.take() {
        permit.give_back(Instant::now());
    }
}

/// Shows on an answer how the tightest rate stands.
pub fn show(call: &Call, head: &mut HeaderMap) {
    if let Some(standing) = call.permit.as_ref().and_then(|permit| permit.standing()) {
        let fresh_in = standing.fresh_at.saturating_duration_since(Instant::now());
        show_rate(head, (standing.limit, standing.left, fresh_in));
    }
}

/// A rate in OpenAI's form: its calls, how many are left, how long until all are.
pub fn show_rate(head: &mut HeaderMap, (limit, left, fresh_in): (u32, u64, Duration)) {
    head.insert(LIMIT, HeaderValue::from(limit));
    head.insert(REMAINING, HeaderValue::from(left));
    let reset = HeaderValue::try_from(go_duration(fresh_in));
    head.insert(RESET, reset.unwrap_or_else(|_| HeaderValue::from_static("0s"))); // digits and letters are fine
}

/// A duration as Go writes it, rounded up to milliseconds: `12ms`, `7.66s`, `6m0s`, `23h59m59.5s`.
fn go_duration(time: Duration) -> String {
    let ms = time.as_nanos().div_ceil(1_000_000);
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let mut text = String::new();
    let written = match (seconds, ms) {
        (0, 0) => write!(text, "0s"),
        (0, ms) => write!(text, "{ms}ms"),
        (_, _) => {
            let hours_text = if hours > 0 { write!(text, "{hours}h") } else { Ok(()) };
            let minutes_text = if hours > 0 || minutes > 0 { write!(text, "{minutes}m") } else { Ok(()) };
            let rest = seconds % 60;
            let fraction = format!("{ms:03}");
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            hours_text.and(minutes_text).and(write!(text, "{rest}{dot}{fraction}s"))
        }
    };
    debug_assert!(written.is_ok(), "a string takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        let check = |nanos: u64, expected: &str| assert_eq!(go_duration(Duration::from_nanos(nanos)), expected);
        let ms = 1_000_000;
        check(0, "0s");
        check(1, "1ms");
        check(12 * ms, "12ms");
        check(999 * ms + 1, "1s");
        check(7_660 * ms, "7.66s");
        check(1_001 * ms, "1.001s");
        check(60_000 * ms, "1m0s");
        check(86_400 * ms, "1m26.4s");
        check(360_000 * ms, "6m0s");
        check(3_600_000 * ms, "1h0m0s");
        check(86_399_500 * ms, "23h59m59.5s");
    }
}
