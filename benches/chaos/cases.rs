//! The cases: each a fault, the servers that it happens to, and what people call it.

use super::bank::{Keeping, Shape};
use super::faults::Fault;
use super::link::Weather;
use std::time::Duration;

/// A kind of round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// For the table.
    pub(crate) about: &'static str,
    pub(crate) shape: Shape,
    pub(crate) fault: Fault,
    /// Rounds in the fast tier; 0: too long for it.
    pub(crate) fast: u32,
    /// Rounds in the full tier.
    pub(crate) full: u32,
}

const EVERYSEC: Shape = Shape::Alone(Keeping::Log("everysec"));
const ALWAYS: Shape = Shape::Alone(Keeping::Log("always"));

const fn case(name: &'static str, about: &'static str, shape: Shape, fault: Fault) -> Case {
    Case { name, about, shape, fault, fast: 1, full: 20 }
}

/// One that takes too long for the fast tier.
const fn long(case: Case) -> Case {
    Case { fast: 0, ..case }
}

/// All cases.
pub(crate) const CASES: &[Case] = &[
    Case {
        fast: 4,
        full: 40,
        ..case("kill-gateway", "kill -9 of a gateway, five times a round", EVERYSEC, Fault::KillGateways(5))
    },
    case("halt-gateway", "SIGSTOP of a gateway for 0.2 to 3 s", EVERYSEC, Fault::HaltGateway(200, 3_000)),
    long(case(
        "halt-gateway-long",
        "SIGSTOP of a gateway for 31 to 34 s, beyond its leases",
        EVERYSEC,
        Fault::HaltGateway(31_000, 34_000),
    )),
    case("stop-gateway", "SIGTERM of a gateway under load, and a start", EVERYSEC, Fault::StopGateway),
    case("lose-disk", "kill -9 of a gateway, its folder removed, and a start", EVERYSEC, Fault::LoseDisk),
    case("overlap", "a second process of a gateway beside the first", EVERYSEC, Fault::Overlap),
    long(case(
        "zombie",
        "SIGSTOP of a gateway for 31 to 34 s, its folder copied, another goes on with the copy",
        EVERYSEC,
        Fault::Zombie(31_000, 34_000),
    )),
    case("kill-store-always", "kill -9 of the server, appendfsync always", ALWAYS, Fault::KillStore),
    case("kill-store-everysec", "kill -9 of the server, appendfsync everysec", EVERYSEC, Fault::KillStore),
    case("kill-store-no", "kill -9 of the server, appendfsync no", Shape::Alone(Keeping::Log("no")), Fault::KillStore),
    case(
        "kill-store-volatile",
        "kill -9 of the server, which keeps nothing",
        Shape::Alone(Keeping::Nothing),
        Fault::KillStore,
    ),
    case(
        "roll-back",
        "kill -9 of the server, back to a snapshot of 0.3 to 1.2 s ago",
        Shape::Alone(Keeping::Snapshots),
        Fault::RollBack,
    ),
    case("cut-log", "kill -9 of the server, 2 to 31 % of its log cut off", EVERYSEC, Fault::CutLog),
    case("promote", "a replica without the last writes takes over", Shape::Pair, Fault::Promote),
    case("sentinels", "the primary is killed, Sentinels name another", Shape::Sentinels, Fault::FailOver),
    case("cluster", "a primary of three is killed, its replica takes over", Shape::Cluster, Fault::FailOver),
    case("flush", "FLUSHALL", EVERYSEC, Fault::Flush),
    case("restore", "a backup, later FLUSHALL; gateways stopped, the backup restored", EVERYSEC, Fault::Restore),
    case("flush-scripts", "SCRIPT FLUSH", EVERYSEC, Fault::FlushScripts),
    case("pause-1s", "CLIENT PAUSE for 1 s", EVERYSEC, Fault::Pause(1_000)),
    case("pause-5s", "CLIENT PAUSE for 5 s", EVERYSEC, Fault::Pause(5_000)),
    long(case("pause-30s", "CLIENT PAUSE for 30 s", EVERYSEC, Fault::Pause(30_000))),
    case("halt-store", "SIGSTOP of the server for 0.5 to 3 s", EVERYSEC, Fault::HaltStore(500, 3_000)),
    case("slow", "500 ms more to the server, for 3 s", EVERYSEC, weather(Weather::Slow(Duration::from_millis(500)))),
    case("hold", "nothing passes to or from the server for 3 s, then all", EVERYSEC, weather(Weather::Hold)),
    case("black-hole", "nothing passes to or from the server for 3 s", EVERYSEC, weather(Weather::Swallow)),
    case("cut-link", "connections to the server are cut for 3 s", EVERYSEC, weather(Weather::Refuse)),
    case(
        "drop-replies",
        "one reply in five is lost after execution, for 3 s",
        EVERYSEC,
        weather(Weather::DropReplies(20)),
    ),
];

const fn weather(weather: Weather) -> Fault {
    Fault::Link(weather, 3_000)
}

/// The case of a name.
pub(crate) fn named(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}
