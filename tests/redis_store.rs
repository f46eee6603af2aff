//! Sidecars that share a Redis, and what becomes of them when it goes away, in every way that it can.
//!
//! Without Redis all goes on that needs no write, the rest is refused at once and clearly, nothing spins, and when Redis
//! is back all is as before.
//!
//! On a busy machine a Redis that is well stands still now and then for longer than a command may take, and is away then, as
//! it should be. So what must be so while it is there is only judged if it was there all the time ([`undisturbed`]).

use std::fs;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use wx_sidecar::Sidecar;
use wx_sidecar::sim::{Effect, Fault};

use crate::fake_app::FakeApp;
use crate::http_client::{Client, Response};
use crate::patience::{comes_true_within, eventually};
use crate::process::{Run, write_configuration};
use crate::redis_server::{Manner, Proxy, Server};
use crate::rig::{self, APPID, Rig, Session, canary, metric_at};
use crate::tls::Authority;

const LOGIN: &str = "/sns/jscode2session";
const CONNECTIONS: &str = "wx_sidecar_store_connections_total";
/// Found in an output, it is an incident.
const PASSWORD: &str = "canary-redis-pa55w0rd-41";

#[test]
fn a_start_with_a_redis_that_is_well_gives_no_alarm() {
    let server = Server::start(&[]);
    let app = FakeApp::agreeable();
    let store = format!(
        "[store]\nkind = \"redis\"\nurl = \"{}\"\ntimeout = \"1s\"\n",
        server.url()
    );
    let text = rig::configuration("https://127.0.0.1:1", &app.url(), "", &store);
    let config = write_configuration(&text);
    let mut alarms = None;
    eventually(
        "Redis is there all the time, and no end gives an alarm",
        || {
            alarms = alarms_of_a_start(&config);
            alarms.is_some()
        },
    );
    assert_eq!(alarms.unwrap(), Vec::<String>::new());
}

/// What a sidecar warns of until it is ready and has served; `None` if Redis kept it waiting for too long meanwhile, or it gave
/// an alarm after that, when nobody can say any more whether it was right.
fn alarms_of_a_start(config: &Path) -> Option<Vec<String>> {
    let run = Run::under(&[], config);
    let is_ready = || {
        let mut admin = Client::connect(run.admin);
        admin.request("GET", "/readyz?verbose", &[], b"")
    };
    eventually("it is ready", || is_ready().text().contains("[+]store ok"));
    // Its line in the log ends what is looked at.
    Client::connect(run.inbound).request("GET", "/at-last", &[], b"");
    let is_alarm = |line: &String| line.contains("\"WARN\"");
    let mut alarms = run.process.lines_to("/at-last");
    alarms.retain(is_alarm);
    let stayed = is_ready().text().contains("[+]store ok");
    let stayed = stayed && metric_at(run.admin, CONNECTIONS) == 1.0;
    run.process.signal("TERM");
    let later = run.process.lines_to("stopped");
    (stayed && !later.iter().any(is_alarm)).then_some(alarms)
}

/// An app and a rig whose store is in Redis.
struct Shared {
    rig: Rig,
    _app: FakeApp,
}

impl Shared {
    fn new(url: &str) -> Self {
        Self::with(&format!("url = \"{url}\""))
    }

    /// With these lines in `[store]`. A command may take as long as can be configured.
    fn with(store: &str) -> Self {
        let app = FakeApp::agreeable();
        let section = format!("[store]\nkind = \"redis\"\ntimeout = \"1s\"\n{store}\n");
        Self {
            rig: Rig::with(&app.url(), "", &section),
            _app: app,
        }
    }

    fn up(self) -> Self {
        is_up(self.rig.sidecar());
        self
    }
}

fn call(
    at: &Sidecar,
    method: &str,
    target: &str,
    session: Option<&Session>,
    body: &str,
) -> Response {
    let bearer = session.map(Session::bearer);
    let headers: Vec<_> = bearer
        .iter()
        .map(|it| ("Authorization", it.as_str()))
        .collect();
    Client::connect(at.inbound_addr()).request(method, target, &headers, body.as_bytes())
}

fn login(at: &Sidecar, code: &str) -> Response {
    let body = json!({ "code": code }).to_string();
    let answer = call(at, "POST", "/wx/login", None, &body);
    if answer.status == 200 {
        Session::of(&answer.json());
    }
    answer
}

fn refresh(at: &Sidecar, session: &Session) -> Response {
    let body = json!({ "refresh_token": session.refresh }).to_string();
    let answer = call(at, "POST", "/wx/refresh", None, &body);
    if answer.status == 200 {
        Session::of(&answer.json());
    }
    answer
}

fn logout(at: &Sidecar, session: &Session, everywhere: bool) -> Response {
    let body = json!({ "everywhere": everywhere }).to_string();
    call(at, "POST", "/wx/logout", Some(session), &body)
}

fn show(at: &Sidecar, session: &Session) -> u16 {
    call(at, "GET", "/wx/session", Some(session), "").status
}

fn readyz(at: &Sidecar) -> Response {
    let mut client = Client::connect(at.admin_addr().to_socket_addrs().unwrap().next().unwrap());
    client.request("GET", "/readyz?verbose", &[], b"")
}

fn is_up(sidecar: &Sidecar) {
    eventually("the store is up", || {
        readyz(sidecar).text().contains("[+]store ok")
    });
}

/// Waits until a sidecar knows that its store is away, and gives what it says.
fn is_away(sidecar: &Sidecar) -> String {
    eventually("the store is away", || {
        readyz(sidecar).text().contains("[i]store is away")
    });
    let page = readyz(sidecar);
    assert_eq!(page.status, 200, "it is not required");
    let line = page
        .text()
        .lines()
        .find(|line| line.starts_with("[i]store"));
    line.unwrap_or_default().to_owned()
}

/// Waits for a logout to arrive: by the stream, for looking back would take longer than this.
fn felt(is_felt: impl Fn() -> bool) {
    let limit = Duration::from_secs(20);
    assert!(comes_true_within(limit, is_felt), "never felt");
}

/// What is seen while Redis is there for all of these. What was seen while it was not says nothing: so it is looked at once
/// more, and must not be judged before.
fn undisturbed<T>(sidecars: &[&Sidecar], mut look: impl FnMut() -> T) -> T {
    let connections = || -> f64 {
        let admins = sidecars.iter().map(|it| it.admin_addr());
        admins.map(|admin| metric_at(admin, CONNECTIONS)).sum()
    };
    let mut seen = None;
    eventually("Redis is there for as long as this takes", || {
        sidecars.iter().copied().for_each(is_up);
        let before = connections();
        let now = look();
        let are_up = sidecars
            .iter()
            .all(|it| readyz(it).text().contains("[+]store ok"));
        let stayed = are_up && connections() == before;
        seen = stayed.then_some(now);
        stayed
    });
    seen.expect("it has been so")
}

/// Logs a user in, as [`Rig::login`] does, and again if the store is away.
pub(crate) fn log_in(rig: &Rig, user: &str) -> Session {
    let mut answer = rig.login_with(&rig.code(user));
    eventually("the store is there", || {
        let is_away = answer.status == 503;
        if is_away {
            is_up(rig.sidecar());
            answer = rig.login_with(&rig.code(user));
        }
        !is_away
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    Session::of(&answer.json())
}

/// Refreshes a session, and again if the store is away: later, because the one may have been heard that was not answered.
fn refreshed(rig: &Rig, at: &Sidecar, session: &Session) -> Response {
    let mut answer = refresh(at, session);
    eventually("the store is there", || {
        let is_away = answer.status == 503;
        if is_away {
            is_up(at);
            rig.advance(Duration::from_secs(2));
            answer = refresh(at, session);
        }
        !is_away
    });
    answer
}

/// Logs a new session of a user in and out, at these two; it has ended then.
fn logged_out(rig: &Rig, at: &Sidecar, user: &str) -> Session {
    let (session, status) = undisturbed(&[rig.sidecar(), at], || {
        let session = log_in(rig, user);
        let status = logout(at, &session, false).status;
        (session, status)
    });
    assert_eq!(status, 204);
    session
}

fn refused(answer: &Response) {
    answer.problem(503, "store-unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// What must be so while the store is away. `session` is good, and its refresh token is current.
fn goes_on_without(rig: &Rig, session: &Session) {
    let sidecar = rig.sidecar();
    is_away(sidecar);
    eventually("it is counted as away", || {
        rig.metric("wx_sidecar_store_up") == 0.0
    });
    let began = Instant::now();
    let (attempts, calls) = (rig.metric(CONNECTIONS), rig.sim.calls(LOGIN));
    assert_eq!(show(sidecar, session), 200);
    assert_eq!(call(sidecar, "GET", "/app", Some(session), "").status, 200);
    assert_eq!(
        call(sidecar, "GET", "/wx/verify", Some(session), "").status,
        204
    );
    let code = rig.code("while-away");
    for _ in 0..20 {
        refused(&login(sidecar, &code));
    }
    refused(&refresh(sidecar, session));
    assert_eq!(rig.sim.calls(LOGIN), calls, "the code is not spent");
    // Whoever asks makes nobody connect; what connects pauses longer and longer, up to a second.
    let more = rig.metric(CONNECTIONS) - attempts;
    let most = 8.0 + 2.0 * began.elapsed().as_secs_f64().floor();
    assert!(more <= most, "{more} connections were attempted");
}

/// What must be so when it is back.
fn is_as_before(rig: &Rig, session: &Session) {
    let sidecar = rig.sidecar();
    is_up(sidecar);
    eventually("it is counted as there", || {
        rig.metric("wx_sidecar_store_up") == 1.0
    });
    assert_eq!(show(sidecar, session), 200);
    assert_eq!(refreshed(rig, sidecar, session).status, 200);
    let other = logged_out(rig, sidecar, "when-back");
    assert_eq!(show(sidecar, &other), 401);
}

#[test]
fn three_sidecars_share_sessions_and_a_logout_is_felt_on_all() {
    let server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let (rig, second, third) = (&shared.rig, shared.rig.replica(), shared.rig.replica());
    let all = [rig.sidecar(), &second, &third];
    let (session, shown, status) = undisturbed(&all, || {
        let session = log_in(rig, "alice");
        let shown = all.map(|sidecar| show(sidecar, &session));
        let status = logout(&third, &session, false).status;
        (session, shown, status)
    });
    assert_eq!((shown, status), ([200; 3], 204));
    for sidecar in all {
        felt(|| show(sidecar, &session) == 401);
    }

    let (sessions, status, next) = undisturbed(&all, || {
        // What was ended before was ended earlier than this.
        rig.advance(Duration::from_secs(1));
        let sessions = [log_in(rig, "bob"), log_in(rig, "bob")];
        let status = logout(&second, &sessions[0], true).status;
        (sessions, status, log_in(rig, "bob"))
    });
    assert_eq!(status, 204);
    for sidecar in all {
        for ended in &sessions {
            felt(|| show(sidecar, ended) == 401);
        }
        assert_eq!(show(sidecar, &next), 200, "begun after it");
    }
    let late = rig.replica();
    is_up(&late);
    assert_eq!(show(&late, &session), 401, "from before it was there");
    assert_eq!(show(&late, &next), 200);
    assert!(server.keep_values() >= 6);
}

#[test]
fn a_code_at_three_replicas_at_once_is_one_call_to_wechat_and_one_session() {
    let server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let (rig, second, third) = (&shared.rig, shared.rig.replica(), shared.rig.replica());
    let all = [rig.sidecar(), &second, &third];
    let (answers, calls) = undisturbed(&all, || {
        let (code, before) = (rig.code("alice"), rig.sim.calls(LOGIN));
        rig.sim.clear_faults();
        // Long enough for all of them to have asked before the first is answered.
        rig.sim
            .fault(Fault::delay(LOGIN, 1, Duration::from_millis(500)));
        let mut answers = thread::scope(|scope| {
            let ask = |sidecar| {
                let code = &code;
                scope.spawn(move || login(sidecar, code))
            };
            let asked = all.map(ask);
            Vec::from(asked.map(|thread| thread.join().unwrap()))
        });
        // And one more later.
        answers.push(login(&third, &code));
        (answers, rig.sim.calls(LOGIN) - before)
    });
    let tokens = answers
        .iter()
        .map(|answer| Session::of(&answer.json()).access);
    let tokens = Vec::from_iter(tokens);
    assert!(tokens[..3].iter().all(|token| *token == tokens[0]));
    assert_eq!(calls, 1);
}

#[test]
fn a_login_that_fails_at_one_replica_is_tried_by_the_next() {
    let server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let (rig, second) = (&shared.rig, shared.rig.replica());
    let statuses = undisturbed(&[rig.sidecar(), &second], || {
        let code = rig.code("alice");
        let busy = Effect::Errcode {
            errcode: -1,
            errmsg: None,
        };
        rig.sim.clear_faults();
        rig.sim.fault(Fault::new(LOGIN, 1, busy));
        [rig.sidecar(), &second].map(|sidecar| login(sidecar, &code).status)
    });
    assert_eq!(statuses, [503, 200]);
}

#[test]
fn a_refresh_token_is_spent_on_all_replicas_and_a_copy_ends_the_session() {
    let server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let (rig, second) = (&shared.rig, shared.rig.replica());
    let [first, again, later] = undisturbed(&[rig.sidecar(), &second], || {
        let session = log_in(rig, "alice");
        let first = refresh(rig.sidecar(), &session);
        let again = refresh(&second, &session);
        rig.advance(Duration::from_secs(11));
        [first, again, refresh(&second, &session)]
    });
    let next = Session::of(&first.json());
    again.problem(409, "refresh-conflict");
    later.problem(401, "refresh-reused");
    for sidecar in [rig.sidecar(), &second] {
        eventually("the session has ended", || show(sidecar, &next) == 401);
    }
}

#[test]
fn a_sidecar_starts_without_redis_and_finds_it_later() {
    let mut server = Server::start(&[]);
    server.process.kill();
    let shared = Shared::new(&server.url());
    let rig = &shared.rig;
    eventually("it says why", || {
        is_away(rig.sidecar()).contains("Connection refused")
    });
    refused(&login(rig.sidecar(), &rig.code("alice")));
    server.restart();
    is_up(rig.sidecar());
    log_in(rig, "alice");
}

#[test]
fn redis_dies_and_comes_back_empty() {
    let mut server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let rig = &shared.rig;
    let session = log_in(rig, "alice");
    let ended = logged_out(rig, rig.sidecar(), "bob");
    server.process.kill();
    goes_on_without(rig, &session);
    let ended_now = &session;
    assert_eq!(
        show(rig.sidecar(), &ended),
        401,
        "what is known stays known"
    );
    server.restart();
    is_as_before(rig, ended_now);
    assert_eq!(show(rig.sidecar(), &ended), 401);
}

#[test]
fn a_logout_without_redis_counts_at_once_where_it_was_heard_and_everywhere_when_redis_is_back() {
    let mut server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let (rig, second) = (&shared.rig, shared.rig.replica());
    is_up(&second);
    let sessions = ["alice", "bob"].map(|user| log_in(rig, user));
    server.process.kill();
    is_away(rig.sidecar());
    for (session, everywhere) in sessions.iter().zip([false, true]) {
        refused(&logout(rig.sidecar(), session, everywhere));
        assert_eq!(show(rig.sidecar(), session), 401);
        assert_eq!(show(&second, session), 200, "it cannot know");
    }
    server.restart();
    for session in &sessions {
        eventually("it has ended everywhere", || show(&second, session) == 401);
    }
    let late = rig.replica();
    is_up(&late);
    for session in &sessions {
        assert_eq!(show(&late, session), 401);
    }
}

#[test]
fn redis_stands_still_and_goes_on() {
    let server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let session = log_in(&shared.rig, "alice");
    server.process.pause();
    goes_on_without(&shared.rig, &session);
    server.process.resume();
    is_as_before(&shared.rig, &session);
}

#[test]
fn redis_answers_too_late() {
    let server = Server::start(&[]);
    let proxy = Proxy::in_front_of(&server);
    let shared = Shared::new(&proxy.url()).up();
    let session = log_in(&shared.rig, "alice");
    proxy.behave(Manner::Late(Duration::from_millis(1500)));
    goes_on_without(&shared.rig, &session);
    proxy.behave(Manner::Honest);
    is_as_before(&shared.rig, &session);
}

#[test]
fn what_answers_is_not_redis_or_does_not_answer_whole() {
    let server = Server::start(&[]);
    let proxy = Proxy::in_front_of(&server);
    let shared = Shared::new(&proxy.url()).up();
    let session = log_in(&shared.rig, "alice");
    let deep = b"*1\r\n".repeat(2000);
    let instead: [&[u8]; 7] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$99999999999999\r\nx",
        b"*2147483647\r\n$1\r\nx\r\n",
        b"$5\r\nab",
        &[0; 4096],
        &deep,
        b":1\r\n:2\r\n:3\r\n:4\r\n",
    ];
    let manners = instead.map(|answer| Manner::Instead(answer.to_vec()));
    let began = Instant::now();
    for manner in manners.into_iter().chain([Manner::Half]) {
        proxy.behave(manner);
        goes_on_without(&shared.rig, &session);
        proxy.behave(Manner::Honest);
        is_up(shared.rig.sidecar());
        log_in(&shared.rig, "bob");
    }
    is_as_before(&shared.rig, &session);
    // Two connect, and pause for a second after each, but for the first few.
    let most = 200 + 4 * began.elapsed().as_secs() as usize;
    let connections = proxy.connections();
    assert!(connections < most, "{connections} connections");
}

#[test]
fn redis_is_a_replica_that_takes_no_writes() {
    let server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let session = log_in(&shared.rig, "alice");
    let _: () = server.ask("REPLICAOF 127.0.0.1 1");
    goes_on_without(&shared.rig, &session);
    eventually("it says why", || {
        let said = is_away(shared.rig.sidecar());
        said.contains("READONLY") || said.contains("MASTERDOWN")
    });
    let _: () = server.ask("REPLICAOF NO ONE");
    is_as_before(&shared.rig, &session);
}

#[test]
fn the_memory_of_redis_is_full() {
    let server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let session = log_in(&shared.rig, "alice");
    let _: () = server.ask("CONFIG SET maxmemory 1");
    goes_on_without(&shared.rig, &session);
    eventually("it says why", || {
        is_away(shared.rig.sidecar()).contains("OOM")
    });
    let _: () = server.ask("CONFIG SET maxmemory 0");
    is_as_before(&shared.rig, &session);
}

#[test]
fn all_of_redis_is_deleted() {
    let server = Server::start(&[]);
    let shared = Shared::new(&server.url()).up();
    let (rig, second) = (&shared.rig, shared.rig.replica());
    is_up(&second);
    let session = log_in(rig, "alice");
    let ended = logged_out(rig, rig.sidecar(), "bob");
    felt(|| show(&second, &ended) == 401);
    let _: () = server.ask("FLUSHALL");
    for sidecar in [rig.sidecar(), &second] {
        assert_eq!(show(sidecar, &session), 200);
        assert_eq!(show(sidecar, &ended), 401);
    }
    is_as_before(rig, &session);
    let other = logged_out(rig, rig.sidecar(), "carol");
    eventually("the stream is followed anew", || {
        show(&second, &other) == 401
    });
}

#[test]
fn redis_wants_a_password() {
    canary(PASSWORD);
    let server = Server::with_password(PASSWORD);
    let place = format!("127.0.0.1:{}", server.port);
    for (url, said) in [
        (format!("redis://{place}"), "NOAUTH"),
        (format!("redis://:wrong-{PASSWORD}@{place}"), "password"),
    ] {
        let shared = Shared::new(&url);
        eventually("it says why", || {
            is_away(shared.rig.sidecar()).contains(said)
        });
        refused(&shared.rig.login_with(&shared.rig.code("alice")));
    }
    let shared = Shared::new(&server.url()).up();
    log_in(&shared.rig, "alice");
    shared.rig.admin("/readyz?verbose");
    let connections = || shared.rig.metric(CONNECTIONS);
    let before = connections();
    // Somebody changes it: what is connected stays so.
    let _: () = server.ask("CONFIG SET requirepass other");
    let answer = shared.rig.login_with(&shared.rig.code("alice"));
    // If Redis has stood still for too long, it was connected to anew, or will be.
    let is_broken = || {
        let page = readyz(shared.rig.sidecar());
        connections() > before || !page.text().contains("[+]store ok")
    };
    assert!(answer.status == 200 || is_broken(), "{}", answer.text());
}

#[test]
fn a_sidecar_that_must_have_redis_is_ready_only_with_it() {
    let mut server = Server::start(&[]);
    let shared = Shared::with(&format!("url = \"{}\"\nrequired = true", server.url())).up();
    let sidecar = shared.rig.sidecar();
    let session = log_in(&shared.rig, "alice");
    eventually("it is ready", || readyz(sidecar).status == 200);
    server.process.kill();
    eventually("it is not ready", || readyz(sidecar).status == 503);
    assert!(readyz(sidecar).text().contains("[-]store failed: "));
    assert_eq!(
        show(sidecar, &session),
        200,
        "whoever asks is served all the same"
    );
    server.restart();
    eventually("it is ready", || readyz(sidecar).status == 200);
}

#[test]
fn sentinels_say_where_the_master_is_and_where_the_next_one_is() {
    let mut master = Server::start(&[]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    eventually("the replica is one", || {
        let info: String = replica.ask("INFO replication");
        info.contains("master_link_status:up")
    });
    let sentinel = Server::sentinel(&master);
    eventually("the Sentinel knows the replica", || {
        let replicas: Vec<redis::Value> = sentinel.ask("SENTINEL REPLICAS mymaster");
        !replicas.is_empty()
    });
    // So long that nobody is made the next master before it is asked for.
    let down_after = |millis: u32| {
        let order = format!("SENTINEL SET mymaster down-after-milliseconds {millis}");
        let _: () = sentinel.ask(&order);
    };
    down_after(120_000);
    let shared = Shared::with(&format!(
        "url = [\"redis://127.0.0.1:1\", \"redis://127.0.0.1:{}\"]\nmode = \"sentinel\"\nmaster = \"mymaster\"",
        sentinel.port
    ))
    .up();
    let (rig, second) = (&shared.rig, shared.rig.replica());
    is_up(&second);
    let session = log_in(rig, "alice");
    let ended = logged_out(rig, rig.sidecar(), "bob");
    let length = |server: &Server| -> u64 { server.ask(&format!("XLEN {APPID}:revocations")) };
    let revoked = length(&master);
    assert!(revoked > 0);
    eventually("the replica has it", || length(&replica) == revoked);

    master.process.kill();
    goes_on_without(rig, &session);
    down_after(10_000);
    is_as_before(rig, &session);
    is_up(&second);
    let other = logged_out(rig, rig.sidecar(), "carol");
    felt(|| show(&second, &other) == 401);
    let late = rig.replica();
    is_up(&late);
    assert_eq!(
        show(&late, &ended),
        401,
        "the new master has what the old one had"
    );
}

#[test]
fn sentinels_that_know_no_such_master_are_told_apart() {
    let master = Server::start(&[]);
    let sentinel = Server::sentinel(&master);
    let shared = Shared::with(&format!(
        "url = \"redis://127.0.0.1:{}\"\nmode = \"sentinel\"\nmaster = \"other\"",
        sentinel.port
    ));
    eventually("it says why", || {
        is_away(shared.rig.sidecar()).contains("master name not found")
    });
}

#[test]
fn a_cluster_of_three_does_as_well_and_outlives_one_that_comes_back() {
    let start = |_| {
        let bus = crate::daemon::free_port().to_string();
        let server = Server::start(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "5000",
        ]);
        (server, bus)
    };
    let mut nodes = [0, 1, 2].map(start);
    for ((node, _), slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        let _: () = node.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
    }
    for (other, bus) in &nodes[1..] {
        let _: () = nodes[0]
            .0
            .ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port));
    }
    let is_whole = |nodes: &[(Server, String)]| {
        nodes.iter().all(|(node, _)| {
            let info: String = node.ask("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    };
    eventually("the Cluster is one", || is_whole(&nodes));

    let urls = nodes
        .each_ref()
        .map(|(node, _)| format!("\"{}\"", node.url()));
    let shared = Shared::with(&format!("url = [{}]\nmode = \"cluster\"", urls.join(", "))).up();
    let (rig, second) = (&shared.rig, shared.rig.replica());
    is_up(&second);
    let session = log_in(rig, "alice");
    // Names of many hashes, so all nodes are asked.
    for index in 0..10 {
        let (other, statuses) = undisturbed(&[rig.sidecar(), &second], || {
            // What was ended before was ended earlier than this.
            rig.advance(Duration::from_secs(1));
            let other = log_in(rig, &format!("user-{index}"));
            let refreshed = refresh(&second, &other).status;
            let ended = logout(rig.sidecar(), &other, index % 2 == 0).status;
            (other, [refreshed, ended])
        });
        assert_eq!(statuses, [200, 204]);
        felt(|| show(&second, &other) == 401);
    }
    for (node, _) in &nodes {
        assert!(node.keep_values() > 0, "each has a part of it");
    }

    nodes[1].0.process.kill();
    assert_eq!(show(rig.sidecar(), &session), 200);
    eventually("the Cluster is down", || {
        let info: String = nodes[0].0.ask("CLUSTER INFO");
        info.contains("cluster_state:fail")
    });
    goes_on_without(rig, &session);
    nodes[1].0.restart();
    eventually("the Cluster is whole", || is_whole(&nodes));
    is_as_before(rig, &session);
}

#[test]
fn redis_speaks_tls_and_shows_a_certificate_of_our_own_authority() {
    let authority = Authority::new();
    let (certificate, key) = authority.certify("localhost");
    let server = Server::with_tls(&certificate, &key);
    let ca_file = server.directory().join("ca.pem");
    fs::write(&ca_file, authority.pem()).unwrap();
    let url = format!("rediss://localhost:{}", server.port);
    let shared = Shared::with(&format!(
        "url = \"{url}\"\nca_file = \"{}\"",
        ca_file.display()
    ))
    .up();
    let second = shared.rig.replica();
    let session = logged_out(&shared.rig, &second, "alice");
    felt(|| show(shared.rig.sidecar(), &session) == 401);

    let stranger = Shared::new(&url);
    eventually("it says why", || {
        is_away(stranger.rig.sidecar()).contains("certificate")
    });
}
