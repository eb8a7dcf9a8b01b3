"""How long the installation takes that the guide prints, with the installers that people have.

    .venv/bin/python dev/bench/install.py [--pip 23.2] [--limit 300] \\
        [--extras openai,batch,report] [--cache]

For each version of pip: a fresh virtual environment with that pip, and in it the line of the guide,
with an empty cache unless `--cache` is given. Prints the seconds of the clock and of the processor
(the difference is the network, or what else the machine does), and what was taken of the packages
whose releases do not fit each other. Ends with 1 when an installation fails or misses the aim, a
minute. Needs a package index.

pip before 26 goes back over the releases of whichever package it meets last. What it had to find
out for itself made it read hundreds of releases of botocore; `pyproject.toml` says what keeps it
from that.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "plugins" / "flytekitplugins-inference"
PIPS = ("23.2", "24.0", "24.3.1", "25.3", "26.3")
AIM_SECONDS = 60
SHOWN = ("flytekit", "kubernetes", "botocore", "python-dateutil")


def printed_extras() -> str:
    """Return the extras of the line in the guide."""
    guide = (PROJECT / "README.md").read_text(encoding="utf-8")
    (extras,) = re.findall(
        r'^pip install "\./plugins/flytekitplugins-inference\[([\w,-]+)\]"', guide, re.MULTILINE
    )
    return str(extras)


def processor_seconds() -> float:
    """Return what the processes that this one has waited for have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def install(pip: str, extras: str, *, limit: float, cache: bool) -> tuple[str, float, float]:
    """Return how one installation ended, and its seconds of the clock and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "venv", "bin", "python")
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        run_pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*run_pip, "install", "--quiet", f"pip=={pip}"], check=True)
        command = [
            *run_pip,
            "install",
            *([] if cache else ["--cache-dir", f"{folder}/cache"]),
            f"{PROJECT}[{extras}]",
        ]
        began = time.perf_counter()
        used = processor_seconds()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return "did not end", time.perf_counter() - began, processor_seconds() - used
        seconds = time.perf_counter() - began
        used = processor_seconds() - used
        if done.returncode:
            return f"failed: {(done.stderr.splitlines() or ['without a word'])[-1]}", seconds, used
        frozen = subprocess.run(
            [*run_pip, "freeze"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        return " ".join(line for line in frozen if line.partition("==")[0] in SHOWN), seconds, used


def main() -> int:
    """Print a line for each version of pip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pip",
        action="append",
        metavar="VERSION",
        help=f"may be repeated; default: {' '.join(PIPS)}",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=300,
        metavar="SECONDS",
        help="of one installation (default: 300)",
    )
    parser.add_argument(
        "--extras", default=printed_extras(), help="default: those of the guide, %(default)s"
    )
    parser.add_argument(
        "--cache", action="store_true", help="use pip's own cache instead of an empty one"
    )
    options = parser.parse_args()
    slow = False
    print(
        f"pip install '{PROJECT.name}[{options.extras}]', Python {sys.version.split()[0]}",
        flush=True,
    )
    for pip in options.pip or PIPS:
        outcome, seconds, used = install(
            pip, options.extras, limit=options.limit, cache=options.cache
        )
        slow = slow or seconds > AIM_SECONDS or "==" not in outcome
        print(f"pip {pip:<7} {seconds:6.1f} s  processor {used:5.1f} s  {outcome}", flush=True)
    print(f"aim: {AIM_SECONDS} s each")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
