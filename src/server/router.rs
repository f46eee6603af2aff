//! Which action a request leads to: an endpoint of ours, or the app under some rule.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Auth, Config, Inbound, TextCheck, Upstream};
use crate::path::Pattern;
use crate::proxy::Limits;
use crate::resilience::{RateLimiter, RateLimiters};

/// The sidecar's own endpoints, below `[inbound] prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Login,
    Refresh,
    Logout,
    Session,
    Verify,
    OpenData,
    Phone,
    /// WeChat's proof that it is us whom it pushes to, and its messages.
    PushHandshake,
    Push,
    /// A file on its way to WeChat, one that is there, and the URL for a reader without a token.
    MediaUpload,
    MediaDownload,
    MediaUrl,
    /// The public keys of assertions.
    KeySet,
    /// What clients of the seed demo call: login, info and phone by GET, with the AppID in the path.
    SeedLogin,
    SeedInfo,
    SeedPhone,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action<'a> {
    /// Answer it ourselves.
    Own(Endpoint),
    /// The path is below our prefix, but nothing is there.
    Nothing,
    /// The endpoint exists, for another method.
    WrongMethod(&'static str),
    /// Forward it to the app.
    Forward(&'a Rule),
}

/// The conditions under which a request is forwarded.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// The pattern as configured, for metrics; `default` where no route matches.
    pub(crate) name: String,
    pub(crate) auth: Auth,
    pub(crate) login: bool,
    pub(crate) open_data: bool,
    pub(crate) media_upload: bool,
    pub(crate) text_check: Option<Arc<TextCheck>>,
    pub(crate) timeout: Duration,
    pub(crate) body_limit: u64,
    pub(crate) rate_limiter: Option<Arc<RateLimiter>>,
    pub(crate) upstream: Upstream,
    /// The upstream as the `Host` header names it.
    pub(crate) authority: String,
    /// Its place among the rules, for metrics.
    pub(crate) index: usize,
}

impl Rule {
    /// Who may pass: whoever logs in on the way has no token yet.
    pub(crate) fn asks(&self) -> Auth {
        if self.login { Auth::None } else { self.auth }
    }

    /// How long and how large what is forwarded may be.
    pub(crate) fn limits(&self, inbound: &Inbound) -> Limits {
        Limits {
            upstream: self.timeout,
            connect: inbound.connect_timeout,
            downstream: inbound.idle_timeout,
            tunnel: inbound.tunnel_timeout,
            body: self.body_limit,
        }
    }
}

/// Why a route is not for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    Path,
    Method,
}

/// The routes in file order, then the default.
pub(crate) struct Router {
    prefix: String,
    /// Where the seed demo has its endpoints, below the prefix.
    seed: String,
    seed_media: String,
    portal: String,
    routes: Vec<(Pattern, Vec<String>, Rule)>,
    default: Rule,
}

impl Endpoint {
    const ALL: [(&'static str, &'static str, Self); 11] = [
        ("/login", "POST", Self::Login),
        ("/refresh", "POST", Self::Refresh),
        ("/logout", "POST", Self::Logout),
        ("/session", "GET", Self::Session),
        ("/verify", "GET", Self::Verify),
        ("/open-data", "POST", Self::OpenData),
        ("/phone", "POST", Self::Phone),
        ("/push", "GET", Self::PushHandshake),
        ("/push", "POST", Self::Push),
        ("/media", "POST", Self::MediaUpload),
        ("/jwks.json", "GET", Self::KeySet),
    ];

    /// Below `/media/{media_id}`.
    const MEDIA: [(&'static str, &'static str, Self); 2] = [
        ("", "GET", Self::MediaDownload),
        ("/url", "GET", Self::MediaUrl),
    ];

    /// Below `/media/{appid}`.
    const SEED_MEDIA: [(&'static str, &'static str, Self); 1] =
        [("/upload", "POST", Self::MediaUpload)];

    /// Below `/user/{appid}`.
    const SEED: [(&'static str, &'static str, Self); 3] = [
        ("/login", "GET", Self::SeedLogin),
        ("/info", "GET", Self::SeedInfo),
        ("/phone", "GET", Self::SeedPhone),
    ];

    /// At `/portal/{appid}`, which is what users of the seed demo have told WeChat.
    const PORTAL: [(&'static str, &'static str, Self); 2] =
        [("", "GET", Self::PushHandshake), ("", "POST", Self::Push)];

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter().chain(Self::MEDIA);
        let all = all.chain(Self::SEED);
        all.map(|(_, _, endpoint)| endpoint)
    }

    /// Whether a GET may spend a code of the client's. HEAD is for those that only tell: its answer has no body, and what
    /// the code was spent for would be lost.
    fn acts(self) -> bool {
        matches!(self, Self::SeedLogin | Self::SeedInfo | Self::SeedPhone)
    }

    /// The name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Login => "wx:login",
            Self::Refresh => "wx:refresh",
            Self::Logout => "wx:logout",
            Self::Session => "wx:session",
            Self::Verify => "wx:verify",
            Self::OpenData => "wx:open-data",
            Self::Phone => "wx:phone",
            Self::PushHandshake => "wx:push/handshake",
            Self::Push => "wx:push",
            Self::MediaUpload => "wx:media/upload",
            Self::MediaDownload => "wx:media",
            Self::MediaUrl => "wx:media/url",
            Self::KeySet => "wx:jwks",
            Self::SeedLogin => "wx:user/login",
            Self::SeedInfo => "wx:user/info",
            Self::SeedPhone => "wx:user/phone",
        }
    }
}

impl Router {
    pub(crate) fn new(config: &Config, limiters: &RateLimiters) -> Self {
        let route = |(index, route): (usize, &crate::config::Route)| {
            let rule = Rule {
                name: route.path.clone(),
                auth: route.auth,
                login: route.login,
                open_data: route.open_data,
                media_upload: route.media_upload,
                text_check: route.text_check.clone().map(Arc::new),
                timeout: route.timeout,
                body_limit: route.body_limit,
                rate_limiter: route.rate_limit.map(|limit| {
                    // Routes may share their path and differ in their methods.
                    let name = format!("{} {}", route.methods.join(","), route.path);
                    limiters.get(&name, limit)
                }),
                authority: authority(&route.upstream),
                upstream: route.upstream.clone(),
                index,
            };
            (Pattern::parse(&route.path), route.methods.clone(), rule)
        };
        let inbound = &config.inbound;
        let default = Rule {
            name: "default".to_owned(),
            auth: inbound.auth,
            login: false,
            open_data: false,
            media_upload: false,
            text_check: None,
            timeout: inbound.timeout,
            body_limit: inbound.body_limit,
            rate_limiter: inbound
                .rate_limit
                .map(|limit| limiters.get("default", limit)),
            authority: authority(&inbound.upstream),
            upstream: inbound.upstream.clone(),
            index: config.routes.len(),
        };
        let routes = config.routes.iter().enumerate().map(route).collect();
        Self {
            prefix: inbound.prefix.clone(),
            seed: format!("/user/{}", config.app.appid),
            seed_media: format!("/media/{}", config.app.appid),
            portal: format!("/portal/{}", config.app.appid),
            routes,
            default,
        }
    }

    /// The action for a canonical path. Decides on nothing but path and method.
    pub(crate) fn route(&self, path: &[u8], method: &[u8]) -> Action<'_> {
        if let Some(rest) = path.strip_prefix(self.prefix.as_bytes())
            && matches!(rest, [] | [b'/', ..])
        {
            let below = |prefix: &str| rest.strip_prefix(prefix.as_bytes());
            if let Some((_, rest)) = self.medium(rest) {
                return own(&Endpoint::MEDIA, rest, method);
            }
            return match (
                below(&self.seed),
                below(&self.portal),
                below(&self.seed_media),
            ) {
                (Some(rest), ..) => own(&Endpoint::SEED, rest, method),
                (_, Some(rest), _) => own(&Endpoint::PORTAL, rest, method),
                (_, _, Some(rest)) => own(&Endpoint::SEED_MEDIA, rest, method),
                (None, None, None) => own(&Endpoint::ALL, rest, method),
            };
        }
        let matching = |(pattern, methods, _): &&(Pattern, Vec<String>, Rule)| {
            takes(methods, method) && pattern.matches(path)
        };
        Action::Forward(
            self.routes
                .iter()
                .find(matching)
                .map_or(&self.default, |(_, _, rule)| rule),
        )
    }

    /// The media_id in a path at which there is a medium, whether it is a good one or not.
    pub(crate) fn media_id<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let rest = path.strip_prefix(self.prefix.as_bytes())?;
        self.medium(rest).map(|(id, _)| id)
    }

    /// The media_id in a path below our prefix, and what follows it.
    fn medium<'p>(&self, rest: &'p [u8]) -> Option<(&'p [u8], &'p [u8])> {
        let seed = rest.strip_prefix(self.seed_media.as_bytes());
        let at_seed = seed.filter(|rest| matches!(rest, [] | [b'/', ..]));
        let rest = match at_seed {
            Some(rest) => rest.strip_prefix(b"/download/")?,
            None => rest.strip_prefix(b"/media/")?,
        };
        let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let (id, rest) = rest.split_at(end);
        (!id.is_empty()).then_some((id, rest))
    }

    /// The routes in the order in which they are asked: what each is for, and what of a request does not fit it.
    pub(crate) fn considered(
        &self,
        path: &[u8],
        method: &[u8],
    ) -> impl Iterator<Item = (&Rule, &[String], Option<Misfit>)> {
        self.routes.iter().map(move |(pattern, methods, rule)| {
            let misfit = match (pattern.matches(path), takes(methods, method)) {
                (false, _) => Some(Misfit::Path),
                (true, false) => Some(Misfit::Method),
                (true, true) => None,
            };
            (rule, &methods[..], misfit)
        })
    }

    /// The name of the rule with this index.
    pub(crate) fn rule_name(&self, index: usize) -> &str {
        let rule = self.routes.get(index).map(|(_, _, rule)| rule);
        &rule.unwrap_or(&self.default).name
    }

    /// The names of all rules, by their index.
    pub(crate) fn rule_names(&self) -> impl Iterator<Item = &str> {
        let default = std::iter::once(&self.default);
        self.routes
            .iter()
            .map(|(_, _, rule)| rule)
            .chain(default)
            .map(|rule| rule.name.as_str())
    }
}

/// Whether a route for these methods is for this one.
fn takes(methods: &[String], method: &[u8]) -> bool {
    let is_it = |m: &String| m.as_bytes() == method || (m == "GET" && method == b"HEAD");
    methods.is_empty() || methods.iter().any(is_it)
}

fn own(
    endpoints: &'static [(&'static str, &'static str, Endpoint)],
    rest: &[u8],
    method: &[u8],
) -> Action<'static> {
    let is_here = |(path, ..): &&(&str, &str, Endpoint)| path.as_bytes() == rest;
    let mut here = endpoints.iter().filter(is_here);
    let Some((_, first, _)) = here.clone().next() else {
        return Action::Nothing;
    };
    let takes = |(_, expected, endpoint): &&(&str, &str, Endpoint)| {
        let head_for_get = *expected == "GET" && method == b"HEAD" && !endpoint.acts();
        method == expected.as_bytes() || head_for_get
    };
    match (here.clone().find(takes), here.nth(1)) {
        (Some((_, _, endpoint)), _) => Action::Own(*endpoint),
        (None, None) => Action::WrongMethod(first),
        (None, Some(_)) => Action::WrongMethod("GET, POST"),
    }
}

/// What the app is called in `Host`: the configuration decides that, not the client.
fn authority(upstream: &Upstream) -> String {
    match upstream {
        Upstream::Tcp { host, port } | Upstream::H2c { host, port } if host.contains(':') => {
            format!("[{host}]:{port}")
        }
        Upstream::Tcp { host, port } | Upstream::H2c { host, port } => format!("{host}:{port}"),
        Upstream::Unix(_) => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_endpoints_are_found_by_exact_path_and_method() {
        let own =
            |rest: &str, method: &str| own(&Endpoint::ALL, rest.as_bytes(), method.as_bytes());
        assert!(matches!(
            own("/login", "POST"),
            Action::Own(Endpoint::Login)
        ));
        assert!(matches!(
            own("/session", "HEAD"),
            Action::Own(Endpoint::Session)
        ));
        assert!(matches!(own("/login", "GET"), Action::WrongMethod("POST")));
        assert!(matches!(own("/login/", "POST"), Action::Nothing));
        assert!(matches!(own("/push", "POST"), Action::Own(Endpoint::Push)));
        assert!(matches!(
            own("/push", "PUT"),
            Action::WrongMethod("GET, POST")
        ));
        assert!(matches!(own("", "GET"), Action::Nothing));
    }

    #[test]
    fn a_medium_is_named_by_its_path() {
        let config = Config::from_toml(
            "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [inbound]\nupstream = \"http://127.0.0.1:1\"\n",
        );
        let router = Router::new(&config.unwrap(), &RateLimiters::default());
        for (method, path, endpoint, id) in [
            ("POST", "/wx/media", Endpoint::MediaUpload, None),
            (
                "GET",
                "/wx/media/a-b_1",
                Endpoint::MediaDownload,
                Some("a-b_1"),
            ),
            (
                "HEAD",
                "/wx/media/a-b_1",
                Endpoint::MediaDownload,
                Some("a-b_1"),
            ),
            (
                "GET",
                "/wx/media/a-b_1/url",
                Endpoint::MediaUrl,
                Some("a-b_1"),
            ),
            (
                "POST",
                "/wx/media/wx0123456789abcdef/upload",
                Endpoint::MediaUpload,
                None,
            ),
            (
                "GET",
                "/wx/media/wx0123456789abcdef/download/m1",
                Endpoint::MediaDownload,
                Some("m1"),
            ),
        ] {
            let action = router.route(path.as_bytes(), method.as_bytes());
            assert!(
                matches!(action, Action::Own(it) if it == endpoint),
                "{path}"
            );
            assert_eq!(
                router.media_id(path.as_bytes()),
                id.map(str::as_bytes),
                "{path}"
            );
        }
        for path in [
            "/wx/media/",
            "/wx/media/m1/",
            "/wx/media/m1/other",
            "/wx/media/wx0123456789abcdef",
            "/wx/media/wx0123456789abcdef/download",
            "/wx/media/wx0123456789abcdef/download/",
            "/wx/media/wx0123456789abcdee/download/m1",
        ] {
            let action = router.route(path.as_bytes(), b"GET");
            assert!(matches!(action, Action::Nothing), "{path}");
        }
    }

    #[test]
    fn the_seed_demos_endpoints_are_those_of_our_appid_only() {
        let config = Config::from_toml(
            "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
             [inbound]\nupstream = \"http://127.0.0.1:1\"\n",
        );
        let router = Router::new(&config.unwrap(), &RateLimiters::default());
        let route = |path: &str| router.route(path.as_bytes(), b"GET");
        let ours = "/wx/user/wx0123456789abcdef";
        assert!(matches!(
            route(&format!("{ours}/login")),
            Action::Own(Endpoint::SeedLogin)
        ));
        assert!(matches!(
            route("/wx/portal/wx0123456789abcdef"),
            Action::Own(Endpoint::PushHandshake)
        ));
        for path in [
            ours.to_owned(),
            format!("{ours}x/login"),
            format!("{ours}/open-data"),
            "/wx/user/wx0123456789abcdee/login".to_owned(),
            "/wx/user/login".to_owned(),
            "/wx/portal/wx0123456789abcdee".to_owned(),
            "/wx/portal".to_owned(),
        ] {
            assert!(matches!(route(&path), Action::Nothing), "{path}");
        }
    }
}
