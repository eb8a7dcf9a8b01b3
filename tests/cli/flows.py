"""A user's module that the tests of the command line look at."""

from __future__ import annotations

from flytekit import Resources, task

from flytekitplugins.inference import VLLM, HFSecret, ModelInferenceTemplate, ModelServers

llm = VLLM(
    hf_secret=HFSecret(hf_token_group="huggingface", hf_token_key="token"),
    arg_dict={"model": "org/model"},
    cpu=4,
    mem="16Gi",
    download_inputs=True,
)
hub = VLLM(model="org/model", startup_timeout="auto")
rooted = ModelInferenceTemplate(
    image="org/server:1",
    security_context={"privileged": True, "allowPrivilegeEscalation": True},
    gpu=0,
)
servers = ModelServers(
    {
        "a": ModelInferenceTemplate(image="org/a:1"),
        "b": ModelInferenceTemplate(image="org/b:1", port=8001),
    }
)
number = 3


@task(task_config=hub, requests=Resources(cpu="1", mem="1Gi"), limits=Resources(cpu="1", mem="1Gi"))
def configured(prompt: str) -> str:
    return prompt


@task(
    pod_template=llm.pod_template,
    secret_requests=llm.secret_requests,
    limits=Resources(cpu="3", mem="2Gi"),
)
def explicit(prompt: str) -> str:
    return prompt


@task
def plain(prompt: str) -> str:
    return prompt
