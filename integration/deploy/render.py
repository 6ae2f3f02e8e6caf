"""Renders a Helm chart with the values that stdin has as JSON, by Helm's own library, and prints
the manifests.
"""
import json
import sys

from helm_python.chart import Chart, lint

path, values = sys.argv[1], json.load(sys.stdin)
said = lint(path, values, strict=True)
with Chart.load(path) as chart:
    manifests = chart.render(values=values, name="oci-coredump", namespace="oci-coredump")
print("\n---\n".join(text for text in manifests.values() if text.strip()))
print(json.dumps(said), file=sys.stderr)
