//! Makes the ids of requests whose client sent none.

use std::cell::Cell;

use http::HeaderValue;

/// How many digits of an id count the requests; those before them are the run's and the core's.
const COUNTING_DIGITS: usize = 12;

/// The ids that one core gives: 32 hexadecimal digits, as APIG's are, which no other request of ours has.
#[derive(Debug)]
pub struct RequestIds {
    /// The last that was given. Counted on in digits: nothing is formatted.
    last: Cell<[u8; 32]>,
}

impl RequestIds {
    /// Ids that begin with the run and the core.
    pub fn new(run_id: u64, core: u16) -> Self {
        let mut last = [b'0'; 32];
        let prefix = format!("{run_id:016x}{core:04x}");
        last.iter_mut().zip(prefix.bytes()).for_each(|(to, from)| *to = from);
        Self { last: Cell::new(last) }
    }

    /// One that was not given before.
    pub fn next(&self) -> HeaderValue {
        let mut id = self.last.get();
        for digit in id.iter_mut().rev().take(COUNTING_DIGITS) {
            *digit = match *digit {
                b'9' => b'a',
                b'f' => b'0',
                digit => digit.wrapping_add(1),
            };
            if *digit != b'0' {
                break; // nothing to carry
            }
        }
        self.last.set(id);
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("")) // hexadecimal digits are fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_in_hexadecimal_behind_the_run_and_the_core() {
        let ids = RequestIds::new(0x1f, 0xa0);
        for number in 1..5_000 {
            assert_eq!(ids.next(), format!("000000000000001f00a0{number:012x}").as_str());
        }
        ids.last.set(*b"000000000000001f00a0ffffffffffff");
        assert_eq!(ids.next(), "000000000000001f00a0000000000000", "the run and the core stay");
    }
}
