//! Writes of a few small pieces. An engine hands a head and a short body, or an event and its frame, over as pieces; one
//! copy of them costs less than what the kernel does for each piece.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Above this many bytes a copy costs more than it saves.
const JOINED_BYTES_MAX: usize = 4 * 1024;

/// Writes pieces, small ones as one. May take less than all of them, as any write may.
pub fn poll_write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    match pieces {
        [piece] => Pin::new(stream).poll_write(cx, piece),
        _ if bytes <= JOINED_BYTES_MAX => {
            let mut joined = Vec::with_capacity(bytes);
            pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
            Pin::new(stream).poll_write(cx, &joined)
        }
        _ => Pin::new(stream).poll_write_vectored(cx, pieces),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what it is given, and notes each write.
    #[derive(Default)]
    struct Noted {
        plain: Vec<usize>,
        vectored: Vec<usize>,
        all: Vec<u8>,
    }

    impl AsyncWrite for Noted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.plain.push(bytes.len());
            self.all.extend(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.vectored.push(pieces.len());
            pieces.iter().for_each(|piece| self.all.extend(&**piece));
            Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn small_pieces_are_one_write_and_large_ones_are_not_copied() {
        let half = JOINED_BYTES_MAX / 2;
        for (sizes, plain, vectored) in [
            (vec![4, 235, 2], vec![241], vec![]),
            (vec![half, half], vec![2 * half], vec![]),
            (vec![half, half + 1], vec![], vec![2]),
            (vec![JOINED_BYTES_MAX + 1], vec![JOINED_BYTES_MAX + 1], vec![]),
            (vec![0, 5, 0], vec![5], vec![]),
        ] {
            let parts: Vec<Vec<u8>> = sizes.iter().zip(1..).map(|(size, byte)| vec![byte; *size]).collect();
            let pieces: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut noted = Noted::default();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let Poll::Ready(Ok(written)) = poll_write(&mut noted, &mut cx, &pieces) else { panic!("{sizes:?}") };
            assert_eq!((noted.plain, noted.vectored), (plain, vectored), "{sizes:?}");
            assert_eq!(written, noted.all.len());
            assert_eq!(noted.all, parts.concat());
        }
    }
}
