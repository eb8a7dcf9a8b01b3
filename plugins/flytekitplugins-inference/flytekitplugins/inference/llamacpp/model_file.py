"""Selects the GGUF file that the server loads.

A repository of GGUF files contains the same model in many quantisations, and other files as well.
The server takes one file. The user names it, or `model=` determines it; we never take the first of
several (kserve/kserve#5039).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator

from ..pod.model import Model, ObjectStoreModel, VolumeModel
from ..pod.names import path_problem

__all__ = ["file_problems", "gguf_file"]

_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf\Z")
"""A file of a split model; the server gets the first one (llama.cpp `llama_split_path`)."""
_WILD = re.compile(r"[*?\[]|/\Z")


def gguf_file(model: Model, named: str | None) -> str | None:
    """Return the file to load, relative to the model's path.

    Args:
        model: The model's source.
        named: The user's `model_file`.

    Returns:
        The file; empty if the model's path is the file itself; `None` if it is ambiguous.
    """
    if named is not None:
        return named
    if isinstance(model, VolumeModel) and model.path.endswith(".gguf"):
        return ""
    if _is_one_file(model):
        return model.name
    files = [name for name in _included(model) if name.endswith(".gguf")]
    if any(map(_WILD.search, files)):
        return None
    firsts = [
        name for name in files if (match := _PART.match(name)) is None or match["part"] == "00001"
    ]
    return firsts[0] if len(firsts) == 1 else None


def file_problems(model: Model, named: str | None) -> Iterator[str]:
    """Yield the reasons why the file is missing, ambiguous or incomplete."""
    file = gguf_file(model, named)
    if file is None:
        yield (
            f"model_file is missing: which GGUF file of {model.name!r} to load is ambiguous; give "
            "model_file='….gguf', or include= with that one name"
        )
    elif file and (not file.endswith(".gguf") or path_problem(f"/{file}")):
        yield (
            f"model_file={file!r} is not a GGUF file relative to the model, such as "
            "'qwen2.5-0.5b-q4_k_m.gguf'"
        )
    elif file:
        yield from _part_problems(model, file)


def _part_problems(model: Model, file: str) -> Iterator[str]:
    """Yield problems of a split model: it is loaded by its first part and needs all parts."""
    needed, match = [file], _PART.match(file)
    if match:
        needed = [
            f"{match['stem']}-{part:05}-of-{match['parts']}.gguf"
            for part in range(1, int(match["parts"]) + 1)
        ]
        if file != needed[0]:
            yield (
                f"model_file={file!r} is a later part of a split model; give the first, "
                f"{needed[0]!r}"
            )
    missing = [name for name in needed if not _is_brought(model, name)]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield (
            f"model_file={file!r} needs {missing[0]!r}{others}, which "
            + (
                f"{model.name!r}, one file, does not bring; give the directory of all parts"
                if _is_one_file(model)
                else "include= and exclude= of the model leave out"
            )
        )


def _is_one_file(model: Model) -> bool:
    return isinstance(model, ObjectStoreModel) and model.name.endswith(".gguf")


def _is_brought(model: Model, name: str) -> bool:
    if _is_one_file(model) and name != model.name:
        return False
    included = not _included(model) or any(
        fnmatch.fnmatchcase(name, pattern) for pattern in _included(model)
    )
    return included and not any(
        fnmatch.fnmatchcase(name, pattern) for pattern in getattr(model, "exclude", ())
    )


def _included(model: Model) -> tuple[str, ...]:
    return tuple(getattr(model, "include", ()))
