"""One cluster of one checkout: its beginning, its state and its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import archive, build, cgroups, settings
from .files import CHECKOUT, RUN, ClusterError, locked
from .node import PARTS

Say = Callable[[str], None]
KILL_SECONDS = 30.0
READY_SECONDS = 300.0
"""How long a start may take before it counts as failed; a quiet machine needs 15."""
TOOLS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "openssl": "openssl",
    "runc": "runc",
}
"""The programs of the machine that it needs, with their packages."""
FOREIGN = "Use a cluster that you have, such as kind or k3d: dev/cluster use CONTEXT."


@dataclass(frozen=True)
class State:
    """What `up` has written about a cluster that it started."""

    port: int
    """The port of the host that leads to the API server."""
    cgroup: str
    """The root of the pods' control groups, by its name."""


def up(say: Say) -> None:
    """Start the cluster, building it first if need be; nothing when it runs.

    Raises:
        ClusterError: It cannot run here, or does not become ready.
    """
    context = foreign_context()
    if context:
        say(f"the context {context} is used; there is nothing to start")
        return
    _require_machine()
    programs = build.build(say)
    with _own():
        if _processes():
            say(f"runs already: {kubeconfig_path()}")
            return
        _clean()
        began = time.monotonic()
        try:
            state, process = _start(programs)
            _await(state, process, _api_answers, "the API server")
            _load(programs, _pause_image(programs))
            _await(state, process, _node_is_ready, "the node")
        except BaseException:
            say(f"failed; the logs are in {RUN}/logs")
            _kill()
            raise
    say(f"Kubernetes {build.kubernetes_version()} is ready after {time.monotonic() - began:.0f} s")


def down(say: Say) -> None:
    """End the cluster and remove what it left; nothing when there is none."""
    if foreign_context():
        shutil.rmtree(RUN)
        say("forgot the context; the cluster itself goes on")
        return
    with _own():
        _clean()
    say("nothing of it is left")


def status() -> tuple[bool, list[str]]:
    """Return whether the cluster is well, and lines that say what is."""
    context = foreign_context()
    if context:
        return True, [f"the context {context} is used: {kubeconfig_path()}"]
    state = read_state()
    if not state or not _processes():
        return False, ["no cluster runs" + (", the last one has been killed" if state else "")]
    parts = _parts()
    ended = {
        name: part["exit_code"] for name, part in parts.items() if part["exit_code"] is not None
    }
    lines = [
        f"{name}: ended with {ended[name]}; {RUN}/logs/{name}.log says why"
        if name in ended
        else f"{name}: runs"
        for name in parts
    ]
    is_ready = not ended and _node_is_ready(state)
    lines.append(f"the node is {'ready' if is_ready else 'not ready'}; {kubeconfig_path()}")
    return is_ready, lines


def load(images: Sequence[Path], say: Say) -> None:
    """Bring images, tar files of `docker save`, to the node.

    Raises:
        ClusterError: No cluster runs, or an image cannot be read.
    """
    context = foreign_context()
    for image in images:
        if not image.is_file():
            raise ClusterError(f"{image} is not a file.", hint="Write it with: docker save -o FILE")
        if context:
            _load_foreign(context, image)
        else:
            _require_running()
            _load(build.directory(), image)
        say(f"loaded {image}")


def use(context: str, say: Say) -> None:
    """Let the tests run on a cluster that the user's kubeconfig names.

    Raises:
        ClusterError: There is no kubectl, or no such context.
    """
    if _processes():
        raise ClusterError("A cluster of this checkout runs.", hint="End it: dev/cluster down")
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ClusterError("There is no kubectl on PATH.", hint="Install it.")
    command = [kubectl, "config", "view", "--minify", "--flatten", "--raw", "--context", context]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(
            f"kubectl knows no context {context!r}: {done.stderr.strip()}",
            hint="See: kubectl config get-contexts",
        )
    RUN.mkdir(parents=True, exist_ok=True)
    settings.write_private(kubeconfig_path(), done.stdout)
    (RUN / "context").write_text(context)
    say(f"the tests will run on {context}; dev/cluster down forgets it")


def foreign_context() -> str:
    """Return the context that `use` named, or nothing."""
    path = RUN / "context"
    return path.read_text() if path.exists() else ""


def kubeconfig_path() -> Path:
    """Return where the administrator's kubeconfig stands while there is a cluster."""
    return RUN / "kubeconfig"


def require_kubeconfig() -> Path:
    """Return the path of the administrator's kubeconfig.

    Raises:
        ClusterError: There is no cluster.
    """
    if not foreign_context():
        _require_running()
    return kubeconfig_path()


def _require_running() -> None:
    if not _processes():
        raise ClusterError("No cluster of this checkout runs.", hint="Start it: dev/cluster up")


def read_state() -> State | None:
    try:
        return State(**json.loads((RUN / "state.json").read_text()))
    except FileNotFoundError:
        return None


def _own() -> contextlib.AbstractContextManager[None]:
    def refuse() -> None:
        raise ClusterError("Another dev/cluster of this checkout is at work.", hint="Wait for it.")

    return locked(RUN.with_suffix(".lock"), refuse)


def _require_machine() -> None:
    if not sys.platform.startswith("linux"):
        raise ClusterError(
            f"Kubernetes' node runs on Linux only, and this is {sys.platform}.", hint=FOREIGN
        )
    if os.geteuid() != 0:
        raise ClusterError("Only root may make the namespaces of a node.", hint=FOREIGN)
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = {
        tool: package for tool, package in TOOLS.items() if not shutil.which(tool, path=places)
    }
    if absent:
        raise ClusterError(
            f"These programs are missing: {', '.join(absent)}.",
            hint=f"Install them: apt-get install {' '.join(dict.fromkeys(absent.values()))}",
        )
    if build.missing() and shutil.which("go") is None:
        raise ClusterError("There is no Go on PATH, from which Kubernetes is built.", hint=FOREIGN)


def _start(programs: Path) -> tuple[State, subprocess.Popen[bytes]]:
    cgroup = f"inference-{RUN.name}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings.write(RUN, programs, port, cgroup)
        state = State(port, cgroup)
        # before anything begins, so that whatever is left can be found
        (RUN / "state.json").write_text(json.dumps(vars(state)))
        cgroups.create(cgroup)
        node = [sys.executable, "-m", "dev.kubernetes.node", str(RUN), str(programs)]
        apart = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork"]
        command = [
            *apart,
            "--kill-child",
            "--mount-proc",
            *node,
            "--listener",
            str(listener.fileno()),
        ]
        with (RUN / "logs/node.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
    return state, process


def _await(
    state: State,
    process: subprocess.Popen[bytes],
    condition: Callable[[State], bool],
    what: str,
) -> None:
    end = time.monotonic() + READY_SECONDS
    while not condition(state):
        ended = [name for name, part in _parts().items() if part["exit_code"] is not None]
        if process.poll() is not None:
            ended.append("node")
        if ended:
            log = RUN / f"logs/{ended[0]}.log"
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise ClusterError(f"{ended[0]} ended:\n" + "\n".join(last))
        if time.monotonic() > end:
            raise ClusterError(f"{what} was not ready after {READY_SECONDS:.0f} s.")
        time.sleep(0.1)


def _api_answers(state: State) -> bool:
    return _ask(state, "/readyz") is not None


def _node_is_ready(state: State) -> bool:
    text = _ask(state, f"/api/v1/nodes/{settings.NODE}")
    conditions = json.loads(text)["status"].get("conditions", ()) if text else ()
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    # pods are refused until their namespace has its account
    return is_ready and bool(_ask(state, "/api/v1/namespaces/default/serviceaccounts/default"))


def _ask(state: State, path: str) -> str | None:
    """Return what the API server answers, or nothing while it does not."""
    try:
        context = ssl.create_default_context(cafile=str(RUN / "pki/apiserver.crt"))
        config = json.loads(kubeconfig_path().read_text())
        token = config["users"][0]["user"]["token"]
        request = urllib.request.Request(
            f"https://localhost:{state.port}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def _parts() -> dict[str, dict[str, Any]]:
    try:
        return dict(json.loads((RUN / PARTS).read_text()))
    except FileNotFoundError:
        return {}


def _pause_image(programs: Path) -> Path:
    path = programs / "pause.tar"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            layer = Path(folder, "layer.tar")
            archive.write_layer(layer, {"/pause": programs / "pause"})
            image = archive.ImageSpec([settings.PAUSE_IMAGE], [layer], entrypoint=["/pause"])
            archive.write_images(path, [image])
    return path


def _load(programs: Path, image: Path) -> None:
    # the last is the first process inside; before it stands `unshare`, which is outside
    enter = ["nsenter", "--target", str(_processes()[-1]), "--mount", "--pid", "--net"]
    command = [
        *enter,
        str(programs / "ctr"),
        f"--address={settings.CONTAINERD}",
        "--namespace=k8s.io",
        "images",
        "import",
        "--local",
        "-",
    ]
    with image.open("rb") as content:
        done = subprocess.run(
            command,
            stdin=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ClusterError(f"{image} cannot be loaded: {done.stdout.strip()[-500:]}")


def _load_foreign(context: str, image: Path) -> None:
    kind, _, name = context.partition("-")
    commands = {
        "kind": ["kind", "load", "image-archive", str(image), "--name", name],
        "k3d": ["k3d", "image", "import", str(image), "--cluster", name],
    }
    if kind not in commands:
        raise ClusterError(
            f"How images get to the nodes of {context!r} is not known.",
            hint="Load them as its documentation says; kind- and k3d- contexts are known.",
        )
    subprocess.run(commands[kind], check=True)


def _processes() -> list[int]:
    """Return the processes that hold the namespaces, parents first: `unshare` and its child."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"dev.kubernetes.node" in words and os.fsencode(RUN) in words:
                found.append((words[0] != b"unshare", int(path.parent.name)))
    return [pid for _, pid in sorted(found)]


def _clean() -> None:
    """End what runs and remove the folder."""
    _kill()
    if RUN.exists():
        shutil.rmtree(RUN)


def _kill() -> None:
    """End all processes, and with them the mounts and the network."""
    end = time.monotonic() + KILL_SECONDS
    while pids := _processes():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise ClusterError(f"These processes do not end: {pids}")
        time.sleep(0.02)
    state = read_state()
    busy = cgroups.remove(state.cgroup, KILL_SECONDS) if state else []
    if busy:
        raise ClusterError(f"These control groups still have processes: {busy[:3]}")
