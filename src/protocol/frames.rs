//! Follows the frames that an HTTP/2 client sends (RFC 9113 section 4.1) as far as one must to know whether a head is
//! under way, and whether the client sends little else than what costs it nothing. Frames are not checked: the engine does.

use std::time::{Duration, Instant};

/// What a connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame's own head, in bytes.
const FRAME_HEAD_BYTES: usize = 9;
/// For so long what control frames cost is added up.
const WINDOW: Duration = Duration::from_secs(10);
/// What control frames may cost in that time: 1,000 of most kinds, 10,000 pings.
const COST_MAX: u32 = 10_000;
const COST: u32 = 10;
const COST_PING: u32 = 1;

/// The client sends little else than what costs it nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many control frames")]
pub struct Flood;

/// Where in the bytes of a connection one is.
#[derive(Debug)]
pub struct FrameFollower {
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    /// What is still to come of the frame's content.
    left: usize,
    /// Whether that content is DATA.
    data: bool,
    /// Whether the head of a request has begun and not ended.
    in_head: bool,
    cost: u32,
    since: Instant,
}

impl FrameFollower {
    /// Before the preface.
    pub fn new(now: Instant) -> Self {
        Self {
            head: [0; FRAME_HEAD_BYTES],
            head_bytes: 0,
            left: PREFACE.len(),
            data: false,
            in_head: false,
            cost: 0,
            since: now,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Flood`]: the connection is not worth serving.
    pub fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = self.left.min(bytes.len());
                self.left -= here;
                bytes = bytes.get(here..).unwrap_or_default();
                continue;
            }
            for (place, byte) in self.head.iter_mut().skip(self.head_bytes).zip(bytes) {
                *place = *byte;
            }
            let here = (FRAME_HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head_bytes += here;
            bytes = bytes.get(here..).unwrap_or_default();
            if self.head_bytes == FRAME_HEAD_BYTES {
                self.head_bytes = 0;
                self.begin(now)?;
            }
        }
        Ok(())
    }

    /// Whether a frame other than DATA, or a request's head, has begun and not ended.
    pub fn is_within_head(&self) -> bool {
        self.in_head || self.head_bytes > 0 || (self.left > 0 && !self.data)
    }

    fn begin(&mut self, now: Instant) -> Result<(), Flood> {
        const END_STREAM: u8 = 1;
        const END_HEADERS: u8 = 4;
        let [high, middle, low, kind, flags, ..] = self.head;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.data = kind == 0;
        let cost = match kind {
            0 if self.left == 0 && flags & END_STREAM == 0 => COST,
            0 | 8 => 0, // DATA, and WINDOW_UPDATE: as many as there is DATA
            1 => {
                self.in_head = flags & END_HEADERS == 0;
                0
            }
            6 => COST_PING, // some clients measure with them
            9 => {
                self.in_head &= flags & END_HEADERS == 0;
                COST
            }
            _ => COST, // PRIORITY, RST_STREAM, SETTINGS, and what is not known
        };
        if cost > 0 && now.saturating_duration_since(self.since) >= WINDOW {
            (self.since, self.cost) = (now, 0);
        }
        self.cost = self.cost.saturating_add(cost);
        if self.cost > COST_MAX { Err(Flood) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], content].concat()
    }

    /// Feeds in pieces of this size; tells for each byte whether a head was under way after it.
    fn follow(bytes: &[u8], size: usize) -> Vec<bool> {
        let now = Instant::now();
        let mut follower = FrameFollower::new(now);
        let mut within = Vec::new();
        for piece in bytes.chunks(size) {
            follower.feed(piece, now).unwrap();
            within.extend(std::iter::repeat_n(follower.is_within_head(), piece.len()));
        }
        within
    }

    #[test]
    fn heads_begin_and_end_wherever_the_bytes_are_cut() {
        let frames = [frame(1, 0, b"abc"), frame(9, 4, b"de"), frame(0, 1, &[7; 300]), frame(8, 0, &[0; 4])];
        let bytes = [PREFACE.to_vec(), frames.concat()].concat();
        let within = follow(&bytes, 1);
        let mut clean: Vec<usize> = Vec::new();
        clean.extend((0..bytes.len()).filter(|at| !within[*at]));
        let preface = PREFACE.len() - 1;
        let head = preface + 12 + 11;
        // After the preface, after the head's end, and all through DATA but for its own head.
        let data: Vec<usize> = (head + 9..=head + 309).collect();
        assert_eq!(clean, [vec![preface, head], data, vec![bytes.len() - 1]].concat());
        for size in [2, 7, 64, bytes.len()] {
            assert_eq!(follow(&bytes, size).last(), Some(&false));
        }
    }

    #[test]
    fn control_frames_are_few_in_any_ten_seconds() {
        let count = |kind, flags, content: &[u8], after: Duration| {
            let mut now = Instant::now();
            let mut follower = FrameFollower::new(now);
            follower.feed(PREFACE, now).unwrap();
            let mut sent = 0;
            while sent < 30_000 && follower.feed(&frame(kind, flags, content), now).is_ok() {
                (sent, now) = (sent + 1, now + after);
            }
            sent
        };
        let at_once = Duration::ZERO;
        assert_eq!(count(3, 0, &[0; 4], at_once), 1_000);
        assert_eq!(count(4, 0, b"", at_once), 1_000);
        assert_eq!(count(2, 0, &[0; 5], at_once), 1_000);
        assert_eq!(count(9, 0, b"x", at_once), 1_000);
        assert_eq!(count(0xbe, 0, b"", at_once), 1_000);
        assert_eq!(count(0, 0, b"", at_once), 1_000);
        assert_eq!(count(6, 0, &[0; 8], at_once), 10_000);
        assert_eq!(count(3, 0, &[0; 4], Duration::from_millis(11)), 30_000);
        for (kind, flags, content) in [(0, 0, &b"x"[..]), (0, 1, b""), (8, 0, &[0; 4]), (1, 4, b"x")] {
            assert_eq!(count(kind, flags, content, at_once), 30_000, "{kind}");
        }
    }
}
