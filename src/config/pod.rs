//! A configuration that is going to a pod, judged before it is there.
//!
//! Most mistakes are mistakes anywhere, and the ordinary check finds them. Here is the rest: what the pod's container has not (a
//! variable, a file), and what is good elsewhere and of no use there, because the kubelet and Services come to the pod's address
//! and the pod ends in so many seconds. What only the pod has, such as the keys of its Secret, cannot be judged, and nothing is
//! said of it. An error is what keeps the pod from ever being ready; what may be meant is a warning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{ADMIN_LISTEN, DRAIN_DELAY, DRAIN_TIMEOUT, INBOUND_LISTEN, peek};
use super::diagnostic::{Fault, Sink, Weight};
use super::raw::{Field, Raw, Text};
use super::{Listen, values};

/// What the sidecar's container in a pod is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its variables; `None` for the value of one that it has from elsewhere, such as a Secret.
    pub(crate) variables: BTreeMap<String, Option<String>>,
    /// Whether it may have others.
    pub(crate) has_more_variables: bool,
    /// Where the configuration is, alone.
    pub(crate) directory: PathBuf,
    /// Where other files may be.
    pub(crate) mounts: Vec<PathBuf>,
    /// The port that Services lead to.
    pub(crate) port: u16,
    /// The port for probes.
    pub(crate) admin: u16,
    /// How long the sidecar has from being told to end until it is killed.
    pub(crate) grace: Duration,
}

impl Pod {
    /// The value of a variable, as far as it is known.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned().flatten()
    }

    /// What to say of a variable whose value is not known.
    pub(super) fn unset(&self, name: &str) -> Fault {
        if self.has_more_variables || self.variables.contains_key(name) {
            return Fault::unknown();
        }
        let names: Vec<&str> = self.variables.keys().map(String::as_str).collect();
        Fault::new(format!("the sidecar's container has no variable `{name}`")).help(format!(
            "what is secret is a key of the Secret: write secret_file = \"/var/run/secrets/wx/secret\" instead of secret = \"${{{name}}}\", and \
             so with other keys; of variables it has {}",
            names.join(", ")
        ))
    }

    /// What to say of a file that holds a secret. No image has it, so without it the sidecar does not start.
    pub(super) fn secret_file(&self, path: &Path, shown: &str) -> Fault {
        self.file(path, shown, Weight::Usual)
    }

    /// What to say of another file, which may be in an image of one's own.
    pub(super) fn public_file(&self, path: &Path, shown: &str) -> Fault {
        self.file(path, shown, Weight::Doubt)
    }

    fn file(&self, path: &Path, shown: &str, weight: Weight) -> Fault {
        if self.mounts.iter().any(|mount| path.starts_with(mount)) {
            return Fault::unknown();
        }
        let fault = match path.starts_with(&self.directory) {
            true => Fault::new(format!(
                "the file `{shown}` would be beside the configuration, where the ConfigMap has nothing else"
            )),
            false => Fault::new(format!(
                "the file `{shown}` is not in the pod: nothing is mounted there"
            )),
        };
        let help = "put it into the Secret as a key, and write \"/var/run/secrets/wx/KEY\"";
        fault.help(help).weighing(weight)
    }
}

/// The rules of a pod. They are about defaults too, so nothing is said of a file that could be read only in part.
pub(super) fn judge(raw: &Raw, pod: &Pod, sink: &mut Sink) {
    if sink.partial {
        return;
    }
    admin(&raw.admin.listen, pod, sink);
    inbound(&raw.inbound.listen, pod, sink);
    directories(raw, pod, sink);
    end(raw, pod, sink);
}

/// The kubelet's probes come from outside the pod.
fn admin(field: &Field<Text>, pod: &Pod, sink: &mut Sink) {
    let Some(listen) = peek(field, ADMIN_LISTEN, values::listen) else {
        return;
    };
    let port = pod.admin;
    if let Some(why) = out_of_reach(&listen, port) {
        let fault = Fault::new(format!(
            "`[admin] listen` is {why}: probes come to the pod's address at port {port}, so the pod never becomes ready"
        ));
        let help = format!(
            "write listen = \"0.0.0.0:{port}\" below `[admin]`, with token_file = \"/var/run/secrets/wx/admin-token\""
        );
        sink.error(field.span(), fault.help(help));
    }
}

/// Something else in the pod may stand in front of the sidecar, so this is a warning.
fn inbound(field: &Field<Text>, pod: &Pod, sink: &mut Sink) {
    let Some(listen) = peek(field, INBOUND_LISTEN, values::listen) else {
        return;
    };
    let port = pod.port;
    if let Some(why) = out_of_reach(&listen, port) {
        let fault = Fault::new(format!(
            "`[inbound] listen` is {why}: Services lead to the pod's address at port {port}, where nobody would answer"
        ));
        let help = "write listen = \"0.0.0.0:${WX_SIDECAR_PORT}\" below `[inbound]`; --port says another port";
        sink.warn(field.span(), fault.help(help));
    }
}

/// Why whoever calls the pod's address at this port does not come here, if so.
fn out_of_reach(listen: &Listen, port: u16) -> Option<String> {
    match listen {
        Listen::Unix(_) => Some("a Unix socket".to_owned()),
        Listen::Tcp(addr) if addr.ip().to_canonical().is_loopback() => {
            Some("on loopback".to_owned())
        }
        Listen::Tcp(addr) if addr.port() != port => Some(format!("at port {}", addr.port())),
        Listen::Tcp(_) => None,
    }
}

/// The root cannot be written to.
fn directories(raw: &Raw, pod: &Pod, sink: &mut Sink) {
    let journal = raw.push.as_ref().map(|push| &push.journal);
    for field in journal.into_iter().chain([&raw.media.cache_dir]) {
        let Field::Given(text) = field else {
            continue;
        };
        let path = pod.directory.join(&text.get_ref().value);
        if !pod.mounts.iter().any(|mount| path.starts_with(mount)) {
            let fault = Fault::new("this directory cannot be made: the container's root is read-only, and nothing is mounted there")
                .help("mount a volume of your own into the sidecar's container");
            sink.warn(field.span(), fault);
        }
    }
}

/// Whatever takes longer than the pod has is cut off.
fn end(raw: &Raw, pod: &Pod, sink: &mut Sink) {
    let (delay, timeout) = (&raw.inbound.drain_delay, &raw.inbound.drain_timeout);
    let both = (
        peek(delay, DRAIN_DELAY, values::duration_or_zero),
        peek(timeout, DRAIN_TIMEOUT, values::duration),
    );
    if let (Some(first), Some(then)) = both
        && first.saturating_add(then) >= pod.grace
    {
        let fault = Fault::new(format!(
            "`drain_delay` and `drain_timeout` are {} s together, and Kubernetes kills the sidecar after {} s: requests are cut off",
            first.saturating_add(then).as_secs(),
            pod.grace.as_secs()
        ))
        .help("write drain_delay = \"5s\" and drain_timeout = \"15s\" below `[inbound]`, or raise `terminationGracePeriodSeconds`")
        .also(timeout.span().and(delay.span()), "the delay");
        sink.warn(timeout.span().or(delay.span()), fault);
    }
}
