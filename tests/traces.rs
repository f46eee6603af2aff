//! `traceparent` and what comes with it: whose word is taken, and what the app and WeChat get to see. What is recorded is in
//! `spans`.

use crate::fake_app::{FakeApp, Request};
use crate::rig::Rig;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const RECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRUSTING: &str = "trusted_proxies = [\"127.0.0.1\"]\nauth = \"none\"";
const DISTRUSTING: &str = "auth = \"none\"";

/// What the app gets of a request with these lines.
fn sent(inbound: &str, sections: &str, lines: &[(&str, &str)]) -> Request {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), inbound, sections);
    assert_eq!(rig.request("GET", "/a", lines, b"").status, 200);
    app.only_request()
}

/// Trace id, span id and flags of what the app got.
fn parts(request: &Request) -> (String, String, String) {
    assert_eq!(request.all("traceparent").len(), 1, "{}", request.head);
    let text = request.header("traceparent").unwrap();
    let parts: Vec<_> = text.split('-').map(str::to_owned).collect();
    let [version, trace, span, flags] = &parts[..] else {
        panic!("{text}");
    };
    assert_eq!(version, "00");
    assert_eq!(
        (trace.len(), span.len(), flags.len()),
        (32, 16, 2),
        "{text}"
    );
    (trace.clone(), span.clone(), flags.clone())
}

#[test]
fn a_strangers_trace_ends_here_unless_the_operator_has_it_go_on() {
    let lines = [
        ("traceparent", RECORDED),
        ("tracestate", "a=1"),
        ("baggage", "a=1"),
    ];
    for (clients, goes_on) in [("new", false), ("continue", true)] {
        let section = format!("[trace]\nclients = \"{clients}\"\n");
        let request = sent(DISTRUSTING, &section, &lines);
        let (trace, span, flags) = parts(&request);
        assert_eq!(trace == TRACE, goes_on, "{clients}");
        assert_ne!(span, RECORDED[36..52]);
        assert_eq!(flags, "00", "nobody in public has anything recorded");
        assert_eq!(request.header("tracestate"), None);
        assert_eq!(request.header("baggage"), None);
    }
}

#[test]
fn a_trusted_proxys_trace_goes_on_with_a_span_of_ours() {
    let lines = [
        ("traceparent", RECORDED),
        ("tracestate", "a=1"),
        ("baggage", "b=2"),
    ];
    let request = sent(TRUSTING, "", &lines);
    let (trace, span, flags) = parts(&request);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_ne!(span, RECORDED[36..52]);
    assert_eq!(request.all("tracestate"), ["a=1"]);
    assert_eq!(request.all("baggage"), ["b=2"]);
}

#[test]
fn a_traceparent_that_is_none_or_stands_twice_begins_a_new_trace_without_its_tracestate() {
    let upper = RECORDED.to_uppercase();
    let long = format!("{RECORDED}-more");
    let zero = RECORDED.replace(TRACE, &"0".repeat(32));
    let future = format!("ff{}", &RECORDED[2..]);
    for bad in [
        &upper,
        &long,
        &zero,
        &future,
        "",
        "garbage",
        &"0".repeat(10_000),
    ] {
        let lines = [("traceparent", bad), ("tracestate", "a=1")];
        let request = sent(TRUSTING, "", &lines);
        let (trace, _, flags) = parts(&request);
        assert_ne!(trace, TRACE, "{bad}");
        assert_eq!(flags, "00", "{bad}");
        assert_eq!(request.header("tracestate"), None, "{bad}");
    }
    let twice = [("traceparent", RECORDED), ("Traceparent", RECORDED)];
    assert_ne!(parts(&sent(TRUSTING, "", &twice)).0, TRACE);
}

#[test]
fn a_later_version_is_understood_as_far_as_it_goes() {
    let later = format!("42{}-what-comes", &RECORDED[2..]);
    let request = sent(TRUSTING, "", &[("traceparent", &later)]);
    let (trace, _, flags) = parts(&request);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
}

#[test]
fn tracestate_and_baggage_go_on_within_their_limits() {
    let kept = |name: &'static str, values: &[&str]| {
        let mut lines = vec![("traceparent", RECORDED)];
        lines.extend(values.iter().map(|value| (name, *value)));
        let request = sent(TRUSTING, "", &lines);
        request.all(name).join("|")
    };
    assert_eq!(
        kept("tracestate", &["a=1,b=2", " c=3 , d=4 "]),
        "a=1,b=2,c=3,d=4"
    );
    assert_eq!(kept("tracestate", &["a=1", "b"]), "");
    assert_eq!(kept("tracestate", &["a=1,\u{e9}=2"]), "");
    let many: Vec<_> = (0..100).map(|number| format!("k{number}=v")).collect();
    assert_eq!(kept("tracestate", &[&many.join(",")]), many[..32].join(","));
    let large = format!("a={}", "v".repeat(10_000));
    assert_eq!(kept("tracestate", &[&large]), "");

    assert_eq!(kept("baggage", &["a=1", "b=2;p=3"]), "a=1|b=2;p=3");
    assert_eq!(kept("baggage", &[&large]), "");
    let half = format!("a={}", "v".repeat(5_000));
    assert_eq!(kept("baggage", &[&half]), half);
    assert_eq!(kept("baggage", &[&half, &half]), "");
}

#[test]
fn names_that_an_app_may_fold_are_no_way_around() {
    let lines = [
        ("Trace_Parent", "kept, it folds into nothing"),
        ("TRACEPARENT", RECORDED),
        ("Trace-State", "kept, it folds into nothing"),
        ("tracestate", "a=1"),
        ("Baggage", "a=1"),
        ("BAGGAGE_", "a=1"),
    ];
    let request = sent(DISTRUSTING, "", &lines);
    assert_ne!(parts(&request).0, TRACE);
    assert_eq!(request.header("tracestate"), None);
    assert_eq!(request.header("baggage"), None);
    assert_eq!(request.header("baggage_"), None);
    assert!(request.header("trace_parent").is_some());
}

#[test]
fn the_trailers_of_a_request_have_no_part_in_its_trace() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), TRUSTING, "");
    let mut client = rig.client();
    client.send(
        format!(
            "POST /a HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\
             traceparent: {RECORDED}\r\nbaggage: a=1\r\nx-harmless: yes\r\n\r\n"
        )
        .as_bytes(),
    );
    assert_eq!(client.read_response(false).status, 200);
    let request = app.only_request();
    assert_ne!(parts(&request).0, TRACE);
    assert_eq!(request.trailers, ["x-harmless: yes"]);
}

#[test]
fn a_request_id_is_a_trusted_peers_if_it_is_one_and_ours_otherwise() {
    let long = "a".repeat(65);
    for (inbound, given, kept) in [
        (TRUSTING, "theirs_1.a-b", true),
        (TRUSTING, "two words", false),
        (TRUSTING, "a,b", false),
        (TRUSTING, "\u{1b}[31m", false),
        (TRUSTING, &long, false),
        (DISTRUSTING, "theirs_1.a-b", false),
    ] {
        let app = FakeApp::agreeable();
        let rig = Rig::with(&app.url(), inbound, "");
        let answer = rig.request("GET", "/a", &[("X-Request-Id", given)], b"");
        if answer.status == 400 {
            // A control character is no header at all.
            assert!(given.contains('\u{1b}'));
            continue;
        }
        let request = app.only_request();
        let id = request.header("x-request-id").unwrap();
        assert_eq!(id == given, kept, "{given}");
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
}
