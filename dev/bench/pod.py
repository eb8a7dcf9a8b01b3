"""Memory, processor time and seconds of the helpers of real pods, beside what they request.

    dev/cluster up && .venv/bin/python -m dev.bench.pod [CASE …]

Runs golden pods on the cluster of `dev/cluster`, one after the other, and reads the control groups
of their containers while they live (`memory.max_usage_in_bytes` and `total_rss` with version 1,
`memory.peak` and `anon` with version 2). The peak counts files in the page cache, which the kernel
takes back before it kills; the resident part is what a limit must hold. Prints one line for each
helper: the most of all its runs.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

MIB = 1 << 20
CASES = (
    "generic-model-input-gate",
    "model-hub-gate",
    "model-store-gate",
    "model-registered-gate",
    "vllm-lora",
    "ollama-modelfile",
)


@dataclass
class Usage:
    """The most that a container was seen to use."""

    peak_bytes: int = 0
    resident_bytes: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, other: Usage) -> None:
        for name, value in vars(other).items():
            setattr(self, name, max(getattr(self, name), value))


class Watch:
    """Reads the control groups of one pod's containers while the block lasts.

    Args:
        root: The group of all pods, by its name.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.usages: dict[str, Usage] = {}
        """By the container's identity, as the group is called."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            for name, usage in self._read():
                self.usages.setdefault(name, Usage()).add(usage)

    def _read(self) -> Iterator[tuple[str, Usage]]:
        version_1 = Path("/sys/fs/cgroup/memory", self._root)
        for group in (
            version_1 if version_1.exists() else Path("/sys/fs/cgroup", self._root)
        ).rglob("*"):
            if len(group.name) == 64:  # a container's identity
                try:
                    yield group.name, self._usage(group)
                except (OSError, ValueError, KeyError):
                    continue  # it has just ended

    def _usage(self, group: Path) -> Usage:
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        if (group / "memory.max_usage_in_bytes").exists():
            accounting = Path(str(group).replace("/cgroup/memory/", "/cgroup/cpuacct/"))
            return Usage(
                int((group / "memory.max_usage_in_bytes").read_text()),
                int(statistics["total_rss"]),
                int((accounting / "cpuacct.usage").read_text()) / 1e9,
            )
        cpu = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
        peak = int((group / "memory.peak").read_text())
        return Usage(peak, int(statistics["anon"]), int(cpu["usage_usec"]) / 1e6)


def main() -> None:
    """Run the pods and print the table."""
    from dev.kubernetes import instance

    from cluster.api import connected, statuses
    from cluster.pods import prepare_namespace, prepare_node, runnable
    from cluster.surroundings import load_images, platform_of, start_stores
    from golden.cases import make
    from golden.write import HELPER

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=CASES)
    names = parser.parse_args().cases
    state = instance.read_state()
    if state is None:
        sys.exit("no cluster runs: dev/cluster up")
    totals: dict[str, Usage] = {}
    requests: dict[str, Any] = {}
    with connected(instance.require_kubeconfig()) as cluster:
        load_images()
        start_stores(cluster)
        namespace = cluster.namespace(f"bench-{int(time.time())}")
        try:
            manifests = {name: make(name).compile(HELPER) for name in names}
            pods = {name: runnable(manifest, name) for name, manifest in manifests.items()}
            prepare_node(cluster, [*pods.values()])
            prepare_namespace(namespace, [*pods.values()])
            platform = platform_of(cluster)
            for name, pod in pods.items():
                with Watch(state.cgroup) as watch:
                    namespace.create("pods", platform.admit(pod, {"input": "s3://flyte/inputs.pb"}))
                    ended = namespace.wait_for_end(name)
                for container in manifests[name]["spec"]["initContainers"]:
                    requests.setdefault(container["name"], container.get("resources", {}))
                for container, status in statuses(ended).items():
                    identity = status["containerID"].rpartition("/")[2]
                    totals.setdefault(container, Usage()).add(watch.usages.get(identity, Usage()))
        finally:
            namespace.remove()
    print(f"{'container':24} {'resident':>9} {'peak':>9} {'cpu':>7}   requests and limits")
    for name, usage in totals.items():
        given = requests.get(name, {})
        asked = {**given.get("requests", {})}, {**given.get("limits", {})}
        print(
            f"{name:24} {usage.resident_bytes / MIB:5.0f} MiB {usage.peak_bytes / MIB:5.0f} MiB "
            f"{usage.cpu_seconds:5.1f} s   {asked[0]} {asked[1]}"
        )


if __name__ == "__main__":
    main()
