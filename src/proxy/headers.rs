//! What is forwarded, what is dropped, what is added.
//!
//! The property to hold: no client byte can influence what the app believes about `X-WX-*`. Names are compared after
//! folding, because CGI, WSGI, Rack and PHP turn `-` into `_` and older servers fold more (RFC 3875 §4.1.18). Lines that a
//! `Connection` header names are dropped before identity is added, so that a client cannot have our lines removed.

use memchr::memmem;

use super::Forward;
use crate::telemetry::trace_state;
use crate::wire::{
    Connection, Field, Fields, Framing, Method, Name, RequestHead, Responder, ResponseHead,
};

/// What the head says about what follows it.
pub(super) struct Announced {
    pub(super) length: BodyLength,
    /// Whether the app is asked for another protocol.
    pub(super) upgrade: bool,
}

/// How the request's body is announced to the app.
pub(super) enum BodyLength {
    Nothing,
    Exact(u64),
    Chunked,
}

impl From<Framing> for BodyLength {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Chunked => Self::Chunked,
            Framing::Length(length) => Self::Exact(length),
            // A POST without a body says so, as clients do; for a GET silence says it.
            Framing::Empty | Framing::UntilClose => Self::Nothing,
        }
    }
}

/// Names that apps or their frameworks trust as if a proxy had set them, in folded form. A proxy that does not drop
/// them lets clients choose their address, URL or method. `X-Forwarded-*` is dropped as a whole.
const PROXY_NAMES: &[&[u8]] = &[
    // As spelt they are handled by name; `Content_Length` would be a second length to an app that folds, and `Content_Type`
    // another type than the one that we have gone by.
    b"content-length",
    b"content-type",
    b"transfer-encoding",
    b"proxy-authorization",
    b"proxy-connection",
    b"forwarded",
    b"proxy",
    b"client-ip",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"true-client-ip",
    b"x-original-forwarded-for",
    b"x-original-host",
    b"x-original-url",
    b"x-original-uri",
    b"x-rewrite-url",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-request-id",
    b"traceparent",
    b"tracestate",
    b"baggage",
];

/// Beginnings of names by which proxies tell an app of a client's certificate, in folded form (RFC 9440 §2.4 has who does not
/// set them drop them). Ours are looked at by nobody but TLS, so whoever sends such a line has made it up.
const CERTIFICATE_NAMES: &[&[u8]] = &[
    b"client-cert",
    b"x-client-cert",
    b"ssl-client",
    b"x-ssl-client",
    b"x-arr-clientcert",
    b"x-amzn-mtls-clientcert",
];

/// What a trailer must not say, besides all that a header must not: how the message is framed, routed, authenticated or
/// understood, which the reader of a trailer has long decided (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: &[&[u8]] = &[
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expect",
    b"expires",
    b"host",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"warning",
    b"www-authenticate",
];

/// The longest of our names; longer ones are compared by their beginning.
const MAX_FOLDED: usize = 32;

/// Encodes the whole head of the request to the app.
pub(super) fn encode_request(forward: &Forward<'_>, announced: &Announced, out: &mut Vec<u8>) {
    let head = forward.head;
    out.extend_from_slice(head.method_text());
    out.push(b' ');
    out.extend_from_slice(forward.path.as_bytes());
    if let Some(query) = forward.path.query() {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(forward.authority);
    out.extend_from_slice(b"\r\n");
    head.fields
        .copy_lines(out, |field| is_forwarded(head, field));
    match &announced.length {
        BodyLength::Exact(length) => {
            line(
                out,
                b"content-length",
                itoa::Buffer::new().format(*length).as_bytes(),
            );
        }
        BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodyLength::Nothing
            if matches!(head.method, Method::Post | Method::Put | Method::Patch) =>
        {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        BodyLength::Nothing => {}
    }
    match (announced.upgrade, head.takes_trailers()) {
        (true, _) => {
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
            for (index, protocol) in head.upgrades().enumerate() {
                out.extend_from_slice(if index == 0 { b"" } else { b", " });
                out.extend_from_slice(protocol);
            }
            out.extend_from_slice(b"\r\n");
        }
        (false, true) => out.extend_from_slice(b"connection: te\r\nte: trailers\r\n"),
        (false, false) => {}
    }
    if head.expects_continue {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    forward.origin.encode(head, out);
    line(out, b"x-request-id", forward.request_id.as_bytes());
    line(out, b"traceparent", forward.trace.as_bytes());
    if forward.origin.is_trusted() {
        encode_trace(forward, out);
    }
    if let Some(user) = forward.user {
        line(out, b"X-WX-OPENID", user.openid.as_bytes());
        if let Some(unionid) = &user.unionid {
            line(out, b"X-WX-UNIONID", unionid.as_bytes());
        }
        out.extend_from_slice(forward.app_lines);
    }
    for (name, value) in forward.told {
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// What a trusted peer says beside its `traceparent`. Its `tracestate` belongs to that.
fn encode_trace(forward: &Forward<'_>, out: &mut Vec<u8>) {
    let fields = &forward.head.fields;
    if forward.trace_goes_on {
        let start = out.len();
        out.extend_from_slice(b"tracestate: ");
        let empty = out.len();
        trace_state::append_state(|| fields.list(Name::Tracestate), out);
        match out.len() > empty {
            true => out.extend_from_slice(b"\r\n"),
            false => out.truncate(start),
        }
    }
    let baggage = || fields.iter().filter(|field| field.known == Name::Baggage);
    if trace_state::is_carried(baggage().map(|field| field.value)) {
        for field in baggage() {
            line(out, b"baggage", field.value);
        }
    }
}

/// Adds the app's field lines to the answer, less those that belong to its connection or to us.
pub(super) fn encode_answer(
    forward: &Forward<'_>,
    head: &ResponseHead,
    responder: &mut Responder<'_>,
) {
    let added = added(forward, head);
    responder.fields(&head.fields, answer_filter(head, !added.is_empty()));
    for (name, value) in added {
        responder.field(name.as_bytes(), value.as_bytes());
    }
    responder.field(b"x-request-id", forward.request_id.as_bytes());
}

/// The lines that are added to the app's.
pub(super) fn added<'a>(
    forward: &Forward<'a>,
    head: &ResponseHead,
) -> &'a [(&'static str, String)] {
    forward.added.map_or(&[], |added| added.to(head.status))
}

/// Which of the app's field lines go to the client; `private` if the answer also has lines about one user.
pub(super) fn answer_filter(
    head: &ResponseHead,
    private: bool,
) -> impl Fn(&Field<'_>) -> bool + use<'_> {
    move |field| {
        let ours = match field.known {
            Name::ContentLength | Name::XRequestId | Name::XWxMediaId => true,
            Name::CacheControl => private,
            Name::Other => is_reserved(field.name),
            known => known.is_hop_by_hop(),
        };
        !ours && !is_named_by(head.connection, &head.fields, field)
    }
}

/// Which trailers of a message go on, in either direction; `connection` and `fields` are those of its head.
pub(super) fn trailer_filter(
    connection: Connection,
    fields: &Fields,
) -> impl Fn(&Field<'_>) -> bool + use<'_> {
    move |field| {
        let mut buffer = [0; MAX_FOLDED];
        !field.known.is_hop_by_hop()
            && !is_claimed(field.name)
            && !NOT_IN_TRAILERS.contains(&fold(field.name, &mut buffer))
            && !is_named_by(connection, fields, field)
    }
}

fn is_forwarded(head: &RequestHead, field: &Field<'_>) -> bool {
    let dropped = match field.known {
        Name::Host
        | Name::ContentLength
        | Name::Expect
        | Name::XForwardedFor
        | Name::XForwardedHost
        | Name::XForwardedProto
        | Name::XRequestId
        | Name::Traceparent
        | Name::Tracestate
        | Name::Baggage
        | Name::XWxCode
        | Name::XWxMediaId => true,
        Name::Authorization => is_our_token(field.value),
        Name::Other => is_claimed(field.name),
        known => known.is_hop_by_hop(),
    };
    !dropped && !is_named_by(head.connection, &head.fields, field)
}

/// Why a line of the client's does not reach the app, for people; `None` if it does.
pub(super) fn why_dropped(head: &RequestHead, field: &Field<'_>, trusted: bool) -> Option<String> {
    if is_forwarded(head, field) {
        return None;
    }
    let mut buffer = [0; MAX_FOLDED];
    let folded = fold(field.name, &mut buffer);
    let why = match field.known {
        Name::Host => "the app gets its own; this one is in x-forwarded-host",
        Name::ContentLength => "written anew, for the body that is sent",
        Name::Expect => "asked anew, if there is a body to wait for",
        Name::XWxCode => "the sidecar exchanges the code, which works once",
        Name::Authorization => "tokens of the sidecar are between it and the client",
        known if known.is_hop_by_hop() => "it is about this one connection (hop-by-hop)",
        Name::XForwardedFor
        | Name::XForwardedHost
        | Name::XForwardedProto
        | Name::XRequestId
        | Name::Traceparent
        | Name::Tracestate
        | Name::Baggage => by_proxy(trusted),
        _ if in_namespace(folded, b"x-wx") => {
            let name = folded.escape_ascii().to_string().to_ascii_uppercase();
            return Some(format!(
                "it is {name} to whoever folds names, and X-WX-* is the sidecar's alone"
            ));
        }
        _ if folded == b"forwarded" => by_proxy(trusted),
        _ if is_claimed(field.name) => {
            let name = folded.escape_ascii();
            return Some(match folded {
                b"content-length" | b"content-type" | b"transfer-encoding" => {
                    format!("it is a second `{name}` to whoever folds names")
                }
                _ => format!("apps believe `{name}` to be a proxy's, so no client may send it"),
            });
        }
        _ => "the Connection header names it as one that is not to be forwarded",
    };
    Some(why.to_owned())
}

fn by_proxy(trusted: bool) -> &'static str {
    match trusted {
        true => "written anew, with what the trusted proxy says as far as it makes sense",
        false => "only those in [inbound] trusted_proxies are believed",
    }
}

/// Our own tokens are between the client and us: an app that logs its headers must not log them. Wherever one stands in
/// the value, because `Bearer<TAB>` or an unknown scheme is no reason to pass it on.
fn is_our_token(value: &[u8]) -> bool {
    // Nearly always it follows `Bearer `; looking there first spares the search.
    let prefixes: [&[u8]; 2] = [b"wxat_", b"wxrt_"];
    let token = value.get(b"Bearer ".len()..).unwrap_or_default();
    prefixes
        .iter()
        .any(|prefix| token.starts_with(prefix) || memmem::find(value, prefix).is_some())
}

/// Whether a `Connection` line names the field as one that is not to be forwarded.
#[inline]
fn is_named_by(connection: Connection, fields: &Fields, field: &Field<'_>) -> bool {
    let is_it = |option: &[u8]| option.eq_ignore_ascii_case(field.name);
    connection.names_fields && fields.list(Name::Connection).any(is_it)
}

/// Whether a name lies in the `X-WX-*` namespace, however it is spelt.
fn is_reserved(name: &[u8]) -> bool {
    // A quick no for nearly all names.
    if !matches!(first_of(name), Some(b'x' | b'X')) {
        return false;
    }
    let letters = name.iter().filter(|b| b.is_ascii_alphanumeric());
    if !letters.take(3).map(u8::to_ascii_lowercase).eq(*b"xwx") {
        return false;
    }
    in_namespace(fold(name, &mut [0; MAX_FOLDED]), b"x-wx")
}

/// Whether a name is one that only the sidecar may set.
fn is_claimed(name: &[u8]) -> bool {
    if !may_be_ours(name) {
        return false;
    }
    let mut buffer = [0; MAX_FOLDED];
    let folded = fold(name, &mut buffer);
    in_namespace(folded, b"x-wx")
        || in_namespace(folded, b"x-forwarded")
        || PROXY_NAMES.contains(&folded)
        || CERTIFICATE_NAMES.iter().any(|it| in_namespace(folded, it))
}

/// A quick no for nearly all names: ours begin with B, C, F, P, S, T or X once leading separators are skipped.
fn may_be_ours(name: &[u8]) -> bool {
    matches!(
        first_of(name),
        Some(
            b'b' | b'B'
                | b'c'
                | b'C'
                | b'f'
                | b'F'
                | b'p'
                | b'P'
                | b's'
                | b'S'
                | b't'
                | b'T'
                | b'x'
                | b'X'
        )
    )
}

/// The first letter or digit of a name.
#[inline]
fn first_of(name: &[u8]) -> Option<&u8> {
    name.iter().find(|b| b.is_ascii_alphanumeric())
}

fn in_namespace(folded: &[u8], namespace: &[u8]) -> bool {
    folded
        .strip_prefix(namespace)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'-')
}

/// Lower case, every run of other characters one `-`, none at the ends; cut off where it no longer matters.
fn fold<'a>(name: &[u8], buffer: &'a mut [u8; MAX_FOLDED]) -> &'a [u8] {
    let mut len = 0;
    let mut gap = false;
    for &byte in name {
        if !byte.is_ascii_alphanumeric() {
            gap = len > 0;
            continue;
        }
        if gap && len < MAX_FOLDED {
            buffer[len] = b'-';
            len += 1;
        }
        gap = false;
        if len == MAX_FOLDED {
            break;
        }
        buffer[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    &buffer[..len]
}

/// Names are constants: in line, they are written by a few plain stores.
#[inline]
fn line<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_identity_namespace_is_ours_in_every_spelling() {
        for name in [
            "X-WX-OPENID",
            "x-wx-openid",
            "X_WX_OPENID",
            "x-wx_openid",
            "X.WX.OPENID",
            "x~wx~openid",
            "X--WX-OPENID",
            "X-WX-OPENID-",
            "X-WX-OPENID_",
            "_X_WX_OPENID",
            "x-wx",
            "X-WX-",
            "X|WX|Anything",
            "X-WX-CLOUDBASE-ACCESS-TOKEN",
            "x-wx-some-name-that-is-longer-than-the-buffer-for-folding",
        ] {
            assert!(is_reserved(name.as_bytes()), "{name}");
            assert!(is_claimed(name.as_bytes()), "{name}");
        }
        for name in [
            "X-WXYZ",
            "XWX-OPENID",
            "Content-Type",
            "WX-OPENID",
            "X-W-X",
            "",
        ] {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn names_that_frameworks_trust_are_claimed() {
        for name in [
            "Forwarded",
            "X_Forwarded_For",
            "x-forwarded-uri",
            "X-Real-IP",
            "X-ORIGINAL-URL",
            "Traceparent",
            "Proxy",
            "Client_IP",
            "Content_Length",
            "Content_Type",
            "CONTENT.TYPE",
            "transfer_encoding",
            "Proxy_Authorization",
        ] {
            assert!(is_claimed(name.as_bytes()), "{name}");
        }
        for name in [
            "X-Requested-With",
            "Transfer",
            "From",
            "X-Forwardedness",
            "X-Api-Key",
        ] {
            assert!(!is_claimed(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn our_own_tokens_are_recognised_whatever_the_scheme() {
        assert!(is_our_token(b"Bearer wxat_AAAA"));
        assert!(is_our_token(b"bearer  wxrt_AAAA"));
        assert!(!is_our_token(b"Bearer eyJhbGciOi"));
        assert!(!is_our_token(b"Basic d3hhdF8="));
    }

    proptest! {
        /// Every server that folds separators must see what we see.
        #[test]
        fn any_separators_and_case_fold_to_the_same_name(
            separators in proptest::collection::vec("[-_.~!#$%&'*+^`|]{1,3}", 2),
            upper in any::<[bool; 9]>(),
        ) {
            let spell = |text: &str, from: usize| text.chars().enumerate()
                .map(|(i, c)| if upper[from + i] { c.to_ascii_uppercase() } else { c }).collect::<String>();
            let name = format!("{}{}{}{}{}", spell("x", 0), separators[0], spell("wx", 1), separators[1], spell("openid", 3));
            prop_assert!(is_reserved(name.as_bytes()));
        }
    }
}
