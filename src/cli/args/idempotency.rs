//! The name of one change, by which it is made once.

use clap::Args;

use crate::adapter::clock::SystemEntropy;
use crate::domain::id::CommandId;
use crate::service::accounts::command_from;

/// Makes asking again safe.
#[derive(Debug, Clone, Args)]
pub struct Idempotency {
    /// The same key is done once: repeat it to ask again after a failure. Left out, one is made, and a failure names it
    #[arg(long, value_name = "KEY", value_parser = CommandId::new)]
    idempotency_key: Option<CommandId>,
}

impl Idempotency {
    /// The key that was given, else a new one.
    pub fn key(self) -> CommandId {
        self.idempotency_key.unwrap_or_else(|| command_from(&SystemEntropy))
    }
}
