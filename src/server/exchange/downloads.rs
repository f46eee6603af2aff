//! Media on their way to a client: asked for by their media_id, or put by the app in the place of its answer's body.

use super::Exchange;
use crate::answer::Answer;
use crate::error::{Error, Kind};
use crate::media::Media;
use crate::path::CanonicalPath;
use crate::wire::{Reader, Responder};

impl Exchange<'_> {
    /// `GET /wx/media/{media_id}`
    pub(super) async fn media_download(
        &self,
        _path: &CanonicalPath<'_>,
        _body: &mut Reader<'_>,
        _responder: &mut Responder<'_>,
    ) -> Result<(), Error> {
        self.media()?;
        Err(Error::downstream(Kind::NotImplemented, "not yet"))
    }

    /// `GET /wx/media/{media_id}/url`
    pub(super) async fn media_url(&self, _path: &CanonicalPath<'_>) -> Result<Answer, Error> {
        self.media()?;
        Err(Error::downstream(Kind::NotImplemented, "not yet"))
    }

    pub(super) fn media(&self) -> Result<&Media, Error> {
        self.snapshot.media.as_ref().ok_or_else(|| {
            Error::downstream(Kind::NotFound, "no media are dealt with here")
                .with_hint("[media] enabled is false in sidecar.toml")
        })
    }
}
