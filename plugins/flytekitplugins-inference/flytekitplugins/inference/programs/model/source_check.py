"""Whether a start of the model loader can succeed, told within seconds.

Nothing is downloaded, and nothing written. Asks what `Fetcher.fetch` asks, by the same code, up to
where it would begin to write.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import InferenceError, SourceUnavailableError
from ...facts.address import scheme_of
from ..preflight import combined, memory_problems, space_problems, variable_problems, write_problems
from ..start_budget import telling
from .sources import InputModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..retry import Retry
    from .fetcher import Fetcher
    from .targets import Target

RETRY_SECONDS = 11.0
"""For so long a source is tried again, all of them together."""
ANSWER_SECONDS = 8.0
"""For so long one may be silent: that is time for two tries, and about 20 s are over when the last
one is."""
MAX_BACKOFF_SECONDS = 2.0
MIN_MEMORY_BYTES = 32 * 1024 * 1024
"""With less nothing comes over the network: a hub's and S3's client alone take 31 and 37 MiB, a
download 41 and 44.

Measured as anonymous memory, which the kernel cannot take back; huggingface_hub 2.4, botocore 1.43,
Python 3.11.
"""


def check_retry(retry: Retry) -> Retry:
    """Return `retry` with short waits and an end, counted from now."""
    return replace(
        retry, max_backoff_seconds=MAX_BACKOFF_SECONDS, until=time.monotonic() + RETRY_SECONDS
    )


def check(
    targets: Sequence[Target],
    fetcher: Fetcher,
    *,
    cache: Path,
    variables: Sequence[str],
    environ: Mapping[str, str],
) -> None:
    """Check everything.

    Args:
        targets: What the real run will publish.
        fetcher: Looks at the sources. Its `Retry` has an end.
        cache: Where complete versions go.
        variables: Environment variables that must hold something.
        environ: They are there.

    Raises:
        InferenceError: Something does not hold; names all of it. Of the kind of the first that no
            rerun would mend.
    """
    # without these a source is not worth asking: it would refuse for that reason, or this process
    # would be killed
    problems = variable_problems(variables, environ)
    if any(scheme_of(target.source.label) != "file" for target in targets):
        problems += memory_problems(MIN_MEMORY_BYTES)
    if problems:
        raise combined(problems)
    needed = 0
    written: list[Path] = []
    for target in targets:
        try:
            with telling(lambda: f"{target.source.label} was being checked."):  # noqa: B023 (called in the block)
                needed += _missing_bytes(target, fetcher, written)
        except InferenceError as error:
            problems.append(error)
            if isinstance(error, SourceUnavailableError):
                break  # the time is up
    problems += write_problems(written)
    problems += space_problems(cache, needed - fetcher.cache.prunable_bytes(needed))
    if problems:
        raise combined(problems)
    fetcher.say(f"check passed missing_bytes={needed}")


def _missing_bytes(target: Target, fetcher: Fetcher, written: list[Path]) -> int:
    """Return the bytes to fetch of `target`; if there are any, add its directory to `written`."""
    if isinstance(target.source, InputModel):
        fetcher.say(
            f"unchecked target={target.name} reason='the inputs of the task are not here yet'"
        )
        return 0
    resolution = fetcher.resolve(target.source, target.selection, target.check)
    size = fetcher.missing_bytes(resolution)
    if not resolution.is_cached:
        written.append(resolution.version.path)
    fetcher.say(
        f"checked target={target.name} source={target.source.label} "
        f"revision={resolution.version.revision} "
        f"cache={resolution.is_cached} missing_bytes={size}"
    )
    return size
