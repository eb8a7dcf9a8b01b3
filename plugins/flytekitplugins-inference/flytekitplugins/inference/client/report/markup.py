"""Builds HTML: every text is escaped, except the `Html` that this module creates."""

from __future__ import annotations

import html
import re

__all__ = ["Html", "clipped", "element", "join"]

MAX_TEXT = 300
"""Characters shown of a text from a server, a model or an input."""
_VOID = frozenset({"br", "hr", "meta"})
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
"""Characters that HTML forbids or that readers cannot see: control characters, unpaired surrogates,
changes of direction."""


class Html(str):
    """A text that is already HTML."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str | int | None) -> Html:
    """Return an element.

    Args:
        name: `p`.
        children: Texts, which are escaped, and `Html`, which is not.
        attributes: `class_="note"`; `_` stands for `-`; one at the end, for Python's own words, for
            nothing. `None` leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """Return parts in a row."""
    return Html(
        "".join(child if isinstance(child, Html) else _escaped(child) for child in children)
    )


def clipped(text: str, longest: int = MAX_TEXT) -> str:
    """Return a text, or its beginning and an ellipsis."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def _escaped(text: str) -> str:
    return html.escape(_UNSEEN.sub("\ufffd", text), quote=True)
