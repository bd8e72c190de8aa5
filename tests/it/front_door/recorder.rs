//! A seller that keeps every byte it is sent, reads them with the reference reader, and answers each whole request
//! with its `X-Case`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::reference::{Read, Request, read};

/// What the seller got on all its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// Whole requests, and of how many bytes.
    pub(crate) whole: Vec<(Request, usize)>,
    /// What stood at a connection's end without being a whole request.
    pub(crate) cut: Vec<Vec<u8>>,
    /// What was no request.
    pub(crate) malformed: Vec<(&'static str, Vec<u8>)>,
    open: usize,
}

/// The recording seller.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    record: Arc<Mutex<Record>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Mutex::new(Record::default()));
        let shared = Arc::clone(&record);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().open += 1;
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, record, accepting }
    }

    /// All that was sent, once the gateway has ended its last connection.
    pub(crate) async fn closed(&self) -> Record {
        let quiet = async || {
            let record = self.record.lock().unwrap();
            (record.open == 0).then(|| record.clone())
        };
        crate::harness::until("the gateway ends its connections to the seller", quiet).await
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, record: Arc<Mutex<Record>>) {
    let mut held = Vec::new();
    let malformed = loop {
        match read(&held) {
            Read::Whole(request, used) => {
                held.drain(..used);
                let answer = answer(&request);
                record.lock().unwrap().whole.push((request, used));
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break None;
                }
                continue;
            }
            Read::Malformed(why) => break Some(why),
            Read::Partial => {}
        }
        held.reserve(64 << 10);
        match stream.read_buf(&mut held).await {
            Ok(0) | Err(_) => break None,
            Ok(_) => {}
        }
    };
    let mut record = record.lock().unwrap();
    record.open -= 1;
    match malformed {
        Some(why) => record.malformed.push((why, held)),
        None if !held.is_empty() => record.cut.push(held),
        None => {}
    }
}

fn answer(request: &Request) -> String {
    let body = format!("{{\"case\":{:?}}}", request.get("x-case").unwrap_or_default());
    let length = body.len();
    let body = if request.method == "HEAD" { "" } else { &body };
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}
