//! How many calls a product gets, and how many each of its callers may make.

use std::num::NonZeroU32;

use super::Cx;
use crate::config::problem::PlaceId;
use crate::config::raw::{RawCallLimits, RawProductLimits};
use crate::config::read::Given;
use crate::config::scalar::Count;
use crate::domain::limit::{EachLimits, Limits};

/// Most calls that a limit can name.
pub(super) const CALLS_MAX: u64 = 1_000_000_000;

/// A product's limits, and those of each of its callers.
pub(super) fn limits(given: Given<RawProductLimits>, product: PlaceId, cx: Cx<'_>) -> Option<(Limits, EachLimits)> {
    let raw = given.section(product)?.value;
    let RawProductLimits { per_second, per_minute, per_day, concurrent, each_account, each_key, each_app } = raw;
    let own = calls(RawCallLimits { per_second, per_minute, per_day, concurrent }, cx);
    let each = |given: Given<RawCallLimits>| given.section(product).and_then(|at| calls(at.value, cx));
    let (account, key, app) = (each(each_account), each(each_key), each(each_app));
    Some((own?, EachLimits { account: account?, key: key?, app: app? }))
}

fn calls(raw: RawCallLimits, cx: Cx<'_>) -> Option<Limits> {
    let limit = |given: Given<Count>| match given.optional()? {
        Some(at) => cx.within(at, 1..=CALLS_MAX).map(|count| u32::try_from(count).ok().and_then(NonZeroU32::new)),
        None => Some(None),
    };
    let (per_second, per_minute) = (limit(raw.per_second), limit(raw.per_minute));
    let (per_day, concurrent) = (limit(raw.per_day), limit(raw.concurrent));
    Some(Limits { per_second: per_second?, per_minute: per_minute?, per_day: per_day?, concurrent: concurrent? })
}
