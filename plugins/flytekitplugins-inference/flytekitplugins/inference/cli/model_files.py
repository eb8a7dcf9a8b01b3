"""Reads a model's `config.json`, and the size of its weights from the files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ConfigError, UsageError
from ..fit.architecture import Architecture, read_architecture
from ..fit.weights import weight_bytes_of_index

__all__ = ["read_model"]

INDEX = "model.safetensors.index.json"


def read_model(place: str) -> tuple[Architecture, int | None]:
    """Return a model's architecture, and the bytes of its weights if files tell them.

    Args:
        place: The directory of the model, or its `config.json`.

    Raises:
        UsageError: If there is no such file.
        ConfigError: If a file is not what it should be.
    """
    path = Path(place)
    config = path / "config.json" if path.is_dir() else path
    if not config.is_file():
        raise UsageError(
            f"There is no file {str(config)!r}.",
            hint="Give a model's directory or its config.json; hf download owner/name config.json "
            "brings it.",
        )
    return read_architecture(_object(config)), _weights(config.parent)


def _weights(folder: Path) -> int | None:
    index = folder / INDEX
    if index.is_file():
        return weight_bytes_of_index(_object(index))
    # a small model is one file and has no index
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    return sum(sizes) or None


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{str(path)!r} holds a {type(value).__name__}, not an object.")
    return value
