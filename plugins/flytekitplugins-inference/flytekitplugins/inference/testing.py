"""`unanswered`: checks that a kind of server answers every question about its pod.

The tests of our own servers use it too.

Example:
    ```python
    def test_the_template_answers_every_question() -> None:
        assert unanswered(MyServer, model="s3://models/mine") == []
    ```
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

from .facts.metric_names import QUANTITIES
from .pod.compile import Manifest
from .pod.parts import MODEL_SERVER, SERVER_GATE, SERVER_SETUP, Helper
from .programs.protocol import MODEL_PATH_VARIABLE, PORT_VARIABLE
from .sidecar_template import ModelInferenceTemplate

__all__ = ["unanswered"]

_HELPER = Helper(image="helper:1", bundled=False)
_PORT = 23456
"""A port that is not the default of any server."""


def unanswered(make: Callable[..., ModelInferenceTemplate], **options: Any) -> list[str]:
    """Return one sentence for each question that a kind of server leaves open.

    Args:
        make: The template's class, or a function that takes the same arguments.
        options: The arguments that it requires. With a `model=`, the check covers how the server
            learns the model's path.

    Returns:
        The sentences; none when every question is answered.
    """
    template = make(**options)
    checks = (_image, _address, _probes, _metrics, _caches, _model, _start, _sameness)
    return [problem for check in checks for problem in check(make, template, options)]


def _image(
    make: Callable[..., ModelInferenceTemplate],
    template: ModelInferenceTemplate,
    options: dict[str, Any],
) -> Iterator[str]:
    for gpu, vendor in ((0, "nvidia.com"), (1, "nvidia.com"), (1, "amd.com"), (1, "gpu.intel.com")):
        if vendor not in template.image_vendors and gpu:
            continue
        hardware = {"gpu": gpu, "gpu_resource": f"{vendor}/gpu"}
        image = str(make(**{**options, **hardware}).default_image)
        tag = image.rpartition("/")[2].partition(":")[2]
        if image and "@sha256:" not in image and (not tag or tag == "latest"):
            yield (
                f"the default image {image!r} (gpu={gpu}) has no fixed tag: pods of one version "
                "would differ"
            )
        if not image and "image" not in options:
            yield f"there is no default image for gpu={gpu}"


def _address(
    make: Callable[..., ModelInferenceTemplate],
    template: ModelInferenceTemplate,
    options: dict[str, Any],
) -> Iterator[str]:
    server = _server(make(**{**options, "port": _PORT}))
    words = [*server.get("command", ()), *server.get("args", ())]
    values = [
        str(variable.get("value"))
        for variable in server["env"]
        if variable["name"] != PORT_VARIABLE
    ]
    if not any(str(_PORT) in text or f"$({PORT_VARIABLE})" in text for text in (*words, *values)):
        yield f"port={_PORT} reaches neither the server's arguments nor its environment"
    if not server.get("command") and not template.server().port_variables:
        yield (
            "the template sets neither a command nor a variable for the port: the image's own "
            "entry point decides"
        )


def _probes(
    make: Callable[..., ModelInferenceTemplate],
    template: ModelInferenceTemplate,
    options: dict[str, Any],
) -> Iterator[str]:
    # with a bounded start the gate takes the probe's place
    probe = _server(make(**{**options, "startup_timeout": None})).get("startupProbe")
    if probe is None:
        yield "the startup probe (health_endpoint) is missing: the task would start too early"
    elif probe["timeoutSeconds"] < 2:
        yield "the startup probe times out after a second, too soon for a server that is loading"


def _metrics(
    make: Callable[..., ModelInferenceTemplate],
    template: ModelInferenceTemplate,
    options: dict[str, Any],
) -> Iterator[str]:
    server = template.server()
    if server.metric_names and not server.metrics_path:
        yield "the server has metric_names but no metrics_path"
    if server.metrics_port not in (None, template.port, *server.more_ports):
        yield f"the metrics' port {server.metrics_port} is not among the server's ports"
    for unknown in sorted(set(server.metric_names) - QUANTITIES):
        yield (
            f"metric_names: {unknown!r} is not a quantity; expected one of "
            f"{', '.join(sorted(QUANTITIES))}"
        )
    for quantity, name in server.metric_names.items():
        names = name if isinstance(name, tuple) else (name,)
        if not names or not all(isinstance(one, str) and one for one in names):
            yield f"metric_names[{quantity!r}]={name!r} is neither a name nor a tuple of names"


def _caches(
    make: Callable[..., ModelInferenceTemplate],
    template: ModelInferenceTemplate,
    options: dict[str, Any],
) -> Iterator[str]:
    if not template.server().volumes and template.model_path is None:
        yield "the server writes to no volume: weights would fill the node's disk"


def _model(
    make: Callable[..., ModelInferenceTemplate],
    template: ModelInferenceTemplate,
    options: dict[str, Any],
) -> Iterator[str]:
    path = template.model_path
    if path is None:
        return
    texts = [
        text
        for container in _containers(template)
        if container["name"] in (MODEL_SERVER, SERVER_SETUP)
        for text in (
            *container.get("command", ()),
            *container.get("args", ()),
            *(
                variable.get("value")
                for variable in container.get("env", ())
                if variable["name"] != MODEL_PATH_VARIABLE
            ),
        )
    ]
    if not any(path in str(text) or f"$({MODEL_PATH_VARIABLE})" in str(text) for text in texts):
        yield f"model= is loaded to {path}, but the server does not get that path"
    server = template.server()
    if server.model_api != "none" and not server.served_model_name:
        yield (
            f"the server speaks {server.model_api!r}, but its model has no name for which the "
            "gate could ask"
        )


def _start(
    make: Callable[..., ModelInferenceTemplate],
    template: ModelInferenceTemplate,
    options: dict[str, Any],
) -> Iterator[str]:
    gated = make(**{**options, "startup_timeout": 60})
    if _containers(gated)[-1]["name"] != SERVER_GATE:
        yield "with startup_timeout= the gate is not the last container"
    if "startupProbe" in _server(gated):
        yield (
            "with startup_timeout= the server still has a startup probe, which holds back the gate"
        )


def _sameness(
    make: Callable[..., ModelInferenceTemplate],
    template: ModelInferenceTemplate,
    options: dict[str, Any],
) -> Iterator[str]:
    pod = template.compile(_HELPER)
    if make(**options).compile(_HELPER) != pod:
        yield "two equal descriptions have different pods"
    if pickle.loads(pickle.dumps(template)).compile(_HELPER) != pod:  # noqa: S301 - what was just written
        yield "a pickled description has a different pod"


def _containers(template: ModelInferenceTemplate) -> list[Manifest]:
    return list(template.compile(_HELPER)["spec"]["initContainers"])


def _server(template: ModelInferenceTemplate) -> Manifest:
    return next(
        container for container in _containers(template) if container["name"] == MODEL_SERVER
    )
