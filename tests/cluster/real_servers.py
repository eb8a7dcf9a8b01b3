"""Images of the real servers that `dev/servers` has installed, with a tiny model of each.

A server's environment lies in its image at the path that it has on this machine, with the
interpreter that it was made of; links lead to it from where the server's own image has it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from dev.kubernetes.archive import ImageSpec, write_images
from dev.kubernetes.files import CACHE, CHECKOUT
from dev.kubernetes.packages import write_root

from cluster.images import PACKAGES, made_file, version_of
from live.models import made
from live.test_triton import make_repository

SERVERS = CHECKOUT / ".venv/servers"
LINKS = {
    "llamacpp": "app/llama-server",
    "triton": "usr/local/bin/tritonserver",
    "mlserver": "usr/local/bin/mlserver",
}
"""Where the server's own image has its program."""
LIBRARIES = (*PACKAGES, "libffi8", "libgomp1", "libsqlite3-0", "libssl3", "libstdc++6")
_LEFT_OUT = re.compile(r"/(site-packages|test|idlelib|ensurepip)(/|$)|\.a$|__pycache__")
MAKE_REGRESSION = """
import sys, joblib, numpy as np
from sklearn.linear_model import LinearRegression
x = np.arange(4.0).reshape(-1, 1)
joblib.dump(LinearRegression().fit(x, 2 * x[:, 0]), sys.argv[1])
"""


def image_name(server: str) -> str:
    return f"localhost/real-{server}:1"


def model_image_name(server: str) -> str:
    return f"localhost/real-{server}-model:1"


def archive(server: str) -> Path:
    """Return the tar file with the images of a server and of its model."""
    folder = CACHE / "images"
    stamp = SERVERS / server / "stamp"
    root = made_file(folder, "libraries-of-servers", version_of(LIBRARIES), _write_libraries)
    base = Path(sys.base_prefix).resolve()
    python = made_file(folder, "python", version_of(sys.version, str(base)), _write_python)
    programs = made_file(
        folder, server, version_of(stamp, Path(__file__)), lambda path: _write_server(path, server)
    )
    own = version_of(Path(__file__))
    model = made_file(folder, f"{server}-model", own, lambda path: _write_model(path, server))
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    images = [
        ImageSpec([image_name(server)], [root, python, programs], environ=environ),
        ImageSpec([model_image_name(server)], [model]),
    ]
    version = version_of(root.name, python.name, programs.name, model.name)
    return made_file(folder, f"real-{server}", version, lambda path: write_images(path, images))


def _write_libraries(path: Path) -> None:
    write_root(path, LIBRARIES)


def _write_python(path: Path) -> None:
    """Write the interpreter, without what its user has installed into it."""
    base = Path(sys.base_prefix).resolve()
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "lib"):
            tar.add(base / name, arcname=str(base / name).lstrip("/"), filter=_needed)


def _write_server(path: Path, server: str) -> None:
    environment = SERVERS / server
    (program,) = (
        each for each in (environment / "bin").iterdir() if each.name == Path(LINKS[server]).name
    )
    with tarfile.open(path, "w") as tar:
        tar.add(environment, arcname=str(environment).lstrip("/"), filter=_executable)
        link = tarfile.TarInfo(LINKS[server])
        link.type, link.linkname = tarfile.SYMTYPE, str(program)
        tar.addfile(link)


def _write_model(path: Path, server: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _MODELS[server](folder)
        with tarfile.open(path, "w") as tar:
            tar.add(folder, arcname=".", filter=_readable)


def _write_gguf(folder: Path) -> None:
    model = made(_python("llamacpp"), "llama-gguf", cache=SERVERS / "models")
    (folder / "tiny.gguf").write_bytes((model / "model.gguf").read_bytes())


def _write_regression(folder: Path) -> None:
    target = folder / "double" / "model.joblib"
    target.parent.mkdir()
    command = [_python("mlserver"), "-c", MAKE_REGRESSION, str(target)]
    subprocess.run(command, check=True, capture_output=True)
    settings = '{"name": "double", "implementation": "mlserver_sklearn.SKLearnModel"}'
    (target.parent / "model-settings.json").write_text(settings)


def _write_repository(folder: Path) -> None:
    make_repository(folder, double=2)


_MODELS: dict[str, Any] = {
    "llamacpp": _write_gguf,
    "triton": _write_repository,
    "mlserver": _write_regression,
}


def _python(server: str) -> Path:
    return SERVERS / server / "bin/python"


def _needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    inside = member.name.partition("/lib/")[2]
    return None if _LEFT_OUT.search(f"/{inside}") else member


def _executable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Let everybody start everything: Triton gives its stub that right, which a user may not."""
    member.mode |= 0o755
    return member


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode |= 0o755 if member.isdir() else 0o644
    return member
