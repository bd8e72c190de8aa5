//! What a configuration file says of how many calls a product gets.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::bounds::LimitCalls;
use crate::config::read::Given;

/// How many calls a product gets, and how many each of its callers may make. What is left out is not limited.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawProductLimits {
    /// Calls in a second, of all callers; 1 to 1000000000, as all of these. So many at once, then evenly.
    pub(in crate::config) per_second: Given<LimitCalls>,
    /// Calls in a minute.
    pub(in crate::config) per_minute: Given<LimitCalls>,
    /// Calls in a day.
    pub(in crate::config) per_day: Given<LimitCalls>,
    /// Calls at one time.
    pub(in crate::config) concurrent: Given<LimitCalls>,
    /// For each account's calls of this product, unless the account has a limit of the same kind of its own.
    pub(in crate::config) each_account: Given<RawCallLimits>,
    /// The same for each API key.
    pub(in crate::config) each_key: Given<RawCallLimits>,
    /// The same for each app.
    pub(in crate::config) each_app: Given<RawCallLimits>,
}

/// How many calls; each 1 to 1000000000. What is left out is not limited.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawCallLimits {
    /// In a second: so many at once, then evenly.
    pub(in crate::config) per_second: Given<LimitCalls>,
    /// In a minute.
    pub(in crate::config) per_minute: Given<LimitCalls>,
    /// In a day.
    pub(in crate::config) per_day: Given<LimitCalls>,
    /// At one time.
    pub(in crate::config) concurrent: Given<LimitCalls>,
}
