//! A form with files (multipart/form-data: RFC 7578, and RFC 2046 §5.1 for what it is made of), read as it comes.
//!
//! Bytes are pushed in, cut anywhere, and events come out, each with the bytes it stands for: put together, they are the
//! form again, byte for byte. What is held meanwhile is what was pushed last, a part's head, or a bit less than a
//! delimiter.
//!
//! Readers of forms differ in what they repair, and an app that finds a part where we found none has been lied to. So
//! what any reader might see differently is refused: line ends that are none, a boundary inside a line, a part without a
//! name or with two, parameters that stand twice, or that a form has no use for (`boundary*0`, `name*0`, `x-name`).

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::fields::token_len;

/// The longest head of a part, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;
/// How many parts a form may have.
const MOST_PARTS: usize = 1000;
/// The longest boundary (RFC 2046 §5.1.1).
const LONGEST_BOUNDARY: usize = 70;
/// How much of a form in memory is looked at at once.
const BITE: usize = 64 * 1024;
/// What else a file may be described by (RFC 2183 §2), as Jersey does. Nobody reads a name in them.
const OF_FILES: [&[u8]; 4] = [
    b"size",
    b"creation-date",
    b"modification-date",
    b"read-date",
];

/// Why a form is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FormError(pub(crate) &'static str);

/// What a form's parts are set apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boundary(Vec<u8>);

/// A form on its way in.
pub(crate) struct Form {
    /// `\r\n--` and the boundary.
    delimiter: Vec<u8>,
    /// Looks for `--` and the boundary.
    finder: Finder<'static>,
    /// What has been pushed and is not yet told.
    window: Vec<u8>,
    /// How much of the window has been told.
    told: usize,
    /// How much of the window behind that need not be searched again.
    searched: usize,
    state: State,
    parts: usize,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first delimiter. Whether something has been told.
    Preamble { begun: bool },
    /// At a delimiter, which ends a part if there is one.
    Delimiter { ends_part: bool },
    /// Behind a delimiter.
    Head,
    /// Within a part.
    Content,
    /// Behind the last delimiter.
    Epilogue,
}

/// What comes next in a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event<'f> {
    /// What belongs to no part: delimiters, and what stands before the first and behind the last.
    Between(&'f [u8]),
    /// The head of a part, through its empty line.
    Head(Part, &'f [u8]),
    /// Some of the part's content.
    Content(&'f [u8]),
    /// The part's end; stands for no bytes.
    PartEnd,
    /// Nothing, before more has been pushed.
    More,
    /// The form's end; stands for no bytes.
    End,
}

/// What the head of a part says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its field's name. What is not UTF-8 in it has become U+FFFD.
    pub(crate) name: String,
    /// The name of the file that it is; may be empty. `None` for a part that is no file.
    pub(crate) filename: Option<String>,
    /// Its Content-Type; empty if it has none.
    pub(crate) content_type: Vec<u8>,
    /// The parameter `name` as it is written, with its quotes.
    written_name: Vec<u8>,
}

impl Part {
    /// The head of a field that has this part's name and is no file, through the empty line.
    pub(crate) fn plain_head(&self) -> Vec<u8> {
        let parts: [&[u8]; 3] = [
            b"Content-Disposition: form-data; name=",
            &self.written_name,
            b"\r\n\r\n",
        ];
        parts.concat()
    }
}

impl Boundary {
    /// Of a `Content-Type`; `None` if it is not that of a form.
    ///
    /// # Errors
    /// If it is that of a form, but says no boundary, or what cannot be one.
    pub(crate) fn of(content_type: &[u8]) -> Result<Option<Self>, FormError> {
        const FORM: &[u8] = b"multipart/form-data";
        let (kind, rest) = split_at_semicolon(content_type);
        let (kind, looks_like) = (kind.trim_ascii(), kind.trim_ascii().get(..FORM.len()));
        if !looks_like.is_some_and(|start| start.eq_ignore_ascii_case(FORM)) {
            return Ok(None);
        }
        if kind.len() > FORM.len() {
            return Err(FormError(
                "the Content-Type begins like that of a form, and goes on",
            ));
        }
        let (mut boundary, mut charset) = (None, None);
        for parameter in Parameters(rest) {
            let Parameter { name, value, .. } = parameter?;
            let place = if name.eq_ignore_ascii_case(b"boundary") {
                &mut boundary
            } else if name.eq_ignore_ascii_case(b"charset") {
                &mut charset
            } else {
                // Some look for `boundary` anywhere, or put one together of `boundary*0` and `boundary*1`.
                return Err(FormError(
                    "the Content-Type of a form has another parameter than `boundary` and `charset`",
                ));
            };
            if place.replace(value).is_some() {
                return Err(FormError(
                    "a parameter of the form's Content-Type stands twice",
                ));
            }
        }
        let Some(boundary) = boundary else {
            return Err(FormError("the Content-Type of the form has no boundary"));
        };
        if charset.is_some_and(|name| token_len(&name) < name.len()) {
            return Err(FormError("the form's charset is no name of one"));
        }
        if !is_boundary(&boundary) {
            return Err(FormError(
                "a form's boundary is 1 to 70 letters, digits and characters of '()+_-./:=?",
            ));
        }
        Ok(Some(Self(boundary.into_owned())))
    }
}

/// Whether all readers find these bytes where they look for a boundary (RFC 2046 §5.1.1). For some a comma ends one, quotes
/// or not, and some take what stands behind the last `boundary=`, or behind `charset=`.
fn is_boundary(bytes: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"'()+_-./:=? ".contains(b);
    let lower = bytes.to_ascii_lowercase();
    let has = |name: &[u8]| memchr::memmem::find(&lower, name).is_some();
    (1..=LONGEST_BOUNDARY).contains(&bytes.len())
        && bytes.iter().all(fits)
        && bytes.last() != Some(&b' ')
        && !has(b"boundary=")
        && !has(b"charset=")
}

impl Form {
    pub(crate) fn new(boundary: &Boundary) -> Self {
        let delimiter = [b"\r\n--", &boundary.0[..]].concat();
        Self {
            finder: Finder::new(&delimiter[2..]).into_owned(),
            delimiter,
            window: Vec::new(),
            told: 0,
            searched: 0,
            state: State::Preamble { begun: false },
            parts: 0,
            ended: false,
        }
    }

    /// Takes the next bytes of the form. [`Form::next`] is to be asked then until it wants more.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.window.drain(..self.told);
        self.told = 0;
        self.window.extend_from_slice(bytes);
    }

    /// There are no more bytes.
    pub(crate) fn finish(&mut self) {
        self.ended = true;
    }

    /// What comes next.
    ///
    /// # Errors
    /// If this is no form. An error is final.
    pub(crate) fn next(&mut self) -> Result<Event<'_>, FormError> {
        match self.state {
            State::Preamble { begun } => self.preamble(begun),
            State::Delimiter { ends_part: true } => {
                self.state = State::Delimiter { ends_part: false };
                Ok(Event::PartEnd)
            }
            State::Delimiter { ends_part: false } => self.delimiter(),
            State::Head => self.head(),
            State::Content => self.content(),
            State::Epilogue => self.epilogue(),
        }
    }

    fn preamble(&mut self, begun: bool) -> Result<Event<'_>, FormError> {
        let line_begins = !begun;
        match self.search(line_begins)? {
            Found::Delimiter(0) => {
                self.enter(State::Delimiter { ends_part: false });
                self.delimiter()
            }
            Found::Delimiter(length) => {
                self.enter(State::Delimiter { ends_part: false });
                Ok(Event::Between(self.tell(length)))
            }
            Found::No(_) if self.ended => Err(FormError("the body is no form of this boundary")),
            Found::No(0) => Ok(Event::More),
            Found::No(length) => {
                self.state = State::Preamble { begun: true };
                Ok(Event::Between(self.tell(length)))
            }
        }
    }

    fn content(&mut self) -> Result<Event<'_>, FormError> {
        match self.search(false)? {
            Found::Delimiter(0) => {
                self.enter(State::Delimiter { ends_part: false });
                Ok(Event::PartEnd)
            }
            Found::Delimiter(length) => {
                self.enter(State::Delimiter { ends_part: true });
                Ok(Event::Content(self.tell(length)))
            }
            Found::No(_) if self.ended => Err(broken_off()),
            Found::No(0) => Ok(Event::More),
            Found::No(length) => Ok(Event::Content(self.tell(length))),
        }
    }

    /// The line of a delimiter, which begins the window. White space behind it, which nobody writes and RFC 2046 §5.1.1 lets
    /// readers skip, makes it a line of the content to some.
    fn delimiter(&mut self) -> Result<Event<'_>, FormError> {
        let rest = self.rest();
        // The first line of a form has none before it.
        let begins = if rest.starts_with(b"--") { 2 } else { 0 };
        let length = self.delimiter.len() - begins;
        let behind = &rest[length..];
        let is_last = match behind {
            [] | [b'-'] if !self.ended => return Ok(Event::More),
            [b'-', b'-', ..] => true,
            _ => false,
        };
        let dashes = if is_last { 2 } else { 0 };
        let line = length + dashes;
        match &rest[line..] {
            [b'\r', b'\n', ..] if is_last => {
                self.enter(State::Epilogue);
                Ok(Event::Between(self.tell(line + 2)))
            }
            [b'\r', b'\n', ..] => {
                self.parts += 1;
                if self.parts > MOST_PARTS {
                    return Err(FormError("a form has 1000 parts at the most"));
                }
                self.enter(State::Head);
                Ok(Event::Between(self.tell(line + 2)))
            }
            [] if is_last && self.ended => {
                self.enter(State::Epilogue);
                Ok(Event::Between(self.tell(line)))
            }
            [] | [b'\r'] if !self.ended => Ok(Event::More),
            [] | [b'\r'] => Err(broken_off()),
            _ => Err(FormError(
                "a line that begins with the boundary does not end behind it",
            )),
        }
    }

    fn head(&mut self) -> Result<Event<'_>, FormError> {
        let rest = self.rest();
        if rest.starts_with(b"\r\n") {
            return Err(nameless());
        }
        let from = self.searched.saturating_sub(3);
        let Some(end) = memchr::memmem::find(&rest[from..], b"\r\n\r\n") else {
            self.searched = rest.len();
            return match (self.ended, self.searched > LONGEST_HEAD) {
                (_, true) => Err(FormError("the head of a part is larger than 16 KiB")),
                (true, false) => Err(broken_off()),
                (false, false) => Ok(Event::More),
            };
        };
        let end = from + end;
        if end > LONGEST_HEAD {
            return Err(FormError("the head of a part is larger than 16 KiB"));
        }
        let part = part(&rest[..end])?;
        self.enter(State::Content);
        Ok(Event::Head(part, self.tell(end + 4)))
    }

    fn epilogue(&mut self) -> Result<Event<'_>, FormError> {
        match self.search(false)? {
            Found::Delimiter(_) => Err(FormError("the form goes on behind its end")),
            Found::No(_) if self.ended => {
                let length = self.rest().len();
                match length {
                    0 => Ok(Event::End),
                    length => Ok(Event::Between(self.tell(length))),
                }
            }
            Found::No(0) => Ok(Event::More),
            Found::No(length) => Ok(Event::Between(self.tell(length))),
        }
    }

    /// Looks for the next delimiter. A boundary anywhere else is one to some readers.
    fn search(&mut self, line_begins: bool) -> Result<Found, FormError> {
        let rest = self.rest();
        let from = self
            .searched
            .saturating_sub(self.delimiter.len())
            .min(rest.len());
        let Some(at) = self.finder.find(&rest[from..]) else {
            let length = rest.len();
            self.searched = length;
            // What is held back may be the beginning of one, and of the line end before it.
            return Ok(Found::No(length.saturating_sub(self.delimiter.len())));
        };
        let at = from + at;
        if at == 0 && line_begins {
            return Ok(Found::Delimiter(0));
        }
        match rest[..at].strip_suffix(b"\r\n") {
            Some(before) => Ok(Found::Delimiter(before.len())),
            None => Err(FormError(
                "the form's boundary stands where no line begins; choose one that its parts do not hold",
            )),
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.searched = 0;
    }

    fn rest(&self) -> &[u8] {
        &self.window[self.told..]
    }

    fn tell(&mut self, length: usize) -> &[u8] {
        let from = self.told;
        self.told += length;
        self.searched = self.searched.saturating_sub(length);
        &self.window[from..self.told]
    }
}

enum Found {
    /// Behind so many bytes.
    Delimiter(usize),
    /// None in the window; so many bytes of it are surely before the next.
    No(usize),
}

/// A part of a form in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) part: Part,
    /// What it holds; nothing if it is a file that has a name.
    pub(crate) value: Vec<u8>,
}

/// The parts of a form in memory.
///
/// # Errors
/// If it is none.
pub(crate) fn fields(boundary: &Boundary, body: &[u8]) -> Result<Vec<Field>, FormError> {
    let mut form = Form::new(boundary);
    let mut fields: Vec<Field> = Vec::new();
    let bites = body.chunks(BITE).map(Some).chain([None]);
    for bite in bites {
        match bite {
            Some(bite) => form.push(bite),
            None => form.finish(),
        }
        loop {
            match form.next()? {
                Event::Head(part, _) => {
                    let value = Vec::new();
                    fields.push(Field { part, value });
                }
                Event::Content(bytes) => {
                    let field = fields.last_mut().filter(|field| !field.is_file());
                    if let Some(field) = field {
                        field.value.extend_from_slice(bytes);
                    }
                }
                Event::Between(_) | Event::PartEnd => {}
                Event::More | Event::End => break,
            }
        }
    }
    Ok(fields)
}

impl Field {
    /// Whether it is a file that has a name. A file without one is to some readers a field like any other.
    pub(crate) fn is_file(&self) -> bool {
        self.part
            .filename
            .as_ref()
            .is_some_and(|name| !name.is_empty())
    }
}

/// Reads the head of a part, without its empty line.
fn part(head: &[u8]) -> Result<Part, FormError> {
    let (mut disposition, mut content_type) = (None, None);
    for line in lines(head) {
        let line = line?;
        let Some(colon) = memchr::memchr(b':', line) else {
            return Err(FormError("a line in the head of a part has no colon"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || token_len(name) < name.len() {
            return Err(FormError("a line in the head of a part has no proper name"));
        }
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        if is(b"content-disposition") && disposition.replace(value).is_some() {
            return Err(FormError("a part has two lines of Content-Disposition"));
        }
        if is(b"content-type") && content_type.replace(value).is_some() {
            return Err(FormError("a part has two lines of Content-Type"));
        }
        let is_plain = |value: &[u8]| {
            let known: [&[u8]; 3] = [b"binary", b"8bit", b"7bit"];
            known.iter().any(|it| value.eq_ignore_ascii_case(it))
        };
        if is(b"content-transfer-encoding") && !is_plain(value) {
            return Err(FormError(
                "a part of a form must not have a Content-Transfer-Encoding (RFC 7578 §4.7)",
            ));
        }
    }
    let content_type = content_type.unwrap_or_default();
    let (kind, _) = split_at_semicolon(content_type);
    if kind.to_ascii_lowercase().starts_with(b"multipart") {
        return Err(FormError(
            "a part of a form is itself made of parts (RFC 7578 §4.3: each file has one of its own)",
        ));
    }
    let mut part = described(disposition.ok_or_else(nameless)?)?;
    part.content_type = content_type.to_vec();
    Ok(part)
}

/// The lines of a head. Nothing but `\r\n` ends one, and none goes on in the next.
fn lines(head: &[u8]) -> impl Iterator<Item = Result<&[u8], FormError>> {
    let mut rest = Some(head);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr::memmem::find(text, b"\r\n");
        let line = &text[..end.unwrap_or(text.len())];
        rest = end.map(|end| &text[end + 2..]);
        if line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return Some(Err(FormError(
                "a line in the head of a part ends with something else than CR LF",
            )));
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Some(Err(FormError("a line in the head of a part is folded")));
        }
        Some(Ok(line))
    })
}

/// Reads the value of a Content-Disposition.
fn described(value: &[u8]) -> Result<Part, FormError> {
    let (kind, rest) = split_at_semicolon(value);
    if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err(FormError(
            "the Content-Disposition of a part is not form-data",
        ));
    }
    let (mut name, mut filename, mut extended) = (None, None, None);
    for parameter in Parameters(rest) {
        let parameter = parameter?;
        let is = |wanted: &[u8]| parameter.name.eq_ignore_ascii_case(wanted);
        let place = if is(b"name") {
            &mut name
        } else if is(b"filename") {
            &mut filename
        } else if is(b"filename*") {
            &mut extended
        } else if OF_FILES.into_iter().any(is) && hides_nothing(&parameter.value) {
            continue;
        } else {
            return Err(FormError(
                "a part's Content-Disposition has another parameter than `name`, `filename` and `filename*`",
            ));
        };
        if place.replace(parameter).is_some() {
            return Err(FormError("a part's name or filename stands twice"));
        }
    }
    let name = name.ok_or_else(nameless)?;
    // Some drop a backslash, some look for the last `; name=`, and some decode `=?utf-8?q?a?=`.
    let means_more = |b: &u8| matches!(b, b'\\' | b';' | b'=');
    if name.written.iter().any(means_more) {
        return Err(FormError(
            "a part's name has a backslash, a semicolon or a `=` in it",
        ));
    }
    let filename = match (extended, filename) {
        (Some(extended), _) => Some(extended_value(extended.written)?),
        (None, Some(plain)) => Some(text(&plain.value)),
        (None, None) => None,
    };
    Ok(Part {
        name: text(&name.value),
        filename,
        content_type: Vec::new(),
        written_name: name.written.to_vec(),
    })
}

/// Whether nobody finds another parameter in a value.
fn hides_nothing(value: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b" ,:+-".contains(b);
    value.iter().all(fits)
}

/// Whether a Content-Type leaves a text in UTF-8. Some find `charset` anywhere in it, so it says nothing else, but the
/// boundary of a form.
pub(crate) fn is_in_utf8(content_type: &[u8]) -> bool {
    let known: [&[u8]; 3] = [b"utf-8", b"utf8", b"us-ascii"];
    let (_, rest) = split_at_semicolon(content_type);
    Parameters(rest).all(|parameter| {
        let Ok(Parameter { name, value, .. }) = parameter else {
            return false;
        };
        name.eq_ignore_ascii_case(b"boundary") && is_boundary(&value)
            || name.eq_ignore_ascii_case(b"charset")
                && known.iter().any(|it| value.eq_ignore_ascii_case(it))
    })
}

/// What a name or a value of `application/x-www-form-urlencoded` stands for: `+` is a space there.
pub(crate) fn url_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_encoding::percent_decode(text).into();
    }
    let spaced = text.iter().map(|b| if *b == b'+' { b' ' } else { *b });
    let spaced: Vec<u8> = spaced.collect();
    Cow::Owned(percent_encoding::percent_decode(&spaced).collect())
}

/// A parameter behind a value.
struct Parameter<'v> {
    name: &'v [u8],
    /// Without quotes and backslashes.
    value: Cow<'v, [u8]>,
    written: &'v [u8],
}

/// The parameters in what follows the first semicolon of a value.
struct Parameters<'v>(&'v [u8]);

impl<'v> Iterator for Parameters<'v> {
    type Item = Result<Parameter<'v>, FormError>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_ascii_start();
        if text.is_empty() {
            return None;
        }
        let parameter = Parameter::split(text);
        Some(parameter.map(|(parameter, rest)| {
            self.0 = rest;
            parameter
        }))
    }
}

impl<'v> Parameter<'v> {
    /// The parameter that `text` begins with, and what is behind its semicolon.
    fn split(text: &'v [u8]) -> Result<(Self, &'v [u8]), FormError> {
        let malformed = FormError("a parameter is not written as name=value or name=\"value\"");
        let equals = memchr::memchr(b'=', text).ok_or(malformed)?;
        let (name, behind) = (&text[..equals], &text[equals + 1..]);
        if name.is_empty() || token_len(name) < name.len() {
            return Err(malformed);
        }
        let (value, length) = match behind.strip_prefix(b"\"") {
            Some(quoted) => {
                let (value, length) = unquoted(quoted).ok_or(malformed)?;
                (value, length + 1)
            }
            None => {
                let (value, _) = split_at_semicolon(behind);
                let value = value.trim_ascii_end();
                if value.is_empty() {
                    return Err(malformed);
                }
                // Some read as far as the token goes, some as far as the semicolon.
                if token_len(value) < value.len() {
                    return Err(FormError(
                        "a parameter's value that is no token must stand in quotes",
                    ));
                }
                (Cow::Borrowed(value), value.len())
            }
        };
        let (written, rest) = behind.split_at(length);
        let rest = rest.trim_ascii_start();
        let rest = match rest.split_first() {
            None => rest,
            Some((b';', rest)) => rest,
            Some(_) => return Err(malformed),
        };
        let parameter = Self {
            name,
            value,
            written,
        };
        Ok((parameter, rest))
    }
}

/// A text up to its closing quote, and its length with that. `\"` and `\\` stand for the second; any other backslash is
/// one, as in the paths that old browsers send.
fn unquoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, usize)> {
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (b'"', _) => return Some((Cow::Owned(value), at + 1)),
            (b'\\', Some(escaped @ (b'"' | b'\\'))) => {
                value.push(*escaped);
                at += 2;
            }
            (byte, _) => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

/// What stands before the first semicolon, and what behind it.
fn split_at_semicolon(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b';', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}

/// A name as text. Browsers write the three characters that would end it as `%22`, `%0D` and `%0A` (HTML, "multipart/form-data
/// encoding algorithm"), and a percent sign as itself.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains('%') {
        return text.into_owned();
    }
    text.replace("%22", "\"")
        .replace("%0D", "\r")
        .replace("%0A", "\n")
}

/// A value that names its charset (RFC 8187): `UTF-8''%e7%8c%ab.jpg`. It never stands in quotes, in which it could hold a
/// `name=` for those who do not know it.
fn extended_value(value: &[u8]) -> Result<String, FormError> {
    let mut pieces = value.splitn(3, |b| *b == b'\'');
    let (Some(charset), Some(_language), Some(encoded), false) = (
        pieces.next(),
        pieces.next(),
        pieces.next(),
        value.starts_with(b"\""),
    ) else {
        return Err(FormError(
            "a `filename*` is not written as charset'language'value (RFC 8187)",
        ));
    };
    let bytes: Cow<'_, [u8]> = percent_encoding::percent_decode(encoded).into();
    Ok(if charset.eq_ignore_ascii_case(b"iso-8859-1") {
        bytes.iter().copied().map(char::from).collect()
    } else {
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn broken_off() -> FormError {
    FormError("the form ends before its last boundary")
}

fn nameless() -> FormError {
    FormError("a part of the form has no name in its Content-Disposition")
}

#[cfg(test)]
mod tests;
