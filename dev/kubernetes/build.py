"""Builds the programs of Kubernetes from Go modules, once for each set of versions.

The versions are those in `modules/*/go.mod`, whose sums fix what is downloaded. To take others,
change the version there (for Kubernetes also in its `replace` lines: `v1.36.3` is `v0.36.3` of its
parts) and run `go mod tidy` in that folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .files import CACHE, ClusterError, locked

MODULES = Path(__file__).parent / "modules"
BUILDS_KEPT = 2


@dataclass(frozen=True)
class Program:
    """A program of the cluster.

    Args:
        name: The file's.
        module: The folder below `modules` that fixes its version.
        package: Its main package.
        tags: Go's build tags, for what this machine need not have.
    """

    name: str
    module: str
    package: str
    tags: str = ""


def _kubernetes(name: str) -> Program:
    return Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}")


def _containerd(name: str) -> Program:
    package = f"github.com/containerd/containerd/v2/cmd/{name}"
    return Program(name, "containerd", package, tags="no_btrfs,no_devmapper,no_zfs")


def _cni(name: str, kind: str) -> Program:
    package = f"github.com/containernetworking/plugins/plugins/{kind}/{name}"
    return Program(f"cni/{name}", "cni", package)


PROGRAMS = (
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kubectl"),
    Program("etcd", "kubernetes", "go.etcd.io/etcd/server/v3"),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    _cni("bridge", "main"),
    _cni("loopback", "main"),
    _cni("host-local", "ipam"),
    Program("pause", "pause", "cluster/pause"),
)


def kubernetes_version() -> str:
    """Return the version of Kubernetes, such as `v1.36.3`."""
    text = (MODULES / "kubernetes/go.mod").read_text()
    (version,) = re.findall(r"(?m)^\s*k8s\.io/kubernetes (v\S+)", text)
    return str(version)


def directory() -> Path:
    """Return the folder of the programs of these versions, built or not."""
    parts = [f"{program}" for program in PROGRAMS]
    files = sorted(path for path in MODULES.rglob("*") if path.suffix in (".mod", ".sum", ".go"))
    parts += [path.read_text() for path in files]
    return CACHE / "programs" / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def missing() -> list[Program]:
    """Return the programs that are not built yet."""
    return [program for program in PROGRAMS if not (directory() / program.name).exists()]


def build(say: Callable[[str], None]) -> Path:
    """Build what is missing and return the folder with all programs.

    Args:
        say: Gets a line for each program.

    Raises:
        ClusterError: There is no Go, or a program cannot be built.
    """
    target = directory()
    with locked(CACHE / "programs.lock", lambda: say("another build goes on; waiting for it")):
        programs = missing()
        if programs and shutil.which("go") is None:
            raise ClusterError(
                "Kubernetes is built from its Go modules, and there is no `go` on PATH.",
                hint="Install Go 1.26 or later.",
            )
        for number, program in enumerate(programs, 1):
            say(f"building {program.name} ({number} of {len(programs)})")
            began = time.monotonic()
            _build(program, target / program.name)
            say(f"built {program.name} in {time.monotonic() - began:.0f} s")
        _remove_old(target)
    return target


def _build(program: Program, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    arguments = ["-trimpath", "-tags", program.tags, "-ldflags", " ".join(_linked(program))]
    environ = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOWORK": "off",
    }
    command = ["go", "build", *arguments, "-o", str(partial), program.package]
    done = subprocess.run(
        command,
        cwd=MODULES / program.module,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-10:])
        raise ClusterError(f"`{' '.join(command)}` failed in {program.module}:\n{last}")
    partial.rename(path)


def _linked(program: Program) -> Iterator[str]:
    yield from ("-s", "-w")
    if program.module == "kubernetes":
        version = kubernetes_version()
        major, minor, _ = version.lstrip("v").split(".")
        names = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
        # without them the kubelet calls itself v0.0.0, which the API server takes for too old
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            yield from (f"-X {package}.{name}={value}" for name, value in names.items())


def _remove_old(current: Path) -> None:
    current.touch()
    builds = sorted(current.parent.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in builds[:-BUILDS_KEPT]:
        shutil.rmtree(path, ignore_errors=True)
