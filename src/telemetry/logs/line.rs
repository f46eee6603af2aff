//! One event, one line: a JSON object, or text for people.
//!
//! What is logged may come from a client, from the app or from WeChat, so nothing of it is trusted. Whatever a value
//! holds, a line stays one line and an object one object: what ends a line, moves a cursor or turns the direction of text
//! is written as an escape in both forms. A value is written as far as [`LONGEST`], and then it says how much is left out.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::config::LogFormat;

/// How much of a value is written, in bytes.
const LONGEST: usize = 4096;

/// Writes an event's line, with the line feed at its end.
pub(super) fn write(out: &mut Vec<u8>, form: LogFormat, colored: bool, event: &Event<'_>) {
    match form {
        LogFormat::Json => json(out, event),
        LogFormat::Pretty => pretty(out, colored, event),
    }
    out.push(b'\n');
}

fn json(out: &mut Vec<u8>, event: &Event<'_>) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(out);
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(event.metadata().level().as_str().as_bytes());
    out.extend_from_slice(b"\",\"target\":\"");
    escape(out, event.metadata().target());
    out.push(b'"');
    event.record(&mut Json(out));
    out.push(b'}');
}

fn pretty(out: &mut Vec<u8>, colored: bool, event: &Event<'_>) {
    let level = *event.metadata().level();
    let (on, off) = match level {
        _ if !colored => ("", ""),
        Level::ERROR => ("\x1b[31m", "\x1b[0m"),
        Level::WARN => ("\x1b[33m", "\x1b[0m"),
        Level::INFO => ("\x1b[32m", "\x1b[0m"),
        _ => ("\x1b[2m", "\x1b[0m"),
    };
    timestamp(out);
    let _ = write!(Plain(out), " {on}{:>5}{off}", level.as_str());
    if event.metadata().target() == super::ACCESS {
        out.extend_from_slice(b" access");
    }
    event.record(&mut Pretty(out));
}

fn timestamp(out: &mut Vec<u8>) {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    let _ = write!(Plain(out), "{now}");
}

/// Text that needs no escape.
struct Plain<'a>(&'a mut Vec<u8>);

impl fmt::Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Members of an object.
struct Json<'a>(&'a mut Vec<u8>);

impl Json<'_> {
    fn name(&mut self, field: &Field) {
        // Names are ours, or a library's: words in a program.
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(field.name().as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        let _ = write!(Plain(self.0), "{value}");
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        self.0.push(b'"');
        value_of(self.0, value);
        self.0.push(b'"');
    }
}

impl Visit for Json<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.plain(field, value),
            false => self.plain(field, "null"),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, itoa::Buffer::new().format(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, itoa::Buffer::new().format(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.0.push(b'"');
        let mut escaped = Escaped::new(self.0);
        let _ = escaped.write_str(value);
        escaped.end();
        self.0.push(b'"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

/// Words: the message as it is, all else as `name=value`.
struct Pretty<'a>(&'a mut Vec<u8>);

impl Visit for Pretty<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.word(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.word(field, format_args!("{value}"));
    }
}

impl Pretty<'_> {
    fn word(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.0.push(b' ');
        if field.name() == "message" {
            value_of(self.0, value);
            return;
        }
        let _ = write!(Plain(self.0), "{}=", field.name());
        let start = self.0.len();
        value_of(self.0, value);
        // In quotes if it could be taken for something else.
        let written = &self.0[start..];
        if written.is_empty() || written.iter().any(|b| matches!(b, b' ' | b'=' | b'"')) {
            self.0.insert(start, b'"');
            self.0.push(b'"');
        }
    }
}

fn value_of(out: &mut Vec<u8>, value: fmt::Arguments<'_>) {
    let mut escaped = Escaped::new(out);
    // Fails only if the value's own code does, and then there is what it has said so far.
    let _ = escaped.write_fmt(value);
    escaped.end();
}

/// Text of somebody else's.
struct Escaped<'a> {
    out: &'a mut Vec<u8>,
    room: usize,
    left_out: usize,
}

impl<'a> Escaped<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            room: LONGEST,
            left_out: 0,
        }
    }

    fn end(self) {
        if self.left_out > 0 {
            let left_out = self.left_out;
            let _ = write!(Plain(self.out), "… ({left_out} more bytes)");
        }
    }
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let most = if self.left_out > 0 { 0 } else { self.room };
        let (written, rest) = text.split_at(text.floor_char_boundary(most));
        escape(self.out, written);
        self.room -= written.len();
        self.left_out += rest.len();
        Ok(())
    }
}

/// Which bytes are characters that only stand there. Most are, and are looked at one by one.
const IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        is_plain[byte as usize] = !matches!(byte, b'"' | b'\\');
        byte += 1;
    }
    is_plain
};

/// As the inside of a JSON string, of characters that do nothing but stand there.
fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    let mut at = 0;
    while let Some(plain) = bytes[at..].iter().position(|&b| !IS_PLAIN[usize::from(b)]) {
        at += plain;
        let c = text[at..].chars().next().expect("there is a character");
        let end = at + c.len_utf8();
        if acts(c) {
            out.extend_from_slice(&bytes[copied..at]);
            copied = end;
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // All of them are in the first plane.
                c => {
                    let _ = write!(Plain(out), "\\u{:04x}", u32::from(c));
                }
            }
        }
        at = end;
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Whether a character does something to the text around it: ends it, moves the cursor, turns its direction.
fn acts(c: char) -> bool {
    matches!(c, '"' | '\\' | '\u{2028}' | '\u{2029}' | '\u{feff}')
        || c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use serde_json::Value;
    use tracing::{Metadata, Subscriber, span};

    use super::*;

    /// The lines of both forms that events come to.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<[Vec<u8>; 2]>>);

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut lines = self.0.lock().unwrap();
            write(&mut lines[0], LogFormat::Json, false, event);
            write(&mut lines[1], LogFormat::Pretty, false, event);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    /// The lines that `log` writes, as JSON and as text.
    fn lines(log: impl FnOnce()) -> (String, String) {
        let lines = Lines::default();
        // Without a second one that asks for everything, a call site that another test's thread came to first is mute.
        let _second = tracing::Dispatch::new(Lines::default());
        tracing::subscriber::with_default(lines.clone(), log);
        let [json, pretty] = std::mem::take(&mut *lines.0.lock().unwrap());
        (
            String::from_utf8(json).expect("JSON is UTF-8"),
            String::from_utf8(pretty).expect("text is UTF-8"),
        )
    }

    fn parsed(line: &str) -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// That it is one line of characters that only stand there.
    fn assert_tame(line: &str) {
        let line = line.strip_suffix('\n').expect("a line ends in a line feed");
        let wild = line.chars().find(|&c| c != '"' && c != '\\' && acts(c));
        assert_eq!(wild, None, "{line:?}");
    }

    #[test]
    fn an_event_is_an_object_with_its_fields_as_they_are() {
        let absent: Option<&str> = None;
        let (json, pretty) = lines(|| {
            tracing::warn!(
                text = "a b",
                whole = 7_u64,
                below = -7_i64,
                half = 0.5,
                nowhere = f64::NAN,
                yes = true,
                absent,
                shown = %"x=1",
                "something {}",
                "happened"
            );
        });
        let object = parsed(&json);
        let time = object["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        assert_eq!(
            json.split_once("\"level\"").unwrap().1,
            ":\"WARN\",\"target\":\"wx_sidecar::telemetry::logs::line::tests\",\"message\":\"something happened\",\
             \"text\":\"a b\",\"whole\":7,\"below\":-7,\"half\":0.5,\"nowhere\":null,\"yes\":true,\"shown\":\"x=1\"}\n"
        );
        assert_eq!(
            pretty.split_once(' ').unwrap().1,
            " WARN something happened text=\"a b\" whole=7 below=-7 half=0.5 nowhere=NaN yes=true shown=\"x=1\"\n"
        );
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_said_to_be() {
        let long = "é".repeat(500_000);
        let (json, pretty) = lines(|| tracing::info!(a = long, b = %long, c = ?["x", "y"]));
        let object = parsed(&json);
        let cut = format!("{}… (995904 more bytes)", "é".repeat(LONGEST / 2));
        assert_eq!(
            (&object["a"], &object["b"]),
            (&cut.clone().into(), &cut.into())
        );
        assert_eq!(object["c"], r#"["x", "y"]"#);
        assert!(pretty.len() < 3 * LONGEST, "{}", pretty.len());
    }

    #[test]
    fn what_moves_a_cursor_or_breaks_a_line_is_escaped_in_both_forms() {
        let nasty = "\r\n{\"level\":\"ERROR\"}\x1b[2J\x7f\u{9b}31m\u{2028}\u{202e}\\";
        let (json, pretty) = lines(|| tracing::info!(nasty, "{nasty}"));
        assert_tame(&json);
        assert_tame(&pretty);
        let object = parsed(&json);
        assert_eq!(
            (&object["nasty"], &object["message"]),
            (&nasty.into(), &nasty.into())
        );
        assert_eq!(object["level"], "INFO");
    }

    #[test]
    fn a_value_cannot_pass_for_another_field_of_a_text() {
        let (_, pretty) = lines(|| tracing::info!(a = "1 status=200", b = "\" c=\"2", d = ""));
        let fields = pretty.split_once("INFO ").unwrap().1;
        assert_eq!(fields, "a=\"1 status=200\" b=\"\\\" c=\\\"2\" d=\"\"\n");
    }

    proptest! {
        #[test]
        fn whatever_is_logged_an_object_is_an_object_and_a_line_a_line(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in any::<String>(),
        ) {
            let wild = String::from_utf8_lossy(&bytes);
            let (json, pretty) = lines(|| tracing::info!(wild = &*wild, shown = %text, spelled = ?text, "{text}"));
            assert_tame(&json);
            assert_tame(&pretty);
            let object = parsed(&json);
            prop_assert_eq!(object["wild"].as_str(), Some(&*wild));
            prop_assert_eq!(object["shown"].as_str(), Some(&*text));
            prop_assert_eq!(object["message"].as_str(), Some(&*text));
            prop_assert_eq!(object.as_object().unwrap().len(), 7);
        }
    }
}
