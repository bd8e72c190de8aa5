//! How a record is written, in postcard's encoding; it is read by postcard. Charges and their ends are written by hand: each
//! call writes both, and serde's way was a fifth of the instructions that metering adds to a call.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::allocation::Allocation;
use crate::domain::usage::{CallerRef, Ending, Exactness, LentCharge, UnitClass};
use crate::ports::journal::{CallEnd, Record, form};

/// What can stand in a frame.
pub(super) trait Payload {
    /// Writes it at the start of a buffer and returns its length; `None` if it does not fit.
    fn write(&self, to: &mut [u8]) -> Option<usize>;
}

impl Payload for Record {
    fn write(&self, to: &mut [u8]) -> Option<usize> {
        match self {
            Self::Charge(charge) => charge.lend().write(to),
            Self::End(end) => end.write(to),
            Self::Grant(grant) => by_serde(form::GRANT, grant, to),
            Self::Close => by_serde(form::CLOSE, &(), to),
            Self::Ask(ask) => by_serde(form::ASK, ask, to),
            Self::Command(command) => by_serde(form::COMMAND, command, to),
            Self::Refused(refused) => by_serde(form::REFUSED, refused, to),
        }
    }
}

fn by_serde(form: u8, record: &impl Serialize, to: &mut [u8]) -> Option<usize> {
    postcard::to_slice(&(form, record), to).ok().map(|bytes| bytes.len())
}

impl Payload for LentCharge<'_> {
    fn write(&self, to: &mut [u8]) -> Option<usize> {
        let mut out = Output { to, length: 0 };
        out.byte(form::CHARGE)?;
        out.number(self.call)?;
        out.text(self.request_id)?;
        out.moment(self.arrived)?;
        out.text(self.account.as_str())?;
        match self.caller {
            None => out.byte(0)?,
            Some(CallerRef::Key(key)) => out.named(0, key.as_str())?,
            Some(CallerRef::App(app)) => out.named(1, app.as_str())?,
        }
        out.text(self.product.as_str())?;
        out.size(self.parts.len())?;
        for part in self.parts {
            out.number(part.lease)?;
            out.text(part.package.as_str())?;
            out.byte(match part.class {
                UnitClass::Calls => 0,
            })?;
            out.number(part.units.get())?;
        }
        out.number(self.status.into())?;
        out.byte(self.streamed.into())?;
        out.byte(self.attempts)?;
        out.maybe(self.facts.sellers_model.as_deref())?;
        out.maybe(self.facts.model.as_deref())?;
        out.allocation(self.facts.allocation)?;
        out.maybe(self.facts.end_user)?;
        out.byte(match self.facts.exactness {
            Exactness::Estimated => 0,
            Exactness::Exact => 1,
        })?;
        Some(out.length)
    }
}

/// A charge, and the call's end if it is known: then one frame has both.
impl Payload for (LentCharge<'_>, Option<CallEnd>) {
    fn write(&self, to: &mut [u8]) -> Option<usize> {
        let (charge, end) = self;
        let length = charge.write(to)?;
        let Some(end) = end else { return Some(length) };
        Some(length + end.write(to.get_mut(length..)?)?)
    }
}

impl Payload for CallEnd {
    fn write(&self, to: &mut [u8]) -> Option<usize> {
        let mut out = Output { to, length: 0 };
        out.byte(form::END)?;
        out.number(self.call)?;
        out.byte(match self.ending {
            Ending::Complete => 0,
            Ending::ClientGone => 1,
            Ending::SellerBroke => 2,
            Ending::TimedOut => 3,
            Ending::Interrupted => 4,
        })?;
        out.byte(self.billed.into())?;
        out.moment(self.at)?;
        Some(out.length)
    }
}

/// A buffer that is filled from its start; `None`: it is too small. What writes more than a byte is not inlined: of what
/// runs once in a call the length counts, as it is fetched anew each time.
struct Output<'a> {
    to: &'a mut [u8],
    length: usize,
}

impl Output<'_> {
    fn byte(&mut self, byte: u8) -> Option<()> {
        *self.to.get_mut(self.length)? = byte;
        self.length += 1;
        Some(())
    }

    /// Seven bits a byte, the lowest first.
    #[inline(never)]
    fn number(&mut self, mut number: u64) -> Option<()> {
        while number > 0x7f {
            self.byte(number.to_le_bytes()[0] | 0x80)?;
            number >>= 7;
        }
        self.byte(number.to_le_bytes()[0])
    }

    fn size(&mut self, size: usize) -> Option<()> {
        match u8::try_from(size) {
            Ok(size @ 0..=0x7f) => self.byte(size),
            Ok(_) | Err(_) => self.number(u64::try_from(size).ok()?),
        }
    }

    /// The sign in the lowest bit.
    fn signed(&mut self, number: i64) -> Option<()> {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned())
    }

    /// As `domain::moment` has it.
    #[inline(never)]
    fn moment(&mut self, moment: Timestamp) -> Option<()> {
        self.signed(moment.as_second())?;
        self.signed(moment.subsec_nanosecond().into())
    }

    #[inline(never)]
    fn text(&mut self, text: &str) -> Option<()> {
        self.size(text.len())?;
        let end = self.length + text.len();
        self.to.get_mut(self.length..end)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Some(())
    }

    #[inline(never)]
    fn maybe(&mut self, text: Option<&str>) -> Option<()> {
        self.byte(text.is_some().into())?;
        text.map_or(Some(()), |text| self.text(text))
    }

    /// Something that is there, of a kind.
    fn named(&mut self, kind: u8, name: &str) -> Option<()> {
        self.byte(1)?;
        self.byte(kind)?;
        self.text(name)
    }

    fn allocation(&mut self, allocation: &Allocation) -> Option<()> {
        self.text(allocation.project.as_str())?;
        self.size(allocation.tags.len())?;
        for (name, value) in allocation.tags.iter() {
            self.text(name)?;
            self.text(value)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::allocation::Tags;
    use crate::domain::amount::Units;
    use crate::domain::id::{AccountId, AppId, KeyId, PackageId, ProductId, ProjectId};
    use crate::domain::usage::{CallFacts, Charge, ChargePart};
    use crate::ports::journal::CALL_BYTES_MAX;

    /// Numbers around the edges of their lengths.
    fn number() -> impl Strategy<Value = u64> {
        (0_u32..64, any::<u64>()).prop_map(|(shift, number)| number >> shift)
    }

    fn moment() -> impl Strategy<Value = Timestamp> {
        let (first, last) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
        let any = (first..=last, -999_999_999..=999_999_999_i32);
        let any =
            any.prop_filter_map("both have one sign", |(second, nanosecond)| Timestamp::new(second, nanosecond).ok());
        prop_oneof![any, Just(Timestamp::MIN), Just(Timestamp::MAX), Just(Timestamp::UNIX_EPOCH)]
    }

    const ID: &str = "[a-z][a-z0-9]{0,63}";

    fn caller() -> impl Strategy<Value = Option<CallerRef>> {
        prop_oneof![
            Just(None),
            ID.prop_map(|id| Some(CallerRef::Key(KeyId::new(&id).unwrap()))),
            ID.prop_map(|id| Some(CallerRef::App(AppId::new(&id).unwrap()))),
        ]
    }

    fn parts() -> impl Strategy<Value = Vec<ChargePart>> {
        let part = (number(), ID, number()).prop_map(|(lease, package, units)| {
            let (package, class) = (PackageId::new(&package).unwrap(), UnitClass::Calls);
            ChargePart { lease, package, class, units: Units::new(units) }
        });
        proptest::collection::vec(part, 0..4)
    }

    fn facts() -> impl Strategy<Value = CallFacts> {
        let text = || proptest::option::of("\\PC{0,200}".prop_map(Arc::<str>::from));
        let tags = proptest::collection::btree_map("[a-z]{1,8}", "\\PC{0,8}", 0..4);
        let tags = tags.prop_map(|tags: BTreeMap<String, String>| Tags::new(tags).unwrap());
        let allocation =
            (ID, tags).prop_map(|(project, tags)| Allocation { project: ProjectId::new(&project).unwrap(), tags });
        let exactness = prop_oneof![Just(Exactness::Exact), Just(Exactness::Estimated)];
        (text(), text(), allocation, text(), exactness).prop_map(
            |(sellers_model, model, allocation, end_user, exactness)| CallFacts {
                sellers_model,
                model,
                allocation: Arc::new(allocation),
                end_user,
                exactness,
            },
        )
    }

    fn charge() -> impl Strategy<Value = Charge> {
        let ids = (ID, caller(), ID);
        let answer = (any::<u16>(), any::<bool>(), any::<u8>());
        (number(), "[!-~]{0,128}", moment(), ids, parts(), answer, facts()).prop_map(
            |(call, request_id, arrived, (account, caller, product), parts, (status, streamed, attempts), facts)| {
                Charge {
                    call,
                    request_id,
                    arrived,
                    account: AccountId::new(&account).unwrap(),
                    caller,
                    product: ProductId::new(&product).unwrap(),
                    parts,
                    status,
                    streamed,
                    attempts,
                    facts,
                }
            },
        )
    }

    fn end() -> impl Strategy<Value = CallEnd> {
        let ending = (0..Ending::ALL.len()).prop_map(|index| Ending::ALL[index]);
        (number(), ending, any::<bool>(), moment()).prop_map(|(call, ending, billed, at)| CallEnd {
            call,
            ending,
            billed,
            at,
        })
    }

    /// The records read back from just the bytes that were written, and nothing is written into less room.
    fn check(written: &impl Payload, records: &[Record]) -> Result<(), TestCaseError> {
        let mut buffer = vec![0; 2 * CALL_BYTES_MAX];
        let length = written.write(&mut buffer).unwrap();
        let mut unread = &buffer[..length];
        for record in records {
            let (read, rest) = postcard::take_from_bytes::<Record>(unread).unwrap();
            prop_assert_eq!(&read, record);
            unread = rest;
        }
        prop_assert_eq!(unread.len(), 0);
        for room in 0..length {
            prop_assert_eq!(written.write(&mut buffer[..room]), None, "{} bytes", room);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_charge_reads_back_as_it_was(charge in charge()) {
            check(&(charge.lend(), None), &[Record::Charge(charge.clone())])?;
        }

        #[test]
        fn an_end_stands_behind_its_charge(charge in charge(), end in end()) {
            check(&(charge.lend(), Some(end)), &[Record::Charge(charge.clone()), Record::End(end)])?;
        }

        #[test]
        fn an_end_reads_back_as_it_was(end in end()) {
            check(&end, &[Record::End(end)])?;
        }
    }
}
