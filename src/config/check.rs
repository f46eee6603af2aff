//! From what was written to what is meant.
//!
//! Every key is checked even if others are wrong, so that one run tells all: a faulty value becomes `None`, the next key
//! is looked at, and only at the end do the pieces become a [`Config`] or not. Rules between keys stand in
//! [`Check::across`]; they look at the values again, and keep silent about those that are faulty by themselves.

mod media;
pub(super) mod push;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use toml::Spanned;
use tracing::Level;
use zeroize::Zeroizing;

use super::api_security;
use super::diagnostic::{Fault, Sink, nearest};
use super::files::Files;
use super::raw::{self, Field, NumberOrText, Raw, Text, Texts};
use super::tls::{Material, Part};
use super::values::{self, one_of};
use super::words;
use super::{
    Admin, ApiSecurity, App, Auth, Authorities, Breaker, Cidr, Config, EgressProxy, Endpoint,
    Inbound, Listen, Log, OpenData, Outbound, Redis, RedisMode, RedisNode, Route, Session, Store,
    Tls, Trace, TrustedProxies, Upstream, VirtualPayment, Wechat,
};
use crate::clock::Clock;
use crate::crypto::gcm::Gcm;
use crate::crypto::signature::{PrivateKey, PublicKey};
use crate::domain::AppId;
use crate::secret::Secret;
use crate::wechat::api_security::{KeyNumber, Numbered, Paths};

pub(super) const INBOUND_LISTEN: &str = "0.0.0.0:8080";
const OUTBOUND_LISTEN: &str = "127.0.0.1:8081";
pub(super) const ADMIN_LISTEN: &str = "127.0.0.1:9901";
pub(super) const DRAIN_DELAY: &str = "5s";
pub(super) const DRAIN_TIMEOUT: &str = "25s";
const PREFIX: &str = "/wx";
const MIN_PAUSE: &str = "1s";
const MAX_PAUSE: &str = "60s";
const ACCESS_TTL: &str = "2h";
const REFRESH_TTL: &str = "30d";

pub(super) const MOST_WORKERS: i64 = 256;
pub(super) const MOST_CONNECTIONS: i64 = 1_000_000;
pub(super) const MOST_REQUESTS: i64 = 1_000_000;
pub(super) const MOST_FAILURES: i64 = 1_000;
/// Whether this build can send spans anywhere.
const EXPORTS_SPANS: bool = cfg!(feature = "otlp");
const LONGEST_GRACE: Duration = Duration::from_secs(60);
const LONGEST_STORE_TIMEOUT: Duration = Duration::from_secs(1);
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A part of the sidecar, the level at which it is heard, and where that stands.
type PartLevel = ((&'static str, Level), Option<Range<usize>>);

/// The least a session key may have, in bytes.
const SHORTEST_KEY: usize = 16;

const KNOWN_METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// Checks everything; `None` if an error was reported. Secret files are relative to `directory`.
pub(super) fn check(raw: &Raw, directory: &Path, files: &Files, sink: &mut Sink) -> Option<Config> {
    let mut check = Check {
        directory,
        files,
        sink,
    };
    let app = check.app(&raw.app);
    let inbound = check.inbound(&raw.inbound);
    let routes = check.routes(&raw.routes, inbound.as_ref());
    let session = check.session(&raw.session);
    let open_data = check.open_data(&raw.open_data);
    let wechat = check.wechat(&raw.wechat);
    let outbound = check.outbound(&raw.outbound);
    let push = match &raw.push {
        None => Some(None),
        Some(raw) => check.push(raw).map(Some),
    };
    let media = check.media(&raw.media);
    check.media_of_strangers(raw, routes.as_deref().unwrap_or_default());
    let store = check.store(&raw.store);
    let admin = check.admin(&raw.admin);
    let log = check.log(&raw.log);
    let trace = check.trace(&raw.trace);
    check.across(raw);
    Some(Config {
        app: app?,
        inbound: inbound?,
        routes: routes?,
        session: session?,
        open_data: open_data?,
        wechat: wechat?,
        outbound: outbound?,
        push: push?,
        media: media?,
        store: store?,
        admin: admin?,
        log: log?,
        trace: trace?,
    })
}

struct Check<'a> {
    directory: &'a Path,
    files: &'a Files,
    sink: &'a mut Sink,
}

/// A listener as it is written.
struct Listener {
    name: &'static str,
    place: Option<Listen>,
    span: Option<Range<usize>>,
}

impl Listener {
    /// Whether both cannot listen.
    fn is_where(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Some(Listen::Tcp(one)), Some(Listen::Tcp(other))) => {
                let same_ip = one.ip() == other.ip()
                    || one.ip().is_unspecified()
                    || other.ip().is_unspecified();
                one.port() == other.port() && one.port() != 0 && same_ip
            }
            (Some(one), Some(other)) => one == other,
            _ => false,
        }
    }
}

/// The two ways to give a secret, and what they are called.
struct SecretKeys<'a> {
    literal: (&'static str, &'a Field<Texts>),
    file: (&'static str, &'a Field<Texts>),
}

impl SecretKeys<'_> {
    fn span(&self) -> Option<Range<usize>> {
        self.literal.1.span().or(self.file.1.span())
    }
}

impl Check<'_> {
    fn app(&mut self, raw: &raw::App) -> Option<App> {
        let appid = self.required(&raw.appid, app_id, || {
            let fault = Fault::new("`[app] appid` is missing")
                .help("write appid = \"wx0123456789abcdef\" below `[app]`, with your Mini Program's AppID");
            (raw.header.clone(), fault)
        });
        let keys = SecretKeys {
            literal: ("secret", &raw.secret),
            file: ("secret_file", &raw.secret_file),
        };
        let secrets = self.secrets(&keys, app_secret);
        if let Some([]) = secrets.as_deref() {
            let fault = Fault::new("`[app] secret` is missing").help(
                "write secret = \"${WX_APP_SECRET}\" or secret_file = \"/path\" below `[app]`",
            );
            self.sink.missing(raw.header.clone(), fault);
        }
        let env = self.text(&raw.env, "prod", values::env);
        Some(App {
            appid: appid?,
            secrets: secrets.filter(|s| !s.is_empty())?,
            env: env?,
        })
    }

    fn inbound(&mut self, raw: &raw::Inbound) -> Option<Inbound> {
        let listen = self.text(&raw.listen, INBOUND_LISTEN, values::listen);
        let upstream = self.required(&raw.upstream, values::upstream, || {
            let fault = Fault::new("`[inbound] upstream` is missing")
                .help("write upstream = \"http://127.0.0.1:3000\" below `[inbound]`, with your app's port");
            (raw.header.clone(), fault)
        });
        let prefix = self.text(&raw.prefix, PREFIX, values::prefix);
        let auth = self.text(&raw.auth, "required", |text| one_of(text, words::AUTH));
        let workers = self.workers(&raw.workers);
        let trusted_proxies = self.trusted_proxies(&raw.trusted_proxies);
        let proxy_protocol = self.value(&raw.proxy_protocol, || Ok(false), |on| Ok(*on));
        if proxy_protocol == Some(true) && trusted_proxies == Some(TrustedProxies::default()) {
            let fault = Fault::new("nobody's PROXY header would be read: no proxy is trusted")
                .help("name the load balancer's addresses in `trusted_proxies`");
            self.sink.error(raw.proxy_protocol.span(), fault);
        }
        let body_limit = self.text(&raw.body_limit, "10MiB", values::size);
        let header_limit = self.text(&raw.header_limit, "64KiB", values::header_limit);
        let timeout = self.text(&raw.timeout, "30s", values::duration);
        let connect_timeout = self.text(&raw.connect_timeout, "3s", values::duration);
        let header_timeout = self.text(&raw.header_timeout, "10s", values::duration);
        let idle_timeout = self.text(&raw.idle_timeout, "60s", values::duration);
        let tunnel_timeout = self.text(&raw.tunnel_timeout, "1h", values::duration);
        let max_connections = self.value(
            &raw.max_connections,
            || Ok(10_000),
            |n| whole_within(*n, MOST_CONNECTIONS),
        );
        let max_requests = self.value(
            &raw.max_requests,
            || Ok(10_000),
            |n| whole_within(*n, MOST_REQUESTS),
        );
        let buffer_limit = self.text(&raw.buffer_limit, "64MiB", values::size);
        let rate_limit = self.text(&raw.rate_limit, "none", values::rate_limit);
        let login_rate_limit =
            self.text(&raw.login_rate_limit, "50/s burst 200", values::rate_limit);
        let drain_delay = self.text(&raw.drain_delay, DRAIN_DELAY, values::duration_or_zero);
        let drain_timeout = self.text(&raw.drain_timeout, DRAIN_TIMEOUT, values::duration);
        let escaped_slashes = self.text(&raw.escaped_slashes, "reject", |text| {
            one_of(text, words::ESCAPED_SLASHES)
        });
        let tls = match &raw.tls {
            None => Some(None),
            Some(raw) => self.tls(raw).map(Some),
        };
        Some(Inbound {
            listen: listen?,
            upstream: upstream?,
            prefix: prefix?,
            auth: auth?,
            workers: workers?,
            trusted_proxies: trusted_proxies?,
            proxy_protocol: proxy_protocol?,
            body_limit: body_limit?,
            header_limit: header_limit?,
            timeout: timeout?,
            connect_timeout: connect_timeout?,
            header_timeout: header_timeout?,
            idle_timeout: idle_timeout?,
            tunnel_timeout: tunnel_timeout?,
            max_connections: max_connections?,
            max_requests: max_requests?,
            buffer_limit: buffer_limit?,
            rate_limit: rate_limit?,
            login_rate_limit: login_rate_limit?,
            drain_delay: drain_delay?,
            drain_timeout: drain_timeout?,
            escaped_slashes: escaped_slashes?,
            tls: tls?,
        })
    }

    fn tls(&mut self, raw: &raw::Tls) -> Option<Tls> {
        let missing = |name: &str| {
            let fault = Fault::new(format!("`[inbound.tls] {name}` is missing"))
                .help("TLS needs `cert_file` and `key_file`, in PEM");
            (raw.header.clone(), fault)
        };
        let cert_file = self.required(&raw.cert_file, path, || missing("cert_file"));
        let key_file = self.required(&raw.key_file, path, || missing("key_file"));
        let client_ca_file = self.given(&raw.client_ca_file, path);
        let handshake_timeout = self.text(&raw.handshake_timeout, "10s", values::duration);
        let certificates = cert_file.and_then(|file| self.public_file(&file, &raw.cert_file));
        let key = key_file.and_then(|file| self.private_file(&file, &raw.key_file));
        let client_ca = match client_ca_file? {
            None => None,
            Some(file) => Some(self.public_file(&file, &raw.client_ca_file)?),
        };
        let (certificates, key) = (certificates?, key?);
        let material = Material {
            certificates: &certificates,
            key: key.as_bytes(),
            client_ca: client_ca.as_deref().map(Vec::as_slice),
        };
        match Tls::new(&material, handshake_timeout?) {
            Ok(tls) => {
                if let Some(said) = tls.out_of_date(Clock::System.now()) {
                    let help = "clients refuse it; put another into `cert_file`, with its key: that takes no restart";
                    self.sink
                        .warn(raw.cert_file.span(), Fault::new(said).help(help));
                }
                Some(tls)
            }
            Err((part, fault)) => {
                let span = match part {
                    Part::Certificates => raw.cert_file.span(),
                    Part::Key => raw.key_file.span(),
                    Part::ClientCa => raw.client_ca_file.span(),
                };
                self.sink.error(span, fault);
                None
            }
        }
    }

    fn public_file(&mut self, file: &str, field: &Field<Text>) -> Option<Zeroizing<Vec<u8>>> {
        let read = self.files.open(&self.directory.join(file), shown(field));
        self.read(read, field.span())
    }

    fn private_file(&mut self, file: &str, field: &Field<Text>) -> Option<Zeroizing<String>> {
        let shown = shown(field);
        let read = self.files.secret(&self.directory.join(file), shown);
        let file = self.read(read, field.span())?;
        if file.world_readable {
            self.warn_world_readable(shown, field.span());
        }
        Some(file.text)
    }

    fn warn_world_readable(&mut self, shown: &str, span: Option<Range<usize>>) {
        let fault = Fault::new(format!(
            "the file `{shown}` can be read by every user of this machine"
        ));
        self.sink.warn(
            span,
            fault.help("chmod o-r, or `defaultMode: 0440` on a Kubernetes volume"),
        );
    }

    fn routes(&mut self, raws: &[raw::Route], inbound: Option<&Inbound>) -> Option<Vec<Route>> {
        let routes: Vec<Option<Route>> = raws.iter().map(|raw| self.route(raw, inbound)).collect();
        routes.into_iter().collect()
    }

    /// A route, with what it leaves out taken from `[inbound]`.
    fn route(&mut self, raw: &raw::Route, inbound: Option<&Inbound>) -> Option<Route> {
        let path = self.required(&raw.path, values::pattern, || {
            let fault = Fault::new("a `[[route]]` needs a `path`")
                .help("write path = \"/api/**\" below `[[route]]`");
            (raw.header.clone(), fault)
        });
        let methods = self.methods(&raw.methods);
        let login = self.value(&raw.login, || Ok(false), |login| Ok(*login));
        let open_data = self.value(&raw.open_data, || Ok(false), |on| Ok(*on));
        let media = self.given(&raw.media, |text| one_of(text, words::ROUTE_MEDIA));
        let text_check = match &raw.text_check {
            None => Some(None),
            Some(raw) => self.text_check(raw).map(Some),
        };
        let auth = self.given(&raw.auth, |text| one_of(text, words::AUTH));
        let timeout = self.given(&raw.timeout, values::duration);
        let body_limit = self.given(&raw.body_limit, values::size);
        let rate_limit = self.given(&raw.rate_limit, values::rate_limit);
        let upstream = self.given(&raw.upstream, values::upstream);
        if login == Some(true) && auth == Some(Some(Auth::Required)) {
            let fault = Fault::new("who logs in has no token yet, and this route asks for one")
                .help("leave `auth` out: it is \"none\" where `login` is true")
                .also(raw.login.span(), "who comes here logs in");
            self.sink.warn(raw.auth.span(), fault);
        }
        let inbound = inbound?;
        let login = login?;
        let usual_auth = if login { Auth::None } else { inbound.auth };
        let auth = auth?.unwrap_or(usual_auth);
        self.checks_strangers(raw, auth != Auth::Required);
        Some(Route {
            path: path?,
            methods: methods?,
            auth,
            login,
            open_data: open_data?,
            media_upload: media?.is_some(),
            text_check: text_check?,
            timeout: timeout?.unwrap_or(inbound.timeout),
            body_limit: body_limit?.unwrap_or(inbound.body_limit),
            rate_limit: rate_limit?.unwrap_or(inbound.rate_limit),
            upstream: upstream?.unwrap_or_else(|| inbound.upstream.clone()),
        })
    }

    fn session(&mut self, raw: &raw::Session) -> Option<Session> {
        let access_ttl = self.text(&raw.access_ttl, ACCESS_TTL, values::duration);
        let refresh_ttl = self.text(&raw.refresh_ttl, REFRESH_TTL, values::duration);
        let refresh_grace = self.text(&raw.refresh_grace, "10s", |text| {
            let grace = values::duration_or_zero(text)?;
            if grace > LONGEST_GRACE {
                return Err(Fault::new(
                    "this must be \"60s\" at the most: a stolen token works that long",
                ));
            }
            Ok(grace)
        });
        let keys = SecretKeys {
            literal: ("key", &raw.key),
            file: ("key_file", &raw.key_file),
        };
        let keys = self.secrets(&keys, session_key);
        let assertion = self.value(&raw.assertion, || Ok(false), |on| Ok(*on));
        Some(Session {
            access_ttl: access_ttl?,
            refresh_ttl: refresh_ttl?,
            refresh_grace: refresh_grace?,
            keys: keys?,
            assertion: assertion?,
        })
    }

    fn open_data(&mut self, raw: &raw::OpenData) -> Option<OpenData> {
        let max_age = self.text(&raw.max_age, "1d", |text| match text {
            "none" => Ok(None),
            _ => values::duration(text).map(Some),
        });
        Some(OpenData { max_age: max_age? })
    }

    fn wechat(&mut self, raw: &raw::Wechat) -> Option<Wechat> {
        let endpoints = self.endpoints(&raw.endpoints);
        let authorities = self.authorities(&raw.ca_file, endpoints.as_deref());
        let egress_proxy = self.egress_proxy(raw);
        let connect_timeout = self.text(&raw.connect_timeout, "3s", values::duration);
        let timeout = self.text(&raw.timeout, "8s", values::duration);
        let breaker = self.breaker(&raw.breaker);
        let virtual_payment = match &raw.virtual_payment {
            None => Some(VirtualPayment::default()),
            Some(raw) => self.virtual_payment(raw),
        };
        let api_security = match &raw.api_security {
            None => Some(None),
            Some(raw) => self.api_security(raw).map(Some),
        };
        Some(Wechat {
            endpoints: endpoints?,
            authorities: authorities?,
            egress_proxy: egress_proxy?,
            connect_timeout: connect_timeout?,
            timeout: timeout?,
            api_security: api_security?.map(Arc::new),
            breaker: breaker?,
            virtual_payment: virtual_payment?,
        })
    }

    fn breaker(&mut self, raw: &raw::Breaker) -> Option<Breaker> {
        let enabled = self.value(&raw.enabled, || Ok(true), |on| Ok(*on));
        let failures = self.value(&raw.failures, || Ok(5), |n| whole_within(*n, MOST_FAILURES));
        let min_pause = self.text(&raw.min_pause, MIN_PAUSE, values::duration);
        let max_pause = self.text(&raw.max_pause, MAX_PAUSE, values::duration);
        Some(Breaker {
            enabled: enabled?,
            failures: failures?,
            min_pause: min_pause?,
            max_pause: max_pause?,
        })
    }

    fn virtual_payment(&mut self, raw: &raw::VirtualPayment) -> Option<VirtualPayment> {
        let app_key = SecretKeys {
            literal: ("app_key", &raw.app_key),
            file: ("app_key_file", &raw.app_key_file),
        };
        let app_key = self.one_secret(&app_key);
        let sandbox_app_key = SecretKeys {
            literal: ("sandbox_app_key", &raw.sandbox_app_key),
            file: ("sandbox_app_key_file", &raw.sandbox_app_key_file),
        };
        let sandbox_app_key = self.one_secret(&sandbox_app_key);
        Some(VirtualPayment {
            app_key: app_key?,
            sandbox_app_key: sandbox_app_key?,
        })
    }

    fn outbound(&mut self, raw: &raw::Outbound) -> Option<Outbound> {
        let listen = self.text(&raw.listen, OUTBOUND_LISTEN, values::listen_or_off);
        let keys = SecretKeys {
            literal: ("caller_token", &raw.caller_token),
            file: ("caller_token_file", &raw.caller_token_file),
        };
        let caller_tokens = self.secrets(&keys, shown_token);
        if let (Some(Some(Listen::Tcp(addr))), Some([])) = (&listen, caller_tokens.as_deref())
            && !addr.ip().to_canonical().is_loopback()
        {
            let fault = Fault::new("whoever reaches this address could call WeChat in your name")
                .help("listen on \"127.0.0.1:8081\", or write caller_token = \"${WX_CALLER_TOKEN}\", which the app shows as its AppSecret");
            self.sink.error(raw.listen.span(), fault);
            return None;
        }
        let allow = self.list(&raw.allow, &["/**"], values::pattern);
        let deny = self.list(&raw.deny, &[], values::pattern);
        let errors = self.text(&raw.errors, "raw", |text| one_of(text, words::ERRORS));
        let timeout = self.text(&raw.timeout, "30s", values::duration);
        let body_limit = self.text(&raw.body_limit, "32MiB", values::size);
        let replay_limit = self.text(&raw.replay_limit, "1MiB", values::size);
        let max_requests = self.value(
            &raw.max_requests,
            || Ok(1_000),
            |n| whole_within(*n, MOST_REQUESTS),
        );
        let quota_interval = self.text(&raw.quota_interval, "1h", |text| match text {
            "none" => Ok(None),
            _ => values::duration(text).map(Some),
        });
        let patterns = |list: Vec<(String, _)>| list.into_iter().map(|(text, _)| text).collect();
        Some(Outbound {
            listen: listen?,
            caller_tokens: caller_tokens?,
            allow: allow.map(patterns)?,
            deny: deny.map(patterns)?,
            errors: errors?,
            timeout: timeout?,
            body_limit: body_limit?,
            replay_limit: replay_limit?,
            max_requests: max_requests?,
            quota_interval: quota_interval?,
        })
    }

    fn api_security(&mut self, raw: &raw::ApiSecurity) -> Option<ApiSecurity> {
        let paths = self.secured_paths(raw);
        let symmetric = self.symmetric_key(raw);
        let private = self.private_key(raw);
        let certificates = self.platform_certificates(raw);
        Some(ApiSecurity {
            paths: paths?,
            symmetric: symmetric?,
            private: private?,
            certificates: certificates?,
        })
    }

    fn secured_paths(&mut self, raw: &raw::ApiSecurity) -> Option<Paths> {
        self.present(&raw.paths, || api_security::missing(raw, "paths"))?;
        let written = self.list(&raw.paths, &[], api_security::path)?;
        let paths: Option<Vec<String>> = written.iter().map(|(path, _)| path.clone()).collect();
        match paths {
            Some(paths) if !paths.is_empty() => {
                for (path, span) in written {
                    if let Some(doubt) = path.as_deref().and_then(api_security::doubt_about) {
                        self.sink.warn(span, doubt);
                    }
                }
                Some(Paths::These(paths))
            }
            None if written.len() == 1 => Some(Paths::All),
            None => {
                let fault = Fault::new("\"all\" has the others in it")
                    .help("write paths = \"all\", or leave \"all\" out");
                self.sink.error(raw.paths.span(), fault);
                None
            }
            Some(_) => {
                let fault = Fault::new("no call would be encrypted")
                    .help("write paths = \"all\", or leave `[wechat.api_security]` out");
                self.sink.error(raw.paths.span(), fault);
                None
            }
        }
    }

    fn symmetric_key(&mut self, raw: &raw::ApiSecurity) -> Option<Numbered<Gcm>> {
        let missing = |name| move || api_security::missing(raw, name);
        let cipher = |text: &str| one_of(text, api_security::CIPHERS);
        let cipher = self.required(&raw.sym_algorithm, cipher, missing("sym_algorithm"));
        let keys = SecretKeys {
            literal: ("sym_key", &raw.sym_key),
            file: ("sym_key_file", &raw.sym_key_file),
        };
        let key = self.required_secret(&keys, missing("sym_key"));
        let number = self.key_number(&raw.sym_sn, missing("sym_sn"));
        let (cipher, (key, span)) = (cipher?, key?);
        let key = self.read(api_security::symmetric(cipher, key.expose()), span);
        Some(Numbered {
            number: number?,
            key: key?,
        })
    }

    fn private_key(&mut self, raw: &raw::ApiSecurity) -> Option<Numbered<PrivateKey>> {
        let missing = |name| move || api_security::missing(raw, name);
        let scheme = |text: &str| one_of(text, api_security::SCHEMES);
        let scheme = self.required(&raw.asym_algorithm, scheme, missing("asym_algorithm"));
        let keys = SecretKeys {
            literal: ("private_key", &raw.private_key),
            file: ("private_key_file", &raw.private_key_file),
        };
        let key = self.required_secret(&keys, missing("private_key"));
        let number = self.key_number(&raw.asym_sn, missing("asym_sn"));
        let (scheme, (key, span)) = (scheme?, key?);
        // A key is looked at even if it has no good number, which is part of it.
        let id = number.as_ref().map_or("", KeyNumber::as_str);
        let key = self.read(api_security::private(scheme, key.expose(), id), span);
        Some(Numbered {
            number: number?,
            key: key?,
        })
    }

    fn platform_certificates(
        &mut self,
        raw: &raw::ApiSecurity,
    ) -> Option<Vec<Numbered<PublicKey>>> {
        let missing = |name| move || api_security::missing(raw, name);
        let files = self.present(&raw.certificate_file, missing("certificate_file"));
        let numbers = self.present(&raw.certificate_sn, missing("certificate_sn"));
        let files = files.and_then(|()| {
            self.each(&raw.certificate_file, |check, text, span| {
                let path = check.directory.join(&text.value);
                let pem = check.files.open(&path, text.shown_as_file());
                let pem = check.read(pem, span.clone())?;
                let der = check.read(api_security::certificate(&pem), span.clone())?;
                Some((der, span))
            })
        });
        let numbers = numbers.and_then(|()| {
            self.each(&raw.certificate_sn, |check, text, span| {
                let number = check.read(api_security::number(&text.value), span.clone())?;
                if let Some(doubt) = api_security::doubt_about_number(&number) {
                    check.sink.warn(span.clone(), doubt);
                }
                Some((number, span))
            })
        });
        let (files, numbers) = (files?, numbers?);
        if files.len() != numbers.len() {
            let (files, numbers) = (files.len(), numbers.len());
            let fault = Fault::new(format!(
                "there are {numbers} numbers for {files} certificates"
            ))
            .help("each certificate has its number at the same place in the other list");
            self.sink.error(raw.certificate_sn.span(), fault);
            return None;
        }
        let mut seen = Vec::new();
        let mut certificates = Vec::new();
        for ((der, file), (number, span)) in files.into_iter().zip(numbers) {
            let certificate = self.read(api_security::platform_key(&der, &number), file);
            if certificate.as_ref().is_some_and(|it| it.doubtful_number) {
                self.sink.warn(span.clone(), api_security::own_serial());
            }
            if seen.contains(&number) {
                let fault = Fault::new("another certificate has this number")
                    .help("each has a number of its own at mp.weixin.qq.com");
                self.sink.error(span, fault);
            }
            seen.push(number.clone());
            certificates.push(certificate.map(|it| Numbered {
                number,
                key: it.key,
            }));
        }
        certificates.into_iter().collect()
    }

    fn key_number(
        &mut self,
        field: &Field<Text>,
        missing: impl FnOnce() -> (Option<Range<usize>>, Fault),
    ) -> Option<KeyNumber> {
        let number = self.required(field, api_security::number, missing)?;
        if let Some(doubt) = api_security::doubt_about_number(&number) {
            self.sink.warn(field.span(), doubt);
        }
        Some(number)
    }

    fn store(&mut self, raw: &raw::Store) -> Option<Store> {
        let is_redis = self.text(&raw.kind, "memory", |text| one_of(text, words::STORES));
        let redis = self.redis(raw, is_redis == Some(true));
        if is_redis? {
            return self.read(store_in_redis(redis?), raw.kind.span());
        }
        let keys = [
            raw.url.span(),
            raw.url_file.span(),
            raw.mode.span(),
            raw.master.span(),
            raw.ca_file.span(),
            raw.required.span(),
        ];
        if let Some(span) = keys.into_iter().flatten().next() {
            let fault = Fault::new("this is for the store \"redis\", and the store is \"memory\"")
                .help("write kind = \"redis\" below `[store]`, or leave this out");
            self.sink.error(Some(span), fault);
            return None;
        }
        Some(Store::Memory)
    }

    /// Looks at all that is written, even if it is not `wanted`.
    fn redis(&mut self, raw: &raw::Store, wanted: bool) -> Option<Redis> {
        let timeout = self.text(&raw.timeout, "200ms", |text| {
            let timeout = values::duration(text)?;
            if timeout > LONGEST_STORE_TIMEOUT {
                return Err(Fault::new(
                    "this must be \"1s\" at the most: a login waits for several of them",
                ));
            }
            Ok(timeout)
        });
        let required = self.value(&raw.required, || Ok(false), |required| Ok(*required));
        let mode = self.text(&raw.mode, "single", |text| one_of(text, words::REDIS_MODES));
        let mode = self.master(raw, mode);
        let keys = SecretKeys {
            literal: ("url", &raw.url),
            file: ("url_file", &raw.url_file),
        };
        let urls = self.secrets(&keys, |text| values::redis_node(text, 0).map(|_| None));
        if let (Some([]), true) = (urls.as_deref(), wanted) {
            let fault = Fault::new("`[store] url` is missing").help(
                "write url = \"redis://127.0.0.1:6379\" or url_file = \"/path\" below `[store]`",
            );
            self.sink.missing(raw.header.clone(), fault);
            return None;
        }
        let (urls, mode) = (urls?, mode?);
        let port = match mode {
            RedisMode::Sentinel { .. } => SENTINEL_PORT,
            RedisMode::Single | RedisMode::Cluster => REDIS_PORT,
        };
        let nodes = urls
            .iter()
            .map(|url| values::redis_node(url.expose(), port));
        // What is wrong with a URL has been told at its place.
        let nodes: Vec<RedisNode> = nodes.collect::<Result<_, _>>().ok()?;
        let at = raw.url.span().or(raw.url_file.span());
        self.read(values::redis_nodes(&nodes, &mode), at)?;
        let ca = self.redis_ca(raw, &nodes)?;
        Some(Redis {
            nodes,
            mode,
            ca,
            timeout: timeout?,
            required: required?,
        })
    }

    fn master(&mut self, raw: &raw::Store, mode: Option<RedisMode>) -> Option<RedisMode> {
        let is_sentinel = matches!(mode, Some(RedisMode::Sentinel { .. }));
        let name = |text: &str| {
            let plain = text.bytes().all(|b| b.is_ascii_graphic());
            if text.is_empty() || !plain {
                return Err(Fault::new(
                    "the name of a master is of visible ASCII characters",
                ));
            }
            Ok(text.to_owned())
        };
        match self.given(&raw.master, name)? {
            Some(master) if is_sentinel => Some(RedisMode::Sentinel { master }),
            Some(_) if mode.is_some() => {
                let fault = Fault::new("only Sentinels are asked for a master")
                    .help("write mode = \"sentinel\", or leave this out");
                self.sink.error(raw.master.span(), fault);
                None
            }
            None if is_sentinel => {
                let fault = Fault::new("`[store] master` is missing")
                    .help("write master = \"mymaster\", or what your Sentinels call it");
                self.sink.missing(raw.mode.span(), fault);
                None
            }
            Some(_) | None => mode,
        }
    }

    fn redis_ca(&mut self, raw: &raw::Store, nodes: &[RedisNode]) -> Option<Option<Vec<u8>>> {
        let Some(file) = self.given(&raw.ca_file, path)? else {
            return Some(None);
        };
        let pem = self.public_file(&file, &raw.ca_file)?;
        self.read(super::tls::roots(&pem), raw.ca_file.span())?;
        if !nodes.is_empty() && !nodes.iter().any(|node| node.tls) {
            let fault = Fault::new("nobody shows a certificate here: no URL asks for TLS")
                .help("TLS is spoken with \"rediss://...\"");
            self.sink.error(raw.ca_file.span(), fault);
            return None;
        }
        Some(Some(pem.to_vec()))
    }

    fn admin(&mut self, raw: &raw::Admin) -> Option<Admin> {
        let listen = self.text(&raw.listen, ADMIN_LISTEN, values::listen);
        let keys = SecretKeys {
            literal: ("token", &raw.token),
            file: ("token_file", &raw.token_file),
        };
        let tokens = self.secrets(&keys, shown_token);
        let inspector = self.value(&raw.inspector, || Ok(false), |on| Ok(*on));
        Some(Admin {
            listen: listen?,
            tokens: tokens?,
            inspector: inspector?,
        })
    }

    fn log(&mut self, raw: &raw::Log) -> Option<Log> {
        let format = self.text(&raw.format, "json", |text| one_of(text, words::LOG_FORMATS));
        let level = self.text(&raw.level, "info", |text| one_of(text, words::LOG_LEVELS));
        let levels = self.list(&raw.levels, &[], values::part_level);
        let access = self.text(&raw.access, "off", |text| one_of(text, words::LOG_ACCESS));
        let access_sample = self.value(
            &raw.access_sample,
            || Ok(1),
            |n| whole_within(*n, MOST_REQUESTS),
        );
        let access_path = self.value(&raw.access_path, || Ok(false), |path| Ok(*path));
        let levels = self.each_part_once(levels?)?;
        Some(Log {
            format: format?,
            level: level?,
            levels,
            access: access?,
            access_sample: access_sample?,
            access_path: access_path?,
        })
    }

    /// What is said of a part of the sidecar twice could only be meant once.
    fn each_part_once(&mut self, levels: Vec<PartLevel>) -> Option<Vec<(&'static str, Level)>> {
        let mut once: Vec<(&'static str, Level)> = Vec::new();
        for ((part, level), span) in levels {
            if once.iter().any(|(known, _)| *known == part) {
                let fault = Fault::new("the level of this part is given twice");
                self.sink.error(span, fault);
                return None;
            }
            once.push((part, level));
        }
        Some(once)
    }

    fn trace(&mut self, raw: &raw::Trace) -> Option<Trace> {
        let endpoint = self.given(&raw.endpoint, |text| {
            let endpoint = values::collector(text)?;
            exported(endpoint, EXPORTS_SPANS)
        });
        let sample = self.given(&raw.sample, values::share);
        let service = self.given(&raw.service, service);
        let clients = self.text(&raw.clients, "new", |text| {
            one_of(text, words::CLIENT_TRACES)
        });
        Some(Trace {
            endpoint: endpoint?,
            sample: sample?,
            service: service?,
            clients: clients?,
        })
    }

    fn workers(&mut self, field: &Field<NumberOrText>) -> Option<usize> {
        let advice = "write a number from 1 to 256 without quotes, or \"auto\"";
        let auto = || Ok(available_parallelism().map_or(1, usize::from));
        self.value(field, auto, |workers| match workers {
            NumberOrText::Number(n) => whole_within(*n, MOST_WORKERS),
            NumberOrText::Text(text) if text.value == "auto" => auto(),
            NumberOrText::Text(_) => {
                Err(Fault::new("`workers` takes a whole number or \"auto\"").help(advice))
            }
        })
    }

    fn trusted_proxies(&mut self, field: &Field<Texts>) -> Option<TrustedProxies> {
        let written = self.list(field, &[], |text| match text {
            "unix" => Ok(None),
            _ => values::cidr(text).map(Some),
        })?;
        let mut checked = TrustedProxies::default();
        for (written, span) in written {
            let Some(written) = written else {
                checked.unix = true;
                continue;
            };
            let network = Cidr {
                addr: masked(written),
                prefix: written.prefix,
            };
            if network.prefix == 0 {
                let fault = Fault::new("everybody is trusted here to say who the client is")
                    .help("name the addresses of your proxies only");
                self.sink.warn(span, fault);
            } else if network.addr != written.addr {
                let fault = Fault::new("this address has bits beyond those that count")
                    .help(format!("write \"{}/{}\"", network.addr, network.prefix));
                self.sink.warn(span, fault);
            }
            checked.networks.push(network);
        }
        Some(checked)
    }

    fn endpoints(&mut self, field: &Field<Texts>) -> Option<Vec<Endpoint>> {
        let endpoints = self.list(field, &["https://api.weixin.qq.com"], values::endpoint)?;
        if endpoints.is_empty() {
            let fault = Fault::new("there must be one endpoint at least")
                .help("leave `endpoints` out for \"https://api.weixin.qq.com\"");
            self.sink.error(field.span(), fault);
            return None;
        }
        for (endpoint, span) in &endpoints {
            if !endpoint.tls {
                let fault = Fault::new("AppSecret and tokens go over the network in clear here")
                    .help("`http://` is for simulators; WeChat's servers are at \"https://...\"");
                self.sink.warn(span.clone(), fault);
            }
        }
        Some(
            endpoints
                .into_iter()
                .map(|(endpoint, _)| endpoint)
                .collect(),
        )
    }

    /// Who vouches for `endpoints`, if not the usual authorities do.
    fn authorities(
        &mut self,
        field: &Field<Text>,
        endpoints: Option<&[Endpoint]>,
    ) -> Option<Option<Authorities>> {
        let Some(file) = self.given(field, path)? else {
            return Some(None);
        };
        let pem = self.public_file(&file, field)?;
        let authorities = self.read(Authorities::from_pem(&pem), field.span())?;
        if endpoints.is_some_and(|endpoints| !endpoints.iter().any(|endpoint| endpoint.tls)) {
            let fault = Fault::new("nobody shows a certificate here: no endpoint asks for TLS")
                .help("TLS is spoken with \"https://...\"");
            self.sink.error(field.span(), fault);
            return None;
        }
        Some(Some(authorities))
    }

    fn egress_proxy(&mut self, raw: &raw::Wechat) -> Option<Option<EgressProxy>> {
        let keys = SecretKeys {
            literal: ("egress_proxy", &raw.egress_proxy),
            file: ("egress_proxy_file", &raw.egress_proxy_file),
        };
        let urls = self.secrets(&keys, |text| values::egress_proxy(text).map(|_| None))?;
        match urls.as_slice() {
            [] => Some(None),
            // What is wrong with it has been told at its place.
            [url] => values::egress_proxy(url.expose()).ok().map(Some),
            _ => {
                let fault = Fault::new("there is one proxy only")
                    .help("a name that stands for several addresses has them tried in turn");
                let at = raw.egress_proxy.span().or(raw.egress_proxy_file.span());
                self.sink.error(at, fault);
                None
            }
        }
    }

    fn methods(&mut self, field: &Field<Texts>) -> Option<Vec<String>> {
        let methods = self.list(field, &[], values::method)?;
        if methods.is_empty() && matches!(field, Field::Given(_)) {
            let fault = Fault::new("a route for no method never matches")
                .help("leave `methods` out for all methods");
            self.sink.error(field.span(), fault);
            return None;
        }
        let mut checked = Vec::new();
        for (method, span) in methods {
            let known = KNOWN_METHODS.contains(&method.as_str());
            if !known && let Some(near) = nearest(&method, KNOWN_METHODS.iter().copied()) {
                let fault = Fault::new("this is not one of HTTP's own methods");
                self.sink
                    .warn(span, fault.help(format!("did you mean \"{near}\"?")));
            }
            if !checked.contains(&method) {
                checked.push(method);
            }
        }
        Some(checked)
    }

    /// The secrets of a pair of keys, in order; none if neither is given.
    fn secrets(
        &mut self,
        keys: &SecretKeys<'_>,
        judge: fn(&str) -> Result<Option<Fault>, Fault>,
    ) -> Option<Vec<Secret>> {
        let (literal_name, literal) = keys.literal;
        let (file_name, file) = keys.file;
        let mut both = false;
        if let (Some(a), Some(b)) = (literal.span(), file.span()) {
            let (first, second) = if a.start > b.start { (b, a) } else { (a, b) };
            let fault = Fault::new(format!(
                "`{literal_name}` and `{file_name}` exclude each other"
            ))
            .help("keep one of the two")
            .also(Some(first), "the other one");
            self.sink.error(Some(second), fault);
            both = true;
        }
        let literals = self.each(literal, |check, text, span| {
            check.secret(text.value.as_str(), span, judge)
        });
        let files = self.each(file, |check, text, span| {
            let path = check.directory.join(&text.value);
            let shown = text.shown_as_file();
            match check.files.secret(&path, shown) {
                Ok(file) => {
                    if file.world_readable {
                        check.warn_world_readable(shown, span.clone());
                    }
                    check.secret(&file.text, span, judge)
                }
                Err(fault) => {
                    check.sink.error(span, fault);
                    None
                }
            }
        });
        let (mut secrets, files) = (literals?, files?);
        secrets.extend(files);
        (!both).then_some(secrets)
    }

    /// A secret of which there is one at the most.
    fn one_secret(&mut self, keys: &SecretKeys<'_>) -> Option<Option<Secret>> {
        let mut secrets = self.secrets(keys, |_| Ok(None))?;
        if secrets.len() > 1 {
            let fault = Fault::new("there is one key only, and this is a list of several");
            self.sink.error(keys.span(), fault);
            return None;
        }
        Some(secrets.pop())
    }

    /// A secret of which there is one, and where it is written.
    fn required_secret(
        &mut self,
        keys: &SecretKeys<'_>,
        missing: impl FnOnce() -> (Option<Range<usize>>, Fault),
    ) -> Option<(Secret, Option<Range<usize>>)> {
        let Some(secret) = self.one_secret(keys)? else {
            let (span, fault) = missing();
            self.sink.missing(span, fault);
            return None;
        };
        Some((secret, keys.span()))
    }

    fn secret(
        &mut self,
        text: &str,
        span: Option<Range<usize>>,
        judge: fn(&str) -> Result<Option<Fault>, Fault>,
    ) -> Option<Secret> {
        match judge(text) {
            Ok(None) => {}
            Ok(Some(doubt)) => self.sink.warn(span, doubt),
            Err(fault) => {
                self.sink.error(span, fault);
                return None;
            }
        }
        Some(Secret::new(text))
    }

    /// Each text of a list of secrets or of their files; an empty list is a mistake.
    fn each<T>(
        &mut self,
        field: &Field<Texts>,
        mut read: impl FnMut(&mut Self, &Text, Option<Range<usize>>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match field {
            Field::Absent => Some(Vec::new()),
            Field::Faulty => None,
            Field::Given(texts) if texts.get_ref().is_empty() => {
                let fault = Fault::new("this list is empty").help("write one value, or [new, old]");
                self.sink.error(field.span(), fault);
                None
            }
            Field::Given(texts) => {
                let read: Vec<Option<T>> = texts
                    .get_ref()
                    .iter()
                    .map(|text| read(self, text.get_ref(), Some(text.span())))
                    .collect();
                read.into_iter().collect()
            }
        }
    }

    /// The rules that more than one key has a part in.
    fn across(&mut self, raw: &Raw) {
        self.lifetimes(&raw.session);
        self.pauses(&raw.wechat.breaker);
        let listeners = [
            self.listener("[inbound] listen", &raw.inbound.listen, INBOUND_LISTEN),
            self.listener("[outbound] listen", &raw.outbound.listen, OUTBOUND_LISTEN),
            self.listener("[admin] listen", &raw.admin.listen, ADMIN_LISTEN),
        ];
        self.listeners(&listeners);
        let upstreams = raw.routes.iter().map(|route| &route.upstream);
        for field in std::iter::once(&raw.inbound.upstream).chain(upstreams) {
            if let Field::Given(text) = field {
                self.upstream_loop(text, &listeners);
            }
        }
        if let Field::Given(endpoints) = &raw.wechat.endpoints {
            for text in endpoints.get_ref() {
                self.endpoint_loop(text, &listeners);
            }
        }
        self.unreachable_routes(raw);
        self.unused_journal(raw);
        self.media_are_needed(raw);
    }

    /// With Redis, messages wait there and nowhere else.
    fn unused_journal(&mut self, raw: &Raw) {
        let is_redis = peek(&raw.store.kind, "memory", |kind| Ok(kind == "redis"));
        let journal = raw.push.as_ref().map(|push| &push.journal);
        if let (Some(true), Some(journal @ Field::Given(_))) = (is_redis, journal) {
            let fault = Fault::new("with `[store] kind = \"redis\"` messages wait in Redis, and this journal is not used")
                .help("leave `journal` out, or write `[store] kind = \"memory\"` for a sidecar that has no replicas")
                .also(raw.store.kind.span(), "they are in Redis by this");
            self.sink.warn(journal.span(), fault);
        }
    }

    fn lifetimes(&mut self, raw: &raw::Session) {
        let access = peek(&raw.access_ttl, ACCESS_TTL, values::duration);
        let refresh = peek(&raw.refresh_ttl, REFRESH_TTL, values::duration);
        if let (Some(access), Some(refresh)) = (access, refresh)
            && refresh <= access
        {
            let fault = Fault::new("a refresh token must live longer than an access token")
                .help("`refresh_ttl` is more than `access_ttl`");
            self.contradiction(
                &raw.refresh_ttl,
                &raw.access_ttl,
                "an access token lives this long",
                fault,
            );
        }
    }

    fn pauses(&mut self, raw: &raw::Breaker) {
        let min = peek(&raw.min_pause, MIN_PAUSE, values::duration);
        let max = peek(&raw.max_pause, MAX_PAUSE, values::duration);
        if let (Some(min), Some(max)) = (min, max)
            && max < min
        {
            let fault = Fault::new("the longest pause cannot be shorter than the first")
                .help("`max_pause` is at least `min_pause`");
            self.contradiction(
                &raw.max_pause,
                &raw.min_pause,
                "the first is this long",
                fault,
            );
        }
    }

    /// Two keys that cannot both be as they are: told of the one, with the other, or of whichever is written.
    fn contradiction(
        &mut self,
        one: &Field<Text>,
        other: &Field<Text>,
        label: &'static str,
        fault: Fault,
    ) {
        match (one.span(), other.span()) {
            (Some(span), also) => self.sink.error(Some(span), fault.also(also, label)),
            (None, span) => self.sink.error(span, fault),
        }
    }

    fn listener(&self, name: &'static str, field: &Field<Text>, default: &str) -> Listener {
        Listener {
            name,
            place: peek(field, default, values::listen_or_off).flatten(),
            span: field.span(),
        }
    }

    /// No two in one place; the one that is written later is told.
    fn listeners(&mut self, listeners: &[Listener]) {
        for (i, one) in listeners.iter().enumerate() {
            for other in &listeners[i + 1..] {
                if !one.is_where(other) {
                    continue;
                }
                // `None` is less than any place in the file: a default counts as the first of the two.
                let start = |listener: &Listener| listener.span.as_ref().map(|s| s.start);
                let (first, second) = match start(other) > start(one) {
                    true => (one, other),
                    false => (other, one),
                };
                let fault = Fault::new(format!("this is where `{}` listens already", first.name))
                    .help("each listener needs a place of its own")
                    .also(first.span.clone(), "here");
                self.sink.error(second.span.clone(), fault);
            }
        }
    }

    fn upstream_loop(&mut self, text: &Spanned<Text>, listeners: &[Listener]) {
        let Ok(upstream) = values::upstream(&text.get_ref().value) else {
            return;
        };
        self.no_loop(
            text,
            listeners,
            "an upstream is where the app listens",
            |place| match (place, &upstream) {
                (
                    Listen::Tcp(addr),
                    Upstream::Tcp { host, port } | Upstream::H2c { host, port },
                ) => addr.port() == *port && reaches(host, addr.ip()),
                (Listen::Unix(path), Upstream::Unix(upstream)) => path == upstream,
                _ => false,
            },
        );
    }

    fn endpoint_loop(&mut self, text: &Spanned<Text>, listeners: &[Listener]) {
        let Ok(endpoint) = values::endpoint(&text.get_ref().value) else {
            return;
        };
        let advice = "an endpoint is WeChat, and `[outbound] listen` is what the app takes for it";
        self.no_loop(text, listeners, advice, |place| match place {
            Listen::Tcp(addr) => addr.port() == endpoint.port && reaches(&endpoint.host, addr.ip()),
            Listen::Unix(_) => false,
        });
    }

    /// Says of where requests go that it is one of our own listeners, if it is.
    fn no_loop(
        &mut self,
        text: &Spanned<Text>,
        listeners: &[Listener],
        advice: &str,
        is_ours: impl Fn(&Listen) -> bool,
    ) {
        for Listener { name, place, span } in listeners {
            if place.as_ref().is_some_and(&is_ours) {
                let fault = Fault::new(format!(
                    "this is `{name}`: the sidecar would send requests to itself"
                ))
                .help(advice)
                .also(span.clone(), "the sidecar listens here");
                self.sink.error(Some(text.span()), fault);
            }
        }
    }

    fn unreachable_routes(&mut self, raw: &Raw) {
        let prefix = peek(&raw.inbound.prefix, PREFIX, values::prefix);
        let mut earlier: Vec<(&str, Vec<&str>, Range<usize>)> = Vec::new();
        for route in &raw.routes {
            let Field::Given(path) = &route.path else {
                continue;
            };
            let pattern = path.get_ref().value.as_str();
            let methods: Vec<&str> = match &route.methods {
                Field::Absent => Vec::new(),
                Field::Faulty => continue,
                Field::Given(texts) => texts
                    .get_ref()
                    .iter()
                    .map(|t| t.get_ref().value.as_str())
                    .collect(),
            };
            if values::pattern(pattern).is_err() {
                continue;
            }
            let shadow = earlier.iter().find(|(path, its, _)| {
                let takes_methods = its.is_empty()
                    || (!methods.is_empty() && methods.iter().all(|m| its.contains(m)));
                takes_methods && values::covers(path, pattern)
            });
            if prefix
                .as_ref()
                .is_some_and(|p| values::lies_below(pattern, p))
            {
                let fault =
                    Fault::new("this route never matches: the sidecar's own endpoints are here")
                        .help("choose another path, or another `[inbound] prefix`")
                        .also(raw.inbound.prefix.span(), "they are below this");
                self.sink.warn(Some(path.span()), fault);
            } else if let Some((_, _, span)) = shadow {
                let fault =
                    Fault::new("this route never matches: an earlier one takes all its requests")
                        .help("the first route that matches wins; move this one up")
                        .also(Some(span.clone()), "this one");
                self.sink.warn(Some(path.span()), fault);
            }
            earlier.push((pattern, methods, path.span()));
        }
    }

    /// A text's value; `default` is read like one that was written.
    fn text<T>(
        &mut self,
        field: &Field<Text>,
        default: &str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        self.text_by(field, default, &parse)
    }

    // What follows with `dyn` is compiled once for each type and not for each key, of which there are some hundred.
    #[inline(never)]
    fn text_by<T>(
        &mut self,
        field: &Field<Text>,
        default: &str,
        parse: &dyn Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        match field {
            Field::Absent => self.read(parse(default), None),
            Field::Faulty => None,
            Field::Given(text) => self.parse(text, parse),
        }
    }

    /// A text's value, if it is written.
    fn given<T>(
        &mut self,
        field: &Field<Text>,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Option<T>> {
        match field {
            Field::Absent => Some(None),
            Field::Faulty => None,
            Field::Given(text) => self.parse(text, &parse).map(Some),
        }
    }

    /// A text's value, which must be written.
    fn required<T>(
        &mut self,
        field: &Field<Text>,
        parse: impl Fn(&str) -> Result<T, Fault>,
        missing: impl FnOnce() -> (Option<Range<usize>>, Fault),
    ) -> Option<T> {
        match field {
            Field::Absent => {
                let (span, fault) = missing();
                self.sink.missing(span, fault);
                None
            }
            Field::Faulty => None,
            Field::Given(text) => self.parse(text, &parse),
        }
    }

    /// Each value of a list, with its place.
    fn list<T>(
        &mut self,
        field: &Field<Texts>,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<(T, Option<Range<usize>>)>> {
        self.list_by(field, default, &parse)
    }

    #[inline(never)]
    fn list_by<T>(
        &mut self,
        field: &Field<Texts>,
        default: &[&str],
        parse: &dyn Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<(T, Option<Range<usize>>)>> {
        let values: Vec<Option<(T, Option<Range<usize>>)>> = match field {
            Field::Absent => default
                .iter()
                .map(|text| self.read(parse(text), None).map(|value| (value, None)))
                .collect(),
            Field::Faulty => return None,
            Field::Given(texts) => texts
                .get_ref()
                .iter()
                .map(|text| {
                    let value = self.parse(text, parse)?;
                    Some((value, Some(text.span())))
                })
                .collect(),
        };
        values.into_iter().collect()
    }

    /// A value that is not a text.
    fn value<T, U>(
        &mut self,
        field: &Field<T>,
        default: impl FnOnce() -> Result<U, Fault>,
        parse: impl FnOnce(&T) -> Result<U, Fault>,
    ) -> Option<U> {
        match field {
            Field::Absent => self.read(default(), None),
            Field::Faulty => None,
            Field::Given(value) => self.read(parse(value.get_ref()), Some(value.span())),
        }
    }

    /// Whether a key is written at all; what is wrong with its value is told elsewhere.
    fn present<T>(
        &mut self,
        field: &Field<T>,
        missing: impl FnOnce() -> (Option<Range<usize>>, Fault),
    ) -> Option<()> {
        if let Field::Absent = field {
            let (span, fault) = missing();
            self.sink.missing(span, fault);
            return None;
        }
        Some(())
    }

    #[inline(never)]
    fn parse<T>(
        &mut self,
        text: &Spanned<Text>,
        parse: &dyn Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let result = parse(&text.get_ref().value).map_err(|fault| match &text.get_ref().written {
            None => fault,
            // Advice may quote the value, and this one came from the environment.
            Some(_) => Fault::new(fault.message)
                .help("the value comes from the environment; look at what the variable holds"),
        });
        self.read(result, Some(text.span()))
    }

    #[inline(never)]
    fn read<T>(&mut self, result: Result<T, Fault>, span: Option<Range<usize>>) -> Option<T> {
        result.map_err(|fault| self.sink.error(span, fault)).ok()
    }
}

/// A value as the rules between keys see it: no report, as that has been made.
pub(super) fn peek<T>(
    field: &Field<Text>,
    default: &str,
    parse: impl Fn(&str) -> Result<T, Fault>,
) -> Option<T> {
    match field {
        Field::Absent => parse(default).ok(),
        Field::Faulty => None,
        Field::Given(text) => parse(&text.get_ref().value).ok(),
    }
}

#[cfg(feature = "redis")]
fn store_in_redis(redis: Redis) -> Result<Store, Fault> {
    Ok(Store::Redis(redis))
}

#[cfg(not(feature = "redis"))]
fn store_in_redis(_: Redis) -> Result<Store, Fault> {
    Err(Fault::new("this sidecar was built without Redis")
        .help("build it with the feature `redis`, or write \"memory\""))
}

/// A collector, if there is something to send spans with.
fn exported(endpoint: String, is_built: bool) -> Result<String, Fault> {
    match is_built {
        true => Ok(endpoint),
        false => Err(
            Fault::new("this sidecar was built without an exporter for traces").help(
                "build it with `cargo build --release --features otlp`, or leave `endpoint` out",
            ),
        ),
    }
}

fn service(text: &str) -> Result<String, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::new("the name of the service is missing"));
    }
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::new("the name of the file is missing"));
    }
    Ok(text.to_owned())
}

/// The name of a file as a message may show it.
fn shown(field: &Field<Text>) -> &str {
    match field {
        Field::Given(text) => text.get_ref().shown_as_file(),
        Field::Absent | Field::Faulty => "",
    }
}

fn app_id(text: &str) -> Result<AppId, Fault> {
    AppId::parse(text).map_err(|malformed| {
        Fault::new(malformed.to_string())
            .help("it is shown at mp.weixin.qq.com, under 开发管理, as AppID(小程序ID)")
    })
}

/// An AppSecret's shape; one that WeChat would not give out is doubtful.
fn app_secret(text: &str) -> Result<Option<Fault>, Fault> {
    if text.is_empty() {
        return Err(Fault::new("the AppSecret is empty"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Fault::new(
            "an AppSecret is of visible ASCII characters, without spaces",
        ));
    }
    let usual = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    Ok((!usual).then(|| {
        Fault::new("this does not look like an AppSecret, which is 32 hexadecimal digits")
    }))
}

fn session_key(text: &str) -> Result<Option<Fault>, Fault> {
    if text.len() < SHORTEST_KEY {
        return Err(Fault::new(format!(
            "a session key has {SHORTEST_KEY} bytes at the least"
        ))
        .help("openssl rand -base64 32 makes a good one"));
    }
    Ok(None)
}

/// One that is shown in a header.
fn shown_token(text: &str) -> Result<Option<Fault>, Fault> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if text.len() < SHORTEST_KEY || !plain {
        return Err(Fault::new(format!(
            "a token is of {SHORTEST_KEY} letters, digits, `-`, `.`, `_` and `~` at the least"
        ))
        .help("openssl rand -hex 16 makes a good one"));
    }
    Ok(None)
}

fn whole_within(n: i64, most: i64) -> Result<usize, Fault> {
    usize::try_from(n)
        .ok()
        .filter(|_| (1..=most).contains(&n))
        .ok_or_else(|| Fault::new(format!("this must be from 1 to {most}")))
}

/// The network's first address.
fn masked(network: Cidr) -> IpAddr {
    let prefix = u32::from(network.prefix);
    match network.addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Ipv4Addr::from_bits(addr.to_bits() & mask).into()
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Ipv6Addr::from_bits(addr.to_bits() & mask).into()
        }
    }
}

/// Whether who connects to `host` may arrive at a listener on `ip`; no name but `localhost` is looked up.
fn reaches(host: &str, ip: IpAddr) -> bool {
    if host == "localhost" {
        return ip.is_loopback() || ip.is_unspecified();
    }
    let Ok(host) = host.parse::<IpAddr>() else {
        return false;
    };
    let local = host.is_loopback() || host.is_unspecified();
    host == ip || (local && ip.is_unspecified()) || (host.is_unspecified() && ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_exports_nothing_says_how_to_make_one_that_does() {
        let endpoint = || "http://127.0.0.1:4318".to_owned();
        assert_eq!(exported(endpoint(), true).unwrap(), endpoint());
        let fault = exported(endpoint(), false).unwrap_err();
        let told = format!("{fault:?}");
        assert!(told.contains("--features otlp"), "{told}");
    }
}
