//! Latencies in buckets of equal ratio: constant memory, quantiles within 1.6 %. No means: they hide
//! what a caller feels.

use std::time::Duration;

/// Buckets per power of two, as a power of two: 2^6 = 64 keeps the error under 1/64.
const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
/// Values below `SUB` have a bucket each; every further power of two of a `u64` has `SUB` of them.
const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) << SUB_BITS;

/// Counts of durations by size, in nanoseconds.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// Adds another's values.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The upper bound of the bucket that holds the given share of all values, in microseconds;
    /// not a number when nothing was recorded.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        if self.total == 0 {
            return f64::NAN;
        }
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(index as u64) as f64 / 1_000.0;
            }
        }
        f64::NAN
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - SUB_BITS;
    ((u64::from(shift) << SUB_BITS) + (value >> shift)) as usize
}

fn upper_bound(index: u64) -> u64 {
    if index < 2 * SUB {
        return index;
    }
    let shift = (index >> SUB_BITS) - 1;
    let mantissa = SUB + (index & (SUB - 1));
    // The widest bucket's bound is 2^64 - 1: shift the whole range, not its end plus one.
    (mantissa << shift) | ((1 << shift) - 1)
}
