//! How a record and a file's header look in bytes, and the names of files. No files are opened here.
//!
//! A frame is the payload's length (u32, little endian), a CRC-32 over length and payload, and the payload: a record, or
//! a charge and behind it the end of the same call, in postcard's encoding. A length of zero never occurs, so zeros are
//! never a frame.

use super::payload::Payload;
use crate::ports::journal::Record;

/// The largest payload. Only a grant with hundreds of parts comes near.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024;
/// The largest frame.
pub(super) const FRAME_BYTES_MAX: usize = FRAME_HEAD + RECORD_BYTES_MAX;
/// Length and checksum.
const FRAME_HEAD: usize = 8;
/// The header's length.
pub(super) const HEADER_BYTES: usize = 20;
/// Grows when an older program could no longer read the files.
pub(super) const FORMAT_VERSION: u16 = 6;
/// From this version on each writer has a tail.
const TAIL_VERSION: u16 = 5;

const MAGIC: [u8; 8] = *b"tollgate";

/// Writes a frame at the start of a buffer and returns its length; `None` if it is too large.
pub(super) fn encode(record: &impl Payload, buffer: &mut [u8]) -> Option<usize> {
    let (head, rest) = buffer.split_first_chunk_mut::<FRAME_HEAD>()?;
    let room = rest.len().min(RECORD_BYTES_MAX);
    let size = record.write(rest.get_mut(..room)?)?;
    let length = u32::try_from(size).ok()?.to_le_bytes();
    let (first, second) = head.split_at_mut(length.len());
    first.copy_from_slice(&length);
    // Until the checksum over both is known, the length stands in its place, right before the payload: one pass over them.
    second.copy_from_slice(&length);
    let checksum = crc32fast::hash(buffer.get(length.len()..FRAME_HEAD + size)?);
    buffer.get_mut(length.len()..FRAME_HEAD)?.copy_from_slice(&checksum.to_le_bytes());
    Some(FRAME_HEAD + size)
}

/// The length of the frame that may stand at the start of some bytes.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let size = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    (size > 0 && size <= RECORD_BYTES_MAX).then_some(FRAME_HEAD + size)
}

/// How many zeros stand at the front. Most of an unfinished file is zeros: whole blocks are compared at once.
pub(super) fn zeros_in_front(bytes: &[u8]) -> usize {
    const BLOCK: [u8; 4096] = [0; 4096];
    let whole = bytes.chunks(BLOCK.len()).take_while(|chunk| BLOCK.starts_with(chunk));
    let blocks: usize = whole.map(<[u8]>::len).sum();
    let rest = bytes.get(blocks..).unwrap_or_default();
    blocks + rest.iter().take_while(|&&byte| byte == 0).count()
}

/// Reads the frame at the start of some bytes: its records and its length. `None`: there is no valid frame.
pub(super) fn decode(bytes: &[u8]) -> Option<(Vec<Record>, usize)> {
    let frame = bytes.get(..length(bytes)?)?;
    let mut unread = payload(frame)?;
    let mut records = Vec::with_capacity(1);
    while !unread.is_empty() {
        let (record, rest) = postcard::take_from_bytes(unread).ok()?;
        records.push(record);
        unread = rest;
    }
    Some((records, frame.len()))
}

/// Whether nothing of a frame was changed.
pub(super) fn is_whole(frame: &[u8]) -> bool {
    payload(frame).is_some()
}

/// What a frame holds, if its checksum is right.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let (length, rest) = frame.split_first_chunk::<4>()?;
    let (crc, payload) = rest.split_first_chunk::<4>()?;
    (checksum(*length, payload) == u32::from_le_bytes(*crc)).then_some(payload)
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// Which file of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId {
    /// Whose.
    pub(super) writer: u16,
    /// Counts the writer's files, from 1, without gaps.
    pub(super) sequence: u32,
}

impl FileId {
    /// The file's name in the run's directory.
    pub(super) fn name(self) -> String {
        format!("{:02}-{:06}.journal", self.writer, self.sequence)
    }

    /// The file that a name means; `None`: no journal file.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let (writer, sequence) = name.strip_suffix(".journal")?.split_once('-')?;
        Some(Self { writer: writer.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// The bytes that the file begins with.
    pub(super) fn header(self) -> [u8; HEADER_BYTES] {
        self.header_of(FORMAT_VERSION)
    }

    /// Whether a file of this program, or of an earlier version of it, begins so.
    pub(super) fn is_header(self, header: &[u8]) -> bool {
        (1..=FORMAT_VERSION).any(|version| header == self.header_of(version))
    }

    /// Whether its writer has a tail.
    pub(super) fn has_tail(self, header: &[u8]) -> bool {
        (TAIL_VERSION..=FORMAT_VERSION).any(|version| header == self.header_of(version))
    }

    /// Whether this header was written by a program too new for this one.
    pub(super) fn is_newer(self, header: &[u8]) -> bool {
        let version = header.get(MAGIC.len()..MAGIC.len() + 2).and_then(|bytes| bytes.try_into().ok());
        let version = version.map_or(0, u16::from_le_bytes);
        version > FORMAT_VERSION && header == self.header_of(version)
    }

    /// The same as a version wrote it.
    pub(super) fn header_of(self, version: u16) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let (text, crc) = header.split_at_mut(HEADER_BYTES - 4);
        let fields = [&MAGIC[..], &version.to_le_bytes(), &self.writer.to_le_bytes(), &self.sequence.to_le_bytes()];
        for (slot, byte) in text.iter_mut().zip(fields.into_iter().flatten()) {
            *slot = *byte;
        }
        crc.copy_from_slice(&crc32fast::hash(text).to_le_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::Units;
    use crate::domain::id::{AccountId, AppId, KeyId, PackageId, ProductId};
    use crate::domain::lease::LeasePart;
    use crate::domain::usage::{CallFacts, CallerRef, Charge, ChargePart, Ending, UnitClass};
    use crate::ports::journal::{CallEnd, Grant};

    #[test]
    fn a_file_reads_back_from_its_name() {
        for (writer, sequence) in [(0, 1), (99, 999_999), (100, 1_000_000), (u16::MAX, u32::MAX)] {
            let it = FileId { writer, sequence };
            assert_eq!(FileId::from_name(&it.name()), Some(it));
        }
        for bad in ["run.json", "settled", "00.journal", "x-1.journal", "00-000001.journal.new", "70000-1.journal"] {
            assert_eq!(FileId::from_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_a_whole_header_with_a_higher_version_is_newer() {
        let id = FileId { writer: 3, sequence: 4 };
        assert!(!id.is_newer(&id.header()) && !id.is_newer(&id.header_of(1)));
        assert!(id.is_header(&id.header()) && id.is_header(&id.header_of(1)));
        assert!(!id.is_header(&id.header_of(FORMAT_VERSION + 1)) && !id.is_header(&[0; HEADER_BYTES]));
        let newer = id.header_of(FORMAT_VERSION + 1);
        assert!(id.is_newer(&newer));
        for at in 0..newer.len() {
            let mut flipped = newer;
            flipped[at] ^= 0x40;
            assert!(!id.is_newer(&flipped), "byte {at}");
        }
    }

    // Frames as version 0.1.0 wrote them, out of a journal of its demo.
    const EARLIER_GRANT: &str = "3f0000002f565d750015616363742d637572697579356336646b6c733773620464656d6f020114706b672d616d\
        37357973663666337476616b746c0a0000d6c9b9b00da885b837";
    const EARLIER_CHARGE: &str = "790000003d864e3601022032303234373832333065653462383464303030303030303030303030303030329ac9\
        b9b00dd2f9963715616363742d637572697579356336646b6c7337736201146b65792d65747a667971356e6862\
        3676713663370464656d6f010214706b672d616d37357973663666337476616b746c01c8010101";
    const EARLIER_END: &str = "0e0000002cdac1d8020200019ac9b9b00d9ac599e004";

    fn decoded(hex: &str) -> Record {
        let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect();
        let (mut records, length) = decode(&bytes).unwrap();
        assert_eq!((records.len(), length), (1, bytes.len()));
        records.remove(0)
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let account = AccountId::new("acct-curiuy5c6dkls7sb").unwrap();
        let (product, package) = (ProductId::new("demo").unwrap(), PackageId::new("pkg-am75ysf6f3tvaktl").unwrap());
        let grant = Grant {
            account: account.clone(),
            product: product.clone(),
            number: 2,
            parts: vec![LeasePart::new(package.clone(), Units::new(10))],
            deadline: "2026-11-25T19:09:31.058130772Z".parse().unwrap(),
            terms: Vec::new(),
        };
        assert_eq!(decoded(EARLIER_GRANT), Record::Grant(grant));
        let charge = Charge {
            call: 2,
            request_id: "202478230ee4b84d0000000000000002".to_owned(),
            arrived: "2026-11-25T19:09:01.057859689Z".parse().unwrap(),
            account,
            caller: Some(CallerRef::Key(KeyId::new("key-etzfyq5nhb6vq6c7").unwrap())),
            product,
            parts: vec![ChargePart { lease: 2, package, class: UnitClass::Calls, units: Units::ONE }],
            status: 200,
            streamed: true,
            attempts: 1,
            facts: CallFacts::default(),
        };
        assert_eq!(decoded(EARLIER_CHARGE), Record::Charge(charge));
        let at = "2026-11-25T19:09:01.637743437Z".parse().unwrap();
        assert_eq!(decoded(EARLIER_END), Record::End(CallEnd { call: 2, ending: Ending::Complete, billed: true, at }));
    }

    /// What is in files stays readable: a kind of caller keeps its number.
    #[test]
    fn a_call_of_an_app_keeps_its_form() {
        let charge = Charge {
            call: 2,
            request_id: "r-1".to_owned(),
            arrived: "2026-11-25T19:09:01.057859689Z".parse().unwrap(),
            account: AccountId::new("a-1").unwrap(),
            caller: Some(CallerRef::App(AppId::new("app-1").unwrap())),
            product: ProductId::new("api").unwrap(),
            parts: Vec::new(),
            status: 200,
            streamed: false,
            attempts: 1,
            facts: CallFacts::default(),
        };
        let mut buffer = [0; 128];
        let length = encode(&Record::Charge(charge.clone()), &mut buffer).unwrap();
        let named = b"\x03a-1\x01\x01\x05app-1\x03api"; // an option, and the second kind in it
        assert!(buffer[..length].windows(named.len()).any(|bytes| bytes == named), "{:02x?}", &buffer[..length]);
        assert_eq!(decode(&buffer), Some((vec![Record::Charge(charge)], length)));
    }

    #[test]
    fn a_frame_needs_every_one_of_its_bits() {
        let at = "2026-11-22T10:00:00.123456789Z".parse().unwrap();
        let record = Record::End(CallEnd { call: 300, ending: Ending::ClientGone, billed: true, at });
        let mut buffer = [0; 128];
        let length = encode(&record, &mut buffer).unwrap();
        assert_eq!(decode(&buffer), Some((vec![record], length)));
        for bit in 0..length * 8 {
            let mut flipped = buffer;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(decode(&buffer[..length - 1]), None);
        assert_eq!(decode(&[0; 64]), None);
    }
}
