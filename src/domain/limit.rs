//! How many calls in which time, and how many at once. A rate is a bucket: so many calls at once, then evenly. Whole
//! numbers throughout: nothing is rounded but a waiting time, and that up.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a limit belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// All calls of a product.
    Product,
    /// The calls of an account.
    Account,
    /// The calls of an API key.
    Key,
    /// The calls of an app.
    App,
}

impl Level {
    /// Every level, for tables of metrics.
    pub const ALL: [Self; 4] = [Self::Product, Self::Account, Self::Key, Self::App];

    /// The name in messages, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Product => "product",
            Self::Account => "account",
            Self::Key => "key",
            Self::App => "app",
        }
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Calls in a second.
    Second,
    /// Calls in a minute.
    Minute,
    /// Calls in a day.
    Day,
    /// Calls that are under way.
    Concurrent,
}

impl Kind {
    /// Every kind, for tables of metrics.
    pub const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Day, Self::Concurrent];
    /// Those that are rates.
    const RATES: [Self; 3] = [Self::Second, Self::Minute, Self::Day];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Day => "day",
            Self::Concurrent => "concurrent",
        }
    }

    /// In which time calls are counted, in nanoseconds; none for those that are under way.
    const fn period(self) -> Option<u128> {
        const SECOND: u128 = 1_000_000_000;
        match self {
            Self::Second => Some(SECOND),
            Self::Minute => Some(60 * SECOND),
            Self::Day => Some(24 * 3600 * SECOND),
            Self::Concurrent => None,
        }
    }
}

/// How many calls. What is left out is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// In a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<NonZeroU32>,
    /// In a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<NonZeroU32>,
    /// In a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<NonZeroU32>,
    /// At one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<NonZeroU32>,
}

impl Limits {
    /// No limit at all.
    pub const NONE: Self = Self { per_second: None, per_minute: None, per_day: None, concurrent: None };

    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The limit of a kind.
    pub const fn of(&self, kind: Kind) -> Option<NonZeroU32> {
        match kind {
            Kind::Second => self.per_second,
            Kind::Minute => self.per_minute,
            Kind::Day => self.per_day,
            Kind::Concurrent => self.concurrent,
        }
    }

    /// What of these limits holds beside others that go before them, kind by kind.
    #[must_use]
    pub fn where_none_of(&self, own: &Self) -> Self {
        let left = |mine: Option<NonZeroU32>, own: Option<NonZeroU32>| if own.is_none() { mine } else { None };
        Self {
            per_second: left(self.per_second, own.per_second),
            per_minute: left(self.per_minute, own.per_minute),
            per_day: left(self.per_day, own.per_day),
            concurrent: left(self.concurrent, own.concurrent),
        }
    }
}

/// What a product sets for each of its callers that has no limits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EachLimits {
    /// For each account's calls of the product.
    pub account: Limits,
    /// For each API key's.
    pub key: Limits,
    /// For each app's.
    pub app: Limits,
}

impl EachLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// One rate as one of several gateways enforces it: its share of the calls, at least one at a time.
///
/// The bucket counts in steps so small that nothing is rounded: a call is `period × gateways` of them, and each
/// nanosecond takes `calls` away.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    calls: u128,
    period: u128,
    gateways: NonZeroU32,
}

impl Rate {
    /// So many in a minute, on one gateway.
    pub fn per_minute(calls: NonZeroU32) -> Self {
        let period = Kind::Minute.period().unwrap_or_default(); // a minute has one
        Self { calls: u128::from(calls.get()), period, gateways: NonZeroU32::MIN }
    }

    fn of(limits: &Limits, kind: Kind, gateways: NonZeroU32) -> Option<Self> {
        let (calls, period) = (limits.of(kind)?, kind.period()?);
        Some(Self { calls: u128::from(calls.get()), period, gateways })
    }

    /// What one call adds.
    fn call(self) -> u128 {
        self.period.saturating_mul(u128::from(self.gateways.get()))
    }

    /// What fits.
    fn room(self) -> u128 {
        self.calls.saturating_mul(self.period).max(self.call())
    }

    fn time_for(self, steps: u128) -> Duration {
        let nanos = steps.div_ceil(self.calls.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How long until one more call fits.
    fn wait(self, filled: u128) -> Duration {
        self.time_for(filled.saturating_add(self.call()).saturating_sub(self.room()))
    }

    /// How many calls fit now.
    fn left(self, filled: u128) -> u64 {
        let calls = self.room().saturating_sub(filled) / self.call().max(1);
        u64::try_from(calls).unwrap_or(u64::MAX)
    }
}

/// How full a rate's bucket was when it was last touched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    filled: u128,
    /// The number of gateways for which `filled` counts.
    gateways: Option<NonZeroU32>,
    at: Option<Instant>,
}

impl Bucket {
    /// How full it is now. A moment before the last one changes nothing: cores read the clock before they come here.
    fn filled(&self, rate: Rate, now: Instant) -> u128 {
        let Some(at) = self.at else { return 0 };
        let before = u128::from(self.gateways.unwrap_or(NonZeroU32::MIN).get());
        let scaled = self.filled.saturating_mul(u128::from(rate.gateways.get())).div_ceil(before);
        let passed = now.saturating_duration_since(at).as_nanos();
        scaled.saturating_sub(passed.saturating_mul(rate.calls))
    }

    /// How long until one more fits.
    pub fn wait(&self, rate: Rate, now: Instant) -> Duration {
        rate.wait(self.filled(rate, now))
    }

    /// Adds one.
    pub fn add(&mut self, rate: Rate, now: Instant) {
        self.set(self.filled(rate, now).saturating_add(rate.call()), rate, now);
    }

    fn set(&mut self, filled: u128, rate: Rate, now: Instant) {
        let at = self.at.map_or(now, |at| at.max(now));
        *self = Self { filled, gateways: Some(rate.gateways), at: Some(at) };
    }
}

/// What is used of the limits of one level: of one product, account, key or app.
#[derive(Debug, Clone, Default)]
pub struct Use {
    second: Bucket,
    minute: Bucket,
    day: Bucket,
    /// Calls that are under way.
    open: u32,
}

/// The tightest rate after a call was let in: what its answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The calls of the limit as it is set.
    pub limit: u32,
    /// How many more this gateway lets in now.
    pub left: u64,
    /// When nothing of it is used any more.
    pub fresh_at: Instant,
}

impl Standing {
    /// The tighter of two.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        let key = |standing: &Self| (standing.left, std::cmp::Reverse(standing.fresh_at));
        if key(&other) < key(&self) { other } else { self }
    }
}

/// Why a call is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// Which limit.
    pub kind: Kind,
    /// Its figure as it is set.
    pub limit: u32,
    /// How long until it lets one in; for calls that are under way nobody knows.
    pub wait: Option<Duration>,
    /// How long until nothing of it is used any more; likewise.
    pub fresh_in: Option<Duration>,
}

impl Over {
    /// The one that holds longer.
    #[must_use]
    pub fn longer(self, other: Self) -> Self {
        if other.wait > self.wait { other } else { self }
    }
}

impl Use {
    fn bucket(&self, kind: Kind) -> Option<&Bucket> {
        match kind {
            Kind::Second => Some(&self.second),
            Kind::Minute => Some(&self.minute),
            Kind::Day => Some(&self.day),
            Kind::Concurrent => None,
        }
    }

    fn bucket_mut(&mut self, kind: Kind) -> Option<&mut Bucket> {
        match kind {
            Kind::Second => Some(&mut self.second),
            Kind::Minute => Some(&mut self.minute),
            Kind::Day => Some(&mut self.day),
            Kind::Concurrent => None,
        }
    }

    /// Whether one more call fits; of several limits that it does not fit into, the one that holds longest. Changes
    /// nothing.
    pub fn check(&self, limits: &Limits, gateways: NonZeroU32, now: Instant) -> Result<(), Over> {
        let mut over: Option<Over> = None;
        if let Some(limit) = limits.concurrent
            && self.open >= (limit.get() / gateways).max(1)
        {
            over = Some(Over { kind: Kind::Concurrent, limit: limit.get(), wait: None, fresh_in: None });
        }
        for kind in Kind::RATES {
            let Some((rate, bucket)) = Rate::of(limits, kind, gateways).zip(self.bucket(kind)) else { continue };
            let filled = bucket.filled(rate, now);
            let wait = rate.wait(filled);
            if !wait.is_zero() {
                let limit = limits.of(kind).map_or(0, NonZeroU32::get);
                let next = Over { kind, limit, wait: Some(wait), fresh_in: Some(rate.time_for(filled)) };
                over = Some(over.map_or(next, |over| over.longer(next)));
            }
        }
        over.map_or(Ok(()), Err)
    }

    /// Lets a call in that fits; tells how the tightest rate stands then.
    pub fn take(&mut self, limits: &Limits, gateways: NonZeroU32, now: Instant) -> Option<Standing> {
        self.open = self.open.saturating_add(1);
        let mut tightest: Option<Standing> = None;
        for kind in Kind::RATES {
            let rate = Rate::of(limits, kind, gateways);
            let Some((rate, bucket)) = rate.zip(self.bucket_mut(kind)) else { continue };
            let filled = bucket.filled(rate, now).saturating_add(rate.call());
            bucket.set(filled, rate, now);
            let limit = limits.of(kind).map_or(0, NonZeroU32::get);
            let next = Standing { limit, left: rate.left(filled), fresh_at: later(now, rate.time_for(filled)) };
            tightest = Some(tightest.map_or(next, |tightest| tightest.tighter(next)));
        }
        tightest
    }

    /// A call that was let in has been refused after all: it used nothing. It still ends by [`Use::end`].
    pub fn give_back(&mut self, limits: &Limits, gateways: NonZeroU32, now: Instant) {
        for kind in Kind::RATES {
            let rate = Rate::of(limits, kind, gateways);
            let Some((rate, bucket)) = rate.zip(self.bucket_mut(kind)) else { continue };
            let filled = bucket.filled(rate, now).saturating_sub(rate.call());
            bucket.set(filled, rate, now);
        }
    }

    /// A call is no longer under way.
    pub fn end(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Whether forgetting it would let a call in that must not be, as the longest period sees it.
    pub fn matters(&self, now: Instant) -> bool {
        let lately = |kind: Kind| {
            let period = kind.period().and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos);
            let at = self.bucket(kind).filter(|bucket| bucket.filled > 0).and_then(|bucket| bucket.at);
            // Evenly emptied, a bucket that was full is empty after one period.
            period.zip(at).is_some_and(|(period, at)| now.saturating_duration_since(at) < period)
        };
        self.open > 0 || Kind::RATES.into_iter().any(lately)
    }
}

fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now)
}

#[cfg(test)]
mod tests;
