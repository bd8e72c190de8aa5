//! What the black-box tests and the chaos runs share: a gateway in its own process, a scripted seller, a raw client,
//! and waits that end by a condition or fail at a deadline. Nothing here knows the gateway's code: it sees what buyers,
//! sellers and operators see.

pub(crate) mod admin;
pub(crate) mod books;
pub(crate) mod canaries;
pub(crate) mod client;
pub(crate) mod crash;
pub(crate) mod h2;
pub(crate) mod keep;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod race;
pub(crate) mod redis;
pub(crate) mod rng;
pub(crate) mod seller;
pub(crate) mod signer;
pub(crate) mod tls;
pub(crate) mod wire;
pub(crate) mod world;

use std::time::{Duration, Instant};

/// Longest wait for anything that must happen. Generous, because machines that run tests are busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks at a condition that nobody announces.
const POLL: Duration = Duration::from_millis(10);

/// Waits for something that must happen before the deadline.
pub(crate) async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, happens).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}

/// Looks again and again until there is a value.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}
