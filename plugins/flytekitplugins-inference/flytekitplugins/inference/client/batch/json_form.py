"""Gives a form to values that JSON lacks, as they occur in rows and in the results of functions."""

from __future__ import annotations

import dataclasses
import os
from typing import Any


def as_json(value: Any) -> Any:
    """Return the form of a value that JSON lacks; the same in every process. For `json.dumps`.

    Arrays and columns become lists, models and dataclasses mappings, dates, paths and decimals
    texts. No library is imported: a method tells what a value can do.

    Raises:
        TypeError: The value has no such form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    for method in ("tolist", "to_list", "model_dump", "isoformat"):
        if callable(getattr(value, method, None)) and not isinstance(value, type):
            return getattr(value, method)()
    if isinstance(value, os.PathLike) or type(value).__module__ in ("decimal", "uuid", "fractions"):
        return str(value)
    raise TypeError(f"it contains a value of type {type(value).__name__}")


def copied(value: Any) -> Any:
    """Return a copy of a row's lists and mappings, so that a function may change what it gets."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if type(value) is list else value
