"""What Kubernetes would find wrong with objects: reads {"objects", "versions", "crds"} from a file, and prints a list of faults.
Kubernetes' own schemas are those of the package kubernetes-validate, in which an unknown field is a fault; those of
CustomResourceDefinitions are in the files that `crds` names, and are read the same way."""

import json
import sys

import kubernetes_validate
import yaml
from jsonschema import Draft7Validator


def strict(schema):
    """The schema with unknown fields as faults, which the API server would drop."""
    if isinstance(schema, list):
        return [strict(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


def custom_kinds(paths):
    for path in paths:
        with open(path, encoding="utf-8") as file:
            spec = yaml.safe_load(file)["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema


with open(sys.argv[1], encoding="utf-8") as file:
    task = json.load(file)
custom = dict(custom_kinds(task["crds"]))

faults = []
for thing in task["objects"]:
    name = f"{thing['kind']}/{thing['metadata']['name']}"
    kind = (thing["apiVersion"], thing["kind"])
    if kind in custom:
        found = Draft7Validator(custom[kind]).iter_errors(thing)
        faults += [f"{name}: {error.json_path}: {error.message[:300]}" for error in found]
        continue
    for version in task["versions"]:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"{name} in {version}: {error.path}: {error.message[:300]}")
print(json.dumps(faults))
