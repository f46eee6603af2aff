//! A file of a client's on its way to WeChat: looked at as it comes, kept, and sent when all of it is there.
//!
//! What WeChat would not take is refused at the first byte that shows it, so that nobody waits for the rest, and no call
//! is spent on it.

use std::sync::Arc;
use std::time::Duration;

use super::Room;
use super::kind::{self, Foreign, Format, TELLING};
use super::name;
use super::spool::{Disk, Occupied, Spool};
use crate::config::{Config, MediaSizes};
use crate::error::{Error, Kind};
use crate::gateway::{Gateway, Piece, Uploaded, Uploading};
use crate::wechat::media::Kind as MediaKind;

/// Uploads, as the configuration wants them.
pub(crate) struct Uploads {
    gateway: Arc<Gateway>,
    sizes: MediaSizes,
    disk: Disk,
    room: Room,
    patience: Duration,
}

/// A file that is coming in.
pub(crate) struct Incoming {
    spool: Spool,
    sizes: MediaSizes,
    /// Its place among the files of its form, counted from 1.
    number: usize,
    /// What the client calls it.
    filename: String,
    /// Its first bytes, until they are enough.
    start: Vec<u8>,
    format: Option<Format>,
    wanted: Option<MediaKind>,
    length: u64,
}

/// A file that is here as a whole, and that WeChat will take.
pub(crate) struct Received {
    pub(crate) kind: MediaKind,
    /// Its name at WeChat.
    pub(crate) filename: String,
    format: Format,
    content: Vec<Piece>,
    _occupied: Occupied,
}

impl Uploads {
    pub(super) fn new(config: &Config, gateway: Arc<Gateway>, room: Room) -> Self {
        Self {
            gateway,
            sizes: config.media.max_size,
            disk: Disk::new(config.media.cache_dir.as_deref()),
            room,
            patience: config.outbound.timeout,
        }
    }

    /// How large a file may be at the most.
    pub(crate) fn most(&self, kind: Option<MediaKind>) -> u64 {
        let most = |kind| kind::most(&self.sizes, kind);
        match kind {
            Some(kind) => most(kind),
            None => MediaKind::ALL.into_iter().map(most).max().unwrap_or(0),
        }
    }

    /// The `number`th file of a form, which the client calls `filename`; `wanted` is what it says to be, if it does.
    pub(crate) fn receive(
        &self,
        number: usize,
        filename: String,
        wanted: Option<MediaKind>,
    ) -> Incoming {
        Incoming {
            spool: Spool::new(&self.disk, self.room.clone()),
            sizes: self.sizes,
            number,
            filename,
            start: Vec::new(),
            format: None,
            wanted,
            length: 0,
        }
    }

    /// Sends a file to WeChat.
    pub(crate) async fn send(&self, file: &Received) -> Result<Uploaded, Error> {
        let uploading = Uploading {
            kind: file.kind,
            filename: &file.filename,
            content_type: file.format.content_type(),
            content: &file.content,
            patience: self.patience,
        };
        self.gateway.upload(&uploading).await
    }
}

impl Incoming {
    /// Takes more of it.
    ///
    /// # Errors
    /// As soon as it is none that WeChat takes, or too large.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.length += bytes.len() as u64;
        if self.format.is_none() {
            let wanted = TELLING - self.start.len();
            self.start
                .extend_from_slice(&bytes[..wanted.min(bytes.len())]);
            if self.start.len() == TELLING {
                self.look()?;
            }
        }
        self.measure()?;
        self.spool.push(bytes).await
    }

    /// That was all.
    ///
    /// # Errors
    /// If it is none that WeChat takes.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        if self.length == 0 {
            let (en, zh) = self.told();
            let detail = (format!("{en} is empty"), format!("{zh}是空的"));
            return Err(Error::downstream(Kind::BadRequest, detail));
        }
        self.look()?;
        self.measure()
    }

    /// The file, once its form has ended, which may have said behind it what it is to be.
    pub(crate) fn finish(mut self, wanted: Option<MediaKind>) -> Result<Received, Error> {
        self.wanted = self.wanted.or(wanted);
        let format = self.look()?;
        self.measure()?;
        let (content, occupied) = self.spool.into_pieces();
        Ok(Received {
            kind: self.wanted.unwrap_or(format.kind()),
            filename: name::for_wechat(&self.filename, format.extension()),
            format,
            content,
            _occupied: occupied,
        })
    }

    /// Sees what it is, and whether that is what it is said to be.
    fn look(&mut self) -> Result<Format, Error> {
        let format = match self.format {
            Some(format) => format,
            None => Format::of(&self.start).map_err(|foreign| self.refused(foreign))?,
        };
        self.format = Some(format);
        match self.wanted.filter(|kind| !format.can_be(*kind)) {
            None => Ok(format),
            Some(kind) => {
                let ((en, zh), kind) = (self.told(), kind.name());
                let (what, what_zh) = format.described();
                let detail = (
                    format!("{en} is {what}, and that cannot be `{kind}`"),
                    format!("{zh}（{what_zh}）不能作为 `{kind}`"),
                );
                let hint = (
                    "leave `type` out, or say what the file is; only a JPEG can be a thumb",
                    "请省略 `type`，或填写文件的实际类型；只有 JPEG 可以作为缩略图（thumb）",
                );
                Err(Error::downstream(Kind::UnsupportedMediaType, detail).with_hint(hint))
            }
        }
    }

    /// Refuses what is too large for what it is.
    fn measure(&self) -> Result<(), Error> {
        // What is not known yet is a few bytes.
        let Some(kind) = self.wanted.or(self.format.map(Format::kind)) else {
            return Ok(());
        };
        let limit = kind::most(&self.sizes, kind);
        if self.length <= limit {
            return Ok(());
        }
        let ((en, zh), kind) = (self.told(), kind.name());
        let detail = (
            format!("{en} is larger than {limit} bytes, the most that WeChat takes as `{kind}`"),
            format!("{zh}超过 {limit} 字节，即微信对 `{kind}` 的上限"),
        );
        let hint = (
            format!("the limit is `{kind}` below [media.max_size] in sidecar.toml"),
            format!("上限由 sidecar.toml 中 [media.max_size] 的 `{kind}` 设定"),
        );
        Err(Error::downstream(Kind::BodyTooLarge, detail).with_hint(hint))
    }

    fn refused(&self, foreign: Foreign) -> Error {
        let ((en, zh), (what, what_zh)) = (self.told(), foreign.what);
        let detail = (format!("{en} is {what}"), format!("{zh}被拒绝：{what_zh}"));
        Error::downstream(Kind::UnsupportedMediaType, detail).with_hint(foreign.advice)
    }

    fn told(&self) -> (String, String) {
        let number = self.number;
        (
            format!("file {number} of the form"),
            format!("表单中的第 {number} 个文件"),
        )
    }
}
