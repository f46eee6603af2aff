//! `[media]` and `[route.text_check]`: what was written, as it is meant.

use std::ops::Range;
use std::time::Duration;

use super::{Check, path, peek};
use crate::config::diagnostic::Fault;
use crate::config::raw::{self, Field, NumberOrText, Text};
use crate::config::values::{self, one_of};
use crate::config::words;
use crate::config::{Auth, Media, MediaCheck, MediaSizes, Route, TextCheck};
use crate::wechat::content_check::Scene;
use crate::wechat::media::LIFE;

/// As long as a media_id lives.
const URL_TTL: &str = "3d";
/// Where WeChat keeps films.
const VIDEO_HOSTS: &[&str] = &["*.qq.com", "*.qpic.cn", "*.wechat.com"];
/// The longest path of a field, in bytes.
const LONGEST_FIELD: usize = 128;
/// As many as there may be questions to WeChat for one request.
const MOST_FIELDS: usize = 8;

impl Check<'_> {
    pub(super) fn media(&mut self, raw: &raw::Media) -> Option<Media> {
        let enabled = self.value(&raw.enabled, || Ok(true), |on| Ok(*on));
        let base_url = self.given(&raw.base_url, base_url);
        let url_ttl = self.text(&raw.url_ttl, URL_TTL, url_ttl);
        let memory_cache_size = self.text(&raw.memory_cache_size, "32MiB", size_or_none);
        let cache_dir = self.given(&raw.cache_dir, path);
        let cache_size = self.text(&raw.cache_size, "1GiB", values::size);
        if let (Field::Absent, Field::Given(_)) = (&raw.cache_dir, &raw.cache_size) {
            let fault = Fault::new("without a `cache_dir` nothing is kept on the disk")
                .help("write cache_dir = \"/var/cache/wx-sidecar\", or leave `cache_size` out");
            self.sink.warn(raw.cache_size.span(), fault);
        }
        let video_hosts = self.list(&raw.video_hosts, VIDEO_HOSTS, host_pattern);
        let sizes = &raw.max_size;
        let image = self.text(&sizes.image, "2MiB", values::size);
        let voice = self.text(&sizes.voice, "2MiB", values::size);
        let video = self.text(&sizes.video, "10MiB", values::size);
        let thumb = self.text(&sizes.thumb, "64KiB", values::size);
        let check = match &raw.check {
            None => Some(None),
            Some(check) => self.media_check(check, raw).map(Some),
        };
        let cache_dir = cache_dir?.map(|dir| self.directory.join(dir));
        Some(Media {
            enabled: enabled?,
            base_url: base_url?,
            url_ttl: url_ttl?,
            memory_cache_size: memory_cache_size?,
            cache_dir,
            cache_size: cache_size?,
            video_hosts: video_hosts?.into_iter().map(|(host, _)| host).collect(),
            max_size: MediaSizes {
                image: image?,
                voice: voice?,
                video: video?,
                thumb: thumb?,
            },
            check: check?,
        })
    }

    /// WeChat fetches what it checks, so it has to be told where.
    fn media_check(&mut self, raw: &raw::MediaCheck, media: &raw::Media) -> Option<MediaCheck> {
        let scene = self.scene(&raw.scene, "[media.check]", raw.header.as_ref());
        if let Field::Absent = media.base_url {
            let fault = Fault::new("WeChat fetches what it is to check, and nobody says from where")
                .help("write base_url = \"https://mini.example.com\" below `[media]`, where the Mini Program reaches the sidecar");
            self.sink.missing(raw.header.clone(), fault);
            return None;
        }
        Some(MediaCheck { scene: scene? })
    }

    pub(super) fn text_check(&mut self, raw: &raw::TextCheck) -> Option<TextCheck> {
        let fields = self.text_fields(raw);
        let scene = self.scene(&raw.scene, "text_check", raw.header.as_ref());
        let on_review = self.text(&raw.on_review, "pass", |text| {
            one_of(text, words::ON_REVIEW)
        });
        let on_failure = self.text(&raw.on_failure, "closed", |text| {
            one_of(text, words::ON_FAILURE)
        });
        Some(TextCheck {
            fields: fields?,
            scene: scene?,
            on_review: on_review?,
            on_failure: on_failure?,
        })
    }

    fn text_fields(&mut self, raw: &raw::TextCheck) -> Option<Vec<String>> {
        self.present(&raw.field, || {
            let fault = Fault::new("a `text_check` needs a `field`")
                .help("write field = \"content\", the name of what is to be checked in the app's JSON body or form");
            (raw.header.clone(), fault)
        })?;
        let fields = self.list(&raw.field, &[], field_path)?;
        let fault = match fields.len() {
            0 => Fault::new("this list is empty"),
            1..=MOST_FIELDS => return Some(fields.into_iter().map(|(field, _)| field).collect()),
            _ => Fault::new("these are more than 8 fields").help(
                "name a member that has several of them in it: all texts below it are checked",
            ),
        };
        self.sink.error(raw.field.span(), fault);
        None
    }

    /// WeChat judges by where a text or a picture will stand.
    fn scene(
        &mut self,
        field: &Field<NumberOrText>,
        at: &str,
        header: Option<&Range<usize>>,
    ) -> Option<Scene> {
        let advice = "\"profile\" (1), \"comment\" (2), \"forum\" (3) or \"social\" (4)";
        self.present(field, || {
            let fault = Fault::new(format!("`{at}` needs a `scene`")).help(advice);
            (header.cloned(), fault)
        })?;
        let read = |scene: &NumberOrText| match scene {
            NumberOrText::Number(number) => Scene::of(*number)
                .ok_or_else(|| Fault::new("this is not one of WeChat's scenes").help(advice)),
            NumberOrText::Text(Text { value, .. }) => one_of(value, words::SCENES),
        };
        self.value(field, || Ok(Scene::Comment), read)
    }

    /// What is checked is checked for somebody: WeChat asks for the openid.
    pub(super) fn checks_strangers(&mut self, route: &raw::Route, auth_may_be_nobody: bool) {
        let Some(check) = &route.text_check else {
            return;
        };
        let login = matches!(&route.login, Field::Given(login) if *login.get_ref());
        if auth_may_be_nobody && !login {
            let fault =
                Fault::new("WeChat checks a text for its author, and here it may be nobody")
                    .help("write auth = \"required\" for this route")
                    .also(route.auth.span(), "anybody may come here");
            self.sink.error(check.header.clone(), fault);
        }
    }

    /// A route cannot put media where there are none.
    pub(super) fn media_are_needed(&mut self, raw: &raw::Raw) {
        if !matches!(&raw.media.enabled, Field::Given(on) if !*on.get_ref()) {
            return;
        }
        for route in raw.routes.iter().filter(|route| uploads(route)) {
            let fault = Fault::new("files cannot be uploaded: `[media] enabled` is false")
                .also(raw.media.enabled.span(), "here");
            self.sink.error(route.media.span(), fault);
        }
    }

    /// WeChat judges what a user uploads, so what may be nobody's goes unjudged.
    pub(super) fn media_of_strangers(&mut self, raw: &raw::Raw, routes: &[Route]) {
        if raw.media.check.is_none() {
            return;
        }
        for (route, meant) in raw.routes.iter().zip(routes) {
            if uploads(route) && meant.auth != Auth::Required && !meant.login {
                let fault = Fault::new("what nobody in particular uploads here is not judged, though there is a `[media.check]`")
                    .help("write auth = \"required\" for this route, if all of it is to be")
                    .also(route.auth.span(), "anybody may come here");
                self.sink.warn(route.media.span(), fault);
            }
        }
    }
}

fn uploads(route: &raw::Route) -> bool {
    peek(&route.media, "", |text| Ok(text == "upload")) == Some(true)
}

fn base_url(text: &str) -> Result<String, Fault> {
    let fault = |message: &str| {
        Err(Fault::new(message.to_owned()).help("write it like \"https://mini.example.com\""))
    };
    let Some((scheme @ ("https" | "http"), rest)) = text.split_once("://") else {
        return fault("a URL begins with `https://`");
    };
    let host = rest.split('/').next().unwrap_or_default();
    let plain = rest
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b));
    if host.is_empty() || !plain {
        return fault("this is not the beginning of a URL");
    }
    Ok(format!("{scheme}://{}", rest.trim_end_matches('/')))
}

fn url_ttl(text: &str) -> Result<Duration, Fault> {
    let ttl = values::duration(text)?;
    if ttl > LIFE {
        return Err(Fault::new(
            "this must be \"3d\" at the most: WeChat keeps media no longer",
        ));
    }
    Ok(ttl)
}

fn size_or_none(text: &str) -> Result<u64, Fault> {
    match text {
        "none" => Ok(0),
        _ => values::size(text),
    }
}

/// A host, or `*.` and the end of hosts.
fn host_pattern(text: &str) -> Result<String, Fault> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !name.split('.').all(is_label) {
        return Err(Fault::new("this is not the name of a host")
            .help("write it like \"*.qq.com\" or \"vod.example.com\""));
    }
    Ok(text.to_ascii_lowercase())
}

/// Names of members from the outside in, with dots between them. The places of elements are no names.
fn field_path(text: &str) -> Result<String, Fault> {
    let is_name = |part: &str| part.bytes().any(|b| !b.is_ascii_digit());
    let has_name = text.split(['.', '[', ']']).any(is_name);
    if text.len() > LONGEST_FIELD || text.split('.').any(str::is_empty) || !has_name {
        return Err(Fault::new("this is not the name of a field")
            .help("write it like \"content\", or \"post.title\" for a member of `post`"));
    }
    Ok(text.to_owned())
}
