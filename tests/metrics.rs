//! What `/metrics` says of real requests: that it is what happened, in few series, each of them in the table of families.

use std::collections::BTreeSet;

use rcgen::{CertificateParams, date_time_ymd};
use wx_sidecar::Config;
use wx_sidecar::telemetry::families::{Kind, TABLE};

use crate::fake_app::FakeApp;
use crate::patience::eventually;
use crate::reload::Followed;
use crate::rig::{self, Rig, admin_page, replaced};
use crate::tls::{Authority, write_pair};

/// The names of all series with their labels.
fn series(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names = samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
    names.collect()
}

/// Every family on a page has a row in the table, and its words and type.
fn assert_in_table(page: &str) {
    let mut families = 0;
    for line in page.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|it| it.split_once(' '))
        {
            let row = TABLE.iter().find(|family| family.name == name);
            let row = row.unwrap_or_else(|| panic!("{name} has no row"));
            assert_eq!(row.help, help, "{name}");
            families += 1;
        }
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|it| it.split_once(' '))
        {
            let row = TABLE.iter().find(|family| family.name == name).unwrap();
            let expected = match row.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            assert_eq!(kind, expected, "{name}");
        }
    }
    assert!(families > 40, "{page}");
}

const OPEN: &str = "[[route]]\npath = \"/open/**\"\nauth = \"none\"\n";

#[test]
fn ten_thousand_strangers_make_no_series() {
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", OPEN);
    let user = rig.login("alice");
    let mut clients = [rig.client(), rig.client(), rig.client()];
    let mut ask = |number: u64| {
        // Digits that look as if drawn by lot, the same each time.
        let lot = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let target = match number % 4 {
            0 => format!("/open/{lot:x}/{number}"),
            1 => format!("/{lot:x}?q={number}"),
            2 => format!("/wx/{lot:x}"),
            _ => format!("/api/{lot:x}/o{number}"),
        };
        let made_up = format!("M{lot:X}");
        let method = ["GET", "POST", "DELETE", &made_up][usize::try_from(lot >> 32).unwrap() % 4];
        let host = format!("{lot:x}.example");
        let openid = format!("o{lot:x}");
        let token = match number % 3 {
            0 => user.bearer(),
            _ => format!("Bearer {lot:x}"),
        };
        let headers = [
            ("Host", &*host),
            ("X-WX-OPENID", &*openid),
            ("Authorization", &*token),
        ];
        let client = &mut clients[usize::try_from(number % 3).unwrap()];
        client.request(method, &target, &headers, b"").status
    };
    let statuses: BTreeSet<u16> = (0..400).map(&mut ask).collect();
    assert!(
        [200, 401, 404]
            .iter()
            .all(|status| statuses.contains(status)),
        "{statuses:?}"
    );
    // What is counted of a request is counted when its answer has left.
    eventually("all are counted", || {
        rig.metric("wx_sidecar_http_requests_in_flight") == 0.0
    });
    let told = || rig.admin("/metrics").text().to_owned();
    let before = series(&told());
    (400..12_000).for_each(|number| {
        ask(number);
    });
    let page = told();
    let more: Vec<_> = series(&page).difference(&before).cloned().collect();
    assert_eq!(more, Vec::<String>::new());
    assert!(before.len() < 2_000, "{}", before.len());
    assert_in_table(&page);
}

#[test]
fn a_page_with_everything_on_it_is_in_the_table() {
    let app = FakeApp::agreeable();
    let push = "[push]\ntoken = \"0123456789abcdef\"\naes_key = \"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG\"\ndeliver = \"/push\"\n";
    let rig = Rig::with(&app.url(), "", &format!("{push}[media]\nenabled = true\n"));
    rig.login("alice");
    let page = rig.admin("/metrics");
    let kind = page.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert_in_table(page.text());
    for part in ["push_inbox_depth", "media_cache_entries", "login_total"] {
        assert!(
            page.text().contains(&format!("wx_sidecar_{part}")),
            "{part}"
        );
    }
}

#[test]
fn what_the_app_does_is_told_apart_from_what_it_fails_to_do() {
    let app = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request() {
            match request.target() {
                "/open/missing" => {
                    connection.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
                }
                "/open/odd" => {
                    connection.write(b"what?\r\n\r\n");
                    return;
                }
                _ => connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            }
        }
    });
    let rig = Rig::with(&app.url(), "", OPEN);
    let mut client = rig.client();
    let upstream = |result: &str| {
        rig.metric(&format!(
            "wx_sidecar_upstream_requests_total{{result=\"{result}\",route=\"/open/**\"}}"
        ))
    };
    assert_eq!(
        client.request("POST", "/open/fine", &[], b"12345").status,
        200
    );
    assert_eq!(client.request("GET", "/open/missing", &[], b"").status, 404);
    assert_eq!(client.request("GET", "/open/odd", &[], b"").status, 502);
    // It is what is counted last.
    let problem = "wx_sidecar_http_problems_total{kind=\"upstream-invalid\"}";
    eventually("three were recorded", || rig.metric(problem) == 1.0);
    let all = ["2xx", "4xx", "invalid"].map(upstream);
    assert_eq!(all, [1.0, 1.0, 1.0]);
    let waited = "wx_sidecar_upstream_request_duration_seconds_count{route=\"/open/**\"}";
    assert_eq!(rig.metric(waited), 3.0);
    let work = "wx_sidecar_http_request_overhead_seconds_count{action=\"forward\"}";
    assert_eq!(rig.metric(work), 3.0);
    assert_eq!(rig.metric("wx_sidecar_http_request_bytes_total"), 5.0);
    eventually("the last connection was closed, the others wait", || {
        rig.metric("wx_sidecar_upstream_connections{state=\"active\"}") == 0.0
    });
    let opened = rig.metric("wx_sidecar_upstream_connects_total");
    let idle = rig.metric("wx_sidecar_upstream_connections{state=\"idle\"}");
    assert!(idle < opened, "{idle} of {opened} still wait");
    assert_eq!(
        rig.metric("wx_sidecar_upstream_connect_failures_total"),
        0.0
    );
    assert!(rig.metric("wx_sidecar_worker_busy_seconds_total{worker=\"0\"}") > 0.0);
}

#[test]
fn an_app_that_is_not_there_is_unreachable_and_was_not_waited_for() {
    let rig = Rig::with("http://127.0.0.1:1", "", OPEN);
    assert_eq!(rig.client().request("GET", "/open/a", &[], b"").status, 502);
    let series = "wx_sidecar_upstream_requests_total{result=\"unreachable\",route=\"/open/**\"}";
    eventually("it was recorded", || rig.metric(series) == 1.0);
    assert_eq!(
        rig.metric("wx_sidecar_upstream_connect_failures_total"),
        1.0
    );
    let page = rig.admin("/metrics");
    assert!(
        !page
            .text()
            .contains("wx_sidecar_upstream_request_duration_seconds")
    );
}

#[test]
fn the_end_of_the_certificate_in_use_is_told_and_gone_with_it() {
    const EXPIRY: &str = "wx_sidecar_tls_certificate_expiry_timestamp_seconds";
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let certify = |year| {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        write_pair(directory.path(), &authority.sign(&params));
    };
    certify(2040);
    let app = FakeApp::agreeable();
    let tls = format!(
        "[inbound.tls]\ncert_file = \"{0}/cert.pem\"\nkey_file = \"{0}/key.pem\"\n",
        directory.path().display()
    );
    let rig = Rig::with(&app.url(), "", &tls);
    assert_eq!(rig.metric(EXPIRY), 2_208_988_800.0);
    certify(2060);
    let reload = |text: &str| {
        let config = Config::from_toml(text).unwrap();
        rig.sidecar().reload(config).unwrap();
    };
    reload(rig.config());
    assert_eq!(rig.metric(EXPIRY), 2_840_140_800.0);
    reload(&replaced(rig.config(), &tls, ""));
    assert!(!rig.admin("/metrics").text().contains(EXPIRY));
}

#[test]
fn the_hash_is_that_of_the_configuration_in_use() {
    let app = FakeApp::agreeable();
    let text = |more: &str| rig::configuration("https://127.0.0.1:1", &app.url(), more, OPEN);
    let first = text("");
    let other = FakeApp::agreeable();
    let followed = Followed::new(&first, other);
    let hash = || {
        let page = admin_page(followed.sidecar.admin_addr(), "/metrics");
        let told = page.text().lines();
        let told: Vec<_> = told
            .filter_map(|line| line.strip_prefix("wx_sidecar_config_hash_info{hash=\""))
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect();
        assert!(told.len() <= 1, "{told:?}");
        // A page may have been made at the very moment of the change.
        told.into_iter().next()
    };
    let before = hash();
    assert!(before.is_some());
    followed.write(&text("idle_timeout = \"61s\""));
    eventually("it is another", || {
        let now = hash();
        now.is_some() && now != before
    });
    followed.write(&first);
    eventually("it is the first again", || hash() == before);
    followed.write("nonsense");
    eventually("it was refused", || {
        followed.metric("wx_sidecar_config_last_reload_successful") == 0.0
    });
    assert_eq!(hash(), before);
}
