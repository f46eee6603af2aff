//! What goes beside the workloads: the objects that the kustomizations in `k8s/` add, one of each in every namespace that has a
//! sidecar.

use std::collections::BTreeSet;

use super::sidecar::{read, set};
use super::workload::{Pods, objects};
use super::yaml::{Document, Node};
use super::{InjectArgs, NAME};

const POLICY: &str = include_str!("../../../k8s/network-policy/network-policy.yaml");
/// The port for requests, as it stands there.
const POLICY_PORT: &str = "port: 8080\n";
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
    let with_sidecar = pods.iter().filter(|it| it.ports.is_some());
    let namespaces: BTreeSet<_> = with_sidecar.map(|it| it.namespace.as_deref()).collect();
    let (mut text, mut notes) = (String::new(), Vec::new());
    for namespace in namespaces {
        for object in wanted(args, configuration, namespace) {
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

fn wanted(args: &InjectArgs, configuration: Option<&str>, namespace: Option<&str>) -> Vec<Node> {
    let mut wanted = Vec::new();
    if let Some(text) = configuration {
        let (name, key) = (&args.config_map, "sidecar.toml");
        wanted.push(config_map(name, "configuration", key, text));
    }
    if args.cloudrun {
        wanted.push(config_map(HOSTS_NAME, "hosts", "hosts", HOSTS));
    }
    if args.network_policy {
        let port = format!("port: {}\n", args.port);
        let mut policy = read(&POLICY.replace(POLICY_PORT, &port));
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
