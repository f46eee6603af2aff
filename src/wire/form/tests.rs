//! Forms as clients write them, and what no client writes.

use super::*;

fn boundary(text: &str) -> Boundary {
    let content_type = format!("multipart/form-data; boundary={text}");
    let boundary = Boundary::of(content_type.as_bytes()).unwrap();
    boundary.expect("it is a form's")
}

/// A part as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    name: String,
    filename: Option<String>,
    content: Vec<u8>,
}

fn read(name: &str, filename: Option<&str>, content: &[u8]) -> Read {
    Read {
        name: name.to_owned(),
        filename: filename.map(str::to_owned),
        content: content.to_vec(),
    }
}

/// The parts of a form that is pushed in pieces of this size, and all that its events stand for.
fn parts(body: &[u8], size: usize) -> Result<(Vec<Read>, Vec<u8>), FormError> {
    let mut form = Form::new(&boundary("b"));
    let (mut parts, mut told) = (Vec::<Read>::new(), Vec::new());
    let mut open = false;
    for piece in body.chunks(size).map(Some).chain([None]) {
        match piece {
            Some(piece) => form.push(piece),
            None => form.finish(),
        }
        loop {
            match form.next()? {
                Event::Between(bytes) => told.extend_from_slice(bytes),
                Event::Head(part, bytes) => {
                    assert!(!std::mem::replace(&mut open, true), "a part ends");
                    told.extend_from_slice(bytes);
                    parts.push(read(&part.name, part.filename.as_deref(), b""));
                }
                Event::Content(bytes) => {
                    assert!(open && !bytes.is_empty());
                    told.extend_from_slice(bytes);
                    parts
                        .last_mut()
                        .expect("a part is open")
                        .content
                        .extend_from_slice(bytes);
                }
                Event::PartEnd => assert!(std::mem::take(&mut open), "it ends once"),
                Event::More => {
                    assert!(form.window.len() <= size + LONGEST_HEAD + 100);
                    break;
                }
                Event::End => {
                    assert!(!open);
                    return Ok((parts, told));
                }
            }
        }
    }
    panic!("a form ends or is refused");
}

/// The parts of a form, however it is cut.
#[track_caller]
fn whole(body: &[u8]) -> Vec<Read> {
    let (expected, _) = parts(body, body.len().max(1)).unwrap();
    for size in 1..=body.len().min(90) {
        let (parts, told) = parts(body, size).unwrap();
        assert_eq!(parts, expected, "in pieces of {size}");
        assert_eq!(
            told.escape_ascii().to_string(),
            body.escape_ascii().to_string()
        );
    }
    expected
}

/// Why a form is refused, however it is cut.
#[track_caller]
fn refused(body: &[u8]) -> &'static str {
    for size in 1..body.len().max(2) {
        assert!(parts(body, size).is_err(), "in pieces of {size}");
    }
    parts(body, body.len().max(1)).unwrap_err().0
}

fn with_disposition(disposition: &[u8]) -> Vec<u8> {
    let pieces: [&[u8]; 3] = [
        b"--b\r\nContent-Disposition: ",
        disposition,
        b"\r\n\r\nx\r\n--b--\r\n",
    ];
    pieces.concat()
}

#[test]
fn parts_are_read_with_all_that_stands_around_them() {
    let body = b"before\r\n--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\n\xe7\x8c\xab\r\n\
        --b\r\ncontent-type:image/png\r\nCONTENT-DISPOSITION:form-data; name=\"media\"; filename=\"a.png\"\r\n\r\n\
        \x00\r\n--\r\n-b\xff\r\n\r\n--b\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--b--\r\nbehind\r\n";
    assert_eq!(
        whole(body),
        [
            read("text", None, "猫".as_bytes()),
            read("media", Some("a.png"), b"\x00\r\n--\r\n-b\xff\r\n"),
            read("empty", None, b""),
        ]
    );
}

#[test]
fn a_form_need_not_have_parts_or_a_last_line_end() {
    assert_eq!(whole(b"--b--"), []);
    assert_eq!(whole(b"\r\n--b--\r\n"), []);
    let body = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--";
    assert_eq!(whole(body), [read("a", None, b"1")]);
}

#[test]
fn names_are_read_as_clients_write_them() {
    for (written, name, filename) in [
        (&b"name=\"a\""[..], "a", None),
        (b"name=a;filename=b.jpg", "a", Some("b.jpg")),
        (b"name=\"a\" ; filename=\"\"", "a", Some("")),
        (b"filename=\"b.jpg\"; name=\"a\";", "a", Some("b.jpg")),
        (
            b"NAME=\"a\"; FileName=\"b;c=d.jpg\"",
            "a",
            Some("b;c=d.jpg"),
        ),
        (
            b"name=\"a\"; filename=\"b\\\"c\\\\d.jpg\"",
            "a",
            Some("b\"c\\d.jpg"),
        ),
        (
            b"name=\"a\"; filename=\"C:\\tmp\\b.jpg\"",
            "a",
            Some("C:\\tmp\\b.jpg"),
        ),
        (
            b"name=\"a%22%0D%0Ab\"; filename=\"100%25%2e.jpg\"",
            "a\"\r\nb",
            Some("100%25%2e.jpg"),
        ),
        (
            "name=\"名\"; filename=\"猫 🐱.jpg\"".as_bytes(),
            "名",
            Some("猫 🐱.jpg"),
        ),
        (b"name=\"a\"; filename=\"\xc3\xa8.jpg\"", "a", Some("è.jpg")),
        (
            b"name=\"a\"; filename=\"\xd5\xd5\xc6\xac.jpg\"",
            "a",
            Some("\u{fffd}\u{fffd}Ƭ.jpg"),
        ),
        (
            b"name=\"a\"; filename=\"b.jpg\"; filename*=UTF-8''%e7%8c%ab.jpg",
            "a",
            Some("猫.jpg"),
        ),
        (
            b"name=\"a\"; filename*=utf-8'zh'%E7%8C%AB.jpg; filename=\"b.jpg\"",
            "a",
            Some("猫.jpg"),
        ),
        (
            b"name=\"a\"; filename*=ISO-8859-1''%e8.jpg",
            "a",
            Some("è.jpg"),
        ),
        (
            b"name=\"a\"; filename*=GBK''%c3%a8.jpg",
            "a",
            Some("è.jpg"),
        ),
        (
            b"filename=\"b.jpg\"; modification-date=\"Tue, 02 Jan 2026 03:04:05 GMT\"; size=3; name=\"a\"",
            "a",
            Some("b.jpg"),
        ),
    ] {
        let read_as = whole(&with_disposition(&[b"form-data; ", written].concat()));
        assert_eq!(
            read_as,
            [read(name, filename, b"x")],
            "{}",
            written.escape_ascii()
        );
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for (disposition, why) in [
        (&b"form-data"[..], "no name"),
        (b"form-data; filename=\"a\"", "no name"),
        (b"attachment; name=\"a\"", "not form-data"),
        (b"form-data; name=\"a\"; name=\"a\"", "twice"),
        (
            b"form-data; name=\"a\"; filename=\"b\"; FILENAME=\"c\"",
            "twice",
        ),
        (
            b"form-data; name=\"a\"; filename*=UTF-8''b; filename*=UTF-8''c",
            "twice",
        ),
        (b"form-data; name=\"a\"; filename*=b", "RFC 8187"),
        (
            b"form-data; name*=UTF-8''a; name=\"a\"",
            "another parameter",
        ),
        (b"form-data; name=\"a\"; name*0=\"b\"", "another parameter"),
        (
            b"form-data; name=\"a\"; filename*0=\"b.html\"",
            "another parameter",
        ),
        (b"form-data; x-name=b; name=a", "another parameter"),
        (
            b"form-data; name=\"a\"; x=\"; filename=b.html; \"",
            "another parameter",
        ),
        (
            b"form-data; size=\"; name=b; \"; name=\"a\"",
            "another parameter",
        ),
        (b"form-data; name=\"a\\b\"", "a backslash"),
        (b"form-data; name=\"a\\\"b\"", "a backslash"),
        (b"form-data; name=\"a; name=b\"", "a semicolon"),
        (b"form-data; name=\"=?utf-8?q?b?=\"", "a `=`"),
        (
            b"form-data; name=\"a\"; filename*=\"UTF-8''; name=b\"",
            "RFC 8187",
        ),
        (
            b"form-data; name=\"a\"; filename*=UTF-8''name=b",
            "in quotes",
        ),
        (b"form-data; name=a/b", "in quotes"),
        (
            b"form-data; name=\"a\"\r\nContent-Type: Multipart/Mixed; boundary=q",
            "made of parts",
        ),
        (b"form-data; name=\"a", "not written as"),
        (b"form-data; name=\"a\"b", "not written as"),
        (b"form-data; name=a b", "in quotes"),
        (b"form-data; name=", "not written as"),
        (b"form-data; name", "not written as"),
        (b"form-data; =a", "not written as"),
        (b"form-data; name=\"a\"; filename=\"b\\\"", "not written as"),
        (
            b"form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"",
            "two lines of Content-Disp",
        ),
        (
            b"form-data; name=\"a\"\r\nContent-Type: a/b\r\ncontent-type: c/d",
            "two lines of Content-Type",
        ),
        (
            b"form-data; name=\"a\"\r\nContent-Transfer-Encoding: base64",
            "Transfer-Encoding",
        ),
        (b"form-data;\r\n name=\"a\"", "folded"),
        (b"form-data; name=\"a\"\nX: y", "CR LF"),
        (b"form-data; name=\"a\rb\"", "CR LF"),
        (b"form-data; name=\"a\0b\"", "CR LF"),
        (b"form-data; name=\"a\"\r\nX", "no colon"),
        (b"form-data; name=\"a\"\r\nX : y", "no proper name"),
        (b"form-data; name=\"a\"\r\n: y", "no proper name"),
    ] {
        let told = refused(&with_disposition(disposition));
        assert!(told.contains(why), "{}: {told}", disposition.escape_ascii());
    }
}

#[test]
fn a_delimiter_stands_on_a_line_of_its_own() {
    let form = |middle: &str| {
        let head = "Content-Disposition: form-data; name=a\r\n\r\n";
        format!("--b\r\n{head}1{middle}{head}2\r\n--b--\r\n").into_bytes()
    };
    assert_eq!(whole(&form("\r\n--b\r\n")).len(), 2);
    for (middle, why) in [
        ("\n--b\r\n", "no line begins"),
        ("\r--b\r\n", "no line begins"),
        ("x--b\r\n", "no line begins"),
        ("\r\n--b\n", "does not end"),
        ("\r\n--bx\r\n", "does not end"),
        ("\r\n--b-\r\n", "does not end"),
        ("\r\n--b--x\r\n", "does not end"),
        ("\r\n--b\x0b\r\n", "does not end"),
        ("\r\n--b \r\n", "does not end"),
        ("\r\n--b\t\r\n", "does not end"),
        ("\r\n--b-- \r\n", "does not end"),
        ("\r\n--b--\r\n--b\r\n", "no line begins"),
        ("\r\n--b--\r\n\r\n--b\r\n", "goes on behind its end"),
    ] {
        let told = refused(&form(middle));
        assert!(told.contains(why), "{middle:?}: {told}");
    }
    let head = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n";
    for body in [
        format!("{head}--b--\r\n"),
        format!("x{head}1\r\n--b--\r\n"),
        format!("\n{head}1\r\n--b--\r\n"),
    ] {
        assert!(
            refused(body.as_bytes()).contains("no line begins"),
            "{body:?}"
        );
    }
    assert!(refused(b"--b\r\n\r\n1\r\n--b--").contains("no name"));
    refused(b"--b \r\n");
}

#[test]
fn a_form_that_breaks_off_anywhere_is_none() {
    let body = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--";
    whole(body);
    for end in 0..body.len() {
        refused(&body[..end]);
    }
}

#[test]
fn a_form_has_so_many_parts_and_a_head_so_many_bytes() {
    let part = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n";
    let many = |count| format!("{}--b--", part.repeat(count)).into_bytes();
    assert_eq!(parts(&many(MOST_PARTS), 999).unwrap().0.len(), MOST_PARTS);
    assert!(
        parts(&many(MOST_PARTS + 1), 999)
            .unwrap_err()
            .0
            .contains("1000 parts")
    );

    let head = "Content-Disposition: form-data; name=";
    let large = |length: usize| {
        let name = "a".repeat(length - head.len());
        format!("--b\r\n{head}{name}\r\n\r\n1\r\n--b--").into_bytes()
    };
    assert!(parts(&large(LONGEST_HEAD), 100).is_ok());
    assert!(
        parts(&large(LONGEST_HEAD + 1), 100)
            .unwrap_err()
            .0
            .contains("16 KiB")
    );
    let endless = [b"--b\r\nA: ", &[b'a'; 40_000][..]].concat();
    assert!(parts(&endless, 1000).unwrap_err().0.contains("16 KiB"));
}

#[test]
fn a_boundary_is_quoted_or_not_and_there_is_one() {
    for (content_type, boundary) in [
        ("multipart/form-data; boundary=b", "b"),
        (
            "Multipart/Form-Data;charset=utf-8; BOUNDARY=\"b c:d\"",
            "b c:d",
        ),
        (
            "multipart/form-data; boundary=\"----=_Part_1_2.3\"",
            "----=_Part_1_2.3",
        ),
        (
            "multipart/form-data; boundary=----WebKitFormBoundaryAbC; charset=UTF-8",
            "----WebKitFormBoundaryAbC",
        ),
        ("multipart/form-data; boundary='b'", "'b'"),
    ] {
        let read = Boundary::of(content_type.as_bytes());
        assert_eq!(read, Ok(Some(Boundary(boundary.into()))), "{content_type}");
    }
    for other in ["", "application/json", "multipart/mixed; boundary=b"] {
        assert_eq!(Boundary::of(other.as_bytes()), Ok(None), "{other}");
    }
    for other in [
        "multipart/form-datas",
        "Multipart/form-data, a/b",
        "multipart/form-data a",
    ] {
        let content_type = format!("{other}; boundary=b");
        assert!(Boundary::of(content_type.as_bytes()).is_err(), "{other}");
    }
    let long = "b".repeat(71);
    for parameters in [
        "",
        ";",
        "; boundary",
        "; boundary=",
        "; boundary=\"\"",
        "; boundary=\"b",
        "; boundary=b c",
        "; boundary=b; boundary=b",
        "; boundary=\"b \"",
        "; boundary=\"b\\\"c\"",
        "; boundary*=utf-8''b",
        "; boundary=a,b",
        "; boundary=\"a,b\"",
        "; boundary=a/b",
        "; boundary=----=_Part_1",
        "; boundary=\"boundary=b\"",
        "; boundary=\"charset=b\"",
        "; boundary=a; boundary*0=b",
        "; xboundary=b; boundary=a",
        "; boundary=a; x=y",
        "; charset=\"boundary=b\"; boundary=a",
        "; charset=utf-8; charset=utf-8; boundary=a",
        "; boundary=ü",
        &format!("; boundary={long}"),
    ] {
        let content_type = format!("multipart/form-data{parameters}");
        assert!(
            Boundary::of(content_type.as_bytes()).is_err(),
            "{parameters}"
        );
    }
    assert!(
        Boundary::of(format!("multipart/form-data; boundary={}", &long[1..]).as_bytes()).is_ok()
    );
}

#[test]
fn of_a_form_in_memory_all_is_told_but_what_is_in_its_files() {
    let body = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n你好\r\n\
        --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nfile\r\n\
        --b\r\nContent-Disposition: form-data; name=\"g\"; filename=\"\"\r\n\r\ntext\r\n\
        --b\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--b--\r\n";
    let fields = fields(&boundary("b"), body.as_bytes()).unwrap();
    let told: Vec<_> = fields
        .iter()
        .map(|it| {
            (
                &*it.part.name,
                it.is_file(),
                str::from_utf8(&it.value).unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a", false, "你好"),
            ("f", true, ""),
            ("g", false, "text"),
            ("a", false, "")
        ]
    );
    assert_eq!(fields[3].part.content_type, b"text/plain");
    assert_eq!(fields[0].part.content_type, b"");
    assert!(super::fields(&boundary("b"), b"--b\r\n").is_err());
}

#[test]
fn a_file_can_give_way_to_a_field_of_its_name() {
    for written in ["\"a, filename:b\"", "\"名\"", "a", "\"a%22\""] {
        let head = with_disposition(format!("form-data; filename=x; name={written}").as_bytes());
        let mut form = Form::new(&boundary("b"));
        form.push(&head);
        let plain = loop {
            if let Event::Head(part, _) = form.next().unwrap() {
                break (part.plain_head(), part.name);
            }
        };
        let body = [b"--b\r\n", &plain.0[..], b"id\r\n--b--"].concat();
        assert_eq!(whole(&body), [read(&plain.1, None, b"id")]);
    }
}

#[test]
fn what_clients_write_is_a_form() {
    for content_type in [
        // wx.uploadFile on Android, on iOS and in the DevTools.
        "multipart/form-data; boundary=F97gI2Ua0Y_ZC7IrPZ3zlcUiZ8N7B01",
        "multipart/form-data; boundary=0xKhTmLbOuNdArY-0D6C1E4B-9C5F-4A2B-8F0E",
        "multipart/form-data; boundary=--------------------------021469385739",
        // Chrome, Firefox, curl.
        "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
        "multipart/form-data; boundary=---------------------------974767299852498929531610575",
        "multipart/form-data; boundary=------------------------d74496d66958873e",
        // Python requests, Go, okhttp, Alamofire, Dart.
        "multipart/form-data; boundary=0e2d3a3d6a4b4bd28b7e8aef44ac5bd9",
        "multipart/form-data; boundary=3b2c9d0e7a11f6c8",
        "multipart/form-data; boundary=e4c0a1f2-7c1f-4a3e-9d3b-7d5f1c2b3a49",
        "multipart/form-data; boundary=alamofire.boundary.5c1f7a8b9d2e3f40",
        "multipart/form-data; boundary=dart-http-boundary-Wq3+x.T_9aBcD",
        // .NET, Apache HttpClient, Spring, JavaMail, Symfony.
        "multipart/form-data; boundary=\"7a1c1b1e-0e3f-4b9c-8c1d-2f3e4d5c6b7a\"",
        "multipart/form-data; boundary=Qq-Rz_8; charset=ISO-8859-1",
        "multipart/form-data;charset=UTF-8;boundary=vI5Xq0yJm",
        "multipart/form-data; boundary=\"----=_Part_0_1330.1700000000\"",
        "multipart/form-data; boundary=\"_=_symfony_1700000000_0a1b_=_\"",
    ] {
        let read = Boundary::of(content_type.as_bytes());
        assert!(matches!(read, Ok(Some(_))), "{content_type}: {read:?}");
    }
    for (head, name, filename) in [
        // axios, Go, okhttp.
        (
            "form-data; name=\"post[title]\"; filename=\"猫 (1);a=b.png\"\r\nContent-Type: image/png",
            "post[title]",
            Some("猫 (1);a=b.png"),
        ),
        (
            "form-data; name=\"a\"; filename=\"\\\"b\\\".png\"\r\nContent-Type: application/octet-stream",
            "a",
            Some("\"b\".png"),
        ),
        (
            "form-data; name=\"a\"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 1",
            "a",
            None,
        ),
        // .NET.
        (
            "form-data; name=a; filename=b.png; filename*=utf-8''b.png",
            "a",
            Some("b.png"),
        ),
        (
            "form-data; name=\"a\"; filename=\"=?utf-8?B?54yrLnBuZw==?=\"; filename*=utf-8''%E7%8C%AB.png",
            "a",
            Some("猫.png"),
        ),
        // Apache HttpClient, Python requests, Jersey, and a browser of a `Blob`.
        (
            "form-data; name=\"a\"\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit",
            "a",
            None,
        ),
        (
            "form-data; name=\"a\"; filename*=utf-8''%E7%8C%AB%20%281%29.png",
            "a",
            Some("猫 (1).png"),
        ),
        (
            "form-data; filename=\"b.png\"; modification-date=\"Tue, 14 Nov 2026 22:13:20 GMT\"; size=90; name=\"a\"",
            "a",
            Some("b.png"),
        ),
        (
            "form-data; name=\"a\"; filename=\"blob\"",
            "a",
            Some("blob"),
        ),
    ] {
        let form = with_disposition(head.as_bytes());
        assert_eq!(whole(&form), [read(name, filename, b"x")], "{head}");
    }
}

#[test]
fn a_text_is_in_utf_8_if_nothing_says_otherwise() {
    for content_type in [
        "",
        "text/plain",
        "application/json;",
        "application/json;charset=UTF-8",
        "text/plain; charset=\"utf8\"",
        "text/plain; Charset=us-ascii;",
        "multipart/form-data; boundary=\"----=_Part_1\"; charset=utf-8",
    ] {
        assert!(is_in_utf8(content_type.as_bytes()), "{content_type}");
    }
    for content_type in [
        "text/plain; charset=gbk",
        "text/plain; xcharset=utf-16be",
        "text/plain; charset*0=utf-7",
        "text/plain; charset=utf-8; charset=gbk",
        "text/plain; x=\"; charset=gbk\"",
        "text/plain; boundary=\"charset=gbk\"",
        "text/plain; charset",
        "text/plain; charset = gbk",
        "text/plain; charset='gbk'",
    ] {
        assert!(!is_in_utf8(content_type.as_bytes()), "{content_type}");
    }
}

#[test]
fn a_plus_is_a_space_where_forms_are_urls() {
    assert_eq!(*url_decoded(b"a+b%2B%e7%8c%ab%"), *"a b+猫%".as_bytes());
    assert_eq!(*url_decoded(b"a%20b"), *b"a b");
}
