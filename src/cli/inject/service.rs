//! A Service in a manifest: it is to lead to the sidecar where it led to the app.
//!
//! That is decided only where nothing is guessed: all pods of these manifests that it selects have the sidecar, at the same
//! port, and its `targetPort` is the app's. Otherwise it stays as it is, and that is said. A headless one stays too: whoever looks it
//! up gets the pods' addresses and chooses the port himself, so that a `targetPort` leads him nowhere else.

use std::collections::HashSet;

use super::workload::{Pods, Ports, objects};
use super::yaml::{Document, Insertion, Node};

/// What is to become of a Service.
#[derive(Debug)]
pub(super) struct Pointed {
    /// Such as `service/shop`.
    pub(super) name: String,
    pub(super) insertions: Vec<Insertion>,
    pub(super) notes: Vec<String>,
    /// Whether one of its ports leads to the sidecar now, or did before.
    pub(super) leads_to_sidecar: bool,
}

/// Points the Services of a document to the sidecars of these pods; those that select none of them are nobody's business here.
pub(super) fn point(document: &Document, source: &str, pods: &[&Pods]) -> Vec<Pointed> {
    let objects = objects(document).iter();
    objects
        .filter_map(|object| point_one(object, &document.aliased, source, pods))
        .collect()
}

fn point_one(
    object: &Node,
    aliased: &HashSet<usize>,
    source: &str,
    pods: &[&Pods],
) -> Option<Pointed> {
    let is_service = object.text_at(&["apiVersion"]) == Some("v1")
        && object.text_at(&["kind"]) == Some("Service");
    let selected = match is_service {
        true => selected(object, pods),
        false => Vec::new(),
    };
    if selected.is_empty() {
        return None;
    }
    let mut pointed = Pointed {
        name: format!(
            "service/{}",
            object.text_at(&["metadata", "name"]).unwrap_or("?")
        ),
        insertions: Vec::new(),
        notes: Vec::new(),
        leads_to_sidecar: false,
    };
    // What an alias repeats elsewhere would change there, too.
    let is_own = [&[][..], &["spec"], &["spec", "ports"]]
        .iter()
        .all(|path| object.at(path).is_some_and(|it| !it.is_used_by(aliased)));
    let is_headless = object.text_at(&["spec", "clusterIP"]) == Some("None");
    let ports = object.at(&["spec", "ports"]).map_or(&[][..], Node::items);
    for port in ports {
        let Some(target) = target(port) else {
            continue;
        };
        let Some(sidecar) = selected.iter().find_map(|it| behind(it, target)) else {
            let is_sidecar = |it: &&Pods| leads_to_sidecar(it, target);
            pointed.leads_to_sidecar |= selected.iter().any(is_sidecar);
            continue;
        };
        if is_headless {
            pointed.notes.push(format!(
                "line {}: left as it is: with `clusterIP: None` callers connect to the pods themselves, past the sidecar as long as they do at \
                 port {target}, the app's; have them use port {sidecar}, the sidecar's",
                port.line
            ));
            continue;
        }
        let is_sure = is_own
            && !port.is_used_by(aliased)
            && selected
                .iter()
                .all(|it| behind(it, target) == Some(sidecar));
        let note = match is_sure.then(|| insertion(port, source, sidecar)).flatten() {
            Some(insertion) => {
                pointed.insertions.push(insertion);
                pointed.leads_to_sidecar = true;
                format!(
                    "leads to port {sidecar} now, the sidecar's, instead of {target}, the app's"
                )
            }
            None => format!(
                "line {}: left as it is: this leads to port {target} of the app, past the sidecar, and it is not clear that that can \
                 change; have it lead to port {sidecar} wherever there is a sidecar",
                port.line
            ),
        };
        pointed.notes.push(note);
    }
    Some(pointed)
}

fn selected<'p>(service: &Node, pods: &[&'p Pods]) -> Vec<&'p Pods> {
    let selector = service
        .at(&["spec", "selector"])
        .map_or(&[][..], Node::entries);
    if selector.is_empty() {
        return Vec::new();
    }
    let namespace = service.text_at(&["metadata", "namespace"]);
    let is_on = |pods: &Pods, (key, value): &(Node, Node)| {
        let mut labels = pods.labels.iter();
        labels.any(|(name, it)| Some(&**name) == key.text() && Some(&**it) == value.text())
    };
    let is_selected = |pods: &&&Pods| {
        pods.namespace.as_deref() == namespace && selector.iter().all(|entry| is_on(pods, entry))
    };
    pods.iter().filter(is_selected).copied().collect()
}

/// The port of the pods that a port of a Service is for, as it is written.
fn target(port: &Node) -> Option<&str> {
    if port.text_at(&["protocol"]).is_some_and(|it| it != "TCP") {
        return None;
    }
    port.text_at(&["targetPort"])
        .or_else(|| port.text_at(&["port"]))
}

/// The sidecar's port, if this is the port of the app behind it.
fn behind(pods: &Pods, target: &str) -> Option<u16> {
    let Ports {
        app,
        app_names,
        sidecar,
    } = pods.ports.as_ref()?;
    let is_app = target == app.to_string() || app_names.iter().any(|name| name == target);
    is_app.then_some(*sidecar)
}

fn leads_to_sidecar(pods: &Pods, target: &str) -> bool {
    let sidecar = pods.ports.as_ref().map(|ports| ports.sidecar.to_string());
    sidecar.as_deref() == Some(target) || target == "http-wx"
}

fn insertion(port: &Node, source: &str, sidecar: u16) -> Option<Insertion> {
    match port.get("targetPort") {
        Some(target) => target.replace(source, sidecar),
        None => port.insert_entry(source, 0, "targetPort", &Node::number(sidecar)),
    }
}
