"""A dataclass's docstring with its fields: meaning, type and default. Imported by `help()` only."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Any

__all__ = ["field_texts", "own_texts", "with_fields"]

WIDTH = 96


def with_fields(cls: type, text: str) -> str:
    """Return a class's docstring, followed by the fields that its constructor takes."""
    summary = inspect.cleandoc(text) or f"{cls.__name__}."
    if not is_dataclass(cls):
        return summary
    texts = field_texts(cls)
    parameters = [field for field in fields(cls) if field.init]
    lines = [_entry(field, texts.get(field.name, "")) for field in _own_first(cls, parameters)]
    return "\n".join([summary, "", "Fields:", *lines]) if lines else summary


def field_texts(cls: type) -> dict[str, str]:
    """Return the text below each field, of the class itself or else of its nearest base."""
    texts: dict[str, str] = {}
    for base in cls.__mro__:
        for name, text in own_texts(base).items():
            texts.setdefault(name, text)
    return texts


@cache
def own_texts(cls: type) -> dict[str, str]:
    """Return the text below each annotated name of a class, and nothing without its source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _own_first(cls: type, parameters: list[Field[Any]]) -> list[Field[Any]]:
    """Return fields in reading order: the class's own, then those of its bases."""
    classes = list(cls.__mro__)

    def home(field: Field[Any]) -> int:
        owners = (
            index
            for index, base in enumerate(classes)
            if field.name in vars(base).get("__annotations__", {})
        )
        return min(owners, default=len(classes))

    return sorted(parameters, key=home)


def _entry(field: Field[Any], text: str) -> str:
    declared = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
    head = f"    {field.name} ({declared}, {_default(field)})"
    if not text:
        return head
    return textwrap.fill(
        f"{head}: {text}",
        WIDTH,
        subsequent_indent=" " * 8,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"default {field.default!r}"
    if field.default_factory is not MISSING:
        return f"default {field.default_factory()!r}"
    return "required"
