"""`Report`: a page and its numbers, and the two files for them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data import ReportData

__all__ = ["HTML_NAME", "JSON_NAME", "Report"]

HTML_NAME = "inference-report.html"
JSON_NAME = "inference-report.json"


@dataclass(frozen=True)
class Report:
    """What some servers did, at one moment.

    The page is built when it is first read, with charts if matplotlib is installed (the extra
    `report`).
    """

    data: ReportData
    """The numbers; `data.to_json()` is written beside the page."""

    @cached_property
    def fragment(self) -> str:
        """The page without `<html>` around it, for a Deck or another page.

        It is below 1 MiB and brings its own style.
        """
        from .page import fragment

        return fragment(self.data)

    @cached_property
    def html(self) -> str:
        """The page: one file that opens without a network."""
        from .page import document

        return document(self.fragment)

    def write(self, directory: str | Path) -> Path:
        """Write `inference-report.html` and `inference-report.json` into a directory.

        The directory is created if it does not exist.

        Returns:
            The page.

        Raises:
            OSError: If they cannot be written; no partial file is left.
        """
        place = Path(directory)
        place.mkdir(parents=True, exist_ok=True)
        _write(place / JSON_NAME, self.data.to_json())
        _write(place / HTML_NAME, self.html)
        return place / HTML_NAME

    def _repr_html_(self) -> str:
        return self.fragment


def _write(path: Path, text: str) -> None:
    # in the same directory, because a rename is atomic only within one file system
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        temporary.chmod(0o644)  # with mkstemp's 0600, readers of a shared folder could not open it
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
