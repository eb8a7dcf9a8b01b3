"""What it costs to describe a server and to compile its pod.

    python dev/bench/compile.py

For each kind of server that is installed: the median of 50 constructions (with all checks) and of
50 compilations, in milliseconds after imports, and what the first use of the bundled programs adds,
once in a process. Aim: 3 ms together.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from flytekitplugins.inference import ModelInferenceTemplate, NIMSecrets, installed_servers
from flytekitplugins.inference.pod.bundle import programs_bundle
from flytekitplugins.inference.pod.parts import Helper

REPEATS = 50
AIM_MS = 3.0
HELPER = Helper(image="task:1", bundled=False)
NEEDED: dict[str, dict[str, Any]] = {
    "llamacpp": {"model_file": "x.gguf"},
    "nim": {"secrets": NIMSecrets(ngc_secret_group="ngc", ngc_secret_key="key")},
}
"""What a server cannot be made without."""


def median_ms(action: Callable[[], object]) -> float:
    """Return what `action` takes."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]) * 1000


def main() -> int:
    """Print a line for each server; end with 1 when one of them misses the aim."""
    slowest = 0.0
    kinds: dict[str, Callable[..., ModelInferenceTemplate]] = dict(installed_servers())
    print(f"{'server':<12} {'describe':>9} {'compile':>9}   milliseconds")
    for name, make in kinds.items():
        options = {
            "model": "s3://models/x",
            "download_inputs": True,
            "startup_timeout": 600,
            **NEEDED.get(name, {}),
        }
        template = make(**options)
        described = median_ms(partial(make, **options))
        compiled = median_ms(partial(template.compile, HELPER))
        slowest = max(slowest, described + compiled)
        print(f"{name:<12} {described:9.2f} {compiled:9.2f}")
    began = time.perf_counter()
    for program in ("download_inputs", "load_model", "wait_for_server"):
        programs_bundle(program)
    print(
        f"bundling three programs, once in a process: {(time.perf_counter() - began) * 1000:.0f} ms"
    )
    print(f"slowest: {slowest:.2f} ms (aim {AIM_MS:g})")
    return int(slowest > AIM_MS)


if __name__ == "__main__":
    sys.exit(main())
