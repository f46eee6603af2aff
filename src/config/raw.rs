//! The configuration, as written.
//!
//! [`SECTIONS`] is the one list of what may be written; the reader, the mask and the tests of `sidecar.toml` go by it. The
//! file is read by hand from toml's tree and not by serde, which stops at the first mistake and would print the value it
//! stumbled over. Here every key is looked at, whatever the others are like, and a message never holds a value.
//! `${NAME}` is replaced while reading: afterwards nobody has to know that there is an environment.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Fault, Sink, nearest};
use super::mask::is_suspect;

/// A section of the file.
pub(super) struct Section {
    pub(super) name: &'static str,
    /// `[[name]]` rather than `[name]`.
    pub(super) repeated: bool,
    pub(super) keys: &'static [Key],
}

/// A key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Text that says where to listen.
    Listen,
    /// Text, or a list of it; never shown.
    Secret,
    /// Text, or a list of it.
    Files,
    /// Text, or a list of it.
    Texts,
    List,
    Duration,
    Size,
    Number,
    /// A number or `"auto"`.
    Workers,
    /// A number or a name of WeChat's scenes.
    Scene,
    Flag,
}

/// Every section and every key there is.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        name: "app",
        repeated: false,
        keys: &[
            Key::new("appid", Kind::Text),
            Key::new("secret", Kind::Secret),
            Key::new("secret_file", Kind::Files),
            Key::new("env", Kind::Text),
        ],
    },
    Section {
        name: "inbound",
        repeated: false,
        keys: &[
            Key::new("listen", Kind::Listen),
            Key::new("upstream", Kind::Text),
            Key::new("prefix", Kind::Text),
            Key::new("auth", Kind::Text),
            Key::new("workers", Kind::Workers),
            Key::new("trusted_proxies", Kind::List),
            Key::new("proxy_protocol", Kind::Flag),
            Key::new("body_limit", Kind::Size),
            Key::new("header_limit", Kind::Size),
            Key::new("timeout", Kind::Duration),
            Key::new("connect_timeout", Kind::Duration),
            Key::new("header_timeout", Kind::Duration),
            Key::new("idle_timeout", Kind::Duration),
            Key::new("tunnel_timeout", Kind::Duration),
            Key::new("max_connections", Kind::Number),
            Key::new("max_requests", Kind::Number),
            Key::new("buffer_limit", Kind::Size),
            Key::new("rate_limit", Kind::Text),
            Key::new("login_rate_limit", Kind::Text),
            Key::new("drain_delay", Kind::Duration),
            Key::new("drain_timeout", Kind::Duration),
            Key::new("escaped_slashes", Kind::Text),
        ],
    },
    Section {
        name: "inbound.tls",
        repeated: false,
        keys: &[
            Key::new("cert_file", Kind::Text),
            Key::new("key_file", Kind::Text),
            Key::new("client_ca_file", Kind::Text),
            Key::new("handshake_timeout", Kind::Duration),
        ],
    },
    Section {
        name: "route",
        repeated: true,
        keys: &[
            Key::new("path", Kind::Text),
            Key::new("methods", Kind::List),
            Key::new("auth", Kind::Text),
            Key::new("login", Kind::Flag),
            Key::new("open_data", Kind::Flag),
            Key::new("media", Kind::Text),
            Key::new("timeout", Kind::Duration),
            Key::new("body_limit", Kind::Size),
            Key::new("rate_limit", Kind::Text),
            Key::new("upstream", Kind::Text),
        ],
    },
    Section {
        name: "route.text_check",
        repeated: false,
        keys: &[
            Key::new("field", Kind::Texts),
            Key::new("scene", Kind::Scene),
            Key::new("on_review", Kind::Text),
            Key::new("on_failure", Kind::Text),
        ],
    },
    Section {
        name: "session",
        repeated: false,
        keys: &[
            Key::new("access_ttl", Kind::Duration),
            Key::new("refresh_ttl", Kind::Duration),
            Key::new("refresh_grace", Kind::Duration),
            Key::new("key", Kind::Secret),
            Key::new("key_file", Kind::Files),
            Key::new("assertion", Kind::Flag),
        ],
    },
    Section {
        name: "open_data",
        repeated: false,
        keys: &[Key::new("max_age", Kind::Duration)],
    },
    Section {
        name: "wechat",
        repeated: false,
        keys: &[
            Key::new("endpoints", Kind::List),
            Key::new("ca_file", Kind::Text),
            Key::new("egress_proxy", Kind::Secret),
            Key::new("egress_proxy_file", Kind::Files),
            Key::new("connect_timeout", Kind::Duration),
            Key::new("timeout", Kind::Duration),
        ],
    },
    Section {
        name: "wechat.api_security",
        repeated: false,
        keys: &[
            Key::new("paths", Kind::Texts),
            Key::new("sym_algorithm", Kind::Text),
            Key::new("sym_key", Kind::Secret),
            Key::new("sym_key_file", Kind::Files),
            Key::new("sym_sn", Kind::Text),
            Key::new("asym_algorithm", Kind::Text),
            Key::new("private_key", Kind::Secret),
            Key::new("private_key_file", Kind::Files),
            Key::new("asym_sn", Kind::Text),
            Key::new("certificate_file", Kind::Files),
            Key::new("certificate_sn", Kind::Texts),
        ],
    },
    Section {
        name: "wechat.breaker",
        repeated: false,
        keys: &[
            Key::new("enabled", Kind::Flag),
            Key::new("failures", Kind::Number),
            Key::new("min_pause", Kind::Duration),
            Key::new("max_pause", Kind::Duration),
        ],
    },
    Section {
        name: "wechat.virtual_payment",
        repeated: false,
        keys: &[
            Key::new("app_key", Kind::Secret),
            Key::new("app_key_file", Kind::Files),
            Key::new("sandbox_app_key", Kind::Secret),
            Key::new("sandbox_app_key_file", Kind::Files),
        ],
    },
    Section {
        name: "outbound",
        repeated: false,
        keys: &[
            Key::new("listen", Kind::Listen),
            Key::new("caller_token", Kind::Secret),
            Key::new("caller_token_file", Kind::Files),
            Key::new("allow", Kind::List),
            Key::new("deny", Kind::List),
            Key::new("errors", Kind::Text),
            Key::new("timeout", Kind::Duration),
            Key::new("body_limit", Kind::Size),
            Key::new("replay_limit", Kind::Size),
            Key::new("max_requests", Kind::Number),
            Key::new("quota_interval", Kind::Duration),
        ],
    },
    Section {
        name: "push",
        repeated: false,
        keys: &[
            Key::new("token", Kind::Secret),
            Key::new("token_file", Kind::Files),
            Key::new("aes_key", Kind::Secret),
            Key::new("aes_key_file", Kind::Files),
            Key::new("mode", Kind::Text),
            Key::new("format", Kind::Text),
            Key::new("max_age", Kind::Duration),
            Key::new("deliver", Kind::Text),
            Key::new("reply", Kind::Text),
            Key::new("envelope", Kind::Text),
            Key::new("timeout", Kind::Duration),
            Key::new("concurrency", Kind::Number),
            Key::new("retry_cap", Kind::Duration),
            Key::new("retry_for", Kind::Duration),
            Key::new("journal", Kind::Text),
            Key::new("fsync", Kind::Flag),
            Key::new("max_waiting", Kind::Number),
            Key::new("max_bytes", Kind::Size),
        ],
    },
    Section {
        name: "push.route",
        repeated: true,
        keys: &[
            Key::new("type", Kind::Text),
            Key::new("event", Kind::Text),
            Key::new("content", Kind::Text),
            Key::new("deliver", Kind::Text),
            Key::new("reply", Kind::Text),
            Key::new("envelope", Kind::Text),
        ],
    },
    Section {
        name: "media",
        repeated: false,
        keys: &[
            Key::new("enabled", Kind::Flag),
            Key::new("base_url", Kind::Text),
            Key::new("url_ttl", Kind::Duration),
            Key::new("memory_cache_size", Kind::Size),
            Key::new("cache_dir", Kind::Text),
            Key::new("cache_size", Kind::Size),
            Key::new("video_hosts", Kind::List),
        ],
    },
    Section {
        name: "media.max_size",
        repeated: false,
        keys: &[
            Key::new("image", Kind::Size),
            Key::new("voice", Kind::Size),
            Key::new("video", Kind::Size),
            Key::new("thumb", Kind::Size),
        ],
    },
    Section {
        name: "media.check",
        repeated: false,
        keys: &[Key::new("scene", Kind::Scene)],
    },
    Section {
        name: "store",
        repeated: false,
        keys: &[
            Key::new("kind", Kind::Text),
            Key::new("url", Kind::Secret),
            Key::new("url_file", Kind::Files),
            Key::new("mode", Kind::Text),
            Key::new("master", Kind::Text),
            Key::new("ca_file", Kind::Text),
            Key::new("timeout", Kind::Duration),
            Key::new("required", Kind::Flag),
        ],
    },
    Section {
        name: "admin",
        repeated: false,
        keys: &[
            Key::new("listen", Kind::Listen),
            Key::new("token", Kind::Secret),
            Key::new("token_file", Kind::Files),
            Key::new("inspector", Kind::Flag),
        ],
    },
    Section {
        name: "log",
        repeated: false,
        keys: &[
            Key::new("format", Kind::Text),
            Key::new("level", Kind::Text),
            Key::new("levels", Kind::List),
            Key::new("access", Kind::Text),
            Key::new("access_sample", Kind::Number),
            Key::new("access_path", Kind::Flag),
        ],
    },
    Section {
        name: "trace",
        repeated: false,
        keys: &[
            Key::new("endpoint", Kind::Text),
            Key::new("sample", Kind::Text),
            Key::new("service", Kind::Text),
            Key::new("clients", Kind::Text),
        ],
    },
];

/// The file.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) app: App,
    pub(super) inbound: Inbound,
    pub(super) routes: Vec<Route>,
    pub(super) session: Session,
    pub(super) open_data: OpenData,
    pub(super) wechat: Wechat,
    pub(super) outbound: Outbound,
    pub(super) push: Option<Push>,
    pub(super) media: Media,
    pub(super) store: Store,
    pub(super) admin: Admin,
    pub(super) log: Log,
    pub(super) trace: Trace,
}

/// `[app]`
#[derive(Default)]
pub(super) struct App {
    pub(super) header: Option<Range<usize>>,
    pub(super) appid: Field<Text>,
    pub(super) secret: Field<Texts>,
    pub(super) secret_file: Field<Texts>,
    pub(super) env: Field<Text>,
}

/// `[inbound]`
#[derive(Default)]
pub(super) struct Inbound {
    pub(super) header: Option<Range<usize>>,
    pub(super) listen: Field<Text>,
    pub(super) upstream: Field<Text>,
    pub(super) prefix: Field<Text>,
    pub(super) auth: Field<Text>,
    pub(super) workers: Field<NumberOrText>,
    pub(super) trusted_proxies: Field<Texts>,
    pub(super) proxy_protocol: Field<bool>,
    pub(super) body_limit: Field<Text>,
    pub(super) header_limit: Field<Text>,
    pub(super) timeout: Field<Text>,
    pub(super) connect_timeout: Field<Text>,
    pub(super) header_timeout: Field<Text>,
    pub(super) idle_timeout: Field<Text>,
    pub(super) tunnel_timeout: Field<Text>,
    pub(super) max_connections: Field<i64>,
    pub(super) max_requests: Field<i64>,
    pub(super) buffer_limit: Field<Text>,
    pub(super) rate_limit: Field<Text>,
    pub(super) login_rate_limit: Field<Text>,
    pub(super) drain_delay: Field<Text>,
    pub(super) drain_timeout: Field<Text>,
    pub(super) escaped_slashes: Field<Text>,
    pub(super) tls: Option<Tls>,
}

/// `[inbound.tls]`
pub(super) struct Tls {
    pub(super) header: Option<Range<usize>>,
    pub(super) cert_file: Field<Text>,
    pub(super) key_file: Field<Text>,
    pub(super) client_ca_file: Field<Text>,
    pub(super) handshake_timeout: Field<Text>,
}

/// `[[route]]`
pub(super) struct Route {
    pub(super) header: Option<Range<usize>>,
    pub(super) path: Field<Text>,
    pub(super) methods: Field<Texts>,
    pub(super) auth: Field<Text>,
    pub(super) login: Field<bool>,
    pub(super) open_data: Field<bool>,
    pub(super) media: Field<Text>,
    pub(super) text_check: Option<TextCheck>,
    pub(super) timeout: Field<Text>,
    pub(super) body_limit: Field<Text>,
    pub(super) rate_limit: Field<Text>,
    pub(super) upstream: Field<Text>,
}

/// `[session]`
#[derive(Default)]
pub(super) struct Session {
    pub(super) access_ttl: Field<Text>,
    pub(super) refresh_ttl: Field<Text>,
    pub(super) refresh_grace: Field<Text>,
    pub(super) key: Field<Texts>,
    pub(super) key_file: Field<Texts>,
    pub(super) assertion: Field<bool>,
}

/// `[open_data]`
#[derive(Default)]
pub(super) struct OpenData {
    pub(super) max_age: Field<Text>,
}

/// `[wechat]`
#[derive(Default)]
pub(super) struct Wechat {
    pub(super) endpoints: Field<Texts>,
    pub(super) ca_file: Field<Text>,
    pub(super) egress_proxy: Field<Texts>,
    pub(super) egress_proxy_file: Field<Texts>,
    pub(super) connect_timeout: Field<Text>,
    pub(super) timeout: Field<Text>,
    pub(super) api_security: Option<ApiSecurity>,
    pub(super) breaker: Breaker,
    pub(super) virtual_payment: Option<VirtualPayment>,
}

/// `[wechat.breaker]`
#[derive(Default)]
pub(super) struct Breaker {
    pub(super) enabled: Field<bool>,
    pub(super) failures: Field<i64>,
    pub(super) min_pause: Field<Text>,
    pub(super) max_pause: Field<Text>,
}

/// `[wechat.virtual_payment]`
#[derive(Default)]
pub(super) struct VirtualPayment {
    pub(super) app_key: Field<Texts>,
    pub(super) app_key_file: Field<Texts>,
    pub(super) sandbox_app_key: Field<Texts>,
    pub(super) sandbox_app_key_file: Field<Texts>,
}

/// `[outbound]`
#[derive(Default)]
pub(super) struct Outbound {
    pub(super) listen: Field<Text>,
    pub(super) caller_token: Field<Texts>,
    pub(super) caller_token_file: Field<Texts>,
    pub(super) allow: Field<Texts>,
    pub(super) deny: Field<Texts>,
    pub(super) errors: Field<Text>,
    pub(super) timeout: Field<Text>,
    pub(super) body_limit: Field<Text>,
    pub(super) replay_limit: Field<Text>,
    pub(super) max_requests: Field<i64>,
    pub(super) quota_interval: Field<Text>,
}

/// `[push]`
pub(super) struct Push {
    pub(super) header: Option<Range<usize>>,
    pub(super) token: Field<Texts>,
    pub(super) token_file: Field<Texts>,
    pub(super) aes_key: Field<Texts>,
    pub(super) aes_key_file: Field<Texts>,
    pub(super) mode: Field<Text>,
    pub(super) format: Field<Text>,
    pub(super) max_age: Field<Text>,
    pub(super) deliver: Field<Text>,
    pub(super) reply: Field<Text>,
    pub(super) envelope: Field<Text>,
    pub(super) timeout: Field<Text>,
    pub(super) concurrency: Field<i64>,
    pub(super) retry_cap: Field<Text>,
    pub(super) retry_for: Field<Text>,
    pub(super) journal: Field<Text>,
    pub(super) fsync: Field<bool>,
    pub(super) max_waiting: Field<i64>,
    pub(super) max_bytes: Field<Text>,
    pub(super) routes: Vec<PushRoute>,
}

/// `[[push.route]]`
pub(super) struct PushRoute {
    pub(super) header: Option<Range<usize>>,
    pub(super) msg_type: Field<Text>,
    pub(super) event: Field<Text>,
    pub(super) content: Field<Text>,
    pub(super) deliver: Field<Text>,
    pub(super) reply: Field<Text>,
    pub(super) envelope: Field<Text>,
}

/// `[wechat.api_security]`
pub(super) struct ApiSecurity {
    pub(super) header: Option<Range<usize>>,
    pub(super) paths: Field<Texts>,
    pub(super) sym_algorithm: Field<Text>,
    pub(super) sym_key: Field<Texts>,
    pub(super) sym_key_file: Field<Texts>,
    pub(super) sym_sn: Field<Text>,
    pub(super) asym_algorithm: Field<Text>,
    pub(super) private_key: Field<Texts>,
    pub(super) private_key_file: Field<Texts>,
    pub(super) asym_sn: Field<Text>,
    pub(super) certificate_file: Field<Texts>,
    pub(super) certificate_sn: Field<Texts>,
}

/// `[route.text_check]`
pub(super) struct TextCheck {
    pub(super) header: Option<Range<usize>>,
    pub(super) field: Field<Texts>,
    pub(super) scene: Field<NumberOrText>,
    pub(super) on_review: Field<Text>,
    pub(super) on_failure: Field<Text>,
}

/// `[media]`
#[derive(Default)]
pub(super) struct Media {
    pub(super) enabled: Field<bool>,
    pub(super) base_url: Field<Text>,
    pub(super) url_ttl: Field<Text>,
    pub(super) memory_cache_size: Field<Text>,
    pub(super) cache_dir: Field<Text>,
    pub(super) cache_size: Field<Text>,
    pub(super) video_hosts: Field<Texts>,
    pub(super) max_size: MaxSize,
    pub(super) check: Option<MediaCheck>,
}

/// `[media.max_size]`
#[derive(Default)]
pub(super) struct MaxSize {
    pub(super) image: Field<Text>,
    pub(super) voice: Field<Text>,
    pub(super) video: Field<Text>,
    pub(super) thumb: Field<Text>,
}

/// `[media.check]`
pub(super) struct MediaCheck {
    pub(super) header: Option<Range<usize>>,
    pub(super) scene: Field<NumberOrText>,
}

/// `[store]`
#[derive(Default)]
pub(super) struct Store {
    pub(super) header: Option<Range<usize>>,
    pub(super) kind: Field<Text>,
    pub(super) url: Field<Texts>,
    pub(super) url_file: Field<Texts>,
    pub(super) mode: Field<Text>,
    pub(super) master: Field<Text>,
    pub(super) ca_file: Field<Text>,
    pub(super) timeout: Field<Text>,
    pub(super) required: Field<bool>,
}

/// `[admin]`
#[derive(Default)]
pub(super) struct Admin {
    pub(super) listen: Field<Text>,
    pub(super) token: Field<Texts>,
    pub(super) token_file: Field<Texts>,
    pub(super) inspector: Field<bool>,
}

/// `[log]`
#[derive(Default)]
pub(super) struct Log {
    pub(super) format: Field<Text>,
    pub(super) level: Field<Text>,
    pub(super) levels: Field<Texts>,
    pub(super) access: Field<Text>,
    pub(super) access_sample: Field<i64>,
    pub(super) access_path: Field<bool>,
}

/// `[trace]`
#[derive(Default)]
pub(super) struct Trace {
    pub(super) endpoint: Field<Text>,
    pub(super) sample: Field<Text>,
    pub(super) service: Field<Text>,
    pub(super) clients: Field<Text>,
}

/// What was written for a key.
#[derive(Default)]
pub(super) enum Field<T> {
    /// Nothing.
    #[default]
    Absent,
    /// Something that has been reported already.
    Faulty,
    /// A value of the right type.
    Given(Spanned<T>),
}

/// A string. Has no `Debug`: it may be a secret.
pub(super) struct Text {
    /// With `${NAME}` replaced.
    pub(super) value: String,
    /// As written, if something was replaced: what a message may call it by.
    pub(super) written: Option<String>,
}

/// A list of strings.
pub(super) type Texts = Vec<Spanned<Text>>;

/// `workers`, `scene`
pub(super) enum NumberOrText {
    Number(i64),
    Text(Text),
}

/// The environment: a variable's value by its name.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What to say of a variable that this does not have.
pub(super) type Unset<'a> = &'a dyn Fn(&str) -> Fault;

/// Reads the whole tree; what cannot be read is reported and left out.
pub(super) fn read(
    text: &str,
    root: DeTable<'_>,
    env: Env<'_>,
    unset: Unset<'_>,
    sink: &mut Sink,
) -> Raw {
    let mut reader = Reader {
        text,
        env,
        unset,
        sink,
    };
    let mut raw = Raw::default();
    for (name, value) in root {
        match SECTIONS.iter().find(|s| s.name == name.get_ref().as_ref()) {
            None => reader.unknown_section(&name, &value),
            Some(section) if section.repeated => {
                for table in reader.tables(section, value) {
                    raw.routes.push(Route::read(table, &mut reader));
                }
            }
            Some(section) => {
                if let Some(table) = reader.table(section, name.span(), value) {
                    raw.read_section(table, &mut reader);
                }
            }
        }
    }
    raw
}

impl Section {
    /// The key of that name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }

    /// The section of that name within this one: `tls` in `[inbound]` is `[inbound.tls]`.
    pub(super) fn nested(&self, name: &str) -> Option<&'static Section> {
        let within = |s: &&Section| s.name.split_once('.') == Some((self.name, name));
        SECTIONS.iter().find(within)
    }

    /// Its line in the file.
    pub(super) fn header(&self) -> String {
        if self.repeated {
            format!("[[{}]]", self.name)
        } else {
            format!("[{}]", self.name)
        }
    }
}

impl Key {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}

impl Kind {
    fn description(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Listen => "an address, which is a string",
            Self::Duration => "a duration, which is a string with a unit",
            Self::Size => "a size, which is a string with a unit",
            Self::Secret | Self::Files | Self::Texts => "a string or a list of strings",
            Self::List => "a list of strings",
            Self::Number => "a whole number",
            Self::Workers => "a whole number or \"auto\"",
            Self::Scene => "a number from 1 to 4, or what it stands for",
            Self::Flag => "true or false",
        }
    }

    /// What to write instead of `value`, where that can be told.
    fn advice(self, value: &DeValue<'_>) -> Option<String> {
        match (self, value) {
            (Self::Duration, DeValue::Integer(n)) => Some(format!("write \"{}s\"", n.as_str())),
            (Self::Listen, DeValue::Integer(n)) => Some(format!("write \":{}\"", n.as_str())),
            (Self::Duration, _) => Some("write it like \"30s\"".to_owned()),
            (Self::Size, DeValue::Integer(n)) => Some(format!("write \"{}B\"", n.as_str())),
            (Self::Size, _) => Some("write it like \"10MiB\"".to_owned()),
            (Self::List, DeValue::String(_)) => Some("put it in brackets: [\"...\"]".to_owned()),
            (Self::Text, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)) => {
                Some("put it in quotes".to_owned())
            }
            (Self::Flag, DeValue::String(text)) => match text.as_ref() {
                "true" | "false" => Some("write it without quotes".to_owned()),
                _ => Some("write true or false, without quotes".to_owned()),
            },
            (Self::Number | Self::Workers, DeValue::String(_)) => {
                Some("write it without quotes".to_owned())
            }
            _ => None,
        }
    }
}

impl<T> Field<T> {
    /// Where it is written.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        match self {
            Self::Given(value) => Some(value.span()),
            Self::Absent | Self::Faulty => None,
        }
    }
}

impl Text {
    /// What a message may call it by.
    pub(super) fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.value)
    }

    /// The same for the name of a file; somebody may have put the secret itself where its file belongs.
    pub(super) fn shown_as_file(&self) -> &str {
        match is_suspect(self.shown()) {
            true => "***",
            false => self.shown(),
        }
    }
}

impl Raw {
    fn read_section(&mut self, mut table: Table<'_>, r: &mut Reader<'_>) {
        match table.section.name {
            "app" => {
                self.app = App {
                    header: table.header.clone(),
                    appid: table.text("appid", r),
                    secret: table.text_or_list("secret", r),
                    secret_file: table.text_or_list("secret_file", r),
                    env: table.text("env", r),
                }
            }
            "inbound" => self.inbound = Inbound::read(&mut table, r),
            "session" => {
                self.session = Session {
                    access_ttl: table.text("access_ttl", r),
                    refresh_ttl: table.text("refresh_ttl", r),
                    refresh_grace: table.text("refresh_grace", r),
                    key: table.text_or_list("key", r),
                    key_file: table.text_or_list("key_file", r),
                    assertion: table.flag("assertion", r),
                }
            }
            "open_data" => self.open_data.max_age = table.text("max_age", r),
            "wechat" => {
                self.wechat = Wechat {
                    endpoints: table.list("endpoints", r),
                    ca_file: table.text("ca_file", r),
                    egress_proxy: table.text_or_list("egress_proxy", r),
                    egress_proxy_file: table.text_or_list("egress_proxy_file", r),
                    connect_timeout: table.text("connect_timeout", r),
                    timeout: table.text("timeout", r),
                    breaker: table
                        .section("breaker", r)
                        .map(|table| Breaker::read(table, r))
                        .unwrap_or_default(),
                    virtual_payment: table
                        .section("virtual_payment", r)
                        .map(|table| VirtualPayment::read(table, r)),
                    api_security: table
                        .section("api_security", r)
                        .map(|table| ApiSecurity::read(table, r)),
                }
            }
            "outbound" => self.outbound = Outbound::read(&mut table, r),
            "push" => self.push = Some(Push::read(&mut table, r)),
            "media" => self.media = Media::read(&mut table, r),
            "store" => self.store = Store::read(&mut table, r),
            "admin" => {
                self.admin = Admin {
                    listen: table.text("listen", r),
                    token: table.text_or_list("token", r),
                    token_file: table.text_or_list("token_file", r),
                    inspector: table.flag("inspector", r),
                }
            }
            "log" => {
                self.log = Log {
                    format: table.text("format", r),
                    level: table.text("level", r),
                    levels: table.list("levels", r),
                    access: table.text("access", r),
                    access_sample: table.number("access_sample", r),
                    access_path: table.flag("access_path", r),
                }
            }
            "trace" => {
                self.trace = Trace {
                    endpoint: table.text("endpoint", r),
                    sample: table.text("sample", r),
                    service: table.text("service", r),
                    clients: table.text("clients", r),
                }
            }
            name => debug_assert!(false, "section {name} is in the table and not read"),
        }
        table.finish(r);
    }
}

impl Inbound {
    fn read(table: &mut Table<'_>, r: &mut Reader<'_>) -> Self {
        Self {
            header: table.header.clone(),
            listen: table.text("listen", r),
            upstream: table.text("upstream", r),
            prefix: table.text("prefix", r),
            auth: table.text("auth", r),
            workers: table.number_or_text("workers", r),
            trusted_proxies: table.list("trusted_proxies", r),
            proxy_protocol: table.flag("proxy_protocol", r),
            body_limit: table.text("body_limit", r),
            header_limit: table.text("header_limit", r),
            timeout: table.text("timeout", r),
            connect_timeout: table.text("connect_timeout", r),
            header_timeout: table.text("header_timeout", r),
            idle_timeout: table.text("idle_timeout", r),
            tunnel_timeout: table.text("tunnel_timeout", r),
            max_connections: table.number("max_connections", r),
            max_requests: table.number("max_requests", r),
            buffer_limit: table.text("buffer_limit", r),
            rate_limit: table.text("rate_limit", r),
            login_rate_limit: table.text("login_rate_limit", r),
            drain_delay: table.text("drain_delay", r),
            drain_timeout: table.text("drain_timeout", r),
            escaped_slashes: table.text("escaped_slashes", r),
            tls: table.section("tls", r).map(|table| Tls::read(table, r)),
        }
    }
}

impl Breaker {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let read = Self {
            enabled: table.flag("enabled", r),
            failures: table.number("failures", r),
            min_pause: table.text("min_pause", r),
            max_pause: table.text("max_pause", r),
        };
        table.finish(r);
        read
    }
}

impl VirtualPayment {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let read = Self {
            app_key: table.text_or_list("app_key", r),
            app_key_file: table.text_or_list("app_key_file", r),
            sandbox_app_key: table.text_or_list("sandbox_app_key", r),
            sandbox_app_key_file: table.text_or_list("sandbox_app_key_file", r),
        };
        table.finish(r);
        read
    }
}

impl Outbound {
    fn read(table: &mut Table<'_>, r: &mut Reader<'_>) -> Self {
        Self {
            listen: table.text("listen", r),
            caller_token: table.text_or_list("caller_token", r),
            caller_token_file: table.text_or_list("caller_token_file", r),
            allow: table.list("allow", r),
            deny: table.list("deny", r),
            errors: table.text("errors", r),
            timeout: table.text("timeout", r),
            body_limit: table.text("body_limit", r),
            replay_limit: table.text("replay_limit", r),
            max_requests: table.number("max_requests", r),
            quota_interval: table.text("quota_interval", r),
        }
    }
}

impl Push {
    fn read(table: &mut Table<'_>, r: &mut Reader<'_>) -> Self {
        Self {
            header: table.header.clone(),
            token: table.text_or_list("token", r),
            token_file: table.text_or_list("token_file", r),
            aes_key: table.text_or_list("aes_key", r),
            aes_key_file: table.text_or_list("aes_key_file", r),
            mode: table.text("mode", r),
            format: table.text("format", r),
            max_age: table.text("max_age", r),
            deliver: table.text("deliver", r),
            reply: table.text("reply", r),
            envelope: table.text("envelope", r),
            timeout: table.text("timeout", r),
            concurrency: table.number("concurrency", r),
            retry_cap: table.text("retry_cap", r),
            retry_for: table.text("retry_for", r),
            journal: table.text("journal", r),
            fsync: table.flag("fsync", r),
            max_waiting: table.number("max_waiting", r),
            max_bytes: table.text("max_bytes", r),
            routes: table
                .sections("route", r)
                .into_iter()
                .map(|table| PushRoute::read(table, r))
                .collect(),
        }
    }
}

impl Media {
    fn read(table: &mut Table<'_>, r: &mut Reader<'_>) -> Self {
        Self {
            enabled: table.flag("enabled", r),
            base_url: table.text("base_url", r),
            url_ttl: table.text("url_ttl", r),
            memory_cache_size: table.text("memory_cache_size", r),
            cache_dir: table.text("cache_dir", r),
            cache_size: table.text("cache_size", r),
            video_hosts: table.list("video_hosts", r),
            max_size: table
                .section("max_size", r)
                .map(|table| MaxSize::read(table, r))
                .unwrap_or_default(),
            check: table
                .section("check", r)
                .map(|table| MediaCheck::read(table, r)),
        }
    }
}

impl MaxSize {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let sizes = Self {
            image: table.text("image", r),
            voice: table.text("voice", r),
            video: table.text("video", r),
            thumb: table.text("thumb", r),
        };
        table.finish(r);
        sizes
    }
}

impl MediaCheck {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let check = Self {
            header: table.header.clone(),
            scene: table.number_or_text("scene", r),
        };
        table.finish(r);
        check
    }
}

impl TextCheck {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let check = Self {
            header: table.header.clone(),
            field: table.text_or_list("field", r),
            scene: table.number_or_text("scene", r),
            on_review: table.text("on_review", r),
            on_failure: table.text("on_failure", r),
        };
        table.finish(r);
        check
    }
}

impl PushRoute {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let route = Self {
            header: table.header.clone(),
            msg_type: table.text("type", r),
            event: table.text("event", r),
            content: table.text("content", r),
            deliver: table.text("deliver", r),
            reply: table.text("reply", r),
            envelope: table.text("envelope", r),
        };
        table.finish(r);
        route
    }
}

impl Store {
    fn read(table: &mut Table<'_>, r: &mut Reader<'_>) -> Self {
        Self {
            header: table.header.clone(),
            kind: table.text("kind", r),
            url: table.text_or_list("url", r),
            url_file: table.text_or_list("url_file", r),
            mode: table.text("mode", r),
            master: table.text("master", r),
            ca_file: table.text("ca_file", r),
            timeout: table.text("timeout", r),
            required: table.flag("required", r),
        }
    }
}

impl ApiSecurity {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let api_security = Self {
            header: table.header.clone(),
            paths: table.text_or_list("paths", r),
            sym_algorithm: table.text("sym_algorithm", r),
            sym_key: table.text_or_list("sym_key", r),
            sym_key_file: table.text_or_list("sym_key_file", r),
            sym_sn: table.text("sym_sn", r),
            asym_algorithm: table.text("asym_algorithm", r),
            private_key: table.text_or_list("private_key", r),
            private_key_file: table.text_or_list("private_key_file", r),
            asym_sn: table.text("asym_sn", r),
            certificate_file: table.text_or_list("certificate_file", r),
            certificate_sn: table.text_or_list("certificate_sn", r),
        };
        table.finish(r);
        api_security
    }
}

impl Tls {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let tls = Self {
            header: table.header.clone(),
            cert_file: table.text("cert_file", r),
            key_file: table.text("key_file", r),
            client_ca_file: table.text("client_ca_file", r),
            handshake_timeout: table.text("handshake_timeout", r),
        };
        table.finish(r);
        tls
    }
}

impl Route {
    fn read(mut table: Table<'_>, r: &mut Reader<'_>) -> Self {
        let route = Self {
            header: table.header.clone(),
            path: table.text("path", r),
            methods: table.list("methods", r),
            auth: table.text("auth", r),
            login: table.flag("login", r),
            open_data: table.flag("open_data", r),
            media: table.text("media", r),
            text_check: table
                .section("text_check", r)
                .map(|table| TextCheck::read(table, r)),
            timeout: table.text("timeout", r),
            body_limit: table.text("body_limit", r),
            rate_limit: table.text("rate_limit", r),
            upstream: table.text("upstream", r),
        };
        table.finish(r);
        route
    }
}

/// One section's keys; each is taken out as it is read, so that what is left is unknown.
struct Table<'i> {
    section: &'static Section,
    header: Option<Range<usize>>,
    entries: BTreeMap<String, (Range<usize>, Spanned<DeValue<'i>>)>,
}

impl<'i> Table<'i> {
    fn new(section: &'static Section, header: Range<usize>, table: DeTable<'i>) -> Self {
        let entries = table
            .into_iter()
            .map(|(name, value)| (name.get_ref().to_string(), (name.span(), value)))
            .collect();
        Self {
            section,
            header: Some(header),
            entries,
        }
    }

    fn text(&mut self, name: &str, r: &mut Reader<'_>) -> Field<Text> {
        self.take(name, r, |value, span, r| match value {
            DeValue::String(text) => Read::of(r.text(&text, span)),
            other => Read::WrongType(other),
        })
    }

    fn text_or_list(&mut self, name: &str, r: &mut Reader<'_>) -> Field<Texts> {
        self.take(name, r, |value, span, r| match value {
            DeValue::String(text) => Read::of(
                r.text(&text, span.clone())
                    .map(|text| vec![Spanned::new(span, text)]),
            ),
            DeValue::Array(_) => r.texts(value),
            other => Read::WrongType(other),
        })
    }

    fn list(&mut self, name: &str, r: &mut Reader<'_>) -> Field<Texts> {
        self.take(name, r, |value, _, r| r.texts(value))
    }

    fn flag(&mut self, name: &str, r: &mut Reader<'_>) -> Field<bool> {
        self.take(name, r, |value, _, _| match value {
            DeValue::Boolean(flag) => Read::Value(flag),
            other => Read::WrongType(other),
        })
    }

    fn number(&mut self, name: &str, r: &mut Reader<'_>) -> Field<i64> {
        self.take(name, r, |value, _, _| match whole_number(&value) {
            Some(number) => Read::Value(number),
            None => Read::WrongType(value),
        })
    }

    fn number_or_text(&mut self, name: &str, r: &mut Reader<'_>) -> Field<NumberOrText> {
        self.take(name, r, |value, span, r| match value {
            DeValue::String(text) => Read::of(r.text(&text, span).map(NumberOrText::Text)),
            other => match whole_number(&other) {
                Some(number) => Read::Value(NumberOrText::Number(number)),
                None => Read::WrongType(other),
            },
        })
    }

    /// A section within this one.
    fn section(&mut self, name: &str, r: &mut Reader<'_>) -> Option<Table<'i>> {
        let section = self.section.nested(name)?;
        let (name, value) = self.entries.remove(name)?;
        r.table(section, name, value)
    }

    /// The sections of a list within this one.
    fn sections(&mut self, name: &str, r: &mut Reader<'_>) -> Vec<Table<'i>> {
        let Some(section) = self.section.nested(name) else {
            return Vec::new();
        };
        match self.entries.remove(name) {
            Some((_, value)) => r.tables(section, value),
            None => Vec::new(),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        r: &mut Reader<'_>,
        read: impl FnOnce(DeValue<'i>, Range<usize>, &mut Reader<'_>) -> Read<'i, T>,
    ) -> Field<T> {
        let Some((_, value)) = self.entries.remove(name) else {
            return Field::Absent;
        };
        let span = value.span();
        // What toml could not read has no place in the file; that has been reported as a fault of syntax.
        if span.is_empty() {
            return Field::Faulty;
        }
        match read(value.into_inner(), span.clone(), r) {
            Read::Value(value) => Field::Given(Spanned::new(span, value)),
            Read::Reported => Field::Faulty,
            Read::WrongType(value) => {
                let key = self.section.key(name);
                r.wrong_type(name, key.map_or(Kind::Text, |k| k.kind), &value, span);
                Field::Faulty
            }
        }
    }

    fn finish(self, r: &mut Reader<'_>) {
        for (name, (span, _)) in self.entries {
            let header = self.section.header();
            let fault = Fault::new(format!("unknown key `{}` in `{header}`", brief(&name)));
            let sections = SECTIONS.iter().filter_map(|other| {
                let inner = other.name.strip_prefix(self.section.name)?;
                inner.strip_prefix('.')
            });
            let keys = self.section.keys.iter().map(|k| k.name).chain(sections);
            let fault = match (nearest(&name, keys.clone()), home_of(&name)) {
                (None, Some(home)) => fault.help(format!("`{name}` belongs in `{home}`")),
                _ => fault.suggest(&name, keys, '`'),
            };
            r.sink.error(Some(span), fault);
        }
    }
}

enum Read<'i, T> {
    Value(T),
    Reported,
    WrongType(DeValue<'i>),
}

impl<T> Read<'_, T> {
    fn of(value: Option<T>) -> Self {
        value.map_or(Self::Reported, Self::Value)
    }
}

struct Reader<'a> {
    text: &'a str,
    env: Env<'a>,
    unset: Unset<'a>,
    sink: &'a mut Sink,
}

impl Reader<'_> {
    fn table<'i>(
        &mut self,
        section: &'static Section,
        name: Range<usize>,
        value: Spanned<DeValue<'i>>,
    ) -> Option<Table<'i>> {
        let span = value.span();
        let header = section.header();
        match value.into_inner() {
            DeValue::Table(table) => Some(Table::new(section, span, table)),
            DeValue::Array(_) => {
                let fault = Fault::new(format!("there is one `{header}` only"));
                self.sink
                    .error(Some(name), fault.help(format!("write `{header}`")));
                None
            }
            _ => {
                let fault = Fault::new(format!("`{}` is a section", section.name));
                self.sink
                    .error(Some(name), fault.help(format!("write `{header}`")));
                None
            }
        }
    }

    fn tables<'i>(
        &mut self,
        section: &'static Section,
        value: Spanned<DeValue<'i>>,
    ) -> Vec<Table<'i>> {
        let header = section.header();
        let fault = || {
            Fault::new(format!("`{}` is a list of sections", section.name))
                .help(format!("write `{header}`"))
        };
        let span = value.span();
        let DeValue::Array(elements) = value.into_inner() else {
            self.sink.error(Some(span), fault());
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in elements {
            let span = element.span();
            match element.into_inner() {
                DeValue::Table(table) => tables.push(Table::new(section, span, table)),
                _ => self.sink.error(Some(span), fault()),
            }
        }
        tables
    }

    fn unknown_section(
        &mut self,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let written = name.get_ref();
        let shown = brief(written);
        let sections = SECTIONS.iter().map(|s| s.name);
        let is_section = match value.get_ref() {
            DeValue::Table(_) => true,
            DeValue::Array(array) => array.iter().any(|e| e.get_ref().is_table()),
            _ => false,
        };
        let fault = match (is_section, home_of(written)) {
            (false, Some(home)) => Fault::new(format!("`{shown}` stands outside of its section"))
                .help(format!("`{shown}` belongs in `{home}`")),
            (false, None) => {
                Fault::new(format!("unknown key `{shown}`")).suggest(written, sections, '`')
            }
            (true, _) => {
                Fault::new(format!("unknown section `{shown}`")).suggest(written, sections, '`')
            }
        };
        self.sink.error(Some(name.span()), fault);
    }

    fn wrong_type(&mut self, name: &str, kind: Kind, value: &DeValue<'_>, span: Range<usize>) {
        let found = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let message = format!("`{name}` takes {}, and this is {found}", kind.description());
        let help = kind.advice(value);
        let fault = Fault {
            help,
            ..Fault::new(message)
        };
        self.sink.error(Some(span), fault);
    }

    fn texts<'i>(&mut self, value: DeValue<'i>) -> Read<'i, Texts> {
        let DeValue::Array(array) = value else {
            return Read::WrongType(value);
        };
        let mut texts = Vec::new();
        let mut complete = true;
        for element in array {
            let span = element.span();
            let text = match element.into_inner() {
                DeValue::String(text) => self.text(&text, span.clone()),
                _ => {
                    let fault = Fault::new("this list holds strings only");
                    self.sink.error(Some(span.clone()), fault);
                    None
                }
            };
            match text {
                Some(text) => texts.push(Spanned::new(span, text)),
                None => complete = false,
            }
        }
        Read::of(complete.then_some(texts))
    }

    /// Replaces `${NAME}`; `$${` stands for `${`.
    fn text(&mut self, written: &str, span: Range<usize>) -> Option<Text> {
        let mut value = String::new();
        let mut expanded = false;
        let mut complete = true;
        let mut references = 0;
        for piece in pieces(written) {
            match piece {
                Piece::Plain(text) => value.push_str(text),
                Piece::Escape => value.push_str("${"),
                Piece::Variable { name, closed } => {
                    expanded = true;
                    match self.variable(name, closed) {
                        Ok(variable) => value.push_str(&variable),
                        Err(fault) => {
                            let at = self.reference(written, &span, references);
                            self.sink.error(Some(at), fault);
                            complete = false;
                        }
                    }
                }
            }
            references += usize::from(!matches!(piece, Piece::Plain(_)));
        }
        let written = expanded.then(|| written.to_owned());
        complete.then_some(Text { value, written })
    }

    fn variable(&self, name: &str, closed: bool) -> Result<String, Fault> {
        let escape = "`${NAME}` reads the environment; write `$${` for a literal `${`";
        if !closed {
            return Err(Fault::new("`${` without `}`").help(escape));
        }
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if name.is_empty() || !plain || name.as_bytes()[0].is_ascii_digit() {
            return Err(Fault::new("not the name of an environment variable").help(escape));
        }
        (self.env)(name).ok_or_else(|| (self.unset)(name))
    }

    /// The place of a value's `n`th `${`; the whole value if escapes hide it.
    fn reference(&self, written: &str, span: &Range<usize>, n: usize) -> Range<usize> {
        let literal = &self.text[span.clone()];
        let same = literal.matches("${").count() == written.matches("${").count();
        match literal.match_indices("${").nth(n) {
            Some((at, _)) if same => {
                let len = literal[at..].find('}').map_or(2, |i| i + 1);
                span.start + at..span.start + at + len
            }
            _ => span.clone(),
        }
    }
}

/// A part of a string as written.
#[derive(Clone, Copy)]
pub(super) enum Piece<'a> {
    Plain(&'a str),
    /// `$${`
    Escape,
    /// `${name}`, or what lacks its `}`.
    Variable {
        name: &'a str,
        closed: bool,
    },
}

/// The parts of a string as written, in order.
pub(super) fn pieces(written: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = written;
    std::iter::from_fn(move || {
        if let Some(after) = rest.strip_prefix("$${") {
            rest = after;
            return Some(Piece::Escape);
        }
        if let Some(after) = rest.strip_prefix("${") {
            let (name, behind) = match after.split_once('}') {
                Some((name, behind)) => (name, Some(behind)),
                None => (after, None),
            };
            rest = behind.unwrap_or("");
            let closed = behind.is_some();
            return Some(Piece::Variable { name, closed });
        }
        // A `$` that begins nothing is an ordinary character.
        let first = rest.chars().next()?.len_utf8();
        let end = rest[first..].find('$').map_or(rest.len(), |at| first + at);
        let (plain, behind) = rest.split_at(end);
        rest = behind;
        Some(Piece::Plain(plain))
    })
}

pub(super) fn whole_number(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The sections that have such a key, if any.
fn home_of(name: &str) -> Option<String> {
    let homes: Vec<String> = SECTIONS
        .iter()
        .filter(|s| s.key(name).is_some())
        .map(Section::header)
        .collect();
    (!homes.is_empty()).then(|| homes.join("` or `"))
}

/// A key as it is named in a message; a very long one is cut.
fn brief(name: &str) -> String {
    const LONGEST: usize = 40;
    match name.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}...", &name[..cut]),
        None => name.to_owned(),
    }
}
