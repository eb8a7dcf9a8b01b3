"""The published images of servers, and the mirrors that stand for registries."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flytekitplugins.inference import (
    VLLM,
    ConfigError,
    ModelInferenceTemplate,
    ModelServers,
    installed_servers,
)
from flytekitplugins.inference.pod.images import mirror, parse_mirrors
from flytekitplugins.inference.pod.parts import Helper

HELPER = Helper(image="cr.flyte.org/flyteorg/flytekit:py3.11-1.16", bundled=True)
EVERY = {"*": "m.example.com/proxy"}
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("reference", "rules", "expected"),
    [
        ("vllm/vllm-openai:v1", {}, "vllm/vllm-openai:v1"),
        # one mirror for every public registry
        ("vllm/vllm-openai:v1", EVERY, "m.example.com/proxy/vllm/vllm-openai:v1"),
        ("nvcr.io/nim/a/b:1", EVERY, "m.example.com/proxy/nim/a/b:1"),
        ("python:3.12", EVERY, "m.example.com/proxy/library/python:3.12"),
        (f"ghcr.io/a/b@{DIGEST}", EVERY, f"m.example.com/proxy/a/b@{DIGEST}"),
        ("ghcr.io/a/b:1", {"*": "m.example.com/proxy/"}, "m.example.com/proxy/a/b:1"),
        # a private registry is nobody's to replace
        ("registry.example.com:5000/a/b:1", EVERY, "registry.example.com:5000/a/b:1"),
        ("localhost/a:1", EVERY, "localhost/a:1"),
        # one mirror for one registry
        ("vllm/vllm-openai:v1", {"docker.io": "m/h"}, "m/h/vllm/vllm-openai:v1"),
        ("docker.io/vllm/v:1", {"docker.io": "m/h"}, "m/h/vllm/v:1"),
        ("nvcr.io/x/y:1", {"docker.io": "m/h"}, "nvcr.io/x/y:1"),
        ("r.example.com:5000/a:1", {"r.example.com:5000": "m"}, "m/a:1"),
        # the longest prefix wins, and ends where a part of the path ends
        ("nvcr.io/nim/a:1", {"nvcr.io": "m/n", "nvcr.io/nim": "m/nim"}, "m/nim/a:1"),
        ("nvcr.io/nimble/a:1", {"nvcr.io/nim": "m/nim"}, "nvcr.io/nimble/a:1"),
        ("nvcr.io/nim/a:1", {**EVERY, "nvcr.io": "m/n"}, "m/n/nim/a:1"),
        # a repository, in the short form of the hub too
        ("vllm/vllm-openai:v1", {"vllm/vllm-openai": "m/v"}, "m/v:v1"),
        # a pin: a whole reference for a whole reference
        ("a/b:1", {"a/b:1": f"a/b@{DIGEST}"}, f"a/b@{DIGEST}"),
        ("a/b:2", {"a/b:1": f"a/b@{DIGEST}"}, "a/b:2"),
        ("a/b:1", {"docker.io": "m/h", "a/b:1": "m/x:9"}, "m/x:9"),
        ("python:3.12", {"python:3.12": "m/python:3.12.1"}, "m/python:3.12.1"),
    ],
)
def test_mirrors(reference: str, rules: dict[str, str], expected: str) -> None:
    assert mirror(reference, rules) == expected


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", {}),
        ("m.example.com/p", {"*": "m.example.com/p"}),
        ("m.example.com:5000", {"*": "m.example.com:5000"}),
        ("docker.io=m/h, nvcr.io=m/n", {"docker.io": "m/h", "nvcr.io": "m/n"}),
        ("m/all,ghcr.io=m/g,", {"*": "m/all", "ghcr.io": "m/g"}),
    ],
)
def test_the_variable_holds_one_mirror_or_one_for_each_registry(
    text: str, rules: dict[str, str]
) -> None:
    assert parse_mirrors(text) == rules


@pytest.mark.parametrize("text", ["https://m.example.com", "m e", "docker.io=", "m/UPPER", "m/a:1"])
def test_the_variable_says_what_it_holds_when_that_is_no_mirror(text: str) -> None:
    with pytest.raises(ConfigError, match="INFERENCE_IMAGE_REGISTRY") as error:
        parse_mirrors(text)
    assert "docker.io=mirror.example.com/hub" in str(error.value)


def images(template: Any, helper: Helper = HELPER) -> dict[str, str]:
    spec = template.compile(helper)["spec"]
    return {container["name"]: container["image"] for container in spec["initContainers"]}


def test_every_container_of_ours_comes_from_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_IMAGE_REGISTRY", "m.example.com/p")
    template = VLLM(arg_dict={"model": "a/b"}, lora_adapters={"x": "o/x"}, download_inputs=True)
    assert all(image.startswith("m.example.com/p/") for image in images(template).values())
    assert images(template)["download-loras"].startswith("m.example.com/p/library/python:")


def test_the_image_that_a_user_names_comes_from_the_mirror_too() -> None:
    template = ModelInferenceTemplate(image="ghcr.io/a/b:1", images={"ghcr.io": "m/g"})
    assert images(template) == {"model-server": "m/g/a/b:1"}


def test_the_image_of_the_task_stays_because_flytekit_writes_it() -> None:
    template = VLLM(arg_dict={"model": "a/b"}, download_inputs=True, images={"docker.io": "m/h"})
    own = Helper(image="me/task:1", bundled=False)
    assert images(template, own)["input-downloader"] == "me/task:1"
    assert images(template, own)["model-server"].startswith("m/h/")


def test_the_field_comes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_IMAGE_REGISTRY", "m.example.com/p,ghcr.io=m.example.com/g")
    template = ModelInferenceTemplate(image="ghcr.io/a/b:1", images={"ghcr.io": "mine.example.com"})
    assert images(template) == {"model-server": "mine.example.com/a/b:1"}


@pytest.mark.parametrize(
    ("rules", "part"),
    [
        ("m/h", "images must be a dict"),
        ({"docker.io": 1}, "must be a text, not a int"),
        ({"": "m/h"}, "'' must be a registry"),
        ({"docker.io": "https://m"}, "no registry or prefix"),
        ({"docker.io": "m/h:1"}, "no registry or prefix"),
        ({"a/b:1": "Not An Image"}, "no registry or prefix"),
    ],
)
def test_wrong_rules_are_refused(rules: Any, part: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)):
        ModelInferenceTemplate(image="a/b:1", images=rules)


def test_one_pod_has_one_set_of_mirrors() -> None:
    server = ModelInferenceTemplate(image="a/b:1", images={"docker.io": "m/h"})
    with pytest.raises(ConfigError, match="has images=; a pod has only one"):
        ModelServers({"one": server})
    servers = ModelServers(
        {"one": ModelInferenceTemplate(image="a/b:1")}, images={"docker.io": "m/h"}
    )
    assert images(servers) == {"model-server-one": "m/h/a/b:1"}


@pytest.mark.parametrize("name", sorted(installed_servers()))
def test_every_default_image_is_published_with_source_and_date(name: str) -> None:
    kind = installed_servers()[name]
    published = {image.reference for image in kind.published_images}
    defaults = set()
    for gpu in (0, 1):
        for vendor in sorted(kind.image_vendors):
            resource = vendor if vendor == "gpu" else f"{vendor}/gpu"
            bare = object.__new__(kind)
            for field, value in (("gpu", gpu), ("gpu_resource", resource), ("image", None)):
                object.__setattr__(bare, field, value)
            defaults.add(bare.default_image)
    assert defaults - {""} <= published
    for image in kind.published_images:
        assert re.fullmatch(r"20\d\d-\d\d", image.date)
        assert image.source
        assert image.hardware
        assert ":" in image.reference.rpartition("/")[2]  # a tag
