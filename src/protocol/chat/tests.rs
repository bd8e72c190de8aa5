//! Bodies, what they name, and what changes when a model is renamed.

use super::*;
use proptest::prelude::*;

fn read(body: &str, model: Option<&str>, stream: bool) {
    let request = read_request(body.as_bytes()).unwrap_or_else(|fault| panic!("{body}: {fault}"));
    assert_eq!(request.model.as_ref().map(|field| field.name.as_ref()), model, "{body}");
    assert_eq!(request.stream, stream, "{body}");
    if let Some(field) = request.model {
        let value: String = serde_json::from_str(&body[field.span.clone()]).expect("the span is a JSON string");
        assert_eq!(value, field.name, "{body}");
    }
}

fn refused(body: impl AsRef<[u8]>, fault: BodyFault) {
    let body = body.as_ref();
    assert_eq!(read_request(body), Err(fault), "{}", String::from_utf8_lossy(body));
}

#[test]
fn reads_model_and_stream() {
    for (body, model, stream) in [
        ("{}", None, false),
        (" \t\r\n{ } \n", None, false),
        (r#"{"model":"m"}"#, Some("m"), false),
        (r#"{"model":"m","stream":true}"#, Some("m"), true),
        (r#"{"stream":true,"model":"m"}"#, Some("m"), true),
        (r#"{"model":"m","stream":false}"#, Some("m"), false),
        (r#"{"model":"m","stream":null}"#, Some("m"), false),
        ("{ \"model\" :\n \"m\" , \"stream\" : true }", Some("m"), true),
        (r#"{"model":""}"#, Some(""), false),
        (r#"{"model":" m "}"#, Some(" m "), false),
        (r#"{"model":"org/m-1.5:latest@x"}"#, Some("org/m-1.5:latest@x"), false),
        (r#"{"model":"通义"}"#, Some("通义"), false),
        (r#"{"model":"\u0067pt\"\\\/\n"}"#, Some("gpt\"\\/\n"), false),
        (r#"{"model":"\ud83d\ude00"}"#, Some("😀"), false),
        (r#"{"mod\u0065l":"m"}"#, Some("m"), false),
        (r#"{"\u0073tream":true}"#, None, true),
        (r#"{"messages":[{"role":"user","content":"{\"model\":\"x\"}"}],"model":"m"}"#, Some("m"), false),
        (r#"{"a":{"model":1,"Model":2,"stream":"x"},"model":"m"}"#, Some("m"), false),
        (r#"{"a":[{"model":1},{"model":2}],"b":{"stream":1}}"#, None, false),
        (r#"{"models":1,"mode":2,"streams":3,"model ":4,"":5,"modelx":6,"odel":7}"#, None, false),
        (r#"{"x":1,"x":2,"model":"m"}"#, Some("m"), false),
        (r#"{"n":1e999,"m":-0.0,"k":123456789012345678901234567890,"model":"m"}"#, Some("m"), false),
        (r#"{"t":"\ud800","model":"m"}"#, Some("m"), false),
        (r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#, Some("m"), true),
    ] {
        read(body, model, stream);
    }
}

#[test]
fn reads_whom_the_buyers_own_user_is_said_to_be_and_never_refuses_for_it() {
    for (body, user) in [
        ("{}", None),
        (r#"{"user":"u-1","model":"m"}"#, Some("u-1")),
        (r#"{"model":"m","user":"\u00fc \"x\""}"#, Some("ü \"x\"")),
        (r#"{"user":""}"#, Some("")),
        (r#"{"user":"a","user":"b"}"#, Some("b")),
        (r#"{"messages":[{"role":"user","user":"x"}]}"#, None),
        (r#"{"user":7}"#, None),
        (r#"{"user":{"id":"u"}}"#, None),
        (r#"{"user":null}"#, None),
        (r#"{"user":"\ud800"}"#, None),
        (r#"{"User":"u"}"#, None),
    ] {
        assert_eq!(read_request(body.as_bytes()).unwrap().user.as_deref(), user, "{body}");
    }
}

#[test]
fn refuses_what_is_read_in_two_ways() {
    for (body, field) in [
        (r#"{"model":"a","model":"a"}"#, "model"),
        (r#"{"model":"a","model":"b","stream":true}"#, "model"),
        (r#"{"model":"a","mod\u0065l":"b"}"#, "model"),
        (r#"{"model":"a","Model":"b"}"#, "model"),
        (r#"{"Model":"a"}"#, "model"),
        (r#"{"MODEL":"a"}"#, "model"),
        (r#"{"\u004dodel":"a"}"#, "model"),
        (r#"{"Model":{"x":[1]}}"#, "model"),
        (r#"{"model":1,"MODEL":2}"#, "model"),
        (r#"{"stream":true,"stream":true}"#, "stream"),
        (r#"{"stream":null,"stream":null}"#, "stream"),
        (r#"{"Stream":false}"#, "stream"),
        (r#"{"stream":true,"STREAM":false}"#, "stream"),
        (r#"{"ſtream":true}"#, "stream"),
        (r#"{"\u017fTREAM":true}"#, "stream"),
    ] {
        refused(body, BodyFault::Ambiguous { field });
    }
}

#[test]
fn refuses_values_of_the_wrong_kind() {
    for value in ["null", "1", "true", "[]", "[\"m\"]", "{}", "{\"a\":\"b\"}", "-1.5"] {
        refused(format!("{{\"model\":{value}}}"), BodyFault::ModelNotText);
    }
    for value in ["0", "1", "\"true\"", "\"\"", "[]", "{}", "[true]"] {
        refused(format!("{{\"stream\":{value}}}"), BodyFault::StreamNotBoolean);
    }
    for value in [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\u0041", r"a\udfff"] {
        refused(format!("{{\"model\":\"{value}\"}}"), BodyFault::ModelEscape { offset: 9 });
    }
    for body in ["[]", "[{\"model\":\"m\"}]", "\"model\"", "1", "null", " true ", "-0"] {
        refused(body, BodyFault::NotAnObject);
    }
}

#[test]
fn refuses_what_is_not_json() {
    for (body, line, column) in [
        ("", 1, 0),
        (" ", 1, 1),
        ("{", 1, 1),
        ("{\n\"model\":\n}", 3, 1),
        ("{}x", 1, 3),
        ("{}{}", 1, 3),
        ("{},", 1, 3),
        ("[1,]", 1, 4),
        ("{\"model\":\"m\",}", 1, 14),
        ("{\"model\" \"m\"}", 1, 10),
        ("{model:\"m\"}", 1, 2),
        ("{'model':'m'}", 1, 2),
        ("{\"model\":'m'}", 1, 10),
        ("{\"model\":\"m", 1, 11),
        ("{\"a\":01}", 1, 7),
        ("{\"a\":+1}", 1, 6),
        ("{\"a\":1.}", 1, 8),
        ("{\"a\":NaN}", 1, 6),
        ("{\"a\":tru}", 1, 9),
        ("{\"a\":\"\\x\"}", 1, 8),
        ("{\"a\":\"\\u12g4\"}", 1, 12),
        ("{\"a\":\"\n\"}", 1, 6),
        ("{\"a\":\"\0\"}", 1, 6),
        ("{\"a\":[}", 1, 7),
        ("{\"a\":[1}", 1, 8),
        ("{\"a\":1]", 1, 7),
        ("{1:2}", 1, 2),
        ("{}\0", 1, 3),
        ("{\"model\":1,\"model\":2", 1, 20),
        ("--boundary\r\nContent-Disposition: form-data", 1, 2),
        ("model=m&stream=true", 1, 1),
    ] {
        refused(body, BodyFault::Syntax { line, column });
    }
}

#[test]
fn refuses_what_is_not_utf8() {
    refused(b"\xef\xbb\xbf{\"model\":\"m\"}", BodyFault::Encoding { offset: 0 });
    refused(b"\xff\xfe{\0}\0", BodyFault::Encoding { offset: 0 });
    refused(b"{\"model\":\"\xff\"}", BodyFault::Encoding { offset: 10 });
    refused(b"{\"a\":\"\xc3\"}", BodyFault::Encoding { offset: 6 });
    refused(b"{\"a\":\"\xed\xa0\x80\"}", BodyFault::Encoding { offset: 6 });
    refused(b"{\"a\":\"\xc0\xaf\"}", BodyFault::Encoding { offset: 6 });
}

#[test]
fn tells_what_begins_like_an_object() {
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for body in [
        b"{".to_vec(),
        b" \r\n\t{}".to_vec(),
        b"\xef\xbb\xbf{".to_vec(),
        wide("{}"),
        wide("\u{feff}{}"),
        b"\0\0\0{".to_vec(),
    ] {
        assert!(begins_like_an_object(&body), "{body:?}");
    }
    for body in ["", " ", "[{}]", "a=b", "--{", "\"{\"", "1"] {
        assert!(!begins_like_an_object(body.as_bytes()), "{body}");
    }
}

#[test]
fn depth_and_size_are_no_danger() {
    let depth = 100_000;
    let nested = |open: &str, close: &str| open.repeat(depth) + "1" + &close.repeat(depth);
    read(&format!("{{\"a\":{},\"model\":\"m\"}}", nested("[", "]")), Some("m"), false);
    read(&format!("{{\"a\":{},\"model\":\"m\"}}", nested("{\"a\":", "}")), Some("m"), false);
    refused(format!("{{\"model\":{}}}", nested("[", "]")), BodyFault::ModelNotText);
    refused(nested("[", "]"), BodyFault::NotAnObject);
    let open = "{\"a\":".repeat(depth);
    refused(&open, BodyFault::Syntax { line: 1, column: open.len() });
    let long = format!("{{\"a\":\"{}\",\"model\":\"m\"}}", "x".repeat(4 << 20));
    read(&long, Some("m"), false);
    let model = |name: &str| format!("{{\"model\":\"{name}\"}}");
    read(&model(&"é".repeat(128)), Some(&"é".repeat(128)), false);
    read(&model(&r"\u0041".repeat(256)), Some(&"A".repeat(256)), false);
    for long in [model(&"x".repeat(257)), model(&r"\u0041".repeat(257)), model(&"x".repeat(4 << 20))] {
        refused(long, BodyFault::ModelTooLong);
    }
}

#[test]
fn replaces_the_models_bytes_alone() {
    for (body, name, expected) in [
        (r#"{"model":"a"}"#, "b", r#"{"model":"b"}"#),
        (r#"{ "model" : "\u0061" , "x":1.0 } "#, "org/b", r#"{ "model" : "org/b" , "x":1.0 } "#),
        (r#"{"x":"model","model":"x"}"#, "q\"\\\n", r#"{"x":"model","model":"q\"\\\n"}"#),
        (r#"{"é":"é","model":"é"}"#, "通", r#"{"é":"é","model":"通"}"#),
    ] {
        let field = read_request(body.as_bytes()).unwrap().model.unwrap();
        let replaced = replace_model(&Bytes::from_static(body.as_bytes()), &field.span, name).concat();
        assert_eq!(String::from_utf8(replaced).unwrap(), expected);
    }
}

#[test]
fn refusals_have_both_shapes_or_one() {
    let fields = ErrorFields {
        message: "the key is \"unknown\"",
        kind: "invalid_request_error",
        param: None,
        code: Some("invalid_api_key"),
        reason: "api_key_expired",
        apig_code: "APIG.0303",
        request_id: "r-1",
    };
    assert_eq!(
        String::from_utf8(error_body_llm(&fields)).unwrap(),
        r#"{"error":{"message":"the key is \"unknown\"","type":"invalid_request_error","param":null,"code":"invalid_api_key","reason":"api_key_expired"},"error_code":"APIG.0303","error_msg":"the key is \"unknown\"","request_id":"r-1"}"#
    );
    assert!(String::from_utf8(error_body_anthropic(&fields)).unwrap().starts_with(r#"{"type":"error","error":{"#));
    let fields = ErrorFields { param: Some("model"), code: None, message: "no\n", ..fields };
    assert_eq!(
        String::from_utf8(error_body_llm(&fields)).unwrap(),
        r#"{"error":{"message":"no\n","type":"invalid_request_error","param":"model","code":null,"reason":"api_key_expired"},"error_code":"APIG.0303","error_msg":"no\n","request_id":"r-1"}"#
    );
    assert_eq!(
        String::from_utf8(error_body_api(&fields)).unwrap(),
        r#"{"error_code":"APIG.0303","error_msg":"no\n","request_id":"r-1"}"#
    );
}

proptest! {
    #[test]
    fn a_replaced_model_reads_back_and_nothing_else_changes(old in "\\PC*", new in "\\PC*", tail in "\\PC*") {
        let body = Bytes::from(format!(
            "{{\"a\":{}, \"model\": {} ,\"b\":[{}]}}",
            serde_json::json!(tail), serde_json::json!(old), serde_json::json!(tail)
        ));
        let field = read_request(&body).unwrap().model.unwrap();
        prop_assert_eq!(field.name.as_ref(), old.as_str());
        let replaced = Bytes::from(replace_model(&body, &field.span, &new).concat());
        let again = read_request(&replaced).unwrap().model.unwrap();
        prop_assert_eq!(again.name.as_ref(), new.as_str());
        let back = replace_model(&replaced, &again.span, &old).concat();
        prop_assert_eq!(back, replace_model(&body, &field.span, &old).concat());
    }

    #[test]
    fn what_is_read_is_json(body in prop::collection::vec(
        prop_oneof![Just("{"), Just("}"), Just("\"model\""), Just(":"), Just(","), Just("\"m\""), Just("[1]"), Just("true"), Just("\"stream\"")],
        0..12,
    )) {
        let body = body.concat();
        let valid = serde_json::from_str::<serde_json::Value>(&body).is_ok();
        let fault = read_request(body.as_bytes()).err();
        prop_assert_eq!(valid, !matches!(fault, Some(BodyFault::Syntax { .. })));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = read_request(&body);
    }

    /// Near to what is right: what is accepted is JSON to the whole parser too, with that very model.
    #[test]
    fn an_altered_body_is_read_as_the_whole_parser_reads_it(
        altered in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[]:,m".to_vec())]), 0..4),
    ) {
        let mut body = br#"{"model":"m\u0065","x":[{"a":1.5e3,"model":null}],"stream":true,"user":"u"}"#.to_vec();
        for (at, byte) in altered {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(read) = read_request(&body) {
            let whole: serde_json::Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}"));
            prop_assert_eq!(read.model.as_ref().map(|model| model.name.as_ref()), whole["model"].as_str());
            prop_assert_eq!(read.stream, whole["stream"] == true);
            if let Some(model) = read.model {
                let name: String = serde_json::from_slice(&body[model.span.clone()]).unwrap();
                prop_assert_eq!(name, model.name);
            }
        }
    }
}
