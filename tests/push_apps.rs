//! Message push with others' code on both sides: what wechatpy, WxJava and a package of WeChat's makers encrypt is read,
//! what is answered they can read, and apps in Express and in Flask that are killed under a storm get all of it.
//!
//! The encrypting programs are in `tests/apps/push-*`, and get their messages in a file. An app keeps a [`Ledger`], on the
//! disk before it answers. All runs by the system's clock, because the programs sign with theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use wx_sidecar::Sidecar;
use wx_sidecar::clock::Clock;

use crate::backends::{App, Kind, Script};
use crate::fake_app::{FakeApp, Request};
use crate::http_client::{Client, Response};
use crate::patience::{comes_true, eventually};
use crate::rig::{self, APPID, canary, metric_at};

/// The Mini Program, as WeChat names it in messages.
const TO: &str = "gh_0123456789ab";
/// Where [`message_id`] begins: beyond what a double holds exactly.
const FIRST_ID: u64 = 23_637_352_235_060_880;
/// How long the app's reply is waited for before the sidecar answers for it.
const REPLY_WITHIN: Duration = Duration::from_millis(4500);
/// `[new, old]`, as while they are being changed. The last two of the 258 bits of the first key are not zero.
const KEYS: [Key; 2] = [
    Key {
        token: "Kb6RrW2vTq9LmX4z",
        aes_key: "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
    },
    Key {
        token: "oldTokenHx7Yp3NcD5sJ",
        aes_key: "kZ0f3Jm8QwXv1NbRtY6uLpA9sDgHcE2iOjK4lM7nBVo",
    },
];

struct Key {
    token: &'static str,
    aes_key: &'static str,
}

#[test]
fn what_wechatpy_encrypts_arrives_and_what_is_answered_it_reads() {
    speaks_with(Kind::PushWechatpy, "push.py");
}

#[test]
fn what_wxjava_encrypts_arrives_and_what_is_answered_it_reads() {
    speaks_with(Kind::PushWxJava, "Push.java");
}

#[test]
fn what_wecoms_package_for_node_encrypts_arrives_and_what_is_answered_it_reads() {
    speaks_with(Kind::PushNode, "push.js");
}

fn speaks_with(kind: Kind, script: &str) {
    what_it_encrypts_arrives(kind, script);
    what_is_answered_it_reads(kind, script);
}

fn what_it_encrypts_arrives(kind: Kind, script: &str) {
    let app = FakeApp::agreeable();
    let sidecar = sidecar(&app.url(), &secure("ack"));
    let messages = messages_of_all_paddings();
    let said = run(kind, script, inbound(&sidecar), &messages);

    for answer in &said {
        assert_eq!(answer["status"], 200, "{answer}");
        assert_eq!(answer["answer"], "success");
    }
    let paddings: BTreeSet<_> = said.iter().map(|it| it["padding"].as_u64()).collect();
    assert_eq!(paddings, (1..=32).map(Some).collect());

    let delivered = by_id(app.requests(messages.len()));
    assert_eq!(delivered.len(), messages.len());
    for message in &messages {
        message.assert_delivered(&delivered[&message.id]);
    }
}

fn what_is_answered_it_reads(kind: Kind, script: &str) {
    let app = FakeApp::start(|connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            let message: Value = serde_json::from_slice(&request.body).expect("pushes are JSON");
            let body = passive_reply(&message);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
            connection.write(
                format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
            );
        }
    });
    let sidecar = sidecar(&app.url(), &secure("wait"));
    let mut numbers = 0..8;
    let (mut messages, mut said) = (Vec::new(), Vec::new());
    // Who is held up for too long has no reply, and others are sent then.
    eventually("the replies come too late", || {
        let message = |number: usize| Message {
            key: number / 2 % 2,
            is_event: number % 8 < 4,
            ..Message::new(number, "转人工 ]]> 😀")
        };
        messages = numbers.clone().map(message).collect();
        numbers = numbers.end..numbers.end + 8;
        let began = Instant::now();
        said = run(kind, script, inbound(&sidecar), &messages);
        let mut late = said.iter().filter(|answer| answer["reply"].is_null());
        late.all(|answer| {
            let may_be_late = began.elapsed() >= REPLY_WITHIN;
            assert!(may_be_late && answer["answer"] == "success", "{answer}");
            false
        })
    });

    for (answer, message) in said.iter().zip(&messages) {
        assert_eq!(answer["status"], 200, "{answer}");
        let reply = answer["reply"].as_str().expect("an encrypted reply");
        match message.format {
            Format::Json => assert_eq!(reply, passive_reply(&message.json())),
            Format::Xml if message.is_event => assert_eq!(
                reply,
                "<xml><ErrCode>0</ErrCode><ErrMsg><![CDATA[success]]></ErrMsg></xml>"
            ),
            Format::Xml => assert_eq!(
                reply,
                format!(
                    "<xml><ToUserName><![CDATA[{}]]></ToUserName><FromUserName><![CDATA[{TO}]]></FromUserName>\
                     <CreateTime>{}</CreateTime><MsgType><![CDATA[transfer_customer_service]]></MsgType></xml>",
                    message.openid(),
                    message.created()
                )
            ),
        }
    }
}

/// What an app answers, in the order of WeChat's page: to a user's message, that people shall; to an event of payment,
/// that it is done.
fn passive_reply(message: &Value) -> String {
    if message["MsgType"] == "event" {
        return r#"{"ErrCode":0,"ErrMsg":"success"}"#.to_owned();
    }
    format!(
        r#"{{"ToUserName":{},"FromUserName":{},"CreateTime":{},"MsgType":"transfer_customer_service"}}"#,
        message["FromUserName"], message["ToUserName"], message["CreateTime"]
    )
}

#[test]
fn an_express_app_killed_in_a_storm_gets_all_of_it_in_order() {
    gets_all_of_a_storm(Kind::PushExpress);
}

#[test]
fn a_flask_app_killed_in_a_storm_gets_all_of_it_in_order() {
    gets_all_of_a_storm(Kind::PushFlask);
}

fn gets_all_of_a_storm(kind: Kind) {
    let mut stage = Stage::new(kind);
    let storm: Vec<_> = (0..300).map(|n| Message::new(n, "风暴")).collect();
    let (begins, goes_on, ends) = (&storm[..100], &storm[100..200], &storm[200..]);

    stage.send_and_meanwhile(begins, |stage| {
        stage.ledger.wait_for(20);
        stage.app.kill();
    });
    stage.send(goes_on);
    let before = stage.ledger.distinct();
    assert!((20..200).contains(&before), "{before}");
    stage.restart();
    stage.send_and_meanwhile(ends, |stage| {
        stage.ledger.wait_for(before + 50);
        stage.app.kill();
        stage.restart();
    });
    stage.ledger.wait_for(storm.len());
    stage.ledger.assert_holds(&storm);
}

#[test]
fn an_app_that_is_away_for_several_attempts_gets_all_when_it_returns() {
    for kind in [Kind::PushExpress, Kind::PushFlask] {
        let mut stage = Stage::new(kind);
        let messages: Vec<_> = (0..60).map(|n| Message::new(n, "还在吗")).collect();
        stage.app.kill();
        stage.send(&messages);
        stage.wait_for_attempts("unreachable", 8);
        stage.restart();
        stage.ledger.wait_for(messages.len());
        stage.ledger.assert_holds_once(&messages);
    }
}

#[test]
fn an_app_that_answers_500_for_a_while_gets_all_when_it_recovers() {
    for kind in [Kind::PushExpress, Kind::PushFlask] {
        let stage = Stage::new(kind);
        let messages: Vec<_> = (0..60).map(|n| Message::new(n, "磁盘不在")).collect();
        stage.send(&messages[..20]);
        stage.ledger.wait_for(20);
        stage.ledger.take_away();
        stage.send(&messages[20..]);
        // As WeChat does when our answer is lost on the way.
        stage.send(&messages[10..30]);
        stage.wait_for_attempts("failed", 40);
        assert_eq!(stage.ledger.distinct(), 0);
        stage.ledger.bring_back();
        stage.ledger.wait_for(messages.len());
        stage.ledger.assert_holds_once(&messages);
    }
}

#[test]
fn a_message_that_the_app_never_accepts_becomes_a_dead_letter_and_the_others_arrive() {
    for kind in [Kind::PushExpress, Kind::PushFlask] {
        let stage = Stage::new(kind);
        let mut messages: Vec<_> = (0..60).map(|n| Message::new(n, "可以")).collect();
        // The app wants a text; and the user writes on after it.
        messages[7].content.clear();
        stage.send(&messages);
        let refused = messages.remove(7);
        stage.ledger.wait_for(messages.len());
        stage.ledger.assert_holds(&messages);
        stage.wait_for_dead_letter(&refused);
    }
}

/// An app with a ledger, behind a sidecar with a journal that takes pushes in plaintext.
struct Stage {
    kind: Kind,
    ledger: Ledger,
    app: App,
    sidecar: Sidecar,
}

impl Stage {
    fn new(kind: Kind) -> Self {
        let ledger = Ledger::new();
        let app = App::start_with(kind, None, &[("LEDGER", &ledger.path)]);
        let token = KEYS[0].token;
        canary(token);
        let journal = ledger.directory.path().join("journal");
        let push = format!(
            "token = \"{token}\"\nmode = \"plaintext\"\ntimeout = \"1m\"\nretry_cap = \"100ms\"\njournal = \"{}\"\n",
            journal.display()
        );
        let sidecar = sidecar(&app.url(), &push);
        Self {
            kind,
            ledger,
            app,
            sidecar,
        }
    }

    /// Starts the app again where it was.
    fn restart(&mut self) {
        let settings = [("LEDGER", self.ledger.path.as_path())];
        self.app = App::start_with(self.kind, Some(self.app.port()), &settings);
    }

    /// Sends as WeChat does, the users beside each other and each user's messages in order. All are acknowledged.
    fn send(&self, messages: &[Message]) {
        send(inbound(&self.sidecar), messages);
    }

    fn send_and_meanwhile(&mut self, messages: &[Message], and: impl FnOnce(&mut Self)) {
        let address = inbound(&self.sidecar);
        thread::scope(|scope| {
            scope.spawn(|| send(address, messages));
            and(self);
        });
    }

    fn wait_for_attempts(&self, result: &str, count: u64) {
        let seen = || attempts(&self.sidecar, result);
        let enough = comes_true(|| seen() >= count);
        assert!(enough, "{} of {count} attempts: {result}", seen());
    }

    fn wait_for_dead_letter(&self, message: &Message) {
        let id = message.id.to_string();
        eventually("it is no dead letter", || {
            let letters = admin(&self.sidecar, "/push/dead-letters");
            letters.text().contains(&id)
        });
    }
}

/// Sends in four threads, and a user's messages in one.
fn send(address: SocketAddr, messages: &[Message]) {
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                let mut wechat = Client::connect(address);
                for message in messages.iter().filter(|it| it.user % 4 == part) {
                    let answer = message.send_in_plaintext(&mut wechat);
                    assert_eq!((answer.status, answer.text()), (200, "success"));
                }
            });
        }
    });
}

/// The file in which an app writes what it got, before it answers.
struct Ledger {
    directory: TempDir,
    path: PathBuf,
}

#[derive(serde::Deserialize)]
struct Entry {
    /// X-WX-Msg-Id.
    id: String,
    /// X-WX-OPENID.
    openid: String,
    body: String,
}

impl Ledger {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = directory.path().join("disk");
        fs::create_dir(&folder).expect("a new folder");
        let path = folder.join("ledger");
        Self { directory, path }
    }

    /// From here on the app fails by itself.
    fn take_away(&self) {
        self.rename("disk", "elsewhere");
    }

    fn bring_back(&self) {
        self.rename("elsewhere", "disk");
    }

    fn rename(&self, from: &str, to: &str) {
        let place = |name| self.directory.path().join(name);
        fs::rename(place(from), place(to)).expect("the folder is there");
    }

    fn entries(&self) -> Vec<Entry> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        // The last line may be half written at the moment.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
            .collect()
    }

    /// How many messages there are, each counted once.
    fn distinct(&self) -> usize {
        let entries = self.entries();
        entries
            .iter()
            .map(|it| &it.body)
            .collect::<BTreeSet<_>>()
            .len()
    }

    fn wait_for(&self, count: usize) {
        let enough = comes_true(|| self.distinct() >= count);
        let seen = self.distinct();
        assert!(enough, "{seen} of {count} messages are in the ledger");
    }

    /// As [`Ledger::assert_holds`], for an app that was not killed when it had written a message but not answered.
    fn assert_holds_once(&self, messages: &[Message]) {
        self.assert_holds(messages);
        assert_eq!(self.entries().len(), messages.len());
    }

    /// Each message is in it, and none other; where they come first, they come in their user's order; and an id is always
    /// the same message's.
    fn assert_holds(&self, messages: &[Message]) {
        let mut bodies_of_ids = BTreeMap::new();
        let mut ids_by_user = BTreeMap::<String, Vec<u64>>::new();
        for entry in self.entries() {
            let message: Value = serde_json::from_str(&entry.body).expect("a push is JSON");
            assert_eq!(message["FromUserName"], *entry.openid);
            let id = message["MsgId"].as_u64().expect("an exact number");
            let known = bodies_of_ids
                .entry(entry.id)
                .or_insert_with(|| entry.body.clone());
            assert_eq!(*known, entry.body);
            let of_user = ids_by_user.entry(entry.openid).or_default();
            if !of_user.contains(&id) {
                of_user.push(id);
            }
        }
        let mut sent = BTreeMap::<String, Vec<u64>>::new();
        for message in messages {
            sent.entry(message.openid()).or_default().push(message.id);
        }
        assert_eq!(ids_by_user, sent);
        assert_eq!(bodies_of_ids.len(), messages.len());
    }
}

#[derive(Clone, Copy)]
enum Format {
    Xml,
    Json,
}

/// A message as WeChat has it before it encrypts.
struct Message {
    id: u64,
    /// One of 20 users.
    user: usize,
    format: Format,
    /// Which of [`KEYS`] signs and encrypts it.
    key: usize,
    /// Whether it tells of a payment, and is not a text.
    is_event: bool,
    content: String,
}

impl Message {
    fn new(number: usize, content: impl Into<String>) -> Self {
        Self {
            id: FIRST_ID + number as u64,
            user: number % 20,
            format: [Format::Xml, Format::Json][number % 2],
            key: 0,
            is_event: false,
            content: content.into(),
        }
    }

    fn openid(&self) -> String {
        format!("oUser_of-the-storm-{:02}", self.user)
    }

    fn created(&self) -> u64 {
        1_790_000_000 + self.id - FIRST_ID
    }

    /// What the app is to get.
    fn json(&self) -> Value {
        let mut message = json!({
            "ToUserName": TO,
            "FromUserName": self.openid(),
            "CreateTime": self.created(),
        });
        let more = if self.is_event {
            json!({
                "MsgType": "event",
                "Event": "xpay_goods_deliver_notify",
                "OpenId": self.openid(),
                "OutTradeNo": format!("order-{}", self.id),
                "GoodsInfo": { "Quantity": 1, "Attach": self.content },
            })
        } else {
            json!({ "MsgType": "text", "Content": self.content, "MsgId": self.id })
        };
        let fields = message.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        message
    }

    /// In its format.
    fn text(&self) -> String {
        match self.format {
            Format::Json => self.json().to_string(),
            Format::Xml => format!("<xml>{}</xml>", xml(&self.json())),
        }
    }

    fn assert_delivered(&self, request: &Request) {
        assert_eq!(request.header("Content-Type"), Some("application/json"));
        assert_eq!(request.header("X-WX-SOURCE"), Some("wx_push"));
        assert_eq!(request.header("X-WX-APPID"), Some(APPID));
        assert_eq!(request.header("X-WX-OPENID"), Some(&*self.openid()));
        assert_eq!(request.header("X-WX-Msg-Id"), Some(&*self.id.to_string()));
        assert_eq!(request.header("X-WX-Msg-Type"), Some("text"));
        assert_eq!(request.header("X-WX-Event"), None);
        assert_eq!(request.header("X-WX-Delivery-Attempt"), Some("1"));
        match self.format {
            Format::Json => assert_eq!(String::from_utf8_lossy(&request.body), self.text()),
            Format::Xml => {
                let body: Value = serde_json::from_slice(&request.body).expect("JSON");
                assert_eq!(body, self.json());
            }
        }
    }

    fn send_in_plaintext(&self, wechat: &mut Client) -> Response {
        let timestamp = Clock::System.now().as_secs().to_string();
        let nonce = self.id.to_string();
        let mut parts = [KEYS[self.key].token, &timestamp, &nonce];
        parts.sort_unstable();
        let target = format!(
            "/wx/push?signature={}&timestamp={timestamp}&nonce={nonce}&openid={}",
            sha1(&parts.concat()),
            self.openid()
        );
        let headers = [("Content-Type", "text/xml")];
        wechat.request("POST", &target, &headers, self.text().as_bytes())
    }
}

/// The elements of an object, strings in CDATA.
fn xml(value: &Value) -> String {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("<{name}>{}</{name}>", xml(value)))
            .collect(),
        // What would end the section is cut in two.
        Value::String(text) => format!("<![CDATA[{}]]>", text.replace("]]>", "]]]]><![CDATA[>")),
        number => number.to_string(),
    }
}

/// In XML and in JSON of each padding one, with contents of any length to 64 KiB; and an empty one of each.
fn messages_of_all_paddings() -> Vec<Message> {
    let mut dice = Dice(0x5eed);
    let mut messages: Vec<_> = (0..66).map(|n| Message::new(n, "")).collect();
    for (number, message) in messages.iter_mut().enumerate() {
        message.key = number / 2 % 2;
        if number < 2 {
            continue;
        }
        let longest = (64 << 10) - 31;
        let length = if number < 4 {
            longest
        } else {
            dice.below(longest)
        };
        message.content = content(&mut dice, length);
        // A plaintext has 16 random bytes and a length before the message, and the appid behind it.
        while (20 + message.text().len() + APPID.len()) % 32 != number / 2 % 32 {
            message.content.push('.');
        }
    }
    messages
}

/// Text of so many bytes, with whatever makes escaping and counting hard.
fn content(dice: &mut Dice, length: usize) -> String {
    const PIECES: [&str; 12] = [
        "你好，世界",
        "😀",
        "👨\u{200d}👩\u{200d}👧",
        "]]>",
        "]]]]>",
        "<![CDATA[",
        "<b>&amp;</b>",
        "&#x4e2d;",
        "\"\\/",
        " \n\t ",
        "\u{2028}",
        "words and words ",
    ];
    let mut text = String::new();
    while text.len() < length {
        let piece = PIECES[dice.below(PIECES.len())];
        text += if text.len() + piece.len() > length {
            "."
        } else {
            piece
        };
    }
    text
}

/// The same numbers in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % limit as u64) as usize
    }
}

/// Has a program push the messages, and gives what it says of each.
fn run(kind: Kind, script: &str, address: SocketAddr, messages: &[Message]) -> Vec<Value> {
    let keys = KEYS.map(|key| json!({ "token": key.token, "aes_key": key.aes_key }));
    let pushes = messages
        .iter()
        .map(|it| json!({ "key": it.key, "text": it.text(), "openid": it.openid() }));
    let input = json!({
        "url": format!("http://{address}/wx/push"),
        "appid": APPID,
        "to": TO,
        "keys": keys,
        "messages": pushes.collect::<Vec<_>>(),
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("messages.json");
    fs::write(&path, input.to_string()).expect("write the messages");
    let script = Script::start(kind, script, &[path.to_str().expect("a path in UTF-8")]);
    let line = |_: &Message| serde_json::from_str(&script.line()).expect("the program says JSON");
    messages.iter().map(line).collect()
}

fn by_id(requests: Vec<Request>) -> BTreeMap<u64, Request> {
    let id = |request: &Request| {
        let message: Value = serde_json::from_slice(&request.body).expect("a push is JSON");
        message["MsgId"].as_u64().expect("an exact number")
    };
    requests.into_iter().map(|it| (id(&it), it)).collect()
}

/// Lines of `[push]` for the usual mode, with both keys.
fn secure(reply: &str) -> String {
    for key in &KEYS {
        canary(key.token);
        canary(key.aes_key);
    }
    let [new, old] = &KEYS;
    format!(
        "token = [\"{}\", \"{}\"]\naes_key = [\"{}\", \"{}\"]\ntimeout = \"1m\"\nreply = \"{reply}\"\n",
        new.token, old.token, new.aes_key, old.aes_key
    )
}

/// A sidecar before the app, with lines for `[push]`. It calls no WeChat.
fn sidecar(app: &str, push: &str) -> Sidecar {
    let push = format!("[push]\n{push}");
    let config = rig::configuration("http://127.0.0.1:9", app, "", &push);
    rig::start(&config, &Clock::System)
}

fn inbound(sidecar: &Sidecar) -> SocketAddr {
    let mut addresses = sidecar.inbound_addr().to_socket_addrs().unwrap();
    addresses.next().unwrap()
}

fn admin(sidecar: &Sidecar, target: &str) -> Response {
    Client::connect(sidecar.admin_addr()).request("GET", target, &[], b"")
}

/// How many attempts to deliver a message have ended so.
fn attempts(sidecar: &Sidecar, result: &str) -> u64 {
    let series = format!("wx_sidecar_push_deliveries_total{{result=\"{result}\"}}");
    metric_at(sidecar.admin_addr(), &series) as u64
}

fn sha1(text: &str) -> String {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    wx_sidecar::crypto::hex(digest.as_ref())
}
