"""`dev/cluster` itself: what it says, what it leaves behind, and two of them at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dev.kubernetes import build
from dev.kubernetes.files import CHECKOUT, NAME_VARIABLE

from cluster.api import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


# each looks at what the whole machine has, so they run one after the other
pytestmark = pytest.mark.xdist_group("cluster tool")


def call(*words: str, name: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run dev/cluster for a cluster of this name."""
    return subprocess.run(
        [CHECKOUT / "dev/cluster", *words],
        env={**os.environ, NAME_VARIABLE: name, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def second(cluster: Any) -> Iterator[str]:
    """The name of another cluster, beside the one that runs; it is ended."""
    del cluster
    name = f"second-{os.getpid()}"
    yield name
    call("down", name=name)


def test_help_names_every_command() -> None:
    said = call("--help")
    assert said.returncode == 0
    assert all(
        word in said.stdout for word in ("up", "down", "status", "load", "kubeconfig", "use")
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["kubeconfig"], "No cluster of this checkout runs. Start it: dev/cluster up"),
        (["load", "no.tar"], "no.tar is not a file."),
        (["use", "nowhere"], "kubectl knows no context 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words: list[str], sentence: str) -> None:
    said = call(*words, name="never-started")
    assert said.returncode == 1
    assert sentence in said.stderr
    assert said.stderr.startswith("cluster: error: ")
    assert "Traceback" not in said.stderr


def test_without_root_it_names_what_works_everywhere() -> None:
    """Where no node can run, a cluster that a person has is used instead."""
    if os.geteuid() != 0:
        said = call("up", name="never-started")
    else:
        as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", _AS_USER]
        said = subprocess.run(as_nobody, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if "Permission denied" in said.stderr:
            pytest.skip("this checkout cannot be read by another user")
    assert "Only root may make the namespaces of a node." in said.stdout + said.stderr
    assert "dev/cluster use CONTEXT" in said.stdout + said.stderr


_AS_USER = """
import os, sys
os.environ["HOME"] = "/nonexistent"
sys.argv = ["cluster", "up"]
from dev.kubernetes.__main__ import main
sys.exit(main())
"""


def test_two_at_once_and_nothing_is_left(second: str) -> None:
    """Also when its parts were killed: the namespaces hold all of it."""
    before = Traces.of_this_machine()
    up = call("up", name=second)
    assert up.returncode == 0, up.stderr
    assert "is ready after" in up.stdout
    again = call("up", name=second)
    assert "runs already" in again.stdout
    status = call("status", name=second)
    assert (status.returncode, "the node is ready" in status.stdout) == (0, True)
    run = Path(call("kubeconfig", name=second).stdout.strip()).parent
    parts = json.loads((run / "parts.json").read_text())
    inside = [pid for pid in _descendants(run) if _name(pid) == "kubelet"]
    assert len(inside) == 1
    assert {"etcd", "containerd", "kube-apiserver", "kubelet"} <= {*parts}
    os.kill(inside[0], signal.SIGKILL)
    wait_until(lambda: "kubelet: ended with -9" in call("status", name=second).stdout, 10)
    assert call("status", name=second).returncode == 1
    assert call("down", name=second).returncode == 0
    assert not run.exists()
    assert Traces.of_this_machine() == before
    assert list(Path("/sys/fs/cgroup").glob(f"**/inference-{run.name}")) == []
    assert call("status").returncode == 0, "the first cluster went with the second"


def test_nothing_is_left_when_its_first_process_is_killed(second: str) -> None:
    before = Traces.of_this_machine()
    assert call("up", name=second).returncode == 0
    run = Path(call("kubeconfig", name=second).stdout.strip()).parent
    for pid in _descendants(run)[:1]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _descendants(run), 20)
    assert "the last one has been killed" in call("status", name=second).stdout
    assert call("down", name=second).returncode == 0
    assert Traces.of_this_machine() == before
    assert list(Path("/sys/fs/cgroup").glob(f"**/inference-{run.name}")) == []


def test_the_programs_are_built_once() -> None:
    if build.missing():
        pytest.skip("not built yet: dev/cluster up")
    said: list[str] = []
    assert build.build(said.append) == build.directory()
    assert said == []


class Traces(tuple[frozenset[str], ...]):
    """What a cluster could leave on a machine: mounts, network, rules."""

    __slots__ = ()

    @classmethod
    def of_this_machine(cls) -> Traces:
        mounts = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
        links = {path.name for path in Path("/sys/class/net").iterdir()}
        rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False)
        chains = {line for line in rules.stdout.splitlines() if line.startswith(("-A", ":KUBE"))}
        return cls(frozenset(each) for each in (mounts, links, chains))


def _descendants(run: Path) -> list[int]:
    """Return the processes of a cluster, the one that holds the namespaces first."""
    holders = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"dev.kubernetes.node" in words and os.fsencode(run) in words:
            holders.append(int(path.parent.name))
    children = [pid for holder in holders for pid in _children(holder) if pid not in holders]
    return [*sorted(holders), *children]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
