//! Time and randomness, so that tests own them.

use jiff::Timestamp;

/// Tells the time of day. Deadlines use the monotonic clock instead and do not pass here.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Gives random bytes that nobody can foresee: keys, stamps, ids.
pub trait Entropy: Send + Sync {
    /// Fills the whole slice.
    fn fill(&self, bytes: &mut [u8]);
}
