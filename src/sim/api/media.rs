//! Uploading temporary media and getting them back.

use ::http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use crate::sim::exchange::{Answer, Request};
use crate::sim::media::MediaKind;
use crate::sim::multipart::{Part, parts};
use crate::sim::refusal::{Refusal, Refused};
use crate::sim::state::State;

/// `POST /cgi-bin/media/upload`.
pub(super) fn upload(state: &mut State, app: usize, request: &Request) -> Result<Value, Refused> {
    let kind = request.query.value("type").unwrap_or_default();
    let kind = MediaKind::parse(kind).ok_or(Refusal::MediaTypeInvalid)?;
    let file = uploaded(request)?;
    let filename = file.filename.as_deref().unwrap_or_default();
    let extension = filename.rsplit_once('.').map(|(_, extension)| extension);
    if !extension.is_some_and(|extension| kind.takes(extension)) {
        return Err(Refusal::FileTypeInvalid.into());
    }
    if file.content.is_empty() {
        return Err(Refusal::MediaSizeInvalid.into());
    }
    if file.content.len() > kind.limit() {
        return Err(Refusal::MediaTooLarge.into());
    }
    let media_id = state.keep_media(app, kind, file.content);
    Ok(json!({
        "type": request.query.value("type"),
        "media_id": media_id,
        "created_at": state.now().as_secs(),
    }))
}

/// `GET /cgi-bin/media/get`.
pub(super) fn get(state: &mut State, app: usize, request: &Request) -> Result<Answer, Refused> {
    let media_id = request.query.value("media_id").unwrap_or_default();
    let media = state.media(app, media_id);
    let media = media.ok_or(Refusal::MediaIdInvalid)?;
    if media.kind == MediaKind::Video {
        let url = format!("{}/_sim/media/{media_id}", state.url);
        return Ok(Answer::success(&request.path, &json!({ "video_url": url })));
    }
    let (content_type, extension) = media.format();
    let disposition = format!("attachment; filename=\"{media_id}.{extension}\"");
    let mut headers = HeaderMap::new();
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    let content_type = HeaderValue::from_static(content_type);
    Ok(Answer::file(content_type, headers, media.content.clone()))
}

/// The file of a form's part `media`. WeChat finds none if the part has no filename or no content type, or if the call
/// came in chunks and did not tell its length.
pub(super) fn uploaded(request: &Request) -> Result<Part, Refusal> {
    if !request.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Refusal::MediaMissing);
    }
    let parts = parts(request).ok_or(Refusal::MediaMissing)?;
    let mut files = parts.into_iter().filter(|part| {
        part.name == "media" && part.filename.is_some() && part.content_type.is_some()
    });
    files.next().ok_or(Refusal::MediaMissing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::api::stage::Stage;
    use crate::sim::multipart::tests::upload as form;

    const UPLOAD: &str = "/cgi-bin/media/upload";
    const GET: &str = "/cgi-bin/media/get";
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0--";
    const IMAGE: &str = "name=\"media\"; filename=\"a.png\"\r\nContent-Type: image/png";

    fn upload(stage: &mut Stage, kind: &str, disposition: &str, content: &[u8]) -> Value {
        let target = stage.target(&format!("{UPLOAD}?type={kind}"));
        let answer = stage.answer(&form(&target, disposition, content));
        assert_eq!(answer.content_type, "text/plain", "JSON or not");
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn get(stage: &mut Stage, media_id: &str) -> Answer {
        let target = stage.target(&format!("{GET}?media_id={media_id}"));
        stage.answer(&Request::of("GET", &target, b""))
    }

    #[test]
    fn an_image_comes_back_to_the_byte_under_its_own_type() {
        let mut stage = Stage::new();
        let told = upload(&mut stage, "image", IMAGE, PNG);
        assert_eq!(told.get("errcode"), None);
        assert_eq!(told["type"], json!("image"));
        assert_eq!(told["created_at"], json!(1_700_000_040));
        let media_id = told["media_id"].as_str().unwrap();
        let got = get(&mut stage, media_id);
        assert_eq!((&got.body[..], got.errcode), (PNG, None));
        assert_eq!(got.content_type, "image/png");
        let disposition = format!("attachment; filename=\"{media_id}.png\"");
        assert_eq!(got.headers["content-disposition"], disposition);

        let jpeg = "name=\"media\"; filename=\"A.JPEG\"\r\ncontent-type: image/png";
        let told = upload(&mut stage, "image", jpeg, b"\xff\xd8\xff\xe0");
        let got = get(&mut stage, told["media_id"].as_str().unwrap());
        assert_eq!(got.content_type, "image/jpeg");
    }

    #[test]
    fn a_video_comes_back_as_an_address_of_the_simulators() {
        let mut stage = Stage::new();
        stage.state.url = "http://127.0.0.1:9".to_owned();
        let mp4 = "name=\"media\"; filename=\"a.mp4\"\r\nContent-Type: video/mp4";
        let told = upload(&mut stage, "video", mp4, b"\0\0\0\x18ftypmp42");
        let media_id = told["media_id"].as_str().unwrap();
        let got = get(&mut stage, media_id);
        assert_eq!(got.content_type, "text/plain");
        let got: Value = serde_json::from_slice(&got.body).unwrap();
        let url = format!("http://127.0.0.1:9/_sim/media/{media_id}");
        assert_eq!(got, json!({ "video_url": url }));
    }

    #[test]
    fn an_upload_without_a_type_a_file_or_a_length_is_refused() {
        let mut stage = Stage::new();
        let refused = [
            ("", IMAGE, PNG, 40004),
            ("file", IMAGE, PNG, 40004),
            (
                "image",
                "name=\"media\"\r\nContent-Type: image/png",
                PNG,
                41005,
            ),
            (
                "image",
                "name=\"media\"; filename=\"\"\r\nContent-Type: image/png",
                PNG,
                41005,
            ),
            (
                "image",
                "name=\"media\"; filename*=UTF-8''a.png\r\nContent-Type: image/png",
                PNG,
                41005,
            ),
            ("image", "name=\"media\"; filename=\"a.png\"", PNG, 41005),
            (
                "image",
                "name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png",
                PNG,
                41005,
            ),
            ("voice", IMAGE, PNG, 40005),
            (
                "image",
                "name=\"media\"; filename=\"png\"\r\nContent-Type: image/png",
                PNG,
                40005,
            ),
            ("image", IMAGE, b"", 40006),
        ];
        for (kind, disposition, content, errcode) in refused {
            let told = upload(&mut stage, kind, disposition, content);
            assert_eq!(told["errcode"], json!(errcode), "{kind} {disposition}");
        }

        let target = stage.target(&format!("{UPLOAD}?type=image"));
        let mut chunked = form(&target, IMAGE, PNG);
        chunked.headers.remove("content-length");
        assert_eq!(stage.answer(&chunked).errcode, Some(41005));
        let json = Request::of("POST", &target, b"{}");
        assert_eq!(stage.answer(&json).errcode, Some(41005));
    }

    #[test]
    fn each_kind_has_its_largest_size() {
        let mut stage = Stage::new();
        for (kind, name, limit) in [
            ("image", "a.gif", 2 << 20),
            ("voice", "a.amr", 2 << 20),
            ("video", "a.mp4", 10 << 20),
            ("thumb", "a.jpg", 64 << 10),
        ] {
            let disposition =
                format!("name=\"media\"; filename=\"{name}\"\r\nContent-Type: application/x");
            let fits = upload(&mut stage, kind, &disposition, &vec![1; limit]);
            assert_eq!(fits["type"], json!(kind));
            let larger = upload(&mut stage, kind, &disposition, &vec![1; limit + 1]);
            assert_eq!(larger["errcode"], json!(45001), "{kind}");
        }
    }

    #[test]
    fn what_was_never_uploaded_or_three_days_ago_is_no_media() {
        let mut stage = Stage::new();
        let told = upload(&mut stage, "image", IMAGE, PNG);
        let media_id = told["media_id"].as_str().unwrap();
        stage
            .state
            .advance(std::time::Duration::from_secs(3 * 86_400));
        stage.token = stage.state.token(0).access_token;
        for media_id in ["", "nothing", media_id] {
            let got = get(&mut stage, media_id);
            assert_eq!(got.errcode, Some(40007), "{media_id}");
            assert_eq!(got.content_type, "text/plain");
        }
    }
}
