"""Run with one kubernetes client on the path: every golden pod becomes that client's models and comes back whole.

Prints the client's version. Needs neither pytest nor network; see test_kubernetes.py.
"""

from __future__ import annotations

import kubernetes
from kubernetes.client import V1PodSpec

from flytekitplugins.inference.flyte.kubernetes_models import from_pod_spec
from golden.cases import CASES, make

for name in CASES:
    template = make(name)
    pod_template = template.pod_template
    assert isinstance(pod_template.pod_spec, V1PodSpec), name
    assert from_pod_spec(pod_template.pod_spec) == template.manifest["spec"], name
    primary = pod_template.pod_spec.containers[0]
    assert primary.name == pod_template.primary_container_name, name
    assert pod_template.pod_spec.init_containers[-1].restart_policy == "Always", name
    assert pod_template.version_hash() == make(name).pod_template.version_hash(), name
print(kubernetes.__version__)
