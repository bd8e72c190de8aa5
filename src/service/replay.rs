//! Accepts a signature once: what was signed is called once, however often it is sent.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::credential::SignatureUse;
use crate::ports::replay::{ReplayCache, UsedSignature};
use crate::protocol::keyring::Keyring;
use crate::protocol::signature::{SKEW_MAX, SignatureFault};
use crate::telemetry::metrics::Metrics;

/// The step of a signature's date: at the very end of its window a signature is still accepted.
const DATE_STEP: SignedDuration = SignedDuration::from_secs(1);

/// A signature that was found to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// Its bytes.
    pub signature: [u8; 32],
    /// When it says that it was made.
    pub dated: Timestamp,
}

/// Why a right signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayFault {
    /// It was accepted before.
    #[error("the signature was used before, and is accepted once; sign the request again for each call")]
    Replayed,
    /// Its time is over by the store's clock.
    #[error(transparent)]
    Expired(SignatureFault),
    /// It was made before the store's memory of used signatures begins.
    #[error(
        "the signature was made before the gateway's memory of used signatures begins, so it cannot be told whether it \
         was used; sign the request again"
    )]
    Unsure,
    /// Too many signatures are remembered.
    #[error("too many signatures were used lately to remember another one; sign the request again shortly")]
    Full,
    /// The store does not answer. The signature may be used now.
    #[error("it cannot be told at the moment whether the signature was used before; sign the request again shortly")]
    Unavailable,
}

/// Accepts signatures once.
pub struct ReplayGuard {
    used: Arc<dyn ReplayCache>,
    keyring: Keyring,
    metrics: Metrics,
    /// How long the store is waited for.
    patience: Duration,
    /// Signatures that are remembered at one time.
    max: usize,
}

impl ReplayGuard {
    /// One that waits for the store so long, and lets it remember so many signatures.
    pub fn new(
        used: Arc<dyn ReplayCache>,
        keyring: Keyring,
        metrics: Metrics,
        (patience, max): (Duration, usize),
    ) -> Self {
        Self { used, keyring, metrics, patience, max }
    }

    /// Accepts a right signature, or says why not. Once accepted it is used, unless it is [given back](Self::give_back).
    ///
    /// # Errors
    /// See [`ReplayFault`].
    pub async fn accept(&self, signed: Signed, now: Timestamp) -> Result<(), ReplayFault> {
        let (used, dated) = (self.remembered(signed), signed.dated);
        let said = match tokio::time::timeout(self.patience, self.used.note_use(used, self.max)).await {
            Ok(Ok(said)) => Some(said),
            Ok(Err(_)) | Err(_) => None, // the store's keeper says why; here it is counted
        };
        self.metrics.signature_uses(said).inc();
        match said {
            Some(SignatureUse::First) => Ok(()),
            Some(SignatureUse::Again) => Err(ReplayFault::Replayed),
            Some(SignatureUse::Over) => Err(ReplayFault::Expired(SignatureFault::expired(dated, now))),
            Some(SignatureUse::Unsure) => Err(ReplayFault::Unsure),
            Some(SignatureUse::Full) => Err(ReplayFault::Full),
            None => Err(ReplayFault::Unavailable),
        }
    }

    /// A signature that was accepted served nothing: it may be used again. If the store does not hear of it, it stays used.
    pub async fn give_back(&self, signed: Signed) {
        let given = tokio::time::timeout(self.patience, self.used.take_back(self.remembered(signed))).await;
        if let Ok(Ok(())) = given {
            self.metrics.signatures_given_back().inc();
        }
    }

    fn remembered(&self, Signed { signature, dated }: Signed) -> UsedSignature {
        let ends = dated.checked_add(SKEW_MAX).and_then(|last| last.checked_add(DATE_STEP));
        UsedSignature { name: self.keyring.of_signature(&signature), dated, ends: ends.unwrap_or(Timestamp::MAX) }
    }
}
