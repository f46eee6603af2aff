//! What is wrong with a configuration, where, and what to write instead.
//!
//! A [`Report`] is made to be shown: in a terminal, in a pull request, in a log. So it keeps no piece of the file but the
//! lines it points at, and those only after their secrets have been masked; the file's text is gone once a report is
//! made. Positions always count in the file as written, whatever the mask did to the line.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{
    AnnotationKind, Level as Tone, Origin, Renderer, Snippet, normalize_untrusted_str,
};
use serde_json::{Value, json};

use super::mask::Mask;

/// How many diagnostics a report holds; nobody reads more, and a file may be nothing but mistakes.
const MOST: usize = 100;

/// Everything there is to say about one configuration, in the order of the file.
#[derive(Clone, Debug)]
pub struct Report {
    file: String,
    entries: Vec<Entry>,
}

/// One mistake or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stands in the way.
    pub level: Level,
    /// What is wrong; never holds a value from the file or the environment.
    pub message: String,
    /// The bytes of the file it is about (a byte order mark does not count); `None` when it is about the whole file.
    pub span: Option<Range<usize>>,
    /// What to write instead.
    pub help: Option<String>,
    /// What else in the file it is about, and why, in a few words.
    pub related: Vec<(Range<usize>, &'static str)>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, and should be looked at.
    Warning,
}

/// Where a diagnostic points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    diagnostic: Diagnostic,
    place: Option<Place>,
    /// Where the related places of the diagnostic are.
    related: Vec<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    position: Position,
    shown: String,
    caret: Range<usize>,
}

/// Collects diagnostics while a file is read and checked.
#[derive(Default)]
pub(super) struct Sink {
    /// Set when the file could only be read in part: what seems to be missing may then be in the other part.
    pub(super) partial: bool,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Why a value is not acceptable. The message is free of the value; the help may quote it, and is dropped where the
/// value came from the environment.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) help: Option<String>,
    pub(super) related: Vec<(Range<usize>, &'static str)>,
    pub(super) weight: Weight,
}

/// How much a fault counts, whoever tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// As much as it is told to.
    Usual,
    /// A warning at the most.
    Doubt,
    /// Nothing: this cannot be judged here.
    Unknown,
}

impl Report {
    /// Places `diagnostics` in `text`, showing only what `mask` leaves of it.
    pub(super) fn new(
        file: &str,
        text: &str,
        mask: &Mask,
        mut diagnostics: Vec<Diagnostic>,
    ) -> Self {
        let more = diagnostics.len().saturating_sub(MOST);
        if more > 0 {
            // Errors first, so that a flood of warnings cannot hide what stands in the way.
            diagnostics.sort_by_key(|d| (d.level, d.span.as_ref().map(|s| s.start)));
            diagnostics.truncate(MOST);
            diagnostics.push(Diagnostic {
                level: diagnostics[0].level,
                message: format!("there are {more} more, which are not shown"),
                span: None,
                help: None,
                related: Vec::new(),
            });
        }
        diagnostics.sort_by_key(|d| (d.span.as_ref().map(|s| s.start), d.level));
        let entries = diagnostics
            .into_iter()
            .map(|diagnostic| {
                let place = |span: &Range<usize>| Place::new(text, mask, span.clone());
                Entry {
                    place: diagnostic.span.as_ref().map(place),
                    related: diagnostic
                        .related
                        .iter()
                        .map(|(span, _)| place(span))
                        .collect(),
                    diagnostic,
                }
            })
            .collect();
        Self {
            file: file.to_owned(),
            entries,
        }
    }

    /// A report of one error about a whole file.
    pub(super) fn whole_file(file: &str, fault: Fault) -> Self {
        let mut sink = Sink::default();
        sink.error(None, fault);
        Self::new(file, "", &Mask::default(), sink.diagnostics)
    }

    /// A report of a configuration that cannot be read.
    pub(crate) fn unread(file: &str, why: &str) -> Self {
        Self::whole_file(file, Fault::new(format!("this cannot be read: {why}")))
    }

    /// The same, and something else that is about the whole file.
    pub(crate) fn and_also(mut self, what: String) -> Self {
        let more = Self::whole_file(&self.file, Fault::new(what));
        self.entries.extend(more.entries);
        self
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something stands in the way.
    pub fn has_errors(&self) -> bool {
        self.entries
            .iter()
            .any(|e| e.diagnostic.level == Level::Error)
    }

    /// The diagnostics with their positions, in the order of the file; those about the whole file come first.
    pub fn diagnostics(&self) -> impl Iterator<Item = (&Diagnostic, Option<Position>)> {
        self.entries
            .iter()
            .map(|e| (&e.diagnostic, e.place.as_ref().map(|p| p.position)))
    }

    /// The report for people, each diagnostic with its line underlined; `styled` adds terminal colours.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for entry in &self.entries {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&entry.render(&renderer, &self.file));
            out.push('\n');
        }
        out
    }

    /// The report for programs:
    /// `{"ok":bool,"diagnostics":[{"level","message","file","line","column","help","related"}]}`, where `line`, `column` and
    /// `help` are null if there is none, and `related` is `[{"line","column","message"}]`.
    pub fn to_json(&self) -> Value {
        let diagnostics: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| {
                let diagnostic = &entry.diagnostic;
                let position = entry.place.as_ref().map(|place| place.position);
                let labels = diagnostic.related.iter().map(|(_, label)| *label);
                let related = entry.related.iter().zip(labels).map(|(place, label)| {
                    let Position { line, column } = place.position;
                    json!({ "line": line, "column": column, "message": label })
                });
                json!({
                    "level": diagnostic.level.name(),
                    "message": diagnostic.message,
                    "file": self.file,
                    "line": position.map(|p| p.line),
                    "column": position.map(|p| p.column),
                    "help": diagnostic.help,
                    "related": Value::from_iter(related),
                })
            })
            .collect();
        json!({ "ok": !self.has_errors(), "diagnostics": diagnostics })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

impl Level {
    /// The word for it: `error` or `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Entry {
    fn render(&self, renderer: &Renderer, file: &str) -> String {
        let tone = match self.diagnostic.level {
            Level::Error => Tone::ERROR,
            Level::Warning => Tone::WARNING,
        };
        let title = tone.primary_title(&self.diagnostic.message);
        let mut group = match &self.place {
            None => title.element(Origin::path(file)),
            Some(place) => {
                let snippet = Snippet::source(&place.shown)
                    .line_start(place.position.line)
                    .annotation(AnnotationKind::Primary.span(place.caret.clone()));
                if place.column_is_true() {
                    title.element(snippet.path(file))
                } else {
                    let origin = Origin::path(file)
                        .line(place.position.line)
                        .char_column(place.position.column);
                    title.element(origin).element(snippet)
                }
            }
        };
        let labels = self.diagnostic.related.iter().map(|(_, label)| *label);
        for (place, label) in self.related.iter().zip(labels) {
            let snippet = Snippet::source(&place.shown)
                .line_start(place.position.line)
                .path(file)
                .annotation(
                    AnnotationKind::Context
                        .span(place.caret.clone())
                        .label(label),
                );
            group = group.element(snippet);
        }
        if let Some(help) = &self.diagnostic.help {
            group = group.element(Tone::HELP.message(normalize_untrusted_str(help)));
        }
        renderer.render(&[group])
    }
}

impl Place {
    fn new(text: &str, mask: &Mask, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let end = text.floor_char_boundary(span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let line_end = line_start + text[line_start..line_end].trim_end_matches('\r').len();
        let start = start.min(line_end);
        let (shown, caret) = mask.line(text, line_start..line_end, start..end.min(line_end));
        Self {
            position: Position {
                line: text[..line_start].matches('\n').count() + 1,
                column: text[line_start..start].chars().count() + 1,
            },
            shown,
            caret,
        }
    }

    /// Whether the caret stands in the masked line where it does in the file. The renderer counts in what it shows, so
    /// where a secret stood to the left it has to be told.
    fn column_is_true(&self) -> bool {
        self.shown[..self.caret.start].chars().count() + 1 == self.position.column
    }
}

impl Sink {
    /// Reports a mistake.
    pub(super) fn error(&mut self, span: Option<Range<usize>>, fault: Fault) {
        self.push(Level::Error, span, fault);
    }

    /// Reports something to look at.
    pub(super) fn warn(&mut self, span: Option<Range<usize>>, fault: Fault) {
        self.push(Level::Warning, span, fault);
    }

    /// Reports that something is not there, unless it may be in a part of the file that could not be read.
    pub(super) fn missing(&mut self, span: Option<Range<usize>>, fault: Fault) {
        if !self.partial {
            self.error(span, fault);
        }
    }

    fn push(&mut self, level: Level, span: Option<Range<usize>>, fault: Fault) {
        let level = match fault.weight {
            Weight::Usual => level,
            Weight::Doubt => Level::Warning,
            Weight::Unknown => return,
        };
        self.diagnostics.push(Diagnostic {
            level,
            message: fault.message,
            span,
            help: fault.help,
            related: fault.related,
        });
    }
}

impl Fault {
    /// A fault without advice.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            related: Vec::new(),
            weight: Weight::Usual,
        }
    }

    /// Says how much it counts.
    pub(super) fn weighing(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    /// That something cannot be judged here, which is not told.
    pub(super) fn unknown() -> Self {
        Self::new("this cannot be judged here").weighing(Weight::Unknown)
    }

    /// Adds another place that it is about, if that is written at all.
    pub(super) fn also(mut self, span: Option<Range<usize>>, label: &'static str) -> Self {
        self.related.extend(span.map(|span| (span, label)));
        self
    }

    /// Adds advice.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    /// Where there is no file to show a place of.
    pub(super) fn into_text(self) -> String {
        match self.help {
            Some(help) => format!("{}: {help}", self.message),
            None => self.message,
        }
    }

    /// Adds "did you mean", if one of `known` is near enough to `written`, and the whole choice if none is.
    pub(super) fn suggest<'a>(
        self,
        written: &str,
        known: impl Iterator<Item = &'a str> + Clone,
        quote: char,
    ) -> Self {
        match nearest(written, known.clone()) {
            Some(near) => self.help(format!("did you mean {quote}{near}{quote}?")),
            None => {
                let choice: Vec<String> = known.map(|k| format!("{quote}{k}{quote}")).collect();
                self.help(format!("there is {}", listing(&choice)))
            }
        }
    }
}

/// The one of `known` that somebody who typed `written` may have meant.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes quadratic time, and no name of ours is this long.
    if written.len() > 64 {
        return None;
    }
    let written = written.to_ascii_lowercase().replace('-', "_");
    known
        .map(|k| {
            let distance = strsim::damerau_levenshtein(&written, &k.to_ascii_lowercase());
            (distance, k)
        })
        .filter(|(distance, k)| *distance <= (k.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

fn listing(items: &[String]) -> String {
    match items {
        [] => "nothing to choose from".to_owned(),
        [one] => format!("only {one}"),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, span: Range<usize>) -> Report {
        let mut sink = Sink::default();
        sink.error(
            Some(span),
            Fault::new("unknown key `b`").help("did you mean `a`?"),
        );
        Report::new("sidecar.toml", text, &Mask::default(), sink.diagnostics)
    }

    #[test]
    fn a_diagnostic_shows_file_line_column_and_caret() {
        let text = "a = 1\nb = 2\n";
        let expected = "\
error: unknown key `b`
 --> sidecar.toml:2:1
  |
2 | b = 2
  | ^
  |
  = help: did you mean `a`?
";
        assert_eq!(at(text, 6..7).render(false), expected);
    }

    #[test]
    fn two_places_that_contradict_each_other_are_both_shown() {
        let text = "a = 1\n\n\nb = 2\n";
        let mut sink = Sink::default();
        let fault = Fault::new("`b` cannot stand beside `a`")
            .also(Some(0..5), "the other one")
            .also(None, "of which nothing is written")
            .help("keep one of the two");
        sink.error(Some(8..13), fault);
        let report = Report::new("sidecar.toml", text, &Mask::default(), sink.diagnostics);
        let expected = "\
error: `b` cannot stand beside `a`
 --> sidecar.toml:4:1
  |
4 | b = 2
  | ^^^^^
  |
 ::: sidecar.toml:1:1
  |
1 | a = 1
  | ----- the other one
  |
  = help: keep one of the two
";
        assert_eq!(report.render(false), expected);
        let related = &report.to_json()["diagnostics"][0]["related"];
        let expected = json!([{ "line": 1, "column": 1, "message": "the other one" }]);
        assert_eq!(*related, expected);
    }

    #[test]
    fn crlf_does_not_move_the_caret() {
        let report = at("a = 1\r\nb = 2\r\n", 7..8);
        assert!(
            report.to_string().contains("2 | b = 2\n  | ^\n"),
            "{report}"
        );
        let at_end = at("a = 1\r\n", 6..7);
        assert!(at_end.to_string().contains("sidecar.toml:1:6"), "{at_end}");
    }

    #[test]
    fn columns_count_characters() {
        let text = "a = { 名 = \"é\", b = 2 }";
        let start = text.find('b').unwrap();
        assert_eq!(
            at(text, start..start + 1).to_json()["diagnostics"][0]["column"],
            16
        );
    }

    #[test]
    fn spans_beyond_the_text_do_not_panic() {
        for span in [0..0, 0..99, 50..99, 1..2] {
            let _ = at("é", span.clone()).to_string();
            let _ = at("", span).to_string();
        }
    }

    #[test]
    fn a_suggestion_is_near() {
        let known = ["upstream", "listen", "auth"];
        assert_eq!(nearest("upstrem", known.into_iter()), Some("upstream"));
        assert_eq!(nearest("UpStream", known.into_iter()), Some("upstream"));
        assert_eq!(nearest("lisent", known.into_iter()), Some("listen"));
        assert_eq!(nearest("colour", known.into_iter()), None);
        assert_eq!(nearest(&"u".repeat(100_000), known.into_iter()), None);
    }
}
