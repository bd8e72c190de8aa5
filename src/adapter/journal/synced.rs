//! What a writer knows to be on disk, and what to tell those who wait for it.

use crate::ports::journal::{JournalError, Position};

/// How far the syncs have come.
#[derive(Default)]
pub(super) struct Synced {
    /// Up to here all is on disk but what `lost` names.
    pub(super) upto: u64,
    lost: Option<Lost>,
    /// Nothing will be synced any more.
    pub(super) closed: bool,
}

/// What was written but may not be on disk, because a sync failed. A second failure widens it over what lies between.
struct Lost {
    from: u64,
    upto: u64,
    error: JournalError,
}

impl Synced {
    /// Whether a position is on disk; `None`: not yet.
    pub(super) fn answer(&self, position: Position) -> Option<Result<(), JournalError>> {
        match &self.lost {
            Some(lost) if lost.from < position.0 && position.0 <= lost.upto => Some(Err(lost.error.clone())),
            _ if position.0 <= self.upto => Some(Ok(())),
            _ if self.closed => Some(Err(closed())),
            _ => None,
        }
    }

    /// Notes that a sync of everything up to a position failed.
    pub(super) fn lose(&mut self, upto: u64, error: JournalError) {
        let from = self.lost.as_ref().map_or(self.upto, |lost| lost.from);
        self.lost = Some(Lost { from, upto, error });
    }
}

/// The answer to all who come after the end.
pub(super) fn closed() -> JournalError {
    JournalError::Io("it is closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_stays_lost_and_the_rest_does_not_suffer() {
        let error = || JournalError::Io("broken".to_owned());
        let check = |synced: &Synced, position, expected| assert_eq!(synced.answer(Position(position)), expected);
        let mut synced = Synced { upto: 10, ..Synced::default() };
        check(&synced, 10, Some(Ok(())));
        check(&synced, 11, None);
        synced.lose(20, error());
        synced.lose(30, error());
        check(&synced, 10, Some(Ok(())));
        check(&synced, 11, Some(Err(error())));
        check(&synced, 30, Some(Err(error())));
        check(&synced, 31, None);
        synced.upto = 40;
        check(&synced, 10, Some(Ok(())));
        check(&synced, 20, Some(Err(error())));
        check(&synced, 40, Some(Ok(())));
        synced.closed = true;
        check(&synced, 40, Some(Ok(())));
        check(&synced, 41, Some(Err(closed())));
    }
}
