//! The life of a call in a gateway: admitted on a lease, charged when the seller has answered, ended or taken back.

use super::Safeguard;
use super::run::{Call, State};
use super::store::moment;
use super::world::{Checked, World};
use crate::domain::amount::Units;
use crate::domain::usage::{CallFacts, Charge, ChargePart, Ending, UnitClass};
use crate::ports::journal::{CallEnd, Record};

impl World {
    /// Admits up to `calls` calls; returns how many found a unit.
    pub(super) fn admit(&mut self, run: usize, product: usize, calls: u64) -> Result<u64, String> {
        let now = self.now;
        if self.runs[run].state != State::Serving || !self.runs[run].acts(now) {
            return Ok(0);
        }
        let mut admitted = 0;
        while admitted < calls {
            let side = &mut self.runs[run].sides[product];
            let usable = side.leases.iter_mut().filter(|(_, held)| !held.retired && now < held.admits_until);
            let mut parts = usable.flat_map(|(number, held)| {
                let lawful = held.lawful_until.clone();
                held.parts.iter_mut().zip(lawful).enumerate().map(move |part| (*number, part))
            });
            let Some((lease, (index, (part, lawful)))) = parts.find(|(_, (_, (part, _)))| part.left > 0) else { break };
            if now >= lawful {
                return Err(format!("oversold: a unit of {} after its end", part.package));
            }
            part.left -= 1;
            let package = part.package.clone();
            self.truth.take(&package)?;
            self.runs[run].calls.push(Call { product, lease, part: index, package, charged: None });
            admitted += 1;
        }
        self.counts.calls += admitted;
        self.say(|| format!("run {run} admits {admitted} of {calls} calls to {product}"));
        Ok(admitted)
    }

    /// The sellers of some calls have answered: they are charged, and the heads go to the clients.
    pub(super) fn charge(&mut self, run: usize, calls: usize) -> Checked {
        let open: Vec<usize> =
            (0..self.runs[run].calls.len()).filter(|at| self.runs[run].calls[*at].charged.is_none()).collect();
        self.say(|| format!("run {run} charges {} calls", calls.min(open.len())));
        for at in open.into_iter().take(calls) {
            self.runs[run].last_call += 1;
            let number = self.runs[run].last_call;
            self.runs[run].calls[at].charged = Some(number);
            if self.without != Some(Safeguard::Journal) {
                self.write_charge(run, at)?;
            }
            let package = self.runs[run].calls[at].package.clone();
            self.truth.of(&package)?.received += 1;
        }
        Ok(())
    }

    /// Writes a call's charge into the journal.
    pub(super) fn write_charge(&mut self, run: usize, at: usize) -> Checked {
        let (account, product) = (self.account.clone(), self.products[self.runs[run].calls[at].product].clone());
        let arrived = moment(self.now);
        let this = &mut self.runs[run];
        let call = &this.calls[at];
        let (class, units) = (UnitClass::Calls, Units::ONE);
        let part = ChargePart { lease: call.lease, package: call.package.clone(), class, units };
        self.truth.of(&call.package)?.written += 1;
        this.records.push(Record::Charge(Charge {
            call: call.charged.unwrap_or(0),
            request_id: String::new(),
            arrived,
            account,
            caller: None,
            product,
            parts: vec![part],
            status: 200,
            streamed: false,
            attempts: 1,
            facts: CallFacts::default(),
        }));
        Ok(())
    }

    /// Ends a call. A charge stands if it is `billed`; a call that was never charged costs nothing.
    pub(super) fn end(&mut self, run: usize, at: usize, billed: bool) -> Checked {
        let explained = self.rng.percent(70); // the end of a call that counts anyway may be written too late
        if self.without == Some(Safeguard::Journal) && billed && self.runs[run].calls[at].charged.is_some() {
            self.write_charge(run, at)?;
        }
        let call = self.runs[run].calls.swap_remove(at);
        let this = &mut self.runs[run];
        let held = this.sides[call.product].leases.get_mut(&call.lease);
        let part = held.and_then(|held| held.parts.get_mut(call.part)).ok_or("a call without a lease")?;
        let sold = self.truth.of(&call.package)?;
        let end = |call| Record::End(CallEnd { call, ending: Ending::Complete, billed, at: moment(0) });
        match call.charged {
            Some(number) if billed => {
                part.used += 1;
                if explained {
                    this.records.push(end(number));
                }
            }
            Some(number) => {
                sold.received -= 1;
                if self.without != Some(Safeguard::Journal) {
                    sold.written -= 1;
                    this.records.push(end(number));
                }
                sold.taken -= 1;
                part.left += 1;
            }
            None => {
                sold.taken -= 1;
                part.left += 1;
            }
        }
        self.say(|| format!("run {run} ends a call on {}: {:?}, billed {billed}", call.package, call.charged));
        Ok(())
    }

    /// What becomes of open calls when their process dies. Some heads were written down and never sent.
    pub(super) fn drop_calls(&mut self, run: usize) -> Checked {
        for at in 0..self.runs[run].calls.len() {
            let call = &self.runs[run].calls[at];
            if call.charged.is_some() {
                continue;
            }
            if self.without != Some(Safeguard::Journal) && self.rng.percent(20) {
                self.runs[run].last_call += 1;
                self.runs[run].calls[at].charged = Some(self.runs[run].last_call);
                self.write_charge(run, at)?;
            } else {
                self.truth.of(&call.package)?.taken -= 1;
            }
        }
        self.runs[run].calls.clear();
        Ok(())
    }
}
