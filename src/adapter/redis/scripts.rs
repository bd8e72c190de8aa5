//! All scripts, and how they are run.

#[cfg(test)]
use std::sync::Arc;

use redis::{Value, cmd};
use tokio::time::Instant;

use super::fault::Fault;
use super::link::{Link, Patience};
use super::script::Script;
#[cfg(test)]
use crate::ports::clock::Clock;

/// What every script that names the server begins with.
const SERVER: &str = include_str!("server.lua");

/// All scripts.
pub(super) struct Scripts {
    pub(super) identify: Script,
    pub(super) load: Script,
    /// An account's documents, by the hash of its key; not for a Cluster.
    pub(super) find: Script,
    pub(super) commit: Script,
    pub(super) check_in: Script,
    pub(super) note_use: Script,
    pub(super) take_back: Script,
    pub(super) heartbeat: Script,
    pub(super) heard: Script,
    pub(super) claim: Script,
    pub(super) release: Script,
    /// Stands in for the server's clock.
    #[cfg(test)]
    pub(super) clock: Option<Arc<dyn Clock>>,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let named = |body: &str| Script::new(&format!("{SERVER}{body}"));
        Self {
            identify: named(include_str!("identify.lua")),
            load: named(include_str!("load.lua")),
            find: Script::new(&[include_str!("find.lua"), SERVER, include_str!("found.lua")].concat()),
            commit: named(include_str!("commit.lua")),
            check_in: named(include_str!("check_in.lua")),
            note_use: named(include_str!("note_use.lua")),
            take_back: named(include_str!("take_back.lua")),
            heartbeat: named(include_str!("heartbeat.lua")),
            heard: named(include_str!("heard.lua")),
            claim: Script::new(include_str!("claim.lua")),
            release: Script::new(include_str!("release.lua")),
            #[cfg(test)]
            clock: None,
        }
    }

    /// Runs a script before a deadline. On a connection that breaks it may run twice.
    pub(super) async fn run(
        &self,
        (link, deadline): (&Link, Instant),
        script: &Script,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Value, Fault> {
        self.run_by((link, Patience { deadline, once: false }), script, keys, arguments).await
    }

    /// The same, with more to say about how it is asked.
    pub(super) async fn run_by(
        &self,
        (link, patience): (&Link, Patience),
        script: &Script,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Value, Fault> {
        let command = |name: &str, what: &str| {
            let mut command = cmd(name);
            command.arg(what).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        #[cfg(test)]
        if let Some(clock) = &self.clock {
            return link.ask_with(&command("EVAL", &at(script.text(), &**clock)), patience).await;
        }
        match link.ask_with(&command("EVALSHA", script.hash()), patience).await {
            Err(Fault::Forgotten) => {
                let answer = link.ask_with(&command("EVAL", script.text()), patience).await;
                answer.map_err(Fault::of_repeated) // an earlier server may have known it, on a connection that broke
            }
            answer => answer,
        }
    }
}

/// A script for which it always is the time that a clock shows.
#[cfg(test)]
fn at(script: &str, clock: &dyn Clock) -> String {
    let now = clock.now();
    let time = format!("{{'{}','{}'}}", now.as_second(), now.subsec_nanosecond() / 1_000);
    script.replace("redis.call('TIME')", &time)
}
