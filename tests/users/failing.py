"""A user's module: tasks whose functions raise, for a container's entry point."""

from __future__ import annotations

from flytekit import task

from flytekitplugins.inference import errors

from .minimal import ECHO


@task(task_config=ECHO)
def raises(word: str) -> str:
    if word:
        raise getattr(errors, word)("it went away", hint="Look.")
    return word


@task(task_config=ECHO)
async def raises_async(word: str) -> str:
    if word:
        raise getattr(errors, word)("it went away", hint="Look.")
    return word
