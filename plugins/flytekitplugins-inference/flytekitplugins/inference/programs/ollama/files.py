"""The files that make up a model for Ollama: which of a directory's, under which names, with which digest.

Facts: ollama/ollama v0.33.0-rc2, `parser/parser.go` (filesForModel), `cmd/cmd.go`
(createRequestFileNames), `server/create.go` (detectModelTypeFromFiles: GGUF or safetensors; parts
of a split GGUF are put together).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InvalidSourceError, SourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

GGUF = b"GGUF"
LFS = b"version https://git-lfs"
PROJECTOR = "mmproj"
"""What llama.cpp's converter calls the file of a vision model that stands beside the model's
own."""
WEIGHTS = ("model*.safetensors", "consolidated*.safetensors")
BESIDE = ("*.json", "*/*.json", "chat_template.jinja", "tokenizer.model", "*/tokenizer.model")
BLOCK_BYTES = 1024 * 1024
MAX_LISTED = 10
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf\Z)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """One file of a model."""

    name: str
    """Relative to the model's directory; what the server tells its format by."""
    path: Path


def model_files(paths: Iterable[Path]) -> list[ModelFile]:
    """Return the files of a model that lies at `paths`: files, or one directory.

    Raises:
        SourceNotFoundError: One is not there.
        InvalidSourceError: It is no model that Ollama can read, or a choice of several.
    """
    found = [file for path in paths for file in _files_at(path)]
    names = [file.name for file in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidSourceError(f"Two of the model's files are called {name!r}.")
    return found


def adapter_files(paths: Iterable[Path]) -> list[ModelFile]:
    """Return the files of an adapter: a GGUF file, or a directory of safetensors.

    Raises:
        SourceNotFoundError: It is not there.
        InvalidSourceError: It is no adapter that Ollama can read.
    """
    found: list[ModelFile] = []
    for path in paths:
        if path.is_dir() and not any(path.glob("*.gguf")):
            weights = sorted(path.glob("adapter*.safetensors"))
            if not weights:
                raise _no_model(path, "adapter")
            found += [_checked(file, path) for file in (*weights, *sorted(path.glob("*.json")))]
        else:
            found += _files_at(path)
    return found


def digest_of(path: Path, done: Callable[[int], None]) -> str:
    """Return `sha256:…` of a file, and tell how many bytes each step has read."""
    found = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            found.update(block)
            done(len(block))
    return f"sha256:{found.hexdigest()}"


def _files_at(path: Path) -> list[ModelFile]:
    if not path.exists():
        beside = (
            sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        )
        hint = (
            f"There is {', '.join(beside[:MAX_LISTED])}."
            if beside
            else "Is its volume mounted here?"
        )
        raise SourceNotFoundError(f"{path}, which the Modelfile names, is not there.", hint=hint)
    if not path.is_dir():
        return [_checked(path, path.parent)]
    return [_checked(file, path) for file in _chosen(path)]


def _chosen(directory: Path) -> list[Path]:
    """Return the files of a directory, as Ollama's own client chooses them, save that it takes every GGUF."""
    for pattern in WEIGHTS:
        if weights := sorted(directory.glob(pattern)):
            nested = sorted(directory.glob(f"*/{pattern}")) if pattern.startswith("model") else []
            beside = [file for other in BESIDE for file in sorted(directory.glob(other))]
            return [*weights, *nested, *beside]
    files = sorted(directory.glob("*.gguf"))
    models = {_PART.sub("", file.name) for file in files if PROJECTOR not in file.name.lower()}
    if len(models) > 1:
        raise InvalidSourceError(
            f"{directory} holds {len(models)} models: {', '.join(sorted(models)[:MAX_LISTED])}.",
            hint="Name the one that is meant: FROM <directory>/<file>, or bring only it "
            "(include=).",
        )
    if not models:
        raise _no_model(directory, "model")
    return files


def _checked(file: Path, root: Path) -> ModelFile:
    """Return a file, unless it is only a pointer to one, or says that it is a GGUF and is not."""
    with file.open("rb") as content:
        head = content.read(len(LFS))
    if head == LFS:
        raise InvalidSourceError(
            f"{file} is a pointer of Git LFS, not the file.", hint="Bring the file itself."
        )
    if file.suffix not in (".safetensors", ".json", ".jinja", ".model") and not head.startswith(
        GGUF
    ):
        raise InvalidSourceError(
            f"{file} is neither a GGUF file nor of safetensors; it begins with {head[:8]!r}."
        )
    return ModelFile(name=file.relative_to(root).as_posix(), path=file)


def _no_model(directory: Path, kind: str) -> InvalidSourceError:
    listed = ", ".join(_listed(directory)) or "nothing"
    return InvalidSourceError(
        f"{directory} holds no {kind} that Ollama can read; it holds {listed}.",
        hint="Ollama reads GGUF and safetensors; other weights have to be converted first.",
    )


def _listed(directory: Path) -> Iterator[str]:
    names = sorted(entry.name for entry in directory.iterdir())
    yield from names[:MAX_LISTED]
    if len(names) > MAX_LISTED:
        yield f"{len(names) - MAX_LISTED} more"
