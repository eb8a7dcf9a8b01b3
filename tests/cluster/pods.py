"""Makes compiled pods runnable on a small node, and prepares what they refer to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.api import Cluster, Manifest, Namespace, RefusedError
from cluster.images import TASK

HOST_PATH = "/run/inference-models"
"""On the node: where its claims and its models lie. /run is in memory, so nothing stays."""
CPU, MEMORY = "10m", "16Mi"
"""What containers request instead of what they should: a dozen pods share two cores."""
FOLDERS = ("models", "model-cache", "ollama", "repository", "host")
MODELS = ("qwen/7b/config.json", "qwen/q8_0.gguf", "ranker/1/model.py", "config.json")
ASK = """
import sys, urllib.request
for url in sys.argv[1:]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        print(url, answer.status, flush=True)
"""
"""The primary's program: one request to each server."""


def runnable(manifest: Mapping[str, Any], name: str) -> Manifest:
    """Return a compiled pod with a primary that asks every server once and ends."""
    pod = copy.deepcopy(dict(manifest))
    pod.setdefault("metadata", {})["name"] = name
    primary = pod["spec"]["containers"][0]
    primary.setdefault("image", TASK)
    urls = [f"http://localhost:{port}/" for port in server_ports(pod)]
    primary["command"] = ["python3", "-c", ASK, *urls]
    return fit(pod)


def fit(pod: Manifest) -> Manifest:
    """Return the pod with requests that a small node has, and with images that it has."""
    for container in containers(pod):
        container["imagePullPolicy"] = "IfNotPresent"
        resources = container.setdefault("resources", {})
        limits = resources.setdefault("limits", {})
        requests = resources.setdefault("requests", {})
        for key in ("cpu", "memory", "ephemeral-storage"):
            requests.pop(key, None)
        requests |= {"cpu": CPU, "memory": MEMORY}
        if "cpu" in limits:
            limits["cpu"] = "2"
    for volume in pod["spec"].get("volumes", ()):
        if "hostPath" in volume:
            volume["hostPath"] = {"path": f"{HOST_PATH}/host", "type": "Directory"}
    return pod


def containers(pod: Mapping[str, Any]) -> Iterator[Manifest]:
    """Return all containers, in the order of their starts."""
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def sidecars(pod: Mapping[str, Any]) -> list[str]:
    return [
        container["name"]
        for container in pod["spec"].get("initContainers", ())
        if container.get("restartPolicy") == "Always"
    ]


def server_ports(pod: Mapping[str, Any]) -> list[int]:
    """Return the first port of each model server."""
    return [
        container["ports"][0]["containerPort"]
        for container in pod["spec"].get("initContainers", ())
        if container["name"].startswith("model-server") and container.get("ports")
    ]


def prepare_node(cluster: Cluster, pods: list[Mapping[str, Any]]) -> None:
    """Give every node the labels and the devices that these pods ask for, and files of models."""
    labels: dict[str, str] = {}
    devices: set[str] = set()
    for pod in pods:
        labels |= pod["spec"].get("nodeSelector") or {}
        for container in containers(pod):
            limits = container.get("resources", {}).get("limits", {})
            devices |= {key for key in limits if "." in key and "/" in key}
    listed, _ = cluster.call("GET", "/api/v1/nodes")
    for node in listed["items"]:
        path = f"/api/v1/nodes/{node['metadata']['name']}"
        cluster.call("PATCH", path, {"metadata": {"labels": labels}})
        capacity = dict.fromkeys(sorted(devices), "64")
        cluster.call("PATCH", f"{path}/status", {"status": {"capacity": capacity}})


def write_models(namespace: Namespace) -> None:
    """Write the files of models that claims and host paths lead to, once for all tests."""
    if namespace.find("pods", "write-models"):
        return
    script = "\n".join(
        f"mkdir -p $(dirname {HOST_PATH}/{folder}/{file}); echo {{}} > {HOST_PATH}/{folder}/{file}"
        for folder in FOLDERS
        for file in MODELS
    )
    container = {
        "name": "write",
        "image": TASK,
        "imagePullPolicy": "IfNotPresent",
        "command": ["bash", "-ec", f"{script}\nchmod -R a+rwX {HOST_PATH}"],
        "volumeMounts": [{"name": "node", "mountPath": HOST_PATH}],
    }
    volume = {"name": "node", "hostPath": {"path": HOST_PATH, "type": "DirectoryOrCreate"}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    namespace.create("pods", {"metadata": {"name": "write-models"}, "spec": spec})
    pod = namespace.wait_for_end("write-models")
    assert pod["status"]["phase"] == "Succeeded", namespace.describe("write-models")


def prepare_namespace(namespace: Namespace, pods: list[Mapping[str, Any]]) -> None:
    """Create what these pods refer to: secrets, claims and service accounts."""
    for name, keys in _secrets(pods).items():
        values = dict.fromkeys(keys, "very-secret")
        namespace.create("secrets", {"metadata": {"name": name}, "stringData": values})
    specs = [pod["spec"] for pod in pods]
    for name in {spec["serviceAccountName"] for spec in specs if spec.get("serviceAccountName")}:
        namespace.create("serviceaccounts", {"metadata": {"name": name}})
    volumes = [volume for spec in specs for volume in spec.get("volumes", ())]
    sources = [volume.get("persistentVolumeClaim") for volume in volumes]
    for name in {source["claimName"] for source in sources if source}:
        create_claim(namespace, name)


def _secrets(pods: list[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return the keys of each secret that these pods refer to."""
    secrets: dict[str, set[str]] = {}
    for pod in pods:
        for reference in pod["spec"].get("imagePullSecrets", ()):
            secrets.setdefault(reference["name"], set())
        for container in containers(pod):
            for variable in container.get("env", ()):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    secrets.setdefault(reference["name"], set()).add(reference["key"])
    return secrets


def create_claim(namespace: Namespace, name: str) -> None:
    """Create a claim, bound to a folder of the node."""
    volume = f"{namespace.name}-{name}"
    size = {"storage": "1Gi"}
    linux = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    spec: Manifest = {
        "accessModes": ["ReadWriteMany"],
        "capacity": size,
        "local": {"path": f"{HOST_PATH}/{name}"},  # the kubelet applies fsGroup to it
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [linux]}]}},
        "storageClassName": "",
        "claimRef": {"namespace": namespace.name, "name": name},
    }
    try:
        body = {"metadata": {"name": volume}, "spec": spec}
        namespace.cluster.call("POST", "/api/v1/persistentvolumes", body)
    except RefusedError as error:
        if error.status != 409:
            raise
    claim = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": size},
        "storageClassName": "",
        "volumeName": volume,
    }
    namespace.create("persistentvolumeclaims", {"metadata": {"name": name}, "spec": claim})
