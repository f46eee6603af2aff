//! Clients: those who keep a connection, those who make a new one each time, and phones with tokens.
//!
//! Each knows which configurations could be in use between its question and the answer, and judges the answer by them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::app::Seen;
use crate::authority::HOST;
use crate::generation::{Ask, BODY, Generation, Sealed};
use crate::storm::World;
use crate::wire::{Message, Wire};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the sidecar is looked for where it is and where it is about to be.
const TRIES: usize = 6;
/// After so many refreshes a phone logs in anew.
const LOGIN_EVERY: usize = 8;

/// What carries HTTP.
trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}
type Line = Wire<Box<dyn Io>>;

/// A failure of a kind, and what exactly.
type Failed = (&'static str, String);

/// The generations that could be in use while somebody asked.
type Window = Sealed;

/// How a client treats connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Keeps,
    /// A new connection for each request, with a whole handshake.
    Anew,
    /// The same, and resumes sessions of TLS.
    Resumes,
}

/// One client.
pub(crate) struct Client {
    world: Rc<World>,
    habit: Habit,
    tls: Arc<ClientConfig>,
    line: Option<Line>,
}

/// What a login or a refresh gave.
pub(crate) struct Tokens {
    access: String,
    refresh: String,
    openid: String,
    pub(crate) sealed: Sealed,
}

impl Client {
    pub(crate) fn new(world: Rc<World>, habit: Habit) -> Result<Self, String> {
        let tls = world.authority.client(habit == Habit::Resumes);
        Ok(Self {
            tls: tls.map_err(|error| error.to_string())?,
            world,
            habit,
            line: None,
        })
    }

    /// Asks for everything there is, with the tokens that somebody got last, until it is over.
    pub(crate) async fn visit(mut self) {
        while !self.world.is_over() {
            let Some(tokens) = self.world.tokens() else {
                sleep(Duration::from_millis(1)).await;
                continue;
            };
            let (now, next) = (self.world.in_effect(), self.world.upcoming());
            self.ask(Ask::Open, Some(&tokens)).await;
            self.ask(Ask::Anybody(next), None).await;
            self.ask(Ask::Across, Some(&tokens)).await;
            self.ask(Ask::Body, Some(&tokens)).await;
            self.ask(Ask::Only(now), Some(&tokens)).await;
            self.ask(Ask::Limited, Some(&tokens)).await;
            self.ask(Ask::Only(next), Some(&tokens)).await;
        }
    }

    /// Is somebody, by the tokens of each generation.
    pub(crate) async fn live(mut self, number: usize) {
        let name = format!("phone-{number}");
        let mut tokens: Option<Rc<Tokens>> = None;
        let mut before: [Option<Rc<Tokens>>; 2] = [None, None];
        let mut renewals = 0;
        while !self.world.is_over() {
            let now = self.world.in_effect();
            let renewed = match &tokens {
                Some(tokens) if tokens.sealed.from >= now => None,
                Some(tokens) if renewals % LOGIN_EVERY != 0 => self.refresh(tokens).await,
                _ => self.log_in(&name).await,
            };
            if let Some(renewed) = renewed.map(Rc::new) {
                renewals += 1;
                self.world.renewed(number, Rc::clone(&renewed));
                let old = tokens.replace(renewed);
                before = [old, before[0].take()];
            }
            if let Some(tokens) = &tokens {
                self.ask(Ask::Me, Some(tokens)).await;
                self.ask(Ask::Me, Some(tokens)).await;
            }
            // Those of the generation before are good still, and those of the one before that must not be.
            for tokens in before.iter().flatten() {
                self.ask(Ask::Me, Some(tokens)).await;
            }
        }
    }

    async fn log_in(&mut self, name: &str) -> Option<Tokens> {
        let code = self.world.wechat.issue_code(name);
        self.tokens("/wx/login", &json!({ "code": code })).await
    }

    async fn refresh(&mut self, tokens: &Tokens) -> Option<Tokens> {
        let body = json!({ "refresh_token": tokens.refresh });
        self.tokens("/wx/refresh", &body).await
    }

    async fn tokens(&mut self, target: &str, body: &Value) -> Option<Tokens> {
        let request = post(target, "", &body.to_string());
        let (answer, sealed) = self.exchange(target, &request).await?;
        let told = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        let text = |name: &str| Some(told.get(name)?.as_str()?.to_owned());
        let tokens = || {
            Some(Tokens {
                access: text("access_token")?,
                refresh: text("refresh_token")?,
                openid: text("openid")?,
                sealed,
            })
        };
        let tokens = tokens();
        if tokens.is_none() {
            let told = format!("{target}: {:?} {told}", answer.status());
            self.world.tally().failure("no tokens given", &told);
        }
        tokens
    }

    /// One question, whose answer is judged.
    async fn ask(&mut self, ask: Ask, tokens: Option<&Tokens>) {
        let target = ask.target();
        let token = tokens.map_or(String::new(), |tokens| {
            format!("Authorization: Bearer {}\r\n", tokens.access)
        });
        let request = match ask {
            Ask::Body => post(&target, &token, &"x".repeat(BODY)),
            _ => format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{token}\r\n").into_bytes(),
        };
        let Some((answer, window)) = self.exchange(&target, &request).await else {
            return;
        };
        judge(&self.world, ask, tokens, &answer, window);
    }

    /// Sends a request and reads the answer; `None` if there was none, which is counted.
    async fn exchange(&mut self, target: &str, request: &[u8]) -> Option<(Message, Window)> {
        let world = Rc::clone(&self.world);
        let from = world.in_effect();
        let outcome = timeout(PATIENCE, self.attempt(request)).await;
        world.tally().requests += 1;
        let to = world.upcoming();
        let (kind, what) = match outcome {
            Ok(Ok(answer)) => return Some((answer, Window { from, to })),
            Ok(Err(failed)) => failed,
            Err(_) => ("no answer in time", String::new()),
        };
        let what = format!("{target} in {from:?}..={to:?}: {what}");
        world.tally().failure(kind, &what);
        None
    }

    async fn attempt(&mut self, request: &[u8]) -> Result<Message, Failed> {
        let (mut line, is_kept) = match self.line.take() {
            Some(line) => (line, true),
            None => (self.connect().await?, false),
        };
        let answer = line.exchange(request).await.map_err(|error| {
            let kind = match is_kept {
                true => "closed before the answer, on a connection that was kept",
                false => "closed before the answer",
            };
            (kind, error.to_string())
        })?;
        let closes = answer
            .header("connection")
            .is_some_and(|it| it.eq_ignore_ascii_case("close"));
        if self.habit == Habit::Keeps && !closes {
            self.line = Some(line);
        }
        Ok(answer)
    }

    /// Connects to where the sidecar is. While it moves, that is one place or the other.
    async fn connect(&self) -> Result<Line, Failed> {
        let world = &self.world;
        let mut last = String::new();
        for attempt in 0..TRIES {
            let (from, to) = (world.in_effect(), world.upcoming());
            let aim = match attempt % 2 {
                0 => from,
                _ => to,
            };
            let place = world.site.inbound[aim.place()];
            match TcpStream::connect(place).await {
                Ok(stream) => return self.begin(stream, aim, from).await,
                Err(error) => last = format!("{place}: {error}"),
            }
            let (still, then) = (world.in_effect(), world.upcoming());
            if [to, still, then]
                .iter()
                .all(|it| it.place() == from.place())
            {
                return Err(("connection refused", last));
            }
            world.tally().moved += 1;
        }
        Err(("found nowhere", last))
    }

    async fn begin(
        &self,
        stream: TcpStream,
        aim: Generation,
        from: Generation,
    ) -> Result<Line, Failed> {
        self.world.tally().connections += 1;
        // A request is one write.
        let _best_effort = stream.set_nodelay(true);
        if !aim.has_tls() {
            return Ok(Wire::over(Box::new(stream)));
        }
        let failed = |what: String| ("TLS handshake failed", what);
        let place: std::io::Result<SocketAddr> = stream.peer_addr();
        let host = ServerName::try_from(HOST).map_err(|error| failed(error.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(host, stream).await;
        let stream = stream.map_err(|error| failed(format!("{place:?}: {error}")))?;
        let (_, session) = stream.get_ref();
        let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let shown = certificate.and_then(|it| self.world.authority.generation_of(it));
        let mut tally = self.world.tally();
        tally.handshakes += 1;
        tally.resumed += usize::from(is_resumed);
        // A session that is resumed has the certificate that it began with.
        let could_be = from..=self.world.upcoming();
        if !is_resumed && !shown.is_some_and(|shown| could_be.contains(&shown)) {
            let what = format!("{shown:?} in {could_be:?}");
            tally.failure("certificate of another time", &what);
        }
        drop(tally);
        Ok(Wire::over(Box::new(stream)))
    }
}

fn judge(world: &World, ask: Ask, tokens: Option<&Tokens>, answer: &Message, window: Window) {
    let Window { from, to } = window;
    let shown = tokens.map(|tokens| tokens.sealed);
    let openid = tokens.map_or("-", |tokens| &tokens.openid);
    let status = answer.status().unwrap_or(0);
    let text = String::from_utf8_lossy(&answer.body);
    let asked = format!("{ask:?} with {shown:?} in {from:?}..={to:?}");
    let mut could_be = (from.0..=to.0).map(Generation);
    if status != 200 {
        if !could_be.any(|generation| ask.allows(generation, status, shown)) {
            let what = format!("{status} for {asked}: {text}");
            world.tally().failure("unexpected status", &what);
        }
        return;
    }
    let Some(seen) = Seen::parse(&text) else {
        let what = format!("{text:?} for {asked}");
        return world.tally().failure("no answer of the app", &what);
    };
    if seen.target != ask.target() || seen.openid != openid {
        let what = format!("{text:?} for {asked} of {openid}");
        world.tally().failure("somebody else's answer", &what);
    }
    let fits = |generation: Generation| {
        seen.app == ask.app(generation) && ask.allows(generation, 200, shown)
    };
    // Who has no token may be answered by any that fits.
    let told = Generation::of_env(seen.env);
    let (is_whole, is_timely) = match told {
        Some(generation) => (fits(generation), (from..=to).contains(&generation)),
        None => (tokens.is_none() && could_be.any(fits), true),
    };
    if !is_whole {
        world.tally().mixture(&format!("{text:?} for {asked}"));
    }
    if !is_timely {
        let what = format!("{text:?} for {asked}");
        world
            .tally()
            .failure("configuration of another time", &what);
    }
    if let (Ask::Limited, Some(generation)) = (ask, told)
        && generation.is_limited()
    {
        world.tally().passed_limit(generation, openid);
    }
}

fn post(target: &str, token: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{token}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
