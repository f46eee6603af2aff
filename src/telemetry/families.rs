//! Every metric family, in one table: name, type, labels with what they can be, help, and the question it answers.
//!
//! A family is registered, exposed and documented out of its row and in no other way. Tests hold that everything exposed
//! has a row, that every row is exposed, that no label is anything else than its row says, and that the documentation is
//! what the rows say. So a label is bounded because its row says by what, and a row that cannot say it does not belong here.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::wechat::{endpoints, errcode};

/// A metric family.
#[derive(Debug)]
pub struct Family {
    /// As it is exposed.
    pub name: &'static str,
    /// What is counted, and how.
    pub kind: Kind,
    /// In the order of their names.
    pub labels: &'static [Label],
    /// What it says, in a sentence.
    pub help: &'static str,
    /// What it is looked at for.
    pub answers: Question,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts durations; the upper bounds are in microseconds.
    Histogram(&'static [u64]),
}

/// A label, and what it can be.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// As it is exposed.
    pub name: &'static str,
    /// What it can be.
    pub values: Values,
}

/// What a label can be.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// One of these.
    These(&'static [&'static str]),
    /// One of a set that is finite because of what is said here; whether something is in it can be asked.
    Of(&'static str, fn(&str) -> bool),
}

/// What somebody who looks at a family wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// About requests.
    Requests,
    /// About the app.
    App,
    /// About logins, tokens and open data.
    Users,
    /// About the store of sessions.
    Store,
    /// About WeChat.
    Wechat,
    /// About the app's calls.
    Calls,
    /// About messages.
    Messages,
    /// About the cache of media.
    Media,
    /// About the configuration.
    Configuration,
    /// About the process.
    Process,
}

impl Question {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Requests,
        Self::App,
        Self::Users,
        Self::Store,
        Self::Wechat,
        Self::Calls,
        Self::Messages,
        Self::Media,
        Self::Configuration,
        Self::Process,
    ];

    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Requests => "What do clients get, how fast, and how much of the time is ours?",
            Self::App => "Is it the app?",
            Self::Users => "Can users log in, and can their data be read?",
            Self::Store => "Is it Redis? (With `[store] url` only.)",
            Self::Wechat => "Is it WeChat, and how much of its quota is left?",
            Self::Calls => "Do the app's own calls and checks get through?",
            Self::Messages => "Does every message of WeChat's arrive? (With `[push]` only.)",
            Self::Media => "Does the cache of media help? (With `[media]` only.)",
            Self::Configuration => "What is in use, and is it what it should be?",
            Self::Process => "Is the process well?",
        }
    }
}

/// Upper bounds of what an app or a client may wait for.
const WAITS: &[u64] = &[
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];
/// Upper bounds of our own work.
const WORK: &[u64] = &[
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000,
];
/// Upper bounds of a call to WeChat.
const CALLS: &[u64] = &[
    25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Upper bounds of a request to Redis.
const REDIS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
];
/// Upper bounds of the acknowledgement of a push.
const ACKS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 4_500_000,
];
/// Upper bounds of the way of a message.
const DELAYS: &[u64] = &[
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
    3_600_000_000,
];

const ROUTE: Label = Label {
    name: "route",
    values: Values::Of(
        "a route's pattern as configured, `wx:` and the name of an endpoint of the sidecar's own, or `none`",
        |value| value.starts_with('/') || value.starts_with("wx:") || value == "none",
    ),
};
const DROPPED: Label = these("reason", &["full", "error"]);
const METHOD: Label = these(
    "method",
    &[
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "other",
    ],
);
const CODE: Label = Label {
    name: "code",
    values: Values::Of(
        "an HTTP status that is registered, 499 (the client went away), and `2xx` and the like for any other",
        super::requests::is_code,
    ),
};
const PROBLEM: Values = Values::Of("the last part of a problem's `type`", is_slug);
const CGI_PATH: Label = Label {
    name: "cgi_path",
    values: Values::Of(
        "the path of a documented API, of the first 32 that are called, or `other`",
        |value| value == endpoints::OTHER || endpoints::find(value).is_some(),
    ),
};
const BREAKER_PATH: Label = Label {
    name: "cgi_path",
    values: Values::Of(
        "as above, or `all` if there is no connection to WeChat",
        |value| matches!(value, endpoints::OTHER | "all") || endpoints::find(value).is_some(),
    ),
};
const ERRCODE: Label = Label {
    name: "errcode",
    values: Values::Of(
        "a documented errcode (0 is success; of each API the first 12 and those that need somebody), `other`, or `unreachable`, \
         `timeout`, `invalid`",
        |value| {
            matches!(value, "0" | "other" | "unreachable" | "timeout" | "invalid")
                || value
                    .parse()
                    .is_ok_and(|code| errcode::find(code).is_some())
        },
    ),
};
const BREAKER_CLASS: Label = these(
    "class",
    &[
        "rate_quota",
        "permission",
        "auth_config",
        "transient",
        "unreachable",
    ],
);
const STORE_OPERATION: Label = these(
    "operation",
    &[
        "claim_login",
        "remember_login",
        "release_login",
        "revoke",
        "revoked_until",
        "revocations",
        "generation",
        "spend",
        "remember_key",
        "keys",
        "probe",
    ],
);
const PUSH_STORE_OPERATION: Label = these(
    "operation",
    &["put", "load", "tend", "release", "settle", "bury", "probe"],
);
const STORE_RESULT: Label = these("result", &["ok", "away", "busy", "timeout", "error"]);
const SLOTS: Label = these("slot", &["0", "1"]);
const TIER: Label = these("tier", &["memory", "disk"]);
const VERSION: Label = Label {
    name: "version",
    values: Values::Of("that of this build", |_| true),
};
const REVISION: Label = Label {
    name: "revision",
    values: Values::Of(
        "what `WX_SIDECAR_REVISION` was in the environment of the build, or `unknown`",
        |_| true,
    ),
};
const HASH: Label = Label {
    name: "hash",
    values: Values::Of("16 hexadecimal digits; one series", |value| {
        value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
    }),
};
const WORKER: Label = Label {
    name: "worker",
    values: Values::Of("a number below `[inbound] workers`", |value| {
        value.parse::<u16>().is_ok()
    }),
};

const fn these(name: &'static str, values: &'static [&'static str]) -> Label {
    Label {
        name,
        values: Values::These(values),
    }
}

/// A constant of ours in the form of the last part of a problem's type.
fn is_slug(value: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
    (3..40).contains(&value.len()) && value.bytes().all(is_fine)
}

/// The class of an errcode.
fn is_class(value: &str) -> bool {
    matches!(
        value,
        "auth_config"
            | "token"
            | "rate_quota"
            | "user_input"
            | "not_found"
            | "permission"
            | "transient"
            | "content_risk"
            | "unknown"
    )
}

/// Declares families, and the table of all.
macro_rules! families {
    ($($answers:ident { $($id:ident = $kind:expr, $name:literal [$($label:expr),*] $help:literal;)* })*) => {
        $($(pub(crate) static $id: Family = Family {
            name: $name,
            kind: $kind,
            labels: &[$($label),*],
            help: $help,
            answers: Question::$answers,
        };)*)*

        /// All families, in the order of their questions.
        pub static TABLE: &[&Family] = &[$($(&$id,)*)*];
    };
}

use Kind::{Counter, Gauge as GaugeOf, Histogram as HistogramOf};

families! {
    Requests {
        HTTP_REQUESTS = Counter, "wx_sidecar_http_requests_total" [CODE, METHOD, ROUTE]
            "Requests by route, method and status (499: the client went away).";
        HTTP_DURATION = HistogramOf(WAITS), "wx_sidecar_http_request_duration_seconds" [ROUTE]
            "From a request's head to the end of its answer, or to its 101, by route.";
        HTTP_OVERHEAD = HistogramOf(WORK), "wx_sidecar_http_request_overhead_seconds"
            [these("action", &["forward", "own", "none"])]
            "How long the sidecar itself worked at a request, all waiting left out (for the app, WeChat, the store, the client), by what \
             it did with it: forward, own (an endpoint of its own), none (refused before that).";
        HTTP_PROBLEMS = Counter, "wx_sidecar_http_problems_total" [Label { name: "kind", values: PROBLEM }]
            "Requests that ended in an error of the sidecar's, told or not, by its kind.";
        HTTP_REQUEST_BYTES = Counter, "wx_sidecar_http_request_bytes_total" []
            "Bytes of bodies that came from clients; not those of tunnels.";
        HTTP_RESPONSE_BYTES = Counter, "wx_sidecar_http_response_bytes_total" []
            "Bytes of bodies that were sent to clients; not those of tunnels.";
        HTTP_IN_FLIGHT = GaugeOf, "wx_sidecar_http_requests_in_flight" []
            "Requests being dealt with.";
        HTTP_CONNECTIONS = GaugeOf, "wx_sidecar_http_connections" []
            "Client connections that are open.";
        HTTP_CONNECTIONS_REFUSED = Counter, "wx_sidecar_http_connections_refused_total"
            [these("reason", &["tls", "tls_timeout", "proxy", "proxy_timeout"])]
            "Client connections closed before their first request, by reason.";
        TLS_HANDSHAKES = Counter, "wx_sidecar_tls_handshakes_total" [these("resumed", &["false", "true"])]
            "TLS handshakes that succeeded, by whether they resumed an earlier session.";
        TLS_EXPIRY = GaugeOf, "wx_sidecar_tls_certificate_expiry_timestamp_seconds" []
            "When the certificate that clients are shown expires, or one of its chain before it, in Unix time. Only with [inbound.tls].";
        TUNNELS = GaugeOf, "wx_sidecar_tunnels" []
            "Client connections that carry another protocol, such as WebSocket.";
    }
    App {
        UPSTREAM_REQUESTS = Counter, "wx_sidecar_upstream_requests_total"
            [these("result", &["1xx", "2xx", "3xx", "4xx", "5xx", "unreachable", "timeout", "invalid", "abandoned"]), ROUTE]
            "Requests that the app was to get, by route and what came of it: the class of its answer (1xx: it switched protocols), unreachable, \
             timeout, invalid (no HTTP, or it broke off), abandoned (the client went away or did not send its body).";
        UPSTREAM_DURATION = HistogramOf(WAITS), "wx_sidecar_upstream_request_duration_seconds" [ROUTE]
            "How long the app was waited for: from the end of the request to the head of its answer, or in vain, by route.";
        UPSTREAM_CONNECTIONS = GaugeOf, "wx_sidecar_upstream_connections" [these("state", &["active", "idle"])]
            "Open connections to the app, with a request on them or waiting for one. One of HTTP/2 is always active.";
        UPSTREAM_CONNECTS = Counter, "wx_sidecar_upstream_connects_total" []
            "Connections opened to the app, failed ones included.";
        UPSTREAM_CONNECT_FAILURES = Counter, "wx_sidecar_upstream_connect_failures_total" []
            "Connections to the app that could not be opened.";
        UPSTREAM_RETRIES = Counter, "wx_sidecar_upstream_retries_total" [these("result", &["budget_exhausted", "sent"])]
            "Requests whose pooled connection to the app was dead: sent again, or told because the retry budget was exhausted.";
    }
    Users {
        LOGINS = Counter, "wx_sidecar_login_total"
            [Label { name: "result", values: Values::Of("`ok`, `replayed`, the class of an errcode, or the last part of a problem's `type`", |value| {
                matches!(value, "ok" | "replayed") || is_class(value) || is_slug(value)
            }) }]
            "Logins by result: ok, replayed (the same code once more), or what stopped them.";
        DECRYPTED = Counter, "wx_sidecar_decrypt_total"
            [these("key_age", &["0", "1", "2", "3", "none"]), these("result", &["ok", "padding", "json", "watermark", "age", "signature"])]
            "Open data by result: ok, or what was wrong with it; key_age says how many newer session keys the user has.";
        TOKENS_OPENED = Counter, "wx_sidecar_tokens_opened_total" [these("slot", &["0", "1", "2"])]
            "Tokens by the key that they are sealed with: 0 is the newest, 2 also stands for older ones.";
        RINGS_DEGRADED = Counter, "wx_sidecar_store_rings_degraded_total" []
            "Times the session keys of a user were asked for while the store was away; the token's own was used.";
    }
    Store {
        STORE_UP = GaugeOf, "wx_sidecar_store_up" []
            "Whether the store can be used: it takes writes, and its revocations are known here.";
        STORE_REQUESTS = Counter, "wx_sidecar_store_requests_total" [STORE_OPERATION, STORE_RESULT]
            "Requests to the store by operation and result: ok, away (not sent), busy (not sent), timeout, error.";
        STORE_DURATION = HistogramOf(REDIS), "wx_sidecar_store_request_duration_seconds" [STORE_OPERATION]
            "How long requests took that were sent to the store.";
        STORE_REFUSED = Counter, "wx_sidecar_store_values_refused_total" []
            "Values that were not written by a sidecar with our keys, or not as this one writes them; taken as absent.";
        STORE_CONNECTIONS = Counter, "wx_sidecar_store_connections_total" []
            "Attempts to connect to the store.";
        PUSH_STORE_UP = GaugeOf, "wx_sidecar_push_store_up" []
            "Whether the store of pushed messages can be used: it takes writes.";
        PUSH_STORE_REQUESTS = Counter, "wx_sidecar_push_store_requests_total" [PUSH_STORE_OPERATION, STORE_RESULT]
            "Requests to the store of pushed messages by operation and result: ok, away (not sent), busy (not sent), timeout, error.";
        PUSH_STORE_DURATION = HistogramOf(REDIS), "wx_sidecar_push_store_request_duration_seconds" [PUSH_STORE_OPERATION]
            "How long requests took that were sent to the store of pushed messages.";
        PUSH_STORE_REFUSED = Counter, "wx_sidecar_push_store_values_refused_total" []
            "Messages that were not written by a sidecar with our keys, or not as this one writes them; taken as absent.";
        PUSH_STORE_CONNECTIONS = Counter, "wx_sidecar_push_store_connections_total" []
            "Attempts to connect to the store of pushed messages.";
    }
    Wechat {
        WX_REQUESTS = Counter, "wx_sidecar_wx_api_requests_total" [CGI_PATH, ERRCODE]
            "Calls to WeChat by API path and errcode (0 is success).";
        WX_DURATION = HistogramOf(CALLS), "wx_sidecar_wx_api_duration_seconds" [CGI_PATH]
            "How long calls to WeChat took.";
        TOKEN_AGE = GaugeOf, "wx_sidecar_wx_token_age_seconds" []
            "How long ago WeChat last gave the access_token in use.";
        TOKEN_EXPIRY = GaugeOf, "wx_sidecar_wx_token_expiry_seconds" []
            "How long the access_token in use still lives; negative when it has ended.";
        TOKEN_REFRESHES = Counter, "wx_sidecar_wx_token_refresh_total"
            [these("reason", &["missing", "expired", "due", "refused", "forced"]), these("result", &["ok", "same", "error"])]
            "Fetches of the access_token by reason (missing, expired, due, refused, forced) and result (ok, same: the token that was held, \
             error).";
        TOKEN_FOREIGN = Counter, "wx_sidecar_wx_token_foreign_refresh_total" []
            "Times another system has had WeChat replace the access_token: it has the AppSecret and refreshes by force.";
        APP_SECRET = GaugeOf, "wx_sidecar_app_secret_slot" []
            "Which of the AppSecrets WeChat took last, in the order of the configuration, from 0; -1 if it has not taken any since there are \
             these.";
        QUOTA_REMAINING = GaugeOf, "wx_sidecar_wx_quota_remaining" [CGI_PATH]
            "How many calls of an API WeChat said were left of the day, when it was last asked; of the ten APIs called most.";
        QUOTA_LIMIT = GaugeOf, "wx_sidecar_wx_quota_limit" [CGI_PATH]
            "How many calls of an API WeChat allows in a day.";
        BREAKER_STATE = GaugeOf, "wx_sidecar_wx_breaker_state" [BREAKER_PATH, BREAKER_CLASS]
            "Whether calls to WeChat are held back, by API path (all: there is no connection) and class of the cause: 0 no, 1 one at a time is \
             made to see, 2 yes. Only of breakers that have been open.";
        BREAKER_TRANSITIONS = Counter, "wx_sidecar_wx_breaker_transitions_total"
            [BREAKER_PATH, BREAKER_CLASS, these("to", &["closed", "half-open", "open"])]
            "Changes of a breaker's state by API path, class of the cause, and the state that it came to.";
        BREAKER_REJECTED = Counter, "wx_sidecar_wx_breaker_rejected_total" [BREAKER_PATH, BREAKER_CLASS]
            "Calls to WeChat that were not made because a breaker was open.";
    }
    Calls {
        OUTBOUND = Counter, "wx_sidecar_outbound_requests_total"
            [Label { name: "result", values: Values::Of("`ok`, `refused`, `own`, `gone`, or the last part of a problem's `type`", |value| {
                matches!(value, "ok" | "refused" | "own" | "gone") || is_slug(value)
            }) }]
            "Calls of the app's by result: ok, refused (an errcode was passed on), own (a token endpoint), gone (the app did not wait for the \
             answer), or the kind of error that the app was told.";
        CALLER_TOKENS = Counter, "wx_sidecar_caller_token_uses_total" [SLOTS]
            "Calls of the app's by the caller token they showed: slot 0 is the first in the configuration, 1 any other.";
        TEXT_CHECKS = Counter, "wx_sidecar_text_checks_total" [these("verdict", &["pass", "review", "risky", "unchecked"])]
            "Requests with texts that WeChat was asked about, by its verdict: pass, review, risky, or unchecked.";
        MEDIA_CHECKS = Counter, "wx_sidecar_media_checks_total" [these("result", &["asked", "error"])]
            "Uploads that WeChat was asked to check, by result: asked, or error.";
    }
    Messages {
        PUSH_RECEIVED = Counter, "wx_sidecar_push_total"
            [these("result", &["stored", "duplicate", "full", "failed"]),
             these("type", &["text", "image", "voice", "video", "shortvideo", "location", "link", "miniprogrampage", "event", "other"])]
            "Genuine messages of WeChat's by type and result: stored (safe, and acknowledged), duplicate (acknowledged), full and failed (not \
             acknowledged, so that WeChat sends them again).";
        PUSH_REFUSED = Counter, "wx_sidecar_push_refused_total"
            [these("reason", &["signature", "mode", "msg_signature", "timestamp", "stale", "query", "unsigned", "nonce", "syntax", "encoding",
             "doctype", "depth", "size", "duplicate", "not_an_object", "name", "base64", "length", "padding", "receiver"])]
            "Pushes that were not taken for WeChat's, or that cannot be read, by what is wrong with them.";
        PUSH_ACKS = HistogramOf(ACKS), "wx_sidecar_push_ack_duration_seconds" []
            "From a push's head to its acknowledgement; of messages that wait for the app's reply too. WeChat waits 5 s.";
        PUSH_DELIVERIES = Counter, "wx_sidecar_push_deliveries_total"
            [these("result", &["accepted", "refused", "failed", "unreachable", "dropped", "unread"])]
            "Attempts to deliver a message to the app by result: accepted, refused (another 4xx), failed (5xx, 401, 403, 404, 405, too slow), \
             unreachable (no connection, 429, 503), dropped (by an operator), unread (the journal or Redis cannot be read).";
        PUSH_DELAY = HistogramOf(DELAYS), "wx_sidecar_push_delivery_delay_seconds" []
            "From a message's arrival to the app's acceptance.";
        PUSH_GIVEN_UP = Counter, "wx_sidecar_push_given_up_total" []
            "Messages that became dead letters.";
        PUSH_REPLIES = Counter, "wx_sidecar_push_replies_total" [these("result", &["sent", "none", "late", "invalid"])]
            "What became of waiting for the app's reply: sent, none (the app had nothing to say), late, invalid.";
        PUSH_SECRETS = Counter, "wx_sidecar_push_secret_uses_total" [these("secret", &["aes_key", "token"]), SLOTS]
            "Genuine messages by the token they were signed with and the key they were encrypted with: slot 0 is the first in the \
             configuration, 1 any other.";
        PUSH_DEPTH = GaugeOf, "wx_sidecar_push_inbox_depth" []
            "Messages that are acknowledged and not delivered; with Redis, those of all replicas.";
        PUSH_BYTES = GaugeOf, "wx_sidecar_push_inbox_bytes" []
            "How many bytes those have.";
        PUSH_DEPTH_LIMIT = GaugeOf, "wx_sidecar_push_inbox_depth_limit" []
            "How many messages may wait; beyond that none is acknowledged.";
        PUSH_BYTES_LIMIT = GaugeOf, "wx_sidecar_push_inbox_bytes_limit" []
            "How many bytes the messages that wait may have.";
        PUSH_OLDEST = GaugeOf, "wx_sidecar_push_inbox_oldest_age_seconds" []
            "How long the oldest of them has waited; 0 if there is none. With Redis, of those that this replica delivers.";
        PUSH_DEAD = GaugeOf, "wx_sidecar_push_dead_letters" []
            "Messages that were given up and are kept for somebody to look at.";
        PUSH_UP = GaugeOf, "wx_sidecar_push_inbox_up" []
            "Whether messages can be made safe; if not, none is acknowledged.";
    }
    Media {
        MEDIA_LOOKUPS = Counter, "wx_sidecar_media_cache_requests_total" [these("result", &["memory", "disk", "miss", "collapsed"])]
            "Media that were asked for, by where they were: memory, disk, miss (asked of WeChat), collapsed (on their way already).";
        MEDIA_BYTES = GaugeOf, "wx_sidecar_media_cache_bytes" [TIER]
            "Bytes that the media which are kept take, in memory and on the disk.";
        MEDIA_ENTRIES = GaugeOf, "wx_sidecar_media_cache_entries" [TIER]
            "Media that are kept, in memory and on the disk.";
        MEDIA_ERRORS = Counter, "wx_sidecar_media_cache_errors_total" [these("op", &["open", "read", "write", "damaged"])]
            "What the disk did not do: open, read, write; or damaged, what it had. Media were served from memory, as far as that went.";
        MEDIA_EVICTIONS = Counter, "wx_sidecar_media_cache_evictions_total" [these("reason", &["size", "expired"]), TIER]
            "Media that are kept no longer, by tier and reason: size (others needed the room), expired.";
    }
    Configuration {
        BUILD_INFO = GaugeOf, "wx_sidecar_build_info" [REVISION, VERSION]
            "1, with the version of this build and the revision of its source.";
        CONFIG_HASH = GaugeOf, "wx_sidecar_config_hash_info" [HASH]
            "1, with a hash of the configuration in use, in which secrets have no part; replicas that should be alike have the same.";
        RELOAD_SUCCESSFUL = GaugeOf, "wx_sidecar_config_last_reload_successful" []
            "Whether the last attempt to load the configuration succeeded; 0: an older one is in use.";
        RELOAD_TIMESTAMP = GaugeOf, "wx_sidecar_config_last_reload_success_timestamp_seconds" []
            "When the configuration in use was loaded, in Unix time.";
        CONFIG_LOADS = Counter, "wx_sidecar_config_loads_total" [these("result", &["success", "failure"])]
            "Configurations that were to be used, the first one among them, and whether they are (success) or were wrong or impossible \
             (failure).";
        CONFIG_SOURCE_UP = GaugeOf, "wx_sidecar_config_source_up" []
            "Whether the configuration can be read where it comes from; 0 while ZooKeeper is away or has no such node.";
    }
    Process {
        PANICS = Counter, "wx_sidecar_panics_total" []
            "Defects of the sidecar that cost a request, a connection or a moment of a background task.";
        LOG_LINES_DROPPED = Counter, "wx_sidecar_log_lines_dropped_total" [DROPPED]
            "Lines of the log that were dropped: there was no room for more of them to wait (full), or standard output cannot be written to (error).";
        WORKER_BUSY = Counter, "wx_sidecar_worker_busy_seconds_total" [WORKER]
            "How long each worker was at work; one that is at it a second each second is what its clients wait for.";
        TRACE_SPANS = Counter, "wx_sidecar_trace_spans_total" [these("result", &["exported", "failed", "dropped"])]
            "Spans by result: exported, failed (the collector did not take them), dropped (too many waited for it). In builds with the \
             feature otlp only.";
        PROCESS_CPU = Counter, "process_cpu_seconds_total" []
            "Total user and system CPU time spent in seconds.";
        PROCESS_OPEN_FDS = GaugeOf, "process_open_fds" []
            "Number of open file descriptors.";
        PROCESS_MAX_FDS = GaugeOf, "process_max_fds" []
            "Maximum number of open file descriptors.";
        PROCESS_VIRTUAL = GaugeOf, "process_virtual_memory_bytes" []
            "Virtual memory size in bytes.";
        PROCESS_RESIDENT = GaugeOf, "process_resident_memory_bytes" []
            "Resident memory size in bytes.";
        PROCESS_START = GaugeOf, "process_start_time_seconds" []
            "Start time of the process since unix epoch in seconds.";
        PROCESS_THREADS = GaugeOf, "process_threads" []
            "Number of OS threads in the process.";
    }
}

/// How many series of a family are there from the start, with a 0. Who waits for the first event sees it only then.
const MOST_AT_START: usize = 16;

impl Family {
    fn options(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.name).collect()
    }

    /// The upper bounds of the buckets in microseconds.
    pub(super) fn bounds(&self) -> &'static [u64] {
        match self.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        }
    }

    fn histogram_options(&self) -> HistogramOpts {
        let seconds = self.bounds().iter().map(|micros| *micros as f64 / 1e6);
        HistogramOpts::new(self.name, self.help).buckets(seconds.collect())
    }

    /// A counter without labels.
    pub(super) fn counter(&self, registry: &Registry) -> IntCounter {
        registered(registry, IntCounter::with_opts(self.options()))
    }

    /// Counters with labels. If there are only a few, they are there from the start.
    pub(super) fn counters(&self, registry: &Registry) -> IntCounterVec {
        let counters = registered(registry, IntCounterVec::new(self.options(), &self.names()));
        for values in self.combinations() {
            counters.with_label_values(&values);
        }
        counters
    }

    /// All combinations of values, in the order of the labels, or none if they are many.
    fn combinations(&self) -> Vec<Vec<&'static str>> {
        let mut combinations = vec![Vec::new()];
        for label in self.labels {
            let Values::These(values) = label.values else {
                return Vec::new();
            };
            if combinations.len() * values.len() > MOST_AT_START {
                return Vec::new();
            }
            let with = |known: &Vec<_>, value| [&known[..], &[value]].concat();
            combinations = combinations
                .iter()
                .flat_map(|known| values.iter().map(move |value| with(known, *value)))
                .collect();
        }
        combinations
    }

    /// A gauge without labels that has a value from the start.
    pub(super) fn gauge(&self, registry: &Registry) -> IntGauge {
        registered(registry, IntGauge::with_opts(self.options()))
    }

    /// Gauges with labels, or one without that has no value yet.
    pub(super) fn gauges(&self, registry: &Registry) -> IntGaugeVec {
        registered(registry, self.gauges_of_collector())
    }

    /// Counters for a collector that has them told.
    pub(super) fn counters_of_collector(&self) -> IntCounterVec {
        accepted(IntCounterVec::new(self.options(), &self.names()))
    }

    /// The same for a collector that has them told.
    pub(super) fn gauges_of_collector(&self) -> prometheus::Result<IntGaugeVec> {
        IntGaugeVec::new(self.options(), &self.names())
    }

    /// A gauge without labels for a collector that has it told.
    pub(super) fn gauge_of_collector(&self) -> Gauge {
        accepted(Gauge::with_opts(self.options()))
    }

    /// A histogram without labels.
    pub(super) fn histogram(&self, registry: &Registry) -> Histogram {
        registered(registry, Histogram::with_opts(self.histogram_options()))
    }

    /// Histograms with labels.
    pub(super) fn histograms(&self, registry: &Registry) -> HistogramVec {
        let histograms = HistogramVec::new(self.histogram_options(), &self.names());
        registered(registry, histograms)
    }
}

/// What is made of a row of the table.
pub(super) fn accepted<C>(family: prometheus::Result<C>) -> C {
    family.expect("a test makes all families of the table")
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: prometheus::Result<C>,
) -> C {
    let family = accepted(family);
    register(registry, family.clone());
    family
}

pub(super) fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry
        .register(Box::new(collector))
        .expect("each family is registered once");
}
