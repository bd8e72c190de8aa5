//! A request's body as its client sends it. Of an HTTP/2 stream, what is still to come when nobody reads it any more is
//! read and thrown away for a moment before the stream is reset: many clients send their body to its end before they
//! look at the answer, and lose it, or wait for ever, if the stream ends under them. HTTP/1's connections linger in the
//! gate.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::server::Core;

/// How much of a body that nobody reads any more an HTTP/2 client may still send.
const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// For how long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A request's body.
pub struct ClientBody {
    /// Until it is dropped.
    incoming: Option<Incoming>,
    /// Takes what is left of a stream's body.
    core: Option<Rc<Core>>,
}

impl ClientBody {
    /// A body of an HTTP/1 connection.
    pub fn of_connection(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), core: None }
    }

    /// A body of an HTTP/2 stream.
    pub fn of_stream(incoming: Incoming, core: &Rc<Core>) -> Self {
        Self { incoming: Some(incoming), core: Some(Rc::clone(core)) }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.incoming.as_mut().map_or(Poll::Ready(None), |incoming| Pin::new(incoming).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl std::fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBody").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if let (Some(core), Some(incoming)) = (&self.core, self.incoming.take())
            && !incoming.is_end_stream()
        {
            core.throw_away(incoming);
        }
    }
}

/// Reads the rest of a body to nowhere, for a moment.
pub async fn throw_away(mut incoming: Incoming) {
    let rest = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = incoming.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await; // then the stream is reset
}
