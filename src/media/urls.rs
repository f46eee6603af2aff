//! URLs by which a medium can be read without a token, as an `<image src>` does.
//!
//! ```text
//! {base}/media/{media_id}?e={seconds since 1970}[&u={tag of a user}]&s={signature}
//! ```
//!
//! The signature is HMAC-SHA256 over media_id, expiry and tag, cut to 128 bits, under keys derived from the same secrets as
//! those of tokens: replicas agree, and keys rotate with them. The same URL comes out for a minute, so that the caches of
//! clients find again what they have. A URL can be bound to a user: then whoever shows a token with it must be that
//! user. What stands in it is a tag of the openid under a key, never the openid.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::query::{self, Repeated};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::crypto;
use crate::domain::{AppId, MediaId, OpenId};
use crate::error::{Error, Kind};
use crate::secret::Secret;
use crate::wechat::media::LIFE;

/// The label of the keys. It never changes, or URLs that are good would not be any more.
const LABEL: &[u8] = b"wx-sidecar media url key 1";
/// How many bytes of the signature and of a user's tag stand in a URL.
const SIGNATURE: usize = 16;
const TAG: usize = 12;
/// URLs end at whole minutes.
const STEP: u64 = 60;
/// No moment before the year 5138 has more digits.
const MAX_DIGITS: usize = 11;
const HINT: &str =
    "ask for a new one at GET /wx/media/{media_id}/url, and use it as it is, with all parameters";
const HINT_ZH: &str = "请通过 GET /wx/media/{media_id}/url 获取新的链接，并原样使用全部参数";

/// Makes URLs and knows them again.
pub(crate) struct Urls {
    /// Newest first; the first one signs. At least one.
    keys: Vec<Zeroizing<[u8; 32]>>,
    /// What stands before the media_id.
    base: String,
    /// How long a URL is good.
    ttl: Duration,
}

/// A URL, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedUrl {
    pub(crate) url: String,
    pub(crate) expires_at: Timestamp,
}

/// What a request shows in place of a token.
pub(crate) struct Signature<'a> {
    expiry: &'a [u8],
    tag: &'a [u8],
    signature: &'a [u8],
}

/// A signature that is good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pass<'a> {
    pub(crate) expires_at: Timestamp,
    /// Which key it was made with, and whom it is bound to.
    bound: Option<(usize, &'a [u8])>,
}

impl Urls {
    pub(crate) fn new(config: &Config) -> Self {
        let base = config.media.base_url.as_deref().unwrap_or_default();
        Self::derive(
            &config.app.appid,
            config.sealing_secrets(),
            format!("{base}{}/media/", config.inbound.prefix),
            config.media.url_ttl,
        )
    }

    /// Derives the keys from secrets, newest first. There is at least one secret.
    fn derive(appid: &AppId, secrets: &[Secret], base: String, ttl: Duration) -> Self {
        let key = |secret: &Secret| {
            let material = secret.expose().as_bytes();
            let salt = appid.as_str().as_bytes();
            Zeroizing::new(crypto::derive_key(material, salt, LABEL))
        };
        Self {
            keys: secrets.iter().map(key).collect(),
            base,
            ttl,
        }
    }

    /// How long a URL is good that nobody wants shorter.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A URL of a medium; `bound_to` a user, if others are not to use it with tokens of theirs.
    pub(crate) fn url(&self, id: &MediaId, bound_to: Option<&OpenId>, now: Timestamp) -> SignedUrl {
        self.url_for(self.ttl, id, bound_to, now)
    }

    /// As [`Urls::url`], good for `ttl`, up to a minute longer, and never longer than WeChat keeps a medium.
    pub(crate) fn url_for(
        &self,
        ttl: Duration,
        id: &MediaId,
        bound_to: Option<&OpenId>,
        now: Timestamp,
    ) -> SignedUrl {
        let wanted = now.plus(ttl).as_secs().div_ceil(STEP) * STEP;
        let longest = now.plus(LIFE).as_secs() / STEP * STEP;
        let expiry = wanted.min(longest);
        let key = &self.keys[0];
        let tag = bound_to.map(|openid| tag(key, openid));
        let tag = tag.as_deref().unwrap_or_default();
        let signature = sign(key, id, expiry.to_string().as_bytes(), tag.as_bytes());
        let user = if tag.is_empty() {
            String::new()
        } else {
            format!("&u={tag}")
        };
        SignedUrl {
            url: format!(
                "{}{}?e={expiry}{user}&s={signature}",
                self.base,
                id.as_str()
            ),
            expires_at: Timestamp::from_millis(expiry.saturating_mul(1000)),
        }
    }

    /// What a signature is good for, if it is.
    pub(crate) fn verify<'a>(
        &self,
        id: &MediaId,
        shown: &Signature<'a>,
        now: Timestamp,
    ) -> Result<Pass<'a>, Error> {
        let Signature {
            expiry,
            tag,
            signature,
        } = *shown;
        let made_with = |key: &Zeroizing<[u8; 32]>| {
            let expected = sign(key, id, expiry, tag);
            crypto::constant_time_eq(expected.as_bytes(), signature)
        };
        let slot = self.keys.iter().position(made_with);
        let seconds = std::str::from_utf8(expiry)
            .ok()
            .filter(|text| text.len() <= MAX_DIGITS)
            .and_then(|text| text.parse::<u64>().ok());
        let (Some(slot), Some(seconds)) = (slot, seconds) else {
            return Err(invalid((
                "the URL of the medium is not one of ours, or was changed",
                "该媒体链接不是本 sidecar 签发的，或已被改动",
            )));
        };
        let expires_at = Timestamp::from_millis(seconds * 1000);
        if now >= expires_at {
            return Err(invalid((
                "the URL of the medium has expired",
                "该媒体链接已过期",
            )));
        }
        let bound = (!tag.is_empty()).then_some((slot, tag));
        Ok(Pass { expires_at, bound })
    }

    /// Whether whoever shows a token of `openid` may use it.
    pub(crate) fn is_for(&self, pass: &Pass<'_>, openid: &OpenId) -> bool {
        pass.bound.is_none_or(|(slot, shown)| {
            let expected = tag(&self.keys[slot], openid);
            crypto::constant_time_eq(expected.as_bytes(), shown)
        })
    }
}

impl<'a> Signature<'a> {
    /// What a query shows; `None` if it shows no signature nor a part of one.
    pub(crate) fn of_query(query: &'a [u8]) -> Result<Option<Self>, Error> {
        let value = |name| {
            query::raw(query, name).map_err(|Repeated| {
                invalid((
                    "a parameter of the URL stands there twice",
                    "链接中有重复的参数",
                ))
            })
        };
        let (expiry, tag, signature) = (value("e")?, value("u")?, value("s")?);
        if (expiry, tag, signature) == (None, None, None) {
            return Ok(None);
        }
        Ok(Some(Self {
            expiry: expiry.unwrap_or_default(),
            tag: tag.unwrap_or_default(),
            signature: signature.unwrap_or_default(),
        }))
    }
}

impl Pass<'_> {
    /// Whether it is bound to a user.
    pub(crate) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }
}

/// The URL is bound to somebody else.
pub(crate) fn another_users() -> Error {
    invalid((
        "the URL of the medium is bound to another user",
        "该媒体链接属于另一个用户",
    ))
}

fn invalid(detail: (&'static str, &'static str)) -> Error {
    Error::downstream(Kind::MediaUrlInvalid, detail).with_hint((HINT, HINT_ZH))
}

/// None of the parts has a line feed that was signed by us, so no two triples are the same text.
fn sign(key: &[u8; 32], id: &MediaId, expiry: &[u8], tag: &[u8]) -> String {
    let id = id.as_str().as_bytes();
    let parts = [b"url\n", id, b"\n", expiry, b"\n", tag];
    URL_SAFE_NO_PAD.encode(&crypto::hmac_sha256(key, &parts)[..SIGNATURE])
}

fn tag(key: &[u8; 32], openid: &OpenId) -> String {
    let parts = [&b"user\n"[..], openid.as_bytes()];
    URL_SAFE_NO_PAD.encode(&crypto::hmac_sha256(key, &parts)[..TAG])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn urls(secrets: &[&str]) -> Urls {
        let secrets: Vec<_> = secrets.iter().copied().map(Secret::new).collect();
        let appid = AppId::parse("wx0123456789abcdef").unwrap();
        Urls::derive(&appid, &secrets, "/wx/media/".to_owned(), 3 * DAY)
    }

    fn id() -> MediaId {
        MediaId::parse("some-MEDIA_id").unwrap()
    }

    fn user(name: &str) -> OpenId {
        OpenId::parse(name).unwrap()
    }

    fn query(url: &SignedUrl) -> &[u8] {
        url.url.split_once('?').unwrap().1.as_bytes()
    }

    /// Whether a query opens the medium.
    fn opens(urls: &Urls, query: &[u8], now: Timestamp) -> Result<bool, String> {
        let shown = Signature::of_query(query).map_err(|error| error.to_string())?;
        let Some(shown) = shown else {
            return Ok(false);
        };
        let pass = urls.verify(&id(), &shown, now);
        pass.map(|_| true).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_is_good_until_it_expires_and_says_so() {
        let urls = urls(&["new"]);
        let hour = Duration::from_secs(3600);
        let url = urls.url_for(hour, &id(), None, NOW);
        assert_eq!(url.expires_at, NOW.plus(hour));
        assert!(
            url.url
                .starts_with("/wx/media/some-MEDIA_id?e=1800003600&s=")
        );
        let last = NOW.plus(hour - Duration::from_millis(1));
        assert_eq!(opens(&urls, query(&url), last), Ok(true));
        let told = opens(&urls, query(&url), NOW.plus(hour)).unwrap_err();
        assert!(told.contains("expired"), "{told}");
    }

    #[test]
    fn urls_of_one_minute_are_the_same_and_none_outlives_the_medium() {
        let urls = urls(&["new"]);
        for (ttl, latest) in [
            (Duration::from_secs(1), 60),
            (Duration::from_secs(61), 120),
            (3 * DAY, 259_200),
            (9 * DAY, 259_200),
        ] {
            let at = |ms| urls.url_for(ttl, &id(), None, NOW.plus(Duration::from_millis(ms)));
            let first = at(1);
            assert_eq!(first, at(58_000), "{ttl:?}");
            assert_ne!(first, at(61_000), "{ttl:?}");
            let life = first.expires_at.since(NOW);
            assert!(life <= Duration::from_secs(latest), "{ttl:?}: {life:?}");
        }
    }

    #[test]
    fn a_url_is_good_as_it_is_and_in_no_other_way() {
        let urls = urls(&["new"]);
        let url = urls.url(&id(), Some(&user("o_user_one")), NOW);
        let good = query(&url);
        assert_eq!(opens(&urls, good, NOW), Ok(true));
        let more = [good, b"&utm=1&filename=a.png&utm=2"].concat();
        assert_eq!(opens(&urls, &more, NOW), Ok(true));
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            assert!(
                opens(&urls, &bad, NOW) != Ok(true),
                "{}",
                bad.escape_ascii()
            );
        }
        let parts: Vec<_> = good.split(|&b| b == b'&').collect();
        for left_out in 0..parts.len() {
            let mut rest = parts.clone();
            let part = rest.remove(left_out);
            assert!(opens(&urls, &rest.join(&b'&'), NOW).is_err());
            let twice = [good, b"&", part].concat();
            assert!(opens(&urls, &twice, NOW).is_err());
            let long = [good, b"A"].concat();
            assert!(opens(&urls, &long, NOW).is_err());
        }
        assert_eq!(opens(&urls, b"", NOW), Ok(false));
        let other = MediaId::parse("some-MEDIA_ie").unwrap();
        let shown = Signature::of_query(good).unwrap().unwrap();
        assert!(urls.verify(&other, &shown, NOW).is_err());
    }

    #[test]
    fn a_bound_url_knows_its_user_and_does_not_name_him() {
        let urls = urls(&["new"]);
        let (one, two) = (user("o_user_one"), user("o_user_two"));
        let url = urls.url(&id(), Some(&one), NOW);
        assert!(!url.url.contains("o_user_one"));
        let shown = Signature::of_query(query(&url)).unwrap().unwrap();
        let pass = urls.verify(&id(), &shown, NOW).unwrap();
        assert!(pass.is_bound());
        assert!(urls.is_for(&pass, &one));
        assert!(!urls.is_for(&pass, &two));
        let free = urls.url(&id(), None, NOW);
        let shown = Signature::of_query(query(&free)).unwrap().unwrap();
        let pass = urls.verify(&id(), &shown, NOW).unwrap();
        assert!(!pass.is_bound() && urls.is_for(&pass, &two));
    }

    #[test]
    fn keys_rotate() {
        let (old, both, new) = (urls(&["old"]), urls(&["new", "old"]), urls(&["new"]));
        let one = user("o_user_one");
        let url = old.url(&id(), Some(&one), NOW);
        let shown = Signature::of_query(query(&url)).unwrap().unwrap();
        let pass = both.verify(&id(), &shown, NOW).unwrap();
        assert!(both.is_for(&pass, &one));
        assert!(new.verify(&id(), &shown, NOW).is_err());
        assert_eq!(
            both.url(&id(), None, NOW),
            new.url(&id(), None, NOW),
            "the newest signs"
        );
    }
}
