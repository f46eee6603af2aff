//! Media on their way to a client: asked for by their media_id, or put by the app in the place of its answer's body.
//!
//! A medium is sent as it comes, a piece at a time, and each piece has a timeout of its own: a slow reader is no dead one.
//! What is in a file the kernel sends, where the socket lets it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Caller, Exchange, bad_request, with_tokens};
use crate::answer::{Answer, reason};
use crate::config::Auth;
use crate::domain::MediaId;
use crate::error::{Error, Kind, Side};
use crate::files;
use crate::media::{self, Asked, Chunk, Manner, Media, Medium, Plan, Repeated, Signature};
use crate::path::CanonicalPath;
use crate::proxy::{self, Handed};
use crate::wire::{Method, Reader, Responder};

/// How much is sent at a time of what goes through the process.
const PIECE: usize = 64 * 1024;
/// How much of a file the kernel is given at a time: it has to be in memory then.
const FILE_PIECE: u64 = 512 * 1024;
/// Pieces of files up to this size are copied: one write with the head is less work than two system calls.
const COPIED: u64 = 16 * 1024;

/// The head of an answer with a medium.
struct Head<'a> {
    status: u16,
    plan: &'a Plan,
    lines: Vec<(&'a [u8], &'a [u8])>,
}

pub(in crate::server) fn no_media() -> Error {
    let detail = ("no media are dealt with here", "此处不处理媒体文件");
    Error::downstream(Kind::NotFound, detail).with_hint((
        "[media] enabled is false in sidecar.toml",
        "sidecar.toml 中 [media] enabled 为 false",
    ))
}

impl Exchange<'_> {
    /// `GET /wx/media/{media_id}`
    pub(super) async fn media_download(
        &self,
        path: &CanonicalPath<'_>,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        let media = self.media()?;
        let id = self.media_id(path)?;
        let query = path.query().unwrap_or_default();
        let filename = parameter(query, "filename")?;
        let (caller, url_life) = self.admit_reader(media, &id, query).await?;
        let opening = self.timings.wechat(media.downloads.open(&id));
        let medium = proxy::unless_gone(responder, opening).await??;
        let plan = Asked::of(self.head).plan(&medium.facts)?;
        let manner = Manner {
            filename: filename.as_deref(),
            url_life,
            by_app: false,
        };
        let tokens = caller.grant.map_or_else(Vec::new, |grant| grant.lines);
        let has = |name: &str| tokens.iter().any(|(known, _)| *known == name);
        let ours = plan.describe(&medium.facts).into_iter();
        let advice = plan.advise(&medium.facts, manner).into_iter();
        // What comes with tokens is for no cache.
        let ours: Vec<_> = ours.chain(advice).filter(|(name, _)| !has(name)).collect();
        let lines = ours.iter().chain(&tokens);
        let head = Head {
            status: plan.status(),
            plan: &plan,
            lines: lines
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect(),
        };
        self.send_medium(&head, &medium, body, responder).await
    }

    /// Sends what the app leaves to us of its answer. Only a whole answer can be had in part.
    pub(super) async fn send_handed(
        &self,
        handed: &Handed,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        let media = self.media()?;
        let opening = media.downloads.open(&handed.media_id);
        let opening = self.timings.wechat(opening);
        let medium = proxy::unless_gone(responder, opening).await??;
        let (status, plan) = match handed.status {
            // Which part it would be, the app cannot know.
            200 | 206 => {
                let plan = Asked::of(self.head).plan(&medium.facts)?;
                (plan.status(), plan)
            }
            status => (status, Plan::Whole),
        };
        let manner = Manner {
            by_app: true,
            ..Manner::default()
        };
        let ours = plan.describe(&medium.facts).into_iter();
        let advice = plan.advise(&medium.facts, manner).into_iter();
        let advice = advice.filter(|(name, _)| !says(handed, name));
        let ours: Vec<_> = ours.chain(advice).collect();
        let theirs = handed
            .fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]));
        let ours = ours
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = Head {
            status,
            plan: &plan,
            lines: theirs.chain(ours).collect(),
        };
        self.send_medium(&head, &medium, body, responder).await
    }

    /// `GET /wx/media/{media_id}/url`
    pub(super) async fn media_url(&self, path: &CanonicalPath<'_>) -> Result<Answer, Error> {
        let media = self.media()?;
        let id = self.media_id(path)?;
        let query = path.query().unwrap_or_default();
        let bind = match parameter(query, "bind")?.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(bad_request((
                    "`bind` is `true` or `false`",
                    "`bind` 须为 `true` 或 `false`",
                )));
            }
        };
        let wanted = parameter(query, "ttl")?;
        let ttl = wanted
            .map(|text| ttl(&text, media.urls.ttl()))
            .transpose()?;
        let (claims, grant) = self.required_user().await?;
        let user = bind.then_some(&claims.user.openid);
        let signed = match ttl {
            Some(ttl) => media.urls.url_for(ttl, &id, user, self.now),
            None => media.urls.url(&id, user, self.now),
        };
        let told = json!({ "url": signed.url, "expires_at": signed.expires_at.as_secs() });
        Ok(with_tokens(Answer::json(200, &told), grant))
    }

    pub(super) fn media(&self) -> Result<&Media, Error> {
        self.snapshot.media.as_ref().ok_or_else(no_media)
    }

    fn media_id(&self, path: &CanonicalPath<'_>) -> Result<MediaId, Error> {
        let text = self.snapshot.router.media_id(path.as_bytes());
        let text = std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default();
        MediaId::parse(text).map_err(bad_request)
    }

    /// Who reads a medium, and how long its URL is still good if it was shown in place of a token. Who shows a token with a
    /// URL that is bound must be its user.
    async fn admit_reader(
        &self,
        media: &Media,
        id: &MediaId,
        query: &[u8],
    ) -> Result<(Caller, Option<Duration>), Error> {
        let Some(shown) = Signature::of_query(query)? else {
            return Ok((self.authenticate(Auth::Required).await?, None));
        };
        let pass = media.urls.verify(id, &shown, self.now)?;
        let life = Some(pass.expires_at.since(self.now));
        if !pass.is_bound() {
            return Ok((Caller::default(), life));
        }
        let caller = self.authenticate(Auth::Optional).await?;
        let user = caller.claims.as_ref().map(|claims| &claims.user.openid);
        if user.is_some_and(|user| !media.urls.is_for(&pass, user)) {
            return Err(media::another_users());
        }
        Ok((caller, life))
    }

    async fn send_medium(
        &self,
        head: &Head<'_>,
        medium: &Medium,
        body: &Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        responder.close_unless_read(self.head, body);
        let length = head.plan.length(&medium.facts);
        responder.start(head.status, reason(head.status).as_bytes(), length);
        if !head.lines.iter().any(|(name, _)| is(name, "date")) {
            let date = httpdate::fmt_http_date(std::time::SystemTime::now());
            responder.field(b"date", date.as_bytes());
        }
        for (name, value) in &head.lines {
            responder.field(name, value);
        }
        responder.field(b"x-request-id", self.request_id.as_bytes());
        responder.end_head(self.head.connection.persistent);
        let (at, end) = head.plan.bytes(&medium.facts);
        if self.head.method == Method::Head || end == Some(at) {
            return self.send_within(responder.send(b"", true)).await;
        }
        self.send_bytes(medium, at, end, responder).await
    }

    /// Sends a medium from `at` on, to `end` or as far as it goes. What has not begun when it fails is taken back, so that
    /// the failure can be told.
    async fn send_bytes(
        &self,
        medium: &Medium,
        mut at: u64,
        end: Option<u64>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        while end != Some(at) {
            let read = proxy::unless_gone(responder, medium.read(at)).await?;
            let left = end.map_or(u64::MAX, |end| end - at);
            let sent = match read {
                Ok(Chunk::Bytes(bytes)) if !bytes.is_empty() => {
                    let most = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.send_piece(&bytes[..most], end.map(|end| end - at), responder)
                        .await?;
                    most as u64
                }
                Ok(Chunk::File {
                    file,
                    at: place,
                    length,
                }) if length > 0 => {
                    let length = length.min(left).min(FILE_PIECE);
                    let last = length == left;
                    self.send_file(&file, place, length, last, responder)
                        .await?;
                    length
                }
                Ok(Chunk::End) if end.is_none() => {
                    return self.send_within(responder.send(b"", true)).await;
                }
                Ok(_) => {
                    responder.take_back();
                    return Err(cut_off((
                        "the medium is shorter than its length says",
                        "媒体文件比声明的长度短",
                    )));
                }
                Err(error) => {
                    responder.take_back();
                    return Err(error);
                }
            };
            at += sent;
        }
        Ok(())
    }

    /// Sends bytes that are in memory; with the last of what is `left` the answer ends.
    async fn send_piece(
        &self,
        bytes: &[u8],
        left: Option<u64>,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        let mut sent = 0;
        for piece in bytes.chunks(PIECE) {
            sent += piece.len() as u64;
            let last = left == Some(sent);
            self.send_within(responder.send(piece, last)).await?;
        }
        Ok(())
    }

    /// Sends `length` bytes of a file; `last` if the answer ends with them.
    async fn send_file(
        &self,
        file: &Arc<File>,
        place: u64,
        length: u64,
        last: bool,
        responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        let mut by_kernel = length > COPIED && responder.takes_files();
        if by_kernel {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let brought = files::bring(file, place, length).await;
            readable(brought, responder)?;
        }
        let mut sent = 0;
        while sent < length {
            let (at, left) = (
                place + sent,
                usize::try_from(length - sent).unwrap_or(usize::MAX),
            );
            if by_kernel {
                match self
                    .send_within(responder.send_file(file, at, left))
                    .await?
                {
                    // At its end already? The read says so.
                    Some(0) | None => by_kernel = false,
                    Some(count) => sent += count as u64,
                }
                continue;
            }
            let read = files::read_at(file, at, left.min(PIECE)).await;
            let read = read.and_then(|bytes| match bytes.is_empty() {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => Ok(bytes),
            });
            let bytes = readable(read, responder)?;
            sent += bytes.len() as u64;
            let ends = last && sent == length;
            self.send_within(responder.send(&bytes, ends)).await?;
        }
        Ok(())
    }
}

/// What was to be had from a disk. An answer of which nothing has been sent is taken back, so that the failure can be told.
fn readable<T>(read: io::Result<T>, responder: &mut Responder<'_>) -> Result<T, Error> {
    read.map_err(|cause| {
        responder.take_back();
        cut_off((
            "the medium cannot be read from the disk",
            "无法从磁盘读取媒体文件",
        ))
        .with_cause(cause)
    })
}

/// Whether the app has said what `ours` would say. How long an answer may be kept is said in more ways than one.
fn says(handed: &Handed, ours: &str) -> bool {
    match ours {
        "cache-control" => ["cache-control", "expires", "pragma"]
            .into_iter()
            .any(|name| handed.has(name)),
        // Each cache adds what it did (RFC 9211 §2).
        "cache-status" => false,
        name => handed.has(name),
    }
}

fn is(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

/// A parameter of the query that may stand there once.
pub(super) fn parameter(query: &[u8], name: &str) -> Result<Option<String>, Error> {
    media::parameter(query, name).map_err(|Repeated| {
        bad_request((
            format!("the parameter `{name}` stands there twice"),
            format!("参数 `{name}` 出现了两次"),
        ))
    })
}

/// How long a URL is to be good.
fn ttl(text: &str, longest: Duration) -> Result<Duration, Error> {
    let ttl = humantime::parse_duration(text).ok();
    let ttl = ttl.filter(|ttl| *ttl >= Duration::from_secs(1) && *ttl <= longest);
    ttl.ok_or_else(|| {
        let longest = humantime::format_duration(longest);
        bad_request((
            format!("`ttl` is a duration such as `10m`, from `1s` to `{longest}`"),
            format!("`ttl` 须为 `1s` 到 `{longest}` 之间的时长，例如 `10m`"),
        ))
    })
}

fn cut_off(detail: (&'static str, &'static str)) -> Error {
    Error::new(Kind::Internal, Side::Us, detail)
}
