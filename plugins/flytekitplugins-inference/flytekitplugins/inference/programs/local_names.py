"""Local names for downloaded files: safe, unique, and the same on every run. Pure: no I/O.

A name from a store can be anything: absolute, `..`, control characters, undecodable bytes, longer
than a file system allows. Unusual characters are percent-encoded; a name that is too long or not
unique gets a hash after `~`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NAME_BYTES = 255
"""NAME_MAX of Linux file systems."""
MAX_PATH_BYTES = 2000
"""Maximum length of a relative path: PATH_MAX (4096) leaves room for any directory before it."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def safe_name(name: str) -> str:
    """Return `name` as one path component: UTF-8, not empty, of at most `MAX_NAME_BYTES`."""
    if name.strip(".") == "":  # "", ".", ".." and the like
        return name.replace(".", "%2E") or "unnamed"
    encoded = "".join(_encoded(char) if _is_unsafe(char) else char for char in name)
    return encoded if len(encoded.encode()) <= MAX_NAME_BYTES else _shorten(encoded, name)


def _is_unsafe(char: str) -> bool:
    return char == "/" or not char.isprintable()


def _encoded(char: str) -> str:
    return "".join(
        f"%{byte:02X}"
        for byte in char.encode("utf-8", "surrogateescape" if _is_escape(char) else "replace")
    )


def _is_escape(char: str) -> bool:
    """Whether `char` stands for an undecodable byte (PEP 383)."""
    return 0xDC80 <= ord(char) <= 0xDCFF


def _shorten(name: str, original: str) -> str:
    """Return `name` cut to fit, with a hash of `original` before its last extension."""
    suffix = PurePosixPath(name).suffix
    suffix = suffix if len(suffix.encode()) <= 32 else ""
    ending = f"~{_hash(original)}{suffix}"
    stem = name.encode()[: MAX_NAME_BYTES - len(ending.encode())].decode(errors="ignore")
    return stem + ending


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def relative_paths(keys: Iterable[str]) -> dict[str, str]:
    """Return a local relative path for each key of a directory.

    Args:
        keys: Names below the directory, `/` between their parts.

    Returns:
        Key to path. Each path stays inside the directory, no two are equal and none is the parent
        of another (a store can hold both `a` and `a/b`: the first becomes `a~<hash>`). A key that
        no other disturbs keeps its name.
    """
    ordered = sorted(set(keys))
    preferences = {key: _relative(key) for key in ordered}
    parents = {
        str(parent) for path in preferences.values() for parent in PurePosixPath(path).parents
    }
    names: dict[str, str] = {}
    unavailable = set(parents)
    for key in ordered:
        path = preferences[key]
        salt = key
        # the new name stays in the same directory, so it creates no further parent
        while path in unavailable:
            path = _renamed(preferences[key], salt)
            salt += "~"
        unavailable.add(path)
        names[key] = path
    return names


def _renamed(path: str, salt: str) -> str:
    name = PurePosixPath(path).name
    return str(PurePosixPath(path).with_name(safe_name(f"{name}~{_hash(salt)}")))


def _relative(key: str) -> str:
    path = "/".join(safe_name(part) for part in key.split("/") if part not in ("", "."))
    path = path or "unnamed"
    if len(path.encode()) > MAX_PATH_BYTES:
        path = f"~long/{_shorten(PurePosixPath(path).name, key)}"
    return path


def folder_name(path: tuple[str | int, ...]) -> str:
    """Return the name of the directory for the value at `path` of the inputs.

    Different paths have different names. Ordinary names read `rows.3.image`. Others have a hash
    behind `~`, a character that ordinary ones cannot have.
    """
    plain = all(isinstance(part, int) or _PLAIN.fullmatch(part) for part in path)
    name = ".".join(str(part) for part in path)
    if plain and len(name) <= 200:
        return name
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:100].lstrip(".")
    return f"{readable}~{_hash(repr(path))}"
