//! What the tests of media share: files that begin as their kinds do, a WeChat that is a script, and a sidecar with a user
//! who uploads and loads them.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use wx_sidecar::sim::Effect;

use crate::fake_app::{Connection, FakeApp};
use crate::http_client::{Client, Response};
use crate::patience::eventually;
use crate::rig::{Rig, Session, canary};

/// Where no app is: media come from the sidecar.
pub(crate) const NO_APP: &str = "http://127.0.0.1:9";
pub(crate) const UPLOAD: &str = "/cgi-bin/media/upload";
pub(crate) const GET: &str = "/cgi-bin/media/get";
/// What a WeChat that is a script takes for a code; it takes any.
pub(crate) const CODE: &str = "0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p";
/// What `Cache-Status` says of a medium that was kept.
pub(crate) const HIT: &str = "wx-sidecar; hit";
pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;

/// A picture, as far as its beginning tells.
pub(crate) fn picture(length: usize) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend((bytes.len()..length).map(|at| (at % 251) as u8));
    bytes
}

/// An MP4, as far as its beginning tells.
pub(crate) fn film(length: usize) -> Vec<u8> {
    let mut bytes = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom".to_vec();
    bytes.extend((bytes.len()..length).map(|at| (at % 253) as u8));
    bytes
}

/// A form of parts: what follows `form-data; ` in their heads, and their content.
pub(crate) fn form(boundary: &str, parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut form = Vec::new();
    for (disposition, content) in parts {
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        form.extend_from_slice(head.as_bytes());
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    form
}

/// Uploads a file as the app does; its media_id.
pub(crate) fn upload(rig: &Rig, kind: &str, filename: &str, data: &[u8]) -> String {
    let head = format!(
        "name=\"media\"; filename=\"{filename}\"\r\nContent-Type: application/octet-stream"
    );
    let answer = rig.call(
        "POST",
        &format!("{UPLOAD}?type={kind}"),
        &[("Content-Type", "multipart/form-data; boundary=a-boundary")],
        &form("a-boundary", &[(&head, data)]),
    );
    let told = answer.json();
    let id = told["media_id"].as_str();
    id.unwrap_or_else(|| panic!("no media_id: {told}"))
        .to_owned()
}

/// A WeChat that gives out tokens and answers all else by a script of its own.
pub(crate) fn wechat(script: impl Fn(&mut Connection, &str) + Send + Sync + 'static) -> FakeApp {
    FakeApp::start(move |connection| {
        while let Some(request) = connection.read_request().filter(|it| it.complete) {
            let target = request.target().to_owned();
            if target.starts_with("/cgi-bin/stable_token") {
                let token = "92_wechats-own-token-for-media";
                canary(token);
                let body = json!({ "access_token": token, "expires_in": 7200 }).to_string();
                answer(connection, "application/json", body.as_bytes());
            } else if target.starts_with("/sns/jscode2session") {
                let body =
                    b"{\"openid\":\"o_media_reader\",\"session_key\":\"AAAAAAAAAAAAAAAAAAAAAA==\"}";
                answer(connection, "text/plain", body);
            } else {
                script(connection, &target);
            }
        }
    })
}

/// How many requests with this in their target a WeChat has had.
pub(crate) fn asked(wechat: &FakeApp, what: &str) -> usize {
    let targets = wechat.targets();
    targets.iter().filter(|it| it.contains(what)).count()
}

/// The beginning of an answer of WeChat's.
pub(crate) fn begin(connection: &mut Connection, kind: &str, length: usize) {
    begin_framed(connection, kind, &format!("Content-Length: {length}"));
}

/// The same with the line that says where its end is.
pub(crate) fn begin_framed(connection: &mut Connection, kind: &str, framing: &str) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n");
    connection.write(head.as_bytes());
}

/// A whole answer of WeChat's.
pub(crate) fn answer(connection: &mut Connection, kind: &str, body: &[u8]) {
    begin(connection, kind, body.len());
    connection.write(body);
}

/// An answer of the simulator's that refuses.
pub(crate) fn errcode(errcode: i64) -> Effect {
    Effect::Errcode {
        errcode,
        errmsg: None,
    }
}

/// The sections of a sidecar whose WeChat is a script.
pub(crate) fn sections(wechat: &FakeApp, media: &str) -> String {
    let url = wechat.url();
    format!("[wechat]\nendpoints = [\"{url}\"]\ntimeout = \"30s\"\n[media]\n{media}\n")
}

/// Lines of `[media]` for which memory keeps nothing.
pub(crate) fn only_disk(directory: &Path) -> String {
    let directory = directory.display();
    format!("memory_cache_size = \"none\"\ncache_dir = \"{directory}\"")
}

/// A GET of a medium on a connection of its own.
pub(crate) fn get(
    at: SocketAddr,
    session: &Session,
    id: &str,
    headers: &[(&str, &str)],
) -> Response {
    let bearer = session.bearer();
    let headers = [&[("Authorization", bearer.as_str())][..], headers].concat();
    Client::connect(at).request("GET", &format!("/wx/media/{id}"), &headers, b"")
}

/// A request whose answer is read bit by bit.
pub(crate) fn ask(at: SocketAddr, session: &Session, id: &str) -> Client {
    let mut client = Client::connect(at);
    let bearer = session.bearer();
    let head = format!("GET /wx/media/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n");
    client.send(head.as_bytes());
    client
}

/// Whether it was kept, and WeChat not asked.
pub(crate) fn is_hit(answer: &Response) -> bool {
    answer.header("cache-status") == Some(HIT)
}

/// Waits until a medium is kept. Small ones are before anybody has their last byte; larger ones are written meanwhile.
pub(crate) fn is_kept(get: impl Fn() -> Response) {
    eventually("it is not kept", || is_hit(&get()));
}

/// A sidecar and a user of it.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) session: Session,
}

impl Stage {
    /// WeChat is the simulator.
    pub(crate) fn simulated(media: &str) -> Self {
        Self::before(NO_APP, "", &format!("[media]\n{media}\n"))
    }

    /// The same in front of an app, and with lines for `[inbound]`.
    pub(crate) fn before(upstream: &str, inbound: &str, sections: &str) -> Self {
        let rig = Rig::with(upstream, inbound, sections);
        let session = rig.login("alice");
        Self { rig, session }
    }

    /// WeChat is a script.
    pub(crate) fn at(wechat: &FakeApp, media: &str) -> Self {
        Self::at_with(wechat, "", media)
    }

    pub(crate) fn at_with(wechat: &FakeApp, inbound: &str, media: &str) -> Self {
        let rig = Rig::with(NO_APP, inbound, &sections(wechat, media));
        let session = Session::of(&rig.login_with(CODE).json());
        Self { rig, session }
    }

    /// Has WeChat keep a picture; its media_id.
    pub(crate) fn upload(&self, picture: &[u8]) -> String {
        upload(&self.rig, "image", "a.png", picture)
    }

    pub(crate) fn get(&self, id: &str) -> Response {
        self.get_with(id, &[])
    }

    pub(crate) fn get_with(&self, id: &str, headers: &[(&str, &str)]) -> Response {
        get(self.rig.address(), &self.session, id, headers)
    }

    pub(crate) fn is_kept(&self, id: &str) {
        is_kept(|| self.get(id));
    }

    /// How often the simulator was asked for a medium.
    pub(crate) fn calls(&self) -> u64 {
        self.rig.sim.calls(GET)
    }

    pub(crate) fn metric(&self, series: &str) -> f64 {
        self.rig.metric(series)
    }
}

/// A stage with a picture that WeChat has.
pub(crate) struct Gallery {
    pub(crate) rig: Rig,
    pub(crate) session: Session,
    pub(crate) picture: Vec<u8>,
    pub(crate) id: String,
    /// Where clients have the picture.
    pub(crate) path: String,
}

impl Gallery {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    pub(crate) fn with(sections: &str) -> Self {
        Self::before(NO_APP, "", sections)
    }

    pub(crate) fn before(upstream: &str, inbound: &str, sections: &str) -> Self {
        let stage = Stage::before(upstream, inbound, sections);
        let picture = picture(100_000);
        let id = stage.upload(&picture);
        Self {
            rig: stage.rig,
            session: stage.session,
            picture,
            path: format!("/wx/media/{id}"),
            id,
        }
    }
}
