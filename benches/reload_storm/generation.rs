//! What one configuration after the other says, and by what an answer shows which one it was given by.
//!
//! Generations are numbered. `X-WX-ENV` tells the app the number, if the client has a token; all else follows from it, each by another rule, so that parts
//! of two generations do not fit together:
//!
//! - the upstream changes between two apps with each generation, and that of `/across/**` the other way round;
//! - `/only/N` is for everybody in generation N, and there goes to the other app; in all others it is as any path, for those
//!   with a token;
//! - the body limit of `/body` lets a body pass in two generations of three;
//! - `/limited` is for one request an hour in one generation of four;
//! - tokens are sealed with a key of the generation, which that one and the next one open;
//! - the certificate is the generation's own;
//! - every five generations the sidecar moves, between two places with TLS and one without.

use std::net::SocketAddr;

pub(crate) const APPID: &str = "wx0123456789abcdef";
const OTHER_APPID: &str = "wxfedcba9876543210";
/// Both are good at WeChat all the time; generations use them by turns.
pub(crate) const APP_SECRETS: [&str; 2] = [
    "5708a05708a05708a05708a05708a000",
    "5708a15708a15708a15708a15708a111",
];
/// What a client sends to `/body`, in bytes.
pub(crate) const BODY: usize = 600;
/// For how many generations the sidecar stays in one place.
const STAY: usize = 5;
/// Which of the places has no TLS.
const PLAIN: usize = 1;

/// Its number; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(pub(crate) usize);

/// All addresses.
pub(crate) struct Site {
    /// Where the sidecar is, one at a time.
    pub(crate) inbound: [SocketAddr; 3],
    /// Many, because one is let go of half a second after it has been left.
    pub(crate) outbound: [SocketAddr; 8],
    pub(crate) admin: SocketAddr,
    pub(crate) apps: [SocketAddr; 2],
    pub(crate) wechat: String,
    /// Somebody else listens here.
    pub(crate) taken: SocketAddr,
}

/// A token, by the generations that may have sealed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) from: Generation,
    pub(crate) to: Generation,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Open,
    Across,
    Only(Generation),
    /// The same without a token.
    Anybody(Generation),
    Body,
    Limited,
    Me,
}

/// A way in which a configuration is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    NoToml,
    UnknownKey,
    WrongValue,
    MissingSecret,
    OtherApp,
    TakenAddress,
    OtherKey,
}

pub(crate) const FAULTS: [Fault; 7] = [
    Fault::NoToml,
    Fault::UnknownKey,
    Fault::WrongValue,
    Fault::MissingSecret,
    Fault::OtherApp,
    Fault::TakenAddress,
    Fault::OtherKey,
];

impl Generation {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// What the app is told.
    pub(crate) fn env(self) -> String {
        format!("g{}", self.0)
    }

    pub(crate) fn of_env(env: &str) -> Option<Self> {
        Some(Self(env.strip_prefix('g')?.parse().ok()?))
    }

    /// Where it listens, by the place's number.
    pub(crate) fn place(self) -> usize {
        self.0 / STAY % 3
    }

    pub(crate) fn has_tls(self) -> bool {
        self.place() != PLAIN
    }

    fn app(self) -> usize {
        self.0 % 2
    }

    fn takes_body(self) -> bool {
        !self.0.is_multiple_of(3)
    }

    pub(crate) fn is_limited(self) -> bool {
        self.0 % 4 == 1
    }

    fn opens(self, sealed_by: usize) -> bool {
        sealed_by == self.0 || sealed_by + 1 == self.0
    }

    /// Its secrets, and those that the generation before needs as long as it is in use.
    pub(crate) fn secrets(self) -> Vec<(String, String)> {
        let keys = (self.0.saturating_sub(2)..=self.0).map(|number| {
            let key = format!("the session key of generation {number:08}");
            (format!("session-{number}"), key)
        });
        let secret = APP_SECRETS[self.0 % 2].to_owned();
        keys.chain([("appsecret".to_owned(), secret)]).collect()
    }

    /// The whole text.
    pub(crate) fn configuration(self, site: &Site) -> String {
        let number = self.0;
        let tls = match self.has_tls() {
            true => {
                "[inbound.tls]\ncert_file = \"../secrets/tls.crt\"\nkey_file = \"../secrets/tls.key\"\n"
            }
            false => "",
        };
        let rate = match self.is_limited() {
            true => "1/h",
            false => "none",
        };
        let body_limit = match self.takes_body() {
            true => BODY,
            false => BODY - 1,
        };
        let across = format!("upstream = \"http://{}\"", site.apps[1 - self.app()]);
        let open = |path: &str, more: &str| {
            format!("[[route]]\npath = \"{path}\"\nauth = \"optional\"\n{more}\n")
        };
        let routes = [
            open("/open", ""),
            open("/across/**", &across),
            open(&format!("/only/{number}"), &across),
            open("/body", &format!("body_limit = \"{body_limit}B\"")),
            open("/limited", &format!("rate_limit = \"{rate}\"")),
        ]
        .concat();
        format!(
            "[app]\nappid = \"{APPID}\"\nsecret_file = \"../secrets/appsecret\"\nenv = \"{env}\"\n\
             [inbound]\nlisten = \"{inbound}\"\nupstream = \"http://{app}\"\nworkers = 2\ndrain_delay = \"0s\"\n\
             timeout = \"{timeout}s\"\nmax_requests = {max_requests}\nlogin_rate_limit = \"10000/s\"\n{tls}\
             [session]\nkey_file = [\"../secrets/session-{number}\", \"../secrets/session-{before}\"]\n\
             [wechat]\nendpoints = [\"{wechat}\"]\n\
             [outbound]\nlisten = \"{outbound}\"\n[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"error\"\n{routes}",
            env = self.env(),
            inbound = site.inbound[self.place()],
            app = site.apps[self.app()],
            timeout = 20 + number % 20,
            max_requests = 10_000 + number,
            before = number - 1,
            wechat = site.wechat,
            outbound = site.outbound[number / 3 % 8],
            admin = site.admin,
        )
    }

    /// The same with a fault. Whoever sees `bad` in the app sees what was refused.
    pub(crate) fn faulty(self, site: &Site, fault: Fault) -> String {
        let text = self.configuration(site);
        let text = text.replace(&format!("env = \"{}\"", self.env()), "env = \"bad\"");
        match fault {
            Fault::NoToml => text[..text.len() / 2].to_owned() + "\n[inbound",
            Fault::UnknownKey => text.replace("drain_delay", "drian_delay"),
            Fault::WrongValue => text.replace("drain_delay = \"0s\"", "drain_delay = \"soon\""),
            Fault::MissingSecret => text.replace("secrets/appsecret", "secrets/nothing"),
            Fault::OtherApp => text.replace(APPID, OTHER_APPID),
            Fault::TakenAddress => {
                let inbound = site.inbound[self.place()].to_string();
                text.replace(&inbound, &site.taken.to_string())
            }
            Fault::OtherKey => {
                let files = "[inbound.tls]\ncert_file = \"../secrets/tls.crt\"\nkey_file = \"../secrets/other.key\"\n";
                let (inbound, rest) = text.split_once("[session]").unwrap_or((&text, ""));
                let inbound = inbound.split("[inbound.tls]").next().unwrap_or(inbound);
                format!("{inbound}{files}[session]{rest}")
            }
        }
    }
}

impl Ask {
    pub(crate) fn target(self) -> String {
        match self {
            Self::Open => "/open".to_owned(),
            Self::Across => "/across/a".to_owned(),
            Self::Only(Generation(number)) | Self::Anybody(Generation(number)) => {
                format!("/only/{number}")
            }
            Self::Body => "/body".to_owned(),
            Self::Limited => "/limited".to_owned(),
            Self::Me => "/me".to_owned(),
        }
    }

    /// The number of the app that it goes to in that generation.
    pub(crate) fn app(self, generation: Generation) -> usize {
        match self {
            Self::Across => 1 - generation.app(),
            Self::Only(open) | Self::Anybody(open) if open == generation => 1 - generation.app(),
            _ => generation.app(),
        }
    }

    /// Whether that generation may answer so to whoever shows that token.
    pub(crate) fn allows(self, generation: Generation, status: u16, shown: Option<Sealed>) -> bool {
        let Some(sealed) = shown else {
            return self.passes(generation, status);
        };
        let mut by = sealed.from.0..=sealed.to.0;
        by.any(|by| match generation.opens(by) {
            true => self.passes(generation, status),
            false => status == 401,
        })
    }

    /// The same if the token is good, or there is none.
    fn passes(self, generation: Generation, status: u16) -> bool {
        match self {
            Self::Anybody(open) if open != generation => status == 401,
            Self::Body if !generation.takes_body() => status == 413,
            // The first one passes.
            Self::Limited if generation.is_limited() => status == 200 || status == 429,
            _ => status == 200,
        }
    }
}
