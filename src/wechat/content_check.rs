//! Content safety (内容安全): WeChat's judgement of texts and media.
//!
//! Source: developers.weixin.qq.com, 服务端 / 内容安全 / 文本内容安全识别, 音视频内容安全识别.

/// Where something will stand, which WeChat judges by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A user's profile (资料).
    Profile = 1,
    /// A comment (评论).
    Comment = 2,
    /// A post in a forum (论坛).
    Forum = 3,
    /// A social log (社交日志).
    Social = 4,
}

impl Scene {
    /// WeChat's number.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// The scene of that number.
    pub fn of(number: i64) -> Option<Self> {
        let all = [Self::Profile, Self::Comment, Self::Forum, Self::Social];
        all.into_iter().find(|scene| scene.number() == number)
    }
}
