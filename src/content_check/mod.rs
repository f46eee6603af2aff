//! Content safety (内容安全): the app sees no text that WeChat calls risky, and learns which upload a judgement is of.
//!
//! A text is judged while its request waits. A medium is judged later, by a push that says no more than a `trace_id`, so
//! what that stands for is remembered. No verdict is remembered: WeChat's judgement of the same words changes.

mod pieces;
mod texts;
mod traces;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

pub(crate) use texts::{Refused, Texts};
pub(crate) use traces::Traces;

use crate::config::{Config, TextCheck, Verdict};
use crate::domain::{AppId, MediaId, OpenId};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::Throttle;
use crate::wechat::content_check::{Judgement, MediaType, Scene, Suggest};
use crate::wechat::media;
use pieces::Piece;

/// What asks WeChat.
pub(crate) struct ContentCheck {
    gateway: Arc<Gateway>,
    metrics: Arc<Metrics>,
    traces: Arc<Traces>,
    appid: AppId,
    /// If uploads are checked.
    media: Option<Scene>,
    /// In the log, by kind and status.
    failures: Throttle<(Kind, u16)>,
}

/// How a request's texts have passed; the later says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Passed {
    /// There were none.
    Without,
    /// They are harmless.
    Harmless,
    /// WeChat would have somebody look at them.
    Doubtful,
    /// WeChat has not judged them all.
    Unchecked,
}

impl Passed {
    /// What the app is told.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Without => "none",
            Self::Harmless => "pass",
            Self::Doubtful => "review",
            Self::Unchecked => "unchecked",
        }
    }
}

/// Why a text does not pass.
enum Stopped<'t> {
    Judged(&'t str, Judgement),
    Failed(Error),
}

impl ContentCheck {
    pub(crate) fn new(
        config: &Config,
        gateway: Arc<Gateway>,
        metrics: Arc<Metrics>,
        traces: Arc<Traces>,
    ) -> Self {
        Self {
            gateway,
            metrics,
            traces,
            appid: config.app.appid.clone(),
            media: config.media.check.map(|check| check.scene),
            failures: Throttle::default(),
        }
    }

    /// Has WeChat judge the texts of a request of `openid`'s.
    ///
    /// # Errors
    /// If they must not pass, or are more than can be asked about.
    pub(crate) async fn texts(
        &self,
        openid: &OpenId,
        check: &TextCheck,
        texts: &Texts<'_>,
    ) -> Result<Passed, Error> {
        let pieces = texts.pieces().ok_or_else(too_long)?;
        let judged = self.judge_all(openid, check, &pieces).await;
        let verdict = match &judged {
            Ok(Passed::Without) => return Ok(Passed::Without),
            Ok(passed) => passed.label(),
            Err(Stopped::Judged(_, judgement)) if judgement.suggest == Suggest::Risky => "risky",
            Err(Stopped::Judged(..)) => "review",
            Err(Stopped::Failed(_)) => "unchecked",
        };
        self.metrics.text_checked(verdict);
        judged.map_err(|stopped| match stopped {
            Stopped::Judged(field, judgement) => refused(field, judgement),
            Stopped::Failed(error) => error.or_hint((
                "the text was not passed on, because WeChat has not judged it; send it again later",
                "微信尚未完成内容检测，内容未被提交；请稍后重试",
            )),
        })
    }

    /// Three at once. What stops one ends all, because the request is refused then.
    async fn judge_all<'t>(
        &self,
        openid: &OpenId,
        check: &TextCheck,
        pieces: &'t [Piece<'t>],
    ) -> Result<Passed, Stopped<'t>> {
        let left = RefCell::new(pieces.iter());
        let next = || left.borrow_mut().next();
        let in_turn = || async {
            let mut worst = Passed::Without;
            while let Some(piece) = next() {
                worst = worst.max(self.judge(openid, check, piece).await?);
            }
            Ok(worst)
        };
        let (one, two, three) = tokio::try_join!(in_turn(), in_turn(), in_turn())?;
        Ok(one.max(two).max(three))
    }

    async fn judge<'t>(
        &self,
        openid: &OpenId,
        check: &TextCheck,
        piece: &'t Piece<'t>,
    ) -> Result<Passed, Stopped<'t>> {
        let asked = self.gateway.check_text(openid, check.scene, piece.text);
        match (asked.await, check.on_review, check.on_failure) {
            (Ok(judgement), on_review, _) => match (judgement.suggest, on_review) {
                (Suggest::Pass, _) => Ok(Passed::Harmless),
                (Suggest::Review, Verdict::Pass) => Ok(Passed::Doubtful),
                _ => Err(Stopped::Judged(piece.field, judgement)),
            },
            (Err(error), _, Verdict::Refuse) => Err(Stopped::Failed(error)),
            (Err(error), _, Verdict::Pass) => {
                self.tell(
                    &error,
                    "a text is passed on unchecked (on_failure = \"open\")",
                );
                Ok(Passed::Unchecked)
            }
        }
    }

    /// Has WeChat fetch an upload of `openid`'s from `url` and judge it, if uploads are checked and WeChat can judge that
    /// kind. The judgement comes as a push with this `trace_id`. A failure does not undo the upload: there is no `trace_id` then.
    pub(crate) async fn media(
        &self,
        openid: &OpenId,
        media_id: &MediaId,
        kind: media::Kind,
        url: &str,
    ) -> Option<String> {
        let (scene, media_type) = (self.media?, media_type(kind)?);
        // Held until the answer is known, because the push may overtake it.
        let _asking = self.traces.asking();
        let asked = self.gateway.check_media(openid, scene, url, media_type);
        match asked.await {
            Ok(trace) => {
                self.traces.remember(&self.appid, &trace, media_id);
                self.metrics.media_check("asked");
                Some(trace)
            }
            Err(error) => {
                self.metrics.media_check("error");
                self.tell(&error, "an upload is not checked");
                None
            }
        }
    }

    fn tell(&self, error: &Error, what: &'static str) {
        let cause = (error.kind(), error.status());
        if let Some(suppressed) = self.failures.pass(cause, Instant::now()) {
            tracing::warn!(%error, suppressed, "{what}");
        }
    }
}

/// What WeChat would take it for; it watches no films.
fn media_type(kind: media::Kind) -> Option<MediaType> {
    match kind {
        media::Kind::Image | media::Kind::Thumb => Some(MediaType::Image),
        media::Kind::Voice => Some(MediaType::Audio),
        media::Kind::Video => None,
    }
}

fn refused(field: &str, judgement: Judgement) -> Error {
    let (en, zh) = judgement.label.meaning();
    let (suggest, detail) = match judgement.suggest {
        Suggest::Risky => (
            "risky",
            (
                format!("`{field}` is judged as against the rules ({en})"),
                format!("`{field}` 被判定为违规（{zh}）"),
            ),
        ),
        _ => (
            "review",
            (
                format!("`{field}` is doubtful, and may be against the rules ({en})"),
                format!("`{field}` 存疑，可能违规（{zh}）"),
            ),
        ),
    };
    Error::downstream(Kind::ContentRisky, detail)
        .with_member("field", field)
        .with_member("label", judgement.label.0)
        .with_member("suggest", suggest)
        .with_hint(("change the text, and send it again", "请修改内容后重新提交"))
}

fn too_long() -> Error {
    let most = pieces::MOST;
    let detail = (
        format!("the texts to be checked are longer than {most} pieces of 2,500 characters"),
        format!("待检测的文本超过 {most} 段（每段 2500 字）"),
    );
    Error::downstream(Kind::BodyTooLarge, detail).with_hint((
        "send less text in one request: some 19,000 characters in one field, or fewer in several",
        "请减少单次请求中的文本：单个字段约 19000 字以内，多个字段合计更少",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Language;
    use crate::wechat::content_check::Label;

    #[test]
    fn pictures_of_any_size_and_sound_are_judged_and_films_are_not() {
        let types = media::Kind::ALL.map(media_type);
        let (image, audio) = (Some(MediaType::Image), Some(MediaType::Audio));
        assert_eq!(types, [image, audio, None, image]);
    }

    #[test]
    fn what_one_piece_came_to_is_not_covered_by_another() {
        let worst = [
            Passed::Doubtful,
            Passed::Unchecked,
            Passed::Harmless,
            Passed::Without,
        ];
        assert_eq!(
            worst.into_iter().max().map(Passed::label),
            Some("unchecked")
        );
        assert!(Passed::Doubtful > Passed::Harmless && Passed::Harmless > Passed::Without);
    }

    #[test]
    fn a_refusal_says_what_and_where_in_both_languages() {
        let judgement = Judgement {
            suggest: Suggest::Risky,
            label: Label(20_006),
        };
        let error = refused("post.title", judgement);
        assert_eq!(error.status(), 422);
        for (language, detail, hint) in [
            (
                Language::English,
                "`post.title` is judged as against the rules (crime)",
                "change the text",
            ),
            (
                Language::Chinese,
                "`post.title` 被判定为违规（违法犯罪）",
                "请修改内容",
            ),
        ] {
            let problem: serde_json::Value =
                serde_json::from_slice(&error.to_problem("id", language)).unwrap();
            assert_eq!(problem["detail"], detail);
            assert_eq!(
                (&problem["field"], &problem["label"]),
                (&"post.title".into(), &20_006.into())
            );
            assert!(
                problem["hint"].as_str().unwrap().starts_with(hint),
                "{problem}"
            );
        }
    }
}
