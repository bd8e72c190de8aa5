//! Whole amounts that cannot silently wrap. Money comes with the offers that need it.

use std::fmt;
use std::iter::Sum;

use serde::{Deserialize, Serialize};

/// A count in the meter of its pool: calls, for a product that is sold by the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Units(u64);

impl Units {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One call.
    pub const ONE: Self = Self(1);

    /// Wraps a plain count.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The plain count.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// True for nothing.
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` above the largest count.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The sum; stays at the largest count. For reports, where a wrong last digit at 2^64 harms nobody.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; stays at zero. For "how much more than", where less means none.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Takes as much of `wanted` as is here, leaves the rest, and returns what was taken.
    pub fn take_up_to(&mut self, wanted: Self) -> Self {
        let taken = wanted.min(*self);
        self.0 = self.0.saturating_sub(taken.0); // taken is at most what is here
        taken
    }

    /// Adds in place; stays at the largest count (see [`Units::saturating_add`]).
    pub fn put(&mut self, more: Self) {
        *self = self.saturating_add(more);
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Sum for Units {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Self::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_never_goes_below_zero() {
        let mut here = Units::new(3);
        assert_eq!(here.take_up_to(Units::new(2)), Units::new(2));
        assert_eq!(here.take_up_to(Units::new(2)), Units::new(1));
        assert_eq!(here.take_up_to(Units::new(2)), Units::ZERO);
        assert_eq!(here, Units::ZERO);
    }

    #[test]
    fn checked_moves_refuse_the_edges() {
        assert_eq!(Units::new(u64::MAX).checked_add(Units::ONE), None);
        assert_eq!(Units::ZERO.checked_sub(Units::ONE), None);
        assert_eq!(Units::new(u64::MAX).saturating_add(Units::ONE), Units::new(u64::MAX));
    }
}
