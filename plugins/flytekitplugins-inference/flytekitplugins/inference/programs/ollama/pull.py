"""One pull of a model by Ollama: what its lines say, how fast it goes, whether it stands still.

Facts: ollama/ollama v0.33.3, `server/images.go` (PullModel), `server/download.go`. The server keeps
what arrived, so that another pull goes on from there.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from ...errors import (
    InferenceError,
    ServerError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from ..command_line import PROGRESS_SECONDS, say
from .api import OllamaApi, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

QUIET_SECONDS = 1800.0
"""How long the server may work without a word: verifying, converting and loading report nothing
between."""
PULL_ERRORS: Mapping[str, type[InferenceError]] = {
    "pull model manifest: file does not exist": SourceNotFoundError,
    "pull model manifest: unauthorized: access denied": SourceForbiddenError,
    "unauthorized: access denied": SourceForbiddenError,
}
"""The errors inside a pull's stream that no repetition mends, word for word (`server/images.go`:
PullModel wraps Go's fs.ErrNotExist and errUnauthorized); the API has no code for them."""


class PullProgress:
    """Logs the progress of a pull or an upload every few seconds.

    Args:
        doing: What is being done.
        total: Bytes in all, where that is known beforehand.
    """

    def __init__(self, doing: str, total: int = 0) -> None:
        self._doing = doing
        self._total = total
        self.done = 0
        self._since = time.monotonic()
        self._next = time.monotonic() + PROGRESS_SECONDS
        self._before = 0

    def add(self, count: int) -> None:
        """Note that so many more bytes are done."""
        self.reach(self.done + count, self._total)

    def reach(self, done: int, total: int) -> None:
        """Note that so many bytes of so many are done."""
        self.done, now = done, time.monotonic()
        if now >= self._next:
            rate = max(done - self._before, 0) / (now - self._since) / 1e6
            say(
                "create_model",
                f"{self._doing} done_mb={done / 1e6:.0f} of_mb={total / 1e6:.0f} "
                f"mb_per_second={rate:.1f}",
            )
            self._since = now
            self._next = now + PROGRESS_SECONDS
            self._before = done


class PullWatch:
    """Adds up what a pull's lines say, and tells whether it stands still.

    A stalled download repeats its last line 16 times a second (`server/download.go`, Wait);
    verifying one says nothing.
    """

    def __init__(self) -> None:
        self.status = ""
        self.done = 0
        self.total = 0
        self._parts: dict[str, tuple[int, int]] = {}
        self._moved = time.monotonic()

    @property
    def is_pulling(self) -> bool:
        """Whether bytes are on their way."""
        return self.status.startswith("pulling")

    def still_seconds(self, event: Mapping[str, Any]) -> float:
        """Note one line and return for how long nothing has changed."""
        before = (self.status, self.done)
        self.status = str(event.get("status", ""))
        if digest := event.get("digest"):
            self._parts[str(digest)] = (int(event.get("completed", 0)), int(event.get("total", 0)))
        self.done = sum(done for done, _ in self._parts.values())
        self.total = sum(total for _, total in self._parts.values())
        if (self.status, self.done) != before:
            self._moved = time.monotonic()
        return time.monotonic() - self._moved


def pull_model(
    api: OllamaApi,
    name: str,
    progress: PullProgress,
    *,
    stall_seconds: float,
) -> None:
    """Have the server pull a model.

    Args:
        api: The server.
        name: The model.
        progress: Told how far it is.
        stall_seconds: How long a download may bring nothing.

    Raises:
        SourceUnavailableError: It broke off or stands still; the next one goes on from there.
        SourceNotFoundError: The registry has no such model.
        SourceForbiddenError: The registry does not give it.
        ServerError: Ollama refuses the name.
    """
    watch = PullWatch()
    stream = api.stream("/api/pull", {"model": name}, patience_seconds=stall_seconds)
    try:
        with contextlib.closing(stream.events()) as events:
            for event in events:
                if watch.still_seconds(event) > stall_seconds:
                    raise SourceUnavailableError(
                        f"Pulling {name} brought nothing for {stall_seconds:g} s."
                    )
                stream.patience_seconds = stall_seconds if watch.is_pulling else QUIET_SECONDS
                progress.reach(watch.done, watch.total)
    except RefusedError as error:
        raise _pull_error(name, error) from error
    if watch.status != "success":
        raise SourceUnavailableError(f"Pulling {name} broke off behind {watch.status!r}.")


def _pull_error(name: str, error: RefusedError) -> InferenceError:
    kind = PULL_ERRORS.get(error.text)
    if kind is SourceNotFoundError:
        return kind(
            f"Ollama's registry has no model {name}.",
            hint="Check name and tag at ollama.com. A repository of Hugging Face is "
            "hf.co/owner/name for Ollama, and "
            "model='hf://owner/name' for the model loader.",
        )
    if kind is SourceForbiddenError:
        return kind(
            f"Ollama may not pull {name}: {error.text}.",
            hint="A private model needs the server's key (~/.ollama/id_ed25519) in its owner's "
            "account, or is brought "
            "by the model loader: model=HuggingFaceModel(…).",
        )
    if error.status >= 400 and error.status < 500:
        return ServerError(f"Ollama refuses to pull {name}: {error.text}.")
    return SourceUnavailableError(
        f"Ollama cannot pull {name}: {error.text}.",
        hint="Does the pod reach the registry? A proxy is set by env={'HTTPS_PROXY': …}.",
    )
