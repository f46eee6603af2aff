//! `wx-sidecar inject`: what it puts into manifests, what it leaves alone, and what it refuses.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::k8s::{VERSIONS, faults, manifests, objects, overlay};

const BINARY: &str = env!("CARGO_BIN_EXE_wx-sidecar");

/// What a run printed.
struct Injected {
    code: i32,
    text: String,
    notes: String,
}

fn inject(manifest: &str, arguments: &[&str]) -> Injected {
    let mut child = Command::new(BINARY)
        .arg("inject")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run the binary");
    let mut stdin = child.stdin.take().unwrap();
    // Whoever refuses its arguments reads nothing.
    let _unread = stdin.write_all(manifest.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Injected {
        code: output.status.code().unwrap(),
        text: String::from_utf8(output.stdout).unwrap(),
        notes: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The manifest with the sidecar in it.
fn injected(manifest: &str, arguments: &[&str]) -> String {
    let injected = inject(manifest, arguments);
    assert_eq!(injected.code, 0, "{}", injected.notes);
    injected.text
}

/// What is in manifests, as Kustomize's library reads them.
fn read(text: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest.yaml");
    fs::write(&path, text).unwrap();
    objects(&[path]).remove(0)
}

fn sample() -> String {
    fs::read_to_string(manifests("examples/app/deployment.yaml")).unwrap()
}

/// The sample as another kind of workload.
fn sample_as(kind: &str) -> String {
    let text = sample().replace("kind: Deployment", &format!("kind: {kind}"));
    match kind {
        "StatefulSet" => text.replace("  replicas: 2\n", "  serviceName: shop\n"),
        "DaemonSet" => text.replace("  replicas: 2\n", ""),
        "Job" => {
            let text = text
                .replace("apps/v1", "batch/v1")
                .replace("  replicas: 2\n", "");
            let (before, rest) = text.split_once("  selector:\n").unwrap();
            let (_, after) = rest.split_once("  template:\n").unwrap();
            let spec = "    spec:\n";
            format!("{before}  template:\n{after}")
                .replace(spec, &format!("{spec}      restartPolicy: Never\n"))
        }
        _ => text,
    }
}

/// Without what is the same in another order, or not there in another way.
fn normal(mut object: Value) -> Value {
    let spec = &mut object["spec"]["template"]["spec"];
    if spec["initContainers"] == json!([]) {
        spec.as_object_mut().unwrap().remove("initContainers");
    }
    for container in spec["containers"].as_array_mut().unwrap() {
        let env = container["env"].as_array_mut().unwrap();
        env.sort_by_key(|it| it["name"].to_string());
    }
    object
}

#[test]
fn the_sample_becomes_what_the_component_renders() {
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "Job"] {
        let manifest = sample_as(kind);
        let component = overlay("components: [COMPONENT]\n", &manifest, "component");
        let rendered = objects(&[component.path().to_owned()]).remove(0);
        let rendered = rendered.into_iter().find(|it| it["kind"] == kind).unwrap();
        let ours = read(&injected(&manifest, &[])).remove(0);
        assert_eq!(normal(ours.clone()), normal(rendered), "{kind}");
        assert_eq!(faults(&[ours], &VERSIONS), [""; 0], "{kind}");
    }
}

#[test]
fn the_sample_becomes_what_the_classic_component_renders() {
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        let manifest = sample_as(kind);
        let component = overlay("components: [COMPONENT]\n", &manifest, "classic");
        let rendered = objects(&[component.path().to_owned()]).remove(0);
        let rendered = rendered.into_iter().find(|it| it["kind"] == kind).unwrap();
        let ours = read(&injected(&manifest, &["--classic"])).remove(0);
        assert_eq!(normal(ours), normal(rendered), "{kind}");
    }
}

/// Without the order in which lists with names are, and the hash in the name of a ConfigMap.
fn unordered(mut object: Value) -> Value {
    let spec = &mut object["spec"]["template"]["spec"];
    let by_name = |list: &mut Value| {
        let list = list.as_array_mut().unwrap();
        list.sort_by_key(|it| it["name"].to_string());
    };
    by_name(&mut spec["volumes"]);
    by_name(&mut spec["initContainers"][0]["volumeMounts"]);
    by_name(&mut spec["initContainers"][0]["env"]);
    for volume in spec["volumes"].as_array_mut().unwrap() {
        let name = volume["configMap"]["name"].as_str().unwrap_or_default();
        if name.starts_with("wx-sidecar-hosts-") {
            volume["configMap"]["name"] = json!("wx-sidecar-hosts");
        }
    }
    normal(object)
}

#[test]
fn for_a_cloudrun_app_the_sample_becomes_what_both_components_render() {
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "Job"] {
        let manifest = sample_as(kind);
        let both = "components: [COMPONENT, COMPONENT/../cloudrun]\n";
        let rendered =
            objects(&[overlay(both, &manifest, "component").path().to_owned()]).remove(0);
        let of = |objects: &[Value], kind: &str| {
            let found = objects.iter().find(|it| it["kind"] == kind);
            found.unwrap_or_else(|| panic!("no {kind}")).clone()
        };
        let ours = read(&injected(&manifest, &["--cloudrun"]));
        assert_eq!(
            unordered(of(&ours, kind)),
            unordered(of(&rendered, kind)),
            "{kind}"
        );
        let hosts = of(&ours, "ConfigMap");
        assert_eq!(hosts["metadata"]["name"], "wx-sidecar-hosts");
        assert_eq!(hosts["data"], of(&rendered, "ConfigMap")["data"]);
        assert_eq!(faults(&ours, &VERSIONS), [""; 0], "{kind}");
    }
}

#[test]
fn a_cloudrun_app_keeps_what_else_its_pods_are_told() {
    let told = |more: &str| sample().replace("      automountServiceAccountToken: false\n", more);
    let pod = |manifest: &str| {
        read(&injected(manifest, &["--cloudrun"])).remove(0)["spec"]["template"]["spec"].take()
    };
    let kept = pod(&told(
        "      hostAliases:\n      - ip: 10.0.0.9\n        hostnames: [db]\n      securityContext:\n        fsGroup: 2000\n",
    ));
    assert_eq!(kept["hostAliases"].as_array().unwrap().len(), 2);
    assert_eq!(kept["hostAliases"][1]["hostnames"], json!(["db"]));
    assert_eq!(kept["securityContext"]["fsGroup"], 2000);
    let port = json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "80" }]);
    assert_eq!(kept["securityContext"]["sysctls"], port);
    let kept = pod(&told(
        "      securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}\n",
    ));
    assert_eq!(
        kept["securityContext"]["sysctls"].as_array().unwrap().len(),
        2
    );
    for (more, told_why) in [
        (
            "      hostAliases: [{ip: 127.0.0.1, hostnames: [db]}]\n",
            "one for `127.0.0.1` already",
        ),
        (
            "      securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '0'}]}\n",
            "one for `net.ipv4.ip_unprivileged_port_start` already",
        ),
    ] {
        let refused = inject(&told(more), &["--cloudrun"]);
        assert_eq!((refused.code, refused.text.as_str()), (1, ""));
        assert!(refused.notes.contains(told_why), "{}", refused.notes);
    }
    let at_80 = sample().replace(
        "        env:\n",
        "        ports: [{containerPort: 80}]\n        env:\n",
    );
    let refused = inject(&at_80, &["--cloudrun"]);
    assert!(
        refused
            .notes
            .contains("port 80, which the sidecar takes for the app's calls"),
        "{}",
        refused.notes
    );
}

/// The sample with its Service, as an app without Kustomize has them in one file.
fn sample_with_service() -> String {
    let service = fs::read_to_string(manifests("examples/app/service.yaml")).unwrap();
    format!("{}---\n{service}", sample())
}

/// What only Kustomize or only we say of an object.
fn same(mut object: Value) -> Value {
    fn forget(value: &mut Value) {
        if let Some(labels) = value["labels"].as_object_mut() {
            labels.remove("app.kubernetes.io/instance");
            labels.remove("app.kubernetes.io/managed-by");
        }
    }
    forget(&mut object["metadata"]);
    if object["kind"] == "Deployment" {
        forget(&mut object["spec"]["template"]["metadata"]);
        let spec = &mut object["spec"]["template"]["spec"];
        for volume in spec["volumes"].as_array_mut().unwrap() {
            if volume["name"] == "app" {
                volume["configMap"]["name"] = json!("shop");
            }
        }
        return unordered(object);
    }
    object
}

#[test]
fn an_app_without_kustomize_gets_all_that_the_example_with_it_has() {
    let config = manifests("examples/shop/sidecar.toml");
    let image = concat!(
        "registry.example.com/wx-sidecar:",
        env!("CARGO_PKG_VERSION")
    );
    let arguments = [
        "--network-policy",
        "--image",
        image,
        "--config",
        config.to_str().unwrap(),
    ];
    let text = injected(&sample_with_service(), &arguments);
    let ours = read(&text);
    let rendered = objects(&[manifests("examples/shop")]).remove(0);
    for kind in ["Deployment", "Service", "ConfigMap", "NetworkPolicy"] {
        let of = |objects: &[Value]| {
            let is_it = |it: &&Value| it["kind"] == kind && it["data"].get("app.py").is_none();
            same(objects.iter().find(is_it).unwrap().clone())
        };
        assert_eq!(of(&ours), of(&rendered), "{kind}");
    }
    assert_eq!(ours.len(), 4, "{text}");
    assert_eq!(faults(&ours, &VERSIONS), [""; 0]);
    for line in fs::read_to_string(&config).unwrap().lines() {
        assert!(
            text.contains(format!("    {line}").trim_end()),
            "{line} in {text}"
        );
    }
    let again = inject(&text, &arguments);
    assert_eq!(
        (again.code, again.text.as_str()),
        (0, text.as_str()),
        "{}",
        again.notes
    );
    for part in [
        "configmap/wx-sidecar: left as it is",
        "networkpolicy/wx-sidecar: left as it is",
    ] {
        assert!(again.notes.contains(part), "{}", again.notes);
    }
}

#[test]
fn what_is_added_is_in_each_namespace_that_has_a_sidecar_with_the_names_and_ports_that_you_say() {
    let config = manifests("base/sidecar.toml");
    let arguments = [
        "--network-policy",
        "--cloudrun",
        "--port",
        "8443",
        "--config-map",
        "mine",
        "--config",
        config.to_str().unwrap(),
    ];
    let of = |namespace: &str| {
        sample().replacen(
            "  name: shop\n",
            &format!("  name: shop\n  namespace: {namespace}\n"),
            1,
        )
    };
    let unwilling = of("c").replacen("  labels:\n", "  labels:\n    wx-sidecar: none\n", 1);
    let manifest = [of("a"), of("b"), of("a"), unwilling].join("---\n");
    let text = injected(&manifest, &arguments);
    let added: Vec<String> = read(&text)
        .iter()
        .skip(4)
        .map(|it| {
            let metadata = &it["metadata"];
            format!(
                "{} {} {}",
                metadata["namespace"], it["kind"], metadata["name"]
            )
            .replace('"', "")
        })
        .collect();
    let each = [
        "ConfigMap mine",
        "ConfigMap wx-sidecar-hosts",
        "NetworkPolicy wx-sidecar",
    ];
    let expected: Vec<String> = ["a", "b"]
        .iter()
        .flat_map(|it| each.map(|each| format!("{it} {each}")))
        .collect();
    assert_eq!(added, expected);
    assert_eq!(text.matches("port: 8443").count(), 2, "{text}");
    assert_eq!(injected(&text, &arguments), text);
    let windows = injected(&manifest.replace('\n', "\r\n"), &arguments);
    assert_eq!(windows.replace("\r\n", "\n"), text);
    let none = inject(&sample(), &["--config", "nowhere.toml"]);
    assert_eq!((none.code, none.text.as_str()), (1, ""));
    assert!(none.notes.contains("nowhere.toml: "), "{}", none.notes);
}

/// What comes of a configuration that is k8s/base/sidecar.toml with something else in a place.
fn with_configuration(was: &str, is: &str, manifest: &str, arguments: &[&str]) -> Injected {
    let base = fs::read_to_string(manifests("base/sidecar.toml")).unwrap();
    assert!(base.contains(was), "{was}");
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("mine.toml");
    fs::write(&file, base.replacen(was, is, 1)).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    inject(manifest, &[arguments, &config].concat())
}

const SECRET: &str = "secret_file = \"/var/run/secrets/wx/secret\"";
const ADMIN: &str = "listen = \"0.0.0.0:9901\"";
const INBOUND: &str = "listen = \"0.0.0.0:${WX_SIDECAR_PORT}\"";
const DELAY: &str = "drain_delay = \"5s\"";

#[test]
fn a_configuration_that_cannot_run_in_the_pod_is_refused_with_its_place() {
    for (was, is, told) in [
        (SECRET, "secret_file = ", "mine.toml:7"),
        (SECRET, "secret_fil = \"a\"", "did you mean `secret_file`?"),
        (DELAY, "drain_delay = 5", "takes a duration"),
        (DELAY, "auth = \"requierd\"", "did you mean \"required\"?"),
        ("appid = \"wx", "appid = \"gh", "an appid begins with `wx`"),
        (SECRET, "", "`[app] secret` is missing"),
        (
            SECRET,
            "secret = \"${SHOP_SECRET}\"",
            "the sidecar's container has no variable `SHOP_SECRET`",
        ),
        (
            SECRET,
            "secret = \"${SHOP_SECRET}\"",
            "write secret_file = \"/var/run/secrets/wx/secret\"",
        ),
        (
            SECRET,
            "secret_file = \"/home/me/secret\"",
            "the file `/home/me/secret` is not in the pod",
        ),
        (
            SECRET,
            "secret_file = \"secret\"",
            "the file `secret` would be beside the configuration",
        ),
        (ADMIN, "", "`[admin] listen` is on loopback"),
        (
            ADMIN,
            "listen = \"[::1]:9901\"",
            "`[admin] listen` is on loopback",
        ),
        (
            ADMIN,
            "listen = \"0.0.0.0:9902\"",
            "`[admin] listen` is at port 9902",
        ),
        (
            ADMIN,
            "listen = \"unix:/tmp/a\"",
            "`[admin] listen` is a Unix socket",
        ),
    ] {
        let refused = with_configuration(was, is, &sample(), &[]);
        assert_eq!((refused.code, refused.text.as_str()), (1, ""), "{is}");
        assert!(refused.notes.contains(told), "{told} in {}", refused.notes);
        assert!(
            refused.notes.contains("begin with k8s/base/sidecar.toml"),
            "{}",
            refused.notes
        );
    }
}

#[test]
fn of_what_is_no_toml_nothing_else_is_said() {
    let refused = with_configuration("[admin]", "admin: {", &sample(), &[]);
    assert_eq!((refused.code, refused.text.as_str()), (1, ""));
    assert!(
        refused.notes.contains("this is not TOML"),
        "{}",
        refused.notes
    );
    assert!(!refused.notes.contains("on loopback"), "{}", refused.notes);
}

#[test]
fn what_is_of_no_use_in_the_pod_is_warned_of() {
    let ca = "[wechat]\nca_file = \"/etc/ca.pem\"\n[app]";
    let push = "[push]\nmode = \"plaintext\"\ntoken_file = \"/var/run/secrets/wx/token\"\njournal = \"/var/lib/wx\"\n[app]";
    let cache = "[media]\ncache_dir = \"/var/cache/wx\"\n[app]";
    for (was, is, told) in [
        (
            INBOUND,
            "listen = \"127.0.0.1:8080\"",
            "`[inbound] listen` is on loopback",
        ),
        (
            INBOUND,
            "listen = \"0.0.0.0:9000\"",
            "`[inbound] listen` is at port 9000",
        ),
        (
            DELAY,
            "drain_delay = \"15s\"",
            "30 s together, and Kubernetes kills the sidecar after 30 s",
        ),
        ("[app]", ca, "the file `/etc/ca.pem` is not in the pod"),
        ("[app]", push, "this directory cannot be made"),
        ("[app]", cache, "this directory cannot be made"),
    ] {
        let done = with_configuration(was, is, &sample(), &[]);
        assert_eq!(done.code, 0, "{is}: {}", done.notes);
        assert_eq!(read(&done.text).len(), 2, "{is}");
        assert_eq!(done.notes.matches("warning: ").count(), 1, "{}", done.notes);
        assert!(done.notes.contains(told), "{told} in {}", done.notes);
        assert!(
            done.notes
                .contains("k8s/base/sidecar.toml shows how it is in a pod"),
            "{}",
            done.notes
        );
    }
}

#[test]
fn what_only_the_pod_has_is_not_judged() {
    let push = "[push]\ntoken_file = \"/var/run/secrets/wx/token\"\naes_key_file = \"/var/run/secrets/wx/aes\"\njournal = \"/tmp/j\"\n\
                [inbound.tls]\ncert_file = \"/var/run/secrets/wx/tls.crt\"\nkey_file = \"/var/run/secrets/wx/tls.key\"\n[app]";
    for arguments in [
        &[][..],
        &["--classic"],
        &["--cloudrun"],
        &["--port", "9000"],
    ] {
        for (was, is) in [("[app]", "[app]"), ("[app]", push)] {
            let done = with_configuration(was, is, &sample(), arguments);
            assert_eq!(done.code, 0, "{}", done.notes);
            let quiet =
                !done.notes.contains("warning") && !done.notes.contains("base/sidecar.toml");
            assert!(quiet, "{}", done.notes);
        }
    }
}

#[test]
fn a_configuration_is_judged_by_the_sidecars_that_read_it() {
    let once = injected(&sample(), &[]);
    let secret = "secret = \"${SHOP_SECRET}\"";
    let env = "        - name: WX_SIDECAR_PORT\n";
    assert!(once.contains(env), "{once}");
    let of_secret =
        "        - name: SHOP_SECRET\n          valueFrom: {secretKeyRef: {name: a, key: b}}\n";
    let known = once.replacen(env, &format!("{of_secret}{env}"), 1);
    assert_eq!(with_configuration(SECRET, secret, &once, &[]).code, 1);
    assert_eq!(with_configuration(SECRET, secret, &known, &[]).code, 0);
    // One that has its configuration from elsewhere reads no ConfigMap.
    let elsewhere = once.replacen("- /etc/wx-sidecar/sidecar.toml", "- zookeeper://zk/wx", 1);
    assert_ne!(elsewhere, once);
    assert_eq!(with_configuration(SECRET, secret, &elsewhere, &[]).code, 0);
    let slow = "drain_delay = \"40s\"";
    let patient = sample().replacen(
        "      automountServiceAccountToken: false\n",
        "      terminationGracePeriodSeconds: 60\n",
        1,
    );
    for (manifest, arguments, is_told) in [
        (&patient, &[][..], false),
        (&patient, &["--classic"], true),
        (&sample(), &[], true),
    ] {
        let done = with_configuration(DELAY, slow, manifest, arguments);
        let told = done.notes.contains("Kubernetes kills the sidecar after");
        assert_eq!((done.code, told), (0, is_told), "{}", done.notes);
    }
}

#[test]
fn the_network_policy_opens_the_ports_of_all_sidecars_of_its_namespace() {
    let of = |name: &str, namespace: &str| {
        let metadata = format!("  name: {name}\n  namespace: {namespace}\n");
        sample().replacen("  name: shop\n", &metadata, 1)
    };
    let at_9000 = injected(&of("first", "a"), &["--port", "9000"]);
    let elsewhere = injected(&of("third", "b"), &["--port", "9001"]);
    let manifest = [at_9000, of("second", "a"), elsewhere].join("---\n");
    let objects = read(&injected(&manifest, &["--network-policy"]));
    let policies: Vec<&Value> = objects
        .iter()
        .filter(|it| it["kind"] == "NetworkPolicy")
        .collect();
    let ports: Vec<Value> = policies
        .iter()
        .map(|it| it["spec"]["ingress"][0]["ports"].clone())
        .collect();
    let tcp = |port: u16| json!({ "protocol": "TCP", "port": port });
    assert_eq!(ports, [json!([tcp(8080), tcp(9000)]), json!([tcp(9001)])]);
    for policy in policies {
        let admin = &policy["spec"]["ingress"][1]["ports"];
        assert_eq!(*admin, json!([tcp(9901)]));
    }
}

#[test]
fn a_service_that_led_to_the_app_leads_to_the_sidecar() {
    let service = |ports: &str| {
        format!(
            "{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: shop}}\nspec:\n  selector: {{app.kubernetes.io/name: shop}}\n  ports:\n{ports}",
            named_port()
        )
    };
    for (before, after) in [
        (
            "  - port: 80\n    targetPort: 3000 # the app\n",
            "  - port: 80\n    targetPort: 8080 # the app\n",
        ),
        (
            "  - {port: 80, targetPort: '3000'}\n",
            "  - {port: 80, targetPort: 8080}\n",
        ),
        (
            "  - {targetPort: \"web\", port: 80}\n",
            "  - {targetPort: 8080, port: 80}\n",
        ),
        (
            "  - port: 80\n    targetPort: web\n",
            "  - port: 80\n    targetPort: 8080\n",
        ),
        (
            "  # why\n  - port: 3000\n",
            "  # why\n  - targetPort: 8080\n    port: 3000\n",
        ),
        // What does not lead to the app.
        (
            "  - {port: 9100, targetPort: 9100}\n",
            "  - {port: 9100, targetPort: 9100}\n",
        ),
        (
            "  - {port: 3000, protocol: UDP}\n",
            "  - {port: 3000, protocol: UDP}\n",
        ),
        (
            "  - {port: 80, targetPort: 8080}\n",
            "  - {port: 80, targetPort: 8080}\n",
        ),
    ] {
        let done = inject(&service(before), &[]);
        assert!(
            done.text.ends_with(after),
            "{before}: {}\n{}",
            done.text,
            done.notes
        );
        assert_eq!(
            done.notes.contains("service/shop: leads to port 8080 now"),
            before != after,
            "{}",
            done.notes
        );
        assert_eq!(injected(&done.text, &[]), done.text);
        let kept = inject(&service(before), &["--keep-services"]);
        assert!(kept.text.ends_with(before), "{}", kept.text);
        assert!(
            kept.notes.contains("Let Services lead to port 8080"),
            "{}",
            kept.notes
        );
    }
}

/// The sample with a port that has a name.
fn named_port() -> String {
    let ports = "        ports: [{containerPort: 3000, name: web}]\n        env:\n";
    sample().replace("        env:\n", ports)
}

#[test]
fn a_service_that_may_be_for_others_too_is_left_alone() {
    let whole = sample_with_service();
    let (_, service) = whole.split_once("---\n").unwrap();
    let unwilling = sample()
        .replacen("  name: shop\n", "  name: other\n", 1)
        .replacen("  labels:\n", "  labels:\n    wx-sidecar: none\n", 1);
    let other_namespace = sample().replacen("  name: shop\n", "  name: shop\n  namespace: a\n", 1);
    let aliased = service.replace("  ports:\n", "  ports: &ports\n") + "x: *ports\n";
    for (manifest, is_told) in [
        // One of the pods that it selects has no sidecar.
        (format!("{whole}---\n{unwilling}"), true),
        // What an alias repeats would change, too.
        (format!("{}---\n{}", sample(), aliased), true),
        // Its pods are others.
        (format!("{other_namespace}---\n{service}"), false),
        (
            format!(
                "{}---\n{}",
                sample(),
                service.replace(
                    "    app.kubernetes.io/name: shop\n  ports",
                    "    app: shop\n  ports"
                )
            ),
            false,
        ),
        (
            format!(
                "{}---\n{}",
                sample(),
                service.replace("  selector:\n    app.kubernetes.io/name: shop\n", "")
            ),
            false,
        ),
    ] {
        let done = inject(&manifest, &[]);
        assert_eq!(done.code, 0, "{}", done.notes);
        assert!(done.text.contains("targetPort: 3000"), "{}", done.text);
        assert_eq!(
            done.notes.contains("service/shop: line "),
            is_told,
            "{}",
            done.notes
        );
        assert!(
            done.notes.contains("Let Services lead to port 8080"),
            "{}",
            done.notes
        );
    }
}

#[test]
fn a_headless_service_is_left_alone_and_its_callers_are_told_the_port() {
    let headless = sample_with_service().replacen(
        "  selector:\n    app.kubernetes.io/name: shop\n  ports",
        "  clusterIP: None\n  selector:\n    app.kubernetes.io/name: shop\n  ports",
        1,
    );
    assert!(headless.contains("clusterIP"), "{headless}");
    let done = inject(&headless, &["--port", "9000"]);
    assert!(done.text.contains("targetPort: 3000"), "{}", done.text);
    for told in [
        "service/shop: line ",
        "left as it is: with `clusterIP: None`",
        "have them use port 9000, the sidecar's",
        "Let Services lead to port 9000",
    ] {
        assert!(done.notes.contains(told), "{told} in {}", done.notes);
    }
}

#[test]
fn a_service_in_another_file_is_found() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let service = fs::read_to_string(manifests("examples/app/service.yaml")).unwrap();
    let text = injected("", &[&file("a.yaml", &service), &file("b.yaml", &sample())]);
    assert!(text.contains("targetPort: 8080\n---\n"), "{text}");
    assert!(!text.contains("targetPort: 3000"), "{text}");
}

#[test]
fn pods_wherever_they_are_described_get_the_same() {
    let deployment = read(&injected(&sample(), &[])).remove(0);
    let template = |text: &str, indent: usize| {
        let (_, template) = text.split_once("  template:\n").unwrap();
        let shift = |line: &str| format!("{}{}\n", " ".repeat(indent), &line[4..]);
        template.lines().map(shift).collect::<String>()
    };
    let cron = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: nightly\nspec:\n  schedule: '0 0 * * *'\n  jobTemplate:\n    spec:\n      template:\n{}",
        template(&sample(), 8)
    );
    let cron = read(&injected(&cron, &[])).remove(0);
    assert_eq!(
        cron["spec"]["jobTemplate"]["spec"]["template"],
        deployment["spec"]["template"]
    );
    let pod = template(&sample(), 0).replacen("metadata:\n", "metadata:\n  name: shop\n", 1);
    let pod = read(&injected(&format!("apiVersion: v1\nkind: Pod\n{pod}"), &[])).remove(0);
    assert_eq!(pod["spec"], deployment["spec"]["template"]["spec"]);
    assert_eq!(
        pod["metadata"]["labels"],
        deployment["spec"]["template"]["metadata"]["labels"]
    );
}

/// As people write them: with all that a printer of YAML would not give back.
const ODD: &str = r#"# The shop.   Two spaces, and a tab:	.

%YAML 1.2
---
apiVersion: v1
kind: Service   # not a workload
metadata: {name: "shop", labels: {app: &app shop}}
spec: {ports: [{port: 80}]}
---
# A workload.
kind: Deployment
apiVersion: apps/v1
metadata:
    name: shop # é 店
spec:
    template:
        spec:
            # what it waits for

            # The app
            # itself.
            containers:
                # first
                - image: >-
                    example.com/shop:1
                  # its name
                  "name": shop
                  args:
                  - |+
                    # no comment

                    keep


                -
                    name: 'log'
                    image: example.com/log
                    env: [ {name: "A", value: '1'} ]
                - name: third
                  image: x
                  env:
                    # why
                    - name: B
                      value: "2"
            volumes:
            - {name: data, emptyDir: {}}
...
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: once, image: x, env: [], ports: [{containerPort: 99}]}]}}}
"#;

#[test]
fn all_that_was_there_stays_as_it_was() {
    let manifest = ODD.replacen("%YAML 1.2\n", "", 1);
    let text = injected(&manifest, &[]);
    // Whoever deletes what is new has what was there: characters of the old text are found in order.
    let mut rest = text.chars();
    for character in manifest.chars() {
        assert!(rest.any(|it| it == character), "{text}");
    }
    let mut lines = text.lines();
    for line in manifest.lines().filter(|line| {
        !line.contains("env: [") && !line.contains("- image") && !line.contains("spec: {template")
    }) {
        assert!(lines.any(|it| it == line), "{line:?} in {text}");
    }
    let (before, after) = (read(&manifest), read(&text));
    assert_eq!(before.len(), after.len());
    for (mut after, before) in after.into_iter().zip(before) {
        let Some(spec) = after.pointer_mut("/spec/template/spec") else {
            assert_eq!(after, before);
            continue;
        };
        assert_eq!(spec["initContainers"][0]["name"], "wx-sidecar");
        take_out(spec);
        let mut before = before;
        take_out(&mut before["spec"]["template"]["spec"]);
        assert_eq!(
            after["spec"]["template"]["spec"],
            before["spec"]["template"]["spec"]
        );
    }
}

/// Removes what is ours from a pod's spec, and what is empty then.
fn take_out(spec: &mut Value) {
    let ours = |it: &Value| {
        let name = it["name"].as_str().unwrap_or_default();
        name.starts_with("wx-sidecar") || name == "WX_OUTBOUND_URL"
    };
    let clean = |object: &mut Value, key: &str| {
        if let Some(list) = object[key].as_array_mut() {
            list.retain(|it| !ours(it));
        }
        if object[key].as_array().is_none_or(Vec::is_empty) {
            object.as_object_mut().unwrap().remove(key);
        }
    };
    clean(spec, "initContainers");
    clean(spec, "volumes");
    for container in spec["containers"].as_array_mut().unwrap() {
        clean(container, "env");
    }
}

#[test]
fn a_comment_stays_with_what_it_is_about() {
    let text = injected(&ODD.replacen("%YAML 1.2\n", "", 1), &[]);
    for pair in [
        "            # The app\n            # itself.\n            containers:\n",
        "                    # why\n                    - name: B\n",
        "                # first\n                - image: >-\n",
    ] {
        assert!(text.contains(pair), "{pair}\nin {text}");
    }
}

#[test]
fn twice_is_the_same_as_once() {
    for manifest in [sample(), ODD.replacen("%YAML 1.2\n", "", 1), json_list()] {
        for arguments in [&[][..], &["--app-port", "3001", "--image", "other:2"]] {
            let once = injected(&manifest, arguments);
            let twice = inject(&once, arguments);
            assert_eq!(twice.text, once);
            assert!(
                twice.notes.contains("has the sidecar already"),
                "{}",
                twice.notes
            );
        }
    }
    let once = injected(&sample(), &["--classic"]);
    assert_eq!(injected(&once, &["--classic"]), once);
}

fn json_list() -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "labels": {} },
        "spec": { "containers": [{ "name": "a", "image": "x\ty\u{e9}" }], "volumes": [] },
    });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [pod, { "apiVersion": "v1", "kind": "Secret" }, pod] });
    serde_json::to_string_pretty(&list).unwrap()
}

#[test]
fn json_stays_json_and_each_item_of_a_list_is_looked_at() {
    let text = injected(&json_list(), &[]);
    let list: Value = serde_json::from_str(&text).expect("it is JSON");
    for place in [0, 2] {
        let pod = &list["items"][place];
        assert_eq!(pod["metadata"]["labels"]["wx-sidecar"], "enabled");
        assert_eq!(
            pod["spec"]["initContainers"][0]["securityContext"]["runAsUser"],
            65532
        );
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 3);
        assert_eq!(faults(std::slice::from_ref(pod), &VERSIONS), [""; 0]);
    }
}

#[test]
fn line_ends_of_windows_stay() {
    let text = injected(&sample().replace('\n', "\r\n"), &[]);
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    assert_eq!(text.replace("\r\n", "\n"), injected(&sample(), &[]));
}

#[test]
fn the_arguments_say_what_is_yours() {
    let arguments = [
        "--app-port",
        "5000",
        "--port",
        "8443",
        "--config-map",
        "shop-wx",
        "--secret",
        "shop-secret",
        "--image",
        "registry.example.com:5000/wx-sidecar@sha256:0123",
    ];
    let pod = read(&injected(&sample(), &arguments)).remove(0)["spec"]["template"]["spec"].take();
    let sidecar = &pod["initContainers"][0];
    assert_eq!(sidecar["image"], arguments[9]);
    let value = |name: &str| {
        let env = sidecar["env"].as_array().unwrap();
        env.iter().find(|it| it["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(value("WX_APP_PORT"), "5000");
    assert_eq!(value("WX_SIDECAR_PORT"), "8443");
    assert_eq!(
        sidecar["ports"][0],
        json!({ "name": "http-wx", "containerPort": 8443 })
    );
    let volumes = &pod["volumes"];
    assert_eq!(volumes[0]["configMap"]["name"], "shop-wx");
    assert_eq!(volumes[1]["secret"]["secretName"], "shop-secret");
}

#[test]
fn the_apps_port_is_the_one_that_its_container_names() {
    let with_ports = |ports: &str| {
        sample().replace(
            "        env:\n",
            &format!("        ports: {ports}\n        env:\n"),
        )
    };
    let port = |manifest: &str| {
        let pod = read(&injected(manifest, &[])).remove(0);
        pod["spec"]["template"]["spec"]["initContainers"][0]["env"][1]["value"].clone()
    };
    assert_eq!(port(&sample()), "3000");
    assert_eq!(port(&with_ports("[{containerPort: 4000}]")), "4000");
    assert_eq!(
        port(&with_ports(
            "[{containerPort: 53, protocol: UDP}, {containerPort: 4000}]"
        )),
        "4000"
    );
    assert_eq!(
        port(&with_ports(
            "[{containerPort: 9100, name: metrics}, {containerPort: 4000, name: http}]"
        )),
        "4000"
    );
    let several = inject(
        &with_ports("[{containerPort: 4000}, {containerPort: 4001}]"),
        &[],
    );
    assert_eq!((several.code, several.text.as_str()), (1, ""));
    assert!(several.notes.contains("--app-port"), "{}", several.notes);
}

#[test]
fn what_cannot_have_a_sidecar_is_told_with_its_line_and_nothing_is_printed() {
    let spec = |more: &str| sample().replace("      automountServiceAccountToken: false\n", more);
    let ports = |ports: &str| {
        sample().replace(
            "        env:\n",
            &format!("        ports: {ports}\n        env:\n"),
        )
    };
    let volume = |name: &str| {
        sample().replace(
            "      volumes:\n",
            &format!("      volumes:\n      - name: {name}\n"),
        )
    };
    let cases: &[(String, &[&str], &str)] = &[
        (
            spec("      hostNetwork: true\n"),
            &[],
            "line 17: with `hostNetwork`",
        ),
        (spec("      os: {name: windows}\n"), &[], "runs on Linux"),
        (
            ports("[{containerPort: 8080}]"),
            &[],
            "container `shop` listens on port 8080, which the sidecar takes for requests; have the sidecar listen elsewhere with --port",
        ),
        (ports("[{containerPort: 9901}]"), &[], "its admin side"),
        (ports("[{containerPort: 8081}]"), &[], "the app's calls"),
        (
            ports("[{containerPort: 1, name: admin}]"),
            &[],
            "a port called `admin`",
        ),
        (sample(), &["--app-port", "8080"], "port 8080"),
        (
            volume("wx-sidecar-config"),
            &[],
            "there is a volume `wx-sidecar-config` already",
        ),
        (
            sample().replace(
                "      - name: shop\n        image",
                "      - name: wx-sidecar\n        image",
            ),
            &["--classic"],
            "is something else",
        ),
        (
            sample().replace(
                "app.kubernetes.io/name: shop\n    spec",
                "wx-sidecar: mine\n    spec",
            ),
            &[],
            "with another value",
        ),
        (sample_as("Job"), &["--classic"], "a Job is never complete"),
        (
            injected(&sample(), &[]),
            &["--classic"],
            "in the other form (in `initContainers`)",
        ),
        (
            injected(&sample(), &["--classic"]),
            &[],
            "in the other form (in `containers`)",
        ),
        (
            small("spec: {containers: []}"),
            &[],
            "there are no `containers`",
        ),
        (
            small("spec: {restartPolicy: Always}"),
            &[],
            "there are no `containers`",
        ),
        (small("data: {}"), &[], "no `spec`"),
        (small("spec: []"), &[], "`spec` is no mapping"),
        (
            small("spec: {volumes: , containers: [{name: a}]}"),
            &[],
            "`volumes` has no value",
        ),
        (
            small("x: &x {containers: [{name: a}]}\nspec: *x"),
            &[],
            "`spec` is an alias",
        ),
        (
            small("spec: &x {containers: [{name: a}]}\ny: *x"),
            &[],
            "`spec` is used elsewhere by an alias",
        ),
        (
            small("x: &x {a: 1}\nspec: {<<: *x, containers: [{name: a}]}"),
            &[],
            "merge key",
        ),
        ("a: b\n  c: {{ .Values.x }}\n".to_owned(), &[], "no YAML"),
        ("[".repeat(150), &[], "too deep"),
    ];
    for (manifest, arguments, told) in cases {
        let refused = inject(manifest, arguments);
        assert_eq!(
            (refused.code, refused.text.as_str()),
            (1, ""),
            "{told}: {}",
            refused.notes
        );
        assert!(refused.notes.contains(told), "{told} in {}", refused.notes);
        assert!(refused.notes.contains("line "), "{}", refused.notes);
    }
}

fn small(rest: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\n{rest}\n")
}

#[test]
fn several_files_are_one_stream_and_all_of_them_or_none() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, other) = (
        file("a.yaml", sample().trim_end()),
        file("b.yaml", "---\n".to_owned().as_str()),
    );
    let (job, bad) = (
        file("c.yaml", &sample_as("Job")),
        file("d.yaml", &small("data: {}")),
    );
    let both = inject("", &[&good, &other, &job]);
    assert_eq!(both.code, 0, "{}", both.notes);
    let kinds: Vec<Value> = read(&both.text)
        .iter()
        .map(|it| it["kind"].clone())
        .collect();
    assert_eq!(kinds, ["Deployment", "Job"]);
    let none = inject("", &[&good, &bad, "nowhere.yaml"]);
    assert_eq!((none.code, none.text.as_str()), (1, ""));
    assert!(
        none.notes.contains("d.yaml: pod/a: ") && none.notes.contains("nowhere.yaml: "),
        "{}",
        none.notes
    );
}

#[test]
fn what_has_no_pods_or_wants_no_sidecar_goes_through() {
    let service = fs::read_to_string(manifests("examples/app/service.yaml")).unwrap();
    let through = inject(&service, &[]);
    assert_eq!((through.code, through.text.as_str()), (0, service.as_str()));
    assert!(
        through.notes.contains("nothing here has pods"),
        "{}",
        through.notes
    );
    let unwilling = sample().replacen("  labels:\n", "  labels:\n    wx-sidecar: none\n", 1);
    let through = inject(&unwilling, &[]);
    assert_eq!((through.code, through.text), (0, unwilling));
    assert!(
        through.notes.contains("`wx-sidecar: none`"),
        "{}",
        through.notes
    );
}

#[test]
fn the_apps_own_variable_is_kept_and_said_to_be() {
    let own = sample().replace(
        "        env:\n",
        "        env:\n        - name: WX_OUTBOUND_URL\n          value: mine\n",
    );
    let kept = inject(&own, &[]);
    assert_eq!(kept.text.matches("WX_OUTBOUND_URL").count(), 1);
    assert!(
        kept.notes.contains("keeps its own WX_OUTBOUND_URL"),
        "{}",
        kept.notes
    );
}

#[test]
fn it_says_what_it_did_and_what_is_still_to_do() {
    let said = inject(&sample(), &["--config-map", "mine"]).notes;
    for part in [
        "deployment/shop: wx-sidecar added as a native sidecar, in front of port 3000",
        "ConfigMap `mine`",
        "Secret `wx-sidecar`",
        "port 8080",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("preStop"), "{said}");
    let hasty = sample().replace("          preStop:\n", "          postStart:\n");
    assert!(inject(&hasty, &[]).notes.contains("no `preStop`"));
}
