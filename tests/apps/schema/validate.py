"""What validators that are not ours make of our schema: reads the schema and a list of documents from two files, and prints
for each document what the drafts 2020-12 and 7, which editors know, find wrong with it, as a list of lists."""

import json
import sys

from jsonschema import Draft7Validator, Draft202012Validator


def faults(validator, document):
    found = validator.iter_errors(document)
    return sorted(f"{error.json_path}: {error.message[:200]}" for error in found)


with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
with open(sys.argv[2], encoding="utf-8") as file:
    documents = json.load(file)

Draft202012Validator.check_schema(schema)
newer = Draft202012Validator(schema)
del schema["$schema"]
Draft7Validator.check_schema(schema)
older = Draft7Validator(schema)

verdicts = []
for document in documents:
    verdict = faults(newer, document)
    assert verdict == faults(older, document), (document, verdict)
    verdicts.append(verdict)
print(json.dumps(verdicts))
