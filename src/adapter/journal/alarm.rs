//! Wakes the journal's thread at the earliest moment that anyone asked for. With nothing to do it soon sleeps until it is
//! told.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After its work the sleeper looks once more by itself. While calls come, the next wish is there by then, and no call has
/// to wake it: on a core that both share, that would be a switch of threads before the call's answer leaves.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One sleeper, any number of askers.
#[derive(Default)]
pub(super) struct Alarm {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    due: Option<Instant>,
    /// When the sleeper looks by itself.
    looks_at: Option<Instant>,
    stopped: bool,
}

impl State {
    /// Takes a wish; returns whether the sleeper must be told.
    fn take(&mut self, wish: Instant) -> bool {
        if self.due.is_some_and(|earlier| earlier <= wish) {
            return false;
        }
        self.due = Some(wish);
        self.looks_at.is_none_or(|looks_at| wish < looks_at)
    }
}

impl Alarm {
    /// Asks to be woken by this moment. Cheap when the sleeper wakes no later anyway.
    pub(super) fn set(&self, due: Instant) {
        if self.lock().take(due) {
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
        let mut look_again = Some(Instant::now() + LOOK_AGAIN);
        loop {
            if state.stopped {
                return None;
            }
            let now = Instant::now();
            if state.due.is_some_and(|due| due <= now) {
                (state.due, state.looks_at) = (None, Some(now)); // it looks before it sleeps
                return Some(now);
            }
            look_again = look_again.filter(|at| *at > now);
            state.looks_at = state.due.or(look_again);
            state = match state.looks_at {
                Some(at) => self.rung.wait_timeout(state, at - now).unwrap_or_else(PoisonError::into_inner).0,
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
    fn the_sleeper_is_told_only_of_what_comes_before_it_looks() {
        let now = Instant::now();
        let at = |millis: u64| Some(now + Duration::from_millis(millis));
        for (due, looks_at, wish, told, then) in [
            (None, None, 50, true, 50),
            (None, at(40), 50, false, 50),
            (None, at(50), 50, false, 50),
            (None, at(51), 50, true, 50),
            (at(50), at(50), 60, false, 50),
            (at(50), at(50), 50, false, 50),
            (at(50), at(50), 0, true, 0),
            (at(60), at(40), 50, false, 50),
        ] {
            let mut state = State { due, looks_at, stopped: false };
            let wish = now + Duration::from_millis(wish);
            assert_eq!((state.take(wish), state.due), (told, at(then)), "{due:?} {looks_at:?} {wish:?}");
        }
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
