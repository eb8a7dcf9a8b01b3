"""Which GGUF file the server is to load.

A repository of GGUF files holds the same model in many quantisations, and its other files as well.
The server takes one file, so it is named, or follows from what is brought; it is never the first of
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
"""One of the files of a split model; the server is given the first (llama.cpp
`llama_split_path`)."""
_WILD = re.compile(r"[*?\[]|/\Z")


def gguf_file(model: Model, named: str | None) -> str | None:
    """Return the file to load, relative to where the model is found.

    Args:
        model: Where the model comes from.
        named: What the user said.

    Returns:
        The file; empty when what the server finds there is the file itself; `None` when it cannot
        be told.
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
    """Yield why there is no such file, or not one."""
    file = gguf_file(model, named)
    if file is None:
        yield (
            f"model_file is missing: which GGUF file of {model.name!r} is to be loaded cannot be "
            "told, and the server "
            "would not choose the one you mean; give model_file='….gguf', or include= with that "
            "one name"
        )
    elif file and (not file.endswith(".gguf") or path_problem(f"/{file}")):
        yield (
            f"model_file={file!r} is not a GGUF file relative to the model, such as "
            "'qwen2.5-0.5b-q4_k_m.gguf'"
        )
    elif file:
        yield from _part_problems(model, file)


def _part_problems(model: Model, file: str) -> Iterator[str]:
    """A split model is loaded by its first part, and needs all of them."""
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
