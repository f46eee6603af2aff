//! Answers whose body the app leaves to us: it names a medium in `X-WX-Media-Id`, as nginx knows `X-Accel-Redirect`.
//!
//! Status and header fields are the app's, as a client is to see them; what describes the body is not, for the body is
//! another one. What the app has sent as a body is dropped.

use std::time::Duration;

use super::{Exchange, Forward, headers, invalid};
use crate::domain::MediaId;
use crate::error::Error;
use crate::wire::{Field, Name, Reader, ResponseHead, UpstreamConnection};

/// How much of the app's own body is read and dropped, so that the connection can live on, and for how long.
const WORTH_DISCARDING: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a connection that cannot live on is kept for the app to read what it was sent, and how much of its answer is dropped.
const LINGER: Duration = Duration::from_secs(5);
const MOST_OF_AN_ANSWER: usize = 64 * 1024 * 1024;

/// What describes a body, besides its length and framing: of the medium the medium says it.
const OF_THE_BODY: &[&[u8]] = &[
    b"accept-ranges",
    b"content-digest",
    b"content-encoding",
    b"content-md5",
    b"content-range",
    b"digest",
    b"etag",
    b"last-modified",
    b"repr-digest",
];

/// An app's answer without a body.
pub(crate) struct Handed {
    pub(crate) media_id: MediaId,
    pub(crate) status: u16,
    /// What the client is told besides: the app's field lines, less those of its body and ours, and what is added to them.
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Handed {
    /// Whether the client is told something by this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let is_it = |(known, _): &(Vec<u8>, _)| known.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().any(is_it)
    }
}

/// What the app leaves to us, if it does. An answer that never has a body is its own.
pub(super) fn handed(
    forward: &Forward<'_>,
    head: &ResponseHead,
) -> Result<Option<Box<Handed>>, Error> {
    let is_ours = forward.takes_media && head.fields.has(Name::XWxMediaId);
    if !is_ours || matches!(head.status, 204 | 205 | 304) {
        return Ok(None);
    }
    let media_id = head.fields.only(Name::XWxMediaId).ok().flatten();
    let media_id = media_id
        .and_then(|id| std::str::from_utf8(id).ok())
        .and_then(|id| MediaId::parse(id).ok())
        .ok_or_else(|| {
            let detail = (
                "the app's X-WX-Media-Id is not one media_id",
                "后端应用的 X-WX-Media-Id 不是一个 media_id",
            );
            invalid(detail).with_hint((
                "it is what WeChat called the file when it was uploaded, and nothing else",
                "它应当是上传文件时微信返回的 media_id，不含其他内容",
            ))
        })?;
    let keep = headers::answer_filter(head, !headers::added(forward, head).is_empty());
    let app = head.fields.iter().filter(|field| keep(field));
    let app = app.filter(|field| !is_of_the_body(field));
    let app = app.map(|field| (field.name.to_vec(), field.value.to_vec()));
    let added = headers::added(forward, head).iter();
    let added = added.map(|(name, value)| (name.as_bytes().to_vec(), value.clone().into_bytes()));
    Ok(Some(Box::new(Handed {
        media_id,
        status: head.status,
        fields: app.chain(added).collect(),
    })))
}

fn is_of_the_body(field: &Field<'_>) -> bool {
    field.known == Name::ContentType
        || OF_THE_BODY
            .iter()
            .any(|name| field.name.eq_ignore_ascii_case(name))
}

/// Reads and drops the app's own body; says whether its end was reached.
pub(super) async fn drop_body(body: &mut Reader<'_>) -> bool {
    while !body.is_done() {
        match body.ready().await {
            Ok(count) => body.consume(count),
            Err(_) => return false,
        }
    }
    true
}

/// Leaves the app to read what it was sent, for a while. The client need not wait for that.
pub(super) fn part(mut connection: UpstreamConnection) {
    tokio::task::spawn_local(async move {
        let lingering = connection.linger(MOST_OF_AN_ANSWER);
        // An error means that it is over either way.
        let _over = tokio::time::timeout(LINGER, lingering).await;
    });
}

impl Exchange<'_> {
    /// Reads and drops the app's own body if it is small and comes at once; says whether its end was reached.
    pub(super) async fn discard(&self, body: &mut Reader<'_>) -> bool {
        let discarding = async {
            let mut left = WORTH_DISCARDING;
            while !body.is_done() {
                match body.ready().await {
                    Ok(count) if count <= left => {
                        left -= count;
                        body.consume(count);
                    }
                    _ => return false,
                }
            }
            true
        };
        let discarded = self.timers.within(PATIENCE, discarding).await;
        discarded.unwrap_or(false)
    }
}
