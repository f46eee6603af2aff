//! Field lines between app and WeChat.
//!
//! To WeChat goes what its documentation has a use for, and nothing else: what an app sends may hold its own cookies and
//! credentials, the openid that it names, or the addresses of its users. Back goes what describes the answer.

use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderMap, HeaderName, LAST_MODIFIED, USER_AGENT,
};

const TO_WECHAT: [HeaderName; 5] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    USER_AGENT,
];

const TO_APP: [HeaderName; 10] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    CONTENT_RANGE,
    CACHE_CONTROL,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
];

/// What WeChat itself puts into headers, in both directions.
const WECHAT_PREFIX: &str = "wechatmp-";

/// The lines of a request that WeChat may see.
pub(crate) fn for_wechat(headers: &HeaderMap) -> HeaderMap {
    kept(headers, &TO_WECHAT)
}

/// The lines of an answer that the app gets. The length is not among them: it follows from the body.
pub(crate) fn for_app(headers: &HeaderMap) -> HeaderMap {
    kept(headers, &TO_APP)
}

fn kept(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let wanted =
        |name: &HeaderName| names.contains(name) || name.as_str().starts_with(WECHAT_PREFIX);
    let lines = headers.iter().filter(|(name, _)| wanted(name));
    let mut kept = HeaderMap::new();
    for (name, value) in lines {
        kept.append(name.clone(), value.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        lines.collect()
    }

    #[test]
    fn wechat_sees_neither_users_nor_credentials_nor_who_asks() {
        let sent = for_wechat(&headers(&[
            ("content-type", "multipart/form-data; boundary=x"),
            ("user-agent", "requests/2"),
            ("wechatmp-signature", "s"),
            ("x-wx-openid", "o"),
            ("x-forwarded-for", "10.0.0.1"),
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=b"),
            ("referer", "http://app/?access_token=x"),
            ("traceparent", "00-x"),
            ("connection", "keep-alive"),
            ("te", "trailers"),
            ("accept-encoding", "gzip"),
            ("host", "127.0.0.1:8081"),
        ]));
        let mut names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "user-agent", "wechatmp-signature"]);
    }

    #[test]
    fn the_app_gets_what_describes_the_body_and_no_cookie_or_place() {
        let got = for_app(&headers(&[
            ("content-type", "image/jpeg"),
            ("content-disposition", "attachment; filename=\"x.jpg\""),
            ("content-length", "7"),
            ("set-cookie", "a=b"),
            ("location", "/?access_token=x"),
            ("x-wx-errcode", "0"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
        ]));
        let mut names: Vec<&str> = got.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-disposition", "content-type"]);
    }
}
