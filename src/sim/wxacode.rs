//! Mini Program codes: pictures on success, JSON on refusal, told apart by nothing but the body.
//!
//! Equal calls give equal pictures and others give others (see `picture`).

use ::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::posted;
use super::exchange::{Answer, Request};
use super::picture::Code;
use super::refusal::{Refusal, Refused};
use super::state::State;

/// Codes of the limited kinds that an app may ever make.
const LIMITED_CODES: u32 = 100_000;
/// In characters.
const LONGEST_SCENE: usize = 32;
const LONGEST_PATH: usize = 1024;
const LONGEST_QR_PATH: usize = 128;
/// Of a picture, in pixels.
const WIDTHS: (u32, u32) = (280, 1280);
const USUAL_WIDTH: u32 = 430;

/// `POST /wxa/getwxacodeunlimit`.
pub(super) fn unlimited(state: &State, request: &Request) -> Result<Answer, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        scene: String,
        #[serde(default)]
        page: String,
        check_path: Option<bool>,
        #[serde(rename = "env_version")]
        _version: Option<EnvVersion>,
        #[serde(flatten)]
        look: Look,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = arguments(request, Refusal::SceneLengthInvalid)?;
    if !(1..=LONGEST_SCENE).contains(&body.scene.chars().count()) {
        return Err(Refusal::SceneLengthInvalid.into());
    }
    if !body.scene.bytes().all(may_stand_in_a_scene) {
        return Err(Refusal::SceneInvalid.into());
    }
    if body.scene.contains("scancode_time") {
        return Err(Refusal::SceneReserved.into());
    }
    // A released page is asked for even by a code of a trial version, unless the caller says otherwise. What belongs to
    // its query goes into the scene.
    if body.check_path.unwrap_or(true) && !state.apps[app].has_page(&body.page) {
        return Err(Refusal::PageInvalid.into());
    }
    Ok(picture(request, &body.look))
}

/// `POST /wxa/getwxacode`.
pub(super) fn limited(state: &mut State, request: &Request) -> Result<Answer, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        path: String,
        #[serde(rename = "env_version")]
        _version: Option<EnvVersion>,
        #[serde(flatten)]
        look: Look,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = arguments(request, Refusal::PathLengthInvalid)?;
    count(state, app, &body.path, LONGEST_PATH)?;
    Ok(picture(request, &body.look))
}

/// `POST /cgi-bin/wxaapp/createwxaqrcode`.
pub(super) fn qr_code(state: &mut State, request: &Request) -> Result<Answer, Refused> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        path: String,
        width: Option<u32>,
    }

    let app = state.check_access_token(request.query.value("access_token"))?;
    let body: Body = arguments(request, Refusal::PathLengthInvalid)?;
    count(state, app, &body.path, LONGEST_QR_PATH)?;
    let look = Look {
        width: body.width,
        is_hyaline: false,
    };
    Ok(picture(request, &look))
}

/// Which version of the app a code opens. Only that there is such a version matters here.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum EnvVersion {
    Release,
    Trial,
    Develop,
}

/// What matters for the picture's form.
#[derive(Deserialize)]
struct Look {
    width: Option<u32>,
    /// Whether the ground is transparent, which makes it a PNG.
    #[serde(default)]
    is_hyaline: bool,
}

/// The arguments: what is no JSON object is refused by the endpoint's own number, what has a wrong type by the common one.
fn arguments<T: DeserializeOwned>(request: &Request, no_json: Refusal) -> Result<T, Refusal> {
    let object: serde_json::Map<_, _> = posted(request).map_err(|refusal| match refusal {
        Refusal::BodyMalformed => no_json,
        other => other,
    })?;
    serde_json::from_value(object.into()).map_err(|_| Refusal::ArgumentsInvalid)
}

fn may_stand_in_a_scene(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&'()*+,/:;=?@-._~".contains(&byte)
}

fn count(state: &mut State, app: usize, path: &str, longest: usize) -> Result<(), Refusal> {
    if !(1..=longest).contains(&path.len()) {
        return Err(Refusal::PathLengthInvalid);
    }
    let made = &mut state.apps[app].limited_codes;
    if *made == LIMITED_CODES {
        return Err(Refusal::CodesUsedUp);
    }
    *made += 1;
    Ok(())
}

fn picture(request: &Request, look: &Look) -> Answer {
    let width = look.width.unwrap_or(USUAL_WIDTH).clamp(WIDTHS.0, WIDTHS.1);
    let meaning = [request.path.as_bytes(), b"\n", &request.body].concat();
    let width = u16::try_from(width).expect("it is at most 1280");
    let code = Code::new(width, &meaning);
    let (content_type, name, body) = if look.is_hyaline {
        ("image/png", "QRCode.png", code.png())
    } else {
        ("image/jpeg", "QRCode.jpg", code.jpeg())
    };
    let name = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
    let name = name.expect("both names are ASCII");
    let headers = HeaderMap::from_iter([(header::CONTENT_DISPOSITION, name)]);
    Answer::file(content_type, headers, Bytes::from(body))
}

#[cfg(test)]
mod tests {
    use ::http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::sim::probe::Probe;

    const UNLIMITED: &str = "/wxa/getwxacodeunlimit";
    const LIMITED: &str = "/wxa/getwxacode";
    const QR: &str = "/cgi-bin/wxaapp/createwxaqrcode";

    fn picture_of(probe: &mut Probe, path: &str, body: &Value) -> Answer {
        let target = probe.with_token(path);
        let answer = probe.call(Method::POST, &target, body.to_string().as_bytes());
        let content_type = answer.content_type.to_str().unwrap();
        assert!(content_type.starts_with("image/"), "{answer:?}");
        answer
    }

    #[test]
    fn the_arguments_of_an_unlimited_code_are_checked() {
        let mut probe = Probe::new();
        probe.state.apps[0].known.pages = Some(vec!["pages/index".to_owned()]);
        let long = "x".repeat(33);
        let refused = [
            (json!([]), 40169),
            (json!({}), 40169),
            (json!({ "scene": "" }), 40169),
            (json!({ "scene": long }), 40169),
            (json!({ "scene": "a b" }), 40129),
            (json!({ "scene": "a%" }), 40129),
            (json!({ "scene": "你" }), 40129),
            (json!({ "scene": "scancode_time=1" }), 85096),
            (json!({ "scene": "a", "page": "/pages/index" }), 41030),
            (json!({ "scene": "a", "page": "pages/index?x=1" }), 41030),
            (json!({ "scene": "a", "page": "pages/new" }), 41030),
            (json!({ "scene": "a", "width": "wide" }), 40097),
            (json!({ "scene": "a", "env_version": "beta" }), 40097),
        ];
        for (body, errcode) in refused {
            assert_eq!(probe.post(UNLIMITED, &body)["errcode"], errcode, "{body}");
        }
        assert_eq!(probe.post_text(UNLIMITED, "{")["errcode"], 40169);
        assert_eq!(probe.post_text(UNLIMITED, "")["errcode"], 44002);
        assert_eq!(probe.get(UNLIMITED)["errcode"], 43002);
        for body in [
            json!({ "scene": "a=1&b=!#$'()*+,/:;?@-._~" }),
            json!({ "scene": "a", "page": "pages/index" }),
            json!({ "scene": "a", "page": "pages/new", "check_path": false, "env_version": "trial" }),
        ] {
            picture_of(&mut probe, UNLIMITED, &body);
        }
    }

    #[test]
    fn the_codes_of_the_limited_kinds_have_one_limit() {
        let mut probe = Probe::new();
        for path in [LIMITED, QR] {
            for body in ["{}", "{", r#"{"path":""}"#] {
                assert_eq!(probe.post_text(path, body)["errcode"], 40159);
            }
        }
        let body = json!({ "path": "p".repeat(129) });
        assert_eq!(probe.post(QR, &body)["errcode"], 40159);
        picture_of(&mut probe, LIMITED, &body);
        probe.state.apps[0].limited_codes = LIMITED_CODES - 1;
        let body = json!({ "path": "pages/index?x=1" });
        picture_of(&mut probe, QR, &body);
        assert_eq!(probe.post(QR, &body)["errcode"], 45029);
        assert_eq!(probe.post(LIMITED, &body)["errcode"], 45029);
        picture_of(&mut probe, UNLIMITED, &json!({ "scene": "a" }));
    }

    #[test]
    fn equal_calls_give_equal_pictures_and_larger_ones_more_bytes() {
        let mut probe = Probe::new();
        for is_hyaline in [false, true] {
            let mut of = |scene: &str, width: u32| {
                let body = json!({ "scene": scene, "width": width, "is_hyaline": is_hyaline });
                picture_of(&mut probe, UNLIMITED, &body).body
            };
            assert_eq!(of("a", 430), of("a", 430));
            assert_ne!(of("a", 430), of("b", 430));
            assert!(of("a", 1280).len() > 10 * of("a", 280).len());
            if is_hyaline {
                // A byte for each pixel, and so as many as there are.
                assert_eq!(of("a", 9999).len(), of("a", 1280).len());
                assert_eq!(of("a", 1).len(), of("a", 280).len());
            }
        }
    }

    #[test]
    fn a_code_is_a_jpeg_or_on_a_transparent_ground_a_png() {
        let mut probe = Probe::new();
        for (is_hyaline, content_type, extension, magic) in [
            (false, "image/jpeg", "jpg", &b"\xff\xd8\xff"[..]),
            (true, "image/png", "png", b"\x89PNG"),
        ] {
            let body = json!({ "scene": "a", "is_hyaline": is_hyaline });
            let answer = picture_of(&mut probe, UNLIMITED, &body);
            assert_eq!(answer.content_type, content_type);
            assert!(answer.body.starts_with(magic));
            let disposition = format!("attachment; filename=\"QRCode.{extension}\"");
            assert_eq!(answer.headers[header::CONTENT_DISPOSITION], disposition);
        }
    }
}
