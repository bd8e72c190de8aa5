//! Compares what clients received, what the seller served and what the books say, call by call.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The ids of the calls that do not agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// A client has a 2xx head; the books know nothing of it.
    pub(crate) lost: Vec<String>,
    /// Charged more than once, or more than one unit.
    pub(crate) doubled: Vec<String>,
    /// Charged, and no seller ever answered it with 2xx.
    pub(crate) invented: Vec<String>,
    /// Charged, and no client saw its 2xx head: the gateway died, or the client left, between the two.
    pub(crate) undelivered: Vec<String>,
}

/// The sum of the units that usage records charge.
pub(crate) fn units(records: &[Value]) -> u64 {
    records.iter().map(|record| record["units"].as_u64().unwrap_or_else(|| panic!("no units in {record}"))).sum()
}

/// The request id of a usage record.
pub(crate) fn request_id(record: &Value) -> &str {
    record["request_id"].as_str().unwrap_or_else(|| panic!("no request_id in {record}"))
}

/// Compares by request id. `received`: ids whose client has a 2xx head; `served`: ids that the seller answered with 2xx.
pub(crate) fn compare(received: &BTreeSet<String>, served: &BTreeSet<String>, records: &[Value]) -> Differences {
    let mut charged: BTreeMap<&str, u64> = BTreeMap::new();
    for record in records {
        *charged.entry(request_id(record)).or_default() += units(std::slice::from_ref(record));
    }
    let named = |fits: &dyn Fn(&str, u64) -> bool| {
        let found = charged.iter().filter(|(id, units)| fits(id, **units));
        found.map(|(id, _)| (*id).to_owned()).collect()
    };
    Differences {
        lost: received.iter().filter(|id| charged.get(id.as_str()).is_none_or(|units| *units == 0)).cloned().collect(),
        doubled: named(&|_, units| units > 1),
        invented: named(&|id, units| units > 0 && !served.contains(id)),
        undelivered: named(&|id, units| units > 0 && !received.contains(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn record(id: &str, units: u64) -> Value {
        serde_json::json!({ "request_id": id, "units": units })
    }

    /// The comparison must find what it is there for.
    #[test]
    fn each_kind_of_difference_is_found() {
        let records = [record("fine", 1), record("twice", 1), record("twice", 1), record("void", 0)];
        let records =
            [&records[..], &[record("two units", 2), record("nobody served", 1), record("unseen", 1)]].concat();
        let received = ids(&["fine", "twice", "void", "two units", "missing", "nobody served"]);
        let served = ids(&["fine", "twice", "void", "two units", "missing", "unseen"]);
        let found = compare(&received, &served, &records);
        assert_eq!(found.lost, ["missing", "void"]);
        assert_eq!(found.doubled, ["twice", "two units"]);
        assert_eq!(found.invented, ["nobody served"]);
        assert_eq!(found.undelivered, ["unseen"]);
        assert_eq!(units(&records), 7);
    }
}
