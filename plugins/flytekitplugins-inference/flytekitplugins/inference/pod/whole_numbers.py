"""Converts whole numbers that a user gave as text, such as `gpu="1"`.

Configuration files and environment variables hold texts, and the published plugin's examples write
them. They are converted once, when a description is created; all later code sees numbers only.
"""

from __future__ import annotations

import re
from dataclasses import fields
from types import UnionType
from typing import Any, Union, get_args, get_origin

__all__ = ["read_whole_numbers"]

_PLAIN = re.compile(r"(0|[1-9][0-9]{0,17})\Z")
"""Decimal digits of ASCII, and nothing that could be meant otherwise: no sign, space, leading zero
or fraction."""


def read_whole_numbers(instance: Any) -> None:
    """Replace plain texts by their numbers where a frozen dataclass declares its field as `int`.

    A field that takes texts too (`int | float | str`, a quantity) keeps its own grammar, and any
    other text stays for the checks, which repeat what was given.
    """
    for field in fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, str) and _is_whole_number(field.type) and _PLAIN.match(value):
            object.__setattr__(instance, field.name, int(value))


def _is_whole_number(declared: Any) -> bool:
    """Whether a declaration admits `int` and no `str`.

    It is a text under `from __future__ import annotations`.
    """
    if isinstance(declared, str):
        kinds = {part.strip() for part in declared.split("|")}
    else:
        alternatives = (
            get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
        )
        kinds = {getattr(kind, "__name__", "") for kind in alternatives}
    return "int" in kinds and "str" not in kinds
