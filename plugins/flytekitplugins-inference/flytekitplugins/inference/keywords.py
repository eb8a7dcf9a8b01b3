"""Keywords that a call does not take: refused with the name that was meant.

Python's own message names the first wrong keyword only, and nothing that could replace it. Standard
library only, and read by the client and by the pod layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .errors import UnknownKeywordError

__all__ = ["refuse_unknown", "spelling"]

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
        UnknownKeywordError: Lists each unknown keyword with what to give instead.
    """
    problems = [
        f"{name!r}: {advice(name) or _nearest(name, known)}" for name in given if name not in known
    ]
    if not problems:
        return
    if len(problems) == 1:
        raise UnknownKeywordError(f"{call} has no keyword {problems[0]}.")
    raise UnknownKeywordError(f"{call} has no keywords of these names:", problems=problems)


def spelling(name: str) -> str:
    """Return what `nodeSelector`, `node_selector` and `NODE_SELECTOR` have in common."""
    return name.replace("_", "").replace("-", "").lower()


def _nearest(name: str, known: Collection[str]) -> str:
    """Return which of the known names may be meant."""
    from difflib import get_close_matches  # needed for mistakes only

    spellings = {spelling(one): one for one in known}
    matches = get_close_matches(spelling(name), spellings, n=1, cutoff=0.7)
    if matches:
        return f"did you mean {spellings[matches[0]]}=?"
    listed = ", ".join(sorted(known)[:MAX_LISTED])
    more = len(known) - MAX_LISTED
    return f"it takes {listed}{f' and {more} more' if more > 0 else ''}"
