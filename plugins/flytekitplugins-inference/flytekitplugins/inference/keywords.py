"""Keywords that a call does not take: refused with the name that was meant.

Python's own message names the first wrong keyword only, and nothing that could replace it. Standard
library only, and read by the client and by the pod layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .errors import ArgumentError

__all__ = ["nearest", "refuse_unknown", "spelling"]

MAX_LISTED = 12
"""Names that a message lists when none of them is near; more are not read."""


def refuse_unknown(
    call: str,
    given: Iterable[str],
    known: Collection[str],
    *,
    advice: Callable[[str], str] = lambda _: "",
) -> None:
    """Refuse every keyword that is not known.

    Args:
        call: What was called, such as `VLLM(…)`.
        given: The keywords of the call.
        known: Those that it takes.
        advice: Returns where a keyword belongs that is right in another place, else an empty text.

    Raises:
        ArgumentError: Lists each unknown keyword with what to give instead.
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
    """Return the known name that is meant, or an empty text when none is near."""
    from difflib import get_close_matches  # needed for mistakes only

    spellings = {spelling(one): one for one in known}
    matches = get_close_matches(spelling(name), spellings, n=1, cutoff=0.6)
    return spellings[matches[0]] if matches else ""


def _proposal(name: str, known: Collection[str]) -> str:
    if meant := nearest(name, known):
        return f"did you mean {meant}=?"
    listed = ", ".join(sorted(known)[:MAX_LISTED])
    more = len(known) - MAX_LISTED
    return f"it takes {listed}{f' and {more} more' if more > 0 else ''}"
