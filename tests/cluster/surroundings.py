"""What pods find in the cluster: their images, the stores, and Flyte's configuration."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from dev.kubernetes.files import RUN

from cluster.api import Cluster, Namespace
from cluster.flyte_platform import Platform
from cluster.images import FLYTEKIT, MODEL, SERVER, TASK, archive
from cluster.pods import write_models

STORES = "inference-stores"


def load_images() -> None:
    """Make the images and load them, unless these very ones are there."""
    loaded = RUN / "images"
    path = archive(_image_names())
    if not loaded.exists() or loaded.read_text() != path.name:
        subprocess.run([sys.executable, "-m", "dev.kubernetes", "load", str(path)], check=True)
        loaded.write_text(path.name)


def _image_names() -> dict[str, set[str]]:
    """Return the names in the golden pods, by what stands in for their image."""
    from golden.cases import CASES
    from golden.write import HELPER, compiled

    names: dict[str, set[str]] = {
        FLYTEKIT: {HELPER.image},
        TASK: set(),
        SERVER: set(),
        MODEL: set(),
    }
    names[TASK] |= {
        "registry.example.com/t:1",
        "registry.example.com/task:1",
        "registry.example.com/tasks/ranker:2.4.1",
    }
    names[FLYTEKIT] |= {"python:3.12.12-slim-bookworm"}
    for name in CASES:
        spec = compiled(name)["spec"]
        for container in spec.get("initContainers", ()):
            names[SERVER].add(container["image"])
        for volume in spec.get("volumes", ()):
            if "image" in volume:
                names[MODEL].add(volume["image"]["reference"])
    names[SERVER] -= names[FLYTEKIT] | names[TASK]
    return names


def start_stores(connection: Cluster) -> None:
    """Run the stores as a pod, once for all workers and runs."""
    namespace = Namespace(connection, STORES)
    if not _exists(connection, STORES):
        connection.namespace(STORES)
        container = {
            "name": "stores",
            "image": TASK,
            "imagePullPolicy": "Never",
            "command": ["/usr/local/bin/stores"],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 9002}, "periodSeconds": 1},
        }
        pod = {"metadata": {"name": "stores"}, "spec": {"containers": [container]}}
        namespace.create("pods", pod)
        write_models(namespace)
    namespace.wait("stores", _is_ready, 60)


def _exists(connection: Cluster, name: str) -> bool:
    listed, _ = connection.call("GET", "/api/v1/namespaces")
    return name in {each["metadata"]["name"] for each in listed["items"]}


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def platform_of(connection: Cluster) -> Platform:
    """Return Flyte's configuration of this cluster: all containers are told of the stores."""
    address = Namespace(connection, STORES).pod("stores")["status"]["podIP"]
    return Platform(
        environ={
            "FLYTE_AWS_ENDPOINT": f"http://{address}:9000",
            "FLYTE_AWS_ACCESS_KEY_ID": "key",
            "FLYTE_AWS_SECRET_ACCESS_KEY": "secret",
            "HF_ENDPOINT": f"http://{address}:9002",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MLFLOW_TRACKING_URI": f"http://{address}:9002",
            "STORAGE_EMULATOR_HOST": f"http://{address}:9001",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # else it asks what the emulator lacks
            "FSSPEC_GS_TOKEN": "anon",
        }
    )
