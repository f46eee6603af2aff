//! Whether the configuration that is to go into a ConfigMap can be used in the pods that get it.
//!
//! What the sidecar's container is like is read from the container itself, whether it is put in now or was there before, so that
//! nothing is known here that the component does not say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sidecar::CLASSIC_SLEEP;
use super::workload::Pods;
use super::yaml::Node;
use crate::config::{Config, Pod};

/// Where the component has the configuration.
const PLACE: &str = "/etc/wx-sidecar/sidecar.toml";

/// How long Kubernetes lets a pod end that does not say.
const USUAL_GRACE: u64 = 30;

/// What is to be said of a configuration.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) faults: Vec<String>,
    pub(super) doubts: Vec<String>,
}

/// Judges a configuration for each kind of pods that reads it.
pub(super) fn judge(file: &Path, text: &str, pods: &[&Pods]) -> Judged {
    let name = file.display().to_string();
    let (mut judged, mut seen) = (Judged::default(), Vec::new());
    for pod in pods.iter().filter_map(|pods| pod(pods)) {
        if seen.contains(&pod) {
            continue;
        }
        let report = Config::judge_in_pod(text, &name, &pod);
        let said = match report.has_errors() {
            true => &mut judged.faults,
            false => &mut judged.doubts,
        };
        let told = match report.has_errors() {
            true => format!(
                "{name}: this cannot be used in the pod; begin with k8s/base/sidecar.toml\n\n{report}"
            ),
            false => format!("{report}\n{name}: k8s/base/sidecar.toml shows how it is in a pod"),
        };
        if !report.is_empty() && !said.contains(&told) {
            said.push(told);
        }
        seen.push(pod);
    }
    judged
}

/// What the sidecar finds in these pods; `None` if it has its configuration from elsewhere.
fn pod(pods: &Pods) -> Option<Pod> {
    let container = pods.container.as_ref()?;
    let items = |key| container.get(key).map_or(&[][..], Node::items);
    items("args").iter().find(|it| it.text() == Some(PLACE))?;
    let variable = |it: &Node| {
        let value = it.text_at(&["value"]).map(str::to_owned);
        Some((it.text_at(&["name"])?.to_owned(), value))
    };
    let directory = Path::new(PLACE).parent()?;
    let mounts = items("volumeMounts").iter();
    let mounts = mounts.filter_map(|it| it.text_at(&["mountPath"]));
    let port = |name| {
        container
            .text_at(&["ports", name, "containerPort"])?
            .parse()
            .ok()
    };
    let grace = Duration::from_secs(pods.grace.unwrap_or(USUAL_GRACE));
    let slept = match container.get("lifecycle") {
        Some(_) => CLASSIC_SLEEP,
        None => Duration::ZERO,
    };
    Some(Pod {
        variables: items("env").iter().filter_map(variable).collect(),
        has_more_variables: container.get("envFrom").is_some(),
        directory: directory.to_owned(),
        mounts: mounts
            .map(PathBuf::from)
            .filter(|it| it != directory)
            .collect(),
        port: port("http-wx")?,
        admin: port("admin")?,
        grace: grace.saturating_sub(slept),
    })
}
