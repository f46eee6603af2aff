//! The names of files: as they go to WeChat, and as they go to a client.
//!
//! WeChat wants one, and judges a file by its end. What a client calls its file may hold anything: a path, a line end that
//! would begin another header, characters that have it read otherwise than it is. What is left of it is plain UTF-8, which
//! can stand between quotes as it is.

/// The longest name, in bytes.
const LONGEST: usize = 255;
/// What a file is called of whose name nothing is left.
const DEFAULT: &str = "media";
/// The longest end of a name that is taken for one, in bytes.
const LONGEST_EXTENSION: usize = 5;
/// The longest end behind the last dot, with it, that is kept if a name for a client is cut.
const LONGEST_END: usize = 16;

/// A name for WeChat, of the one that the client has given, with the end that the file's format has.
pub(crate) fn for_wechat(given: &str, extension: &str) -> String {
    // Nothing becomes a dot or white space by that, so the ends stay trimmed.
    let clean: String = bare(given).chars().map(harmless).collect();
    let trimmed = clean.as_str();
    let stem = match trimmed.rsplit_once('.') {
        Some((stem, end)) if is_extension(end) => trim(stem),
        _ => trimmed,
    };
    let mark = if is_reserved(stem) { "_" } else { "" };
    let room = LONGEST - mark.len() - 1 - extension.len();
    match trim(cut(stem, room)) {
        "" => format!("{DEFAULT}.{extension}"),
        stem => format!("{mark}{stem}.{extension}"),
    }
}

/// A name for a client; `None` if nothing is left of the one that was given.
pub(super) fn for_client(given: &str) -> Option<String> {
    let name = bare(given);
    (!name.is_empty()).then(|| shortened(&name))
}

/// What of a given name is one: no path, nothing that cannot be seen, no dots or white space at its ends.
fn bare(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let seen: String = last.chars().filter(|c| !is_unseen(*c)).collect();
    trim(&seen).to_owned()
}

/// As much of a name as file systems take, with its end.
fn shortened(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let end = name.rfind('.').map_or("", |dot| &name[dot..]);
    let end = if end.len() <= LONGEST_END { end } else { "" };
    format!("{}{end}", cut(name, LONGEST - end.len()))
}

/// White space and dots at its ends mean something else in places.
fn trim(name: &str) -> &str {
    name.trim_matches(|c: char| c == '.' || c.is_whitespace())
}

/// As many whole characters as fit.
fn cut(name: &str, length: usize) -> &str {
    &name[..name.floor_char_boundary(length)]
}

fn is_extension(end: &str) -> bool {
    (1..=LONGEST_EXTENSION).contains(&end.len()) && end.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Names of devices on Windows, with any end.
fn is_reserved(stem: &str) -> bool {
    let first = stem.split('.').next().unwrap_or_default().trim_end();
    let upper = first.to_ascii_uppercase();
    matches!(
        upper.as_bytes(),
        b"CON"
            | b"PRN"
            | b"AUX"
            | b"NUL"
            | [b'C', b'O', b'M', b'0'..=b'9']
            | [b'L', b'P', b'T', b'0'..=b'9']
    )
}

/// Characters that are not seen, but change how the others are: controls, marks that turn the direction of writing, joiners,
/// tags.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// What would end the name, or begin something else in it, becomes an underscore.
fn harmless(c: char) -> char {
    match c {
        '"' | ';' | '%' | '<' | '>' | ':' | '|' | '?' | '*' | '`' | '$' | '&' | '\'' => '_',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_for_a_client_is_cut_and_keeps_its_end_and_its_language() {
        for (given, name) in [
            ("猫.jpg", Some("猫.jpg")),
            ("/tmp/../a b;\"c\".jpg", Some("a b;\"c\".jpg")),
            ("a\u{202e}gpj.exe", Some("agpj.exe")),
            ("..", None),
            (" \u{0}", None),
        ] {
            assert_eq!(for_client(given).as_deref(), name, "{given:?}");
        }
        let long = for_client(&format!("{}.jpeg", "猫".repeat(2000))).unwrap();
        assert_eq!(long.len(), 83 * 3 + 5);
        assert!(long.ends_with("猫.jpeg"));
        let endless = for_client(&format!("a.{}", "b".repeat(2000))).unwrap();
        assert_eq!(endless.len(), LONGEST);
    }

    #[test]
    fn a_name_keeps_its_language_and_gets_the_end_that_it_should_have() {
        for (given, name) in [
            ("a.jpg", "a.jpg"),
            ("a.JPEG", "a.jpg"),
            ("猫.png", "猫.jpg"),
            ("微信图片_20240101 (1).png", "微信图片_20240101 (1).jpg"),
            ("🐱.gif", "🐱.jpg"),
            ("报告.最终版", "报告.最终版.jpg"),
            ("a.tar.gz", "a.tar.jpg"),
            ("no end", "no end.jpg"),
            ("evil.php", "evil.jpg"),
            ("evil.php.jpg", "evil.php.jpg"),
        ] {
            assert_eq!(for_wechat(given, "jpg"), name);
        }
    }

    #[test]
    fn a_path_is_left_with_its_last_part() {
        for (given, name) in [
            ("../../etc/passwd", "passwd.jpg"),
            (r"..\..\boot.ini", "boot.jpg"),
            (r"C:\fakepath\a.jpg", "a.jpg"),
            ("/", "media.jpg"),
            ("a/..", "media.jpg"),
            ("..", "media.jpg"),
            (".", "media.jpg"),
            ("", "media.jpg"),
            (".jpg", "jpg.jpg"),
            (".htaccess", "htaccess.jpg"),
            ("nul", "_nul.jpg"),
            ("Con.txt.png", "_Con.txt.jpg"),
            ("LPT1 .png", "_LPT1.jpg"),
            ("console.png", "console.jpg"),
        ] {
            assert_eq!(for_wechat(given, "jpg"), name);
        }
    }

    #[test]
    fn what_is_not_seen_or_would_end_the_header_goes() {
        for (given, name) in [
            ("a\r\nX-Evil: 1.jpg", "aX-Evil_ 1.jpg"),
            ("a\0b.jpg", "ab.jpg"),
            ("a\"; filename=\"b.php", "a__ filename=_b.jpg"),
            ("a%22b%0d.jpg", "a_22b_0d.jpg"),
            ("photo\u{202e}gpj.exe", "photogpj.jpg"),
            ("a\u{200b}\u{feff}\u{2066}b.jpg", "ab.jpg"),
            ("\u{202e}\u{200d}", "media.jpg"),
            (" . a . jpg", "a . jpg.jpg"),
        ] {
            assert_eq!(for_wechat(given, "jpg"), name);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_keeps_its_end() {
        let name = for_wechat(&"猫".repeat(2000), "mp4");
        assert_eq!(name.len(), 83 * 3 + 4);
        assert!(name.ends_with("猫.mp4"));
        let exact = format!("{}.jpg", "a".repeat(251));
        assert_eq!(for_wechat(&exact, "jpg"), exact);
        assert_eq!(for_wechat(&"a".repeat(4096), "jpg"), exact);
    }

    proptest! {
        #[test]
        fn any_name_can_stand_in_a_header_and_on_a_disk(given in "\\PC{0,80}|(\\.|/|\\\\|[\\x00-\\x7f]|\u{202e}){0,300}") {
            let name = for_wechat(&given, "png");
            prop_assert!((5..=255).contains(&name.len()));
            prop_assert!(name.ends_with(".png") && !name.starts_with('.'));
            prop_assert!(!name.contains(['/', '\\', '"', ';', '%', '\r', '\n', '\0']));
            prop_assert!(!name.chars().any(is_unseen));
            prop_assert_eq!(for_wechat(&name, "png"), name);
        }
    }
}
