//! Files on their way to WeChat: posted to us, or standing in a form for the app.
//!
//! A form is received as a whole, and each of its files looked at, before the first goes to WeChat: whoever breaks off, or
//! has a file that cannot be taken, leaves nothing there. What of a form is no file is held in memory, the files are not.

use std::cell::{Cell, RefCell};

use serde_json::{Value, json};

use super::downloads::parameter;
use super::text_check::Checking;
use super::written::is_of_a_field;
use super::{Exchange, bad_request, with_tokens};
use crate::answer::Answer;
use crate::content_check::Passed;
use crate::domain::OpenId;
use crate::error::{Error, Kind, Sentence};
use crate::gateway::Uploaded;
use crate::media::{Incoming, Media, Received, Uploads};
use crate::path::CanonicalPath;
use crate::proxy;
use crate::resilience::Buffered;
use crate::wechat::media::{Kind as MediaKind, LIFE};
use crate::wire::form::{Boundary, Event, Form, FormError, Part};
use crate::wire::{Framing, Name, Reader, Responder};

/// How many files a form may have.
const MOST_FILES: usize = 20;
/// How much of a form for us may be no file.
const MOST_BESIDES: u64 = 1024 * 1024;
/// The longest name of a kind that is looked at.
const LONGEST_TYPE: usize = 32;

/// A form that is coming in, without its bytes.
struct Intake<'a> {
    uploads: &'a Uploads,
    part: Place,
    files: Vec<(Part, Incoming)>,
    besides: Besides,
}

/// Where in a form one is.
enum Place {
    /// Between two parts, or in one that is no file.
    Besides,
    /// In the field that says what the files are.
    Type(Vec<u8>),
    /// In a part that says of itself that it is text, which begins here in what is kept.
    Text(usize),
    /// In a file of which nothing but the head has come.
    Head(Part, Vec<u8>),
    /// In the last of the files.
    File,
}

/// What of a form is no file.
enum Besides {
    /// Of a form for us: how much that is, and what its files are said to be.
    Own { bytes: u64, kind: Option<MediaKind> },
    /// Of a form for the app: all of it, and where in it media_ids belong.
    Kept { bytes: Buffered, gaps: Vec<usize> },
}

/// A file that WeChat has.
pub(super) struct Sent {
    uploaded: Uploaded,
    /// Where it can be had, without a token.
    url: String,
    /// What WeChat's judgement of it will come with, if it was asked for one.
    trace_id: Option<String>,
}

/// What the app is told of the files in its form: how many, and with which trace_id the judgement of which will come.
pub(super) fn tell_app(sent: &[Sent], told: &mut Vec<(&'static str, String)>) {
    told.push(("X-WX-Media", sent.len().to_string()));
    let traced = sent.iter().filter_map(|file| {
        let trace_id = file.trace_id.as_ref()?;
        Some(format!("{}={trace_id}", file.uploaded.media_id.as_str()))
    });
    let traces = Vec::from_iter(traced).join(", ");
    if !traces.is_empty() {
        told.push(("X-WX-Media-Trace", traces));
    }
}

impl Exchange<'_> {
    /// `POST /wx/media`
    pub(super) async fn media_upload(
        &self,
        path: &CanonicalPath<'_>,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<Answer, Error> {
        let media = self.media()?;
        let uploads = &media.uploads;
        let form = match self.own_form(path, uploads) {
            // A code works once, so none is spent on what cannot be.
            Err(error) if self.only(Name::XWxCode)?.is_some() => return Err(error),
            form => form,
        };
        let (claims, grant) = self.required_user().await?;
        let (boundary, kind, limit) = form?;
        let mut intake = self.intake(uploads, Besides::Own { bytes: 0, kind });
        let received = self.receive(&boundary, limit, too_large, &mut intake, body, responder);
        received.await?;
        let (fields, files, _) = intake.into_files()?;
        if files.is_empty() {
            let hint = (
                "send it as wx.uploadFile does, in a part with a filename",
                "请像 wx.uploadFile 那样发送，文件所在的部分须有 filename",
            );
            return Err(bad_request(("the form has no file", "表单中没有文件")).with_hint(hint));
        }
        let sending = self.send(media, &files, Some(&claims.user.openid));
        let sent = self.timings.wechat(sending).await?;
        let media = files.iter().zip(&sent);
        let mut media: Vec<Value> = media.map(|(file, sent)| described(file, sent)).collect();
        let told = match &mut media[..] {
            [only] => only.take(),
            several => {
                for (medium, field) in several.iter_mut().zip(fields) {
                    medium["field"] = json!(field);
                }
                json!({ "media": media })
            }
        };
        Ok(with_tokens(Answer::json(200, &told), grant))
    }

    /// The form for the app with media_ids in the place of its files, and what those files have become. Its texts are judged
    /// before a file goes anywhere, if they are to be.
    pub(super) async fn with_media_ids(
        &self,
        boundary: &Boundary,
        limit: u64,
        user: Option<&OpenId>,
        checking: Option<&Checking<'_>>,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(Buffered, Vec<Sent>, Option<Passed>), Error> {
        if let Some(checking) = checking {
            checking.is_possible()?;
        }
        let media = self.media()?;
        let uploads = &media.uploads;
        let besides = Besides::Kept {
            bytes: self.buffer(),
            gaps: Vec::new(),
        };
        let mut intake = self.intake(uploads, besides);
        let beyond = proxy::too_large;
        let received = self.receive(boundary, limit, beyond, &mut intake, body, responder);
        received.await?;
        let (_, files, besides) = intake.into_files()?;
        let Besides::Kept { bytes, gaps } = besides else {
            unreachable!("it was made as that");
        };
        let passed = match checking {
            Some(checking) => Some(self.check_form(checking, boundary, &bytes).await?),
            None => None,
        };
        let sent = self.timings.wechat(self.send(media, &files, user)).await?;
        let mut rewritten = self.buffer();
        let mut from = 0;
        for (gap, sent) in gaps.into_iter().zip(&sent) {
            let id = sent.uploaded.media_id.as_str();
            for piece in [&bytes[from..gap], id.as_bytes()] {
                rewritten.push(piece)?;
            }
            from = gap;
        }
        rewritten.push(&bytes[from..])?;
        Ok((rewritten, sent, passed))
    }

    /// Sends files to WeChat, three at once, and has those judged that are a user's; what became of them, in order.
    async fn send(
        &self,
        media: &Media,
        files: &[Received],
        user: Option<&OpenId>,
    ) -> Result<Vec<Sent>, Error> {
        let next = Cell::new(0);
        let done = RefCell::new(Vec::from_iter(files.iter().map(|_| None)));
        let lane = async || {
            while let Some(file) = files.get(next.get()) {
                let place = next.replace(next.get() + 1);
                let uploaded = media.uploads.send(file).await?;
                let url = media.urls.url(&uploaded.media_id, None, self.now).url;
                let trace_id = match user {
                    Some(user) => {
                        self.check_media(user, &uploaded.media_id, uploaded.kind, &url)
                            .await
                    }
                    None => None,
                };
                done.borrow_mut()[place] = Some(Sent {
                    uploaded,
                    url,
                    trace_id,
                });
            }
            Ok::<_, Error>(())
        };
        tokio::try_join!(lane(), lane(), lane())?;
        Ok(done.into_inner().into_iter().flatten().collect())
    }

    /// What is known of a form for us before any of it has come: its boundary, what its files are said to be, and how
    /// large it may be.
    fn own_form(
        &self,
        path: &CanonicalPath<'_>,
        uploads: &Uploads,
    ) -> Result<(Boundary, Option<MediaKind>, u64), Error> {
        let written = self.written()?;
        let boundary = written.boundary()?.cloned().ok_or_else(|| {
            let detail = (
                "files are taken in a form (multipart/form-data)",
                "文件须放在表单（multipart/form-data）中",
            );
            Error::downstream(Kind::UnsupportedMediaType, detail).with_hint((
                "send them as wx.uploadFile does",
                "请像 wx.uploadFile 那样发送",
            ))
        })?;
        let kind = parameter(path.query().unwrap_or_default(), "type")?;
        let kind = kind.map(|name| kind_of(name.as_bytes())).transpose()?;
        let limit = uploads.most(kind) * MOST_FILES as u64 + MOST_BESIDES;
        match self.head.framing {
            Framing::Length(length) if length > limit => Err(too_large(limit)),
            _ => Ok((boundary, kind, limit)),
        }
    }

    fn intake<'u>(&'u self, uploads: &'u Uploads, besides: Besides) -> Intake<'u> {
        Intake {
            uploads,
            part: Place::Besides,
            files: Vec::new(),
            besides,
        }
    }

    fn buffer(&self) -> Buffered {
        let budget = self.snapshot.config.inbound.buffer_limit;
        self.snapshot.shared.buffers.body(budget)
    }

    /// Receives a form to its end.
    async fn receive(
        &self,
        boundary: &Boundary,
        limit: u64,
        beyond: fn(u64) -> Error,
        intake: &mut Intake<'_>,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        if self.head.expects_continue {
            self.send_within(responder.go_on()).await?;
        }
        let mut form = Form::new(boundary);
        let mut pace = proxy::Pace::new(self.snapshot.config.inbound.idle_timeout);
        let mut received = 0;
        loop {
            let count = self.more(received, &mut pace, body).await?;
            received += count as u64;
            if received > limit {
                return Err(beyond(limit));
            }
            match count {
                0 => form.finish(),
                count => {
                    form.push(&body.chunk()[..count]);
                    body.consume(count);
                }
            }
            loop {
                match form.next().map_err(malformed)? {
                    Event::More => break,
                    Event::End => return Ok(()),
                    event => intake.take(event).await?,
                }
            }
        }
    }
}

impl Intake<'_> {
    async fn take(&mut self, event: Event<'_>) -> Result<(), Error> {
        match event {
            Event::Between(bytes) => self.besides.keep(bytes),
            Event::Head(part, bytes) if part.filename.is_some() => {
                self.part = Place::Head(part, bytes.to_vec());
                Ok(())
            }
            Event::Head(part, bytes) => {
                self.besides.keep(bytes)?;
                self.part = match &self.besides {
                    Besides::Own { .. } if part.name == "type" => Place::Type(Vec::new()),
                    Besides::Kept { bytes, .. } if !part.content_type.is_empty() => {
                        if !is_of_a_field(&part.content_type) {
                            return Err(file_without_name());
                        }
                        Place::Text(bytes.len())
                    }
                    _ => Place::Besides,
                };
                Ok(())
            }
            Event::Content(bytes) => {
                self.begin_file()?;
                match &mut self.part {
                    Place::File => match self.files.last_mut() {
                        Some((_, file)) => file.push(bytes).await,
                        None => unreachable!("a file that was begun is the last"),
                    },
                    Place::Type(text) => {
                        let room = LONGEST_TYPE.saturating_sub(text.len());
                        text.extend_from_slice(&bytes[..room.min(bytes.len())]);
                        self.besides.keep(bytes)
                    }
                    Place::Besides | Place::Text(_) | Place::Head(..) => self.besides.keep(bytes),
                }
            }
            Event::PartEnd => self.end_part(),
            Event::More | Event::End => Ok(()),
        }
    }

    /// Has a part be a file, if it is one and that has not been done.
    fn begin_file(&mut self) -> Result<(), Error> {
        let Place::Head(part, _) = &mut self.part else {
            return Ok(());
        };
        if self.files.len() == MOST_FILES {
            let detail = (
                format!("a form has {MOST_FILES} files at the most"),
                format!("一个表单最多 {MOST_FILES} 个文件"),
            );
            return Err(bad_request(detail));
        }
        let wanted = match &mut self.besides {
            Besides::Own { kind, .. } => *kind,
            Besides::Kept { bytes, gaps } => {
                bytes.push(&part.plain_head())?;
                gaps.push(bytes.len());
                None
            }
        };
        let filename = part.filename.take().unwrap_or_default();
        let number = self.files.len() + 1;
        let file = self.uploads.receive(number, filename, wanted);
        if let Place::Head(part, _) = std::mem::replace(&mut self.part, Place::File) {
            self.files.push((part, file));
        }
        Ok(())
    }

    fn end_part(&mut self) -> Result<(), Error> {
        if matches!(&self.part, Place::Head(part, _) if part.filename.as_deref() != Some("")) {
            self.begin_file()?;
        }
        match std::mem::replace(&mut self.part, Place::Besides) {
            Place::File => match self.files.last_mut() {
                Some((_, file)) => file.end(),
                None => Ok(()),
            },
            Place::Type(text) => self.besides.set_kind(&text),
            Place::Text(from) => self.besides.is_text(from),
            // Where a page has a field for a file and nobody chose one.
            Place::Head(_, bytes) => self.besides.keep(&bytes),
            Place::Besides => Ok(()),
        }
    }

    /// The names of the fields that had files, these, and the rest.
    fn into_files(self) -> Result<(Vec<String>, Vec<Received>, Besides), Error> {
        let kind = match &self.besides {
            Besides::Own { kind, .. } => *kind,
            Besides::Kept { .. } => None,
        };
        let mut fields = Vec::new();
        let mut files = Vec::new();
        for (part, file) in self.files {
            fields.push(part.name);
            files.push(file.finish(kind)?);
        }
        Ok((fields, files, self.besides))
    }
}

impl Besides {
    fn keep(&mut self, piece: &[u8]) -> Result<(), Error> {
        match self {
            Self::Own { bytes, .. } => {
                *bytes += piece.len() as u64;
                if *bytes > MOST_BESIDES {
                    let detail = (
                        format!("the form has more than {MOST_BESIDES} bytes besides its files"),
                        format!("表单中文件以外的内容超过 {MOST_BESIDES} 字节"),
                    );
                    return Err(Error::downstream(Kind::BodyTooLarge, detail));
                }
                Ok(())
            }
            Self::Kept { bytes, .. } => Ok(bytes.push(piece)?),
        }
    }

    /// A part with a Content-Type is a file to some apps, so it must be what it says.
    fn is_text(&self, from: usize) -> Result<(), Error> {
        match self {
            Self::Kept { bytes, .. } if str::from_utf8(&bytes[from..]).is_err() => {
                Err(file_without_name())
            }
            _ => Ok(()),
        }
    }

    fn set_kind(&mut self, text: &[u8]) -> Result<(), Error> {
        let Self::Own { kind, .. } = self else {
            return Ok(());
        };
        let said = kind_of(text)?;
        if kind.replace(said).is_some_and(|before| before != said) {
            return Err(bad_request((
                "`type` says two different things",
                "`type` 有两个不同的值",
            )));
        }
        Ok(())
    }
}

fn described(file: &Received, sent: &Sent) -> Value {
    let uploaded = &sent.uploaded;
    let mut told = json!({
        "type": uploaded.kind.name(),
        "media_id": uploaded.media_id.as_str(),
        "created_at": uploaded.created_at,
        "expires_at": uploaded.created_at.saturating_add(LIFE.as_secs()),
        "filename": file.filename,
        "url": sent.url,
    });
    if let Some(trace_id) = &sent.trace_id {
        told["trace_id"] = json!(trace_id);
    }
    told
}

fn kind_of(text: &[u8]) -> Result<MediaKind, Error> {
    let name = std::str::from_utf8(text).ok();
    name.and_then(MediaKind::of).ok_or_else(|| {
        bad_request((
            "`type` must be image, voice, video or thumb",
            "`type` 须为 image、voice、video 或 thumb",
        ))
    })
}

pub(super) fn malformed(why: FormError) -> Error {
    let hint = (
        "a form is written as wx.uploadFile, browsers and `curl -F` write it (RFC 7578)",
        "表单的写法须与 wx.uploadFile、浏览器和 `curl -F` 相同（RFC 7578）",
    );
    bad_request(Sentence::english(why.0)).with_hint(hint)
}

/// Busboy and formidable make a file of a part that has a Content-Type, though it has no filename.
fn file_without_name() -> Error {
    let detail = (
        "a part of the form has no filename, and is neither text/plain nor JSON in UTF-8; some apps would take it for a file",
        "表单中有一部分没有 filename，又不是 UTF-8 的 text/plain 或 JSON；有些后端应用会把它当作文件",
    );
    Error::downstream(Kind::UnsupportedMediaType, detail).with_hint((
        "give it a filename if it is a file, and leave out its Content-Type if it is not",
        "若是文件，请加上 filename；若不是，请去掉它的 Content-Type",
    ))
}

/// A form for us that is larger than any that could be good.
fn too_large(limit: u64) -> Error {
    let detail = (
        format!(
            "the form is larger than {limit} bytes, which is more than {MOST_FILES} files may have"
        ),
        format!("表单超过 {limit} 字节，即 {MOST_FILES} 个文件的上限"),
    );
    Error::downstream(Kind::BodyTooLarge, detail).with_hint((
        "the limits of files stand below [media.max_size] in sidecar.toml",
        "文件大小的上限在 sidecar.toml 的 [media.max_size] 中设定",
    ))
}
