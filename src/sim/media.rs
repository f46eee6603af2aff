//! Temporary media: what is uploaded can be had again for three days, by the app that has uploaded it.
//!
//! WeChat's pages give two limits for images, 2 and 10 MB; here it is the one that surely passes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, header};
use bytes::Bytes;
use serde_json::json;

use super::exchange::{Answer, Request};
use super::multipart;
use super::refusal::{Refusal, Refused};
use super::state::State;
use crate::clock::Timestamp;

pub(super) const UPLOAD: &str = "/cgi-bin/media/upload";
pub(super) const GET: &str = "/cgi-bin/media/get";

/// How long a media_id lives.
const MEDIA_LIFE: Duration = Duration::from_secs(3 * 86_400);
/// Beyond so many bytes the oldest are forgotten early, because a load test uploads more in an hour than WeChat lets an
/// app upload in a day.
const KEPT: usize = 256 << 20;

/// The media that have been uploaded.
#[derive(Default)]
pub(super) struct Media {
    known: HashMap<String, Medium>,
    /// In the order of their upload, so that the expired ones are found without a search.
    order: VecDeque<String>,
    bytes: usize,
}

struct Medium {
    app: usize,
    format: &'static Format,
    data: Bytes,
    made_at: Timestamp,
}

/// A kind of media and what it may be.
struct Kind {
    name: &'static str,
    formats: &'static [Format],
    /// In bytes.
    largest: usize,
}

struct Format {
    extension: &'static str,
    content_type: &'static str,
}

const fn format(extension: &'static str, content_type: &'static str) -> Format {
    Format {
        extension,
        content_type,
    }
}

static KINDS: [Kind; 4] = [
    Kind {
        name: "image",
        formats: &[
            format("jpg", "image/jpeg"),
            format("jpeg", "image/jpeg"),
            format("png", "image/png"),
            format("gif", "image/gif"),
            format("bmp", "image/bmp"),
        ],
        largest: 2 << 20,
    },
    Kind {
        name: "voice",
        formats: &[format("amr", "audio/amr"), format("mp3", "audio/mp3")],
        largest: 2 << 20,
    },
    Kind {
        name: "video",
        formats: &[format("mp4", "video/mp4")],
        largest: 10 << 20,
    },
    Kind {
        name: "thumb",
        formats: &[format("jpg", "image/jpeg"), format("jpeg", "image/jpeg")],
        largest: 64 << 10,
    },
];

/// `POST /cgi-bin/media/upload`.
pub(super) fn upload(state: &mut State, request: &Request) -> Result<Answer, Refused> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    if request.method != Method::POST {
        return Err(Refusal::PostRequired.into());
    }
    let kind = KINDS
        .iter()
        .find(|kind| request.query.value("type") == Some(kind.name))
        .ok_or(Refusal::MediaKindInvalid)?;
    let file = multipart::file(request, "media").ok_or(Refusal::MediaMissing)?;
    let extension = file
        .filename
        .rsplit_once('.')
        .map(|(_, extension)| extension);
    let format = extension
        .and_then(|extension| {
            let is = |format: &&Format| format.extension.eq_ignore_ascii_case(extension);
            kind.formats.iter().find(is)
        })
        .ok_or(Refusal::FileKindInvalid)?;
    if file.data.is_empty() {
        return Err(Refusal::FileSizeInvalid.into());
    }
    if file.data.len() > kind.largest {
        return Err(Refusal::FileTooLarge.into());
    }

    let now = state.now();
    let id = state.ids.media_id();
    let medium = Medium {
        app,
        format,
        // A copy, for the slice would keep the whole request.
        data: Bytes::copy_from_slice(&file.data),
        made_at: now,
    };
    state.media.keep(id.clone(), medium);
    let body = json!({ "type": kind.name, "media_id": id, "created_at": now.as_secs() });
    Ok(Answer::success(&request.path, &body))
}

/// `GET /cgi-bin/media/get`. A video is told by its address and fetched there.
pub(super) fn get(state: &State, request: &Request) -> Result<Answer, Refused> {
    let app = state.check_access_token(request.query.value("access_token"))?;
    if request.method != Method::GET {
        return Err(Refusal::GetRequired.into());
    }
    let id = request
        .query
        .value("media_id")
        .ok_or(Refusal::MediaIdMissing)?;
    let medium = state
        .media
        .find(id, state.now())
        .filter(|medium| medium.app == app)
        .ok_or(Refusal::MediaIdInvalid)?;
    if medium.is_video() {
        let body = json!({ "video_url": format!("{}/_sim/video/{id}", origin(state, request)) });
        return Ok(Answer::success(&request.path, &body));
    }
    let name = format!("attachment; filename=\"{id}.{}\"", medium.format.extension);
    let name = HeaderValue::try_from(name).expect("an id is letters, digits, `-` and `_`");
    let headers = HeaderMap::from_iter([(header::CONTENT_DISPOSITION, name)]);
    Ok(medium.file(headers))
}

/// Where the caller reaches the simulator. Who calls it by WeChat's name got here by a proxy or a hosts file, and is told
/// the simulator's own address.
fn origin(state: &State, request: &Request) -> String {
    let host = request.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    match (host, state.url.split_once("://")) {
        (Some(host), Some((scheme, _))) if !host.ends_with("weixin.qq.com") => {
            format!("{scheme}://{host}")
        }
        _ => state.url.clone(),
    }
}

impl Media {
    /// Whether the app has uploaded it and it is still there.
    pub(super) fn has(&self, app: usize, id: &str, now: Timestamp) -> bool {
        self.find(id, now).is_some_and(|medium| medium.app == app)
    }

    /// What the address of a video leads to.
    pub(super) fn video(&self, id: &str, now: Timestamp) -> Option<Answer> {
        let medium = self.find(id, now).filter(|medium| medium.is_video())?;
        Some(medium.file(HeaderMap::new()))
    }

    fn find(&self, id: &str, now: Timestamp) -> Option<&Medium> {
        let alive = |medium: &&Medium| now.since(medium.made_at) < MEDIA_LIFE;
        self.known.get(id).filter(alive)
    }

    fn keep(&mut self, id: String, medium: Medium) {
        let now = medium.made_at;
        self.bytes += medium.data.len();
        while let Some(oldest) = self.order.front() {
            if self.bytes <= KEPT && self.find(oldest, now).is_some() {
                break;
            }
            let forgotten = self.known.remove(oldest);
            self.bytes -= forgotten.map_or(0, |medium| medium.data.len());
            self.order.pop_front();
        }
        self.order.push_back(id.clone());
        self.known.insert(id, medium);
    }
}

impl Medium {
    fn is_video(&self) -> bool {
        self.format.content_type.starts_with("video/")
    }

    fn file(&self, headers: HeaderMap) -> Answer {
        Answer::file(self.format.content_type, headers, self.data.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sim::control;
    use crate::sim::probe::{Probe, form, json};
    use crate::sim::state::UserChange;

    fn uploaded(probe: &mut Probe, kind: &str, filename: &str, data: &[u8]) -> serde_json::Value {
        let target = probe.with_token(&format!("{UPLOAD}?type={kind}"));
        let (headers, body) = form(filename, data);
        json(&probe.call_with(Method::POST, &target, headers, &body))
    }

    fn fetched(probe: &mut Probe, id: &str) -> Answer {
        let target = probe.with_token(&format!("/cgi-bin/media/get?media_id={id}"));
        probe.call(Method::GET, &target, b"")
    }

    #[test]
    fn an_upload_is_checked_in_order() {
        let mut probe = Probe::new();
        let (form, body) = form("a.jpg", b"x");
        let none = HeaderMap::new();
        let target = probe.with_token(UPLOAD);
        let image = format!("{target}&type=image");
        for (method, target, headers, body, errcode) in [
            (Method::POST, UPLOAD, &form, &body[..], 41001),
            (Method::GET, &target, &form, &body, 43002),
            (Method::POST, &target, &form, &body, 40004),
            (Method::POST, &image, &none, &body, 41005),
            (Method::POST, &image, &form, &body[..20], 41005),
        ] {
            let answer = probe.call_with(method, target, headers.clone(), body);
            assert_eq!(json(&answer)["errcode"], errcode);
        }
    }

    #[test]
    fn each_kind_has_its_formats_and_its_largest_size() {
        let mut probe = Probe::new();
        for (kind, filename, largest) in [
            ("image", "猫.PNG", 2 << 20),
            ("voice", "a.amr", 2 << 20),
            ("video", "a.mp4", 10 << 20),
            ("thumb", "a.jpg", 64 << 10),
        ] {
            let fits = vec![0; largest];
            let mut errcode = |filename, data: &[u8]| {
                uploaded(&mut probe, kind, filename, data)["errcode"].clone()
            };
            assert_eq!(errcode("a.exe", b"x"), 40005);
            assert_eq!(errcode("jpg", b"x"), 40005);
            assert_eq!(errcode(filename, b""), 40006);
            assert_eq!(errcode(filename, &[&fits[..], b"x"].concat()), 45001);
            let told = uploaded(&mut probe, kind, filename, &fits);
            assert_eq!(told["type"], kind);
            assert_eq!(told["created_at"], 1_700_000_040);
            assert!(told.get("errcode").is_none());
        }
    }

    #[test]
    fn a_medium_comes_back_as_it_went_for_three_days() {
        let mut probe = Probe::new();
        let data = b"\x89PNG\r\n--bound is no end";
        let id = uploaded(&mut probe, "image", "a.png", data)["media_id"].clone();
        let id = id.as_str().unwrap();
        let answer = fetched(&mut probe, id);
        assert_eq!(answer.content_type, "image/png");
        assert_eq!(answer.body, &data[..]);
        assert_eq!(
            answer.headers[header::CONTENT_DISPOSITION],
            format!("attachment; filename=\"{id}.png\"")
        );
        probe.pass(3 * 86_400 - 1);
        probe.token = probe.state.token(0).access_token;
        assert_eq!(fetched(&mut probe, id).errcode, None);
        probe.pass(1);
        assert_eq!(json(&fetched(&mut probe, id))["errcode"], 40007);
        uploaded(&mut probe, "image", "a.png", data);
        assert_eq!(
            probe.state.media.known.len(),
            1,
            "the expired one is forgotten"
        );
        assert_eq!(probe.state.media.bytes, data.len());
    }

    #[test]
    fn a_refusal_is_json_whatever_it_is_called() {
        let mut probe = Probe::new();
        let mut called = BTreeSet::new();
        for _ in 0..100 {
            let refused = fetched(&mut probe, "nothing");
            assert_eq!(json(&refused)["errcode"], 40007);
            called.insert(refused.content_type.to_str().unwrap().to_owned());
        }
        let expected = [
            "application/json; encoding=utf-8",
            "image/jpeg",
            "text/plain",
        ];
        assert_eq!(called.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_medium_is_its_apps_alone() {
        let mut probe = Probe::new();
        let id = uploaded(&mut probe, "image", "a.png", b"x")["media_id"].clone();
        let id = id.as_str().unwrap();
        assert_eq!(fetched(&mut probe, "").errcode, Some(41006));
        assert_eq!(fetched(&mut probe, "nothing").errcode, Some(40007));
        probe.token = probe.state.token(1).access_token;
        assert_eq!(fetched(&mut probe, id).errcode, Some(40007));
    }

    #[test]
    fn a_video_is_told_by_an_address_where_it_can_be_fetched() {
        let mut probe = Probe::new();
        let id = uploaded(&mut probe, "video", "a.mp4", b"film")["media_id"].clone();
        let id = id.as_str().unwrap();
        let target = probe.with_token(&format!("/cgi-bin/media/get?media_id={id}"));
        probe.state.url = "https://127.0.0.1:7".to_owned();
        let path = format!("/_sim/video/{id}");
        for (host, origin) in [
            ("localhost:7", "https://localhost:7"),
            ("api.weixin.qq.com", "https://127.0.0.1:7"),
        ] {
            let host = (header::HOST, HeaderValue::from_static(host));
            let told = probe.call_with(Method::GET, &target, HeaderMap::from_iter([host]), b"");
            assert_eq!(told.content_type, "text/plain", "it is JSON all the same");
            let url = format!("{origin}{path}");
            assert_eq!(json(&told), json!({ "video_url": url }));
        }
        let request = Request::of(Method::GET, &path, b"");
        let film = control::answer(&mut probe.state, &request);
        assert_eq!(film.content_type, "video/mp4");
        assert_eq!(film.body, &b"film"[..]);
        probe.pass(3 * 86_400);
        assert_eq!(control::answer(&mut probe.state, &request).status, 404);
    }

    #[test]
    fn the_oldest_media_make_room() {
        let mut media = Media::default();
        let medium = || Medium {
            app: 0,
            format: &KINDS[0].formats[0],
            data: Bytes::from(vec![0; KEPT / 2]),
            made_at: Timestamp::from_millis(0),
        };
        for id in ["a", "b", "c"] {
            media.keep(id.to_owned(), medium());
        }
        let now = Timestamp::from_millis(0);
        assert_eq!(
            ["a", "b", "c"].map(|id| media.has(0, id, now)),
            [false, true, true]
        );
        assert_eq!(media.bytes, KEPT);
    }

    #[test]
    fn a_reply_shows_only_media_that_are_there() {
        let mut probe = Probe::new();
        probe.change(&UserChange {
            wrote: true,
            ..UserChange::default()
        });
        let id = uploaded(&mut probe, "image", "a.png", b"x")["media_id"].clone();
        for (id, errcode) in [(json!("other"), 40007), (id, 0)] {
            let body =
                json!({ "touser": probe.openid, "msgtype": "image", "image": { "media_id": id } });
            let told = probe.post("/cgi-bin/message/custom/send", &body);
            assert_eq!(told["errcode"], errcode);
        }
    }
}
