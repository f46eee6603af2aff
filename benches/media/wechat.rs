//! WeChat, which is the simulator on a thread of this process, and the media that it has.
//!
//! nginx is sent to the same simulator, so that both caches have the same origin. It keeps 256 MiB, the newest; what a cache
//! has by then stays there.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use serde_json::{Value, json};
use wx_sidecar::domain::AppId;
use wx_sidecar::secret::Secret;
use wx_sidecar::sim::{Options, Simulator};

use crate::wire::Wire;

pub(crate) const APPID: &str = "wx0123456789abcdef";
pub(crate) const SECRET: &str = "1edbe41edbe41edbe41edbe41edbe400";
const BOUNDARY: &str = "----a-boundary-that-no-medium-has";
const GET: &str = "/cgi-bin/media/get";

/// How large a medium is, and what it is then: WeChat takes no picture of ten megabytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Middle,
    Large,
}

/// A medium that WeChat has.
#[derive(Clone)]
pub(crate) struct Medium {
    pub(crate) id: String,
    pub(crate) size: Size,
    pub(crate) content: Rc<Vec<u8>>,
}

/// The simulator, with an access_token for it.
pub(crate) struct WeChat {
    simulator: Simulator,
    pub(crate) token: String,
    made: u64,
}

impl Size {
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Middle, Self::Large];

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Small => 10 << 10,
            Self::Middle => 200 << 10,
            Self::Large => 10 << 20,
        }
    }

    pub(crate) fn is_film(self) -> bool {
        self == Self::Large
    }

    /// The end of its files' names.
    pub(crate) fn extension(self) -> &'static str {
        if self.is_film() { "mp4" } else { "png" }
    }

    /// The `number`th of this size, no two alike.
    pub(crate) fn content(self, number: u64) -> Vec<u8> {
        let mut content = match self.is_film() {
            true => film(self.bytes()),
            false => b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(),
        };
        let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while content.len() < self.bytes() {
            // Xorshift, by Marsaglia.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            content.extend_from_slice(&random.to_le_bytes());
        }
        content.truncate(self.bytes());
        content
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "10 KiB",
            Self::Middle => "200 KiB",
            Self::Large => "10 MiB",
        })
    }
}

/// The boxes that a film of so many bytes begins with (ISO/IEC 14496-12 §4.3, §8.1.1).
fn film(length: usize) -> Vec<u8> {
    let mut boxes = b"\0\0\0\x18ftypisom\0\0\x02\0isommp41".to_vec();
    let rest = u32::try_from(length - boxes.len()).unwrap_or(u32::MAX);
    boxes.extend_from_slice(&rest.to_be_bytes());
    boxes.extend_from_slice(b"mdat");
    boxes
}

impl WeChat {
    pub(crate) async fn start() -> Result<Self, String> {
        let appid = AppId::parse(APPID).map_err(|_| "not an AppID")?;
        let started = Simulator::start(Options::local(appid, Secret::new(SECRET)));
        let mut wechat = Self {
            simulator: started.map_err(|error| format!("the simulator: {error}"))?,
            token: String::new(),
            made: 0,
        };
        // The same one that the sidecar gets: it is not forced.
        let asked = json!({"grant_type": "client_credential", "appid": APPID, "secret": SECRET});
        let asked = asked.to_string();
        let request = format!(
            "POST /cgi-bin/stable_token HTTP/1.1\r\nHost: wechat\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{asked}",
            asked.len()
        );
        let told = wechat.call(request.as_bytes()).await?;
        wechat.token = member(&told, "access_token")?;
        Ok(wechat)
    }

    pub(crate) fn place(&self) -> SocketAddr {
        self.simulator.addr()
    }

    /// What `wx.login` would give.
    pub(crate) fn code(&self) -> String {
        self.simulator.issue_code("bench")
    }

    /// How often somebody has asked for a medium.
    pub(crate) fn asked(&self) -> u64 {
        self.simulator.calls(GET)
    }

    /// Uploads a medium that nobody has yet.
    pub(crate) async fn upload(&mut self, size: Size) -> Result<Medium, String> {
        self.made += 1;
        let content = size.content(self.made);
        let kind = if size.is_film() { "video" } else { "image" };
        let target = format!(
            "/cgi-bin/media/upload?access_token={}&type={kind}",
            self.token
        );
        let told = self.call(&form(&target, "", size, &content)).await?;
        Ok(Medium {
            id: member(&told, "media_id")?,
            size,
            content: Rc::new(content),
        })
    }

    pub(crate) async fn upload_many(
        &mut self,
        size: Size,
        count: usize,
    ) -> Result<Vec<Medium>, String> {
        let mut media = Vec::new();
        for _ in 0..count {
            media.push(self.upload(size).await?);
        }
        Ok(media)
    }

    /// Where the bytes of a medium are, for who needs not be told first.
    pub(crate) fn target(&self, medium: &Medium) -> String {
        match medium.size.is_film() {
            true => format!("/_sim/video/{}", medium.id),
            false => self.question(medium),
        }
    }

    /// Where WeChat gives a medium, or says where a film is.
    pub(crate) fn question(&self, medium: &Medium) -> String {
        format!("{GET}?access_token={}&media_id={}", self.token, medium.id)
    }

    async fn call(&self, request: &[u8]) -> Result<Value, String> {
        let said = |error: std::io::Error| format!("calling the simulator: {error}");
        let mut wire = Wire::connect(self.place()).await.map_err(said)?;
        let answer = wire.exchange(request).await.map_err(said)?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("WeChat's answer: {error}"))
    }
}

/// The POST that brings a medium in a form; `fields` are more lines for its head.
pub(crate) fn form(target: &str, fields: &str, size: Size, content: &[u8]) -> Vec<u8> {
    let part = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.{}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n",
        size.extension()
    );
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let length = part.len() + content.len() + end.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: mini.example.com\r\n{fields}\
         Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), part.as_bytes(), content, end.as_bytes()].concat()
}

/// A text in an object.
pub(crate) fn member(told: &Value, name: &str) -> Result<String, String> {
    let text = told[name].as_str();
    text.map(str::to_owned)
        .ok_or_else(|| format!("no {name} in {told}"))
}
