//! `wx-sidecar inject`: puts the sidecar into the workloads of Kubernetes manifests, for those without Kustomize.
//!
//! It does what the component in `k8s/component` does, from the same files. Manifests go through as text: what is not put in
//! stays as it is, with its comments and its formatting. Either all of them can be changed or nothing is printed.

mod sidecar;
mod workload;
mod yaml;

use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use workload::Change;

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
    /// The Secret with the AppSecret, as `secret`.
    #[arg(long, default_value = NAME)]
    secret: String,
    /// The sidecar's image.
    #[arg(long)]
    image: Option<String>,
    /// An ordinary container instead of a native sidecar, for clusters older than Kubernetes 1.29.
    #[arg(long)]
    classic: bool,
}

/// Prints the manifests with the sidecar; exits with 1 and prints nothing if one cannot have it.
pub fn run(args: &InjectArgs) -> ExitCode {
    match injected(args) {
        Ok((manifests, changes)) => {
            report(&changes, args);
            // Nobody may be listening any more.
            let _ = io::stdout().write_all(manifests.as_bytes());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in faults {
                eprintln!("error: {fault}");
            }
            ExitCode::FAILURE
        }
    }
}

fn injected(args: &InjectArgs) -> Result<(String, Vec<Change>), Vec<String>> {
    let standard_input = [PathBuf::from("-")];
    let files = match args.files.as_slice() {
        [] => &standard_input,
        files => files,
    };
    let mut manifests = String::new();
    let (mut changes, mut faults) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.display();
        let made = read(file).and_then(|source| inject(&source, args));
        match made {
            Ok((text, made)) => {
                append(&mut manifests, &text);
                changes.extend(made);
            }
            Err(found) => faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}"))),
        }
    }
    match faults.is_empty() {
        true => Ok((manifests, changes)),
        false => Err(faults),
    }
}

fn read(file: &PathBuf) -> Result<String, Vec<String>> {
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => io::stdin().read_to_string(&mut text).map(|_| text),
        false => fs::read_to_string(file),
    };
    read.map_err(|error| vec![error.to_string()])
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

/// A text with the sidecar in all its workloads, and what was done to each; or all that speaks against it.
fn inject(source: &str, args: &InjectArgs) -> Result<(String, Vec<Change>), Vec<String>> {
    let documents = yaml::parse(source).map_err(|fault| vec![fault])?;
    let (mut changes, mut faults, mut insertions) = (Vec::new(), Vec::new(), Vec::new());
    for document in &documents {
        for workload in workload::workloads(document, source) {
            match workload.change(args) {
                Ok(mut change) => {
                    insertions.append(&mut change.insertions);
                    changes.push(change);
                }
                Err(fault) => faults.push(format!("{}: {fault}", workload.name())),
            }
        }
    }
    match faults.is_empty() {
        true => Ok((yaml::apply(source, insertions), changes)),
        false => Err(faults),
    }
}

fn report(changes: &[Change], args: &InjectArgs) {
    for change in changes {
        for note in &change.notes {
            eprintln!("{}: {note}", change.name);
        }
    }
    if changes.is_empty() {
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
    eprintln!(
        "It needs the ConfigMap `{config_map}` with `sidecar.toml` (k8s/base has one) and the Secret `{secret}` with `secret`. Let Services lead to port {port}."
    );
}
