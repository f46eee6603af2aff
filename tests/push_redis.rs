//! Message push with replicas that share a Redis: each message once and in order while nothing fails, and none lost
//! whatever does.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wx_sidecar::Sidecar;
use wx_sidecar::clock::Clock;
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::push::{Push, PushOptions, Pusher, Reply, Try};

use crate::daemon::free_port;
use crate::fake_app::{FakeApp, Request, Signal};
use crate::http_client::{Client, Response};
use crate::patience::{PATIENCE, eventually};
use crate::process::{Run, write_configuration};
use crate::redis_server::Server;
use crate::rig::{self, APPID, Rig, canary};

const TOKEN: &str = "pushTokenCanary00000000000000011";
const KEY: &str = "canary7PushKey7cccccccccccccccccccccccccccc";
/// The parts into which messages are divided.
const PARTS: usize = 16;
/// Nobody loses a lease within that: they last five seconds, and each second they are renewed.
const CALM: Duration = Duration::from_secs(3);
/// How long the app's answer is waited for before WeChat gets another.
const ANSWERED_WITHIN: Duration = Duration::from_millis(4_500);

fn sections(store: &str, push: &str) -> String {
    canary(TOKEN);
    canary(KEY);
    format!(
        "[store]\nkind = \"redis\"\ntimeout = \"1s\"\n{store}\n\
         [push]\ntoken = \"{TOKEN}\"\naes_key = \"{KEY}\"\nretry_cap = \"1s\"\ntimeout = \"60s\"\n{push}\n"
    )
}

fn url(redis: &Server) -> String {
    format!("url = \"{}\"", redis.url())
}

fn rig_of(app: &FakeApp, redis: &Server, push: &str) -> Rig {
    let rig = Rig::with(&app.url(), "", &sections(&url(redis), push));
    takes(rig.sidecar());
    rig
}

fn replica_of(rig: &Rig) -> Sidecar {
    let replica = rig.replica();
    takes(&replica);
    replica
}

fn pusher(inbound: &str, clock: &Clock) -> Pusher {
    let mut options = PushOptions::new(
        format!("http://{inbound}/wx/push"),
        AppId::parse(APPID).unwrap(),
        Secret::new(TOKEN),
        Secret::new(KEY),
    );
    options.clock = clock.clone();
    options.timeout = PATIENCE;
    Pusher::new(options).unwrap()
}

fn pusher_to(rig: &Rig, sidecar: &Sidecar) -> Pusher {
    let mut addresses = sidecar.inbound_addr().to_socket_addrs().unwrap();
    pusher(&addresses.next().unwrap().to_string(), &rig.clock)
}

fn user(number: usize) -> String {
    format!("oPushUser{number:019}")
}

/// The `number`th message of a user.
fn message(user_number: usize, number: usize) -> Push {
    let id = 24_000_000_000_000_000 + (user_number * 1_000_000 + number) as u64;
    Push::text(user(user_number), number.to_string()).with_msg_id(id)
}

fn is_taken(sent: &Try) -> bool {
    sent.verdict == Ok(Reply::Success)
}

/// Sends a message until it is taken, as WeChat does: on a machine that stands still Redis is taken for away. If it was taken
/// before all the same, it is known again.
fn send(pusher: &Pusher, push: &Push) {
    eventually("it is taken", || is_taken(&pusher.send_once_blocking(push)));
}

/// Whether so many messages came, each once. If it has taken long since they began, a replica may have lost a lease, as one does
/// that stands still, and what it had under way comes twice.
fn came_once(app: &FakeApp, count: usize, began: Instant) {
    let came = app.requests(0).len();
    let took = began.elapsed();
    assert!(came >= count, "{came} of {count}");
    assert!(
        came == count || took >= CALM,
        "{came} of {count}, in {took:?}"
    );
}

fn admin(sidecar: &Sidecar, method: &str, target: &str) -> Response {
    let mut addresses = sidecar.admin_addr().to_socket_addrs().unwrap();
    Client::connect(addresses.next().unwrap()).request(method, target, &[], b"")
}

/// What comes of a question or an order, once Redis has answered in time; and whether it did so at once. Otherwise what was
/// ordered may have been done before.
fn told(sidecar: &Sidecar, method: &str, target: &str) -> (Value, bool) {
    let (mut page, mut times) = (Value::Null, 0);
    eventually("Redis answers in time", || {
        let answer = admin(sidecar, method, target);
        times += 1;
        page = answer.json();
        answer.status == 200
    });
    (page, times == 1)
}

fn letters(sidecar: &Sidecar, target: &str) -> Vec<Value> {
    let (page, _) = told(sidecar, "GET", target);
    page["letters"].as_array().unwrap().clone()
}

/// Throws a message away.
fn throw_away(sidecar: &Sidecar, target: &str) {
    let (dropped, at_once) = told(sidecar, "DELETE", target);
    assert!(dropped == json!({"dropped": 1}) || !at_once, "{dropped}");
}

/// Waits until a sidecar has Redis.
fn takes(sidecar: &Sidecar) {
    eventually("messages are taken", || {
        let page = admin(sidecar, "GET", "/readyz?verbose");
        !page.text().contains("messages are not acknowledged")
    });
}

/// An app whose answer to each request is what `answer` says.
fn app(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> FakeApp {
    FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|request| request.complete) {
            connection.write(&answer(&request));
        }
    })
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// The numbers of the messages that came, by user, in order; of those that came more than once the first.
fn firsts(requests: &[Request]) -> BTreeMap<String, Vec<usize>> {
    let mut firsts = BTreeMap::<String, Vec<usize>>::new();
    for request in requests {
        let message: Value = serde_json::from_slice(&request.body).unwrap();
        let number = message["Content"].as_str().unwrap().parse().unwrap();
        let openid = request.header("x-wx-openid").unwrap().to_owned();
        let numbers = firsts.entry(openid).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    firsts
}

/// Waits until so many different messages came, and says which.
fn arrive(app: &FakeApp, count: usize) -> BTreeMap<String, Vec<usize>> {
    eventually("all messages arrive", || {
        let firsts = firsts(&app.requests(0));
        firsts.values().map(Vec::len).sum::<usize>() >= count
    });
    firsts(&app.requests(0))
}

fn are_in_order(firsts: &BTreeMap<String, Vec<usize>>) {
    for (openid, numbers) in firsts {
        assert!(numbers.is_sorted(), "{openid}: {numbers:?}");
    }
}

/// Who holds how many parts.
fn holders(redis: &Server) -> Vec<usize> {
    let mut holders = BTreeMap::<String, usize>::new();
    for part in 0..PARTS {
        let holder: Option<String> = redis.ask(&format!("GET {{{APPID}}}:push:lease:{part}"));
        if let Some(holder) = holder {
            *holders.entry(holder).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = holders.into_values().collect();
    counts.sort_unstable();
    counts
}

fn become_held(redis: &Server, counts: &[usize]) {
    eventually("the parts are divided", || holders(redis) == counts);
}

/// Waits until nothing waits in Redis.
fn nothing_waits(redis: &Server) {
    eventually("nothing waits", || waiting(redis) == 0);
    let sums: Vec<Option<String>> = redis.ask(&format!("HMGET {{{APPID}}}:push:sums n b"));
    assert_eq!(sums, [Some("0".to_owned()), Some("0".to_owned())]);
}

fn waiting(redis: &Server) -> usize {
    let len = |part| redis.ask::<usize>(&format!("XLEN {{{APPID}}}:push:part:{part}"));
    (0..PARTS).map(len).sum()
}

#[test]
fn three_replicas_deliver_each_message_once_and_in_order() {
    const USERS: usize = 24;
    const EACH: usize = 8;
    let (redis, app) = (Server::start(&[]), FakeApp::agreeable());
    let rig = rig_of(&app, &redis, "");
    become_held(&redis, &[16]);
    let (second, third) = (replica_of(&rig), replica_of(&rig));
    become_held(&redis, &[5, 5, 6]);
    let pushers = [rig.sidecar(), &second, &third].map(|sidecar| pusher_to(&rig, sidecar));
    let began = Instant::now();
    for number in 0..EACH {
        for user in 0..USERS {
            send(&pushers[(number + user) % 3], &message(user, number));
        }
    }
    let firsts = arrive(&app, USERS * EACH);
    are_in_order(&firsts);
    came_once(&app, USERS * EACH, began);
    nothing_waits(&redis);
    came_once(&app, USERS * EACH, began);
    redis.keep_values();
}

#[test]
fn a_message_that_comes_to_two_replicas_is_one() {
    let (redis, app) = (Server::start(&[]), FakeApp::agreeable());
    let rig = rig_of(&app, &redis, "");
    let second = replica_of(&rig);
    let (a, b) = (pusher_to(&rig, rig.sidecar()), pusher_to(&rig, &second));
    let began = Instant::now();
    for number in 0..20 {
        let push = message(1, number);
        thread::scope(|scope| {
            for pusher in [&a, &b, &a] {
                let push = &push;
                scope.spawn(move || send(pusher, push));
            }
        });
        send(&b, &push);
    }
    are_in_order(&arrive(&app, 20));
    came_once(&app, 20, began);
    nothing_waits(&redis);
    came_once(&app, 20, began);
}

#[test]
fn parts_move_when_a_replica_leaves_and_nothing_is_delivered_twice() {
    let redis = Server::start(&[]);
    // Something is under way when the replica leaves.
    let leaving = Signal::default();
    let left = leaving.clone();
    let app = app(move |_| {
        left.wait();
        answer(200, "")
    });
    let (first, second) = processes(&app, &redis, "");
    let pusher = pusher(&first.inbound.to_string(), &Clock::System);
    let began = Instant::now();
    for number in 0..10 {
        for user in 0..20 {
            send(&pusher, &message(user, number));
        }
    }
    app.requests(2);
    second.process.signal("TERM");
    leaving.give();
    let (code, stderr) = second.process.end();
    assert_eq!(code, 0, "{stderr}");
    let is_calm = began.elapsed() < CALM;
    become_held(&redis, &[16]);
    are_in_order(&arrive(&app, 200));
    nothing_waits(&redis);
    // Who is left is alone with its leases.
    let came = app.requests(0).len();
    assert!(came == 200 || !is_calm, "{came} came, and not each once");
}

/// Two replicas that can be ended as processes are. Each holds half of the parts.
fn processes(app: &FakeApp, redis: &Server, push: &str) -> (Run, Run) {
    let configuration = rig::configuration(
        "https://127.0.0.1:1",
        &app.url(),
        "auth = \"none\"",
        &sections(&url(redis), push),
    );
    let file = write_configuration(&configuration);
    let both = (Run::under(&[], &file), Run::under(&[], &file));
    become_held(redis, &[8, 8]);
    both
}

#[test]
fn what_a_killed_replica_had_is_delivered_by_another() {
    let redis = Server::start(&[]);
    // Some messages are delivered, and some are under way when the replica is killed.
    let (killed, served) = (Signal::default(), AtomicUsize::new(0));
    let is_killed = killed.clone();
    let app = app(move |_| {
        if served.fetch_add(1, Ordering::SeqCst) >= 40 {
            is_killed.wait();
        }
        answer(200, "")
    });
    let (first, second) = processes(&app, &redis, "concurrency = 4");
    let (a, b) = (
        pusher(&first.inbound.to_string(), &Clock::System),
        pusher(&second.inbound.to_string(), &Clock::System),
    );
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let storm = |pusher: Pusher, users: std::ops::Range<usize>, other: Pusher| {
        let acknowledged = Arc::clone(&acknowledged);
        thread::spawn(move || {
            let mut taken = BTreeMap::<String, Vec<usize>>::new();
            for number in 0..20 {
                for number_of_user in users.clone() {
                    let push = message(number_of_user, number);
                    // As WeChat does: again until somebody takes it.
                    let takes = |pusher: &Pusher| is_taken(&pusher.send_once_blocking(&push));
                    eventually("somebody takes it", || takes(&pusher) || takes(&other));
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                    taken.entry(user(number_of_user)).or_default().push(number);
                }
            }
            taken
        })
    };
    let storms = [storm(a.clone(), 0..10, b.clone()), storm(b, 10..20, a)];
    eventually("the storm is on", || {
        acknowledged.load(Ordering::SeqCst) > 100
    });
    first.process.signal("KILL");
    // Who is left is alone with its leases.
    let is_calm = began.elapsed() < CALM;
    killed.give();
    let mut taken = BTreeMap::new();
    for storm in storms {
        taken.extend(storm.join().unwrap());
    }
    let firsts = arrive(&app, 400);
    assert_eq!(firsts, taken, "all, and in order");
    nothing_waits(&redis);
    become_held(&redis, &[16]);
    let twice = app.requests(0).len() - 400;
    assert!(
        twice <= 4 || !is_calm,
        "what was under way may come twice, and nothing else: {twice}"
    );
}

/// An app that is away until it is told to come.
fn absent() -> (FakeApp, Arc<AtomicBool>) {
    let is_there = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_there);
    let app = app(move |_| match asked.load(Ordering::SeqCst) {
        true => answer(200, ""),
        false => answer(503, ""),
    });
    (app, is_there)
}

/// The messages that the app has taken, by its requests after it came.
fn since(app: &FakeApp, before: usize, count: usize) -> BTreeMap<String, Vec<usize>> {
    eventually("all messages arrive", || {
        let firsts = firsts(&app.requests(0)[before..]);
        firsts.values().map(Vec::len).sum::<usize>() >= count
    });
    firsts(&app.requests(0)[before..])
}

#[test]
fn redis_goes_away_in_every_way_and_what_it_has_kept_arrives() {
    let mut redis = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (app, is_there) = absent();
    let rig = rig_of(&app, &redis, "");
    let second = replica_of(&rig);
    become_held(&redis, &[8, 8]);
    let pushers = [pusher_to(&rig, rig.sidecar()), pusher_to(&rig, &second)];
    let refuse = |why: &str| {
        for (pusher, number) in pushers.iter().zip([98, 99]) {
            // And does not wait for Redis, which stays away.
            let sent = pusher.send_once_blocking(&message(0, number));
            assert_eq!(sent.status, Some(503), "{why}: {sent:?}");
        }
        // It is told behind the answer.
        eventually("Redis is known to be away", || {
            rig.metric("wx_sidecar_push_inbox_up") == 0.0
        });
    };
    let accept = |number: usize| {
        for user in 1..9 {
            send(&pushers[user % 2], &message(user, number));
        }
    };
    accept(0);

    redis.process.kill();
    refuse("gone");
    let page = admin(rig.sidecar(), "GET", "/readyz?verbose");
    assert_eq!(page.status, 200, "it is ready all the same");
    assert!(
        page.text()
            .contains("messages are not acknowledged: Redis is away")
    );
    redis.restart();
    takes(rig.sidecar());
    takes(&second);
    accept(1);

    redis.process.pause();
    refuse("paused");
    redis.process.resume();
    takes(rig.sidecar());
    takes(&second);
    accept(2);

    let _: () = redis.ask("CLIENT KILL TYPE normal");
    takes(rig.sidecar());
    takes(&second);
    eventually("a connection is there again", || {
        let sent = pushers
            .each_ref()
            .map(|it| it.send_once_blocking(&message(1, 3)));
        sent.iter().all(is_taken)
    });

    assert!(waiting(&redis) >= 25);
    let before = app.requests(0).len();
    is_there.store(true, Ordering::SeqCst);
    // What was told to have failed may be there all the same, so it is not
    // known how many will come.
    nothing_waits(&redis);
    let firsts = since(&app, before, 25);
    are_in_order(&firsts);
    for number in 1..9 {
        assert_eq!(firsts[&user(number)][..3], [0, 1, 2]);
    }
}

#[test]
fn a_redis_that_has_lost_everything_takes_new_messages() {
    let (redis, app) = (Server::start(&[]), FakeApp::agreeable());
    let rig = rig_of(&app, &redis, "");
    let pusher = pusher_to(&rig, rig.sidecar());
    for number in 0..5 {
        send(&pusher, &message(1, number));
    }
    arrive(&app, 5);
    let _: () = redis.ask("FLUSHALL");
    become_held(&redis, &[16]);
    for number in 5..10 {
        send(&pusher, &message(1, number));
    }
    are_in_order(&arrive(&app, 10));
    // The numbers alone: the streams know better.
    let _: () = redis.ask(&format!("HSET {{{APPID}}}:push:sums last 0"));
    send(&pusher, &message(1, 10));
    arrive(&app, 11);
    nothing_waits(&redis);
}

#[test]
fn what_cannot_be_opened_stays_and_holds_nothing_up() {
    let (redis, app) = (Server::start(&[]), FakeApp::agreeable());
    let rig = rig_of(&app, &redis, "");
    for part in 0..PARTS {
        let _: String = redis.ask(&format!("XADD {{{APPID}}}:push:part:{part} 0-7 v garbage"));
    }
    let pusher = pusher_to(&rig, rig.sidecar());
    for user in 0..20 {
        send(&pusher, &message(user, 0));
    }
    arrive(&app, 20);
    eventually("they are settled", || waiting(&redis) == PARTS);
    // A part without messages may be read last.
    eventually("all are refused", || {
        rig.metric("wx_sidecar_push_store_values_refused_total") >= 16.0
    });
}

#[test]
fn nothing_in_redis_can_be_read() {
    let redis = Server::start(&[]);
    let (app, _) = absent();
    let rig = rig_of(&app, &redis, "");
    let pusher = pusher_to(&rig, rig.sidecar());
    let secret = Push::text(user(1), "words that nobody else may read");
    send(&pusher, &secret);
    eventually("it is tried", || !app.requests(0).is_empty());
    let names: Vec<String> = redis.ask("KEYS *push*");
    assert!(names.len() > 4, "{names:?}");
    for name in names {
        let value: Vec<u8> = redis.ask(&format!("DUMP {name}"));
        for word in [&b"words"[..], user(1).as_bytes(), b"MsgType"] {
            assert_eq!(memchr::memmem::find(&value, word), None, "{name}");
            assert_eq!(memchr::memmem::find(name.as_bytes(), word), None, "{name}");
        }
    }
    redis.keep_values();
}

#[test]
fn the_answer_of_the_app_reaches_whoever_received_the_message() {
    let redis = Server::start(&[]);
    let app = app(|_| answer(200, "{\"MsgType\":\"transfer_customer_service\"}"));
    let rig = rig_of(&app, &redis, "reply = \"wait\"");
    let second = replica_of(&rig);
    become_held(&redis, &[8, 8]);
    let (a, b) = (pusher_to(&rig, rig.sidecar()), pusher_to(&rig, &second));
    // WeChat asks again if it gets another answer, which it does only if Redis or the app's answer came too late.
    let is_transfer = |pusher: &Pusher, push: &Push| {
        eventually("the app's answer is told", || {
            let sent = pusher.send_once_blocking(push);
            let is_it = sent.status == Some(200)
                && sent.encrypted
                && sent.reply.contains("transfer_customer_service");
            let is_late = sent.status == Some(503) || sent.took >= ANSWERED_WITHIN;
            assert!(is_it || is_late, "{sent:?}");
            is_it
        });
    };
    let began = Instant::now();
    for user in 0..12 {
        let push = message(user, 0);
        is_transfer(&a, &push);
        is_transfer(&b, &push);
        is_transfer(&a, &push);
    }
    nothing_waits(&redis);
    came_once(&app, 12, began);
}

#[test]
fn dead_letters_are_the_same_everywhere_and_can_be_delivered_by_anyone() {
    let redis = Server::start(&[]);
    let is_content = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_content);
    let app = app(move |_| match asked.load(Ordering::SeqCst) {
        true => answer(200, ""),
        false => answer(422, ""),
    });
    let rig = rig_of(&app, &redis, "");
    let second = replica_of(&rig);
    become_held(&redis, &[8, 8]);
    let pusher = pusher_to(&rig, rig.sidecar());
    for user in 0..6 {
        send(&pusher, &message(user, 0));
    }
    let dead = |sidecar: &Sidecar| letters(sidecar, "/push/dead-letters");
    eventually("they are given up", || dead(&second).len() == 6);
    nothing_waits(&redis);
    assert_eq!(dead(rig.sidecar()), dead(&second));
    assert_eq!(dead(&second)[0]["death"]["attempts"], 5);
    eventually("the gauge says so", || {
        rig.metric("wx_sidecar_push_dead_letters") == 6.0
    });
    let (first, _) = told(&second, "GET", "/push/dead-letters?limit=4");
    assert_eq!(first["letters"].as_array().unwrap().len(), 4);
    let rest = format!("/push/dead-letters?limit=4&from={}", first["next"]);
    assert_eq!(letters(&second, &rest).len(), 2);

    let id = dead(&second)[0]["id"].as_str().unwrap().to_owned();
    throw_away(&second, &format!("/push/dead-letters/{id}"));
    let before = app.requests(0).len();
    is_content.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let (replayed, at_once) = told(&second, "POST", "/push/dead-letters/replay");
    assert!(replayed == json!({"replayed": 5}) || !at_once, "{replayed}");
    since(&app, before, 5);
    nothing_waits(&redis);
    assert_eq!(dead(rig.sidecar()).len(), 0);
    came_once(&app, before + 5, began);
}

#[test]
fn a_message_that_waits_can_be_thrown_away_at_any_replica() {
    let redis = Server::start(&[]);
    let (app, is_there) = absent();
    let rig = rig_of(&app, &redis, "");
    let second = replica_of(&rig);
    become_held(&redis, &[8, 8]);
    let pusher = pusher_to(&rig, rig.sidecar());
    for user in 0..8 {
        for number in 0..2 {
            send(&pusher, &message(user, number));
        }
    }
    let waiting_there = letters(&second, "/push/inbox?limit=20");
    assert_eq!(waiting_there.len(), 16);
    for letter in waiting_there.iter().skip(1).step_by(2) {
        let id = letter["id"].as_str().unwrap();
        throw_away(&second, &format!("/push/inbox/{id}"));
    }
    assert_eq!(waiting(&redis), 8);
    // Each replica asks once a second, and has asked when its gauge has followed.
    eventually("it is known", || {
        rig.metric("wx_sidecar_push_inbox_depth") == 8.0
            && admin(&second, "GET", "/metrics")
                .text()
                .contains("wx_sidecar_push_inbox_depth 8\n")
    });
    let before = app.requests(0).len();
    is_there.store(true, Ordering::SeqCst);
    let firsts = since(&app, before, 8);
    nothing_waits(&redis);
    assert!(firsts.values().all(|numbers| *numbers == [0]), "{firsts:?}");
}

#[test]
fn no_more_wait_than_may_in_all_replicas_together() {
    let redis = Server::start(&[]);
    let (app, is_there) = absent();
    let rig = rig_of(&app, &redis, "max_waiting = 10");
    let second = replica_of(&rig);
    let pushers = [pusher_to(&rig, rig.sidecar()), pusher_to(&rig, &second)];
    for number in 0..10 {
        send(&pushers[number % 2], &message(number, 0));
    }
    for pusher in &pushers {
        let sent = pusher.send_once_blocking(&message(10, 0));
        assert_eq!(sent.status, Some(503), "{sent:?}");
    }
    let before = app.requests(0).len();
    is_there.store(true, Ordering::SeqCst);
    since(&app, before, 10);
    nothing_waits(&redis);
    send(&pushers[0], &message(10, 0));
}

#[test]
fn a_cluster_keeps_all_of_it_on_one_node_and_that_is_enough() {
    let nodes = [0, 1, 2].map(|_| {
        let bus = free_port().to_string();
        let server = Server::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
        (server, bus)
    });
    for ((node, _), slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        let _: () = node.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
    }
    for (other, bus) in &nodes[1..] {
        let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port);
        let _: () = nodes[0].0.ask(&meet);
    }
    eventually("the Cluster is one", || {
        nodes.iter().all(|(node, _)| {
            let info: String = node.ask("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    });
    let urls = nodes
        .each_ref()
        .map(|(node, _)| format!("\"{}\"", node.url()));
    let store = format!("url = [{}]\nmode = \"cluster\"", urls.join(", "));
    let app = FakeApp::agreeable();
    let rig = Rig::with(&app.url(), "", &sections(&store, ""));
    takes(rig.sidecar());
    let second = replica_of(&rig);
    let pushers = [pusher_to(&rig, rig.sidecar()), pusher_to(&rig, &second)];
    for number in 0..5 {
        for user in 0..10 {
            send(&pushers[(number + user) % 2], &message(user, number));
        }
    }
    are_in_order(&arrive(&app, 50));
    eventually("nothing waits", || {
        rig.metric("wx_sidecar_push_inbox_depth") == 0.0
    });
}
