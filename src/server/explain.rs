//! What would become of a request, and why.
//!
//! An explanation that is written beside the code that it explains is wrong after the next change. So a request is put
//! together here and taken through what requests are taken through: the parser of heads, the canonical path, the router,
//! the keys that open tokens, the encoder of the head for the app. What is told is what these said, and what of the head
//! went in and did not come out. Nothing is connected to, no code is exchanged, and what depends on a body or on WeChat is
//! said to do so.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::exchange::written::Written;
use super::exchange::{self, Proof, downloads, open_data, push};
use super::router::{Action, Endpoint, Misfit, Router, Rule};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Auth, Config, Effective, Loaded, RateLimit};
use crate::domain::{OpenId, User};
use crate::error::{Error, Kind, Language};
use crate::gateway::{Gateway, Memory};
use crate::media::Signature;
use crate::path::CanonicalPath;
use crate::proxy::{self, Counting, Forward, Origin, Peer};
use crate::resilience::RateLimiters;
use crate::session::{SessionState, Sessions, ShownToken, Store};
use crate::telemetry::ids::IdSource;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::requests::WorkerCells;
use crate::telemetry::timings::Timings;
use crate::telemetry::trace::Tracing;
use crate::wire::{Framing, HeadError, RequestHead};

/// What a request has whose sender does not say: stands for any, and is shown as `<...>`.
const SOMEBODY: &str = "openid-of-the-user";
const SOMEWHERE: &str = "the-host-of-the-request.invalid";
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A request that is asked about.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The method, such as `GET`.
    pub method: &'a str,
    /// The request-target: path and query.
    pub target: &'a str,
    /// Its header lines, such as `Accept: text/html`; without a `Host` it has one that stands for any.
    pub lines: &'a [String],
    /// The address that it comes from; `None` for a stranger's.
    pub from: Option<IpAddr>,
    /// When it comes, which is what tokens are judged by.
    pub now: Timestamp,
}

/// What would become of a request under a configuration, and why.
///
/// It is made without any I/O. Whether a token was revoked is in the store and not known here; whether a code is good is
/// known to WeChat. Tokens and other credentials are not in it.
///
/// ```
/// use wx_sidecar::{Asked, Config, Explanation, clock::Clock};
///
/// let config = Config::parse(r#"
///     [app]
///     appid = "wx0123456789abcdef"
///     secret = "0123456789abcdef0123456789abcdef"
///     [inbound]
///     upstream = "http://127.0.0.1:3000"
/// "#, "sidecar.toml", &|_| None)?;
/// let lines = ["X_WX_OPENID: somebody".to_owned()];
/// let now = Clock::System.now();
/// let asked = Asked { method: "GET", target: "/api", lines: &lines, from: None, now };
/// let explanation = Explanation::of(&config, &asked);
/// assert!(explanation.is_refused(), "it has no token");
/// assert!(explanation.to_string().contains("X_WX_OPENID"));
/// # Ok::<(), wx_sidecar::config::Report>(())
/// ```
pub struct Explanation {
    method: String,
    target: String,
    from: IpAddr,
    trusted: bool,
    /// The path that is decided on and forwarded, if the request has one.
    path: Option<String>,
    /// The routes that were asked before one took it, and what did not fit.
    passed_over: Vec<PassedOver>,
    taker: Option<Taker>,
    auth: Option<Authentication>,
    refusal: Option<Error>,
    upstream: Option<String>,
    lines: Option<Lines>,
    limits: Vec<Limit>,
    /// What else happens on the way, or may.
    notes: Vec<String>,
}

/// What is asked, of which configuration.
struct About<'a> {
    config: &'a Config,
    effective: &'a Effective,
    asked: &'a Asked<'a>,
}

/// A route that is not for the request.
struct PassedOver {
    pattern: String,
    line: String,
    misfit: Misfit,
}

/// Who deals with the request.
enum Taker {
    Endpoint(&'static str),
    /// The n-th `[[route]]`, from 1, and the line that it is written in.
    Route {
        at: usize,
        pattern: String,
        line: String,
    },
    Default,
}

struct Authentication {
    rule: &'static str,
    from: String,
    outcome: String,
}

/// What becomes of the field lines on the way to the app.
struct Lines {
    added: Vec<(String, String)>,
    removed: Vec<(String, String)>,
    kept: Vec<String>,
}

struct Limit {
    name: &'static str,
    value: String,
    from: String,
}

/// What an endpoint of ours wants to see.
enum Wants {
    Nothing(&'static str),
    Token,
    TokenOr(&'static str),
}

/// Whom the app is told of.
enum Who {
    Nobody,
    Known(User),
    /// Somebody who becomes known on the way.
    Somebody,
}

impl Explanation {
    /// Explains what a sidecar with this configuration would do with the request.
    pub fn of(loaded: &Loaded, asked: &Asked<'_>) -> Self {
        let config = &loaded.config;
        let about = About {
            config,
            effective: &loaded.effective,
            asked,
        };
        let from = asked.from.unwrap_or(STRANGER);
        let peer = Peer::new(Some(from), config.inbound.tls.is_some());
        let origin = Origin::new(&peer, &config.inbound.trusted_proxies);
        let mut explanation = Self {
            method: asked.method.to_owned(),
            target: asked.target.to_owned(),
            from,
            trusted: origin.is_trusted(),
            path: None,
            passed_over: Vec::new(),
            taker: None,
            auth: None,
            refusal: None,
            upstream: None,
            lines: None,
            limits: Vec::new(),
            notes: Vec::new(),
        };
        explanation.refusal = explanation.follow(&about, origin).err();
        explanation
    }

    /// Whether neither the app nor an endpoint of the sidecar's would see the request.
    pub fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// The status that it would be refused with.
    pub fn status(&self) -> Option<u16> {
        self.refusal.as_ref().map(Error::status)
    }

    /// Takes the request as far as it comes.
    fn follow(&mut self, about: &About<'_>, origin: Origin<'_>) -> Result<(), Error> {
        let (config, asked) = (about.config, about.asked);
        let limit = config.inbound.header_limit;
        let from = about.inbound("header_limit");
        self.limit("header_limit", bytes(limit as u64), from);
        let head = head_of(asked, limit).map_err(|cause| exchange::no_head(&cause))?;
        let path = exchange::canonical(&head, config.inbound.escaped_slashes)?;
        self.path = Some(shown(path.as_bytes()));
        let router = Router::new(config, &RateLimiters::default());
        match router.route(path.as_bytes(), head.method_text()) {
            Action::Nothing => Err(exchange::no_such_endpoint()),
            Action::WrongMethod(allowed) => Err(exchange::wrong_method(allowed)),
            Action::Own(endpoint) => self.follow_to_us(endpoint, about, &head, &path),
            Action::Forward(rule) => {
                self.note_route(about, &router, rule, (&head, &path));
                let found = self.follow_to_app(rule, about, &head);
                // What the app would see is worth knowing where nothing but a good token is missing.
                let (user, outcome) = match found {
                    Ok(Who::Nobody) => (None, Ok(())),
                    Ok(Who::Known(user)) => (Some(user), Ok(())),
                    Ok(Who::Somebody) => (Some(somebody()), Ok(())),
                    Err(error) if error.status() == 401 => (Some(somebody()), Err(error)),
                    Err(error) => return Err(error),
                };
                let told = self.told(rule, config, &head, user.is_some())?;
                self.encode(
                    rule,
                    config,
                    (&head, &path, asked.now),
                    origin,
                    user.as_ref(),
                    &told,
                );
                outcome
            }
        }
    }

    fn note_route(
        &mut self,
        about: &About<'_>,
        router: &Router,
        rule: &Rule,
        (head, path): (&RequestHead, &CanonicalPath<'_>),
    ) {
        let considered = router.considered(path.as_bytes(), head.method_text());
        for (other, methods, misfit) in considered {
            let Some(misfit) = misfit else { break };
            let methods = methods.join(" ");
            let methods = if methods.is_empty() {
                ""
            } else {
                &format!("{methods} ")
            };
            self.passed_over.push(PassedOver {
                pattern: format!("{methods}{}", other.name),
                line: about.line_of(other),
                misfit,
            });
        }
        self.taker = Some(match about.config.routes.get(rule.index) {
            None => Taker::Default,
            Some(_) => Taker::Route {
                at: rule.index + 1,
                pattern: rule.name.clone(),
                line: about.line_of(rule),
            },
        });
        self.upstream = Some(rule.upstream.to_string());
    }

    /// An endpoint of our own, as far as its head says what becomes of the request.
    fn follow_to_us(
        &mut self,
        endpoint: Endpoint,
        about: &About<'_>,
        head: &RequestHead,
        path: &CanonicalPath<'_>,
    ) -> Result<(), Error> {
        let config = about.config;
        self.taker = Some(Taker::Endpoint(endpoint.label()));
        self.limits_of(endpoint, about);
        match endpoint {
            Endpoint::Push | Endpoint::PushHandshake if config.push.is_none() => {
                return Err(push::no_messages());
            }
            Endpoint::MediaUpload | Endpoint::MediaDownload | Endpoint::MediaUrl
                if !config.media.enabled =>
            {
                return Err(downloads::no_media());
            }
            Endpoint::KeySet if !config.session.assertion => return Err(exchange::no_assertions()),
            _ => {}
        }
        let wants = match endpoint {
            Endpoint::MediaDownload if is_signed(path)? => Wants::Nothing(
                "the signature in its URL says whether it may; it is not verified here",
            ),
            endpoint => wants(endpoint),
        };
        let from = "the endpoint".to_owned();
        let auth = |rule, outcome| Authentication {
            rule,
            from,
            outcome,
        };
        match wants {
            Wants::Nothing(why) => self.auth = Some(auth("none", why.to_owned())),
            Wants::Token => {
                self.auth = Some(auth("required", String::new()));
                self.authenticate(Auth::Required, about, head)?;
            }
            Wants::TokenOr(other) => {
                self.auth = Some(auth("required", String::new()));
                if let Who::Nobody = self.authenticate(Auth::Optional, about, head)? {
                    self.outcome(other.to_owned());
                }
            }
        }
        Ok(())
    }

    /// The app, as far as the head says whether it gets the request; who that would be from.
    fn follow_to_app(
        &mut self,
        rule: &Rule,
        about: &About<'_>,
        head: &RequestHead,
    ) -> Result<Who, Error> {
        self.limits_of_rule(rule, about);
        let auth = rule.asks();
        self.auth = Some(Authentication {
            rule: name_of(auth),
            from: about.says(rule, "auth"),
            outcome: String::new(),
        });
        let mut who = self.authenticate(auth, about, head)?;
        exchange::admit(head, rule)?;
        if rule.login && matches!(who, Who::Nobody) {
            self.outcome("the `code` in its JSON body is exchanged at WeChat".to_owned());
            self.limit_of_logins(about);
            let limit = rule.body_limit.min(exchange::LOGIN_BODY_LIMIT);
            self.notes.push(format!(
                "login: the body is read as a whole (at most {}); the app's 2xx makes the session",
                bytes(limit)
            ));
            who = Who::Somebody;
        }
        if rule.text_check.is_some() && matches!(who, Who::Nobody) {
            return Err(exchange::token_missing());
        }
        Ok(who)
    }

    /// The lines that the app is told beside who the user is; what they say shows with the body.
    fn told(
        &mut self,
        rule: &Rule,
        config: &Config,
        head: &RequestHead,
        is_known: bool,
    ) -> Result<Vec<(&'static str, String)>, Error> {
        let mut told = Vec::new();
        let has_body = head.framing != Framing::Empty;
        let written = Written::as_said_by(head)?;
        if rule.open_data && has_body && written.is_json()? {
            told.push(("X-WX-Open-Data", "<how many pieces>".to_owned()));
        }
        if rule.open_data {
            self.notes.push(
                "open_data: what WeChat has encrypted in a JSON body is decrypted".to_owned(),
            );
        }
        if rule.media_upload && has_body && !rule.login && written.boundary()?.is_some() {
            told.push(("X-WX-Media", "<how many files>".to_owned()));
        }
        if rule.media_upload {
            self.notes.push(
                "media: files in a form go to WeChat, and the app finds their media_ids".to_owned(),
            );
        }
        if let Some(check) = &rule.text_check {
            told.push(("X-WX-Text-Check", "<what WeChat thinks of it>".to_owned()));
            let fields = check.fields.join(", ");
            self.notes.push(format!(
                "text_check: WeChat judges {fields} first, and may refuse the request"
            ));
        }
        if config.session.assertion && is_known {
            told.push(("X-WX-Assertion", "<signed, 60 s>".to_owned()));
        }
        Ok(told)
    }

    /// Who it is from, by what it shows and `auth` looks at.
    fn authenticate(
        &mut self,
        auth: Auth,
        about: &About<'_>,
        head: &RequestHead,
    ) -> Result<Who, Error> {
        let proof = Proof::of(head, auth).inspect_err(|error| {
            self.outcome(error.detail(Language::English).to_owned());
        })?;
        match proof {
            Proof::Nothing => {
                self.outcome("nobody in particular may pass".to_owned());
                Ok(Who::Nobody)
            }
            Proof::Code(code) => {
                exchange::parse_code(std::str::from_utf8(code).unwrap_or_default())?;
                self.outcome(
                    "the code in X-WX-Code is exchanged at WeChat; it is not, here".to_owned(),
                );
                self.limit_of_logins(about);
                Ok(Who::Somebody)
            }
            Proof::Token(token) => {
                let now = about.asked.now;
                let verified = sessions(about.config).verify(token, now, &ShownToken::default());
                let claims = verified.inspect_err(|error| {
                    self.outcome(error.detail(Language::English).to_owned());
                })?;
                let left = Duration::from_secs(claims.left(now).as_secs());
                let (left, openid) = (span(left), claims.user.openid.as_str());
                self.outcome(format!(
                    "the token is {openid}'s and good for {left}, unless it was revoked"
                ));
                Ok(Who::Known(claims.user.clone()))
            }
        }
    }

    /// Encodes the head for the app, and notes what of it is new and what of the client's is not there.
    fn encode(
        &mut self,
        rule: &Rule,
        config: &Config,
        (head, path, now): (&RequestHead, &CanonicalPath<'_>, Timestamp),
        origin: Origin<'_>,
        user: Option<&User>,
        told: &[(&'static str, String)],
    ) {
        let (ids, cells) = (IdSource::new(), WorkerCells::default());
        let request_id = exchange::request_id(head, &origin, &ids, now);
        let recorder = (config.trace.clients, &Tracing::new());
        let trace = exchange::trace(head, &origin, &ids, recorder);
        let inbound = &config.inbound;
        let forward = Forward {
            head,
            path,
            upstream: &rule.upstream,
            authority: rule.authority.as_bytes(),
            user,
            app_lines: &super::snapshot::app_lines(&config.app),
            told,
            origin,
            request_id: &request_id,
            trace: trace.here.to_text(),
            trace_goes_on: trace.goes_on(),
            limits: rule.limits(inbound),
            added: None,
            takes_media: config.media.enabled,
            counting: Counting {
                recorder: &cells.route("none"),
                cells: &cells,
                timings: &Timings::begin(),
            },
        };
        let mut sent = Vec::new();
        proxy::encode_request(&forward, &mut sent);
        let is_new = |name: &str, value: &str| {
            let given = head.fields.iter().any(|field| shown(field.value) == value);
            matches!(name, "x-request-id" | "traceparent") && !given
        };
        let mut added: Vec<(String, String)> = lines_of(&sent);
        let (mut kept, mut removed) = (Vec::new(), Vec::new());
        for field in head.fields.iter() {
            let (name, value) = (shown(field.name), shown(field.value));
            match proxy::why_dropped(&forward, &field) {
                Some(_) if field.value == SOMEWHERE.as_bytes() => {}
                Some(why) => removed.push((name, why)),
                None => {
                    // Theirs come before ours.
                    let at = added
                        .iter()
                        .position(|line| *line == (name.clone(), value.clone()));
                    at.map(|at| added.remove(at));
                    kept.push(name);
                }
            }
        }
        for (name, value) in &mut added {
            if is_new(name, value) {
                *value = "<new>".to_owned();
            } else if value == SOMEBODY && name == "X-WX-OPENID" {
                *value = "<the user's openid>".to_owned();
            } else if value == SOMEWHERE {
                *value = "<the host asked for>".to_owned();
            }
        }
        self.lines = Some(Lines {
            added,
            removed,
            kept,
        });
        if user.is_some_and(|user| user.openid.as_str() == SOMEBODY) {
            self.notes
                .push("X-WX-UNIONID is there as well if WeChat tells it".to_owned());
        }
    }

    fn outcome(&mut self, outcome: String) {
        if let Some(auth) = &mut self.auth {
            auth.outcome = outcome;
        }
    }

    fn limit(&mut self, name: &'static str, value: String, from: String) {
        self.limits.push(Limit { name, value, from });
    }

    fn limits_of_rule(&mut self, rule: &Rule, about: &About<'_>) {
        let usual = &about.config.inbound;
        let route = about.config.routes.get(rule.index);
        let rate = route.map_or(usual.rate_limit, |route| route.rate_limit);
        let connect = about.inbound("connect_timeout");
        self.limit("timeout", span(rule.timeout), about.says(rule, "timeout"));
        self.limit("connect_timeout", span(usual.connect_timeout), connect);
        self.limit(
            "body_limit",
            bytes(rule.body_limit),
            about.says(rule, "body_limit"),
        );
        self.limit("rate_limit", rate_of(rate), about.says(rule, "rate_limit"));
    }

    fn limits_of(&mut self, endpoint: Endpoint, about: &About<'_>) {
        let body = match endpoint {
            Endpoint::Login | Endpoint::Refresh | Endpoint::Logout => exchange::OWN_BODY_LIMIT,
            Endpoint::OpenData | Endpoint::Phone => open_data::BODY_LIMIT,
            Endpoint::Push => crate::push::BODY_LIMIT,
            _ => 0,
        };
        if body > 0 {
            self.limit("body_limit", bytes(body), "the endpoint".to_owned());
        }
        if matches!(
            endpoint,
            Endpoint::Login | Endpoint::Refresh | Endpoint::SeedLogin
        ) {
            self.limit_of_logins(about);
        }
    }

    fn limit_of_logins(&mut self, about: &About<'_>) {
        let rate = rate_of(about.config.inbound.login_rate_limit);
        self.limit("login_rate_limit", rate, about.inbound("login_rate_limit"));
    }

    /// The explanation for programs:
    ///
    /// ```json
    /// {"ok": true, "method": "", "target": "", "from": {"address": "", "trusted": false}, "path": "",
    ///  "refusal": {"status": 401, "kind": "", "detail": "", "hint": ""},
    ///  "passed_over": [{"route": 1, "line": "sidecar.toml:12", "pattern": "", "why": "path"}],
    ///  "taker": {"kind": "endpoint|route|default", "name": "", "route": 2}, "upstream": "",
    ///  "auth": {"rule": "required", "from": "", "outcome": ""},
    ///  "headers": {"added": [{"name": "", "value": ""}], "removed": [{"name": "", "why": ""}], "kept": [""]},
    ///  "limits": [{"name": "", "value": "", "from": ""}], "notes": [""]}
    /// ```
    ///
    /// What does not apply is null; `headers` of a refused request are those that it would have with a good token.
    pub fn to_json(&self) -> Value {
        let refusal = self.refusal.as_ref().map(|error| {
            json!({
                "status": error.status(),
                "kind": error.kind().row().slug,
                "detail": error.detail(Language::English),
                "hint": error.hint(Language::English),
            })
        });
        let passed_over = self.passed_over.iter().enumerate().map(|(at, route)| {
            json!({
                "route": at + 1,
                "line": route.line,
                "pattern": route.pattern,
                "why": route.misfit.name(),
            })
        });
        let taker = self.taker.as_ref().map(|taker| match taker {
            Taker::Endpoint(name) => {
                json!({ "kind": "endpoint", "name": name, "route": null, "line": null })
            }
            Taker::Route { at, pattern, line } => {
                json!({ "kind": "route", "name": pattern, "route": at, "line": line })
            }
            Taker::Default => {
                json!({ "kind": "default", "name": "default", "route": null, "line": null })
            }
        });
        let auth = self
            .auth
            .as_ref()
            .map(|auth| json!({ "rule": auth.rule, "from": auth.from, "outcome": auth.outcome }));
        let lines = self.lines.as_ref().map(|lines| {
            let pairs = |pairs: &[(String, String)], second: &str| {
                let pair =
                    |(name, other): &(String, String)| json!({ "name": name, second: other });
                pairs.iter().map(pair).collect::<Vec<_>>()
            };
            json!({
                "added": pairs(&lines.added, "value"),
                "removed": pairs(&lines.removed, "why"),
                "kept": lines.kept,
            })
        });
        let limits = self
            .limits
            .iter()
            .map(|limit| json!({ "name": limit.name, "value": limit.value, "from": limit.from }));
        json!({
            "ok": !self.is_refused(),
            "method": self.method,
            "target": self.target,
            "from": { "address": self.from.to_string(), "trusted": self.trusted },
            "path": self.path,
            "refusal": refusal,
            "passed_over": passed_over.collect::<Vec<_>>(),
            "taker": taker,
            "upstream": self.upstream,
            "auth": auth,
            "headers": lines,
            "limits": limits.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    fn verdict(&self) -> String {
        match (&self.refusal, &self.taker) {
            (Some(error), _) => {
                let (status, slug) = (error.status(), error.kind().row().slug);
                let whom = match error.kind() {
                    Kind::NotFound | Kind::MethodNotAllowed => "",
                    _ => "; nobody but the sidecar sees it",
                };
                format!("refused with {status} ({slug}){whom}")
            }
            (None, Some(Taker::Endpoint(name))) => {
                format!("answered by the sidecar's own endpoint {name}")
            }
            (None, _) => {
                let upstream = self.upstream.as_deref().unwrap_or_default();
                format!("forwarded to the app at {upstream}")
            }
        }
    }
}

/// For people, in lines.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, target) = (printable(&self.method), printable(&self.target));
        writeln!(f, "{method} {target}: {}", self.verdict())?;
        if let Some(error) = &self.refusal {
            writeln!(f, "  why       {}", error.detail(Language::English))?;
            if let Some(hint) = error.hint(Language::English) {
                writeln!(f, "  hint      {hint}")?;
            }
        }
        if let Some(path) = &self.path {
            let as_asked = self.target.split('?').next() == Some(path);
            let canonical = if as_asked {
                ""
            } else {
                "   (made canonical; it is this that is decided on)"
            };
            writeln!(f, "  path      {path}{canonical}")?;
        }
        for (at, route) in self.passed_over.iter().enumerate() {
            let PassedOver {
                pattern,
                line,
                misfit,
            } = route;
            writeln!(
                f,
                "  not       [[route]] {} ({line}): {pattern}: another {}",
                at + 1,
                misfit.name()
            )?;
        }
        match &self.taker {
            Some(Taker::Route { at, pattern, line }) => {
                writeln!(f, "  route     [[route]] {at} ({line}): {pattern}")?;
            }
            Some(Taker::Default) => writeln!(f, "  route     none; [inbound] says what holds")?,
            Some(Taker::Endpoint(name)) => writeln!(f, "  endpoint  {name}")?,
            None => {}
        }
        if let Some(auth) = &self.auth {
            writeln!(
                f,
                "  auth      {}, by {}: {}",
                auth.rule, auth.from, auth.outcome
            )?;
        }
        let trusted = if self.trusted {
            "a trusted proxy"
        } else {
            "not a trusted proxy"
        };
        writeln!(f, "  from      {}, {trusted}", self.from)?;
        for note in &self.notes {
            writeln!(f, "  note      {note}")?;
        }
        if let Some(lines) = &self.lines {
            lines.fmt(f, self.is_refused())?;
        }
        if !self.limits.is_empty() {
            writeln!(f, "  limits")?;
        }
        for limit in &self.limits {
            writeln!(
                f,
                "    {:<17} {:<22} {}",
                limit.name, limit.value, limit.from
            )?;
        }
        Ok(())
    }
}

impl About<'_> {
    /// A key of `[inbound]`, and where its value comes from.
    fn inbound(&self, key: &str) -> String {
        let source = self.effective.source_of("inbound", 0, key);
        format!("[inbound] {key} ({})", source.unwrap_or_default())
    }

    /// Where a rule has the value of a key from: its route says it, or `[inbound]` does.
    fn says(&self, rule: &Rule, key: &str) -> String {
        match self.effective.source_of("route", rule.index, key) {
            None => self.inbound(key),
            Some(inherited) if inherited.starts_with('[') => inherited,
            Some(source) => format!("[[route]] {} ({source})", rule.index + 1),
        }
    }

    /// Where a route is written, by the line of its path.
    fn line_of(&self, rule: &Rule) -> String {
        let source = self.effective.source_of("route", rule.index, "path");
        source.unwrap_or_default()
    }
}

impl Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>, refused: bool) -> fmt::Result {
        let with = if refused { " (with a good token)" } else { "" };
        writeln!(f, "  headers for the app{with}")?;
        for (name, value) in &self.added {
            writeln!(f, "    + {name}: {value}")?;
        }
        for (name, why) in &self.removed {
            writeln!(f, "    - {name}: {why}")?;
        }
        for name in &self.kept {
            writeln!(f, "    = {name}")?;
        }
        Ok(())
    }
}

impl Misfit {
    fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
        }
    }
}

/// The head of the request, as the parser of requests sees it.
fn head_of(asked: &Asked<'_>, limit: usize) -> Result<RequestHead, HeadError> {
    let mut text = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target);
    let has_host = asked.lines.iter().any(|line| {
        let name = line.split(':').next().unwrap_or_default();
        name.eq_ignore_ascii_case("host")
    });
    if !has_host {
        text.push_str(&format!("Host: {SOMEWHERE}\r\n"));
    }
    for line in asked.lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    if text.len() > limit {
        return Err(HeadError::TooLarge);
    }
    let breaks = |text: &str| text.contains(['\r', '\n']);
    if breaks(asked.method) || breaks(asked.target) || asked.lines.iter().any(|line| breaks(line)) {
        return Err(HeadError::Malformed("a line break stands within a line"));
    }
    let mut head = RequestHead::default();
    head.parse(text.as_bytes())?;
    Ok(head)
}

/// What opens tokens under this configuration. It has a store that has seen nothing, and calls nobody.
fn sessions(config: &Config) -> Sessions {
    let metrics = Arc::new(Metrics::new());
    let gateway = Gateway::new(
        &config.app,
        &config.wechat,
        &Memory::default(),
        Arc::clone(&metrics),
    );
    let config = Config {
        store: config::Store::Memory,
        ..config.clone()
    };
    let store = Store::new(&config, &metrics);
    let state = SessionState::new(store, Clock::System, metrics);
    Sessions::new(&config, Arc::new(gateway), Arc::new(state))
}

/// What an endpoint of ours wants to see of the user before it does anything.
fn wants(endpoint: Endpoint) -> Wants {
    match endpoint {
        Endpoint::Login => Wants::Nothing("the `code` in its JSON body is exchanged at WeChat"),
        Endpoint::SeedLogin => Wants::Nothing("the `code` in its query is exchanged at WeChat"),
        Endpoint::Refresh => Wants::Nothing("the `refresh_token` in its JSON body says who it is"),
        Endpoint::Push | Endpoint::PushHandshake => {
            Wants::Nothing("WeChat's signature in the query is verified")
        }
        Endpoint::KeySet => Wants::Nothing("anybody may have the public keys"),
        Endpoint::OpenData | Endpoint::Phone => {
            Wants::TokenOr("without a token, a `code` in the body has to say whose data it is")
        }
        Endpoint::SeedInfo | Endpoint::SeedPhone => {
            Wants::TokenOr("without a token, a `code` in the query has to say whose data it is")
        }
        Endpoint::Logout
        | Endpoint::Session
        | Endpoint::Verify
        | Endpoint::MediaUpload
        | Endpoint::MediaDownload
        | Endpoint::MediaUrl => Wants::Token,
    }
}

fn is_signed(path: &CanonicalPath<'_>) -> Result<bool, Error> {
    let signature = Signature::of_query(path.query().unwrap_or_default())?;
    Ok(signature.is_some())
}

fn somebody() -> User {
    User {
        openid: OpenId::parse(SOMEBODY).expect("it has the form of one"),
        unionid: None,
    }
}

/// The field lines of a head that we have written.
fn lines_of(sent: &[u8]) -> Vec<(String, String)> {
    let text = shown_lines(sent);
    let lines = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn shown_lines(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes that came from outside, for a terminal.
fn shown(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}

fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

fn name_of(auth: Auth) -> &'static str {
    match auth {
        Auth::Required => "required",
        Auth::Optional => "optional",
        Auth::None => "none",
    }
}

fn span(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn rate_of(limit: Option<RateLimit>) -> String {
    limit.map_or("none".to_owned(), |limit| {
        let RateLimit { count, per, burst } = limit;
        format!("{count} in {}, burst {burst}", span(per))
    })
}

fn bytes(count: u64) -> String {
    let mut text = String::new();
    let written = match count {
        0 => write!(text, "0"),
        count if count % (1024 * 1024) == 0 => write!(text, "{}MiB", count / (1024 * 1024)),
        count if count % 1024 == 0 => write!(text, "{}KiB", count / 1024),
        count => write!(text, "{count}B"),
    };
    written.expect("writing to memory cannot fail");
    text
}
