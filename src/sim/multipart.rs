//! The parts of a `multipart/form-data` body (RFC 7578), read as WeChat reads them.
//!
//! What matters to it is `filename`: a part without one is no file, and one whose name is told by `filename*` only, as
//! some clients do for names that are not ASCII, has none. A name may be any bytes; they are taken for UTF-8.

use ::http::{HeaderMap, header};
use bytes::Bytes;

use super::exchange::Request;

/// A file in a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) filename: String,
    pub(super) data: Bytes,
}

/// The file that a call's form has under that name, if the part has all that makes it one: a filename and a type.
pub(super) fn file(request: &Request, name: &str) -> Option<File> {
    let boundary = boundary(&request.headers)?;
    parts(&request.body, &boundary)?
        .into_iter()
        .find_map(|(fields, data)| {
            let fields = String::from_utf8_lossy(&fields).into_owned();
            let value = |wanted: &str| {
                fields.split("\r\n").find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case(wanted).then(|| value.trim())
                })
            };
            let disposition = value("content-disposition")?;
            if parameter(disposition, "name").as_deref() != Some(name) {
                return None;
            }
            value("content-type").filter(|kind| !kind.is_empty())?;
            let filename = parameter(disposition, "filename")?;
            (!filename.is_empty()).then_some(File { filename, data })
        })
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (kind, _) = value.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(value, "boundary").filter(|boundary| !boundary.is_empty())
}

/// The head and the data of each part; none if the form does not end as it should.
fn parts(body: &Bytes, boundary: &str) -> Option<Vec<(Bytes, Bytes)>> {
    let delimiter = format!("\r\n--{boundary}");
    let mut at = if body.starts_with(&delimiter.as_bytes()[2..]) {
        delimiter.len() - 2
    } else {
        find(body, delimiter.as_bytes(), 0)? + delimiter.len()
    };
    let mut parts = Vec::new();
    loop {
        if body[at..].starts_with(b"--") {
            return Some(parts);
        }
        let head = find(body, b"\r\n", at)?;
        if !body[at..head].iter().all(|b| matches!(b, b' ' | b'\t')) {
            return None;
        }
        let head_end = find(body, b"\r\n\r\n", head)?;
        // A part without any field has its empty line at once, which is the end of the delimiter's line too.
        let fields = body.slice((head + 2).min(head_end)..head_end);
        let data = head_end + 4;
        // The empty data of a part end where its head does, with the line end of the delimiter.
        let end = find(body, delimiter.as_bytes(), data - 2)?;
        parts.push((fields, body.slice(data.min(end)..end)));
        at = end + delimiter.len();
    }
}

fn find(body: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(&body[from..], wanted).map(|at| from + at)
}

/// The parameter of that name behind a value's first semicolon, perhaps in quotes, in which `\"` and `\\` stand for the
/// second. Any other backslash is one, as in a Windows path.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_start_matches([' ', '\t', ';']).trim_end();
        let after = after.trim_start();
        let (found, behind) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim_end().to_owned(), &after[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(found);
        }
        rest = behind;
    }
}

/// A text up to its closing quote, and what comes behind that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some((found, rest.as_str())),
            '\\' if rest.as_str().starts_with(['"', '\\']) => found.extend(rest.next()),
            c => found.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderValue, Method};
    use proptest::prelude::*;

    use super::*;

    fn file_of(content_type: &'static str, body: &[u8]) -> Option<File> {
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
        let request = Request {
            headers: HeaderMap::from_iter(headers),
            ..Request::of(Method::POST, "/", body)
        };
        file(&request, "media")
    }

    fn named(filename: &str, data: &'static [u8]) -> Option<File> {
        Some(File {
            filename: filename.to_owned(),
            data: Bytes::from_static(data),
        })
    }

    const FORM: &str = "multipart/form-data; boundary=b";

    #[test]
    fn a_file_is_found_behind_other_parts_with_its_bytes_as_they_are() {
        let body = b"preamble\r\n--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny\r\n\
            --b \r\ncontent-type:image/png\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.png\"\r\n\r\n\
            \x00\r\n--\r\n-b\xff\r\n--b--\r\n";
        assert_eq!(file_of(FORM, body), named("a.png", b"\x00\r\n--\r\n-b\xff"));
        let quoted = "Multipart/Form-Data; charset=utf-8; boundary=\"b\"";
        assert_eq!(file_of(quoted, body), file_of(FORM, body));
    }

    #[test]
    fn names_are_quoted_or_not_and_in_any_language() {
        for (written, filename) in [
            ("filename=\"猫 1.jpg\"", "猫 1.jpg"),
            ("filename=a.jpg", "a.jpg"),
            (r#"filename="a\"b;=\\.jpg""#, r#"a"b;=\.jpg"#),
            (r#"filename="C:\tmp\a.jpg""#, r"C:\tmp\a.jpg"),
            ("filename*=utf-8''b.jpg; FileName=\"a.jpg\"", "a.jpg"),
        ] {
            let body = format!(
                "--b\r\nContent-Disposition: form-data; name=media; {written}\r\nContent-Type: image/jpeg\r\n\r\n\r\n--b--"
            );
            assert_eq!(
                file_of(FORM, body.as_bytes()),
                named(filename, b""),
                "{written}"
            );
        }
    }

    #[test]
    fn a_part_that_lacks_something_is_no_file() {
        let kind = "Content-Type: image/jpeg\r\n";
        for (disposition, kind) in [
            ("form-data; name=\"media\"", kind),
            ("form-data; name=\"media\"; filename=\"\"", kind),
            ("form-data; name=\"media\"; filename*=utf-8''a.jpg", kind),
            ("form-data; name=\"file\"; filename=\"a.jpg\"", kind),
            ("form-data; name=\"media\"; filename=\"a.jpg\"", ""),
            ("form-data; name=\"media\"; filename=\"a.jpg", kind),
        ] {
            let body =
                format!("--b\r\nContent-Disposition: {disposition}\r\n{kind}\r\nx\r\n--b--\r\n");
            assert_eq!(file_of(FORM, body.as_bytes()), None, "{disposition}");
        }
    }

    #[test]
    fn a_form_that_breaks_off_or_is_none_has_no_file() {
        let body = "--b\r\nContent-Type: a\r\nContent-Disposition: form-data; name=media; filename=f\r\n\r\nx\r\n--b--";
        assert!(file_of(FORM, body.as_bytes()).is_some());
        for end in 0..body.len() {
            assert_eq!(file_of(FORM, &body.as_bytes()[..end]), None, "{end}");
        }
        for other in [
            "application/json",
            "multipart/form-data",
            "multipart/form-data; boundary=c",
        ] {
            assert_eq!(file_of(other, body.as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn no_form_makes_it_panic(body in "(--b|\r\n|-|: |[a-z\";=]|Content-Disposition: form-data; name=media|\"){0,24}") {
            file_of(FORM, body.as_bytes());
        }
    }
}
