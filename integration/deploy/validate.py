"""Validates the manifests on stdin against the published Kubernetes schemas of the versions named as
arguments, and prints them as JSON.
"""
import json
import sys

import kubernetes_validate
import yaml

documents = list(yaml.safe_load_all(sys.stdin))
for version in sys.argv[1:]:
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
json.dump(documents, sys.stdout)
