"""Checks one kubernetes client: its models hold every golden pod without loss.

Prints the client's version. Needs neither pytest nor network; see test_kubernetes.py.
"""

from __future__ import annotations

import kubernetes
import kubernetes.client
from kubernetes.client import V1PodSpec

from flytekitplugins.inference import UnsupportedError
from flytekitplugins.inference.flyte.kubernetes_models import from_pod_spec
from flytekitplugins.inference.pod.plan import named
from golden.cases import CASES, make

IMAGE_VOLUMES = hasattr(kubernetes.client, "V1ImageVolumeSource")
"""Known to clients from 31 on; an older one is refused by an UnsupportedError, not passed over."""

for name in CASES:
    if "image-volume" in name and not IMAGE_VOLUMES:
        try:
            make(name).pod_template.pod_spec  # noqa: B018
        except UnsupportedError as error:
            assert "spec.volumes[2].image" in str(error)  # noqa: PT017
            continue
        raise AssertionError(name)
    template = make(name)
    pod_template = template.pod_template
    assert isinstance(pod_template.pod_spec, V1PodSpec), name
    assert from_pod_spec(pod_template.pod_spec) == template.manifest["spec"], name
    primary = pod_template.pod_spec.containers[0]
    assert primary.name == pod_template.primary_container_name, name
    policies = {
        container.name: container.restart_policy
        for container in pod_template.pod_spec.init_containers
    }
    assert all(
        policies[named("model-server", server)] == "Always" for server in template.servers
    ), name
    assert pod_template.version_hash() == make(name).pod_template.version_hash(), name
print(kubernetes.__version__)
