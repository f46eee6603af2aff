//! What is put into a workload: that which the Kustomize component in `k8s/component` adds, from its own files.

use super::yaml::{self, Node};
use super::{InjectArgs, NAME};

const PATCH: &str = include_str!("../../../k8s/component/sidecar.yaml");
const ENV: &str = include_str!("../../../k8s/component/env/source.yaml");

/// The variable that tells the app where it can call WeChat.
pub(super) const OUTBOUND_URL: &str = "WX_OUTBOUND_URL";

/// How long a classic sidecar goes on when the pod is told to end, because the app may still call WeChat.
const CLASSIC_SLEEP: &str = "5s";

/// The sidecar for one workload.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) container: Node,
    pub(super) volumes: Vec<Node>,
    pub(super) label: String,
    pub(super) outbound_url: String,
}

impl Sidecar {
    /// As the component has it, with what the arguments change.
    pub(super) fn new(args: &InjectArgs, app_port: u16) -> Self {
        let patch = read(PATCH);
        let template = patch.at(&["spec", "template"]).expect("it has a template");
        let list = |key| template.at(&["spec", key]).expect("it has both lists");
        let mut volumes = list("volumes").items().to_vec();
        for volume in &mut volumes {
            set(volume, &["configMap", "name"], &args.config_map);
            set(volume, &["secret", "secretName"], &args.secret);
        }
        let label = template.text_at(&["metadata", "labels", NAME]);
        Self {
            container: container(list("initContainers").items()[0].clone(), args, app_port),
            volumes,
            label: label.expect("it has a label").to_owned(),
            outbound_url: read(ENV)
                .text_at(&["data", OUTBOUND_URL])
                .expect("it has the URL")
                .to_owned(),
        }
    }

    /// The ports at which it listens, with what they are for.
    pub(super) fn ports(&self) -> Vec<(u16, &'static str)> {
        let number = |path: &[&str]| self.container.text_at(path)?.parse::<u16>().ok();
        [
            (number(&["env", "WX_SIDECAR_PORT", "value"]), "requests"),
            (
                number(&["ports", "admin", "containerPort"]),
                "its admin side",
            ),
            (
                number(&["env", "WX_OUTBOUND_PORT", "value"]),
                "the app's calls",
            ),
        ]
        .into_iter()
        .filter_map(|(port, purpose)| Some((port?, purpose)))
        .collect()
    }
}

fn container(mut container: Node, args: &InjectArgs, app_port: u16) -> Node {
    if let Some(image) = &args.image {
        set(&mut container, &["image"], image);
    }
    set_number(&mut container, &["env", "WX_APP_PORT", "value"], app_port);
    set_number(
        &mut container,
        &["env", "WX_SIDECAR_PORT", "value"],
        args.port,
    );
    set_number(
        &mut container,
        &["ports", "http-wx", "containerPort"],
        args.port,
    );
    if args.classic {
        container.remove("restartPolicy");
        let command = ["/wx-sidecar", "sleep", CLASSIC_SLEEP].map(Node::string);
        let exec = Node::mapping(vec![("command", Node::sequence(command.to_vec()))]);
        let stop = Node::mapping(vec![("exec", exec)]);
        container.add("lifecycle", Node::mapping(vec![("preStop", stop)]));
    }
    container
}

fn set(node: &mut Node, path: &[&str], text: &str) {
    if let Some(node) = node.at_mut(path) {
        *node = Node::string(text);
    }
}

/// A number stays a number, and one in quotes (as in `env`) stays a string.
fn set_number(node: &mut Node, path: &[&str], number: u16) {
    let node = node.at_mut(path).expect("the component has it");
    if let yaml::Content::Scalar { text, .. } = &mut node.content {
        *text = number.to_string();
    }
}

fn read(text: &str) -> Node {
    let mut documents = yaml::parse(text).expect("our own file is YAML");
    documents.remove(0).root
}
