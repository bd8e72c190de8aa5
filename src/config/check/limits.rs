//! How many calls a product gets, and how many each of its callers may make.

use std::num::NonZeroU32;

use crate::config::bounds::LimitCalls;
use crate::config::problem::PlaceId;
use crate::config::raw::{RawCallLimits, RawProductLimits};
use crate::config::read::Given;
use crate::domain::limit::{EachLimits, Limits};

/// A product's limits, and those of each of its callers.
pub(super) fn limits(given: Given<RawProductLimits>, product: PlaceId) -> Option<(Limits, EachLimits)> {
    let raw = given.section(product)?.value;
    let RawProductLimits { per_second, per_minute, per_day, concurrent, each_account, each_key, each_app } = raw;
    let own = calls(RawCallLimits { per_second, per_minute, per_day, concurrent });
    let each = |given: Given<RawCallLimits>| given.section(product).and_then(|at| calls(at.value));
    let (account, key, app) = (each(each_account), each(each_key), each(each_app));
    Some((own?, EachLimits { account: account?, key: key?, app: app? }))
}

fn calls(raw: RawCallLimits) -> Option<Limits> {
    let limit = |given: Given<LimitCalls>| match given.optional()? {
        Some(at) => u32::try_from(at.value.0).ok().and_then(NonZeroU32::new).map(Some),
        None => Some(None),
    };
    let (per_second, per_minute) = (limit(raw.per_second), limit(raw.per_minute));
    let (per_day, concurrent) = (limit(raw.per_day), limit(raw.concurrent));
    Some(Limits { per_second: per_second?, per_minute: per_minute?, per_day: per_day?, concurrent: concurrent? })
}
