//! The manifests in `k8s/`: they render, Kubernetes would take them, and what they describe works.
//!
//! Kustomize's own library renders them, and schemas of current Kubernetes judge what comes of it. There is no cluster here,
//! but what a pod is to the sidecar there is: an empty root, a numeric user that may write nothing, and volumes as the kubelet
//! lays them.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wx_sidecar::clock::Clock;

use crate::backends::{Kind, Script};
use crate::daemon::{Daemon, free_port};
use crate::http_client::Client;
use crate::patience::{comes_true, eventually};
use crate::process::{Run, finished_with};
use crate::rig::{SECRET, canary, replaced, simulator};

/// The newest, and the oldest with native sidecars.
pub(crate) const VERSIONS: [&str; 3] = ["1.37", "1.34", "1.29"];
/// Older than native sidecars.
const OLD: &str = "1.27";
const CLASSIC: &str = "examples/shop-classic";
const SHOP: &str = "examples/shop";

/// Where the operator's own definitions are to be had, and what they are.
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.83.0";
const OPERATOR_SUM: &str = "h1:qAKbm+45fqNGcn9sGTa1Ae2TM3KZuYA/uyoD2QKi9+o=";

const BINARY: &str = env!("CARGO_BIN_EXE_wx-sidecar");
/// Where the configuration is, which the image says, too.
const CONFIGURATION: &str = "/etc/wx-sidecar/sidecar.toml";
/// Where the Secret is mounted.
const SECRETS: &str = "/var/run/secrets/wx";
/// Its key `admin-token`.
const ADMIN_TOKEN: &str = "ca9a41-admin-token-of-a-pod";
const PUSH_TOKEN: &str = "ca9a41pushtokenofapod";
const PUSH_KEY: &str = "ca9a41bcdefghijklmnopqrstuvwxyz0123456789AB";
/// The user of the image.
const USER: &str = "65532";

/// A directory or a file of `k8s/`.
pub(crate) fn manifests(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("k8s").join(path)
}

/// The objects that each kustomization comes to, or that each file has.
pub(crate) fn objects(paths: &[PathBuf]) -> Vec<Vec<Value>> {
    let paths: Vec<&str> = paths.iter().map(|it| it.to_str().unwrap()).collect();
    let rendered = Script::start(Kind::Kustomize, "kustomize", &paths).line();
    serde_json::from_str(&rendered).expect("Kustomize's answer is JSON")
}

/// What these versions of Kubernetes find wrong.
pub(crate) fn faults(objects: &[Value], versions: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let task = directory.path().join("task.json");
    let written = json!({ "objects": objects, "versions": versions, "crds": definitions() });
    fs::write(&task, written.to_string()).unwrap();
    let found = Script::start(Kind::Kubernetes, "validate.py", &[task.to_str().unwrap()]).line();
    serde_json::from_str(&found).expect("the validator says JSON")
}

/// The files with the operator's CustomResourceDefinitions.
fn definitions() -> Vec<PathBuf> {
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", OPERATOR]);
    // Its sum is compared here.
    let output = go.env("GONOSUMDB", "*").output();
    let output = output.expect("go is installed; `make test-tools` does it");
    let module: Value = serde_json::from_slice(&output.stdout).expect("go says JSON");
    assert_eq!(module["Sum"], OPERATOR_SUM, "{module}");
    let examples =
        Path::new(module["Dir"].as_str().unwrap()).join("example/prometheus-operator-crd");
    ["podmonitors", "prometheusrules"]
        .map(|kind| examples.join(format!("monitoring.coreos.com_{kind}.yaml")))
        .to_vec()
}

fn rendered(path: &str) -> Vec<Value> {
    objects(&[manifests(path)]).remove(0)
}

/// All directories of `k8s/` that can be applied.
fn kustomizations() -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![manifests("")]);
    while let Some(directory) = open.pop() {
        let text = fs::read_to_string(directory.join("kustomization.yaml"));
        if text.is_ok_and(|text| text.contains("\nkind: Kustomization\n")) {
            found.push(directory.clone());
        }
        let entries = fs::read_dir(&directory)
            .unwrap()
            .map(|it| it.unwrap().path());
        open.extend(entries.filter(|path| path.is_dir()));
    }
    found
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|it| it["kind"] == kind).collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = array(list).iter().find(|it| it["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list:#}"))
}

/// The pods that an object is for.
pub(crate) fn pods(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => Some(&object["spec"]["template"]),
        "CronJob" => Some(&object["spec"]["jobTemplate"]["spec"]["template"]),
        "Pod" => Some(object),
        _ => None,
    }
}

#[test]
fn every_kustomization_renders_and_kubernetes_takes_it() {
    let all = kustomizations();
    assert!(all.len() >= 7, "{all:?}");
    let objects = objects(&all);
    assert!(objects.iter().all(|it| !it.is_empty()), "{all:?}");
    assert_eq!(faults(&objects.concat(), &VERSIONS), [""; 0]);
    assert_eq!(faults(&rendered(CLASSIC), &[OLD]), [""; 0]);
}

#[test]
fn what_kubernetes_would_not_take_is_found() {
    let mut shop = rendered(SHOP);
    let monitoring = rendered("monitoring");
    let monitor = of_kind(&monitoring, "PodMonitor")[0].clone();
    let deployment = shop
        .iter_mut()
        .find(|it| it["kind"] == "Deployment")
        .unwrap();
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["ports"] = json!([{ "containerPort": "3000" }]);
    container["imagePullPolice"] = json!("Always");
    let mut misspelt = monitor;
    misspelt["spec"]["podMetricsEndpoints"][0]["pot"] = json!("admin");
    shop.push(misspelt);
    let found = faults(&shop, &["1.37"]);
    assert!(
        found.iter().any(|it| it.contains("Deployment/shop")),
        "{found:#?}"
    );
    assert!(
        found.iter().any(|it| it.contains("'pot' was unexpected")),
        "{found:#?}"
    );
}

#[test]
fn every_pod_meets_the_restricted_standard() {
    let all: Vec<Value> = objects(&kustomizations()).concat();
    let pods: Vec<&Value> = all.iter().filter_map(pods).collect();
    assert!(pods.len() >= 6);
    for pod in pods {
        assert_eq!(unrestricted(&pod["spec"]), [""; 0], "{pod:#}");
    }
}

#[test]
fn each_rule_of_the_restricted_standard_is_looked_at() {
    let shop = rendered(SHOP);
    let pod = &pods(of_kind(&shop, "Deployment")[0]).unwrap()["spec"];
    let breaches = [
        ("/hostNetwork", json!(true)),
        ("/hostPID", json!(true)),
        ("/hostIPC", json!(true)),
        (
            "/volumes/0",
            json!({ "name": "x", "hostPath": { "path": "/" } }),
        ),
        (
            "/securityContext",
            json!({ "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] }),
        ),
        ("/securityContext", json!({ "runAsUser": 0 })),
        ("/initContainers/0/securityContext/privileged", json!(true)),
        ("/initContainers/0/securityContext/runAsUser", json!(0)),
        (
            "/initContainers/0/securityContext/runAsNonRoot",
            json!(false),
        ),
        (
            "/initContainers/0/securityContext/allowPrivilegeEscalation",
            json!(true),
        ),
        (
            "/initContainers/0/securityContext/capabilities/drop",
            json!(["NET_RAW"]),
        ),
        (
            "/initContainers/0/securityContext/capabilities/add",
            json!(["NET_ADMIN"]),
        ),
        (
            "/initContainers/0/securityContext/seccompProfile/type",
            json!("Unconfined"),
        ),
        (
            "/initContainers/0/securityContext/procMount",
            json!("Unmasked"),
        ),
        ("/initContainers/0/ports/0/hostPort", json!(8080)),
        (
            "/initContainers/0/livenessProbe/httpGet/host",
            json!("10.0.0.1"),
        ),
    ];
    assert_eq!(unrestricted(pod), [""; 0]);
    for (place, value) in breaches {
        let mut pod = pod.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        match pod.pointer_mut(parent).unwrap() {
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
            parent => parent[key] = value,
        }
        assert_eq!(unrestricted(&pod).len(), 1, "{place}");
    }
}

/// What of a pod the restricted Pod Security Standard forbids, baseline included.
fn unrestricted(pod: &Value) -> Vec<String> {
    const VOLUMES: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const SYSCTLS: [&str; 5] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_syncookies",
    ];
    let mut found = Vec::new();
    let mut check = |is_met: bool, what: String| {
        if !is_met {
            found.push(what);
        }
    };
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        check(pod[key] != true, key.to_owned());
    }
    for volume in array(&pod["volumes"]) {
        let kinds = volume
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "name");
        for kind in kinds {
            check(VOLUMES.contains(&kind.as_str()), format!("volume {kind}"));
        }
    }
    for sysctl in array(&pod["securityContext"]["sysctls"]) {
        let name = sysctl["name"].as_str().unwrap();
        check(SYSCTLS.contains(&name), format!("sysctl {name}"));
    }
    check(
        pod["securityContext"]["runAsUser"] != 0,
        "runAsUser".to_owned(),
    );
    for container in array(&pod["initContainers"])
        .iter()
        .chain(array(&pod["containers"]))
    {
        let name = &container["name"];
        let context = &container["securityContext"];
        let dropped = array(&context["capabilities"]["drop"]);
        let added = array(&context["capabilities"]["add"]);
        let profile = context["seccompProfile"]["type"].as_str();
        let ports = array(&container["ports"]);
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"]
            .map(|key| &container[key]["httpGet"]["host"]);
        for (is_met, what) in [
            (context["privileged"] != true, "privileged"),
            (context["runAsNonRoot"] == true, "runAsNonRoot"),
            (context["runAsUser"] != 0, "runAsUser"),
            (
                context["allowPrivilegeEscalation"] == false,
                "allowPrivilegeEscalation",
            ),
            (dropped.contains(&json!("ALL")), "capabilities.drop"),
            (
                added.iter().all(|it| it == "NET_BIND_SERVICE"),
                "capabilities.add",
            ),
            (
                matches!(profile, Some("RuntimeDefault" | "Localhost")),
                "seccompProfile",
            ),
            (
                context["procMount"] == "Default" || context["procMount"].is_null(),
                "procMount",
            ),
            (ports.iter().all(|it| it["hostPort"].is_null()), "hostPort"),
            (probes.iter().all(|it| it.is_null()), "a probe's host"),
        ] {
            check(is_met, format!("{name}: {what}"));
        }
    }
    found
}

#[test]
fn the_sidecar_is_a_native_one_with_the_names_that_others_go_by() {
    let shop = rendered(SHOP);
    let pod = pods(of_kind(&shop, "Deployment")[0]).unwrap();
    assert_eq!(pod["metadata"]["labels"]["wx-sidecar"], "enabled");
    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["name"], "wx-sidecar");
    assert_eq!(sidecar["restartPolicy"], "Always");
    let image = format!(
        "registry.example.com/wx-sidecar:{}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(sidecar["image"], image);
    assert_eq!(sidecar["securityContext"]["readOnlyRootFilesystem"], true);
    let ports = &sidecar["ports"];
    assert_eq!(named(ports, "http-wx")["containerPort"], 8080);
    assert_eq!(named(ports, "admin")["containerPort"], 9901);
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("readinessProbe", "/readyz"),
        ("livenessProbe", "/livez"),
    ] {
        assert_eq!(
            sidecar[probe]["httpGet"],
            json!({ "path": path, "port": "admin" })
        );
    }
    for container in array(&pod["spec"]["containers"]) {
        let url = &named(&container["env"], "WX_OUTBOUND_URL")["value"];
        assert_eq!(url, "http://127.0.0.1:8081");
    }
    let service = &of_kind(&shop, "Service")[0]["spec"];
    assert_eq!(service["ports"][0]["targetPort"], 8080);
}

#[test]
fn what_is_ours_has_the_six_labels_that_kubernetes_recommends() {
    let mut ours = BTreeSet::new();
    for directory in kustomizations() {
        // The base alone is an instance of nothing yet.
        let is_whole = directory != manifests("base");
        for object in objects(&[directory]).remove(0) {
            let (kind, metadata) = (object["kind"].as_str().unwrap(), &object["metadata"]);
            let name = metadata["name"].as_str().unwrap();
            if !name.starts_with("wx-sidecar") {
                continue;
            }
            ours.insert(format!("{kind}/{name}"));
            let label = |name: &str| &metadata["labels"][format!("app.kubernetes.io/{name}")];
            assert_eq!(label("name"), "wx-sidecar", "{kind}/{name}");
            assert_eq!(label("version"), env!("CARGO_PKG_VERSION"), "{kind}/{name}");
            for other in ["component", "part-of", "managed-by"] {
                assert!(label(other).is_string(), "{kind}/{name}: {other}");
            }
            assert_eq!(label("instance").is_string(), is_whole, "{kind}/{name}");
        }
    }
    assert!(ours.len() >= 6, "{ours:?}");
}

#[test]
fn the_workload_that_says_no_gets_no_sidecar() {
    let directory = overlay(
        "components: [COMPONENT]\n",
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, labels: {wx-sidecar: none}}\nspec:\n  \
         template: {spec: {containers: [{name: db, image: x}]}}\n",
        "component",
    );
    let objects = objects(&[directory.path().to_owned()]).remove(0);
    let pod = pods(of_kind(&objects, "StatefulSet")[0]).unwrap();
    assert_eq!(
        pod["spec"],
        json!({ "containers": [{ "name": "db", "image": "x" }] })
    );
}

/// A kustomization of a manifest; `COMPONENT` stands for one of ours.
pub(crate) fn overlay(kustomization: &str, manifest: &str, component: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    // Kustomize takes no absolute path.
    let up: String = directory
        .path()
        .components()
        .skip(1)
        .map(|_| "../")
        .collect();
    let place = manifests(component);
    let place = up + place.strip_prefix("/").unwrap().to_str().unwrap();
    let text = format!(
        "resources: [app.yaml]\n{}",
        kustomization.replace("COMPONENT", &place)
    );
    fs::write(directory.path().join("kustomization.yaml"), text).unwrap();
    fs::write(directory.path().join("app.yaml"), manifest).unwrap();
    directory
}

#[test]
fn the_classic_sidecar_is_the_same_as_an_ordinary_container_and_outlives_the_app() {
    let (native, classic) = (rendered(SHOP), rendered(CLASSIC));
    let native = &pods(of_kind(&native, "Deployment")[0]).unwrap()["spec"];
    let classic = &pods(of_kind(&classic, "Deployment")[0]).unwrap()["spec"];
    assert_eq!(array(&classic["initContainers"]), [] as [Value; 0]);
    let mut sidecar = named(&classic["containers"], "wx-sidecar").clone();
    let stop = sidecar
        .as_object_mut()
        .unwrap()
        .remove("lifecycle")
        .unwrap();
    assert_eq!(
        stop["preStop"]["exec"]["command"],
        json!(["/wx-sidecar", "sleep", "5s"])
    );
    let mut expected = native["initContainers"][0].clone();
    expected.as_object_mut().unwrap().remove("restartPolicy");
    expected["image"] = sidecar["image"].clone();
    assert_eq!(sidecar, expected);
    let app = named(&classic["containers"], "shop");
    assert_eq!(
        app["lifecycle"]["preStop"]["exec"]["command"],
        json!(["sleep", "5"])
    );
    assert_eq!(classic["volumes"], native["volumes"]);
    // The hook of the image without a shell.
    let (code, _, stderr) = finished_with(&["sleep", "1ms"], &[]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn for_a_cloudrun_app_wechats_name_is_the_sidecar_but_not_for_the_sidecar() {
    let objects = rendered("examples/shop-cloudrun");
    let pod = &pods(of_kind(&objects, "Deployment")[0]).unwrap()["spec"];
    let alias = json!([{ "ip": "127.0.0.1", "hostnames": ["api.weixin.qq.com"] }]);
    assert_eq!(pod["hostAliases"], alias);
    let sidecar = named(&pod["initContainers"], "wx-sidecar");
    assert_eq!(named(&sidecar["env"], "WX_OUTBOUND_PORT")["value"], "80");
    let sysctl = named(
        &pod["securityContext"]["sysctls"],
        "net.ipv4.ip_unprivileged_port_start",
    );
    assert_eq!(sysctl["value"], "80");
    let hosts = named(&sidecar["volumeMounts"], "wx-sidecar-hosts");
    assert_eq!(
        (&hosts["mountPath"], &hosts["subPath"]),
        (&json!("/etc/hosts"), &json!("hosts"))
    );
    let volume = &named(&pod["volumes"], "wx-sidecar-hosts")["configMap"]["name"];
    let map = of_kind(&objects, "ConfigMap")
        .into_iter()
        .find(|it| it["metadata"]["name"] == *volume);
    let lines = map.unwrap()["data"]["hosts"].as_str().unwrap();
    assert!(
        lines.contains("127.0.0.1 localhost") && !lines.contains("weixin"),
        "{lines}"
    );
    let app = named(&pod["containers"], "shop");
    assert_eq!(
        named(&app["env"], "WX_OUTBOUND_URL")["value"],
        "http://api.weixin.qq.com"
    );
}

#[test]
fn only_the_sidecars_ports_are_open_and_the_admin_side_to_prometheus_alone() {
    let shop = rendered(SHOP);
    let policy = &of_kind(&shop, "NetworkPolicy")[0]["spec"];
    assert_eq!(
        policy["podSelector"]["matchLabels"],
        json!({ "wx-sidecar": "enabled" })
    );
    assert_eq!(policy["policyTypes"], json!(["Ingress"]));
    let rules: Vec<(&Value, bool)> = array(&policy["ingress"])
        .iter()
        .map(|rule| (&rule["ports"], rule["from"].is_array()))
        .collect();
    let port = |number| json!([{ "protocol": "TCP", "port": number }]);
    assert_eq!(rules, [(&port(8080), false), (&port(9901), true)]);
}

#[test]
fn prometheus_finds_the_sidecar_by_its_pods_label_and_its_ports_name() {
    let (monitoring, shop) = (rendered("monitoring"), rendered(SHOP));
    let monitor = &of_kind(&monitoring, "PodMonitor")[0]["spec"];
    let pod = pods(of_kind(&shop, "Deployment")[0]).unwrap();
    for (label, value) in monitor["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][label], value);
    }
    let endpoint = &monitor["podMetricsEndpoints"][0];
    assert_eq!(endpoint["path"], "/metrics");
    let port = endpoint["port"].as_str().unwrap();
    named(&pod["spec"]["initContainers"][0]["ports"], port);
}

#[test]
fn the_tenant_of_alerts_is_a_label_that_every_example_sets_on_its_pods_and_on_no_selector() {
    let monitoring = rendered("monitoring");
    let monitor = &of_kind(&monitoring, "PodMonitor")[0]["spec"];
    let relabelings = array(&monitor["podMetricsEndpoints"][0]["relabelings"]);
    let last = relabelings.last().unwrap();
    assert_eq!(last["targetLabel"], "tenant");
    let instance = "app.kubernetes.io/instance";
    let discovered: String = instance
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() { it } else { '_' })
        .collect();
    let expected = format!("__meta_kubernetes_pod_label_{discovered}");
    assert_eq!(last["sourceLabels"], json!([expected]));
    let all: Vec<Value> = objects(&kustomizations()).concat();
    let mut tenants = BTreeSet::new();
    for object in &all {
        let labels = pods(object).map(|it| &it["metadata"]["labels"]);
        if let Some(labels) = labels.filter(|it| it["wx-sidecar"] == "enabled") {
            tenants.insert(labels[instance].as_str().expect("it is set").to_owned());
        }
        // One that is there already could not be changed.
        assert!(!object["spec"]["selector"].to_string().contains(instance));
        assert!(!object["spec"]["podSelector"].to_string().contains(instance));
    }
    assert_eq!(Vec::from_iter(tenants), ["bakery", "florist", "shop"]);
}

#[test]
fn two_tenants_share_an_app_and_nothing_else() {
    let objects = rendered("examples/two-tenants");
    let tenants: BTreeSet<&str> = objects
        .iter()
        .filter_map(|it| it["metadata"]["namespace"].as_str())
        .collect();
    assert_eq!(tenants, BTreeSet::from(["bakery", "florist"]));
    let appids: BTreeSet<&str> = of_kind(&objects, "ConfigMap")
        .into_iter()
        .filter_map(|it| {
            it["data"]["sidecar.toml"]
                .as_str()?
                .lines()
                .find(|line| line.starts_with("appid"))
        })
        .collect();
    assert_eq!(appids.len(), 2);
    let enforced: Vec<&Value> = of_kind(&objects, "Namespace")
        .into_iter()
        .map(|it| &it["metadata"]["labels"]["pod-security.kubernetes.io/enforce"])
        .collect();
    assert_eq!(enforced, ["restricted", "restricted"]);
    // The one whose app listens elsewhere says so to both.
    let bakery = of_kind(&objects, "Deployment")
        .into_iter()
        .find(|it| it["metadata"]["namespace"] == "bakery");
    let pod = &pods(bakery.unwrap()).unwrap()["spec"];
    let port = &named(&named(&pod["containers"], "shop")["env"], "PORT")["value"];
    assert_eq!(port, "8000");
    assert_eq!(
        &named(&pod["initContainers"][0]["env"], "WX_APP_PORT")["value"],
        port
    );
}

#[test]
fn each_configuration_in_the_manifests_is_valid_without_a_warning() {
    canary(SECRET);
    let all: Vec<Value> = objects(&kustomizations()).concat();
    let configurations: BTreeSet<&str> = all
        .iter()
        .filter_map(|it| it["data"]["sidecar.toml"].as_str())
        .collect();
    assert!(configurations.len() >= 4, "{configurations:#?}");
    let pod = Pod::new();
    for text in configurations {
        // Without a token, an admin side that other machines reach has nothing but health and metrics for anybody.
        assert!(
            text.contains(&format!("token_file = \"{SECRETS}/admin-token\"")),
            "{text}"
        );
        let path = pod.root.path().join("checked.toml");
        let here = pod.root.path().join("var/run/secrets/wx");
        fs::write(&path, text.replace(SECRETS, here.to_str().unwrap())).unwrap();
        let environment = [
            ("WX_SIDECAR_PORT", "8080"),
            ("WX_APP_PORT", "3000"),
            ("WX_OUTBOUND_PORT", "8081"),
        ];
        let (code, _, stderr) =
            finished_with(&["check", "-c", path.to_str().unwrap()], &environment);
        assert_eq!(code, 0, "{stderr}");
        assert!(!stderr.contains("warning"), "{stderr}");
    }
}

#[test]
fn in_an_empty_root_a_numeric_user_without_a_writable_path_serves_what_the_manifests_say() {
    canary(SECRET);
    let wechat = simulator(Clock::System);
    let app_port = free_port();
    let mut app = Daemon::default();
    let mut python = Command::new("python3");
    python
        .arg(manifests("examples/app/app.py"))
        .env("PORT", app_port.to_string())
        .stderr(Stdio::null());
    app.start(&mut python);
    eventually("the app of the example listens", || {
        TcpStream::connect(("127.0.0.1", app_port)).is_ok()
    });

    let shop = rendered(SHOP);
    let map = of_kind(&shop, "ConfigMap")
        .into_iter()
        .find(|it| it["metadata"]["name"] == "wx-sidecar");
    let text = map.unwrap()["data"]["sidecar.toml"].as_str().unwrap();
    // Ports of pods are theirs alone; here they are whatever is free.
    let text = replaced(
        text,
        "0.0.0.0:${WX_SIDECAR_PORT}",
        "127.0.0.1:${WX_SIDECAR_PORT}",
    );
    // The address of all interfaces, which commands in the pod ask at.
    let admin = format!("0.0.0.0:{}", free_port());
    let text = replaced(&text, "0.0.0.0:9901", &admin);
    let text = replaced(&text, "drain_delay = \"5s\"", "drain_delay = \"0s\"");
    let text = format!(
        "{text}\n[wechat]\nendpoints = [\"{}\"]\nconnect_timeout = \"1m\"\ntimeout = \"1m\"\n\
         [push]\ntoken = \"{PUSH_TOKEN}\"\naes_key = \"{PUSH_KEY}\"\n",
        wechat.url()
    );
    canary(PUSH_TOKEN);
    canary(PUSH_KEY);
    let pod = Pod::new();
    pod.configure(&text, 0);
    pod.assert_nothing_is_writable();
    let run = pod.run(app_port);
    let user = format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}");
    let status = run.process.proc("status");
    assert!(status.contains(&user), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert_eq!(run.process.proc("cmdline").split('\0').next(), Some(BINARY));

    let get = |target: &str, headers: &[(&str, &str)]| {
        Client::connect(run.inbound).request("GET", target, headers, b"")
    };
    assert_eq!(get("/orders", &[]).status, 401);
    assert_eq!(get("/public/a", &[]).json()["hello"], "stranger");
    let code = wechat.issue_code("alice");
    let known = get("/orders", &[("X-WX-Code", code.as_str())]);
    assert_eq!(known.json()["hello"], wechat.openid("alice").as_str());
    for header in ["x-wx-access-token", "x-wx-refresh-token"] {
        canary(known.header(header).unwrap());
    }
    let admin = |target: &str| Client::connect(run.admin).request("GET", target, &[], b"");
    assert_eq!(admin("/livez").status, 200);
    assert_eq!(admin("/readyz").status, 200);
    // A request is counted when its answer is on its way.
    eventually("requests are counted", || {
        admin("/metrics")
            .text()
            .contains("wx_sidecar_http_requests_total")
    });
    assert_eq!(admin("/config").status, 401);
    let shown = format!("Bearer {ADMIN_TOKEN}");
    let shown = [("Authorization", shown.as_str())];
    let config = Client::connect(run.admin).request("GET", "/config", &shown, b"");
    assert_eq!(config.status, 200, "{}", config.text());

    // What the runbook has operators do in it.
    let (_, found) = pod.exec(&["doctor"], app_port);
    assert!(found.contains("appid and secret"), "{found}");
    assert!(!found.contains("failed"), "{found}");
    assert_eq!(pod.exec(&["check"], app_port).0, 0);
    for (order, told) in [
        (&["push", "list", "--dead"][..], "no dead letters"),
        (&["push", "list"], "nothing waits"),
        (&["push", "replay", "--all"], "0 messages"),
    ] {
        let (code, said) = pod.exec(order, app_port);
        assert_eq!((code, said.contains(told)), (0, true), "{order:?}: {said}");
    }

    // The ConfigMap changes, and the kubelet brings it.
    pod.configure(&replaced(&text, "/public/**", "/open/**"), 1);
    assert!(comes_true(|| get("/open/a", &[]).status == 200));
    assert_eq!(get("/public/a", &[]).status, 401);
    run.process.signal("TERM");
    assert_eq!(run.process.end().0, 0);
    pod.assert_nothing_is_writable();
}

/// What the sidecar has of a pod: a root with its binary and what that is linked with, and two volumes.
struct Pod {
    root: tempfile::TempDir,
}

impl Pod {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for file in [BINARY.to_owned()].into_iter().chain(libraries()) {
            let place = root.path().join(file.strip_prefix('/').unwrap());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(&file, &place).unwrap();
            fs::set_permissions(place, fs::Permissions::from_mode(0o555)).unwrap();
        }
        let pod = Self { root };
        canary(ADMIN_TOKEN);
        let volume = SECRETS.strip_prefix('/').unwrap();
        pod.mount(volume, "secret", SECRET, 0);
        pod.mount(volume, "admin-token", ADMIN_TOKEN, 0);
        pod
    }

    fn configure(&self, text: &str, round: usize) {
        self.mount("etc/wx-sidecar", "sidecar.toml", text, round);
    }

    /// A file in a volume, as the kubelet lays it: a directory for each state, and a link that is swapped.
    fn mount(&self, volume: &str, name: &str, content: &str, round: usize) {
        let volume = self.root.path().join(volume);
        let state = format!("..2026_11_28_{round}");
        fs::create_dir_all(volume.join(&state)).unwrap();
        let file = volume.join(&state).join(name);
        fs::write(&file, content).unwrap();
        // 0440 and the group of the container, unless this user may not give it away.
        let mode = match rustix::process::geteuid().is_root() {
            true => 0o440,
            false => 0o444,
        };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let (next, data) = (volume.join("..data_tmp"), volume.join("..data"));
        symlink(&state, &next).unwrap();
        fs::rename(next, data).unwrap();
        let link = volume.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }

    /// Runs the sidecar in it, as the image's user in the group that the manifests give it.
    fn run(&self, app_port: u16) -> Run {
        let root = self.root.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o555)).unwrap();
        let inside = self.inside(app_port);
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        Run::under(&inside, Path::new(CONFIGURATION))
    }

    /// Runs the binary beside it, as `kubectl exec` does: in the same root, with the image's environment. Its exit code, and
    /// what it says.
    fn exec(&self, arguments: &[&str], app_port: u16) -> (i32, String) {
        let inside = self.inside(app_port);
        let mut command = Command::new(&inside[0]);
        command.args(&inside[1..]).arg(BINARY).args(arguments);
        let output = command.output().expect("run the binary");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        (output.status.code().unwrap(), said)
    }

    /// What runs another program in it.
    fn inside(&self, app_port: u16) -> Vec<String> {
        let mut words = Vec::new();
        if !rustix::process::geteuid().is_root() {
            words.extend(["sudo", "-n"].map(str::to_owned));
        }
        words.extend(["env", "WX_SIDECAR_PORT=0", "WX_OUTBOUND_PORT=0"].map(str::to_owned));
        words.push(format!("WX_SIDECAR_CONFIG={CONFIGURATION}"));
        words.push(format!("WX_APP_PORT={app_port}"));
        words.extend(["chroot", "--groups="].map(str::to_owned));
        words.push(format!("--userspec={USER}:0"));
        words.push(self.root.path().to_str().unwrap().to_owned());
        words
    }

    fn assert_nothing_is_writable(&self) {
        let mut open = vec![self.root.path().to_owned()];
        while let Some(path) = open.pop() {
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_symlink() {
                continue;
            }
            assert_ne!(about.uid().to_string(), USER, "{path:?}");
            assert_eq!(about.mode() & 0o022, 0, "{path:?}");
            if about.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
            }
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // So that whoever is not root can remove it.
        let _fails = fs::set_permissions(self.root.path(), fs::Permissions::from_mode(0o755));
    }
}

/// What the binary of the tests is linked with; the image's is linked with nothing.
fn libraries() -> Vec<String> {
    let output = Command::new("ldd").arg(BINARY).output().expect("run ldd");
    let told = String::from_utf8(output.stdout).unwrap();
    let words = told.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(str::to_owned).collect()
}

#[test]
fn the_image_is_the_binary_alone_with_the_numeric_user_of_the_manifests() {
    let text = fs::read_to_string(manifests("Dockerfile")).unwrap();
    let (_, image) = text
        .split_once("\nFROM scratch\n")
        .expect("it begins empty");
    let steps: Vec<&str> = image
        .lines()
        .filter(|line| !line.starts_with(' '))
        .collect();
    let copies: Vec<&&str> = steps
        .iter()
        .filter(|line| line.starts_with("COPY "))
        .collect();
    assert_eq!(copies, [&"COPY --from=build /wx-sidecar /wx-sidecar"]);
    assert!(
        steps.contains(&format!("USER {USER}:{USER}").as_str()),
        "{image}"
    );
    assert!(steps.contains(&"ENTRYPOINT [\"/wx-sidecar\"]"), "{image}");
    // Without a PATH, `kubectl exec ... -- wx-sidecar` finds nothing.
    let environment = format!("\nENV PATH=/ \\\n    WX_SIDECAR_CONFIG={CONFIGURATION}\n");
    assert!(image.contains(&environment), "{image}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        image.contains(&format!("image.version=\"{version}\"")),
        "{image}"
    );
    let shop = rendered(SHOP);
    let context = &pods(of_kind(&shop, "Deployment")[0]).unwrap()["spec"]["initContainers"][0]["securityContext"];
    assert_eq!(context["runAsUser"].to_string(), USER);
}
