"""Measures what imports cost: the package, flytekit with it, a user's module in a task's pod.

    .venv/bin/python dev/bench/imports.py [--runs 15]

Every sample is a whole process, from its start to its end. The variants of a comparison take turns,
so that whatever else the machine does meets them alike; the first round, which writes bytecode, is
not counted. What is printed is the median and the quartiles of the wall clock, the median of the
processor time (which other work on the machine disturbs less), the difference and the ratio of the
latter to the first variant, and the median of the most memory in use.

"Without our entry point" is the same environment: the process hides the entry point from flytekit's
look-up of `flytekit.plugins` and, so that this costs the same on both sides, the other variant
hides one that does not exist.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HIDE = """
import importlib.metadata
original = importlib.metadata.entry_points
def entry_points(**wanted):
    found = original(**wanted)
    if wanted != {{"group": "flytekit.plugins"}}:
        return found
    return [p for p in found if p.name != {name!r}]
importlib.metadata.entry_points = entry_points
import flytekit
"""
PLAIN = """
from flytekit import task

@task
def ask(prompt: str) -> str:
    return prompt
"""
TASK_CONFIG = """
from flytekit import task
from flytekitplugins.inference import VLLM

template = VLLM(arg_dict={"model": "org/model"})

@task(task_config=template)
def ask(prompt: str) -> str:
    return prompt
"""
POD_TEMPLATE = """
from flytekit import task
from flytekitplugins.inference import VLLM

template = VLLM(arg_dict={"model": "org/model"})

@task(pod_template=template.pod_template, secret_requests=template.secret_requests)
def ask(prompt: str) -> str:
    return prompt
"""
READ = "from user_module import ask\nask.pod_template.pod_spec"

REPORT = """
import resource, sys
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(peak, "kubernetes" in sys.modules)
"""


@dataclass(kw_only=True)
class Variant:
    """One way to do it."""

    name: str
    code: str
    module: str = ""
    """The text of `user_module.py`."""
    client: str = ""
    """The version of the kubernetes client, of those in .venv/kubernetes; by default the installed
    one."""
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    """Resident bytes at most, of each run."""
    kubernetes: bool = False

    def run(self) -> None:
        """Take one sample."""
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "user_module.py").write_text(self.module, encoding="utf-8")
            environ = {
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("PYTHON", "FLYTE"))
            }
            if self.client:
                environ["PYTHONPATH"] = str(Path(sys.prefix, "kubernetes", self.client))
            command = [sys.executable, "-c", self.code + REPORT]
            began = time.perf_counter()
            cpu_began = _cpu_seconds_of_children()
            output = subprocess.run(
                command, cwd=directory, env=environ, stdout=subprocess.PIPE, text=True, check=True
            )
            self.seconds.append(time.perf_counter() - began)
            self.cpu_seconds.append(_cpu_seconds_of_children() - cpu_began)
        peak, kubernetes = output.stdout.split()[-2:]
        self.peaks.append(int(peak))
        self.kubernetes = kubernetes == "True"


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


COMPARISONS = {
    "the package": [
        Variant(name="empty interpreter", code=""),
        Variant(name="import flytekitplugins.inference", code="import flytekitplugins.inference"),
    ],
    "flytekit, with the package installed": [
        Variant(name="import flytekit, entry point hidden", code=HIDE.format(name="inference")),
        Variant(name="import flytekit", code=HIDE.format(name="no such one")),
    ],
    "a user's module in the task's pod": [
        Variant(name="plain @task", code="import user_module", module=PLAIN),
        Variant(name="@task(task_config=VLLM)", code="import user_module", module=TASK_CONFIG),
        Variant(name="@task(pod_template=VLLM's)", code="import user_module", module=POD_TEMPLATE),
        Variant(name="task_config, pod_spec read", code=READ, module=TASK_CONFIG),
        Variant(name="pod_template, pod_spec read", code=READ, module=POD_TEMPLATE),
        Variant(
            name="the same, kubernetes 36.0.3", code=READ, module=POD_TEMPLATE, client="36.0.3"
        ),
        Variant(
            name="the same, kubernetes 28.1.0", code=READ, module=POD_TEMPLATE, client="28.1.0"
        ),
    ],
}


def report(title: str, variants: list[Variant]) -> None:
    print(f"\n{title}")
    print(
        f"{'':34} {'median':>8} {'quartiles':>13} {'CPU':>8} {'more':>8} {'ratio':>6} {'peak':>8} "
        " kubernetes"
    )
    first = statistics.median(variants[0].cpu_seconds)
    for variant in variants:
        low, median, high = (
            1000 * seconds for seconds in statistics.quantiles(variant.seconds, n=4)
        )
        cpu = statistics.median(variant.cpu_seconds)
        peak = statistics.median(variant.peaks) / 2**20
        print(
            f"{variant.name:34} {median:5.0f} ms {f'{low:.0f}-{high:.0f} ms':>13} "
            f"{1000 * cpu:5.0f} ms"
            f" {1000 * (cpu - first):+5.0f} ms {cpu / first:6.2f} {peak:4.0f} MiB"
            f"  {'imported' if variant.kubernetes else 'not imported'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what importing costs.")
    parser.add_argument(
        "--runs", type=int, default=15, help="samples of each variant (%(default)s)"
    )
    runs = parser.parse_args().runs
    print(
        f"Python {sys.version.split()[0]} on {sys.platform}, {os.cpu_count()} cores, {runs} runs "
        "of each"
    )
    for title, variants in COMPARISONS.items():
        for _ in range(runs + 1):
            for variant in variants:
                variant.run()
        for variant in variants:
            del variant.seconds[0], variant.cpu_seconds[0], variant.peaks[0]
        report(title, variants)


if __name__ == "__main__":
    main()
