"""The files that make up a model for Ollama: which of a directory's, under which names, with which digest.

Facts: ollama/ollama v0.33.3, `parser/parser.go` (filesForModel), `cmd/cmd.go`
(createRequestFileNames), `server/create.go` (detectModelTypeFromFiles: GGUF or safetensors, nothing
of PyTorch's own; parts of a split GGUF are put together), `convert/convert.go` (what stands beside
safetensors). Other than here, `ollama create` finds no adapter in a directory, and takes several
models in one for one.
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
ADAPTER_WEIGHTS = "adapter*.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
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
            weights = sorted(path.glob(ADAPTER_WEIGHTS))
            if not weights:
                raise _no_model(path, "adapter", ADAPTER_WEIGHTS)
            found += [_checked(file, path) for file in (*weights, *sorted(path.glob("*.json")))]
        elif path.suffix == ".safetensors" and path.is_file():
            found += [
                _checked(path, path.parent),
                _checked(_beside(path, ADAPTER_CONFIG), path.parent),
            ]
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
        raise _not_there(path, "which the Modelfile names")
    if path.is_dir():
        return [_checked(file, path) for file in _chosen(path)]
    if path.suffix == ".safetensors":
        raise InvalidSourceError(
            f"{path} is a model only together with the files beside it, such as config.json.",
            hint=f"Name the directory: {path.parent}.",
        )
    return [_checked(path, path.parent)]


def _beside(path: Path, name: str) -> Path:
    if not (found := path.with_name(name)).exists():
        raise _not_there(found, f"without which {path.name} is no adapter")
    return found


def _not_there(path: Path, which: str) -> SourceNotFoundError:
    listed = ", ".join(_listed(path.parent)) if path.parent.is_dir() else ""
    hint = f"There is {listed}." if listed else "Is its volume mounted here?"
    return SourceNotFoundError(f"{path}, {which}, is not there.", hint=hint)


def _chosen(directory: Path) -> list[Path]:
    """Return the files of a directory, as Ollama's own client chooses them, save that it takes every GGUF."""
    for pattern in WEIGHTS:
        if weights := sorted(directory.glob(pattern)):
            nested = sorted(directory.glob(f"*/{pattern}")) if pattern.startswith("model") else []
            beside = [file for other in BESIDE for file in sorted(directory.glob(other))]
            return [*weights, *nested, *beside]
    files = sorted(directory.glob("*.gguf")) or [
        file for file in sorted(directory.glob("*.bin")) if _is_gguf(file)
    ]
    models = {_PART.sub("", file.name) for file in files if PROJECTOR not in file.name.lower()}
    if len(models) > 1:
        raise InvalidSourceError(
            f"{directory} holds {len(models)} models: {', '.join(sorted(models)[:MAX_LISTED])}.",
            hint="Name the one that is meant: FROM ./<file>, or bring only it (include=).",
        )
    if not models:
        raise _no_model(directory, "model", *WEIGHTS)
    return files


def _is_gguf(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(len(GGUF)) == GGUF


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


def _no_model(directory: Path, kind: str, *weights: str) -> InvalidSourceError:
    listed = ", ".join(_listed(directory)) or "nothing"
    return InvalidSourceError(
        f"{directory} holds no {kind} that Ollama can read; it holds {listed}.",
        hint=f"Ollama reads *.gguf, {' and '.join(weights)}; weights of other formats, such as "
        "PyTorch's .bin and .pth, have to be converted first.",
    )


def _listed(directory: Path) -> Iterator[str]:
    names = sorted(entry.name for entry in directory.iterdir())
    yield from names[:MAX_LISTED]
    if len(names) > MAX_LISTED:
        yield f"{len(names) - MAX_LISTED} more"
