"""Refuses keywords that a call does not take, and suggests the right ones.

Python's own message names only the first wrong keyword, and suggests no other. Standard library
only; the client and the pod layer use this module.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .errors import ArgumentError

__all__ = ["nearest", "refuse_unknown", "spelling"]

MAX_LISTED = 12
"""Maximum number of names in a message that has no suggestion."""


def refuse_unknown(
    call: str,
    given: Iterable[str],
    known: Collection[str],
    *,
    advice: Callable[[str], str] = lambda _: "",
) -> None:
    """Refuse every keyword that is not known.

    Args:
        call: The call, such as `VLLM(…)`.
        given: The keywords of the call.
        known: The keywords that it takes.
        advice: Returns the right place of a keyword that belongs elsewhere, else an empty text.

    Raises:
        ArgumentError: Lists each unknown keyword with its replacement.
    """
    problems = [
        f"{name!r}: {advice(name) or _proposal(name, known)}" for name in given if name not in known
    ]
    if not problems:
        return
    if len(problems) == 1:
        raise ArgumentError(f"{call} has no keyword {problems[0]}")
    raise ArgumentError(f"{call} has no keywords of these names:", problems=problems)


def spelling(name: str) -> str:
    """Return what `nodeSelector`, `node_selector` and `NODE_SELECTOR` have in common."""
    return name.replace("_", "").replace("-", "").lower()


def nearest(name: str, known: Collection[str]) -> str:
    """Return the known name that is closest to `name`, or an empty text if none is similar."""
    # imported on use: only mistakes need it
    from difflib import get_close_matches

    spellings = {spelling(one): one for one in known}
    matches = get_close_matches(spelling(name), spellings, n=1, cutoff=0.6)
    return spellings[matches[0]] if matches else ""


def _proposal(name: str, known: Collection[str]) -> str:
    if meant := nearest(name, known):
        return f"did you mean {meant}=?"
    listed = ", ".join(sorted(known)[:MAX_LISTED])
    more = len(known) - MAX_LISTED
    return f"it takes {listed}{f' and {more} more' if more > 0 else ''}"
