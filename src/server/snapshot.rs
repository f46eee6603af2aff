//! The configuration in the form that requests use: built whole, swapped whole.
//!
//! A reload builds a new snapshot or changes nothing. What must outlive it (revocations, access_tokens, metrics) hangs on the sidecar and
//! is only referred to from here.

use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::exchange::watched;
use super::router::Router;
use crate::clock::Clock;
use crate::config::{self, Config, Tls};
use crate::content_check::{ContentCheck, Traces};
use crate::error::Kind;
use crate::gateway::{Gateway, Memory};
use crate::media::{self, Media};
use crate::open_data::Opener;
use crate::outbound::{Callers, Rules};
use crate::push::{Annotator, Bus};
use crate::resilience::{BufferBudget, RateLimiter, RateLimiters};
use crate::session::{Assertions, SessionState, Sessions};
use crate::telemetry::inspector::{self, Inspector};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::pseudonym::Pseudonyms;
use crate::telemetry::throttle::Throttle;
use crate::telemetry::trace::Tracing;
use crate::wechat::content_check;
use crate::wire::{HeadLimits, Listener, overhear};

/// Everything a request needs to know.
pub(crate) struct Snapshot {
    pub(crate) config: Config,
    pub(crate) router: Router,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) sessions: Arc<Sessions>,
    /// Who may call WeChat.
    pub(crate) callers: Callers,
    /// What of it they may call.
    pub(crate) rules: Rules,
    pub(crate) opener: Opener,
    /// If messages are taken.
    pub(crate) bus: Option<Arc<Bus>>,
    /// If they are dealt with.
    pub(crate) media: Option<Media>,
    pub(crate) content_check: ContentCheck,
    /// How the log calls users.
    pub(crate) pseudonyms: Pseudonyms,
    /// If the app wants proof.
    pub(crate) assertions: Option<Assertions>,
    pub(crate) head_limits: HeadLimits,
    /// The identity lines that are the same for all users.
    pub(crate) app_lines: Vec<u8>,
    /// For whoever wants a session.
    pub(crate) login_limiter: Option<Arc<RateLimiter>>,
    /// How many requests each worker deals with at once.
    pub(crate) requests_per_worker: usize,
    pub(crate) shared: Arc<Shared>,
}

/// What all workers count together, and what outlives a reload.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) limiters: RateLimiters,
    pub(crate) buffers: BufferBudget,
    pub(crate) wechat: Memory,
    /// Messages that wait, once any are taken.
    bus: OnceLock<Arc<Bus>>,
    bus_opened: Notify,
    /// Media that are kept, once there are any to be.
    pub(crate) media: OnceLock<Arc<media::Keep>>,
    /// Media that WeChat is judging.
    pub(crate) traces: Arc<Traces>,
    /// Failed requests in the log, by kind and status (an errcode of WeChat's has its own).
    pub(crate) failures: Throttle<(Kind, u16)>,
    pub(crate) tracing: Tracing,
    /// What went through lately, if somebody wants to see it.
    pub(crate) inspector: Inspector,
}

impl Shared {
    /// Connections to WeChat will live on `home`.
    pub(crate) fn new(home: Handle, clock: Clock) -> Self {
        let tracing = Tracing::new();
        Self {
            wechat: Memory::new(clock)
                .at_home_on(home)
                .traced_by(tracing.clone()),
            tracing,
            ..Self::default()
        }
    }

    /// From now on messages are taken. There is one inbox for as long as the process lives.
    pub(crate) fn open_bus(&self, bus: Bus) {
        bus.annotate(annotator(&self.traces));
        bus.trace_by(self.tracing.clone());
        bus.show_to(self.inspector.clone());
        let _there_is_one = self.bus.set(Arc::new(bus));
        self.bus_opened.notify_one();
    }

    /// The one that takes messages, as soon as any does. One waits for it: who delivers.
    pub(crate) async fn bus(&self) -> Arc<Bus> {
        loop {
            match self.bus.get() {
                Some(bus) => return Arc::clone(bus),
                None => self.bus_opened.notified().await,
            }
        }
    }
}

impl Snapshot {
    pub(crate) fn build(
        config: Config,
        state: &Arc<SessionState>,
        metrics: &Arc<Metrics>,
        shared: &Arc<Shared>,
    ) -> Self {
        shared
            .tracing
            .configure(&config.trace, &config.app.appid, metrics);
        if config.admin.inspector {
            overhear(Listener {
                hear: watched::hear,
                listens: inspector::is_watched,
            });
        }
        shared.inspector.switch(config.admin.inspector);
        let gateway = Arc::new(Gateway::new(
            &config.app,
            &config.wechat,
            &shared.wechat,
            Arc::clone(metrics),
        ));
        let app_lines = app_lines(&config.app);
        let tls = config.inbound.tls.as_ref();
        metrics.certificate_expires(tls.and_then(Tls::expires));
        let bus = match (&config.push, shared.bus.get()) {
            (Some(push), Some(bus)) => {
                bus.configure(push, &config);
                Some(Arc::clone(bus))
            }
            _ => None,
        };
        Self {
            bus,
            media: Media::new(
                &config,
                Arc::clone(&gateway),
                &shared.wechat,
                &shared.buffers,
                || {
                    let make = || media::Keep::new(&config.media, &shared.wechat, metrics);
                    Arc::clone(shared.media.get_or_init(make))
                },
            ),
            content_check: ContentCheck::new(
                &config,
                Arc::clone(&gateway),
                Arc::clone(metrics),
                Arc::clone(&shared.traces),
            ),
            router: Router::new(&config, &shared.limiters),
            opener: Opener::new(&config, Arc::clone(&gateway), Arc::clone(metrics)),
            pseudonyms: Pseudonyms::derive(&config.app.appid, &config.sealing_secrets()[0]),
            assertions: config.session.assertion.then(|| {
                Assertions::derive(&config.app.appid, &config.app.env, config.sealing_secrets())
            }),
            sessions: Arc::new(Sessions::new(
                &config,
                Arc::clone(&gateway),
                Arc::clone(state),
            )),
            gateway,
            callers: Callers::new(
                &config.app.appid,
                &config.outbound,
                &config.wechat.endpoints,
            ),
            rules: Rules::new(&config.outbound),
            head_limits: HeadLimits {
                bytes: config.inbound.header_limit,
            },
            app_lines,
            login_limiter: config
                .inbound
                .login_rate_limit
                .map(|limit| shared.limiters.get("login", limit)),
            requests_per_worker: config.inbound.max_requests.div_ceil(config.inbound.workers),
            shared: Arc::clone(shared),
            config,
        }
    }
}

impl Snapshot {
    pub(crate) fn tracing(&self) -> &Tracing {
        &self.shared.tracing
    }
}

/// The identity lines that are the same for all users.
pub(super) fn app_lines(app: &config::App) -> Vec<u8> {
    format!(
        "X-WX-APPID: {}\r\nX-WX-SOURCE: wx_client\r\nX-WX-ENV: {}\r\n",
        app.appid, app.env
    )
    .into_bytes()
}

/// Adds to WeChat's judgement of an upload which medium that is.
fn annotator(traces: &Arc<Traces>) -> Annotator {
    let traces = Arc::clone(traces);
    Box::new(move |appid, message| {
        let trace = content_check::judged(message)?;
        let medium = Arc::clone(&traces).medium(appid.clone(), trace);
        Some(Box::pin(async {
            let medium = medium.await?;
            Some(("X-WX-Media-Id", medium.as_str().to_owned()))
        }))
    })
}
