"""A container runtime for the tests alone: podman's service with its own store, locks and socket.

No registry is asked for anything. The image is an empty file system of a few kilobytes; its
programs are those of this machine, mounted by the manifests (`host_volumes`).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from patience import patient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE = "localhost/inference-test:machine"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ANSWER_SECONDS = 20.0
_LINKS = ("bin", "sbin", "lib", "lib64")  # to /usr, as Debian has had them since 12
_EMPTY = ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "var")
_COPIED = ("/etc/passwd", "/etc/group", "/etc/ld.so.cache")


class NoRuntimeError(Exception):
    """There is none here, and why."""


def host_volumes() -> dict[str, str]:
    """Return this machine's directories with its programs and this package, by volume name."""
    package = Path(__file__).parents[2]
    places = [Path("/usr"), Path(sys.prefix), Path(sys.base_prefix).resolve(), package]
    return {f"machine-{number}": str(place) for number, place in enumerate(dict.fromkeys(places))}


@contextlib.contextmanager
def podman_service(directory: Path, registry: str = "") -> Iterator[str]:
    """Run the service as long as the block lasts; give its address.

    Args:
        directory: Where everything of it lies.
        registry: A registry that is spoken to without TLS.

    Raises:
        NoRuntimeError: It cannot run here.
    """
    if not sys.platform.startswith("linux") or shutil.which("podman") is None:
        raise NoRuntimeError("podman is not installed: dev/packages installs it")
    if not Path("/bin").is_symlink():
        raise NoRuntimeError(
            "/bin is no link to /usr/bin, so /usr alone does not hold this machine's programs"
        )
    environment = _configure(directory, registry)
    address = f"unix://{directory}/podman.sock"
    options = (
        "--tmpdir",
        str(directory / "tmp"),
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "file",
    )
    command = ["podman", *options, "system", "service", "--time", "0", address]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stderr=log, cwd=directory) as service,
    ):
        try:
            _wait(directory / "podman.sock", service, directory / "log")
            import_image(address, IMAGE)
            _try(address)
            yield address
        finally:
            service.terminate()


def _configure(directory: Path, registry: str) -> dict[str, str]:
    """Write podman's configuration; return the environment that leads to it."""
    # Unless told otherwise podman asks for 1048576 of each, which not every machine gives (no
    # CAP_SYS_RESOURCE).
    wanted = {"nofile": (resource.RLIMIT_NOFILE, 20_000), "nproc": (resource.RLIMIT_NPROC, 4096)}
    given = {
        name: _lower(resource.getrlimit(number)[1], most) for name, (number, most) in wanted.items()
    }
    ulimits = ", ".join(f'"{name}={limit}:{limit}"' for name, limit in given.items())
    runtime = (
        '\nruntime = "runc"' if shutil.which("runc") else ""
    )  # crun before 1.9 refuses cgroups of both versions
    (directory / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits = [{ulimits}]\n[engine]\nlock_type = "file"{runtime}\n'
    )
    insecure = f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n' if registry else ""
    (directory / "registries.conf").write_text(insecure)
    (directory / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{directory / "root"}"\nrunroot = '
        f'"{directory / "run"}"\n'
    )
    return {
        **os.environ,
        "CONTAINERS_CONF": str(directory / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf"),
        "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
    }


def _lower(hard: int, most: int) -> int:
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def _wait(socket: Path, service: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + patient(_ANSWER_SECONDS)
    while not socket.exists():
        if service.poll() is not None or time.monotonic() > give_up:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise NoRuntimeError(
                f"podman's service does not start: {lines[-1] if lines else 'it says nothing'}"
            )
        time.sleep(0.05)


def import_image(address: str, name: str, *changes: str, programs: Sequence[str] = ()) -> None:
    """Make an image of an empty file system.

    Args:
        address: The runtime's.
        name: Repository and tag.
        changes: More instructions of a Dockerfile, such as `USER 1000`.
        programs: Programs of this machine that it holds, with their libraries.
    """
    import docker

    client = docker.APIClient(base_url=address, version="auto")
    path = f"ENV PATH={Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    answer = client.import_image_from_data(_file_system(programs), changes=[path, *changes])
    image = json.loads(answer.splitlines()[-1])["status"]  # podman 4 does not take the name at once
    client.tag(image, *name.rsplit(":", 1))
    client.close()


def _try(address: str) -> None:
    """Run a container that does nothing.

    Raises:
        NoRuntimeError: It does not run.
    """
    import docker

    client = docker.APIClient(base_url=address, version="auto")
    try:
        host = client.create_host_config(binds=["/usr:/usr:ro"], network_mode="host")
        container = client.create_container(IMAGE, ["true"], host_config=host)
        client.start(container)
        client.wait(container)
        client.remove_container(container, force=True)
    except docker.errors.APIError as error:
        raise NoRuntimeError(f"podman starts no container here: {error.explanation}") from error
    finally:
        client.close()


def _file_system(programs: Sequence[str] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in _EMPTY:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        for name in _LINKS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(entry)
        for name in _COPIED:
            archive.add(name)
        for name in (*programs, *_libraries(programs)):
            archive.add(
                Path(name).resolve(), arcname=name if name.startswith("/usr") else f"/usr{name}"
            )
    return buffer.getvalue()


def _libraries(programs: Sequence[str]) -> list[str]:
    listed = [
        subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for program in programs
    ]
    words = [word for listing in listed for word in listing.stdout.split()]
    return list(dict.fromkeys(word for word in words if word.startswith("/")))


class Registry:
    """A registry of this machine with one image, which prints how many arguments it has.

    It counts what is asked of it.

    It speaks what a pull needs of the distribution API (OCI distribution-spec v1.1, "Pulling").
    """

    def __init__(self) -> None:
        self.pulls = 0
        layer = _file_system()
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                os.uname().machine, os.uname().machine
            ),
            "os": "linux",
            "config": {"Entrypoint": ["/usr/bin/env"], "Cmd": ["echo", "from the registry"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        blobs = [json.dumps(config).encode(), layer]
        kinds = [
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar",
        ]
        described = [
            {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}
            for kind, blob in zip(kinds, blobs, strict=True)
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        self._blobs = {_digest(blob): blob for blob in blobs}
        self._manifest = json.dumps(manifest).encode()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        kind, _, reference = path.removeprefix("/v2/").rpartition("/")
        if path == "/v2/":
            return 200, "application/json", b"{}"
        if kind == "tools/echo/manifests" and reference in ("1", _digest(self._manifest)):
            self.pulls += 1
            return 200, _MANIFEST, self._manifest
        if kind == "tools/echo/blobs" and reference in self._blobs:
            return 200, "application/octet-stream", self._blobs[reference]
        return (
            404,
            "application/json",
            b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such image"}]}',
        )


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextlib.contextmanager
def serve(registry: Registry) -> Iterator[str]:
    """Serve a registry as long as the block lasts; give its `host:port`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = registry.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", _digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
