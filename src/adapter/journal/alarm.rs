//! Wakes the journal's thread at the earliest moment that anyone asked for. With nothing to do it never wakes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One sleeper, any number of askers.
#[derive(Default)]
pub(super) struct Alarm {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    due: Option<Instant>,
    stopped: bool,
}

impl Alarm {
    /// Asks to be woken by this moment. Cheap when the sleeper wakes no later anyway.
    pub(super) fn set(&self, due: Instant) {
        let mut state = self.lock();
        if state.due.is_none_or(|earlier| due < earlier) {
            state.due = Some(due);
            self.rung.notify_one();
        }
    }

    /// Ends the sleeper's loop.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.rung.notify_one();
    }

    /// Sleeps until the earliest wish, and forgets it; `None` when stopped.
    pub(super) fn wait(&self) -> Option<Instant> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let now = Instant::now();
            state = match state.due {
                Some(due) if due <= now => {
                    state.due = None;
                    return Some(now);
                }
                Some(due) => self.rung.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.rung.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earliest_wish_wakes_and_is_forgotten() {
        let alarm = Alarm::default();
        let now = Instant::now();
        alarm.set(now + Duration::from_secs(3600));
        alarm.set(now);
        alarm.set(now + Duration::from_secs(60));
        assert!(alarm.wait().is_some());
        alarm.stop();
        assert_eq!(alarm.wait(), None);
    }

    #[test]
    fn a_wish_wakes_a_sleeper_that_had_none() {
        let alarm = Alarm::default();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| alarm.wait());
            alarm.set(Instant::now());
            assert!(sleeper.join().unwrap().is_some());
        });
    }
}
