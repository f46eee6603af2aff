//! Texts on their way to the app, and uploads on their way to WeChat: what WeChat thinks of them.
//!
//! A body is read only if it is what it says it is and says it in one way. All others are refused, because a check that can be
//! evaded by another Content-Type is none.

use super::{Caller, Exchange, token_missing};
use crate::config::TextCheck;
use crate::content_check::{Passed, Refused, Texts};
use crate::domain::{MediaId, OpenId};
use crate::error::{Error, Kind};
use crate::path::CanonicalPath;
use crate::resilience::Buffered;
use crate::wechat::media;
use crate::wire::{Framing, Name, Reader, Responder};

/// In what a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    UrlEncoded,
}

impl Exchange<'_> {
    /// Has the texts of a request judged before the app sees it. What was read of the body stays in `buffered`.
    pub(super) async fn check_texts(
        &self,
        check: &TextCheck,
        limit: u64,
        caller: &Caller,
        path: &CanonicalPath<'_>,
        (body, responder): (&mut Reader<'_>, &mut Responder<'_>),
        buffered: &mut Option<Buffered>,
    ) -> Result<Passed, Error> {
        let claims = caller.claims.as_ref().ok_or_else(token_missing)?;
        let mut texts = Texts::of(&check.fields);
        texts.query(path.query().unwrap_or_default()).map_err(bad)?;
        if self.head.framing != Framing::Empty {
            let form = self.form();
            // Of others it shows only when they have been read whether they are empty.
            if matches!(self.head.framing, Framing::Length(1..)) {
                form.clone()?;
            }
            let body: &[u8] = match buffered {
                Some(body) => body,
                None => buffered.insert(self.read_all(limit, body, responder).await?),
            };
            if !body.is_empty() {
                let read = match form? {
                    Form::Json => texts.json(body),
                    Form::UrlEncoded => texts.form(body),
                };
                read.map_err(bad)?;
            }
        }
        let checks = &self.snapshot.content_check;
        checks.texts(&claims.user.openid, check, &texts).await
    }

    /// Has WeChat judge an upload, if uploads are checked; the `trace_id` that the judgement will come with. It is no
    /// failure of the upload if there is none.
    pub(super) async fn check_media(
        &self,
        openid: &OpenId,
        media_id: &MediaId,
        kind: media::Kind,
        url: &str,
    ) -> Option<String> {
        let checks = &self.snapshot.content_check;
        checks.media(openid, media_id, kind, url).await
    }

    fn form(&self) -> Result<Form, Error> {
        if self.is_encoded() {
            return Err(unreadable(
                "a body with a text that is checked must not be compressed",
            ));
        }
        let kind = self.only(Name::ContentType)?.unwrap_or_default();
        form_of(kind)
    }
}

/// The form that a Content-Type stands for.
fn form_of(content_type: &[u8]) -> Result<Form, Error> {
    let lower = content_type.to_ascii_lowercase();
    let mut parts = lower.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let form = match parts.next().unwrap_or_default() {
        b"application/json" | b"text/json" => Form::Json,
        b"application/x-www-form-urlencoded" => Form::UrlEncoded,
        kind if kind.ends_with(b"+json") && !kind.contains(&b',') => Form::Json,
        _ => {
            return Err(unreadable(
                "a text is checked in application/json, application/x-www-form-urlencoded or multipart/form-data, and in nothing else",
            ));
        }
    };
    if parts.any(|parameter| !is_utf8(parameter)) {
        return Err(unreadable("a text that is checked must be UTF-8"));
    }
    Ok(form)
}

/// Whether a parameter leaves the character set what it is.
fn is_utf8(parameter: &[u8]) -> bool {
    let Some(rest) = parameter.strip_prefix(b"charset") else {
        return true;
    };
    let Some(name) = rest.trim_ascii().strip_prefix(b"=") else {
        return true;
    };
    let name = name.trim_ascii();
    let name = name
        .strip_prefix(b"\"")
        .and_then(|name| name.strip_suffix(b"\""))
        .unwrap_or(name);
    matches!(name, b"utf-8" | b"utf8" | b"us-ascii")
}

fn unreadable(detail: &'static str) -> Error {
    Error::downstream(Kind::UnsupportedMediaType, detail)
}

fn bad(refused: Refused) -> Error {
    Error::downstream(Kind::BadRequest, refused.0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::domain::{AppId, LoginCode};
    use crate::secret::Secret;
    use crate::server::Sidecar;
    use crate::server::snapshot::Snapshot;
    use crate::sim::push::PushOptions;
    use crate::sim::{Effect, Fault, Options, SimApp, Simulator};
    use crate::wechat::content_check::{MediaType, Scene};

    const APPID: &str = "wx0123456789abcdef";
    const MEDIA_CHECK: &str = "/wxa/media_check_async";
    const TOKEN: &str = "token";
    const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

    fn simulator() -> Simulator {
        let app = SimApp::new(
            AppId::parse(APPID).unwrap(),
            Secret::new("0123456789abcdef0123456789abcdef"),
        );
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            apps: vec![app],
            clock: Clock::System,
            seed: 7,
            tls: None,
            push: None,
        };
        Simulator::start(options).unwrap()
    }

    fn sidecar(sim: &Simulator, app: &TcpListener) -> Sidecar {
        let (wechat, upstream) = (sim.url(), app.local_addr().unwrap());
        let config = format!(
            "[app]\nappid = \"{APPID}\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [inbound]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\nworkers = 1\ndrain_delay = \"0s\"\n\
             [wechat]\nendpoints = [\"{wechat}\"]\n[outbound]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [push]\ntoken = \"{TOKEN}\"\naes_key = \"{KEY}\"\n\
             [media]\nbase_url = \"https://mini.example.com\"\n[media.check]\nscene = \"comment\"\n"
        );
        let sidecar = Sidecar::start(Config::from_toml(&config).unwrap()).unwrap();
        let push = PushOptions::new(
            format!("http://{}/wx/push", sidecar.inbound_addr()),
            AppId::parse(APPID).unwrap(),
            Secret::new(TOKEN),
            Secret::new(KEY),
        );
        sim.push_to(push).unwrap();
        sidecar
    }

    /// A user who has just been there.
    async fn user(sim: &Simulator, snapshot: &Snapshot) -> OpenId {
        let code = LoginCode::parse(&sim.issue_code("alice")).unwrap();
        snapshot.gateway.code2session(&code).await.unwrap().openid
    }

    fn media_checks(sidecar: &Sidecar, result: &str) -> f64 {
        let families = sidecar.metrics.registry().gather();
        let family = families
            .iter()
            .find(|family| family.name() == "wx_sidecar_media_checks_total")
            .unwrap();
        let metric = family.get_metric().iter();
        let mut counted = metric.filter(|metric| metric.get_label()[0].value() == result);
        counted.next().unwrap().get_counter().get_value()
    }

    /// The head and the body of the next request.
    fn request(app: &TcpListener) -> (String, serde_json::Value) {
        let (stream, _) = app.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.get_mut().write_all(answer).unwrap();
        (head, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_judgement_of_an_upload_comes_to_the_app_with_its_media_id() {
        let sim = simulator();
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let sidecar = sidecar(&sim, &app);
        let snapshot = sidecar.current.load_full();
        let openid = user(&sim, &snapshot).await;
        let checks = &snapshot.content_check;
        // The simulator pushes at once, so the judgement may overtake the answer.
        let uploads = [
            (
                media::Kind::Image,
                "image_1",
                "https://mini.example.com/[risky:20002]",
                "risky",
            ),
            (
                media::Kind::Thumb,
                "thumb_1",
                "https://mini.example.com/a",
                "pass",
            ),
            (
                media::Kind::Voice,
                "voice_1",
                "https://mini.example.com/b",
                "pass",
            ),
        ];
        for (kind, name, url, suggest) in uploads {
            let app = app.try_clone().unwrap();
            let delivered = thread::spawn(move || request(&app));
            let medium = MediaId::parse(name).unwrap();
            let trace = checks.media(&openid, &medium, kind, url).await.unwrap();
            let (head, judged) = delivered.join().unwrap();
            assert!(
                head.contains(&format!("x-wx-media-id: {name}\r\n")),
                "{head}"
            );
            assert!(head.contains("x-wx-event: wxa_media_check\r\n"), "{head}");
            assert_eq!(judged["trace_id"], trace);
            assert_eq!(judged["result"]["suggest"], suggest);
        }
        assert_eq!(media_checks(&sidecar, "asked"), 3.0);
    }

    #[tokio::test]
    async fn a_judgement_of_something_else_comes_without_a_media_id() {
        let sim = simulator();
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let sidecar = sidecar(&sim, &app);
        let snapshot = sidecar.current.load_full();
        let openid = user(&sim, &snapshot).await;
        let delivered = thread::spawn(move || request(&app));
        // As the app itself has something checked.
        let url = "https://mini.example.com/of-the-app";
        let gateway = &snapshot.gateway;
        let asked = gateway.check_media(&openid, Scene::Comment, url, MediaType::Image);
        let trace = asked.await.unwrap();
        let (head, judged) = delivered.join().unwrap();
        assert!(!head.contains("x-wx-media-id"), "{head}");
        assert_eq!(judged["trace_id"], trace);
    }

    #[tokio::test]
    async fn a_check_that_fails_leaves_the_upload_as_it_is_and_films_are_not_checked() {
        let sim = simulator();
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let sidecar = sidecar(&sim, &app);
        let snapshot = sidecar.current.load_full();
        let openid = user(&sim, &snapshot).await;
        let medium = MediaId::parse("medium").unwrap();
        let checks = &snapshot.content_check;
        for errcode in [87020, 61010] {
            let effect = Effect::Errcode {
                errcode,
                errmsg: None,
            };
            sim.fault(Fault::new(MEDIA_CHECK, 1, effect));
            let asked = checks.media(&openid, &medium, media::Kind::Image, "https://a/b");
            assert_eq!(asked.await, None);
        }
        assert_eq!(media_checks(&sidecar, "error"), 2.0);
        let film = checks.media(&openid, &medium, media::Kind::Video, "https://a/b");
        assert_eq!(film.await, None);
        assert_eq!(sim.calls(MEDIA_CHECK), 2);
    }

    #[test]
    fn a_content_type_says_how_a_body_is_read_or_it_is_not() {
        for (kind, form) in [
            ("application/json", Form::Json),
            ("Application/JSON ; Charset=\"UTF-8\"", Form::Json),
            ("application/vnd.api+json;profile=x", Form::Json),
            ("text/json", Form::Json),
            (
                "application/x-www-form-urlencoded; charset=utf8",
                Form::UrlEncoded,
            ),
        ] {
            assert_eq!(form_of(kind.as_bytes()).unwrap(), form, "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "application/xml",
            "application/octet-stream",
            "application/json, text/plain",
            "text/plain, application/x+json",
            "application/json;charset=gbk",
            "application/json; charset = \"utf-16\"",
            "application/json;charset=utf-8;charset=gb2312",
            "application/x-www-form-urlencoded;charset=utf-7",
            "application/jsonp",
            "multipart/mixed",
        ] {
            let error = form_of(kind.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::UnsupportedMediaType, "{kind}");
        }
    }
}
