//! A workload in a manifest: where its pods are described, what speaks against a sidecar in them, and where it goes.

use std::collections::HashSet;

use super::sidecar::{OUTBOUND_URL, Sidecar};
use super::yaml::{Content, Document, Insertion, Node};
use super::{InjectArgs, NAME};

/// The port of an app that does not say which it has, as in the component.
const APP_PORT: u16 = 3000;

/// What is to become of a workload.
#[derive(Debug)]
pub(super) struct Change {
    /// Such as `deployment/shop`.
    pub(super) name: String,
    pub(super) insertions: Vec<Insertion>,
    /// What was done or not done, for people.
    pub(super) notes: Vec<String>,
    pub(super) pods: Pods,
}

/// Pods as others see them: a Service, and what is in their namespace for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pods {
    pub(super) namespace: Option<String>,
    pub(super) labels: Vec<(String, String)>,
    /// Of those that have the sidecar.
    pub(super) ports: Option<Ports>,
    /// The sidecar's, of those that have it.
    pub(super) container: Option<Node>,
    /// How many seconds they have to end, if they say so.
    pub(super) grace: Option<u64>,
}

/// Where pods with a sidecar listen.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub(super) app: u16,
    /// What the app's containers call it.
    pub(super) app_names: Vec<String>,
    pub(super) sidecar: u16,
}

/// The objects of a document; a `List` has several.
pub(super) fn objects(document: &Document) -> &[Node] {
    let root = &document.root;
    match root.text_at(&["kind"]) {
        Some(kind) if kind.ends_with("List") => root.get("items").map_or(&[][..], Node::items),
        _ => std::slice::from_ref(root),
    }
}

/// The workloads of a document, with where their pods are described.
pub(super) fn workloads<'a>(document: &'a Document, source: &'a str) -> Vec<Workload<'a>> {
    let objects = objects(document).iter();
    objects
        .filter_map(|root| Workload::of(root, document, source))
        .collect()
}

/// A Deployment or the like.
pub(super) struct Workload<'a> {
    source: &'a str,
    aliased: &'a HashSet<usize>,
    root: &'a Node,
    kind: &'a str,
    /// The keys that lead to what has the pods' metadata and spec.
    path: &'static [&'static str],
}

impl<'a> Workload<'a> {
    fn of(root: &'a Node, document: &'a Document, source: &'a str) -> Option<Self> {
        let kind = root.text_at(&["kind"])?;
        let path: &[&str] = match (root.text_at(&["apiVersion"])?, kind) {
            ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet") => &["spec", "template"],
            ("batch/v1", "Job") => &["spec", "template"],
            ("batch/v1", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
            ("v1", "Pod") => &[],
            _ => return None,
        };
        Some(Self {
            source,
            aliased: &document.aliased,
            root,
            kind,
            path,
        })
    }

    /// Such as `deployment/shop`.
    pub(super) fn name(&self) -> String {
        let metadata = |key| self.root.text_at(&["metadata", key]);
        let name = metadata("name").or_else(|| metadata("generateName"));
        let kind = self.kind.to_ascii_lowercase();
        format!("{kind}/{}", name.unwrap_or("?"))
    }

    /// What has to be put in where, or why that cannot be.
    pub(super) fn change(&self, args: &InjectArgs) -> Result<Change, String> {
        let mut change = Change {
            name: self.name(),
            insertions: Vec::new(),
            notes: Vec::new(),
            pods: self.pods(),
        };
        if self.root.text_at(&["metadata", "labels", NAME]) == Some("none") {
            let note = "left as it is: it has the label `wx-sidecar: none`";
            change.notes.push(note.to_owned());
            return Ok(change);
        }
        let template = self.template()?;
        let spec = self.mapping_in(template, "spec")?;
        let grace = spec.text_at(&["terminationGracePeriodSeconds"]);
        change.pods.grace = grace.and_then(|it| it.parse().ok());
        if let Some(sidecar) = self.sidecar_in(spec, args.classic)? {
            change.pods.ports = ports_of(sidecar, spec);
            change.pods.container = Some(sidecar.clone());
            let note =
                "left as it is: it has the sidecar already (delete that to have it put in anew)";
            change.notes.push(note.to_owned());
            return Ok(change);
        }
        let containers = self.containers(spec)?;
        self.judge(spec, args)?;
        let (port, doubt) = app_port(containers, args)?;
        let sidecar = Sidecar::new(args, port);
        refuse_clashes(spec, containers, &sidecar, port)?;
        change.pods.ports = Some(Ports {
            app: port,
            app_names: names_of(port, containers),
            sidecar: args.port,
        });
        change.pods.container = Some(sidecar.container.clone());

        self.label(template, &sidecar, &mut change)?;
        self.place(spec, &sidecar, args.classic, &mut change)?;
        self.alias(spec, &sidecar, &mut change)?;
        for container in containers {
            self.tell_where_outbound_is(container, &sidecar, &mut change)?;
        }
        let what = match args.classic {
            true => "a container",
            false => "a native sidecar",
        };
        let note = format!("{NAME} added as {what}, in front of port {port}{doubt}");
        change.notes.insert(0, note);
        if !matches!(self.kind, "Job" | "CronJob") {
            change.notes.extend(late_requests(containers));
        }
        if spec.text_at(&["shareProcessNamespace"]) == Some("true") {
            let note =
                "`shareProcessNamespace` lets the app's containers see the sidecar's process";
            change.notes.push(note.to_owned());
        }
        Ok(change)
    }

    fn template(&self) -> Result<&'a Node, String> {
        let mut node = self.own(self.root, "the document")?;
        for key in self.path {
            node = self.mapping_in(node, key)?;
        }
        Ok(node)
    }

    /// A mapping under a key; only what this place alone has can be changed here.
    fn mapping_in(&self, parent: &'a Node, key: &str) -> Result<&'a Node, String> {
        let found = parent.get(key);
        let node = found.ok_or_else(|| format!("line {}: no `{key}`", parent.line))?;
        self.own(node, &format!("`{key}`"))?;
        match node.content {
            Content::Mapping { .. } => Ok(node),
            _ => Err(format!("line {}: `{key}` is no mapping", node.line)),
        }
    }

    fn own(&self, node: &'a Node, what: &str) -> Result<&'a Node, String> {
        let line = node.line;
        if matches!(node.content, Content::Alias) {
            return Err(format!(
                "line {line}: {what} is an alias; write out what it stands for"
            ));
        }
        if node.is_used_by(self.aliased) {
            return Err(format!(
                "line {line}: {what} is used elsewhere by an alias, which would change too; write it out there"
            ));
        }
        if node.get("<<").is_some() {
            return Err(format!(
                "line {line}: {what} has a merge key (`<<`), and what that brings is not looked at; write it out"
            ));
        }
        Ok(node)
    }

    fn sidecar_in<'s>(&self, spec: &'s Node, classic: bool) -> Result<Option<&'s Node>, String> {
        for (list, is_wanted) in [("initContainers", !classic), ("containers", classic)] {
            let mut items = spec.get(list).map_or(&[][..], Node::items).iter();
            let named = |item: &&Node| item.text_at(&["name"]) == Some(NAME);
            let Some(container) = items.find(named) else {
                continue;
            };
            let line = container.line;
            let ports = container.get("ports").map_or(&[][..], Node::items);
            if !ports
                .iter()
                .any(|port| port.text_at(&["name"]) == Some("http-wx"))
            {
                return Err(format!(
                    "line {line}: there is a container `{NAME}` that is something else (no port `http-wx`); give it another name"
                ));
            }
            if !is_wanted {
                return Err(format!(
                    "line {line}: the sidecar is there already, in the other form (in `{list}`); delete it there"
                ));
            }
            return Ok(Some(container));
        }
        Ok(None)
    }

    fn pods(&self) -> Pods {
        let labels = [self.path, &["metadata", "labels"]].concat();
        let labels = self.root.at(&labels).map_or(&[][..], Node::entries);
        let text = |node: &Node| node.text().map(str::to_owned);
        let namespace = self.root.text_at(&["metadata", "namespace"]);
        Pods {
            namespace: namespace.map(str::to_owned),
            labels: labels
                .iter()
                .filter_map(|(key, value)| Some((text(key)?, text(value)?)))
                .collect(),
            ports: None,
            container: None,
            grace: None,
        }
    }

    fn containers(&self, spec: &'a Node) -> Result<&'a [Node], String> {
        let containers = spec.get("containers");
        if let Some(containers) = containers {
            self.own(containers, "`containers`")?;
        }
        match containers.map(Node::items) {
            Some(items) if !items.is_empty() => Ok(items),
            _ => Err(format!(
                "line {}: there are no `containers`, so no app to put a sidecar beside",
                spec.line
            )),
        }
    }

    /// Refuses pods in which the sidecar would be no safe neighbour, or none at all.
    fn judge(&self, spec: &Node, args: &InjectArgs) -> Result<(), String> {
        let line = |key| spec.get(key).map_or(spec.line, |node: &Node| node.line);
        if spec.text_at(&["hostNetwork"]) == Some("true") {
            return Err(format!(
                "line {}: with `hostNetwork` the sidecar's ports would be the node's, and whoever is on the node could call WeChat in your name",
                line("hostNetwork")
            ));
        }
        if spec.text_at(&["os", "name"]) == Some("windows") {
            return Err(format!("line {}: the sidecar runs on Linux", line("os")));
        }
        if args.classic && matches!(self.kind, "Job" | "CronJob") {
            return Err(format!(
                "line {}: with a classic sidecar, which does not end, a Job is never complete",
                self.root.line
            ));
        }
        Ok(())
    }

    fn label(
        &self,
        template: &'a Node,
        sidecar: &Sidecar,
        change: &mut Change,
    ) -> Result<(), String> {
        let label = Node::string(&sidecar.label);
        let labels = || Node::mapping(vec![(NAME, Node::string(&sidecar.label))]);
        if template.get("metadata").is_none() {
            let before = place_of(template, "spec");
            let metadata = Node::mapping(vec![("labels", labels())]);
            return self.entry(template, before, "metadata", &metadata, change);
        }
        let metadata = self.mapping_in(template, "metadata")?;
        if metadata.get("labels").is_none() {
            return self.entry(metadata, 0, "labels", &labels(), change);
        }
        let labels = self.mapping_in(metadata, "labels")?;
        match labels.get(NAME) {
            None => self.entry(labels, 0, NAME, &label, change),
            Some(there) if there.text() == Some(&sidecar.label) => Ok(()),
            Some(there) => Err(format!(
                "line {}: the pods have the label `{NAME}` with another value",
                there.line
            )),
        }
    }

    /// The sidecar comes first, so that it starts first.
    fn place(
        &self,
        spec: &'a Node,
        sidecar: &Sidecar,
        classic: bool,
        change: &mut Change,
    ) -> Result<(), String> {
        let list = if classic {
            "containers"
        } else {
            "initContainers"
        };
        let container = std::slice::from_ref(&sidecar.container);
        self.items(spec, list, container, change)?;
        self.items(spec, "volumes", &sidecar.volumes, change)
    }

    /// Has the app take the sidecar for WeChat, if it is to.
    fn alias(&self, spec: &'a Node, sidecar: &Sidecar, change: &mut Change) -> Result<(), String> {
        if !sidecar.host_aliases.is_empty() {
            refuse_a_second(spec.get("hostAliases"), "ip", &sidecar.host_aliases)?;
            self.items(spec, "hostAliases", &sidecar.host_aliases, change)?;
        }
        if sidecar.sysctls.is_empty() {
            return Ok(());
        }
        if spec.get("securityContext").is_none() {
            let sysctls = Node::sequence(sidecar.sysctls.clone());
            let context = Node::mapping(vec![("sysctls", sysctls)]);
            let before = place_of(spec, "containers");
            return self.entry(spec, before, "securityContext", &context, change);
        }
        let context = self.mapping_in(spec, "securityContext")?;
        refuse_a_second(context.get("sysctls"), "name", &sidecar.sysctls)?;
        self.items(context, "sysctls", &sidecar.sysctls, change)
    }

    fn tell_where_outbound_is(
        &self,
        container: &'a Node,
        sidecar: &Sidecar,
        change: &mut Change,
    ) -> Result<(), String> {
        self.own(container, "the container")?;
        let name = container.text_at(&["name"]).unwrap_or("?");
        let env = container.get("env").map_or(&[][..], Node::items);
        if env
            .iter()
            .any(|it| it.text_at(&["name"]) == Some(OUTBOUND_URL))
        {
            let note = format!("container `{name}` keeps its own {OUTBOUND_URL}");
            change.notes.push(note);
            return Ok(());
        }
        let variable = Node::mapping(vec![
            ("name", Node::string(OUTBOUND_URL)),
            ("value", Node::string(&sidecar.outbound_url)),
        ]);
        if container.get("env").is_some() {
            return self.items(container, "env", &[variable], change);
        }
        // After the image, where people look for it.
        let last = container.entries().len().saturating_sub(1);
        let before = (place_of(container, "image") + 1).min(last);
        let env = Node::sequence(vec![variable]);
        self.entry(container, before, "env", &env, change)
    }

    /// Puts items first into the list under a key, which is made if need be, before `containers`.
    fn items(
        &self,
        parent: &'a Node,
        key: &str,
        new: &[Node],
        change: &mut Change,
    ) -> Result<(), String> {
        let Some(list) = parent.get(key) else {
            let list = Node::sequence(new.to_vec());
            return self.entry(parent, place_of(parent, "containers"), key, &list, change);
        };
        self.own(list, &format!("`{key}`"))?;
        if list.is_null() {
            return Err(format!(
                "line {}: `{key}` has no value; delete that line",
                list.line
            ));
        }
        let insertion = list.insert_items(self.source, new);
        change.insertions.push(insertion.ok_or_else(|| {
            format!(
                "line {}: `{key}` is laid out in a way that nothing can be put into",
                list.line
            )
        })?);
        Ok(())
    }

    fn entry(
        &self,
        mapping: &Node,
        before: usize,
        key: &str,
        value: &Node,
        change: &mut Change,
    ) -> Result<(), String> {
        let insertion = mapping.insert_entry(self.source, before, key, value);
        change.insertions.push(insertion.ok_or_else(|| {
            format!(
                "line {}: this is laid out in a way that `{key}` cannot be put into",
                mapping.line
            )
        })?);
        Ok(())
    }
}

/// Refuses a list that has one of these already, by the key that Kubernetes tells its items apart with.
fn refuse_a_second(list: Option<&Node>, key: &str, new: &[Node]) -> Result<(), String> {
    let there = list.map_or(&[][..], Node::items);
    for item in new {
        let own = item.text_at(&[key]);
        if let Some(other) = there.iter().find(|it| it.text_at(&[key]) == own) {
            return Err(format!(
                "line {}: there is one for `{}` already, and there can be no second; put in by hand what k8s/cloudrun has",
                other.line,
                own.unwrap_or("?")
            ));
        }
    }
    Ok(())
}

/// Where a key stands in a mapping; the first place if it does not.
fn place_of(mapping: &Node, key: &str) -> usize {
    let mut entries = mapping.entries().iter();
    let place = entries.position(|(it, _)| it.text() == Some(key));
    place.unwrap_or(0)
}

/// The port that the app listens on, and what to say if that is a guess.
fn app_port(containers: &[Node], args: &InjectArgs) -> Result<(u16, &'static str), String> {
    if let Some(port) = args.app_port {
        return Ok((port, ""));
    }
    let all: Vec<(&Node, u16)> = containers.iter().flat_map(ports).collect();
    let called_http: Vec<_> = all
        .iter()
        .filter(|(port, _)| port.text_at(&["name"]) == Some("http"))
        .collect();
    match (all.as_slice(), called_http.as_slice()) {
        ([], _) => Ok((
            APP_PORT,
            ", as no container names a port (--app-port says another)",
        )),
        ([(_, port)], _) => Ok((*port, "")),
        (_, [(_, port)]) => Ok((*port, ", which is called `http`")),
        ([(first, _), ..], _) => Err(format!(
            "line {}: the containers have several ports; say with --app-port which is the app's",
            first.line
        )),
    }
}

/// What a sidecar that was there already says of the ports.
fn ports_of(sidecar: &Node, spec: &Node) -> Option<Ports> {
    let number = |path: &[&str]| sidecar.text_at(path)?.parse().ok();
    let app = number(&["env", "WX_APP_PORT", "value"])?;
    Some(Ports {
        app,
        app_names: names_of(app, spec.get("containers").map_or(&[][..], Node::items)),
        sidecar: number(&["ports", "http-wx", "containerPort"])?,
    })
}

fn names_of(app: u16, containers: &[Node]) -> Vec<String> {
    let of_app = containers
        .iter()
        .flat_map(ports)
        .filter(|(_, it)| *it == app);
    let names = of_app.filter_map(|(port, _)| port.text_at(&["name"]));
    names.map(str::to_owned).collect()
}

/// The TCP ports that a container names.
fn ports(container: &Node) -> impl Iterator<Item = (&Node, u16)> {
    let ports = container.get("ports").map_or(&[][..], Node::items);
    ports.iter().filter_map(|port| {
        let protocol = port.text_at(&["protocol"]).unwrap_or("TCP");
        let number = port.text_at(&["containerPort"])?.parse().ok()?;
        (protocol == "TCP").then_some((port, number))
    })
}

/// Containers of a pod share its ports, and its names.
fn refuse_clashes(
    spec: &Node,
    containers: &[Node],
    sidecar: &Sidecar,
    app_port: u16,
) -> Result<(), String> {
    let ours = sidecar.ports();
    let taken = |port: u16| ours.iter().find(|(it, _)| *it == port);
    for container in containers {
        let name = container.text_at(&["name"]).unwrap_or("?");
        for (port, number) in ports(container) {
            if let Some((_, purpose)) = taken(number) {
                return Err(clash(port.line, name, number, purpose));
            }
            let named = port.text_at(&["name"]).unwrap_or_default();
            if ["http-wx", "admin"].contains(&named) {
                return Err(format!(
                    "line {}: container `{name}` has a port called `{named}`, as the sidecar has; call it something else",
                    port.line
                ));
            }
        }
    }
    if let Some((_, purpose)) = taken(app_port) {
        return Err(clash(spec.line, "of the app", app_port, purpose));
    }
    let names: Vec<_> = sidecar
        .volumes
        .iter()
        .map(|it| it.text_at(&["name"]))
        .collect();
    let volumes = spec.get("volumes").map_or(&[][..], Node::items);
    match volumes
        .iter()
        .find(|it| names.contains(&it.text_at(&["name"])))
    {
        Some(volume) => Err(format!(
            "line {}: there is a volume `{}` already",
            volume.line,
            volume.text_at(&["name"]).unwrap_or("?")
        )),
        None => Ok(()),
    }
}

fn clash(line: usize, name: &str, port: u16, purpose: &str) -> String {
    let way = match purpose {
        "requests" => "have the sidecar listen elsewhere with --port, or the app",
        _ => "have the app listen elsewhere",
    };
    format!(
        "line {line}: container `{name}` listens on port {port}, which the sidecar takes for {purpose}; {way}"
    )
}

/// Which containers end before the last request for them has come.
fn late_requests(containers: &[Node]) -> impl Iterator<Item = String> {
    let hasty = containers
        .iter()
        .filter(|it| it.at(&["lifecycle", "preStop"]).is_none());
    hasty.map(|container| {
        let name = container.text_at(&["name"]).unwrap_or("?");
        format!(
            "container `{name}` has no `preStop`: a pod that ends still gets requests for some seconds, so have it sleep for five"
        )
    })
}
