"""Images as tar files, in the form of `docker save`: what containerd imports without a registry."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class ImageSpec:
    """An image.

    Args:
        names: Each with its tag.
        layers: Tar files, not compressed, the lowest first.
        entrypoint: What its containers start.
        environ: Their variables.
    """

    names: Sequence[str]
    layers: Sequence[Path]
    entrypoint: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    def config(self, digests: Mapping[Path, str]) -> bytes:
        """Return its configuration, as the OCI image specification (1.1) has it."""
        config: dict[str, Any] = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {
                "Entrypoint": list(self.entrypoint),
                "Env": [f"{name}={value}" for name, value in self.environ.items()],
                "WorkingDir": "/",
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{digests[layer]}" for layer in self.layers],
            },
        }
        return json.dumps(config).encode()


def write_images(path: Path, images: Sequence[ImageSpec]) -> None:
    """Write images into one tar file; a layer that several have is there once."""
    digests = {layer: _digest(layer) for image in images for layer in image.layers}
    manifest = []
    with tarfile.open(path, "w") as archive:
        for image in images:
            config = image.config(digests)
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            layers = [f"{digests[layer]}.tar" for layer in image.layers]
            _add(archive, name, config)
            manifest.append({"Config": name, "RepoTags": list(image.names), "Layers": layers})
        for layer, digest in digests.items():
            archive.add(layer, arcname=f"{digest}.tar")
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def write_layer(path: Path, files: Mapping[str, Path]) -> None:
    """Write a layer with programs, at the paths that are the keys."""
    with tarfile.open(path, "w") as archive:
        for place, file in files.items():
            member = archive.gettarinfo(file, arcname=place.lstrip("/"))
            member.uid = member.gid = 0
            member.mode = 0o755
            with file.open("rb") as content:
                archive.addfile(member, content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
