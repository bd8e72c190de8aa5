//! Says whether a round kept the promise: joins what clients saw, what the seller answered, the usage records of the
//! journals and the books, by request id. Knows nothing of how the round was made, and excuses nothing but what a fault
//! itself explains: each excuse stands here, with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// The worst that happened to a gateway during one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disturbance {
    None,
    /// It was halted, and works off what piled up meanwhile: answers come late, but they come.
    Behind,
    /// It was told to stop: connections that wait may end, calls that it took are answered.
    Orderly,
    /// It was killed or halted.
    Violent,
}

/// One call as its client saw it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) caller: usize,
    /// `None`: no head came.
    pub(crate) status: Option<u16>,
    /// From the beginning to the head, or to the end if none came.
    pub(crate) waited: Duration,
    pub(crate) disturbance: Disturbance,
    /// The answer's body came to its end.
    pub(crate) whole: bool,
    /// The client hung up by its own plan.
    pub(crate) hung_up: bool,
}

/// Where the units of an account's packages stand, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) leased: u64,
    pub(crate) settled: u64,
    pub(crate) suspense: u64,
    pub(crate) forfeited: u64,
    pub(crate) overrun: u64,
}

/// An account after the round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) bought: u64,
    /// It was used up, by one call after the other, until the first refusal.
    pub(crate) run_off: bool,
    pub(crate) books: Books,
}

/// What was done to buy packages during the round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Purchases {
    /// Commands whose answer said that they were done.
    pub(crate) confirmed: Vec<String>,
    /// The command of each package in the books.
    pub(crate) booked: Vec<String>,
}

/// All that is known of a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) calls: Vec<Call>,
    /// Ids that the seller answered with 2xx.
    pub(crate) served: BTreeSet<String>,
    /// Usage records of all journals that are left.
    pub(crate) records: Vec<Value>,
    /// By caller.
    pub(crate) accounts: Vec<Account>,
    pub(crate) purchases: Purchases,
    /// A gateway's folder was lost, and its journal with it.
    pub(crate) disk_lost: bool,
    /// A call waits at most this long for its head.
    pub(crate) wait_max: Duration,
}

/// What a round came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) calls: usize,
    /// 2xx heads received.
    pub(crate) received: usize,
    /// A client has a 2xx head; neither records nor books explain it.
    pub(crate) lost: Vec<String>,
    /// Charged more than one unit.
    pub(crate) doubled: Vec<String>,
    /// Units sold beyond what was bought, over all accounts.
    pub(crate) oversold: u64,
    /// Charged, though no seller answered with 2xx, or though the client got another status.
    pub(crate) invented: Vec<String>,
    /// Charged, no head came, and nothing had happened to the gateway.
    pub(crate) undelivered: Vec<String>,
    /// No answer within the limit, though nothing had happened to the gateway.
    pub(crate) hung: Vec<String>,
    /// No answer, or none that is whole, though nothing had happened to the gateway.
    pub(crate) broken: Vec<String>,
    /// Units that were refused although they had been bought, after the run-off.
    pub(crate) unsold: u64,
    /// Units in suspense or still leased in the end.
    pub(crate) suspense: u64,
    /// The longest wait for a head that nothing excuses.
    pub(crate) longest: Duration,
    /// Anything else, in words.
    pub(crate) faults: Vec<String>,
}

impl Verdict {
    /// Whether the promise was kept.
    pub(crate) fn kept(&self) -> bool {
        let lists = [&self.lost, &self.doubled, &self.invented, &self.undelivered, &self.hung, &self.broken];
        lists.iter().all(|list| list.is_empty()) && self.oversold == 0 && self.unsold == 0 && self.faults.is_empty()
    }
}

impl fmt::Display for Verdict {
    /// What breaks the promise, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let lists = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("invented", &self.invented),
            ("undelivered", &self.undelivered),
            ("hung", &self.hung),
            ("broken", &self.broken),
        ];
        for (what, ids) in lists.iter().filter(|(_, ids)| !ids.is_empty()) {
            writeln!(f, "  {what} {}: {:?}", ids.len(), ids.iter().take(SHOWN).collect::<Vec<_>>())?;
        }
        for (what, units) in [("oversold", self.oversold), ("unsold", self.unsold)] {
            if units > 0 {
                writeln!(f, "  {what} {units} units")?;
            }
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

/// Units charged, by request id and by account.
#[derive(Default)]
struct Charged<'a> {
    by_id: BTreeMap<&'a str, u64>,
    by_account: BTreeMap<&'a str, u64>,
}

impl<'a> Charged<'a> {
    fn of(records: &'a [Value]) -> Self {
        let mut charged = Self::default();
        for record in records {
            let field = |name: &str| record.get(name).unwrap_or(&Value::Null);
            let units = field("units").as_u64().unwrap_or_default();
            *charged.by_id.entry(field("request_id").as_str().unwrap_or_default()).or_default() += units;
            *charged.by_account.entry(field("account").as_str().unwrap_or_default()).or_default() += units;
        }
        charged
    }

    fn id(&self, id: &str) -> u64 {
        self.by_id.get(id).copied().unwrap_or_default()
    }

    fn account(&self, id: &str) -> u64 {
        self.by_account.get(id).copied().unwrap_or_default()
    }
}

/// Judges a round.
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let charged = Charged::of(&evidence.records);
    let mut verdict = Verdict { calls: evidence.calls.len(), ..Verdict::default() };
    let mut calls: BTreeMap<&str, &Call> = BTreeMap::new();
    let mut unexplained: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for call in &evidence.calls {
        calls.insert(&call.id, call);
        if matches!(call.status, Some(200..300)) {
            verdict.received += 1;
            if charged.id(&call.id) == 0 {
                unexplained.entry(call.caller).or_default().push(&call.id);
            }
        }
        waiting(evidence, call, &mut verdict);
    }
    for (id, units) in &charged.by_id {
        if *units > 1 {
            verdict.doubled.push((*id).to_owned());
        }
        if *units > 0 {
            delivery(evidence, (id, calls.get(id).copied()), &mut verdict);
        }
    }
    for (number, account) in evidence.accounts.iter().enumerate() {
        let missing = unexplained.remove(&number).unwrap_or_default();
        books(evidence, (account, number), (&charged, &missing), &mut verdict);
    }
    purchases(&evidence.purchases, &mut verdict);
    if verdict.received == 0 {
        verdict.faults.push("no call came through: this round shows nothing".to_owned());
    }
    verdict
}

/// Whether a call was answered, and in time. A killed, halted or stopping gateway explains why not; so does a client that
/// hung up. That one was halted a moment ago explains why it is late.
fn waiting(evidence: &Evidence, call: &Call, verdict: &mut Verdict) {
    if call.disturbance >= Disturbance::Orderly || (call.hung_up && call.status.is_none()) {
        return;
    }
    let judged = call.disturbance == Disturbance::None;
    if judged && call.status.is_some() {
        verdict.longest = verdict.longest.max(call.waited);
    }
    if judged && call.waited > evidence.wait_max {
        verdict.hung.push(format!("{} ({:?} after {} ms)", call.id, call.status, call.waited.as_millis()));
    } else if call.status.is_none() || !(call.whole || call.hung_up) {
        verdict.broken.push(call.id.clone());
    }
}

/// Whether a charge has its 2xx answer of the seller and its 2xx head at the client. A client that hung up has none; one
/// whose gateway was killed between the charge and the head has none either: that call is counted, and told as such.
fn delivery(evidence: &Evidence, (id, call): (&str, Option<&Call>), verdict: &mut Verdict) {
    if !evidence.served.contains(id) {
        verdict.invented.push(format!("{id} (the seller never answered it)"));
        return;
    }
    match call {
        None => verdict.invented.push(format!("{id} (no client made it)")),
        Some(Call { status: Some(200..300), .. }) => {}
        Some(Call { status: Some(status), .. }) => {
            verdict.invented.push(format!("{id} (charged, and answered {status})"));
        }
        Some(call) if call.hung_up || call.disturbance == Disturbance::Violent => {}
        Some(_) => verdict.undelivered.push(id.to_owned()),
    }
}

/// Whether an account's books agree with the records, and sold what was bought.
fn books(
    evidence: &Evidence,
    (account, number): (&Account, usize),
    (charged, missing): (&Charged<'_>, &[&str]),
    verdict: &mut Verdict,
) {
    let Account { id, bought, run_off, books } = account;
    let charged = charged.account(id);
    let of_account = |call: &&Call| call.caller == number && matches!(call.status, Some(200..300));
    let received = evidence.calls.iter().filter(of_account).count() as u64;
    let held = books.leased + books.suspense;
    verdict.suspense += held;
    let sold = charged.max(received).max(books.settled + books.overrun);
    verdict.oversold += sold.saturating_sub(*bought);
    let mut fault = |text: String| verdict.faults.push(format!("account {number}: {text}; {books:?}"));
    if books.total != *bought {
        fault(format!("{bought} units were bought, {} are in the books", books.total));
    }
    let places = books.free + books.leased + books.settled + books.suspense + books.forfeited;
    if places != books.total {
        fault("its units do not stand in one place each".to_owned());
    }
    let booked = books.settled + books.overrun;
    if evidence.disk_lost {
        // The lost journal's calls are in the books as far as they were reported; what was not is in suspense, or still
        // leased to the gateway that is gone. It is not for sale, and that is all that can be promised.
        if booked < charged {
            fault(format!("{charged} units are charged by the journals that are left, {booked} are booked"));
        }
        let explained = usize::try_from((booked + held).saturating_sub(charged)).unwrap_or(usize::MAX);
        verdict.lost.extend(missing.iter().skip(explained).map(|id| (*id).to_owned()));
    } else {
        if booked != charged {
            fault(format!("{charged} units are charged by the journals, {booked} are booked"));
        }
        if held > 0 {
            fault(format!("{held} units are held although every journal is there"));
        }
        verdict.lost.extend(missing.iter().map(|id| (*id).to_owned()));
    }
    if *run_off {
        verdict.unsold += books.free;
    }
}

/// Whether each purchase that was confirmed is in the books, and none twice.
fn purchases(purchases: &Purchases, verdict: &mut Verdict) {
    let booked: BTreeSet<&String> = purchases.booked.iter().collect();
    if booked.len() < purchases.booked.len() {
        verdict.faults.push(format!("{} purchases are booked twice", purchases.booked.len() - booked.len()));
    }
    let missing: Vec<_> = purchases.confirmed.iter().filter(|command| !booked.contains(command)).collect();
    if !missing.is_empty() {
        verdict.faults.push(format!("{} confirmed purchases are not in the books: {missing:?}", missing.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round in which all is well: three calls of one account that bought three.
    fn well() -> Evidence {
        let call = |id: &str| Call {
            id: id.to_owned(),
            caller: 0,
            status: Some(200),
            waited: Duration::from_millis(5),
            disturbance: Disturbance::None,
            whole: true,
            hung_up: false,
        };
        Evidence {
            calls: vec![call("a"), call("b"), call("c")],
            served: ["a", "b", "c"].map(str::to_owned).into(),
            records: vec![record("a", 1), record("b", 1), record("c", 1)],
            accounts: vec![Account {
                id: "acme".to_owned(),
                bought: 3,
                run_off: true,
                books: Books { total: 3, settled: 3, ..Books::default() },
            }],
            purchases: Purchases { confirmed: vec!["p".to_owned()], booked: vec!["p".to_owned(), "q".to_owned()] },
            disk_lost: false,
            wait_max: Duration::from_millis(500),
        }
    }

    fn record(id: &str, units: u64) -> Value {
        serde_json::json!({ "request_id": id, "account": "acme", "units": units })
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Evidence), found: impl FnOnce(&Verdict) -> bool) {
        let mut evidence = well();
        change(&mut evidence);
        let verdict = judge(&evidence);
        assert!(found(&verdict) && !verdict.kept(), "{verdict:?}");
    }

    #[test]
    fn a_good_round_is_one() {
        let verdict = judge(&well());
        assert!(verdict.kept(), "{verdict}");
        assert_eq!((verdict.calls, verdict.received), (3, 3));
    }

    #[test]
    fn each_breach_is_found() {
        check(|round| round.records.truncate(2), |verdict| verdict.lost == ["c"]);
        check(|round| round.records.push(record("a", 1)), |verdict| verdict.doubled == ["a"]);
        check(|round| round.records[0] = record("a", 2), |verdict| verdict.doubled == ["a"]);
        check(|round| round.accounts[0].bought = 2, |verdict| verdict.oversold == 1);
        check(
            |round| round.accounts[0].books = Books { total: 3, settled: 3, overrun: 1, ..Books::default() },
            |verdict| verdict.oversold == 1,
        );
        check(|round| _ = round.served.remove("a"), |verdict| verdict.invented.len() == 1);
        check(|round| round.calls[0].status = Some(503), |verdict| verdict.invented.len() == 1);
        check(|round| _ = round.calls.remove(0), |verdict| verdict.invented.len() == 1);
        check(|round| round.calls[0].status = None, |verdict| verdict.undelivered == ["a"] && verdict.broken == ["a"]);
        check(|round| round.calls[0].whole = false, |verdict| verdict.broken == ["a"]);
        check(|round| round.calls[0].waited = Duration::from_secs(1), |verdict| verdict.hung.len() == 1);
        check(|round| round.calls.iter_mut().for_each(|call| call.status = None), |verdict| verdict.faults.len() == 1);
        check(|round| round.purchases.booked.clear(), |verdict| verdict.faults.len() == 1);
        check(|round| round.purchases.booked.push("p".to_owned()), |verdict| verdict.faults.len() == 1);
    }

    #[test]
    fn books_that_disagree_are_found() {
        let books = |books: Books| move |round: &mut Evidence| round.accounts[0].books = books;
        check(books(Books { total: 3, settled: 2, free: 1, ..Books::default() }), |verdict| verdict.unsold == 1);
        check(books(Books { total: 3, settled: 2, leased: 1, ..Books::default() }), |verdict| {
            verdict.faults.len() == 2
        });
        check(books(Books { total: 3, settled: 2, suspense: 1, ..Books::default() }), |verdict| verdict.suspense == 1);
        check(books(Books { total: 3, settled: 3, free: 1, ..Books::default() }), |verdict| verdict.unsold == 1);
        check(books(Books::default()), |verdict| verdict.faults.len() >= 2);
    }

    #[test]
    fn a_fault_explains_no_more_than_it_must() {
        let kept = |change: &dyn Fn(&mut Evidence)| {
            let mut round = well();
            change(&mut round);
            judge(&round).kept()
        };
        let unanswered = |disturbance, hung_up| {
            move |round: &mut Evidence| {
                let call = &mut round.calls[0];
                (call.status, call.disturbance, call.hung_up) = (None, disturbance, hung_up);
            }
        };
        assert!(kept(&unanswered(Disturbance::Violent, false)));
        assert!(!kept(&unanswered(Disturbance::Orderly, false)), "a stopping gateway answers what it has charged");
        assert!(!kept(&unanswered(Disturbance::Behind, false)), "one that was halted answers once it goes on");
        assert!(kept(&unanswered(Disturbance::None, true)));
        let late = |disturbance| {
            move |round: &mut Evidence| {
                (round.calls[0].waited, round.calls[0].disturbance) = (Duration::from_secs(1), disturbance);
            }
        };
        assert!(kept(&late(Disturbance::Behind)));
        assert!(!kept(&late(Disturbance::None)));
        let lost_disk = |books: Books| {
            move |round: &mut Evidence| {
                round.records.truncate(1);
                (round.disk_lost, round.accounts[0].books) = (true, books);
            }
        };
        assert!(kept(&lost_disk(Books { total: 3, settled: 2, suspense: 1, ..Books::default() })));
        assert!(kept(&lost_disk(Books { total: 3, settled: 1, leased: 2, ..Books::default() })));
        assert!(!kept(&lost_disk(Books { total: 3, settled: 1, suspense: 1, free: 1, ..Books::default() })));
        assert!(!kept(&lost_disk(Books { total: 3, leased: 3, ..Books::default() })), "what journals know is booked");
    }
}
