"""A user's module with a server beside mapped, dynamic and plain tasks.

tests/flyte/test_serialise.py packages it.
"""

from __future__ import annotations

import functools

from flytekit import dynamic, map_task, task, workflow

from flytekitplugins.inference import VLLM, HFSecret, ModelInferenceTemplate

by_config = ModelInferenceTemplate(
    image="server:1", health_endpoint="/health", download_inputs=True
)
by_template = VLLM(
    hf_secret=HFSecret(hf_token_group="hf", hf_token_key="token"), download_inputs=True
)


@task(task_config=by_config, container_image="registry.example.com/own:1")
def score(text: str, model: str, limits: list[int]) -> int:
    return len(text)


@task(pod_template=by_template.pod_template, secret_requests=by_template.secret_requests)
def count(text: str) -> int:
    return len(text)


@task(task_config=by_config)
async def later(text: str) -> int:
    return len(text)


@dynamic
def fan_out(texts: list[str]) -> list[int]:
    return [count(text=text) for text in texts]


@workflow
def everything(texts: list[str]) -> tuple[list[int], list[int], list[int]]:
    scores = map_task(functools.partial(score, model="m", limits=[1, 2]))(text=texts)
    counts = map_task(count)(text=texts)
    return scores, counts, fan_out(texts=texts)
