//! What is recorded, and of whose work.
//!
//! Whether a trace is recorded is decided where it begins, by chance, and never by its id: a stranger may have chosen that.
//! Spans go into a bounded queue to the thread that exports them. Whoever finds it full goes on without, so a collector that is slow
//! or away costs spans and nothing else.

use std::cell::OnceCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use prometheus::IntCounter;
use tokio::sync::{mpsc, watch};

use super::export::{self, Target};
use super::{Kind, Span, Value};
use crate::config;
use crate::domain::AppId;
use crate::telemetry::families;
use crate::telemetry::ids::{IdSource, TraceContext, Traced};
use crate::telemetry::metrics::Metrics;

/// How many spans wait for the collector at the most.
const QUEUE: usize = 2048;

thread_local! {
    /// For spans of which nobody needs to know the id before they end.
    static IDS: OnceCell<IdSource> = const { OnceCell::new() };
}

tokio::task_local! {
    /// What this task is at.
    static CURRENT: Option<TraceContext>;
}

/// Takes spans, if any are wanted. All that is cloned from one is one.
#[derive(Clone, Default)]
pub(crate) struct Tracing(Arc<Shared>);

#[derive(Default)]
struct Shared {
    recorder: ArcSwapOption<Recorder>,
    /// What the recorder was made of. Guards that there is one change at a time.
    made_of: Mutex<Option<config::Trace>>,
    counted: OnceLock<Counted>,
}

/// What is recorded, and where it goes.
struct Recorder {
    /// How much of the 64 bits of chance means yes.
    limit: u64,
    queue: mpsc::Sender<SpanData>,
    counted: Counted,
    scope: InstrumentationScope,
    /// Told that time is short.
    hurry: watch::Sender<bool>,
    /// Closed when all that was in the queue has been dealt with.
    ended: watch::Receiver<()>,
}

/// Something below what a task is at.
pub(crate) struct Begun(Traced);

/// What became of spans.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) exported: IntCounter,
    pub(super) failed: IntCounter,
    dropped: IntCounter,
}

impl Tracing {
    /// Records nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Follows the configuration. What waits for the collector of the old one is still sent there.
    pub(crate) fn configure(&self, trace: &config::Trace, appid: &AppId, metrics: &Metrics) {
        let counted = &self.0.counted;
        let counted = counted.get_or_init(|| Counted::register(metrics));
        let made_of = &self.0.made_of;
        let mut made_of = made_of.lock().unwrap_or_else(PoisonError::into_inner);
        if made_of.as_ref() == Some(trace) {
            return;
        }
        *made_of = Some(trace.clone());
        let target = match Target::of(trace, appid) {
            Ok(target) => target,
            Err(error) => {
                tracing::error!(%error, "no spans are exported");
                None
            }
        };
        let recorder = target.and_then(|target| {
            let started = Recorder::start(&target, counted.clone());
            started
                .inspect_err(|error| tracing::error!(%error, "no spans are exported"))
                .ok()
        });
        self.0.recorder.store(recorder.map(Arc::new));
    }

    /// Whether a trace that begins now is to be recorded.
    pub(crate) fn chooses(&self, ids: &IdSource) -> bool {
        let recorder = self.0.recorder.load();
        recorder
            .as_ref()
            .is_some_and(|recorder| recorder.chooses(ids))
    }

    /// Records what has ended just now, if its trace is recorded.
    pub(crate) fn record(&self, traced: &Traced, span: impl FnOnce() -> Span) {
        if !traced.here.is_sampled() {
            return;
        }
        if let Some(recorder) = self.0.recorder.load().as_ref() {
            recorder.take(traced, span());
        }
    }

    /// Begins something below what this task is at, or of its own if that is nothing.
    pub(crate) fn begin(&self) -> Begun {
        Begun(with_ids(|ids| match current() {
            Some(current) => Traced::below(current, ids),
            None => Traced::anew(ids, self.chooses(ids)),
        }))
    }

    /// Records what has been begun, and has ended just now.
    pub(crate) fn finish(&self, begun: &Begun, span: impl FnOnce() -> Span) {
        self.record(&begun.0, span);
    }

    /// Records no more, and waits for what waits, for as long as `limit`.
    pub(crate) async fn end(&self, limit: Duration) {
        let Some(recorder) = self.0.recorder.swap(None) else {
            return;
        };
        let mut ended = recorder.ended.clone();
        recorder.hurry.send_replace(true);
        drop(recorder);
        let all = async { while ended.changed().await.is_ok() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("the collector does not take the last spans in time");
        }
    }
}

impl Begun {
    /// `work`, which belongs to it.
    pub(crate) fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        within(self.0.here, work)
    }
}

impl Recorder {
    fn start(target: &Target, counted: Counted) -> std::io::Result<Self> {
        let (queue, spans) = mpsc::channel(QUEUE);
        let (hurry, hurried) = watch::channel(false);
        let (end, ended) = watch::channel(());
        // Of a ratio of 1 the product is more than there is, and becomes the most there is.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of all numbers, and it need not be exact"
        )]
        let limit = (target.sample * u64::MAX as f64) as u64;
        export::start(target, spans, hurried, counted.clone(), end)?;
        Ok(Self {
            limit,
            queue,
            counted,
            scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            hurry,
            ended,
        })
    }

    fn chooses(&self, ids: &IdSource) -> bool {
        ids.falls_below(self.limit)
    }

    fn take(&self, traced: &Traced, span: Span) {
        if self
            .queue
            .try_send(data(traced, span, &self.scope))
            .is_err()
        {
            self.counted.dropped.inc();
        }
    }
}

impl Counted {
    fn register(metrics: &Metrics) -> Self {
        let spans = families::TRACE_SPANS.counters(metrics.registry());
        let counter = |result| spans.with_label_values(&[result]);
        Self {
            exported: counter("exported"),
            failed: counter("failed"),
            dropped: counter("dropped"),
        }
    }
}

/// `work`, which belongs to `context`: what is recorded in it is below that.
pub(crate) fn within<F: Future>(
    context: TraceContext,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(Some(context), work)
}

/// `work` for another task, which belongs to what this one is at.
pub(crate) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(current(), work)
}

fn current() -> Option<TraceContext> {
    CURRENT.try_with(|current| *current).ok().flatten()
}

fn with_ids<T>(work: impl FnOnce(&IdSource) -> T) -> T {
    IDS.with(|ids| work(ids.get_or_init(IdSource::new)))
}

fn data(traced: &Traced, span: Span, scope: &InstrumentationScope) -> SpanData {
    let end_time = SystemTime::now();
    let parent = traced.above.filter(|_| traced.goes_on());
    let mut links = SpanLinks::default();
    if let Some(above) = traced.above.filter(|_| !traced.goes_on()) {
        links.links = vec![Link::with_context(span_context(above, true))];
    }
    let (_, parent_id) = parent.map_or((0, 0), TraceContext::numbers);
    let error = span.error.clone();
    let status = match &error {
        Some(_) => Status::error(""),
        None => Status::Unset,
    };
    let kind = match span.kind {
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Internal => SpanKind::Internal,
    };
    let error = error.map(|error| KeyValue::new("error.type", error));
    let attributes = span.attributes.into_iter().map(attribute).chain(error);
    SpanData {
        span_context: span_context(traced.here, false),
        parent_span_id: SpanId::from(parent_id),
        parent_span_is_remote: kind == SpanKind::Server,
        span_kind: kind,
        name: span.name,
        start_time: end_time - span.took,
        end_time,
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status,
        instrumentation_scope: scope.clone(),
    }
}

fn attribute((name, value): (&'static str, Value)) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(name, StringValue::from(text)),
        Value::Number(number) => KeyValue::new(name, number),
    }
}

fn span_context(context: TraceContext, is_remote: bool) -> SpanContext {
    let (trace, span) = context.numbers();
    SpanContext::new(
        TraceId::from(trace),
        SpanId::from(span),
        TraceFlags::default().with_sampled(context.is_sampled()),
        is_remote,
        TraceState::default(),
    )
}
