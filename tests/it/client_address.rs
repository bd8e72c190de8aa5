//! Where calls come from: only proxies that are trusted can say so, in a header or before a connection's first byte.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::{Client, Request};
use crate::harness::seller::Seller;
use crate::harness::until;
use crate::harness::wire::End;
use crate::harness::world::World;

/// A gateway before a seller. The tests' own address, 127.0.0.1, is a trusted proxy's if `trusted` says so.
async fn world(seller: &Seller, trusted: &[&str], header: &str, proxy_protocol: bool) -> World {
    World::with(seller.address, |config| {
        config["proxies"] = json!({ "trusted": trusted, "header": header, "proxy_protocol": proxy_protocol });
        config["limits"]["head_timeout"] = json!("1s");
        config["log"]["access"] = json!("stdout");
    })
    .await
}

/// The client as the seller was told last.
fn told(seller: &Seller) -> String {
    let requests = seller.requests();
    let head = &requests.last().unwrap().head;
    assert_eq!(head.all("forwarded"), Vec::<&str>::new());
    head.get("x-forwarded-for").unwrap().to_owned()
}

const LOCAL: &[&str] = &["127.0.0.0/8", "10.0.0.0/8"];

#[tokio::test]
async fn a_client_that_is_no_trusted_proxy_cannot_choose_its_address() {
    let seller = Seller::plain().await;
    let world = world(&seller, &["10.0.0.0/8"], "x-forwarded-for", true).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let chat = Request::chat(&buyer.key);
    for request in [
        chat.clone(),
        chat.clone().field("X-Forwarded-For", "192.0.2.9"),
        chat.clone().field("X-Forwarded-For", "rubbish"),
        chat.clone().field("Forwarded", "for=192.0.2.9"),
        chat.clone().field("X-Real-IP", "192.0.2.9"),
    ] {
        world.call(&request).await.expect(200);
        assert_eq!(told(&seller), "127.0.0.1", "{request:?}");
    }
    let mut client = world.client().await;
    client.send("PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\n").await;
    client.call(&chat).await.expect(400);
    assert_eq!(seller.requests().len(), 5);
}

#[tokio::test]
async fn a_trusted_proxys_header_names_the_client() {
    let seller = Seller::plain().await;
    let world = world(&seller, LOCAL, "x-forwarded-for", false).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let chat = Request::chat(&buyer.key);
    let mut client = world.client().await;
    for (lines, expected) in [
        (&["192.0.2.9"][..], "192.0.2.9"),
        (&[][..], "127.0.0.1"),
        (&["203.0.113.1, 192.0.2.9, 10.1.1.1"][..], "192.0.2.9"),
        (&["203.0.113.1", "192.0.2.9", "10.1.1.1"][..], "192.0.2.9"),
        (&["rubbish, ::ffff:192.0.2.9"][..], "192.0.2.9"),
        (&["2001:db8::9"][..], "2001:db8::9"),
        (&["10.2.2.2, 10.1.1.1"][..], "10.2.2.2"),
    ] {
        let request = lines.iter().fold(chat.clone(), |request, line| request.also("X-Forwarded-For", line));
        client.call(&request.field("Forwarded", "for=203.0.113.7")).await.expect(200);
        assert_eq!(told(&seller), expected, "{lines:?}");
    }
    let forwarded = seller.requests().len();
    for bad in ["rubbish", "192.0.2.9, 10.1.1.1, 1.2.3", "192.0.2.256"] {
        let answer = client.call(&chat.clone().field("X-Forwarded-For", bad)).await.expect(400);
        assert_eq!(answer.code(), "invalid_request");
        assert!(answer.message().contains("x-forwarded-for"), "{}", answer.message());
    }
    assert_eq!(seller.requests().len(), forwarded);
    world.settles(&buyer.account, 7).await;
    until("the access log has the client", async || {
        world.gateway.printed().iter().any(|line| line.contains(r#""client":"2001:db8::9""#)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn only_the_header_that_the_operator_names_is_read() {
    let seller = Seller::plain().await;
    let world = world(&seller, LOCAL, "forwarded", false).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let chat = Request::chat(&buyer.key).field("X-Forwarded-For", "203.0.113.7");
    world.call(&chat).await.expect(200);
    assert_eq!(told(&seller), "127.0.0.1");
    let named = chat.clone().field("Forwarded", "for=203.0.113.1, for=\"[2001:db8::9]:80\";proto=http, for=10.1.1.1");
    world.call(&named).await.expect(200);
    assert_eq!(told(&seller), "2001:db8::9");
    world.call(&chat.field("Forwarded", "for=\"203.0.113.1, for=192.0.2.9")).await.expect(400);
}

/// A header of the second version for 192.0.2.9, or of another family.
fn binary(command: u8, family: u8) -> Vec<u8> {
    let fixed = [command, family, 0, 12];
    let addresses = [192, 0, 2, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 187];
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &fixed, &addresses].concat()
}

#[tokio::test]
async fn a_trusted_proxys_connection_begins_with_whom_it_is_for() {
    let seller = Seller::plain().await;
    let world = world(&seller, LOCAL, "x-forwarded-for", true).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let chat = Request::chat(&buyer.key);
    for (header, expected) in [
        (b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\n".to_vec(), "192.0.2.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 4711 443\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY TCP6 ::ffff:192.0.2.9 ::1 4711 443\r\n".to_vec(), "192.0.2.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0x21, 0x11), "192.0.2.9"),
        (binary(0x20, 0x11), "127.0.0.1"),
        (binary(0x21, 0x12), "127.0.0.1"),
        (binary(0x21, 0x22), "127.0.0.1"),
        (binary(0x21, 0x31), "127.0.0.1"),
        (binary(0x21, 0x32), "127.0.0.1"),
    ] {
        // In one piece with the request, and byte by byte.
        let mut client = world.client().await;
        client.send([header.clone(), chat.bytes()].concat()).await;
        client.answer("POST").await.expect(200);
        assert_eq!(told(&seller), expected);
        client.call(&chat).await.expect(200);
        assert_eq!(told(&seller), expected, "the connection's second call");
        let mut client = world.client().await;
        for byte in &header {
            client.send([*byte]).await;
        }
        client.call(&chat.clone().field("X-Forwarded-For", "203.0.113.1")).await.expect(200);
        // Whom the PROXY header names is no trusted proxy itself, unless it names none.
        let by_header = if expected == "127.0.0.1" { "203.0.113.1" } else { expected };
        assert_eq!(told(&seller), by_header);
    }
    let mut client = world.client().await;
    client.send("PROXY TCP4 10.1.1.1 10.0.0.1 4711 443\r\n").await;
    client.call(&chat.field("X-Forwarded-For", "203.0.113.1")).await.expect(200);
    assert_eq!(told(&seller), "203.0.113.1", "one trusted proxy behind another");
}

/// The connection is closed without a byte.
async fn closes(mut client: Client, what: &str) {
    let end = client.ends().await;
    assert!(matches!(end, End::Eof | End::Reset), "{what}");
}

#[tokio::test]
async fn a_trusted_proxys_connection_without_a_proper_header_is_closed() {
    let seller = Seller::plain().await;
    let world = world(&seller, LOCAL, "x-forwarded-for", true).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let chat = Request::chat(&buyer.key).bytes();
    for bad in [
        &b""[..],
        b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\n",
        b"PROXY TCP4 192.0.2 10.0.0.1 4711 443\r\n",
        b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 443 x\r\n",
        b"PROXY UNKNOWN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        let mut client = world.client().await;
        client.send([bad, &chat].concat()).await;
        closes(client, &String::from_utf8_lossy(bad)).await;
    }
    world.gateway.says("there is no PROXY header").await;
    // One that does not come whole in time.
    for part in [&b"PROXY TC"[..], b"PROXY TCP4 192.0.2.9", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0"] {
        let mut client = world.client().await;
        let begun = Instant::now();
        client.send(part).await;
        closes(client, "late").await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    assert_eq!(seller.requests().len(), 0);
}
