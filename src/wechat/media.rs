//! Temporary media (临时素材): what is uploaded can be had again by its media_id, for three days.
//!
//! Source: developers.weixin.qq.com, 服务端 / 小程序客服 / 客服消息 / 新增临时素材, 获取临时素材.

use std::time::Duration;

/// Where a file is posted, in a form.
pub const UPLOAD: &str = "/cgi-bin/media/upload";
/// Where it is had again.
pub const GET: &str = "/cgi-bin/media/get";
/// How long WeChat keeps it.
pub const LIFE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// What WeChat takes a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A picture.
    Image,
    /// Sound.
    Voice,
    /// A film.
    Video,
    /// A small picture in a message.
    Thumb,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Image, Self::Voice, Self::Video, Self::Thumb];

    /// Its name in WeChat's `type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Voice => "voice",
            Self::Video => "video",
            Self::Thumb => "thumb",
        }
    }

    /// The kind of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
