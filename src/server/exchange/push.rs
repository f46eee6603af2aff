//! A message of WeChat's, on its way into the inbox.

use super::Exchange;
use crate::answer::Answer;
use crate::error::{Error, Kind, Sentence};
use crate::path::CanonicalPath;
use crate::push::{self, Brought, Bus};
use crate::wire::{Reader, Responder};

impl Exchange<'_> {
    /// `GET /wx/push`
    pub(super) fn push_handshake(&self, path: &CanonicalPath<'_>) -> Result<Answer, Error> {
        self.bus()?.handshake(query(path)?)
    }

    /// `POST /wx/push`
    pub(super) async fn push(
        &self,
        path: &CanonicalPath<'_>,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<Answer, Error> {
        let bus = self.bus()?;
        let message = self.read_all(push::BODY_LIMIT, body, responder).await?;
        let trace = self.trace.here.to_text();
        bus.take(Brought {
            query: query(path)?,
            body: &message,
            began: self.timings.began(),
            request_id: self.request_id.as_str(),
            trace: trace.as_str(),
        })
        .await
    }

    fn bus(&self) -> Result<&Bus, Error> {
        self.snapshot.bus.as_deref().ok_or_else(no_messages)
    }
}

pub(in crate::server) fn no_messages() -> Error {
    let detail = ("no messages are taken here", "此处不接收消息推送");
    Error::downstream(Kind::NotFound, detail).with_hint((
        "write [push] with token and aes_key in sidecar.toml",
        "请在 sidecar.toml 中写入 [push] 及其 token 和 aes_key",
    ))
}

fn query<'p>(path: &CanonicalPath<'p>) -> Result<&'p str, Error> {
    std::str::from_utf8(path.query().unwrap_or_default()).map_err(|_| {
        Error::downstream(
            Kind::BadRequest,
            Sentence::english("the query is not UTF-8"),
        )
    })
}
