"""Refuses addresses where a local file is expected: as a path, `s3://…` is a directory `s3:`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...errors import UnsupportedError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""A scheme has two letters at least: `C:/` is a drive. `Path` makes `s3:/` of `s3://`."""


def local_path(argument: str, value: str | os.PathLike[str], hint: str) -> Path:
    """Return the path of a local file.

    Args:
        argument: The argument's name, for the message.
        value: A path, or an address `file://…`.
        hint: What to do about another address.

    Raises:
        UnsupportedError: It is the address of a store or a web server.
    """
    text = os.fspath(value)
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    if _ADDRESS.match(text):
        raise UnsupportedError(
            f"{argument}={text!r} is an address; a batch works with local files.", hint=hint
        )
    return Path(text)
