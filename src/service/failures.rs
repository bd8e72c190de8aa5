//! Failed authentications: how many each client address and each named credential has had lately. Who has had too many is
//! refused before the store is asked. Memory is bounded: each table has a fixed size and forgets whoever failed longest
//! ago.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::key::KeyHash;
use crate::domain::limit::{Bucket, Rate};

/// Sets of a table; one entry can stand in one of them alone.
const SETS: u64 = 1_024;
/// Entries of a set: the one that failed longest ago makes room.
const WAYS: usize = 8;

/// Whose failures are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blamed {
    /// A client's address; of IPv6 its network of 64 bits.
    Address,
    /// An API key, AppCode or AppKey that was presented.
    Credential,
}

impl Blamed {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Credential => "credential",
        }
    }
}

/// Too many failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Whose.
    pub blamed: Blamed,
    /// How long until the next one is heard.
    pub wait: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// A hash that nobody outside can foresee; 0: free.
    who: u64,
    failed: Bucket,
    at: Option<Instant>,
}

/// A table of a fixed size.
#[derive(Debug)]
struct Table(Vec<Mutex<[Entry; WAYS]>>);

impl Table {
    fn new() -> Self {
        Self((0..SETS).map(|_| Mutex::default()).collect())
    }

    fn set(&self, who: u64) -> Option<MutexGuard<'_, [Entry; WAYS]>> {
        let set = self.0.get(usize::try_from(who % SETS).ok()?)?;
        Some(set.lock().unwrap_or_else(PoisonError::into_inner)) // plain figures: valid between any two operations
    }

    fn wait(&self, who: u64, rate: Rate, now: Instant) -> Duration {
        let set = self.set(who);
        let known = set.as_ref().and_then(|set| set.iter().find(|entry| entry.who == who));
        known.map_or(Duration::ZERO, |entry| entry.failed.wait(rate, now))
    }

    fn add(&self, who: u64, rate: Rate, now: Instant) {
        let Some(mut set) = self.set(who) else { return };
        let place = match set.iter().position(|entry| entry.who == who) {
            Some(known) => set.get_mut(known),
            None => set.iter_mut().min_by_key(|entry| entry.at),
        };
        let Some(entry) = place else { return };
        if entry.who != who {
            *entry = Entry { who, ..Entry::default() };
        }
        entry.failed.add(rate, now);
        entry.at = Some(now);
    }
}

/// Counts failed authentications.
#[derive(Debug)]
pub struct Failures {
    rate: Rate,
    hasher: RandomState,
    addresses: Table,
    credentials: Table,
}

impl Failures {
    /// Hears so many a minute of each address and of each credential.
    pub fn new(per_minute: NonZeroU32) -> Self {
        let rate = Rate::per_minute(per_minute);
        Self { rate, hasher: RandomState::new(), addresses: Table::new(), credentials: Table::new() }
    }

    /// Whether an address or a credential has failed too often to be heard now.
    pub fn check(&self, client: &str, credential: Option<KeyHash>, now: Instant) -> Result<(), TooMany> {
        let address = self.addresses.wait(self.of_address(client), self.rate, now);
        let named = credential.map(|hash| self.credentials.wait(self.of_credential(hash), self.rate, now));
        let named = named.unwrap_or_default();
        let (blamed, wait) = if address >= named { (Blamed::Address, address) } else { (Blamed::Credential, named) };
        if wait.is_zero() { Ok(()) } else { Err(TooMany { blamed, wait }) }
    }

    /// Counts a failure, unless there were too many before it.
    pub fn count(&self, client: &str, credential: Option<KeyHash>, now: Instant) -> Result<(), TooMany> {
        self.check(client, credential, now)?;
        self.addresses.add(self.of_address(client), self.rate, now);
        if let Some(hash) = credential {
            self.credentials.add(self.of_credential(hash), self.rate, now);
        }
        Ok(())
    }

    /// One who has a network of IPv6 has all of its addresses.
    fn of_address(&self, client: &str) -> u64 {
        let network = match client.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => u128::from(address.to_bits()),
            Ok(IpAddr::V6(address)) => address.to_bits() >> 64 | 1 << 127,
            Err(_) => 0,
        };
        self.hasher.hash_one(network).max(1)
    }

    fn of_credential(&self, hash: KeyHash) -> u64 {
        self.hasher.hash_one(hash).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(per_minute: u32) -> Failures {
        Failures::new(NonZeroU32::new(per_minute).unwrap())
    }

    const ONE: Option<KeyHash> = Some(KeyHash([1; 32]));
    const OTHER: Option<KeyHash> = Some(KeyHash([2; 32]));

    #[test]
    fn an_address_and_a_credential_fail_so_often_and_then_wait() {
        let (failures, now) = (failures(3), Instant::now());
        for credential in [ONE, OTHER, None] {
            failures.count("127.0.0.1", credential, now).unwrap();
        }
        let too_many = TooMany { blamed: Blamed::Address, wait: Duration::from_secs(20) };
        assert_eq!(failures.check("127.0.0.1", ONE, now), Err(too_many));
        assert_eq!(failures.count("127.0.0.1", ONE, now), Err(too_many));
        failures.check("127.0.0.1", ONE, now + too_many.wait).unwrap();
        // The same credential from elsewhere.
        failures.count("10.0.0.1", ONE, now).unwrap();
        failures.count("10.0.0.2", ONE, now).unwrap();
        assert_eq!(failures.check("10.0.0.3", ONE, now).unwrap_err().blamed, Blamed::Credential);
        failures.check("10.0.0.3", OTHER, now).unwrap();
        failures.count("127.0.0.1", OTHER, now + Duration::from_secs(20)).unwrap();
        failures.check("127.0.0.1", OTHER, now + Duration::from_secs(20)).unwrap_err();
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (failures, now) = (failures(1), Instant::now());
        failures.count("2001:db8::1", None, now).unwrap();
        failures.check("2001:db8::2:3", None, now).unwrap_err();
        failures.check("2001:db8:0:1::1", None, now).unwrap();
        failures.count("::ffff:10.0.0.1", None, now).unwrap();
        failures.check("10.0.0.1", None, now).unwrap_err();
        failures.check("10.0.0.2", None, now).unwrap();
    }

    #[test]
    fn a_flood_from_many_addresses_makes_it_forget_the_oldest_and_takes_no_more_memory() {
        let (failures, now) = (failures(1), Instant::now());
        let size = |table: &Table| table.0.len() * WAYS;
        let before = size(&failures.addresses);
        for number in 0..20_000_u32 {
            let address = std::net::Ipv4Addr::from_bits(number).to_string();
            failures.count(&address, None, now + Duration::from_micros(number.into())).unwrap();
        }
        assert_eq!(size(&failures.addresses), before);
        let known =
            |number: u32| failures.check(&std::net::Ipv4Addr::from_bits(number).to_string(), None, now).is_err();
        assert!(!known(0), "the oldest is forgotten");
        assert!(known(19_999), "the latest is not");
    }
}
