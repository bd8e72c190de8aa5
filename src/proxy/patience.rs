//! How long a client's body is waited for: no silence of it is too long, and neither are all of them together.

use std::time::{Duration, Instant};

/// A client that sends less than this is not sending a body but holding a connection. Bytes a second, over all the time
/// that it is waited for.
const BYTES_PER_SECOND_MIN: u64 = 240;

/// Patience with one body.
#[derive(Debug, Clone)]
pub struct Patience {
    /// With one silence, and with all of them before the first bytes.
    timeout: Duration,
    /// What is left for all silences: bytes that come add to it.
    left: Duration,
    waiting_since: Option<Instant>,
}

impl Patience {
    /// Patience with silences of at most this length.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, left: timeout, waiting_since: None }
    }

    /// The client's next bytes are waited for from now on; returns until when.
    pub fn wait(&mut self, now: Instant) -> Instant {
        self.waiting_since = Some(now);
        now + self.left.min(self.timeout)
    }

    /// So many bytes came.
    pub fn came(&mut self, bytes: usize, now: Instant) {
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_SECOND_MIN);
        self.left = self.left.saturating_sub(waited).saturating_add(earned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_silence_may_be_as_long_as_the_timeout() {
        let begun = Instant::now();
        let mut patience = Patience::new(TIMEOUT);
        assert_eq!(patience.wait(begun), begun + TIMEOUT);
        patience.came(1 << 20, begun + seconds(9));
        assert_eq!(patience.wait(begun + seconds(20)), begun + seconds(30), "what the seller took does not count");
    }

    #[test]
    fn a_byte_now_and_then_does_not_last() {
        let begun = Instant::now();
        let mut patience = Patience::new(TIMEOUT);
        let mut now = begun;
        while patience.wait(now) >= now + seconds(1) {
            now += seconds(1);
            patience.came(1, now);
        }
        assert_eq!(now, begun + seconds(10), "ten bytes have earned it less than a second more");
    }

    #[test]
    fn a_slow_line_is_fast_enough() {
        let mut now = Instant::now();
        let mut patience = Patience::new(TIMEOUT);
        for _ in 0..10_000 {
            assert!(patience.wait(now) >= now + seconds(9));
            now += seconds(1);
            patience.came(240, now);
        }
    }
}
