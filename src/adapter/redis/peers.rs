//! What gateways tell each other by way of the server: who lives, who has checked in with which bucket.

use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::cmd;

use super::keys::{BUCKETS, REGISTRY, buckets};
use super::reply::{list, text};
use super::{Shared, feed};
use crate::domain::id::Incarnation;
use crate::domain::lease::LEASE_DURATION_MAX;
use crate::ports::account_store::StoreError;
use crate::ports::gateways::{CheckIn, Heartbeat, LIVE_FOR, ServerId, Servers};

impl Shared {
    pub(super) async fn heartbeat(&self, by: &Incarnation) -> Result<Heartbeat, StoreError> {
        let keys = [self.keys.server(REGISTRY), self.keys.gateways()];
        let arguments = vec![by.to_string(), LIVE_FOR.as_micros().to_string()];
        self.ear.expect_beats();
        let (answer, told) =
            tokio::join!(self.run(&self.scripts.heartbeat, &keys, arguments), self.publish(feed::BEAT));
        let answer = answer?;
        told?;
        let live = answer.rest.into_iter().next().map(list).unwrap_or_default().into_iter();
        let live = live.filter_map(|member| Incarnation::try_from(text(member)?).ok()).collect();
        Ok(Heartbeat { now: answer.now, live, server: answer.server })
    }

    pub(super) async fn leave(&self, by: &Incarnation) -> Result<(), StoreError> {
        let mut command = cmd("ZREM");
        command.arg(self.keys.gateways()).arg(by.to_string());
        self.link.ask(&command).await?;
        Ok(())
    }

    /// Takes every bucket's epoch away: the next question makes a new one.
    pub(super) async fn forget_epochs(&self) -> Result<(), StoreError> {
        let each = buckets().map(|bucket| async move {
            let mut command = cmd("HDEL");
            command.arg(self.keys.server(bucket)).arg("epoch");
            self.link.ask(&command).await
        });
        try_join_all(each).await?;
        Ok(())
    }

    pub(super) async fn servers(&self) -> Result<Servers, StoreError> {
        let each = buckets().map(|bucket| async move {
            let keys = [self.keys.server(bucket)];
            self.run(&self.scripts.identify, &keys, Vec::new()).await.map(|answer| answer.server)
        });
        Ok(Servers(try_join_all(each).await?))
    }

    pub(super) async fn check_in(
        self: &Arc<Self>,
        by: &Incarnation,
        servers: &Servers,
        live: &[Incarnation],
    ) -> Result<CheckIn, StoreError> {
        if servers.0.len() != BUCKETS {
            return Ok(CheckIn::Stranger);
        }
        let known = (live, self.has_heard_all().await?);
        let each = buckets().zip(&servers.0).map(|(bucket, server)| self.check_in_with(bucket, server, by, known));
        let answers = try_join_all(each).await?;
        let any = |answer| answers.contains(&answer);
        let answer = match (any(CheckIn::Stranger), any(CheckIn::Waiting)) {
            (true, _) => CheckIn::Stranger,
            (false, true) => CheckIn::Waiting,
            (false, false) => CheckIn::Open,
        };
        if answer == CheckIn::Open {
            self.index_for(servers);
        }
        Ok(answer)
    }

    /// Whether everyone who lives has had the time to be in the list. It is in one bucket, the others are told.
    async fn has_heard_all(&self) -> Result<bool, StoreError> {
        let arguments = vec![LIVE_FOR.as_micros().to_string()];
        let answer = self.run(&self.scripts.heard, &[self.keys.server(REGISTRY)], arguments).await?;
        Ok(answer.word == "whole")
    }

    async fn check_in_with(
        &self,
        bucket: u8,
        server: &ServerId,
        by: &Incarnation,
        (live, whole): (&[Incarnation], bool),
    ) -> Result<CheckIn, StoreError> {
        let mut arguments = vec![server.as_str().to_owned(), by.to_string()];
        arguments.push(LEASE_DURATION_MAX.as_micros().to_string());
        arguments.extend([self.durable, whole].map(|yes| if yes { "1" } else { "" }.to_owned()));
        arguments.extend(live.iter().map(ToString::to_string));
        let answer = self.run(&self.scripts.check_in, &[self.keys.server(bucket)], arguments).await?;
        Ok(match answer.word.as_str() {
            "open" => CheckIn::Open,
            "waiting" => CheckIn::Waiting,
            _ => CheckIn::Stranger,
        })
    }
}
