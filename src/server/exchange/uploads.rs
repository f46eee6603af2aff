//! Files on their way to WeChat: posted to us, or standing in a form for the app.

use super::Exchange;
use crate::answer::Answer;
use crate::error::{Error, Kind};
use crate::wire::{Reader, Responder};

impl Exchange<'_> {
    /// `POST /wx/media`
    pub(super) async fn media_upload(
        &self,
        _body: &mut Reader<'_>,
        _responder: &mut Responder<'_>,
    ) -> Result<Answer, Error> {
        self.media()?;
        Err(Error::downstream(Kind::NotImplemented, "not yet"))
    }
}
