//! Which servers are refused at start, and what is just enough.

use super::*;
use crate::adapter::redis::servers::{Certificates, free_port};
use crate::config::{ClientCertificate, RedisTls};

async fn refused(server: &Server, change: impl FnOnce(&mut Redis), words: &[&str]) {
    let text = match open(server, change).await {
        Err(error @ OpenError::Refused(_)) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused: {words:?}"),
    };
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
}

fn password(text: &str) -> Option<secrecy::SecretString> {
    Some(text.to_owned().into())
}

#[tokio::test]
async fn a_server_that_is_not_what_is_needed_is_refused_at_start() {
    let server = Server::start(&[]);
    let mut none = server.connection();
    refused(&server, |settings| settings.volatile = false, &["writes nothing to its disk", "store.volatile: true"])
        .await;
    for (setting, good) in [("save 60 1", true), ("appendonly yes", true), ("maxmemory-policy allkeys-lru", false)] {
        let (name, value) = setting.split_once(' ').unwrap();
        let before: Vec<String> = redis::from_redis_value(server.ask(&format!("CONFIG GET {name}"))).unwrap();
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut none).unwrap();
        if good {
            open(&server, |settings| settings.volatile = false).await.unwrap();
        } else {
            refused(&server, |_| {}, &["maxmemory-policy allkeys-lru", "noeviction"]).await;
        }
        redis::cmd("CONFIG").arg("SET").arg(name).arg(&before[1]).exec(&mut none).unwrap();
    }
    opened(&server).await;
}

#[tokio::test]
async fn a_user_who_may_not_enough_is_refused_at_start() {
    let server = Server::start(&[]);
    let login = |name: &str, text: &str| Login { username: Some(name.to_owned()), password: password(text) };
    let wrong = login("nobody", "wrong");
    refused(&server, |settings| settings.login = wrong, &["does not let the user `nobody` in", "store.redis.password"])
        .await;
    server.ask("ACL SETUSER few on >secret ~tollgate:* &tollgate:* +@all -xadd -publish -evalsha");
    refused(&server, |settings| settings.login = login("few", "secret"), &["`few`", "xadd, publish"]).await;
    server.ask("ACL SETUSER few +xadd +publish");
    refused(&server, |settings| settings.login = login("few", "secret"), &["evalsha"]).await;
    server.ask("ACL SETUSER few +evalsha resetkeys ~other:*");
    refused(&server, |settings| settings.login = login("few", "secret"), &["set, get", "~tollgate:*"]).await;
    server.ask("CONFIG SET requirepass hunter2");
    let secretly = |settings: &mut Redis| settings.login = Login { username: None, password: password("hunter2") };
    open(&server, secretly).await.unwrap();
    refused(&server, |_| {}, &["does not let the user `default` in"]).await;
}

#[tokio::test]
async fn the_least_that_a_user_must_be_allowed_is_enough() {
    let server = Server::start(&[]);
    let documented = include_str!("../../../../docs/store.md");
    let line = documented.lines().find(|line| line.starts_with("ACL SETUSER tollgate ")).unwrap();
    server.ask(&line.replace("PASSWORD", "secret"));
    let login = Login { username: Some("tollgate".to_owned()), password: password("secret") };
    let store = open(&server, |settings| (settings.login, settings.durable) = (login, true)).await.unwrap();
    store.commit(naming("a", None, &[1])).await.unwrap();
    store.commit(naming("a", Some(&load(&store, "a").await), &[])).await.unwrap();
    store.heartbeat(&by("gw")).await.unwrap();
    let servers = store.servers().await.unwrap();
    assert_eq!(store.check_in(&by("gw"), &servers, &[by("gw")]).await.unwrap(), CheckIn::Open);
    store.leave(&by("gw")).await.unwrap();
    assert_eq!((store.list(None).await.unwrap().len(), store.ended(&account("a")).await.unwrap().len()), (1, 0));
    assert!(store.heard_at().is_some());
}

#[tokio::test]
async fn what_is_no_single_primary_is_refused_at_start() {
    let watched = Watched::start();
    refused(&watched.pair[1], |_| {}, &["is a replica of 127.0.0.1:", "name the primary"]).await;
    refused(&watched.sentinels[0], |_| {}, &["is a Sentinel"]).await;
    // By itself it takes the port 10,000 above its own, which someone may have.
    let bus = free_port().to_string();
    let node = Server::on_port(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    refused(&node, |_| {}, &["is a node of a Cluster", "store.redis.cluster: true"]).await;
    let single = Server::on_port(&[]);
    let port = single.port;
    let cluster = move |settings: &mut Redis| settings.servers = RedisServers::Cluster(vec![local(port)]);
    refused(&single, cluster, &["is no node of a Cluster"]).await;
    let sentinels = RedisServers::Sentinel {
        master: "unknown".to_owned(),
        sentinels: vec![local(watched.sentinels[0].port)],
        login: Login::default(),
    };
    refused(&single, |settings| settings.servers = sentinels, &["store.redis.sentinel.master"]).await;
}

#[tokio::test]
async fn tls_is_spoken_and_certificates_are_checked() {
    let certificates = Certificates::make();
    let file = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let (certificate, key, authority) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let port = free_port().to_string();
    let own = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &authority,
    ];
    let server = Server::start(&own);
    let address = RedisServers::One(RedisAddress::Network(local(port.parse().unwrap())));
    let tls = RedisTls {
        ca_file: Some(authority.into()),
        client: Some(ClientCertificate { certificate: file("client.pem").into(), key: file("client.key").into() }),
    };
    let with = |tls: RedisTls| {
        let address = address.clone();
        |settings: &mut Redis| (settings.servers, settings.tls) = (address, Some(tls))
    };
    let store = open(&server, with(tls.clone())).await.unwrap();
    let mut changes = store.changes();
    store.commit(naming("a", None, &[])).await.unwrap();
    assert_eq!(changes.recv().await, Ok(Notice::Changed(account("a"))));
    assert!(store.heard_at().is_some());
    refused(&server, with(RedisTls { ca_file: None, ..tls.clone() }), &["certificate that is not trusted"]).await;
    // Without a certificate of our own the server hangs up, and its reason may be lost with the connection.
    match open(&server, with(RedisTls { client: None, ..tls })).await {
        Err(error) => assert!(error.to_string().contains("client_cert"), "{error}"),
        Ok(nobody) => unavailable(nobody.load(&account("a")).await, "cannot be reached"),
    }
}
