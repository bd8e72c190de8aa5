//! How problems look to a person. Secrets are in none of them.

use super::*;

/// The whole text of a file's problems.
fn rendered(edits: &[(&str, &str)]) -> String {
    let mut text = BASE.to_owned();
    for (from, to) in edits {
        assert_eq!(text.matches(from).count(), 1, "{from:?} must stand in the base file once");
        text = text.replace(from, to);
    }
    parse(&text, Path::new("tollgate.yaml"), &no_env).unwrap_err().to_string()
}

macro_rules! shown {
    ($name:ident, $($edit:expr),* $(,)?) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(rendered(&[$($edit),*]));
        }
    };
}

shown!(an_unknown_key, ("head_timeout: 1s", "head_timout: 1s"));
shown!(a_duplicate_key, ("drain_timeout: 4s", "drain_timeout: 4s\nworkers: 3"));
shown!(a_wrong_type, ("deployment: chat-1", "deployment: [chat-1]"));
shown!(a_duration_without_unit, ("drain_timeout: 4s", "drain_timeout: 10"));
shown!(a_word_that_is_not_known, ("level: debug", "level: dbug"));
shown!(a_url_of_another_scheme, ("http://127.0.0.1:9001", "ftp://127.0.0.1:9001"));
shown!(a_variable_that_is_not_set, ("gateway: gw-7", "gateway: \"${HOSTNAME}\""));
shown!(a_file_that_is_not_there, ("token: 0123456789abcdef", "token: \"${file:admin.token}\""));
shown!(a_short_secret, ("token: 0123456789abcdef", "token: hunter2"));
shown!(open_access_with_a_meter, ("access: keys", "access: open"));
shown!(an_offer_of_no_product, ("product: chat", "product: chap"));
shown!(a_missing_key, ("    kind: per_call\n", ""));
shown!(text_that_is_no_yaml, ("gateway: gw-7", "gateway: [gw-7"));
shown!(two_documents, ("offers:\n", "---\noffers:\n"));
shown!(
    many_at_once,
    ("workers: 2", "workers: none"),
    ("segment_bytes: 1MiB", "segment_bytes: 1KiB"),
    ("small: Small.gguf", "small: \"\""),
    ("    calls: 100\n", "    cals: 100\n"),
);
