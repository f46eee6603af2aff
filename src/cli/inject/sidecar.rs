//! What is put into a workload: that which the Kustomize components in `k8s/component` and `k8s/cloudrun` add, from their own
//! files.

use std::time::Duration;

use super::yaml::{self, Node};
use super::{InjectArgs, NAME};

const PATCH: &str = include_str!("../../../k8s/component/sidecar.yaml");
const ENV: &str = include_str!("../../../k8s/component/env/source.yaml");
const CLOUDRUN: &str = include_str!("../../../k8s/cloudrun/cloudrun.yaml");
const CLOUDRUN_ENV: &str = include_str!("../../../k8s/cloudrun/source.yaml");

/// The variable that tells the app where it can call WeChat.
pub(super) const OUTBOUND_URL: &str = "WX_OUTBOUND_URL";

/// How long a classic sidecar goes on when the pod is told to end, because the app may still call WeChat.
pub(super) const CLASSIC_SLEEP: Duration = Duration::from_secs(5);

/// The sidecar for one workload.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) container: Node,
    pub(super) volumes: Vec<Node>,
    pub(super) label: String,
    pub(super) outbound_url: String,
    /// What the app takes for WeChat, if that is the sidecar.
    pub(super) host_aliases: Vec<Node>,
    /// What the pod's kernel is told for it.
    pub(super) sysctls: Vec<Node>,
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
        let mut sidecar = Self {
            container: container(list("initContainers").items()[0].clone(), args, app_port),
            volumes,
            label: label.expect("it has a label").to_owned(),
            outbound_url: outbound_url(ENV),
            host_aliases: Vec::new(),
            sysctls: Vec::new(),
        };
        if args.cloudrun {
            sidecar.become_wechat();
        }
        sidecar
    }

    /// As on CloudRun, where the app finds WeChat by its own name.
    fn become_wechat(&mut self) {
        let patch = read(CLOUDRUN);
        let spec = patch.at(&["spec", "template", "spec"]);
        let spec = spec.expect("it has a pod");
        let items = |path: &[&str]| spec.at(path).expect("it has the list").items().to_vec();
        self.host_aliases = items(&["hostAliases"]);
        self.sysctls = items(&["securityContext", "sysctls"]);
        self.volumes.extend(items(&["volumes"]));
        let port = ["env", "WX_OUTBOUND_PORT", "value"];
        let theirs = spec.text_at(&[&["initContainers", NAME][..], &port].concat());
        set(&mut self.container, &port, theirs.expect("it has a port"));
        let mounts = self.container.at_mut(&["volumeMounts"]);
        let mounts = mounts.expect("it has mounts");
        for mount in items(&["initContainers", NAME, "volumeMounts"]) {
            mounts.push(mount);
        }
        self.outbound_url = outbound_url(CLOUDRUN_ENV);
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
        let seconds = format!("{}s", CLASSIC_SLEEP.as_secs());
        let command = ["/wx-sidecar", "sleep", &seconds].map(Node::string);
        let exec = Node::mapping(vec![("command", Node::sequence(command.to_vec()))]);
        let stop = Node::mapping(vec![("exec", exec)]);
        container.add("lifecycle", Node::mapping(vec![("preStop", stop)]));
    }
    container
}

pub(super) fn set(node: &mut Node, path: &[&str], text: &str) {
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

fn outbound_url(source: &str) -> String {
    let url = read(source)
        .text_at(&["data", OUTBOUND_URL])
        .map(str::to_owned);
    url.expect("it has the URL")
}

/// The document in one of our own files.
pub(super) fn read(text: &str) -> Node {
    let mut documents = yaml::parse(text).expect("our own file is YAML");
    documents.remove(0).root
}
