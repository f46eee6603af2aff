//! Sequences of outcomes by a virtual clock, those that matter and any at all.

use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::error::Language;
use crate::wechat::errcode::Period;

const CHECK: &str = "/wxa/msg_sec_check";
const SEND: &str = "/cgi-bin/message/subscribe/send";
const SECOND: Duration = Duration::from_secs(1);

/// How long failures and successes are weighed together.
const WINDOW: Duration = Duration::from_secs(10);

/// 08:30:10 in Beijing.
const MORNING: Timestamp = Timestamp::from_millis((20_000 * 86_400 + 30 * 60 + 10) * 1_000);
const UNTIL_MIDNIGHT: Duration = Duration::from_secs(15 * 3_600 + 29 * 60 + 50);

struct Rig {
    breaker: Breaker,
    breakers: Breakers,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Rig {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: config::Breaker) -> Self {
        let (breakers, clock) = (Breakers::default(), Clock::manual(MORNING));
        let metrics = Arc::new(Metrics::new());
        Self {
            breaker: Breaker::new(&breakers, &settings, clock.clone(), Arc::clone(&metrics)),
            breakers,
            clock,
            metrics,
        }
    }

    fn reload(&mut self, settings: config::Breaker) {
        let (clock, metrics) = (self.clock.clone(), Arc::clone(&self.metrics));
        self.breaker = Breaker::new(&self.breakers, &settings, clock, metrics);
    }

    /// Lets time pass, on both clocks.
    async fn pass(&self, by: Duration) {
        self.clock.advance(by);
        advance(by).await;
    }

    fn admit<'a>(&'a self, path: &'a str) -> Permit<'a> {
        match self.breaker.admit(path) {
            Ok(permit) => permit,
            Err(held_back) => panic!("{path} is held back: {held_back:?}"),
        }
    }

    fn held_back(&self, path: &str) -> HeldBack {
        match self.breaker.admit(path) {
            Ok(_) => panic!("{path} is not held back"),
            Err(held_back) => held_back,
        }
    }

    /// How long calls of `path` are held back from now.
    fn wait(&self, path: &str) -> Duration {
        self.held_back(path).retry_after
    }

    /// Makes a call that is answered with this errcode; 0 is a success.
    fn answer(&self, path: &str, errcode: i64) -> Option<Duration> {
        let permit = self.admit(path);
        match errcode {
            0 => permit.answered(200, None),
            _ => permit.answered(200, Some(&refusal(errcode, "no"))),
        }
    }

    fn fail(&self, path: &str, failed: Failed, times: usize) {
        for _ in 0..times {
            self.admit(path).failed(failed);
        }
    }

    fn counted(&self, line: &str) -> bool {
        let families = self.metrics.registry().gather();
        let text = prometheus::TextEncoder::new().encode_to_string(&families);
        text.unwrap().lines().any(|told| told == line)
    }
}

fn settings() -> config::Breaker {
    config::Breaker {
        enabled: true,
        failures: 5,
        min_pause: SECOND,
        max_pause: 60 * SECOND,
    }
}

fn refusal(errcode: i64, errmsg: &str) -> Refusal {
    Refusal {
        errcode,
        errmsg: errmsg.to_owned(),
        rid: Some("a-b-c".to_owned()),
    }
}

/// Whether `wait` is so long, or up to a quarter more.
fn assert_about(wait: Duration, seconds: u64) {
    let most = seconds + seconds.div_ceil(4);
    let told = wait.as_secs();
    assert!(
        (seconds..=most).contains(&told),
        "{told} is not about {seconds}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_daily_quota_holds_its_api_back_until_midnight_in_beijing_and_no_other() {
    let rig = Rig::new();
    let told = rig.answer(CHECK, 45009).unwrap();
    assert_eq!(told, UNTIL_MIDNIGHT + SECOND);
    rig.admit(SEND).answered(200, None);
    for _ in 0..15 {
        rig.pass(Duration::from_secs(3600)).await;
        rig.held_back(CHECK);
    }
    let left = rig.held_back(CHECK).retry_after;
    assert_eq!(left, UNTIL_MIDNIGHT + SECOND - 15 * 3600 * SECOND);
    rig.pass(left).await;
    // All are let through at once, not one to see.
    let _first = rig.admit(CHECK);
    rig.admit(CHECK).answered(200, None);
}

#[tokio::test(start_paused = true)]
async fn a_quota_by_the_minute_holds_its_api_back_until_the_next_one() {
    let rig = Rig::new();
    assert_eq!(rig.answer(CHECK, 45011), Some(51 * SECOND));
    rig.pass(50 * SECOND).await;
    assert_eq!(rig.wait(CHECK), SECOND);
    rig.pass(SECOND).await;
    rig.admit(CHECK);
}

#[tokio::test(start_paused = true)]
async fn at_login_the_quota_is_one_users_and_holds_nobody_else_back() {
    let rig = Rig::new();
    assert_eq!(rig.answer("/sns/jscode2session", 45011), None);
    rig.admit("/sns/jscode2session");
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_that_of_the_day_on_which_the_call_was_made() {
    let rig = Rig::new();
    rig.pass(UNTIL_MIDNIGHT - SECOND).await;
    let before_midnight = rig.admit(CHECK);
    rig.pass(30 * SECOND).await;
    let told = before_midnight.answered(200, Some(&refusal(45009, "no")));
    assert_eq!(told, None);
    rig.admit(CHECK);
    // Our clock may be fast: it may still be yesterday for WeChat.
    assert_eq!(rig.answer(CHECK, 45009), Some(271 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn no_jump_of_the_wall_clock_keeps_a_quota_used_up() {
    let rig = Rig::new();
    rig.answer(CHECK, 45009);
    rig.clock.advance(UNTIL_MIDNIGHT + SECOND);
    drop(rig.admit(CHECK));
    let rig = Rig::new();
    rig.answer(CHECK, 45009);
    advance(UNTIL_MIDNIGHT + SECOND).await;
    drop(rig.admit(CHECK));
}

#[tokio::test(start_paused = true)]
async fn who_clears_the_quota_may_call_again() {
    for path in QUOTA_RESETS {
        let rig = Rig::new();
        rig.answer(CHECK, 45009);
        rig.answer(SEND, 45009);
        rig.answer(path, 48006);
        rig.held_back(CHECK);
        rig.answer(path, 0);
        drop(rig.admit(CHECK));
        drop(rig.admit(SEND));
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_not_granted_is_held_back_until_a_reload() {
    let mut rig = Rig::new();
    assert_about(rig.answer(CHECK, 48001).unwrap(), 600);
    rig.answer(SEND, 45009);
    rig.pass(300 * SECOND).await;
    rig.held_back(CHECK);
    rig.reload(settings());
    drop(rig.admit(CHECK));
    rig.held_back(SEND);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_not_granted_is_tried_every_ten_minutes() {
    let rig = Rig::new();
    rig.answer(CHECK, 48001);
    for _ in 0..3 {
        let wait = rig.wait(CHECK);
        assert_about(wait, 600);
        rig.pass(wait).await;
        let probe = rig.admit(CHECK);
        assert_eq!(rig.wait(CHECK), SECOND);
        assert!(probe.answered(200, Some(&refusal(48001, "no"))).is_some());
    }
    rig.pass(rig.wait(CHECK)).await;
    rig.answer(CHECK, 40003);
    drop(rig.admit(CHECK));
    drop(rig.admit(CHECK));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_not_let_in_is_tried_ever_more_seldom_and_told() {
    let token = "/cgi-bin/stable_token";
    let words = "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist";
    let rig = Rig::new();
    for seconds in [30, 60, 120, 240, 300, 300] {
        let told = rig.admit(token).answered(200, Some(&refusal(40164, words)));
        assert_about(told.unwrap(), seconds);
        rig.pass(told.unwrap()).await;
    }
    rig.admit(token).answered(200, Some(&refusal(40164, words)));
    let error = Error::from(rig.held_back(token));
    assert_eq!((error.status(), error.side()), (503, Side::Us));
    let problem = error.to_problem("request-1", Language::English);
    let problem: serde_json::Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!(
        problem["type"],
        "urn:wx-sidecar:problem:wechat-breaker-open"
    );
    assert_eq!(
        (&problem["errcode"], &problem["rid"]),
        (&40164.into(), &"a-b-c".into())
    );
    assert!(
        problem["hint"]
            .as_str()
            .unwrap()
            .ends_with("WeChat saw 1.2.3.4")
    );
    let retry_after = problem["retry_after"].as_u64().unwrap();
    assert_about(Duration::from_secs(retry_after), 300);
    let problem = error.to_problem("request-1", Language::Chinese);
    assert!(
        String::from_utf8(problem)
            .unwrap()
            .contains("微信看到的 IP 是 1.2.3.4")
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_held_back_is_a_503_whatever_the_status_of_its_errcode() {
    for (errcode, retryable) in [(45009, false), (45011, true), (48001, false)] {
        let rig = Rig::new();
        rig.answer(CHECK, errcode);
        let error = Error::from(rig.held_back(CHECK));
        assert_eq!((error.status(), error.kind()), (503, Kind::BreakerOpen));
        assert_eq!(error.fault().unwrap().meaning.code, errcode);
        assert_eq!(error.retryable(), retryable);
        assert!(error.retry_after().is_some());
    }
    let rig = Rig::new();
    rig.fail(CHECK, Failed::Timeout, 5);
    let error = Error::from(rig.held_back(CHECK));
    assert_eq!((error.status(), error.retryable()), (503, true));
    assert!(error.fault().is_none());
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_and_a_call_that_works_begins_the_row_anew() {
    for failure in [
        None,
        Some(Failed::Timeout),
        Some(Failed::BrokeOff),
        Some(Failed::Invalid),
    ] {
        let rig = Rig::new();
        let fail = || match failure {
            None => rig.answer(CHECK, -1),
            Some(failed) => rig.admit(CHECK).failed(failed),
        };
        for _ in 0..4 {
            assert_eq!(fail(), None);
        }
        rig.answer(CHECK, 0);
        for _ in 0..4 {
            assert_eq!(fail(), None);
        }
        assert_about(fail().unwrap(), 1);
        rig.held_back(CHECK);
        drop(rig.admit(SEND));
    }
}

#[tokio::test(start_paused = true)]
async fn a_5xx_without_an_errcode_is_a_failure_and_a_4xx_is_none() {
    let rig = Rig::new();
    for _ in 0..9 {
        rig.admit(CHECK).answered(404, None);
    }
    for _ in 0..5 {
        rig.admit(CHECK).answered(502, None);
    }
    rig.held_back(CHECK);
}

#[tokio::test(start_paused = true)]
async fn what_one_call_asks_for_never_counts_and_shows_that_wechat_works() {
    let rig = Rig::new();
    for errcode in [40003, 43101, 87014, 45047, 61010, 46004, 7_654_321] {
        for _ in 0..4 {
            rig.answer(CHECK, -1);
        }
        for _ in 0..20 {
            assert_eq!(rig.answer(CHECK, errcode), None, "{errcode}");
        }
        rig.pass(WINDOW).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_or_a_wrong_secret_counts_neither_way() {
    for errcode in [40001, 42001, 40125, 40013] {
        let rig = Rig::new();
        for _ in 0..4 {
            rig.answer(CHECK, -1);
        }
        for _ in 0..20 {
            assert_eq!(rig.answer(CHECK, errcode), None);
        }
        assert!(rig.answer(CHECK, -1).is_some(), "the fifth in a row");
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_the_calls_failing_opens_and_less_or_slower_does_not() {
    let rig = Rig::new();
    let opened = (0..11).map(|_| {
        rig.answer(CHECK, 0);
        rig.answer(CHECK, -1)
    });
    // The first success is before the first failure and not remembered.
    assert_eq!(opened.filter(Option::is_some).count(), 1);
    let rig = Rig::new();
    for _ in 0..30 {
        assert_eq!(rig.answer(CHECK, -1), None);
        rig.answer(CHECK, 0);
        rig.answer(CHECK, 0);
    }
    let rig = Rig::new();
    for _ in 0..30 {
        assert_eq!(rig.answer(CHECK, -1), None);
        rig.answer(CHECK, 0);
        rig.pass(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_one_call_is_made_and_if_it_works_all_are() {
    let rig = Rig::new();
    rig.fail(CHECK, Failed::Timeout, 5);
    rig.pass(rig.wait(CHECK)).await;
    let probe = rig.admit(CHECK);
    assert_eq!(rig.wait(CHECK), SECOND);
    assert_eq!(rig.wait(CHECK), SECOND);
    assert_eq!(probe.answered(200, None), None);
    let _first = rig.admit(CHECK);
    let _second = rig.admit(CHECK);
}

#[tokio::test(start_paused = true)]
async fn each_probe_that_fails_doubles_the_pause_up_to_the_longest() {
    let rig = Rig::new();
    rig.fail(CHECK, Failed::Timeout, 5);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let wait = rig.wait(CHECK);
        assert_about(wait, seconds);
        rig.pass(wait).await;
        rig.fail(CHECK, Failed::Timeout, 1);
    }
    rig.pass(rig.wait(CHECK)).await;
    rig.answer(CHECK, 0);
    rig.fail(CHECK, Failed::Timeout, 5);
    assert_about(rig.wait(CHECK), 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_or_says_nothing_makes_room_for_another() {
    let rig = Rig::new();
    rig.fail(CHECK, Failed::Timeout, 5);
    rig.pass(rig.wait(CHECK)).await;
    drop(rig.admit(CHECK));
    rig.admit(CHECK).failed(Failed::NotConnected);
    rig.answer(CHECK, 42001);
    let probe = rig.admit(CHECK);
    rig.held_back(CHECK);
    probe.answered(200, None);
    drop(rig.admit(CHECK));
}

#[tokio::test(start_paused = true)]
async fn calls_from_before_it_opened_neither_prolong_it_nor_close_it() {
    let rig = Rig::new();
    let mut before: Vec<_> = (0..100).map(|_| rig.admit(CHECK)).collect();
    rig.fail(CHECK, Failed::Timeout, 5);
    let wait = rig.wait(CHECK);
    for late in before.drain(..50) {
        assert_eq!(late.failed(Failed::Timeout), None);
    }
    before.pop().unwrap().answered(200, None);
    assert_eq!(rig.wait(CHECK), wait);
    rig.pass(wait).await;
    let probe = rig.admit(CHECK);
    for late in before.drain(..) {
        assert_eq!(late.failed(Failed::Timeout), None);
    }
    rig.held_back(CHECK);
    probe.answered(200, None);
    drop(rig.admit(CHECK));
}

#[tokio::test(start_paused = true)]
async fn calls_from_before_it_opened_do_not_count_when_it_has_closed_either() {
    let rig = Rig::new();
    let mut before: Vec<_> = (0..21).map(|_| rig.admit(CHECK)).collect();
    rig.fail(CHECK, Failed::Timeout, 5);
    rig.pass(rig.wait(CHECK)).await;
    rig.answer(CHECK, 0);
    for late in before.drain(..20) {
        assert_eq!(late.failed(Failed::Timeout), None);
    }
    rig.fail(CHECK, Failed::Timeout, 4);
    before.remove(0).answered(200, None);
    assert!(
        rig.admit(CHECK).failed(Failed::Timeout).is_some(),
        "the fifth in a row"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_all_apis_are_held_back_and_one_is_enough_to_see() {
    let rig = Rig::new();
    rig.fail(CHECK, Failed::NotConnected, 3);
    rig.fail(SEND, Failed::NotConnected, 2);
    let error = Error::from(rig.held_back("/sns/jscode2session"));
    assert!(error.to_string().contains("no connection"), "{error}");
    for seconds in [1, 2, 4, 5, 5] {
        let wait = rig.wait(CHECK);
        assert_about(wait, seconds);
        rig.pass(wait).await;
        rig.fail(SEND, Failed::NotConnected, 1);
    }
    rig.pass(rig.wait(CHECK)).await;
    let probe = rig.admit(CHECK);
    rig.held_back(SEND);
    probe.answered(200, Some(&refusal(-1, "system error")));
    drop(rig.admit(SEND));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_says_nothing_of_the_connection() {
    let rig = Rig::new();
    for path in [CHECK, SEND, "/a", "/b"] {
        rig.fail(path, Failed::Timeout, 4);
        rig.fail(path, Failed::BrokeOff, 1);
        rig.held_back(path);
    }
    drop(rig.admit("/c"));
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_not_spent_on_a_call_that_another_circuit_holds_back() {
    let rig = Rig::new();
    let quota = rig.admit(CHECK);
    rig.fail(CHECK, Failed::Timeout, 5);
    quota.answered(200, Some(&refusal(45011, "no")));
    rig.pass(10 * SECOND).await;
    // The pause is over, the minute is not.
    assert_eq!(rig.wait(CHECK), 41 * SECOND);
    rig.pass(41 * SECOND).await;
    rig.answer(CHECK, 0);
    let _first = rig.admit(CHECK);
    drop(rig.admit(CHECK));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_apis_is_bounded_and_open_ones_stay() {
    let rig = Rig::new();
    rig.answer("/open", 45009);
    for n in 0..3 * MOST {
        let path = format!("/{n}");
        rig.answer(&path, -1);
        rig.pass(Duration::from_millis(1)).await;
    }
    assert_eq!(rig.breakers.lock().apis.len(), MOST);
    rig.held_back("/open");
    for n in 0..MOST {
        rig.answer(&format!("/full/{n}"), 45009);
    }
    assert_eq!(rig.breakers.lock().apis.len(), MOST);
    rig.held_back(&format!("/full/{}", MOST - 1));
}

#[tokio::test(start_paused = true)]
async fn of_an_api_that_works_nothing_is_kept() {
    let rig = Rig::new();
    rig.answer(CHECK, 0);
    rig.answer(CHECK, 40003);
    rig.answer(CHECK, 42001);
    drop(rig.admit(CHECK));
    assert!(rig.breakers.lock().apis.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_is_known_and_without_a_breaker_nothing_is_held_back() {
    let mut rig = Rig::new();
    rig.fail(CHECK, Failed::Timeout, 5);
    rig.reload(settings());
    rig.held_back(CHECK);
    rig.reload(config::Breaker {
        enabled: false,
        ..settings()
    });
    rig.fail(CHECK, Failed::Timeout, 50);
    assert_eq!(rig.answer(CHECK, 45009), None);
    drop(rig.admit(CHECK));
    rig.reload(settings());
    drop(rig.admit(CHECK));
    assert_eq!(rig.breaker.describe(), []);
}

#[tokio::test(start_paused = true)]
async fn people_are_shown_what_is_not_closed() {
    let rig = Rig::new();
    assert_eq!(rig.breaker.describe(), []);
    rig.answer(SEND, 45011);
    rig.fail(CHECK, Failed::Timeout, 5);
    for _ in 0..3 {
        rig.held_back(CHECK);
    }
    rig.pass(rig.wait(CHECK)).await;
    let probe = rig.admit(CHECK);
    let seen = rig.breaker.describe();
    let told: Vec<_> = seen
        .iter()
        .map(|seen| {
            (
                &*seen.path,
                seen.class,
                seen.state,
                &*seen.cause,
                seen.held_back,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (SEND, "rate_quota", "open", "errcode 45011", 0),
            (CHECK, "transient", "half-open", "no answer in time", 4),
        ]
    );
    assert!(seen[0].retry_after > 40 * SECOND);
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn states_changes_and_calls_held_back_are_counted_under_bounded_labels() {
    let rig = Rig::new();
    let state = |path: &str, class: &str, state: u8| {
        rig.counted(&format!(
            "wx_sidecar_wx_breaker_state{{cgi_path=\"{path}\",class=\"{class}\"}} {state}"
        ))
    };
    let changed = |to: &str, times: u8| {
        rig.counted(&format!(
            "wx_sidecar_wx_breaker_transitions_total{{cgi_path=\"{CHECK}\",class=\"transient\",to=\"{to}\"}} {times}"
        ))
    };
    rig.fail(CHECK, Failed::Timeout, 5);
    let wait = rig.wait(CHECK);
    assert!(state(CHECK, "transient", 2) && changed("open", 1));
    assert!(rig.counted(&format!(
        "wx_sidecar_wx_breaker_rejected_total{{cgi_path=\"{CHECK}\",class=\"transient\"}} 1"
    )));
    rig.pass(wait).await;
    let probe = rig.admit(CHECK);
    assert!(state(CHECK, "transient", 1) && changed("half-open", 1));
    probe.answered(200, None);
    assert!(state(CHECK, "transient", 0) && changed("closed", 1));

    rig.answer("/made/up", 45011);
    assert!(state("other", "rate_quota", 2));
    // No call comes that would notice.
    rig.pass(60 * SECOND).await;
    assert!(state("other", "rate_quota", 0));

    rig.fail(CHECK, Failed::NotConnected, 5);
    assert!(state("all", "unreachable", 2));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_of_state_is_one_line_of_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Knowing of one dispatcher only, tracing may silence a call site for all because of another test's thread.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _guard = tracing::subscriber::set_default(subscriber);

    let rig = Rig::new();
    let words = "invalid ip 1.2.3.4, not in whitelist";
    rig.admit(CHECK).answered(200, Some(&refusal(40164, words)));
    for _ in 0..7 {
        rig.held_back(CHECK);
    }
    rig.pass(rig.wait(CHECK)).await;
    rig.answer(CHECK, 0);

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let expected: [&[&str]; 3] = [
        &[
            " WARN ",
            CHECK,
            "class=\"auth_config\"",
            "errcode=40164",
            "address=1.2.3.4",
            "seconds=3",
            "until=\"Fri, 04 Oct 2024 00:30:",
        ],
        &[" INFO ", CHECK, "held_back=8"],
        &[" INFO ", CHECK, "held_back=8", "made again"],
    ];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, parts) in lines.iter().zip(expected) {
        for part in parts {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}

/// What may happen to breakers.
#[derive(Clone, Debug)]
enum Event {
    Admit(usize),
    /// The outcome of one of the calls under way.
    Settle(usize, Outcome),
    GiveUp(usize),
    Pass(u64),
    WallJumps(i64),
    Reload,
}

fn any_event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Answered(Outlook::Sound)),
        3 => Just(Outcome::Answered(Outlook::Trouble)),
        2 => Just(Outcome::Failed(Failed::NotConnected)),
        2 => Just(Outcome::Failed(Failed::Timeout)),
        1 => Just(Outcome::Failed(Failed::Invalid)),
        1 => Just(Outcome::Answered(Outlook::Unclear)),
        1 => Just(Outcome::Answered(Outlook::Unauthorised)),
        1 => Just(Outcome::Answered(Outlook::Address)),
        1 => Just(Outcome::Answered(Outlook::Quota(Period::Minute))),
        1 => Just(Outcome::Answered(Outlook::Quota(Period::Day))),
    ];
    prop_oneof![
        8 => (0..PATHS.len()).prop_map(Event::Admit),
        8 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Event::Settle(which, outcome)),
        2 => any::<usize>().prop_map(Event::GiveUp),
        3 => prop_oneof![0..2_000u64, 0..100_000u64, 0..90_000_000u64].prop_map(Event::Pass),
        1 => (-200_000_000..200_000_000i64).prop_map(Event::WallJumps),
        1 => Just(Event::Reload),
    ]
}

const PATHS: [&str; 3] = [CHECK, SEND, "/cgi-bin/clear_quota"];

/// Breakers without clocks, and the calls under way.
struct Model {
    known: Known,
    rules: Rules,
    now: Moment,
    under_way: Vec<(&'static str, Tickets)>,
}

impl Model {
    fn new() -> Self {
        let rule = |max_pause| Rule {
            failures: 2,
            min_pause: SECOND,
            max_pause,
        };
        Self {
            known: Known::default(),
            rules: Rules {
                enabled: true,
                trouble: rule(60 * SECOND),
                connection: rule(5 * SECOND),
            },
            now: Moment {
                mono: Instant::now(),
                wall: Timestamp::from_millis(20_000 * 86_400_000),
            },
            under_way: Vec::new(),
        }
    }

    fn settle(&mut self, which: usize, outcome: Outcome, jitter: u8) {
        let (path, tickets) = self.under_way.swap_remove(which);
        let call = Settling {
            path,
            tickets: &tickets,
            outcome,
            cause: (outcome != Outcome::Answered(Outlook::Sound))
                .then(|| Arc::new(Cause::Failed(Failed::Invalid))),
            jitter,
            now: self.now,
            rules: &self.rules,
        };
        self.known.settle(&call, &mut Vec::new());
    }

    fn pass(&mut self, by: Duration) {
        self.now.mono += by;
        self.now.wall = self.now.wall.plus(by);
    }

    fn take_place(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let calls = self.under_way.len();
        match *event {
            Event::Admit(path) => match self.known.admit(PATHS[path], self.now, &mut Vec::new()) {
                Ok(tickets) => self.under_way.push((PATHS[path], tickets)),
                Err((_, held_back)) => {
                    prop_assert!(held_back.retry_after <= Duration::from_secs(86_401));
                    prop_assert!(held_back.retry_after >= SECOND);
                }
            },
            Event::Settle(which, outcome) if calls > 0 => {
                self.settle(which % calls, outcome, which as u8);
            }
            Event::GiveUp(which) if calls > 0 => {
                let (path, tickets) = self.under_way.swap_remove(which % calls);
                self.known.release(path, &tickets);
            }
            Event::Settle(..) | Event::GiveUp(_) => {}
            Event::Pass(millis) => self.pass(Duration::from_millis(millis)),
            Event::WallJumps(by) => {
                let wall = self.now.wall.as_millis().saturating_add_signed(by);
                self.now.wall = Timestamp::from_millis(wall);
            }
            Event::Reload => self.known.reset(
                |about| matches!(about, About::Permission | About::Address),
                &mut Vec::new(),
            ),
        }
        Ok(())
    }

    /// How many of the calls under way are the probe of `path`'s circuit about `about`.
    fn probes(&mut self, path: &str, about: About) -> usize {
        let now = self.now;
        let circuit = self.known.circuits_of(path).find(|(of, _)| *of == about);
        let Some((_, circuit)) = circuit.filter(|(_, of)| of.state(now) == State::HalfOpen) else {
            return 0;
        };
        let of_it = |(of, _): &&(&str, Tickets)| about == About::Connection || *of == path;
        let calls = self.under_way.iter().filter(of_it);
        calls
            .filter(|(_, t)| circuit.is_probed_by(t.tickets[about as usize]))
            .count()
    }
}

proptest! {
    #[test]
    fn whatever_happens_calls_are_held_back_for_a_time_one_probes_at_a_time_and_a_success_closes(
        events in proptest::collection::vec(any_event(), 0..200),
    ) {
        let mut model = Model::new();
        for event in &events {
            model.take_place(event)?;
            for path in PATHS {
                for about in OF_AN_API.into_iter().chain([About::Connection]) {
                    prop_assert!(model.probes(path, about) <= 1, "{about:?} of {path}");
                }
            }
        }
        // Once no call is under way, waiting as long as it is said is enough, and calls that work end it all.
        while !model.under_way.is_empty() {
            let (path, tickets) = model.under_way.swap_remove(0);
            model.known.release(path, &tickets);
        }
        for path in PATHS {
            let mut admitted = model.known.admit(path, model.now, &mut Vec::new());
            if let Err((_, held_back)) = admitted {
                model.pass(held_back.retry_after);
                admitted = model.known.admit(path, model.now, &mut Vec::new());
            }
            let Ok(tickets) = admitted else {
                return Err(TestCaseError::fail(format!("{path} is held back for longer")));
            };
            model.under_way.push((path, tickets));
            model.settle(0, Outcome::Answered(Outlook::Sound), 0);
            let now = model.now;
            for (about, circuit) in model.known.circuits_of(path) {
                prop_assert_eq!(circuit.state(now), State::Closed, "{:?}", about);
            }
        }
    }
}
