//! Files that a configuration names, and the configuration's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const AUTHORITY: &str = include_str!("authority.pem");

/// A folder with a file each, readable by its owner alone, and a configuration.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.write("admin.token", "0123456789abcdef\n", 0o600);
        world.write("hash.key", "fedcba9876543210\n", 0o400);
        world.write("seller.key", "sk-seller\n", 0o600);
        world.write("ca.pem", AUTHORITY, 0o644);
        world
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Result<Config, String> {
        let text = BASE
            .replace("token: 0123456789abcdef", "token: ${file:admin.token}")
            .replace("hash_key: fedcba9876543210", "hash_key: \"${file:./hash.key}\"")
            .replace("api_key: sk-seller", "api_key: ${file:seller.key}\n      ca_file: ca.pem");
        self.write("tollgate.yaml", text, 0o644);
        load(&self.0.path().join("tollgate.yaml"), &no_env).map_err(|problems| problems.to_string())
    }

    fn refused(&self, words: &str) {
        let problems = self.load().unwrap_err();
        assert!(problems.contains(words), "{words}: {problems}");
        assert_eq!(problems.matches("tollgate.yaml:").count(), 1, "{problems}");
    }
}

#[test]
fn paths_begin_at_the_files_folder() {
    let world = World::new();
    let config = world.load().unwrap();
    let folder = world.0.path();
    assert_eq!(config.data_dir, folder.join("data"));
    assert_eq!(config.log.access, AccessLog::File(folder.join("logs/access.log")));
    let product = &config.catalog.products[&ProductId::new("chat").unwrap()];
    assert_eq!(product.upstream.tls, Some(UpstreamTls { ca_file: Some(folder.join("ca.pem")) }));
    let (_, key) = product.upstream.headers.iter().find(|(name, _)| name == "authorization").unwrap();
    assert_eq!(key, "Bearer sk-seller");
    assert!(key.is_sensitive());
}

#[test]
fn what_a_file_holds_is_quoted_by_no_message() {
    for line in ["id: chat", "buy_url: https://shop.example.com/", "data: 127.0.0.1:8081", "head_timeout: 1s"] {
        let world = World::new();
        world.write("elsewhere", " sk-Höchst\n\"geheim\"/1\n", 0o600);
        let key = line.split_once(':').unwrap().0;
        let text = BASE.replacen(line, &format!("{key}: ${{file:elsewhere}}"), 1);
        world.write("tollgate.yaml", text, 0o644);
        let problems = load(&world.0.path().join("tollgate.yaml"), &no_env).unwrap_err().to_string();
        assert!(problems.contains(&format!("{key}: ${{file:elsewhere}}")), "{problems}");
        assert!(!problems.contains("geheim"), "{problems}");
    }
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    for (name, content, path) in [
        ("admin.token", "0123456789abcdef", "admin.token: others"),
        ("hash.key", "fedcba9876543210", "secrets.hash_key: others"),
        ("seller.key", "sk-seller", "products[0].upstream.api_key: others"),
    ] {
        for mode in [0o640, 0o604, 0o644, 0o660] {
            let world = World::new();
            world.write(name, content, mode);
            world.refused(path);
            world.refused("run `chmod 600 ");
            world.write(name, content, 0o600);
            assert!(world.load().is_ok());
        }
    }
}

#[test]
fn secrets_that_are_empty_missing_or_broken_are_refused() {
    let world = World::new();
    for (content, words) in
        [(&b""[..], "nothing but white space"), (b" \n", "nothing but white space"), (b"\xff", "is not UTF-8")]
    {
        world.write("seller.key", content, 0o600);
        world.refused(words);
    }
    fs::remove_file(world.0.path().join("seller.key")).unwrap();
    world.refused("seller.key cannot be read");
    world.refused("products[0].upstream.api_key");
    fs::create_dir(world.0.path().join("seller.key")).unwrap();
    world.refused("is not a regular file");
}

#[test]
fn authorities_are_certificates() {
    let world = World::new();
    let ca = |content: &str| world.write("ca.pem", content, 0o644);
    ca(&format!("{AUTHORITY}\n{AUTHORITY}"));
    assert!(world.load().is_ok());
    ca("");
    world.refused("holds no certificate");
    ca("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    world.refused("holds no certificate");
    ca("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    world.refused("not a certificate");
    ca("-----BEGIN CERTIFICATE-----\n!\n");
    world.refused("not well-formed");
    fs::remove_file(world.0.path().join("ca.pem")).unwrap();
    world.refused("ca.pem cannot be read");
}

#[test]
fn a_file_that_is_no_configuration() {
    let world = World::new();
    let path = world.0.path().join("f.yaml");
    let refused = |words: &str| {
        let problems = load(&path, &no_env).unwrap_err().to_string();
        assert!(problems.starts_with(path.to_str().unwrap()) && problems.contains(words), "{problems}");
    };
    refused("the file cannot be read");
    fs::write(&path, b"gateway: \xff\n").unwrap();
    refused(":1:10: this byte is not UTF-8");
    fs::write(&path, b"# \xc3\xa4\n#\xc3\xa4\xff\n").unwrap();
    refused(":2:3: this byte is not UTF-8");
    fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    refused("more than 4194304 bytes");
    fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize)).unwrap();
    refused("holds no keys");
    fs::write(&path, format!("\u{feff}{}", BASE.replace("gateway: gw-7", "gateway: ok"))).unwrap();
    assert_eq!(load(&path, &no_env).unwrap().gateway.as_str(), "ok", "a byte order mark is not part of a key");
    fs::write(&path, BASE.replace('\n', "\r\n")).unwrap();
    assert!(load(&path, &no_env).is_ok());
}
