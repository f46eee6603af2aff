//! What goes beside the workloads: the objects that the kustomizations in `k8s/` add, one of each in every namespace that has a
//! sidecar.

use std::collections::{BTreeMap, BTreeSet};

use super::sidecar::{read, set};
use super::workload::{Pods, objects};
use super::yaml::{Document, Node};
use super::{InjectArgs, NAME};

const POLICY: &str = include_str!("../../../k8s/network-policy/network-policy.yaml");
/// The port for requests, as it stands there.
const POLICY_PORT: &str = "    - protocol: TCP\n      port: 8080\n";
const HOSTS: &str = include_str!("../../../k8s/cloudrun/hosts");
/// The ConfigMap that the volume in `k8s/cloudrun` is.
const HOSTS_NAME: &str = "wx-sidecar-hosts";

/// The documents to add, and what to say of each.
pub(super) fn beside(
    args: &InjectArgs,
    configuration: Option<&str>,
    pods: &[&Pods],
    documents: &[&Document],
) -> (String, Vec<String>) {
    let mut namespaces: BTreeMap<Option<&str>, BTreeSet<u16>> = BTreeMap::new();
    for pods in pods {
        if let Some(ports) = &pods.ports {
            let namespace = namespaces.entry(pods.namespace.as_deref());
            namespace.or_default().insert(ports.sidecar);
        }
    }
    let (mut text, mut notes) = (String::new(), Vec::new());
    for (namespace, ports) in namespaces {
        for object in wanted(args, configuration, namespace, &ports) {
            let what = |key| object.text_at(&["metadata", key]);
            let kind = object.text_at(&["kind"]).unwrap_or_default();
            let name = what("name").unwrap_or_default();
            let called = format!("{}/{name}", kind.to_ascii_lowercase());
            let is_same = |it: &Node| {
                it.text_at(&["kind"]) == Some(kind)
                    && it.text_at(&["metadata", "name"]) == Some(name)
                    && it.text_at(&["metadata", "namespace"]) == namespace
            };
            if documents.iter().flat_map(|it| objects(it)).any(is_same) {
                notes.push(format!("{called}: left as it is: it is there already"));
                continue;
            }
            text.push_str(&object.document());
            notes.push(format!("{called}: added"));
        }
    }
    (text, notes)
}

/// What a namespace is to have whose sidecars are at these ports.
fn wanted(
    args: &InjectArgs,
    configuration: Option<&str>,
    namespace: Option<&str>,
    ports: &BTreeSet<u16>,
) -> Vec<Node> {
    let mut wanted = Vec::new();
    if let Some(text) = configuration {
        let (name, key) = (&args.config_map, "sidecar.toml");
        wanted.push(config_map(name, "configuration", key, text));
    }
    if args.cloudrun {
        wanted.push(config_map(HOSTS_NAME, "hosts", "hosts", HOSTS));
    }
    if args.network_policy {
        let port = |port: &u16| POLICY_PORT.replace("8080", &port.to_string());
        let open: String = ports.iter().map(port).collect();
        let mut policy = read(&POLICY.replace(POLICY_PORT, &open));
        let managed_by = ["metadata", "labels", "app.kubernetes.io/managed-by"];
        set(&mut policy, &managed_by, NAME);
        wanted.push(policy);
    }
    for object in &mut wanted {
        if let (Some(namespace), Some(metadata)) = (namespace, object.at_mut(&["metadata"])) {
            metadata.add("namespace", Node::string(namespace));
        }
    }
    wanted
}

fn config_map(name: &str, component: &str, key: &str, content: &str) -> Node {
    let labels = [
        ("app.kubernetes.io/name", NAME),
        ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/part-of", NAME),
        ("app.kubernetes.io/managed-by", NAME),
    ];
    let labels = labels.map(|(key, value)| (key, Node::string(value)));
    let metadata = vec![
        ("name", Node::string(name)),
        ("labels", Node::mapping(labels.to_vec())),
    ];
    Node::mapping(vec![
        ("apiVersion", Node::string("v1")),
        ("kind", Node::string("ConfigMap")),
        ("metadata", Node::mapping(metadata)),
        ("data", Node::mapping(vec![(key, Node::string(content))])),
    ])
}
