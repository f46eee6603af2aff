//! Mini Program codes: a picture, or a refusal in JSON.

use ::http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde_json::Value;

use crate::sim::exchange::{Answer, Request};
use crate::sim::picture::Code;
use crate::sim::refusal::{Refusal, Refused};
use crate::sim::state::State;

/// `POST /wxa/getwxacode`.
pub(super) fn of_path(state: &mut State, app: usize, request: &Request) -> Result<Answer, Refused> {
    let order = Order::parse(request, Refusal::PathLength)?;
    order.check_path(1024)?;
    order.check_look()?;
    state.apps[app].count_code()?;
    Ok(order.picture(state, app, request))
}

/// `POST /cgi-bin/wxaapp/createwxaqrcode`.
pub(super) fn square(state: &mut State, app: usize, request: &Request) -> Result<Answer, Refused> {
    let order = Order::parse(request, Refusal::PathLength)?;
    order.check_path(128)?;
    order.check_look()?;
    state.apps[app].count_code()?;
    Ok(order.picture(state, app, request))
}

/// `POST /wxa/getwxacodeunlimit`.
pub(super) fn of_scene(
    state: &mut State,
    app: usize,
    request: &Request,
) -> Result<Answer, Refused> {
    let order = Order::parse(request, Refusal::SceneLength)?;
    let scene = order.scene.as_deref().unwrap_or_default();
    if !(1..=32).contains(&scene.chars().count()) {
        return Err(Refusal::SceneLength.into());
    }
    if !scene.chars().all(may_be_in_a_scene) {
        return Err(Refusal::SceneInvalid.into());
    }
    if scene.contains("scancode_time") {
        return Err(Refusal::SceneReserved.into());
    }
    let page = order.page.as_deref().unwrap_or_default();
    let known = &state.apps[app].known;
    let exists = page.is_empty() || !order.check_path.unwrap_or(true) || known.has_page(page);
    if !exists || page.starts_with('/') || page.contains('?') {
        return Err(Refusal::PageInvalid.into());
    }
    order.check_look()?;
    Ok(order.picture(state, app, request))
}

/// What the three take.
#[derive(Deserialize)]
struct Order {
    path: Option<String>,
    scene: Option<String>,
    page: Option<String>,
    check_path: Option<bool>,
    env_version: Option<String>,
    width: Option<u16>,
    line_color: Option<Colour>,
    is_hyaline: Option<bool>,
    /// The order as it came, without the order and spacing of its members.
    #[serde(skip)]
    meaning: String,
}

/// Each part is a number, or a number in a string.
#[derive(Deserialize)]
struct Colour {
    r: Value,
    g: Value,
    b: Value,
}

impl Order {
    /// `malformed` tells of a body that is no JSON object.
    fn parse(request: &Request, malformed: Refusal) -> Result<Self, Refusal> {
        if request.body.is_empty() {
            return Err(Refusal::BodyEmpty);
        }
        let order: Value = serde_json::from_slice(&request.body).map_err(|_| malformed)?;
        if !order.is_object() {
            return Err(malformed);
        }
        let meaning = order.to_string();
        let order = serde_json::from_value(order).map_err(|_| Refusal::ArgumentsInvalid)?;
        Ok(Self { meaning, ..order })
    }

    fn check_path(&self, longest: usize) -> Result<(), Refusal> {
        let path = self.path.as_deref().unwrap_or_default();
        match (1..=longest).contains(&path.len()) {
            true => Ok(()),
            false => Err(Refusal::PathLength),
        }
    }

    fn check_look(&self) -> Result<(), Refusal> {
        let version = self.env_version.as_deref().unwrap_or("release");
        let fine = (280..=1280).contains(&self.width())
            && matches!(version, "release" | "trial" | "develop")
            && self.ink().is_some();
        match fine {
            true => Ok(()),
            false => Err(Refusal::ArgumentsInvalid),
        }
    }

    fn width(&self) -> u16 {
        self.width.unwrap_or(430)
    }

    fn ink(&self) -> Option<[u8; 3]> {
        let Some(Colour { r, g, b }) = &self.line_color else {
            return Some([0; 3]);
        };
        let part = |value: &Value| match value {
            Value::String(text) => text.parse().ok(),
            value => u8::try_from(value.as_u64()?).ok(),
        };
        Some([part(r)?, part(g)?, part(b)?])
    }

    fn picture(&self, state: &State, app: usize, request: &Request) -> Answer {
        let appid = &state.apps[app].known.appid;
        let meaning = format!("{appid} {} {}", request.path, self.meaning);
        let code = Code::new(self.width(), meaning.as_bytes());
        let (content_type, disposition, picture) = match self.is_hyaline {
            Some(true) => (
                "image/png",
                "attachment; filename=\"QRCode.png\"",
                code.png(self.ink().unwrap_or_default()),
            ),
            _ => (
                "image/jpeg",
                "attachment; filename=\"QRCode.jpg\"",
                code.jpeg(),
            ),
        };
        let mut headers = HeaderMap::new();
        let disposition = HeaderValue::from_static(disposition);
        headers.insert(header::CONTENT_DISPOSITION, disposition);
        Answer::file(HeaderValue::from_static(content_type), headers, picture)
    }
}

fn may_be_in_a_scene(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$&'()*+,/:;=?@-._~".contains(c)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sim::api::stage::Stage;

    const UNLIMITED: &str = "/wxa/getwxacodeunlimit";
    const CODE: &str = "/wxa/getwxacode";
    const SQUARE: &str = "/cgi-bin/wxaapp/createwxaqrcode";

    fn picture(stage: &mut Stage, path: &str, order: &Value) -> Answer {
        let target = stage.target(path);
        let request = Request::of("POST", &target, order.to_string().as_bytes());
        let answer = stage.answer(&request);
        assert_eq!(answer.errcode, None, "{order}: {:?}", answer.body);
        answer
    }

    #[test]
    fn a_code_with_a_scene_is_checked_from_the_scene_to_the_look() {
        let mut stage = Stage::new();
        stage.state.apps[0].known.pages = vec!["pages/index".to_owned()];
        let target = stage.target(UNLIMITED);
        for (body, errcode) in [("", 44002), ("scene=1", 40169), ("[]", 40169)] {
            let (told, _) = stage.call(::http::Method::POST, &target, body);
            assert_eq!(told, Some(errcode), "{body}");
        }
        let refused = [
            (json!({}), 40169),
            (json!({ "scene": "" }), 40169),
            (json!({ "scene": "x".repeat(33) }), 40169),
            (json!({ "scene": 1 }), 40097),
            (json!({ "scene": "你好" }), 40129),
            (json!({ "scene": "a b" }), 40129),
            (json!({ "scene": "scancode_time=1" }), 85096),
            (json!({ "scene": "a", "page": "pages/other" }), 41030),
            (json!({ "scene": "a", "page": "/pages/index" }), 41030),
            (json!({ "scene": "a", "page": "pages/index?a=b" }), 41030),
            (json!({ "scene": "a", "width": 279 }), 40097),
            (json!({ "scene": "a", "width": 1281 }), 40097),
            (json!({ "scene": "a", "width": "430" }), 40097),
            (json!({ "scene": "a", "env_version": "prod" }), 40097),
            (
                json!({ "scene": "a", "line_color": { "r": 256, "g": 0, "b": 0 } }),
                40097,
            ),
        ];
        for (order, errcode) in refused {
            assert_eq!(stage.refusal(UNLIMITED, &order).0, errcode, "{order}");
        }
        for order in [
            json!({ "scene": "a=1&b=(2)", "page": "pages/index" }),
            json!({ "scene": "a", "page": "pages/other", "check_path": false }),
            json!({ "scene": "a", "env_version": "trial", "line_color": { "r": "1", "g": 2, "b": 3 } }),
        ] {
            picture(&mut stage, UNLIMITED, &order);
        }
    }

    #[test]
    fn a_code_with_a_path_needs_one_that_is_not_too_long() {
        let mut stage = Stage::new();
        for (path, longest) in [(CODE, 1024), (SQUARE, 128)] {
            for wrong in [json!({}), json!({ "path": "x".repeat(longest + 1) })] {
                let (errcode, errmsg) = stage.refusal(path, &wrong);
                assert_eq!(errcode, 40159, "{path}");
                assert!(errmsg.starts_with("invalid length for path"));
            }
            picture(&mut stage, path, &json!({ "path": "x".repeat(longest) }));
        }
    }

    #[test]
    fn the_same_order_gives_the_same_picture_of_the_kind_and_size_that_it_names() {
        let mut stage = Stage::new();
        let order = json!({ "scene": "a", "width": 300 });
        let jpeg = picture(&mut stage, UNLIMITED, &order);
        assert_eq!(jpeg.content_type, "image/jpeg");
        assert_eq!(
            jpeg.headers[header::CONTENT_DISPOSITION],
            "attachment; filename=\"QRCode.jpg\""
        );
        assert!(jpeg.body.starts_with(b"\xff\xd8\xff"));
        assert_eq!(picture(&mut stage, UNLIMITED, &order).body, jpeg.body);

        let large = picture(
            &mut stage,
            UNLIMITED,
            &json!({ "scene": "a", "width": 1280 }),
        );
        assert!(large.body.len() > 10 * jpeg.body.len());
        let other = picture(
            &mut stage,
            UNLIMITED,
            &json!({ "scene": "b", "width": 300 }),
        );
        assert_ne!(other.body, jpeg.body);
        let clear = json!({ "scene": "a", "is_hyaline": true });
        let png = picture(&mut stage, UNLIMITED, &clear);
        assert_eq!(png.content_type, "image/png");
        assert!(png.body.starts_with(b"\x89PNG"));
    }

    #[test]
    fn an_app_may_make_a_hundred_thousand_codes_with_paths_and_any_number_with_scenes() {
        let mut stage = Stage::new();
        stage.state.apps[0].codes_made = 99_999;
        let order = json!({ "path": "pages/index", "scene": "a" });
        picture(&mut stage, CODE, &order);
        for path in [CODE, SQUARE] {
            let refusal = stage.refusal(path, &order);
            assert_eq!(refusal, (45029, "qrcode count out of limit".to_owned()));
        }
        picture(&mut stage, UNLIMITED, &order);
    }
}
