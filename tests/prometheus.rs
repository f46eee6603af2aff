//! What operators get: metrics that Prometheus takes, alerts that fire when they should and not when they should not, and a
//! dashboard whose every panel shows something.
//!
//! Rules are tested in three ways. promtool runs the cases of `rules_test.yaml`; a real Prometheus loads the rules and
//! evaluates them; and the series in those cases are compared with those that a sidecar really has, because a rule about
//! a metric that nobody has is silent, and so is a test of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::push::PushOptions;
use wx_sidecar::sim::{Fault, Limits, OpenDataKind, OpenDataOrder};
use wx_sidecar::source::Source;

use crate::fake_app::{FakeApp, OK};
use crate::http_client::Client;
use crate::media::{NO_APP, errcode, form, picture};
use crate::patience::{PATIENCE, comes_true, comes_true_within, eventually};
use crate::prometheus_server::{Prometheus, Target, promtool};
use crate::redis_server::Server;
use crate::redis_store::log_in;
use crate::rig::{APPID, Rig, Session, canary};
use crate::tls::{Authority, write_pair};

const PUSH_TOKEN: &str = "ca9a41pushtoken02";
const PUSH_KEY: &str = "ca9a41bbcdefghijklmnopqrstuvwxyz0123456789B";
const CODE: &str = "/wxa/getwxacode";
const CHECK: &str = "/wxa/msg_sec_check";
const JSON: (&str, &str) = ("Content-Type", "application/json");
/// The labels of targets, which are not ours.
const PLACE: [&str; 5] = ["instance", "job", "namespace", "pod", "tenant"];
/// Families that have a series only when something is broken that this test does not break.
const UNSEEN: [&str; 1] = ["wx_sidecar_media_cache_errors_total"];
const LOADS: &str = "wx_sidecar_config_loads_total{result=\"success\"}";
/// Panels that show zero as long as nothing goes wrong, and nothing does here.
const QUIET: [&str; 21] = [
    "US: refused",
    "APP: failing",
    "WECHAT: failing",
    "Taken by another",
    "40164",
    "AppSecret",
    "Token ends in",
    "Fetches of the access_token",
    "Changes of breakers",
    "Sent once more",
    "Panics",
    "Kept from the store",
    "Client connections",
    "Oldest waits",
    "Lowest quota",
    "Caller tokens",
    "Connections to it",
    "Inbox full to",
    "What waits",
    "Requests in flight",
    "Lines of the log that were dropped",
];

fn monitoring(name: &str) -> String {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/k8s/monitoring");
    fs::read_to_string(format!("{directory}/{name}")).unwrap()
}

/// The names of all alerts.
fn alerts(rules: &str) -> Vec<&str> {
    let lines = rules.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("- alert: "))
        .collect()
}

#[test]
fn the_rules_are_valid_and_do_what_their_cases_say() {
    let printed = promtool(
        &["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"],
        "",
    );
    let count = alerts(&monitoring("rules.yaml")).len();
    assert!(count > 0);
    assert!(
        printed.contains(&format!("{count} rules found")),
        "{printed}"
    );
    let printed = promtool(&["test", "rules", "rules_test.yaml"], "");
    assert!(printed.contains("SUCCESS"), "{printed}");
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let cases = monitoring("rules_test.yaml");
    let mut lines = cases.lines().map(str::trim);
    let mut seen = BTreeSet::new();
    while let Some(line) = lines.next() {
        if let Some(alert) = line.strip_prefix("alertname: ") {
            let expected = lines.next().unwrap();
            assert!(expected.starts_with("exp_alerts:"), "{alert}: {expected}");
            seen.insert((alert, expected == "exp_alerts: []"));
        }
    }
    for alert in alerts(&monitoring("rules.yaml")) {
        assert!(seen.contains(&(alert, false)), "{alert} never fires");
        assert!(seen.contains(&(alert, true)), "{alert} is never silent");
    }
}

#[test]
fn the_operator_gets_the_same_rules() {
    let (rules, resource) = (monitoring("rules.yaml"), monitoring("prometheusrule.yaml"));
    let (head, spec) = resource.split_once("\nspec:\n").unwrap();
    assert!(head.contains("\nkind: PrometheusRule\n"), "{head}");
    let groups = &rules[rules.find("\ngroups:").unwrap() + 1..];
    let indented = |line: &str| match line {
        "" => "\n".to_owned(),
        line => format!("  {line}\n"),
    };
    let expected: String = groups.lines().map(indented).collect();
    assert!(spec == expected, "`make monitoring` makes them the same");
}

#[test]
fn every_alert_leads_to_its_section_of_the_runbook() {
    let (rules, runbook) = (monitoring("rules.yaml"), monitoring("RUNBOOK.md"));
    let sections = Vec::from_iter(runbook.lines().filter_map(|line| line.strip_prefix("## ")));
    let alerts = alerts(&rules);
    assert_eq!(sorted(&sections), sorted(&alerts));
    let urls = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "));
    let anchors = Vec::from_iter(urls.map(|url| url.split_once("/RUNBOOK.md#").unwrap().1));
    let expected = Vec::from_iter(alerts.iter().map(|alert| alert.to_lowercase()));
    assert_eq!(anchors, expected);
    // Links between sections lead somewhere too.
    for link in runbook.split("](#").skip(1) {
        let anchor = link.split_once(')').unwrap().0;
        assert!(expected.iter().any(|known| known == anchor), "{anchor}");
    }
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

/// What somebody looks at: all panels, those in rows that are closed too.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        panels.push(panel);
        panels.extend(panel["panels"].as_array().into_iter().flatten());
    }
    panels
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name}: {value}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&monitoring("grafana-dashboard.json")).unwrap()
}

#[test]
fn the_dashboard_is_bound_to_no_installation() {
    let dashboard = dashboard();
    assert!(dashboard["id"].is_null(), "an id is one Grafana's own");
    assert_eq!(dashboard["uid"], "wx-sidecar");
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names = Vec::from_iter(variables.iter().map(|variable| text(variable, "name")));
    assert_eq!(names, ["DS_PROMETHEUS", "namespace", "tenant", "instance"]);
    assert_eq!(variables[0]["type"], "datasource");
    let source = json!({ "type": "prometheus", "uid": "${DS_PROMETHEUS}" });
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is another's"
        );
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"], source, "{title}");
        assert!(
            !text(panel, "description").is_empty(),
            "{title} says nothing of itself"
        );
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"], source, "{title}");
            let expr = text(target, "expr");
            assert!(
                !expr.contains("job=") && !expr.contains("job=~"),
                "{title}: {expr}"
            );
            let series = expr.matches('{').count();
            let chosen = r#"namespace=~"$namespace",tenant=~"$tenant",instance=~"$instance""#;
            assert_eq!(expr.matches(chosen).count(), series, "{title}: {expr}");
        }
    }
    assert_nothing_overlaps(&dashboard);
}

fn assert_nothing_overlaps(dashboard: &Value) {
    let mut taken = BTreeMap::new();
    for panel in panels(dashboard) {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{} is too wide", panel["title"]);
        for (x, y) in (at("x")..at("x") + at("w"))
            .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            let before = taken.insert((x, y), &panel["title"]);
            assert!(before.is_none(), "{} lies over {before:?}", panel["title"]);
        }
    }
}

/// Two sidecars at work: `shop-0` with an app, Redis and everything there is to configure; `shop-1` with TLS, whose address
/// WeChat does not know.
struct Shop {
    app: FakeApp,
    rig: Rig,
    #[expect(dead_code, reason = "ends with the test")]
    redis: Server,
    session: Session,
    secure: Secure,
    configuration: Configuration,
}

/// A file that a sidecar follows, as `wx-sidecar run` has it. What is handed over in the process has no hash.
struct Configuration {
    path: PathBuf,
    #[expect(dead_code, reason = "removes the directory")]
    directory: TempDir,
}

impl Configuration {
    fn of(rig: &Rig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sidecar.toml");
        fs::write(&path, rig.config()).unwrap();
        let source: Source = path.to_str().unwrap().parse().unwrap();
        let (loaded, feed) = source.begin().unwrap_or_else(|report| panic!("{report}"));
        rig.sidecar().follow(feed, &loaded.effective);
        Self { path, directory }
    }

    fn change(&self, rig: &Rig) {
        let before = rig.metric(LOADS);
        let mut text = fs::read_to_string(&self.path).unwrap();
        text.push_str("# again\n");
        fs::write(&self.path, text).unwrap();
        eventually("it is loaded", || rig.metric(LOADS) > before);
    }
}

struct Secure {
    rig: Rig,
    client: Arc<ClientConfig>,
    #[expect(dead_code, reason = "removes the directory")]
    directory: TempDir,
}

impl Secure {
    fn new(app: &FakeApp) -> Self {
        let authority = Authority::new();
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path(), &authority.certify("localhost"));
        let at = directory.path().display();
        let sections = format!(
            "[inbound.tls]\ncert_file = \"{at}/cert.pem\"\nkey_file = \"{at}/key.pem\"\n[wechat.breaker]\nenabled = false\n"
        );
        let rig = Rig::with(&app.url(), "auth = \"none\"", &sections);
        rig.sim.fault(Fault::for_ever(CODE, errcode(40164)));
        Self {
            rig,
            client: authority.client(rustls::ALL_VERSIONS),
            directory,
        }
    }

    /// A request over TLS, one without that is refused, and a call that WeChat refuses.
    fn visit(&self) {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        let tcp = TcpStream::connect(self.rig.address()).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(session, tcp);
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        let mut plain = TcpStream::connect(self.rig.address()).unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // An alert of TLS, and the end; or the end at once.
        let _ = plain.read_to_end(&mut answer);
        self.call();
    }

    fn call(&self) {
        let answer = self.rig.call("POST", CODE, &[], b"{}");
        assert_eq!(answer.json()["errcode"], 40164, "{}", answer.text());
    }
}

impl Shop {
    fn open() -> Self {
        canary(PUSH_TOKEN);
        canary(PUSH_KEY);
        let app = FakeApp::start(|connection| {
            while let Some(request) = connection.read_request().filter(|it| it.complete) {
                let is_refused = request.target() == "/never" || request.target() == "/boom";
                connection.write(if is_refused {
                    b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
                } else {
                    OK
                });
            }
        });
        let redis = Server::start(&[]);
        let sections = format!(
            "[store]\nkind = \"redis\"\nurl = \"{}\"\ntimeout = \"1s\"\n\
             [push]\ntoken = \"{PUSH_TOKEN}\"\naes_key = \"{PUSH_KEY}\"\nretry_cap = \"1s\"\nretry_for = \"1s\"\n\
             [[push.route]]\ntype = \"text\"\ncontent = \"ask*\"\ndeliver = \"/ask\"\nreply = \"wait\"\n\
             [[push.route]]\ntype = \"text\"\ncontent = \"never*\"\ndeliver = \"/never\"\n\
             [media]\nbase_url = \"https://mini.example.com\"\nmemory_cache_size = \"300KiB\"\n[media.check]\nscene = \"social\"\n\
             [[route]]\npath = \"/comments\"\ntext_check = {{ field = \"content\", scene = \"comment\" }}\n\
             [[route]]\npath = \"/down\"\nupstream = \"{NO_APP}\"\n",
            redis.url()
        );
        let rig = Rig::with(&app.url(), "", &sections);
        eventually("Redis is there", || {
            rig.metric("wx_sidecar_store_up") == 1.0
        });
        eventually("messages are taken", || {
            rig.metric("wx_sidecar_push_inbox_up") == 1.0
        });
        let to = format!("http://{}/wx/push", rig.sidecar().inbound_addr());
        let appid = AppId::parse(APPID).unwrap();
        let options = PushOptions::new(to, appid, Secret::new(PUSH_TOKEN), Secret::new(PUSH_KEY));
        let clock = rig.clock.clone();
        rig.sim.push_to(PushOptions { clock, ..options }).unwrap();
        rig.sim.limit(
            CODE,
            Limits {
                daily: Some(1),
                per_minute: None,
            },
        );
        let session = log_in(&rig, "alice");
        let secure = Secure::new(&app);
        let configuration = Configuration::of(&rig);
        Self {
            app,
            rig,
            redis,
            session,
            secure,
            configuration,
        }
    }

    fn targets(&self) -> Vec<Target> {
        let target = |rig: &Rig, pod: &str| Target {
            admin: rig.sidecar().admin_addr().to_string(),
            labels: json!({ "namespace": "shops", "pod": pod, "tenant": "acme" }),
        };
        vec![
            target(&self.rig, "shop-0"),
            target(&self.secure.rig, "shop-1"),
        ]
    }

    /// Everything that people, the app and WeChat do in a day.
    fn day(&self) {
        self.people();
        self.people_with_data();
        self.the_app();
        self.wechat();
        self.secure.visit();
        self.configuration.change(&self.rig);
    }

    fn people(&self) {
        let rig = &self.rig;
        // Redis may stand still for a moment, on a machine that is busy.
        eventually("bob refreshes his session", || {
            rig.refresh(&log_in(rig, "bob").refresh).status == 200
        });
        eventually("a code that is none is refused", || {
            let is_up = rig.metric("wx_sidecar_store_up") == 1.0;
            is_up && rig.login_with("no-such-code").status == 401
        });
        for (target, status) in [
            ("/a", 200),
            ("/boom", 500),
            ("/down", 502),
            ("/wx/session", 200),
        ] {
            let answer = rig.get_as(&self.session, target);
            assert_eq!(answer.status, status, "{target}: {}", answer.text());
        }
        rig.request("GET", "/a", &[], b"")
            .problem(401, "token-missing");
    }

    fn people_with_data(&self) {
        let made = self
            .rig
            .sim
            .encrypt(&OpenDataOrder::new("alice", OpenDataKind::WeRun));
        let made = made.unwrap();
        let good = json!({ "encryptedData": made.encrypted_data, "iv": made.iv }).to_string();
        let bad = json!({ "encryptedData": made.encrypted_data, "iv": "AAAAAAAAAAAAAAAAAAAAAA==" });
        self.post("/wx/open-data", &[JSON], good.as_bytes(), 200);
        self.post("/wx/open-data", &[JSON], bad.to_string().as_bytes(), 401);
        self.post("/comments", &[JSON], br#"{"content":"fine"}"#, 200);
        self.post("/comments", &[JSON], br#"{"content":"[risky]"}"#, 422);
        let file = "name=\"media\"; filename=\"a.png\"\r\nContent-Type: image/png";
        let parts = ("Content-Type", "multipart/form-data; boundary=b");
        for length in [100_000, 100_001, 100_002, 100_003] {
            let body = form("b", &[(file, &picture(length))]);
            let told: Value =
                serde_json::from_str(&self.post("/wx/media", &[parts], &body, 200)).unwrap();
            let id = text(&told, "media_id");
            for _ in 0..2 {
                let answer = self.rig.get_as(&self.session, &format!("/wx/media/{id}"));
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    }

    fn post(&self, target: &str, headers: &[(&str, &str)], body: &[u8], status: u16) -> String {
        let bearer = self.session.bearer();
        let headers = [&[("Authorization", &*bearer)], headers].concat();
        let answer = self.rig.request("POST", target, &headers, body);
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        answer.text().to_owned()
    }

    fn the_app(&self) {
        // The first is the day's quota, the second finds it used up, the third is not made.
        for _ in 0..3 {
            self.rig
                .call("POST", CODE, &[JSON], br#"{"path":"pages/index"}"#);
        }
        let answer = self.rig.call("GET", "/cgi-bin/stable_token", &[], b"");
        assert!(answer.status < 500, "{}", answer.text());
        let quota = format!(r#"{{"cgi_path":"{CHECK}"}}"#);
        self.rig.call(
            "POST",
            "/cgi-bin/openapi/quota/get",
            &[JSON],
            quota.as_bytes(),
        );
    }

    fn wechat(&self) {
        let buried = self.rig.metric("wx_sidecar_push_given_up_total");
        for content in ["hello", "ask me", "never mind"] {
            let order = json!({ "kind": "text", "user": "carol", "content": content }).to_string();
            let mut sim = Client::connect(self.rig.sim.addr());
            let answer = sim.request("POST", "/_sim/push", &[JSON], order.as_bytes());
            assert_eq!(answer.json()["accepted"], true, "{}", answer.text());
        }
        let forged = self.rig.request(
            "POST",
            "/wx/push?signature=0&timestamp=0&nonce=0",
            &[],
            b"{}",
        );
        forged.problem(401, "push-refused");
        // What the app does not take is given up once its time is over.
        let waits = || {
            self.rig
                .metric("wx_sidecar_push_deliveries_total{result=\"failed\"}")
                > 0.0
        };
        eventually("the app refuses it", waits);
        self.rig.advance(Duration::from_secs(2));
        eventually("it is given up", || {
            self.rig.metric("wx_sidecar_push_given_up_total") > buried
        });
    }
}

/// An expression as Grafana would send it: of everything, and of as long as this test takes.
fn as_sent(expr: &str) -> String {
    let all = ["$namespace", "$tenant", "$instance"];
    let expr = all
        .iter()
        .fold(expr.to_owned(), |expr, name| expr.replace(name, ".*"));
    let sent = expr
        .replace("$__rate_interval", "10m")
        .replace("$__range", "10m");
    assert!(!sent.contains('$'), "{sent}");
    sent
}

/// Which queries of the dashboard show nothing: `title: query`.
fn dark(prometheus: &Prometheus, dashboard: &Value) -> Vec<String> {
    let mut dark = Vec::new();
    for panel in panels(dashboard) {
        let title = text(panel, "title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let is_quiet = QUIET.contains(&title);
            let mut expr = as_sent(text(target, "expr"));
            if !is_quiet {
                // That it is zero otherwise is no answer.
                expr = expr.replace(" or vector(0)", "");
            }
            if UNSEEN.iter().any(|family| expr.contains(family)) {
                continue;
            }
            let values = prometheus.query(&expr);
            let counts = |value: f64| value.is_finite() && (value != 0.0 || is_quiet);
            if !values.iter().any(|(_, value)| counts(*value)) {
                dark.push(format!("{title}: {expr} is {values:?}"));
            }
        }
    }
    dark
}

#[test]
fn every_panel_shows_what_happened_and_every_rule_is_about_series_that_are_there() {
    let shop = Shop::open();
    shop.day();
    let rules = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/k8s/monitoring/rules.yaml"
    ));
    let prometheus = Prometheus::start(&shop.targets(), Some(&rules));
    prometheus.scrapes(2);
    shop.day();
    prometheus.scrapes(2);

    for rig in [&shop.rig, &shop.secure.rig] {
        let page = rig.admin("/metrics");
        assert_eq!(promtool(&["check", "metrics"], page.text()), "");
    }

    let dashboard = dashboard();
    let mut left = Vec::new();
    // Quotas are first asked for after a minute.
    let all_show = comes_true_within(2 * PATIENCE, || {
        left = dark(&prometheus, &dashboard);
        left.is_empty()
    });
    assert!(all_show, "{left:#?}");
    // What is asked for is what the last scrape brought, and one may fail on a machine that is busy.
    for variable in dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
    {
        let definition = text(variable, "definition");
        let inner = definition
            .strip_prefix("label_values(")
            .unwrap()
            .strip_suffix(')')
            .unwrap();
        let (expr, label) = inner.rsplit_once(", ").unwrap();
        eventually(definition, || {
            let values = prometheus.query(&as_sent(expr));
            values.iter().any(|(labels, _)| labels[label].is_string())
        });
    }
    let annotation = &dashboard["annotations"]["list"][0];
    eventually("the annotation is about both", || {
        let changes = prometheus.query(&as_sent(text(annotation, "expr")));
        changes.len() == 2
    });

    let mut wrong = Vec::new();
    let none_is = comes_true(|| {
        wrong = strange_series(&prometheus);
        wrong.is_empty()
    });
    assert!(none_is, "{wrong:#?}");
    assert!(shop.app.connections() > 0);
}

/// Names and labels in `rules_test.yaml`, rules and dashboard that are not those that a sidecar has.
fn strange_series(prometheus: &Prometheus) -> Vec<String> {
    let mut real = BTreeMap::<String, BTreeSet<BTreeSet<String>>>::new();
    for (labels, _) in prometheus.query("{__name__=~\"up|process_.+|wx_sidecar_.+\"}") {
        let mut labels = labels.as_object().unwrap().clone();
        let name = labels.remove("__name__").unwrap();
        let own = labels
            .keys()
            .filter(|label| !PLACE.contains(&label.as_str()));
        let shapes = real.entry(name.as_str().unwrap().to_owned()).or_default();
        shapes.insert(own.cloned().collect());
    }
    let mut wrong = Vec::new();
    let cases = monitoring("rules_test.yaml");
    let series = cases.lines().map(str::trim);
    for series in series.filter_map(|line| line.strip_prefix("- series: '")) {
        let (name, labels) = series.trim_end_matches("}'").split_once('{').unwrap();
        let labels = labels
            .split("\",")
            .map(|label| label.split_once('=').unwrap().0);
        let own = labels.filter(|label| !PLACE.contains(label));
        let own: BTreeSet<_> = own.map(str::to_owned).collect();
        let shapes = real.get(name);
        if !shapes.is_some_and(|shapes| shapes.contains(&own)) {
            wrong.push(format!("rules_test.yaml: {series}; there is {shapes:?}"));
        }
    }
    for file in ["rules.yaml", "grafana-dashboard.json"] {
        let unknown = |name: &String| !real.contains_key(name) && !UNSEEN.contains(&&**name);
        let names = families(&monitoring(file)).into_iter().filter(unknown);
        wrong.extend(names.map(|name| format!("{file}: nobody has {name}")));
    }
    wrong
}

/// All names of ours in a text.
fn families(text: &str) -> BTreeSet<String> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_of_a_name(c));
    let ours = words.filter(|word| word.starts_with("wx_sidecar_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn prometheus_evaluates_every_rule_and_an_alert_says_which_pod_it_is_about() {
    let app = FakeApp::agreeable();
    let (quiet, loud) = (Rig::new(&app.url()), Secure::new(&app));
    let _configurations = [&quiet, &loud.rig].map(Configuration::of);
    let target = |rig: &Rig, pod: &str| Target {
        admin: rig.sidecar().admin_addr().to_string(),
        labels: json!({ "namespace": "shops", "pod": pod, "tenant": "acme" }),
    };
    let rules = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/k8s/monitoring/rules.yaml"
    ));
    let targets = [target(&quiet, "shop-0"), target(&loud.rig, "shop-1")];
    loud.call();
    let prometheus = Prometheus::start(&targets, Some(&rules));
    prometheus.scrapes(1);
    loud.call();

    // Nothing else is wrong, or about to be; save that a scrape may fail on a machine that is busy, which the next one mends.
    let mut firing = Vec::new();
    let is_alone = comes_true(|| {
        let found = prometheus.get("/api/v1/alerts");
        firing.clone_from(found["data"]["alerts"].as_array().unwrap());
        firing.len() == 1 && firing[0]["state"] == "firing"
    });
    assert!(is_alone, "{firing:#?}");
    let expected = json!({
        "alertname": "WxSidecarAddressNotAllowed", "severity": "critical", "job": "any-name",
        "namespace": "shops", "pod": "shop-1", "tenant": "acme", "instance": targets[1].admin,
    });
    assert_eq!(firing[0]["labels"], expected);
    let summary = "shop-1: WeChat refuses our address (40164)";
    assert_eq!(firing[0]["annotations"]["summary"], summary);

    let mut health = BTreeMap::new();
    eventually("every rule has been evaluated", || {
        let found = prometheus.get("/api/v1/rules");
        let groups = found["data"]["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap().clone());
        health = rules
            .map(|rule| {
                (
                    text(&rule, "name").to_owned(),
                    text(&rule, "health").to_owned(),
                )
            })
            .collect();
        health.values().all(|health| health != "unknown")
    });
    let text = monitoring("rules.yaml");
    assert_eq!(Vec::from_iter(health.keys()), sorted(&alerts(&text)));
    assert!(health.values().all(|health| health == "ok"), "{health:#?}");
    let log = prometheus.log();
    assert!(
        !log.contains("level=error") && !log.contains("Evaluating rule failed"),
        "{log}"
    );

    // The dashboard's table of who is here joins two series of each sidecar.
    let mut joined = Vec::new();
    eventually("both are here", || {
        joined = prometheus.query(
            "wx_sidecar_build_info * on (job, instance) group_left (hash) wx_sidecar_config_hash_info",
        );
        joined.len() == 2
    });
    for (labels, value) in joined {
        assert_eq!(value, 1.0);
        for label in ["hash", "version", "pod", "tenant"] {
            assert!(labels[label].is_string(), "{label}: {labels}");
        }
    }
}
