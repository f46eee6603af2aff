//! Spans: what the OpenTelemetry Collector gets of a trace, and what a collector that is slow, refuses or is away costs.
//!
//! The collector is the real one, built from its own modules. What it has to be for a test and would never be is played.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use wx_sidecar::sim::Fault;
use wx_sidecar::wechat::push::sign;

use crate::backends::{App, Kind};
use crate::fake_app::{FakeApp, OK, Request, Signal};
use crate::http_client::{Client, PATIENCE};
use crate::media::Gallery;
use crate::patience::eventually;
use crate::process::{Run, write_configuration};
use crate::rig::{self, APPID, Rig, START, canary, keep};

const TRUSTING: &str = "trusted_proxies = [\"127.0.0.1\"]\nauth = \"optional\"";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const RECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CALL: &str = "/wxa/business/getuserphonenumber";
const TOKEN: &str = "spanTokenCanary00000000000000001";
const OPENID: &str = "oSpanUser0000000000000000001";
/// Kinds of spans (`opentelemetry/proto/trace/v1/trace.proto`).
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const TAKEN: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
/// For a sidecar that does not give a batch up in the time of a test.
const PATIENT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT=600000";

/// A running collector, and where it writes.
struct Collector {
    app: App,
    file: PathBuf,
}

/// A span as the collector has understood it.
#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    attributes: BTreeMap<String, Value>,
    /// 2 is an error.
    status: u64,
    /// The traces and spans that it has links to.
    links: Vec<(String, String)>,
    nanoseconds: (u64, u64),
    resource: BTreeMap<String, Value>,
}

impl Collector {
    fn start(name: &str) -> Self {
        Self::start_at(name, None)
    }

    fn start_at(name: &str, port: Option<u16>) -> Self {
        let file = rig::output_directory().join(format!("{name}.spans"));
        fs::remove_file(&file).ok();
        let app = App::start_with(Kind::Otelcol, port, &[("SPANS", &file)]);
        Self { app, file }
    }

    fn section(&self, more: &str) -> String {
        section(&self.app.url(), more)
    }

    fn spans(&self) -> Vec<Span> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        // The last line may still be being written.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.flat_map(|batch: Value| of_batch(&batch)).collect()
    }

    /// The spans of a trace, once there are so many.
    fn of_trace(&self, trace: &str, count: usize) -> Vec<Span> {
        let mut found = Vec::new();
        eventually(&format!("there are {count} spans of {trace}"), || {
            found = self.spans();
            found.retain(|span| span.trace == trace);
            found.len() >= count
        });
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    /// The span of this name, once there is one.
    fn named(&self, name: &str) -> Span {
        let mut found = None;
        eventually(&format!("there is a span {name}"), || {
            found = self.spans().into_iter().find(|span| span.name == name);
            found.is_some()
        });
        found.unwrap()
    }
}

fn section(url: &str, more: &str) -> String {
    let sample = match more.contains("sample") {
        true => "",
        false => "sample = \"100%\"\n",
    };
    format!("[trace]\nendpoint = \"{url}\"\n{sample}{more}\n")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn of_batch(batch: &Value) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in list(&batch["resourceSpans"]) {
        let resource = attributes(&of_resource["resource"]["attributes"]);
        for scope in list(&of_resource["scopeSpans"]) {
            assert_eq!(scope["scope"]["name"], "wx-sidecar");
            spans.extend(list(&scope["spans"]).map(|span| of_json(span, &resource)));
        }
    }
    spans
}

fn of_json(span: &Value, resource: &BTreeMap<String, Value>) -> Span {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().unwrap(),
        number => number.as_u64().unwrap_or_default(),
    };
    let links = list(&span["links"]).map(|link| (text(&link["traceId"]), text(&link["spanId"])));
    Span {
        trace: text(&span["traceId"]),
        id: text(&span["spanId"]),
        parent: text(&span["parentSpanId"]),
        name: text(&span["name"]),
        kind: number(&span["kind"]),
        attributes: attributes(&span["attributes"]),
        status: number(&span["status"]["code"]),
        links: links.collect(),
        nanoseconds: (
            number(&span["startTimeUnixNano"]),
            number(&span["endTimeUnixNano"]),
        ),
        resource: resource.clone(),
    }
}

fn attributes(pairs: &Value) -> BTreeMap<String, Value> {
    let value = |value: &Value| match value.as_object().and_then(|it| it.iter().next()) {
        Some((kind, text)) if kind == "intValue" => {
            let number: i64 = text.as_str().unwrap().parse().unwrap();
            json!(number)
        }
        Some((_, value)) => value.clone(),
        None => Value::Null,
    };
    let pair = |pair: &Value| {
        (
            pair["key"].as_str().unwrap().to_owned(),
            value(&pair["value"]),
        )
    };
    list(pairs).map(pair).collect()
}

fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

/// A `traceparent` in its parts.
fn parts(text: &str) -> (&str, &str, &str) {
    (&text[3..35], &text[36..52], &text[53..])
}

fn has(span: &Span, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        let found = span.attributes.get(name).unwrap_or(&Value::Null);
        assert_eq!(found, value, "{name} of {span:#?}");
    }
}

#[test]
fn one_trace_leads_from_a_proxy_through_the_sidecar_to_the_app() {
    let collector = Collector::start("from-a-proxy");
    let app = FakeApp::agreeable();
    // Without paths, because this one names a user.
    let sections = collector.section("service = \"shop\"\n") + "[log]\naccess = \"all\"\n";
    let rig = Rig::with(&app.url(), TRUSTING, &sections);
    let session = rig.login("alice");
    let bearer = session.bearer();
    let lines = [
        ("Authorization", bearer.as_str()),
        ("traceparent", RECORDED),
    ];
    let target = format!("/shop/{}?token={}", session.openid, session.access);
    let answer = rig.request("GET", &target, &lines, b"");
    assert_eq!(answer.status, 200);

    let spans = collector.of_trace(TRACE, 2);
    let (exchange, call) = (only(&spans, "GET default"), only(&spans, "GET"));
    assert_eq!((exchange.kind, call.kind), (SERVER, CLIENT));
    assert_eq!(exchange.parent, RECORDED[36..52]);
    assert_eq!(call.parent, exchange.id);
    let request = app.only_request();
    let told = parts(request.header("traceparent").unwrap());
    assert_eq!(told, (TRACE, call.id.as_str(), "01"));
    has(
        exchange,
        &json!({
            "http.request.method": "GET", "http.response.status_code": 200, "http.route": "default",
            "url.scheme": "http", "network.protocol.version": "1.1", "error.type": null,
            "wx_sidecar.request_id": answer.header("x-request-id"),
        }),
    );
    let address = app.url();
    let (_, port) = address.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    has(
        call,
        &json!({
            "http.request.method": "GET", "http.response.status_code": 200,
            "server.address": "127.0.0.1", "server.port": port, "error.type": null,
        }),
    );
    assert_eq!((exchange.status, call.status), (0, 0));
    // Each reads the clock when it has ended, and the exchange ends after the call in it. When they began is reckoned from
    // there, by how long they took, so that of two beginnings it is not sure which is told as the earlier.
    assert!(call.nanoseconds.1 <= exchange.nanoseconds.1);
    let took = |span: &Span| span.nanoseconds.1.checked_sub(span.nanoseconds.0);
    assert!(took(call).is_some() && took(call) <= took(exchange));
    for (name, value) in [
        ("service.name", "shop"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("wechat.appid", APPID),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(exchange.resource[name], value, "{name}");
    }

    // The login has a trace of its own.
    let login = collector.named("POST wx:login");
    let spans = collector.of_trace(&login.trace, 2);
    let code = only(&spans, "GET /sns/jscode2session");
    assert_eq!(
        (code.kind, code.parent.as_str()),
        (CLIENT, login.id.as_str())
    );
    assert_eq!((login.parent.as_str(), login.kind), ("", SERVER));
    has(
        code,
        &json!({
            "wechat.cgi_path": "/sns/jscode2session", "wechat.errcode": 0, "http.request.method": "GET",
            "http.response.status_code": 200, "server.address": "127.0.0.1", "server.port": rig.sim.addr().port(),
        }),
    );
    assert_no_user(&collector, &session.openid);
}

/// What it wrote is an output, which `tests/secrets.rs` searches too.
fn assert_no_user(collector: &Collector, openid: &str) {
    let text = fs::read_to_string(&collector.file).unwrap();
    assert!(text.contains("spanId"));
    for hidden in [openid, "token=", "Bearer", "/shop/"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
}

#[test]
fn what_a_stranger_says_of_recording_does_not_count_and_its_trace_is_linked_to() {
    let collector = Collector::start("of-a-stranger");
    let app = FakeApp::agreeable();
    let open = "auth = \"none\"";
    let rig = Rig::with(&app.url(), open, &collector.section("sample = \"0%\"\n"));
    let lines = [("traceparent", RECORDED)];
    assert_eq!(rig.request("GET", "/a", &lines, b"").status, 200);
    let request = app.only_request();
    assert_eq!(parts(request.header("traceparent").unwrap()).2, "00");

    rig.reload("\"0%\"", "\"100%\"");
    assert_eq!(rig.request("GET", "/b", &lines, b"").status, 200);
    let span = collector.named("GET default");
    assert_ne!(span.trace, TRACE);
    assert_eq!(span.parent, "");
    let link = (TRACE.to_owned(), RECORDED[36..52].to_owned());
    assert_eq!(span.links, [link]);
    let not_recorded = RECORDED.replace("-01", "-00");
    let lines = [("traceparent", not_recorded.as_str())];
    let section = collector.section("clients = \"continue\"\n");
    let rig = Rig::with(&app.url(), open, &section);
    assert_eq!(rig.request("GET", "/c", &lines, b"").status, 200);
    let spans = collector.of_trace(TRACE, 2);
    assert_eq!(only(&spans, "GET default").parent, RECORDED[36..52]);
    // The first request was never recorded: what came of three is two traces.
    assert_eq!(collector.spans().len(), 4, "{:#?}", collector.spans());
}

#[test]
fn what_a_trusted_proxy_says_of_recording_counts_whatever_the_share() {
    let collector = Collector::start("of-a-proxy");
    let app = FakeApp::agreeable();
    // They live until all is seen: what a request came to is recorded behind its answer.
    let mut rigs = Vec::new();
    for (share, flags, other) in [("0%", "01", "02"), ("100%", "00", "01")] {
        let sections = collector.section(&format!("sample = \"{share}\"\n"));
        let rig = Rig::with(&app.url(), TRUSTING, &sections);
        for (flags, trace) in [(flags, TRACE), (other, "1bf7651916cd43dd8448eb211c80319d")] {
            let line = format!("00-{trace}-b7ad6b7169203331-{flags}");
            let answer = rig.request("GET", "/a", &[("traceparent", &line)], b"");
            assert_eq!(answer.status, 200);
        }
        rigs.push(rig);
    }
    let recorded = |trace| collector.of_trace(trace, 2).len();
    assert_eq!(recorded(TRACE), 2);
    assert_eq!(recorded("1bf7651916cd43dd8448eb211c80319d"), 2);
    assert_eq!(collector.spans().len(), 4);
}

#[test]
fn the_apps_calls_to_wechat_are_in_the_apps_trace() {
    let collector = Collector::start("of-the-app");
    let rig = Rig::with("http://127.0.0.1:9", "", &collector.section(""));
    let phone_code = rig.sim.issue_phone_code("alice");
    canary(&phone_code);
    canary(&rig.sim.phone_number("alice"));
    let body = json!({ "code": phone_code }).to_string();
    let lines = [("traceparent", RECORDED)];
    assert_eq!(rig.call("POST", CALL, &lines, body.as_bytes()).status, 200);

    let spans = collector.of_trace(TRACE, 3);
    let named = |name: &str, kind| {
        let found: Vec<_> = spans
            .iter()
            .filter(|span| span.name == name && span.kind == kind)
            .collect();
        assert_eq!(found.len(), 1, "{name} in {spans:#?}");
        found[0]
    };
    let name = format!("POST {CALL}");
    let (call, asked) = (named(&name, SERVER), named(&name, CLIENT));
    let token = named("POST /cgi-bin/stable_token", CLIENT);
    assert_eq!(call.parent, RECORDED[36..52]);
    assert_eq!(asked.parent, call.id);
    // It was fetched for this call.
    assert_eq!(token.parent, call.id);
    has(
        asked,
        &json!({ "wechat.cgi_path": CALL, "wechat.errcode": 0, "http.response.status_code": 200 }),
    );

    // The code is used up.
    let other = RECORDED.replace(TRACE, "1bf7651916cd43dd8448eb211c80319d");
    let lines = [("traceparent", other.as_str())];
    assert_eq!(rig.call("POST", CALL, &lines, body.as_bytes()).status, 200);
    let spans = collector.of_trace("1bf7651916cd43dd8448eb211c80319d", 2);
    let refused = spans.iter().find(|span| span.kind == CLIENT).unwrap();
    let errcode = refused.attributes["wechat.errcode"].as_i64().unwrap();
    assert_ne!(errcode, 0);
    assert_eq!(refused.status, 2);
    has(refused, &json!({ "error.type": errcode.to_string() }));
    assert!(refused.attributes["wechat.rid"].is_string(), "{refused:#?}");
}

#[test]
fn a_call_whose_app_does_not_wait_for_the_answer_is_in_the_apps_trace() {
    let collector = Collector::start("of-an-app-that-goes");
    let rig = Rig::with("http://127.0.0.1:9", "", &collector.section(""));
    let api = "/cgi-bin/get_api_domain_ip";
    rig.sim.fault(Fault::delay(api, 1, PATIENCE));
    let mut app = rig.app();
    let head = format!("GET {api} HTTP/1.1\r\nHost: x.test\r\ntraceparent: {RECORDED}\r\n\r\n");
    app.send(head.as_bytes());
    eventually("WeChat is asked", || rig.sim.calls(api) == 1);
    drop(app);
    let spans = collector.of_trace(TRACE, 2);
    let call = only(&spans, &format!("GET {api}"));
    assert_eq!(
        (call.kind, call.parent.as_str()),
        (SERVER, &RECORDED[36..52])
    );
    has(call, &json!({ "http.response.status_code": 499 }));
}

#[test]
fn a_path_that_is_not_known_is_no_name_of_a_span() {
    let collector = Collector::start("of-any-path");
    let rig = Rig::with("http://127.0.0.1:9", "", &collector.section(""));
    let lines = [("traceparent", RECORDED)];
    rig.call("POST", "/wxa/tomorrow/oSomebody", &lines, b"{}");
    let spans = collector.of_trace(TRACE, 3);
    assert!(spans.iter().any(|span| span.name == "POST other"));
    assert!(!spans.iter().any(|span| span.name.contains("tomorrow")));
}

#[test]
fn each_attempt_to_deliver_a_message_is_a_span_below_its_receipt() {
    let collector = Collector::start("of-a-message");
    let first = Signal::default();
    let was_first = first.clone();
    let app = FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            match request.header("x-wx-delivery-attempt") {
                Some("1") => {
                    was_first.give();
                    connection.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
                }
                _ => connection.write(OK),
            }
        }
    });
    canary(TOKEN);
    let push = format!(
        "[push]\ntoken = \"{TOKEN}\"\nmode = \"plaintext\"\nretry_cap = \"1s\"\ntimeout = \"60s\"\n"
    );
    let rig = Rig::with(&app.url(), "", &format!("{}{push}", collector.section("")));
    let (timestamp, nonce) = (START.as_secs().to_string(), "4711");
    let signature = sign(TOKEN, &[&timestamp, nonce]);
    let target = format!(
        "/wx/push?signature={signature}&timestamp={timestamp}&nonce={nonce}&openid={OPENID}"
    );
    let message = json!({
        "ToUserName": "gh_1", "FromUserName": OPENID, "CreateTime": START.as_secs(),
        "MsgType": "event", "Event": "user_enter_tempsession",
    });
    let answer = rig.request("POST", &target, &[], message.to_string().as_bytes());
    assert_eq!(answer.text(), "success");
    assert!(first.wait());

    let receipt = collector.named("POST wx:push");
    let spans = collector.of_trace(&receipt.trace, 3);
    let attempts = app.requests(2);
    for (attempt, (status, kind)) in attempts.iter().zip([(500, 2), (200, 0)]) {
        let told = parts(attempt.header("traceparent").unwrap());
        assert_eq!((told.0, told.2), (receipt.trace.as_str(), "01"));
        let span = spans.iter().find(|span| span.id == told.1).unwrap();
        assert_eq!((span.kind, span.status), (CLIENT, kind), "{span:#?}");
        assert_eq!(span.parent, receipt.id);
        assert_eq!(span.name, "POST /wx/push");
        let number: u32 = attempt
            .header("x-wx-delivery-attempt")
            .unwrap()
            .parse()
            .unwrap();
        has(
            span,
            &json!({
                "http.response.status_code": status, "wx_sidecar.push.attempt": number,
                "wechat.push.type": "event", "wechat.push.event": "user_enter_tempsession",
            }),
        );
    }
    let text = fs::read_to_string(&collector.file).unwrap();
    assert!(!text.contains(OPENID), "{text}");
}

#[test]
fn an_app_that_is_away_is_an_error_of_the_call_and_of_the_exchange() {
    let collector = Collector::start("of-no-app");
    let rig = Rig::with("http://127.0.0.1:9", TRUSTING, &collector.section(""));
    let answer = rig.request("PURGE", "/a", &[("traceparent", RECORDED)], b"");
    assert_eq!(answer.status, 502);
    let spans = collector.of_trace(TRACE, 2);
    let (exchange, call) = (only(&spans, "_OTHER default"), only(&spans, "_OTHER"));
    let error = &call.attributes["error.type"];
    assert_eq!(&exchange.attributes["error.type"], error);
    assert_eq!(error, "upstream-unreachable");
    assert_eq!((exchange.status, call.status), (2, 2));
    has(call, &json!({ "http.response.status_code": null }));
    has(exchange, &json!({ "http.response.status_code": 502 }));
}

#[test]
fn a_clients_mistake_is_no_error_of_ours() {
    let collector = Collector::start("of-a-mistake");
    let rig = Rig::with(
        "http://127.0.0.1:9",
        "trusted_proxies = [\"127.0.0.1\"]",
        &collector.section(""),
    );
    let answer = rig.request("GET", "/a", &[("traceparent", RECORDED)], b"");
    assert_eq!(answer.status, 401);
    let span = &collector.of_trace(TRACE, 1)[0];
    assert_eq!(span.status, 0);
    has(
        span,
        &json!({ "http.response.status_code": 401, "error.type": null }),
    );
}

#[test]
fn a_medium_is_fetched_in_the_trace_of_who_asked_first() {
    let collector = Collector::start("of-a-medium");
    let stage = Gallery::with(&collector.section(""));
    let answer = stage.rig.get_as(&stage.session, &stage.path);
    assert_eq!(answer.status, 200);
    let fetch = collector.named("media fetch");
    let asked = collector.named("GET /cgi-bin/media/get");
    let exchange = collector.named("GET wx:media");
    assert_eq!(fetch.kind, INTERNAL);
    assert_eq!(asked.parent, fetch.id);
    assert_eq!(fetch.parent, exchange.id);
    assert_eq!(asked.trace, exchange.trace);

    // The app has uploaded it before.
    let name = "POST /cgi-bin/media/upload";
    let trace = collector.named(name).trace;
    let spans = collector.of_trace(&trace, 3);
    let of_kind = |kind| {
        spans
            .iter()
            .find(|span| span.name == name && span.kind == kind)
    };
    let (call, asked) = (of_kind(SERVER).unwrap(), of_kind(CLIENT).unwrap());
    assert_eq!(asked.parent, call.id);
}

/// A sidecar as a process, with these variables of the environment.
fn run(upstream: &str, sections: &str, variables: &[&str]) -> Run {
    run_with("auth = \"none\"", upstream, sections, variables)
}

/// The same, with these lines for `[inbound]`.
fn run_with(inbound: &str, upstream: &str, sections: &str, variables: &[&str]) -> Run {
    let text = rig::configuration("http://127.0.0.1:9", upstream, inbound, sections);
    let wrapper = [&["env"], variables].concat();
    Run::under(&wrapper, &write_configuration(&text))
}

fn ask(run: &Run, count: usize) {
    let mut client = Client::connect(run.inbound);
    for _ in 0..count {
        assert_eq!(client.request("GET", "/a", &[], b"").status, 200);
    }
}

fn spans_of(run: &Run, result: &str) -> f64 {
    let series = format!("wx_sidecar_trace_spans_total{{result=\"{result}\"}}");
    rig::metric_at(run.admin, &series)
}

#[test]
fn the_variables_of_opentelemetry_say_what_the_configuration_leaves_open() {
    let (app, collector) = (FakeApp::agreeable(), FakeApp::answering(TAKEN));
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT={}", collector.url());
    canary("canary-of-a-collector");
    let variables = [
        endpoint.as_str(),
        "OTEL_TRACES_SAMPLER=always_on",
        "OTEL_SERVICE_NAME=named-by-the-environment",
        "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=staging",
        "OTEL_EXPORTER_OTLP_HEADERS=x-collector-key=canary-of-a-collector",
    ];
    let run = run(&app.url(), "", &variables);
    ask(&run, 1);
    let batch = &collector.requests(1)[0];
    assert_eq!((batch.method(), batch.target()), ("POST", "/v1/traces"));
    assert_eq!(batch.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(
        batch.header("x-collector-key"),
        Some("canary-of-a-collector")
    );
    let body = String::from_utf8_lossy(&batch.body);
    for told in ["named-by-the-environment", "staging", APPID] {
        assert!(body.contains(told), "{told}");
    }
    eventually("both spans are counted", || {
        spans_of(&run, "exported") == 2.0
    });
}

#[test]
fn what_waits_at_the_end_is_sent_before_it() {
    let (app, collector) = (FakeApp::agreeable(), FakeApp::answering(TAKEN));
    let run = run(&app.url(), &section(&collector.url(), ""), &[]);
    ask(&run, 20);
    run.process.signal("TERM");
    let said = run.process.lines_to("stopped").concat();
    let (code, _) = run.process.end();
    assert_eq!(code, 0);
    let bytes: usize = collector
        .requests(0)
        .iter()
        .map(|batch| batch.body.len())
        .sum();
    // The end does not wait for long, and whoever stands still meanwhile goes without; but that is said.
    let is_late = said.contains("the collector does not take the last spans in time");
    assert!(
        bytes > 40 * 100 || is_late,
        "{bytes} bytes are not 40 spans"
    );
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let app = FakeApp::agreeable();
    let variables = ["OTEL_EXPORTER_OTLP_TIMEOUT=300"];
    let run = run(&app.url(), &section("http://127.0.0.1:9", ""), &variables);
    ask(&run, 10);
    eventually("they are given up", || spans_of(&run, "failed") == 20.0);
    run.process.line_with("the collector does not take spans");
    assert_eq!(spans_of(&run, "exported"), 0.0);
    ask(&run, 1);
    run.process.signal("TERM");
    assert_eq!(run.process.end().0, 0);
}

#[test]
fn a_collector_that_does_not_answer_holds_a_bounded_number_of_spans() {
    let app = FakeApp::agreeable();
    let (asked, never) = (Signal::default(), Signal::default());
    let (was_asked, waits) = (asked.clone(), never.clone());
    let collector = FakeApp::start(move |connection| {
        if connection.read_request().is_some() {
            was_asked.give();
            waits.wait();
        }
    });
    let run = run(&app.url(), &section(&collector.url(), ""), &[PATIENT]);
    ask(&run, 300);
    assert!(asked.wait());
    ask(&run, 2_000);
    // A batch is under way, and a queue full waits behind it. The last exchange is recorded behind its answer.
    eventually("the others are dropped", || {
        spans_of(&run, "dropped") >= 4_600.0 - 512.0 - 2_048.0
    });
    assert_eq!(spans_of(&run, "exported"), 0.0);
    run.process.signal("TERM");
    assert_eq!(run.process.end().0, 0);
    never.give();
}

/// How often each of these batches came.
fn times(batches: &[Request]) -> BTreeSet<usize> {
    let times = |of: &Request| batches.iter().filter(|it| it.body == of.body).count();
    batches.iter().map(times).collect()
}

#[test]
fn a_batch_that_is_refused_for_now_is_sent_again_and_one_that_is_wrong_is_not() {
    const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    const WRONG: &[u8] = b"HTTP/1.1 400 Wrong\r\nContent-Length: 0\r\n\r\n";
    let app = FakeApp::agreeable();
    // Two spans may come in one batch or in two, so each batch is judged for itself: it is taken when it comes again.
    let known = Mutex::new(BTreeSet::new());
    let is_wrong = Arc::new(AtomicBool::new(false));
    let judged = Arc::clone(&is_wrong);
    let collector = FakeApp::start(move |connection| {
        while let Some(batch) = connection.read_request() {
            let is_new = known.lock().unwrap().insert(batch.body);
            let answer = match (judged.load(Ordering::SeqCst), is_new) {
                (true, _) => WRONG,
                (false, true) => BUSY,
                (false, false) => TAKEN,
            };
            connection.write(answer);
        }
    });
    let run = run(&app.url(), &section(&collector.url(), ""), &[PATIENT]);
    ask(&run, 1);
    eventually("it was sent again", || spans_of(&run, "exported") == 2.0);
    let batches = collector.requests(2);
    assert_eq!(times(&batches), BTreeSet::from([2]), "the same batch");
    assert_eq!(spans_of(&run, "failed"), 0.0);

    is_wrong.store(true, Ordering::SeqCst);
    ask(&run, 1);
    eventually("it was given up", || spans_of(&run, "failed") == 2.0);
    let given_up = &collector.requests(0)[batches.len()..];
    assert_eq!(times(given_up), BTreeSet::from([1]));
    is_wrong.store(false, Ordering::SeqCst);
    ask(&run, 1);
    eventually("the next was taken", || spans_of(&run, "exported") == 4.0);
    let next = &collector.requests(0)[batches.len() + given_up.len()..];
    assert_eq!(times(next), BTreeSet::from([2]));
    assert_eq!(spans_of(&run, "failed"), 2.0);
}

#[test]
fn a_collector_that_comes_back_gets_what_waited_for_it() {
    let app = FakeApp::agreeable();
    let mut collector = Collector::start("that-comes-back");
    let run = run_with(TRUSTING, &app.url(), &collector.section(""), &[PATIENT]);
    let get = |traceparent: &str| {
        let lines = [("traceparent", traceparent)];
        let answer = Client::connect(run.inbound).request("GET", "/a", &lines, b"");
        assert_eq!(answer.status, 200);
    };
    get(RECORDED);
    collector.of_trace(TRACE, 2);
    let port = collector.app.port();
    collector.app.kill();

    get(&RECORDED.replace(TRACE, "1bf7651916cd43dd8448eb211c80319d"));
    let collector = Collector::start_at("that-came-back", Some(port));
    collector.of_trace("1bf7651916cd43dd8448eb211c80319d", 2);
}

/// How many spans of a trace a collector that is played has got.
fn count_of(collector: &FakeApp, trace: &str) -> usize {
    let id = u128::from_str_radix(trace, 16).unwrap().to_be_bytes();
    let batches = collector.requests(0);
    let counts = batches.iter().map(|batch| {
        let places = batch.body.windows(id.len());
        places.filter(|it| *it == id).count()
    });
    counts.sum()
}

#[test]
fn a_reload_moves_spans_to_another_collector_and_loses_none() {
    let app = FakeApp::agreeable();
    let (first, second) = (FakeApp::answering(TAKEN), FakeApp::answering(TAKEN));
    let rig = Rig::with(&app.url(), TRUSTING, &section(&first.url(), ""));
    let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(32));
    let get = |client: &mut Client, trace: &str| {
        let line = RECORDED.replace(TRACE, trace);
        let answer = client.request("GET", "/a", &[("traceparent", &line)], b"");
        assert_eq!(answer.status, 200);
    };
    // What the first came to is recorded before the same connection has a second.
    let mut client = rig.client();
    get(&mut client, &a);
    get(&mut client, &b);
    rig.reload(&first.url(), &second.url());
    get(&mut rig.client(), &c);
    let exported = "wx_sidecar_trace_spans_total{result=\"exported\"}";
    eventually("all six are there", || rig.metric(exported) == 6.0);
    // In however many batches; what the second came to may be recorded after the reload.
    let counts = |trace: &str| [&first, &second].map(|collector| count_of(collector, trace));
    assert_eq!(counts(&a), [2, 0]);
    assert_eq!(counts(&b).iter().sum::<usize>(), 2);
    assert_eq!(counts(&c), [0, 2]);
    for batch in [first.requests(0), second.requests(0)].concat() {
        keep("spans.log", &String::from_utf8_lossy(&batch.body));
    }
}
