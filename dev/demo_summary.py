"""Shows the output of `examples/digits` as it comes, and sums it up at the end. Part of `dev/demo`.

The time of a phase is what its own last line says.
"""

from __future__ import annotations

import argparse
import re
import sys
import time

LEAST_ACCURACY = 0.95

TRAINED = re.compile(r"train: took ([\d.]+) s")
STARTED = re.compile(r"\[pod\] ready after .*input-downloader ([\d.]+) s, server-gate ([\d.]+) s")
EVALUATED = re.compile(r"evaluate: took ([\d.]+) s, accuracy ([\d.]+)")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Read the demo's output from stdin, show it and sum it up."
    )
    parser.add_argument(
        "--setup-seconds", type=float, required=True, help="how long dev/setup took"
    )
    phases = {"setup": f"{parser.parse_args().setup_seconds:.0f}"}
    began = time.monotonic()
    accuracy = None
    for line in sys.stdin:
        seconds = time.monotonic() - began
        print(f"{seconds:6.1f} s  {line}", end="", flush=True)
        if "Running Execution" in line:
            phases["imports"] = f"{seconds:.1f}"
        elif found := TRAINED.search(line):
            phases["train"] = found[1]
        elif found := STARTED.search(line):
            phases["input download"] = found[1]
            phases["server start"] = found[2]
        elif found := EVALUATED.search(line):
            phases["predict"] = found[1]
            accuracy = float(found[2])
    phases["run in all"] = f"{time.monotonic() - began:.1f}"
    for name, value in phases.items():
        print(f"demo: {name:14} {value} s")
    if accuracy is None or accuracy <= LEAST_ACCURACY:
        print(
            f"demo: error: the accuracy is {accuracy}, not more than {LEAST_ACCURACY}",
            file=sys.stderr,
        )
        return 1
    print(f"demo: accuracy       {accuracy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
