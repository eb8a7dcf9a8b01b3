"""Checks one flytekit: tasks serialise, find their class, and run with their server.

Prints flytekit's version. Needs neither pytest nor network; see test_flytekit.py.
"""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict

import flytekit
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.task import TaskPlugins
from flytekit.tools.translator import get_serializable

from flytekitplugins.inference.flyte.task import InferenceTask
from flytekitplugins.inference.pod.plan import named
from golden.cases import CASES, make
from users import minimal

SETTINGS = SerializationSettings(
    image_config=ImageConfig(
        default_image=Image(name="default", fqn="registry.example.com/task", tag="1")
    ),
    project="p",
    domain="d",
    version="v",
)


def infer() -> str:
    return ""


def serialise(name: str) -> None:
    template = make(name)
    explicit = flytekit.task(pod_template=template.pod_template)(infer)
    pod = get_serializable(OrderedDict(), SETTINGS, explicit).template.k8s_pod.pod_spec
    assert pod["initContainers"] == template.manifest["spec"]["initContainers"], name
    assert TaskPlugins.find_pythontask_plugin(type(template)) is InferenceTask, name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled_in = flytekit.task(task_config=template)(infer)
    pod = get_serializable(OrderedDict(), SETTINGS, filled_in).template.k8s_pod.pod_spec
    names = {container["name"] for container in pod["initContainers"]}
    assert {named("model-server", server) for server in template.servers} <= names, name


for case in CASES:
    serialise(case)

with minimal.WITH_INPUTS.run_locally({"numbers": [1, 2]}):
    assert minimal.ask(minimal.WITH_INPUTS)["inputs"] == {"numbers": [1, 2]}
assert minimal.workflow_of_one(word="hi") not in (0, os.getpid())
print(flytekit.__version__)
