//! What is exposed is what the table of families says: no more, no less, with those labels only, and never many series.
//!
//! All recorders are made to count all they can, with what strangers may choose, in one registry. What is then on the page is held
//! against the table, and the table against the documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;

use super::families::{Family, Kind, Question, TABLE, Values};
use super::media::{Lookup, MediaMetrics, Tier};
use super::metrics::{BreakerSeen, CallOutcome, Metrics};
use super::push::{InboxSeen, PushMetrics, PushResult};
use super::requests::{Did, Refusal, RequestCollector, UpstreamResult, WorkerCells};
#[cfg(feature = "redis")]
use super::store::StoreMetrics;
use super::timings::Timings;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::wechat::quota::Quota;
use crate::wechat::{endpoints, errcode};

/// All that counts, in one registry.
struct Everything {
    metrics: Metrics,
    workers: Vec<Arc<WorkerCells>>,
    push: PushMetrics,
    media: MediaMetrics,
    #[cfg(feature = "redis")]
    stores: [StoreMetrics; 2],
}

impl Everything {
    fn new() -> Self {
        let metrics = Metrics::new();
        let registry = metrics.registry();
        let workers = WorkerCells::group(2);
        let collector = RequestCollector::new(workers.clone());
        registry.register(Box::new(collector)).unwrap();
        let seen = InboxSeen {
            waiting: 1,
            bytes: 2,
            max_waiting: 10,
            max_bytes: 20,
            oldest: Duration::from_secs(3),
            dead: 4,
            up: true,
        };
        Self {
            push: PushMetrics::register(registry, move || seen),
            media: MediaMetrics::register(&metrics),
            #[cfg(feature = "redis")]
            stores: [
                StoreMetrics::register(registry),
                StoreMetrics::register_for_push(registry),
            ],
            workers,
            metrics,
        }
    }

    /// Has everything counted once.
    fn count(&self) {
        let metrics = &self.metrics;
        metrics.login("ok");
        metrics.decrypted("ok", Some(7));
        metrics.token_opened(9);
        metrics.wechat_call(
            "/sns/jscode2session",
            CallOutcome::Errcode(0),
            Duration::ZERO,
        );
        metrics.outbound_request("ok");
        metrics.token_refreshed("due", "ok");
        metrics.token_lives(Instant::now(), Instant::now());
        let quota = Quota {
            daily_limit: 10,
            remain: 9,
        };
        metrics.quota("/wxa/getwxacode", quota);
        metrics.breaker_changed("all", "unreachable", "half-open");
        metrics.breaker_held_back("/wxa/getwxacode", "rate_quota");
        metrics.breakers_seen_by(|| {
            vec![BreakerSeen {
                cgi_path: "all",
                class: "unreachable",
                state: 2,
            }]
        });
        metrics.config_loaded(true, Timestamp::from_millis(0));
        metrics.config_is(Some(&effective("")));
        metrics.certificate_expires(Some(1));
        self.push.received("text", PushResult::Stored);
        self.push.refused("signature");
        self.push.acknowledged(Duration::ZERO);
        self.push.attempted("accepted");
        self.push.delivered(Duration::ZERO);
        self.push.replied("sent");
        self.media.looked_up(Lookup::Miss);
        self.media.holds(Tier::Disk, 1, 1);
        self.media.failed("open");
        self.media.evicted(Tier::Disk, "size", 1);
        #[cfg(feature = "redis")]
        for (store, operation) in self.stores.iter().zip(["keys", "put"]) {
            store.request(operation, "ok", Duration::ZERO);
        }
        for worker in &self.workers {
            worker.are_of_this_thread();
            worker.refuse(Refusal::Tls);
            worker.problem("not-found");
            worker.ended(Did::Own, &Timings::begin());
            let route = worker.route("/api/**");
            route.record("GET", 200, Duration::ZERO);
            route.upstream(UpstreamResult::Answered(200), Some(Duration::ZERO));
        }
    }

    fn page(&self) -> Page {
        Page::of(self.metrics.registry())
    }
}

/// What a configuration comes to, `more` below `[inbound]`.
fn effective(more: &str) -> crate::config::Effective {
    let text = format!(
        "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n[inbound]\n\
         upstream = \"http://127.0.0.1:3000\"\n{more}"
    );
    let parsed = Config::parse(&text, "sidecar.toml", &|_| None);
    parsed.unwrap().effective
}

/// What is exposed: each family with its help, its type and its series, labels and all.
struct Page {
    text: String,
    families: BTreeMap<String, (String, String)>,
    series: BTreeSet<String>,
}

impl Page {
    fn of(registry: &Registry) -> Self {
        let encoder = prometheus::TextEncoder::new();
        let text = encoder.encode_to_string(&registry.gather()).unwrap();
        let mut families = BTreeMap::<_, (String, String)>::new();
        let mut series = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                families.entry(name.to_owned()).or_default().0 = help.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                families.entry(name.to_owned()).or_default().1 = kind.to_owned();
            } else {
                let (labelled, _value) = line.rsplit_once(' ').unwrap();
                assert!(series.insert(labelled.to_owned()), "twice: {labelled}");
            }
        }
        Self {
            text,
            families,
            series,
        }
    }

    fn value(&self, series: &str) -> Option<f64> {
        let lines = self.text.lines();
        let values = lines.filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        values.map(|value| value.parse().unwrap()).next()
    }
}

/// The labels of a series, in the form of the page. No label of ours has a quotation mark in it.
fn labels(series: &str) -> Vec<(&str, &str)> {
    let Some((_, labels)) = series.split_once('{') else {
        return Vec::new();
    };
    let pairs = labels.trim_end_matches("\"}").split("\",");
    pairs.map(|pair| pair.split_once("=\"").unwrap()).collect()
}

fn row(series: &str) -> &'static Family {
    let name = series.split('{').next().unwrap();
    let is_it = |family: &&&'static Family| {
        family.name == name
            || matches!(family.kind, Kind::Histogram(_))
                && ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|end| name.strip_suffix(end) == Some(family.name))
    };
    TABLE
        .iter()
        .find(is_it)
        .unwrap_or_else(|| panic!("{name} is not in the table"))
}

#[tokio::test]
async fn the_table_is_exposed_with_its_words_its_types_and_its_labels_and_nothing_else_is() {
    let everything = Everything::new();
    everything.count();
    let page = everything.page();
    let exposed: BTreeSet<&str> = page.families.keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> = TABLE
        .iter()
        .map(|family| family.name)
        // What becomes of spans is counted where they are sent, which `tests/spans.rs` looks at.
        .filter(|name| *name != super::families::TRACE_SPANS.name)
        .filter(|name| cfg!(target_os = "linux") || !name.starts_with("process_"))
        .filter(|name| {
            cfg!(feature = "redis")
                || !name.contains("_store_")
                || name.ends_with("rings_degraded_total")
        })
        .collect();
    assert_eq!(exposed, expected);
    assert_eq!(
        TABLE.len(),
        TABLE
            .iter()
            .map(|family| family.name)
            .collect::<BTreeSet<_>>()
            .len()
    );
    for family in TABLE.iter().filter(|family| exposed.contains(family.name)) {
        let (help, kind) = &page.families[family.name];
        assert_eq!(help, family.help, "{}", family.name);
        let expected = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(kind, expected, "{}", family.name);
    }
    for series in &page.series {
        assert_fits(series);
    }
}

/// A series has the labels of its family, and they are what its row says.
fn assert_fits(series: &str) {
    let family = row(series);
    let mut found = labels(series);
    found.retain(|(name, _)| *name != "le");
    let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
    let expected: Vec<_> = family.labels.iter().map(|label| label.name).collect();
    assert_eq!(names, expected, "{series}");
    for ((_, value), label) in found.iter().zip(family.labels) {
        let fits = match label.values {
            Values::These(values) => values.contains(value),
            Values::Of(_, is_one) => is_one(value),
        };
        assert!(fits, "{series}");
    }
}

#[test]
fn names_help_and_units_are_as_prometheus_wants_them() {
    for family in TABLE {
        let name = family.name;
        let is_counter = family.kind == Kind::Counter;
        assert_eq!(is_counter, name.ends_with("_total"), "{name}");
        assert!(
            name.starts_with("wx_sidecar_") || name.starts_with("process_"),
            "{name}"
        );
        let is_histogram = matches!(family.kind, Kind::Histogram(_));
        assert!(!is_histogram || name.ends_with("_seconds"), "{name}");
        for part in name.split('_') {
            let odd = [
                "ms",
                "milliseconds",
                "kb",
                "percent",
                "count",
                "sum",
                "bucket",
                "gauge",
                "counter",
            ];
            assert!(!odd.contains(&part), "{name}");
        }
        assert!(
            family.help.ends_with('.') && family.help.len() < 300,
            "{name}"
        );
        let bounds = family.bounds();
        assert!(
            bounds.is_sorted() && bounds.iter().all(|bound| *bound > 0),
            "{name}"
        );
        let labels: Vec<_> = family.labels.iter().map(|label| label.name).collect();
        assert!(labels.is_sorted(), "{name}: {labels:?}");
    }
}

/// Numbers that look as if drawn by lot, the same each time (xorshift).
struct Lots(u64);

impl Lots {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.draw() % from.len() as u64).unwrap()]
    }
}

#[tokio::test]
async fn a_million_of_whatever_strangers_choose_makes_no_more_series_than_there_are_words() {
    let everything = Everything::new();
    everything.count();
    let routes: Vec<_> = ["/api/**", "/open", "wx:login", "none"]
        .iter()
        .map(|name| everything.workers[0].route(name))
        .collect();
    let timings = Timings::begin();
    let metrics = &everything.metrics;
    let known: Vec<_> = endpoints::all().map(|endpoint| endpoint.path).collect();
    let methods = ["GET", "POST", "PUT", "other"];
    let statuses = [200, 201, 304, 404, 499, 500, 502, 777];
    let mut lots = Lots(88_172_645_463_325_252);
    let mut round = |times: usize| {
        for _ in 0..times {
            let lot = lots.draw();
            let stranger = format!("/cgi-bin/{lot:x}");
            let path = match lot % 3 {
                0 => lots.of(&known),
                _ => endpoints::label(&stranger),
            };
            let errcode = lots.draw().cast_signed() >> (lot % 64);
            metrics.wechat_call(path, CallOutcome::Errcode(errcode), Duration::ZERO);
            metrics.breaker_held_back(path, "transient");
            let route = &routes[usize::try_from(lot % 4).unwrap()];
            let status = lots.of(&statuses);
            route.record(lots.of(&methods), status, Duration::ZERO);
            route.upstream(UpstreamResult::Answered(status), Some(Duration::ZERO));
            everything.workers[1].ended(Did::Forward, &timings);
            everything.push.received(&stranger, PushResult::Stored);
        }
    };
    round(10_000);
    // Whatever WeChat may answer on whatever it has.
    for path in known.iter().chain(&[endpoints::OTHER]) {
        for errcode in (-100..100_000).filter(|errcode| errcode::find(*errcode).is_some()) {
            metrics.wechat_call(path, CallOutcome::Errcode(errcode), Duration::ZERO);
        }
    }
    let series = everything.page().series;
    round(1_000_000);
    let page = everything.page();
    let more: Vec<_> = page.series.difference(&series).collect();
    assert!(more.is_empty(), "{more:?}");
    for series in &page.series {
        assert_fits(series);
    }
    assert!(page.series.len() < 2_000, "{}", page.series.len());
}

#[test]
fn an_app_that_makes_up_statuses_makes_few_series() {
    let workers = WorkerCells::group(1);
    let registry = Registry::new();
    let collector = RequestCollector::new(workers.clone());
    registry.register(Box::new(collector)).unwrap();
    let route = workers[0].route("/api/**");
    for status in 0..=u16::MAX {
        route.record("GET", status, Duration::ZERO);
        route.upstream(UpstreamResult::Answered(status), None);
    }
    let page = Page::of(&registry);
    for series in &page.series {
        assert_fits(series);
    }
    let of = |family: &str| {
        page.series
            .iter()
            .filter(|it| it.starts_with(family))
            .count()
    };
    assert!(of("wx_sidecar_http_requests_total") < 80);
    assert!(of("wx_sidecar_upstream_requests_total") < 10);
}

#[test]
fn a_route_that_nobody_has_any_more_is_forgotten_by_all_workers_at_once_and_the_others_go_on() {
    let workers = WorkerCells::group(2);
    let registry = Registry::new();
    let collector = RequestCollector::new(workers.clone());
    registry.register(Box::new(collector)).unwrap();
    let stays = workers[0].route("/stays");
    let goes = [workers[0].route("/goes"), workers[1].route("/goes")];
    for recorder in [&stays, &goes[0], &goes[1]] {
        recorder.record("GET", 200, Duration::ZERO);
    }
    let series = |route: &str| {
        format!("wx_sidecar_http_requests_total{{code=\"200\",method=\"GET\",route=\"{route}\"}}")
    };
    let later = |by: Duration| workers[1].forget(Instant::now() + by);
    let told = || Page::of(&registry);
    let [one, other] = goes;
    drop(one);
    later(Duration::ZERO);
    later(Duration::from_secs(3600));
    assert_eq!(
        told().value(&series("/goes")),
        Some(2.0),
        "the other worker still has it"
    );
    drop(other);
    later(Duration::ZERO);
    later(Duration::from_secs(300));
    assert_eq!(
        told().value(&series("/goes")),
        Some(2.0),
        "it was in use a moment ago"
    );
    let back = workers[0].route("/goes");
    back.record("GET", 200, Duration::ZERO);
    drop(back);
    assert_eq!(
        told().value(&series("/goes")),
        Some(3.0),
        "it goes on where it was"
    );
    later(Duration::from_secs(3600));
    let page = told();
    assert_eq!(page.value(&series("/goes")), None);
    assert!(!page.text.contains("/goes"));
    assert_eq!(page.value(&series("/stays")), Some(1.0));
}

#[test]
fn a_configuration_is_told_by_its_meaning_and_not_by_its_secrets() {
    let hash = |more: &str| effective(more).fingerprint();
    assert_eq!(hash(""), hash("\n# a comment\n"));
    assert_eq!(hash(""), hash("").to_lowercase());
    assert_ne!(hash(""), hash("idle_timeout = \"61s\"\n"));
}

/// Where the documentation of the metrics stands.
const FROM: &str = "<!-- metrics: from here to the end mark this is generated -->\n";
const TO: &str = "<!-- metrics: end -->\n";

/// `UPDATE_DOCS=1 cargo test --lib metrics_in_the_readme` writes it anew.
#[test]
fn the_metrics_in_the_readme_are_those_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(FROM).expect("the mark is in the README");
    let (block, after) = rest.split_once(TO).expect("the end mark is in the README");
    let expected = documentation();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, [before, FROM, &expected, TO, after].concat()).unwrap();
        return;
    }
    assert!(
        block == expected,
        "the table has changed; write the README anew with UPDATE_DOCS=1"
    );
}

/// The table, for people.
fn documentation() -> String {
    let mut text = String::new();
    for question in Question::ALL {
        let _ = write!(
            text,
            "\n**{}**\n\n| metric | | |\n| --- | --- | --- |\n",
            question.text()
        );
        for family in TABLE.iter().filter(|family| family.answers == question) {
            let kind = match family.kind {
                Kind::Counter => "counter".to_owned(),
                Kind::Gauge => "gauge".to_owned(),
                Kind::Histogram(bounds) => {
                    let (first, last) = (
                        bounds[0] as f64 / 1e6,
                        bounds[bounds.len() - 1] as f64 / 1e6,
                    );
                    format!("histogram, {first} s to {last} s")
                }
            };
            let names: Vec<_> = family.labels.iter().map(|label| label.name).collect();
            let labels = match names.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", names.join(",")),
            };
            let _ = writeln!(
                text,
                "| `{}{labels}` | {kind} | {} |",
                family.name, family.help
            );
        }
    }
    text.push_str("\n| label | what it can be |\n| --- | --- |\n");
    let mut told = BTreeSet::new();
    for family in TABLE {
        for label in family.labels {
            let values = match label.values {
                Values::These(values) => format!("`{}`", values.join("`, `")),
                Values::Of(what, _) => what.to_owned(),
            };
            if told.insert((label.name, values.clone())) {
                let _ = writeln!(text, "| `{}` | {values} |", label.name);
            }
        }
    }
    text.push('\n');
    text
}
