"""Starts that need a real kubelet to be believed: rights, read-only roots, updates, overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cluster.api import Namespace, statuses
from cluster.images import SERVER
from cluster.pods import containers
from cluster.test_failures import server, submitted
from cluster.test_golden_pods import began_at
from flytekitplugins.inference import ObjectStoreModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.flyte_platform import Platform

    Pod = dict[str, Any]

UPDATE = """
import json, sys, time, urllib.request
import botocore.session, os

def files():
    with urllib.request.urlopen("http://localhost:8000/files", timeout=10) as answer:
        return json.load(answer)

client = botocore.session.Session().create_client(
    "s3",
    endpoint_url=os.environ["FLYTE_AWS_ENDPOINT"],
    aws_access_key_id="key",
    aws_secret_access_key="secret",
    region_name="us-east-1",
)
before = files()
client.put_object(Bucket="models", Key="qwen2.5-7b/extra.json", Body=b"{}")
for _ in range(300):
    if files() != before:
        break
    time.sleep(0.2)
after = files()
print(before, after)
sys.exit(0 if "extra.json" in after["names"] and after["target"] != before["target"] else 1)
"""
NOT_ROOT = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def test_a_model_is_replaced_while_it_is_served(namespace: Namespace, platform: Platform) -> None:
    """The loader that travels in the pod looks for updates as long as the pod lives."""
    template = server(
        model=ObjectStoreModel(uri="s3://models/qwen2.5-7b"), update_interval=1, startup_timeout=60
    )
    pod = submitted(platform, template)
    pod["spec"]["containers"][0]["command"] = ["python3", "-c", UPDATE]
    namespace.create("pods", pod)
    pod = namespace.wait_for_end("pod", 90)
    assert pod["status"]["phase"] == "Succeeded", namespace.describe("pod")
    assert statuses(pod)["model-loader"]["restartCount"] == 0


@pytest.mark.parametrize("options", [{}, {"startup_timeout": 60}], ids=["probe", "gate"])
def test_it_runs_where_only_restricted_pods_may(
    make_namespace: Callable[..., Namespace], platform: Platform, options: dict[str, Any]
) -> None:
    """As a user, with read-only roots in all containers of ours."""
    namespace = make_namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
    model = ObjectStoreModel(uri="s3://models/qwen")
    template = server(model=model, download_inputs=True, **options)
    pod = submitted(platform, template)
    pod["spec"]["securityContext"] = NOT_ROOT
    for container in containers(pod):
        context = container.setdefault("securityContext", {})
        if container["image"] != SERVER:
            context |= {**RESTRICTED, "readOnlyRootFilesystem": container["name"] != "primary"}
    namespace.create("pods", pod)
    ended = namespace.wait_for_end("pod", 60)
    assert ended["status"]["phase"] == "Succeeded", namespace.describe("pod")


def test_inputs_and_model_are_brought_while_the_server_loads(
    namespace: Namespace, platform: Platform
) -> None:
    """In gate mode nothing waits for the other; the primary waits for all."""
    template = server(
        "slow:4",
        model=ObjectStoreModel(uri="s3://models/qwen"),
        download_inputs=True,
        startup_timeout=60,
        command=["model-server"],
    )
    namespace.create("pods", submitted(platform, template))
    pod = namespace.wait_for_end("pod", 60)
    assert pod["status"]["phase"] == "Succeeded", namespace.describe("pod")
    began = {name: began_at(status) for name, status in statuses(pod).items()}
    assert began["model-server"] - began["model-loader"] <= 3
    assert began["primary"] - began["model-server"] >= 4
