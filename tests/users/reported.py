"""A user's module with tasks that have a Deck, for test_deck.py.

Every supported flytekit can import it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from flytekit import current_context, task

from flytekitplugins.inference import ModelInferenceTemplate
from patience import patient

from .minimal import ECHO, ask


def _asked(template: ModelInferenceTemplate) -> int:
    """Have the record know of an answer, as a client would."""
    seen = template.endpoint.record.begin("GET /ask")
    answer = ask(template)
    seen.status = 200
    template.endpoint.record.end(seen)
    return int(answer["pid"])


@task(task_config=ECHO, enable_deck=True)
def reported() -> int:
    return _asked(ECHO)


@task(task_config=ECHO, enable_deck=True)
def fails() -> int:
    if _asked(ECHO):
        raise KeyError("<script>no</script>")
    return 0


@task(task_config=ECHO)
def plain() -> str:
    names = [
        thread.name for thread in threading.enumerate() if thread.name.startswith("inference-")
    ]
    return ",".join(names)


@task(task_config=ECHO, enable_deck=True)
def in_pod() -> str:
    return "done"


@task(task_config=ECHO, enable_deck=True)
def fails_in_pod() -> str:
    if threading.enumerate():
        raise KeyError("<script>no</script>")
    return ""


@task(task_config=ECHO, enable_deck=True)
def waits_for_deck() -> str:
    deck = Path(current_context().output_metadata_prefix) / "deck.html"
    deadline = time.monotonic() + patient(60)
    while not deck.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return deck.read_text(encoding="utf-8")
