//! The seller's own log against the charges, by request id, in two passes and bounded memory. The first pass adds a
//! random hash of each id to its bucket for a charge, and takes it off for an answer: where both sides agree nothing is
//! left. The second looks only at the ids of buckets with a rest.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use serde::Deserialize;

/// Buckets; with ten million calls some ten ids share one.
const BUCKETS: usize = 1 << 20;
/// Ids that the second pass holds, at most. Buckets beyond them are counted, and left for the next run.
const IDS_HELD_MAX: u64 = 1_000_000;

/// A line of a seller's log. Other fields may be there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// The `X-Request-Id` that came with the request.
    pub request_id: String,
    /// What was answered.
    pub status: u16,
}

/// Only these are compared: which others a package counts, a seller's log does not know.
pub fn is_compared(status: u16) -> bool {
    (200..300).contains(&status)
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    rest: u64,
    entries: u32,
}

/// The first pass.
#[derive(Debug)]
pub struct Answers {
    place: RandomState,
    hash: RandomState,
    buckets: Vec<Bucket>,
    /// Answers that were compared.
    pub count: u64,
}

impl Default for Answers {
    fn default() -> Self {
        let (place, hash) = (RandomState::new(), RandomState::new());
        Self { place, hash, buckets: vec![Bucket::default(); BUCKETS], count: 0 }
    }
}

impl Answers {
    fn place(&self, id: &str) -> usize {
        usize::try_from(self.place.hash_one(id) % BUCKETS as u64).unwrap_or_default()
    }

    /// The gateway charged for it, or charged and took it back.
    pub fn charged(&mut self, id: &str) {
        self.add(id, self.hash.hash_one(id));
    }

    /// The seller says that it answered it.
    pub fn answered(&mut self, id: &str) {
        self.count += 1;
        self.add(id, self.hash.hash_one(id).wrapping_neg());
    }

    fn add(&mut self, id: &str, hash: u64) {
        let place = self.place(id);
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.rest = bucket.rest.wrapping_add(hash);
            bucket.entries = bucket.entries.saturating_add(1);
        }
    }

    /// What the second pass must look at.
    pub fn doubts(self) -> Doubts {
        let (mut held, mut left_out) = (0, 0);
        let mut chosen = |bucket: &Bucket| {
            let entries = u64::from(bucket.entries);
            let doubtful = bucket.rest != 0;
            let fits = held + entries <= IDS_HELD_MAX;
            if doubtful && fits {
                held += entries;
            }
            left_out += u64::from(doubtful && !fits);
            doubtful && fits
        };
        let doubtful = self.buckets.iter().map(&mut chosen).collect();
        Doubts { place: self.place, doubtful, any: held > 0, left_out, ids: HashMap::new() }
    }
}

/// What is known of one id.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Charges that stand, as the first pass saw them.
    charged: u32,
    /// Requests that any charge explains, as the second saw them.
    explained: u32,
    /// Answers within the part of the log that the first pass saw.
    answered_first: u32,
    /// Answers in all.
    answered: u32,
}

/// The second pass.
#[derive(Debug)]
pub struct Doubts {
    place: RandomState,
    doubtful: Vec<bool>,
    /// Whether there is anything to look at.
    pub any: bool,
    /// Buckets with differences that are not looked at, for there are too many.
    pub left_out: u64,
    ids: HashMap<String, Known>,
}

/// How a call differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The seller answered it, so often beyond what charges explain.
    NotCharged(String, u32),
    /// It was charged, so often beyond the seller's answers.
    NotAnswered(String, u32),
}

impl Doubts {
    fn known(&mut self, id: &str) -> Option<&mut Known> {
        let place = usize::try_from(self.place.hash_one(id) % BUCKETS as u64).unwrap_or_default();
        if !self.doubtful.get(place).copied().unwrap_or_default() {
            return None;
        }
        if !self.ids.contains_key(id) {
            self.ids.insert(id.to_owned(), Known::default());
        }
        self.ids.get_mut(id)
    }

    /// A charge. `stands`: it was seen by the first pass, and is not open or void.
    pub fn charged(&mut self, id: &str, attempts: u8, stands: bool) {
        if let Some(known) = self.known(id) {
            known.explained = known.explained.saturating_add(u32::from(attempts.max(1)));
            known.charged = known.charged.saturating_add(u32::from(stands));
        }
    }

    /// An answer. `first`: the first pass saw it.
    pub fn answered(&mut self, id: &str, first: bool) {
        if let Some(known) = self.known(id) {
            known.answered = known.answered.saturating_add(1);
            known.answered_first = known.answered_first.saturating_add(u32::from(first));
        }
    }

    /// The ids that differ, in order.
    pub fn differences(self) -> Vec<Difference> {
        let mut ids: Vec<_> = self.ids.into_iter().collect();
        ids.sort_by(|one, other| one.0.cmp(&other.0));
        let difference = |(id, known): (String, Known)| {
            let uncharged = known.answered_first.saturating_sub(known.explained);
            let unanswered = known.charged.saturating_sub(known.answered);
            match (uncharged, unanswered) {
                (0, 0) => None,
                (0, unanswered) => Some(Difference::NotAnswered(id, unanswered)),
                (uncharged, _) => Some(Difference::NotCharged(id, uncharged)),
            }
        };
        ids.into_iter().filter_map(difference).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Charges as (id, attempts, stands), and the seller's answers.
    fn check(charges: &[(&str, u8, bool)], answers: &[&str], expected: &[Difference]) {
        let mut first = Answers::default();
        answers.iter().for_each(|id| first.answered(id));
        charges.iter().for_each(|(id, ..)| first.charged(id));
        let mut doubts = first.doubts();
        charges.iter().for_each(|(id, attempts, stands)| doubts.charged(id, *attempts, *stands));
        answers.iter().for_each(|id| doubts.answered(id, true));
        assert_eq!(doubts.differences(), expected, "{charges:?} {answers:?}");
    }

    #[test]
    fn each_id_must_be_charged_as_often_as_it_was_answered() {
        let not_charged = |id: &str, times| Difference::NotCharged(id.to_owned(), times);
        let not_answered = |id: &str, times| Difference::NotAnswered(id.to_owned(), times);
        check(&[("a", 1, true), ("b", 1, true)], &["b", "a"], &[]);
        check(&[("a", 1, true)], &["a", "b"], &[not_charged("b", 1)]);
        check(&[("a", 1, true), ("c", 1, true)], &["a"], &[not_answered("c", 1)]);
        // Clients may choose equal ids.
        check(&[("a", 1, true), ("a", 1, true)], &["a", "a"], &[]);
        check(&[("a", 1, true), ("a", 1, true)], &["a"], &[not_answered("a", 1)]);
        check(&[("a", 1, true)], &["a", "a", "a"], &[not_charged("a", 2)]);
        // A request that was sent twice may be in the seller's log twice, or once.
        check(&[("a", 2, true)], &["a", "a"], &[]);
        check(&[("a", 2, true)], &["a"], &[]);
        // A charge that was taken back, or is open, explains an answer and needs none.
        check(&[("a", 1, false)], &["a"], &[]);
        check(&[("a", 1, false)], &[], &[]);
    }

    #[test]
    fn where_all_agree_nothing_is_left_to_look_at() {
        let mut answers = Answers::default();
        for number in 0..1_000 {
            answers.charged(&format!("id-{number}"));
            answers.answered(&format!("id-{}", 999 - number));
        }
        assert!(!answers.doubts().any);
    }
}
