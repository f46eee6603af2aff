//! `wx-sidecar inject`: puts the sidecar into the workloads of Kubernetes manifests, for those without Kustomize.
//!
//! It does what the components in `k8s/` do, from the same files. Manifests go through as text: what is not put in stays as it
//! is, with its comments and its formatting; only where a Service led to the app, another number stands. Either all of them can be
//! changed or nothing is printed.

mod beside;
mod configuration;
mod service;
mod sidecar;
mod workload;
mod yaml;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::out;
use configuration::Judged;
use service::Pointed;
use workload::{Change, Pods};
use yaml::{Document, Insertion};

/// The name of the sidecar's container, and of the label of pods that have one.
const NAME: &str = "wx-sidecar";

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct InjectArgs {
    /// Manifests; `-` or none is standard input.
    files: Vec<PathBuf>,
    /// The port of your app; if left out, the one that its container names, or 3000.
    #[arg(long)]
    app_port: Option<u16>,
    /// The port for the Mini Program's requests.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The ConfigMap with the configuration, as `sidecar.toml`.
    #[arg(long, default_value = NAME)]
    config_map: String,
    /// A configuration to make that ConfigMap of, begun with k8s/base/sidecar.toml; if left out, you make it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The Secret with the AppSecret, as `secret`, and the token of the admin side, as `admin-token`.
    #[arg(long, default_value = NAME)]
    secret: String,
    /// The sidecar's image.
    #[arg(long)]
    image: Option<String>,
    /// An ordinary container instead of a native sidecar, for clusters older than Kubernetes 1.29.
    #[arg(long)]
    classic: bool,
    /// `http://api.weixin.qq.com` is the sidecar, for an app that was written for WeChat CloudRun.
    #[arg(long)]
    cloudrun: bool,
    /// Add a NetworkPolicy: nobody but the sidecar reaches the app, nobody but Prometheus the admin side.
    #[arg(long)]
    network_policy: bool,
    /// Leave Services as they are; if left out, one that leads to the app leads to the sidecar.
    #[arg(long)]
    keep_services: bool,
}

/// Prints the manifests with the sidecar; exits with 1 and prints nothing if one cannot have it.
pub fn run(args: &InjectArgs) -> ExitCode {
    match injected(args) {
        Ok(injected) => {
            report(&injected, args);
            out::print(injected.manifests)
        }
        Err(faults) => {
            for fault in faults {
                eprintln!("error: {fault}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What came of it.
struct Injected {
    manifests: String,
    changes: Vec<Change>,
    services: Vec<Pointed>,
    /// What was added beside them, for people.
    beside: Vec<String>,
    /// What should be looked at in the configuration.
    doubts: Vec<String>,
}

/// A file of manifests.
struct Manifest {
    name: String,
    source: String,
    documents: Vec<Document>,
    /// What is to become of it.
    insertions: Vec<Insertion>,
}

fn injected(args: &InjectArgs) -> Result<Injected, Vec<String>> {
    let (mut manifests, mut faults) = (Vec::new(), Vec::new());
    for file in files(args) {
        match Manifest::read(file) {
            Ok(manifest) => manifests.push(manifest),
            Err(fault) => faults.push(format!("{}: {fault}", file.display())),
        }
    }
    let configuration = args.config.as_ref().map(fs::read_to_string).transpose();
    let configuration = configuration.unwrap_or_else(|error| {
        let file = args.config.iter().map(|it| it.display());
        faults.extend(file.map(|file| format!("{file}: {error}")));
        None
    });
    let mut changes = Vec::new();
    for manifest in &mut manifests {
        match manifest.inject(args) {
            Ok(made) => changes.extend(made),
            Err(found) => faults.extend(found),
        }
    }
    let pods: Vec<&Pods> = changes.iter().map(|change| &change.pods).collect();
    let judged = match (&args.config, &configuration) {
        (Some(file), Some(text)) => configuration::judge(file, text, &pods),
        _ => Judged::default(),
    };
    faults.extend(judged.faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    // A Service may be in another file than its pods.
    let mut services = Vec::new();
    if !args.keep_services {
        for manifest in &mut manifests {
            services.extend(manifest.point_services(&pods));
        }
    }
    let documents: Vec<&Document> = manifests.iter().flat_map(|it| &it.documents).collect();
    let (added, beside) = beside::beside(args, configuration.as_deref(), &pods, &documents);
    let mut text = String::new();
    for manifest in manifests {
        append(
            &mut text,
            &yaml::apply(&manifest.source, manifest.insertions),
        );
    }
    if !added.is_empty() {
        match text.contains("\r\n") {
            true => append(&mut text, &added.replace('\n', "\r\n")),
            false => append(&mut text, &added),
        }
    }
    Ok(Injected {
        manifests: text,
        changes,
        services,
        beside,
        doubts: judged.doubts,
    })
}

fn files(args: &InjectArgs) -> Vec<&Path> {
    match args.files.as_slice() {
        [] => vec![Path::new("-")],
        files => files.iter().map(PathBuf::as_path).collect(),
    }
}

impl Manifest {
    fn read(file: &Path) -> Result<Self, String> {
        let mut text = String::new();
        let read = match file.as_os_str() == "-" {
            true => io::stdin().read_to_string(&mut text).map(|_| text),
            false => fs::read_to_string(file),
        };
        let source = read.map_err(|error| error.to_string())?;
        Ok(Self {
            name: file.display().to_string(),
            documents: yaml::parse(&source)?,
            source,
            insertions: Vec::new(),
        })
    }

    /// Has the sidecar put into all its workloads; what is done to each, or all that speaks against it.
    fn inject(&mut self, args: &InjectArgs) -> Result<Vec<Change>, Vec<String>> {
        let (mut changes, mut faults) = (Vec::new(), Vec::new());
        for document in &self.documents {
            for workload in workload::workloads(document, &self.source) {
                match workload.change(args) {
                    Ok(mut change) => {
                        self.insertions.append(&mut change.insertions);
                        changes.push(change);
                    }
                    Err(fault) => {
                        faults.push(format!("{}: {}: {fault}", self.name, workload.name()));
                    }
                }
            }
        }
        match faults.is_empty() {
            true => Ok(changes),
            false => Err(faults),
        }
    }

    /// Has its Services lead to the sidecars of these pods.
    fn point_services(&mut self, pods: &[&Pods]) -> Vec<Pointed> {
        let documents = self.documents.iter();
        let pointed = documents.flat_map(|it| service::point(it, &self.source, pods));
        let mut pointed: Vec<_> = pointed.collect();
        for service in &mut pointed {
            self.insertions.append(&mut service.insertions);
        }
        pointed
    }
}

/// A file is a document at least, whether it says so or not.
fn append(manifests: &mut String, text: &str) {
    if !manifests.is_empty() {
        if !manifests.ends_with('\n') {
            manifests.push('\n');
        }
        if !text.starts_with("---") {
            manifests.push_str("---\n");
        }
    }
    manifests.push_str(text);
}

fn report(injected: &Injected, args: &InjectArgs) {
    let changes = injected.changes.iter().map(|it| (&it.name, &it.notes));
    let services = injected.services.iter().map(|it| (&it.name, &it.notes));
    for (name, notes) in changes.chain(services) {
        for note in notes {
            eprintln!("{name}: {note}");
        }
    }
    for note in &injected.beside {
        eprintln!("{note}");
    }
    for doubt in &injected.doubts {
        eprintln!("{doubt}");
    }
    if injected.changes.is_empty() {
        eprintln!(
            "nothing here has pods: no Deployment, StatefulSet, DaemonSet, Job, CronJob or Pod"
        );
        return;
    }
    let InjectArgs {
        config_map,
        secret,
        port,
        ..
    } = args;
    if args.config.is_none() {
        eprintln!(
            "It needs the ConfigMap `{config_map}` with `sidecar.toml` (k8s/base has one; --config FILE adds it)."
        );
    }
    eprintln!(
        "It needs the Secret `{secret}`: kubectl create secret generic {secret} --from-literal=secret=... --from-literal=admin-token=\"$(openssl rand -hex 24)\""
    );
    if !injected.services.iter().any(|it| it.leads_to_sidecar) {
        eprintln!("Let Services lead to port {port}.");
    }
}
