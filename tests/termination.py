"""The termination message of a program that failed: a sentence, and below it a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def failure(root: Path, stderr: str | None = None) -> dict[str, Any]:
    """Return the JSON of `root`'s termination log; `stderr` must end with the same lines."""
    lines = (root / "termination-log").read_text(encoding="utf-8").splitlines()
    fields: dict[str, Any] = json.loads(lines[-1])
    assert set(fields) == {"version", "program", "error", "exit_code", "message", "hint"}
    (sentence,) = lines[:-1]
    assert sentence.startswith(f"{fields['program']} failed: "), sentence
    if stderr is not None:
        assert json.loads(stderr.splitlines()[-1]) == fields
        assert stderr.splitlines()[-2].startswith(f"{fields['program']} failed: ")
    return fields
