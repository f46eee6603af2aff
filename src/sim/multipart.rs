//! Forms with files in them, `multipart/form-data` (RFC 7578), as WeChat reads them: a file has a `filename`, and
//! `filename*` is no substitute.
//!
//! Strict where a mistake of ours would otherwise pass unseen: delimiters stand on lines of their own that end in CRLF, and
//! the last one must be there.

use bytes::Bytes;
use memchr::memmem;

use super::exchange::Request;

/// No client has a reason to send more.
const MOST: usize = 100;

/// A part of a form.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) content: Bytes,
}

/// The parts of a form; `None` if the call is not one, or is broken.
pub(super) fn parts(request: &Request) -> Option<Vec<Part>> {
    let content_type = request.headers.get(::http::header::CONTENT_TYPE)?;
    let content_type = content_type.to_str().ok()?;
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary").filter(|it| !it.is_empty())?;
    split(&request.body, &boundary)
}

fn split(body: &Bytes, boundary: &str) -> Option<Vec<Part>> {
    let delimiter = format!("\r\n--{boundary}");
    let delimiter = memmem::Finder::new(&delimiter);
    // The first one may stand at the very beginning, without the line before it.
    let first = delimiter.needle().len() - 2;
    let mut at = match body.starts_with(&delimiter.needle()[2..]) {
        true => first,
        false => delimiter.find(body)? + first + 2,
    };
    let mut parts = Vec::new();
    loop {
        match &body[at..] {
            [b'-', b'-', ..] => return Some(parts),
            [b'\r', b'\n', ..] if parts.len() < MOST => at += 2,
            _ => return None,
        }
        let end = at + delimiter.find(&body[at..])?;
        parts.push(Part::parse(&body.slice(at..end))?);
        at = end + delimiter.needle().len();
    }
}

impl Part {
    fn parse(bytes: &Bytes) -> Option<Self> {
        let (head, begins) = match bytes.starts_with(b"\r\n") {
            true => (0, 2),
            false => memmem::find(bytes, b"\r\n\r\n").map(|end| (end, end + 4))?,
        };
        let mut part = Self {
            content: bytes.slice(begins..),
            ..Self::default()
        };
        let head = String::from_utf8_lossy(&bytes[..head]);
        for line in head.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-type") {
                part.content_type = Some(value.to_owned()).filter(|value| !value.is_empty());
            } else if name.eq_ignore_ascii_case("content-disposition") {
                let (_, parameters) = value.split_once(';')?;
                part.name = parameter(parameters, "name")?;
                part.filename = parameter(parameters, "filename").filter(|it| !it.is_empty());
            }
        }
        Some(part)
    }
}

/// The parameter of this name, out of quotation marks if it is in them.
fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, rest) = text.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(';').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = rest.trim_start().strip_prefix(';')?;
    }
}

/// What stands before the closing quotation mark, and what after it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some((value, rest.as_str())),
            // Only what must be escaped is, or paths of Windows would not survive.
            '\\' if rest.as_str().starts_with(['"', '\\']) => value.extend(rest.next()),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A form with a file, as a well-behaved client sends it.
    pub(in crate::sim) fn upload(target: &str, disposition: &str, content: &[u8]) -> Request {
        let body = [
            format!("--b0undary\r\nContent-Disposition: form-data; {disposition}\r\n\r\n")
                .as_bytes(),
            content,
            b"\r\n--b0undary--\r\n",
        ]
        .concat();
        form(target, "multipart/form-data; boundary=b0undary", &body)
    }

    fn form(target: &str, content_type: &str, body: &[u8]) -> Request {
        let mut request = Request::of("POST", target, body);
        let headers = &mut request.headers;
        headers.insert("content-type", content_type.parse().unwrap());
        headers.insert("content-length", body.len().into());
        request
    }

    #[test]
    fn a_form_is_read_as_browsers_and_sdks_write_it() {
        let body = b"preamble\r\n--x y\r\n\
            Content-Disposition: form-data; name=\"a\"\r\n\r\n\
            1\r\n\r\n--x\r\n\
            --x y\r\n\
            content-type:image/png\r\n\
            content-disposition: form-data; filename=\"C:\\up\\\"load\".png\"; name=media\r\n\r\n\
            \r\n--x y--epilogue";
        // What looks like a delimiter is none if it is not the whole one.
        let got = parts(&form(
            "/",
            "Multipart/Form-Data; charset=utf-8; boundary=\"x y\"",
            body,
        ));
        assert!(
            got.is_none(),
            "a quotation mark too many ends the name early"
        );

        let body = String::from_utf8_lossy(body).replace("\\\"load\"", "\\\"load\\\"");
        let got = parts(&form(
            "/",
            "multipart/form-data;boundary=\"x y\"",
            body.as_bytes(),
        ));
        let got = got.unwrap();
        assert_eq!(got.len(), 2);
        assert_eq!(
            (got[0].name.as_str(), &got[0].content[..]),
            ("a", &b"1\r\n\r\n--x"[..])
        );
        assert_eq!(got[0].filename, None);
        assert_eq!(got[1].name, "media");
        assert_eq!(got[1].filename.as_deref(), Some("C:\\up\"load\".png"));
        assert_eq!(got[1].content_type.as_deref(), Some("image/png"));
        assert!(got[1].content.is_empty());
    }

    #[test]
    fn an_extended_filename_is_none() {
        let request = upload("/", "name=\"media\"; filename*=UTF-8''%e4%bd%a0.png", b"x");
        assert_eq!(parts(&request).unwrap()[0].filename, None);
        let request = upload(
            "/",
            "name=\"media\"; filename*=UTF-8''a; filename=\"你.png\"",
            b"x",
        );
        let filename = parts(&request).unwrap().remove(0).filename;
        assert_eq!(filename.as_deref(), Some("你.png"));
    }

    #[test]
    fn what_is_no_form_or_has_no_end_is_nothing() {
        let whole = b"--x\r\n\r\nbody\r\n--x--";
        assert!(parts(&form("/", "multipart/form-data; boundary=x", whole)).is_some());
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"x",
            "multipart/mixed; boundary=x",
            "application/json",
        ] {
            assert!(
                parts(&form("/", content_type, whole)).is_none(),
                "{content_type}"
            );
        }
        for broken in [
            &b"--x\r\n\r\nbody\r\n--x"[..],
            b"--x\r\n\r\nbody",
            b"--x\n\nbody\n--x--",
            b"--x\r\nno colon\r\n\r\nbody\r\n--x--",
            b"",
        ] {
            let request = form("/", "multipart/form-data; boundary=x", broken);
            assert!(parts(&request).is_none(), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn any_content_comes_out_as_it_went_in(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let delimiter = b"\r\n--b0undary";
            prop_assume!(memmem::find(&[b"\r\n", &content[..]].concat(), delimiter).is_none());
            let got = parts(&upload("/", "name=\"media\"", &content)).unwrap();
            prop_assert_eq!(&got[0].content[..], &content[..]);
        }

        #[test]
        fn no_bytes_make_it_panic(body in "(--x|\r\n|--|:|;|=|\"|name|\\\\|.){0,40}") {
            let request = form("/", "multipart/form-data; boundary=x", body.as_bytes());
            parts(&request);
        }
    }
}
