"""A user's module: tasks with a server, for test_task.py and for a container's entry point."""

from __future__ import annotations

import functools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flytekit import dynamic, map_task, task, workflow
from flytekit.types.file import FlyteFile

from flytekitplugins.inference import ModelInferenceTemplate

from .minimal import ECHO, SERVER, WITH_INPUTS, ask


@dataclass(frozen=True, kw_only=True)
class OwnTemplate(ModelInferenceTemplate):
    """A template type of the user's own."""

    word: str = "hello"


__all__ = ["ECHO", "SERVER", "WITH_INPUTS", "ask"]
OWN = OwnTemplate(image=ECHO.image, command=ECHO.command, health_endpoint="/own", port=28125, gpu=0)


@task(task_config=ECHO)
def pid(element: int) -> int:
    return int(ask(ECHO)["pid"])


@task(task_config=ECHO)
def pid_from_a_thread() -> int:
    with ThreadPoolExecutor() as pool:
        return int(pool.submit(ask, ECHO).result()["pid"])


@task(task_config=ECHO)
async def pid_async(element: int) -> int:
    return int(ask(ECHO)["pid"])


@task(task_config=ECHO)
def fails(element: int) -> int:
    if element:
        raise KeyError(str(ask(ECHO)["pid"]))
    return element


@task(task_config=OWN)
def own() -> int:
    return int(ask(OWN)["pid"])


@task(task_config=WITH_INPUTS)
def inputs_seen(file: FlyteFile, numbers: list[int], word: str = "x") -> str:
    return json.dumps(ask(WITH_INPUTS))


@task(task_config=ECHO)
def in_cluster(word: str) -> str:
    return f"{word} {ECHO.base_url} {'kubernetes' in sys.modules}"


@dynamic
def pids(count: int) -> list[int]:
    return [pid(element=element) for element in range(count)]


@workflow
def all_of_them(file: FlyteFile) -> tuple[list[int], list[int], int, str, str]:
    mapped = map_task(functools.partial(pid))(element=[1, 2, 3, 4, 5])
    first = inputs_seen(file=file, numbers=[1, 2])
    second = inputs_seen(file=file, numbers=[1, 2])
    return mapped, pids(count=3), own(), first, second
