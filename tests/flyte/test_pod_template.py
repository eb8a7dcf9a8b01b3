"""A template → flytekit's PodTemplate and secrets."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys

import pytest
from flytekit import ImageSpec, PodTemplate, Secret
from flytekit.configuration.default_images import DefaultImages
from flytekit.configuration.plugin import FlytekitPlugin
from kubernetes.client import V1Container, V1PodSpec

from flytekitplugins.inference import (
    NIM,
    VLLM,
    HFSecret,
    InferenceWarning,
    ModelInferenceTemplate,
    NIMSecrets,
    UnsupportedError,
)
from flytekitplugins.inference.flyte.kubernetes_models import to_pod_spec
from flytekitplugins.inference.flyte.pod_template import InferencePodTemplate
from flytekitplugins.inference.sidecar_template import PodTemplate as FromTemplateModule
from golden.cases import make

TEMPLATE = ModelInferenceTemplate(image="server:1", download_inputs=True)


def test_flytekits_pod_template_can_be_imported_from_the_template_module() -> None:
    assert FromTemplateModule is PodTemplate


def test_the_module_has_nothing_else() -> None:
    import flytekitplugins.inference.sidecar_template as module

    with pytest.raises(AttributeError, match="no attribute 'PodTemplat'"):
        module.PodTemplat  # noqa: B018


def test_each_reader_gets_an_own_pod() -> None:
    one, other = TEMPLATE.pod_template, TEMPLATE.pod_template
    assert one == other
    one.pod_spec.containers.clear()
    one.pod_spec.node_selector = {"pool": "gpu"}
    assert other.pod_spec.containers[0].name == "primary"
    assert TEMPLATE.pod_template.pod_spec.node_selector is None


def test_a_readers_change_stays_in_its_own_pod() -> None:
    pod_template = TEMPLATE.pod_template
    pod_template.pod_spec.node_selector = {"pool": "gpu"}
    assert copy.deepcopy(pod_template).pod_spec.node_selector == {"pool": "gpu"}
    pod_template.pod_spec = V1PodSpec(containers=[])
    assert pod_template.pod_spec.containers == []


def test_the_base_is_not_changed_and_gives_its_metadata() -> None:
    base = PodTemplate(
        pod_spec=V1PodSpec(containers=[V1Container(name="main")]),
        primary_container_name="main",
        labels={"team": "x"},
    )
    before = base.version_hash()
    template = ModelInferenceTemplate(image="server:1", base=base)
    made = template.pod_template
    assert (made.primary_container_name, made.labels, made.annotations) == (
        "main",
        {"team": "x"},
        None,
    )
    assert [container.name for container in made.pod_spec.containers] == ["main"]
    assert base.version_hash() == before
    base.pod_spec.containers.append(V1Container(name="late"))
    assert [container.name for container in template.pod_template.pod_spec.containers] == ["main"]


def test_one_template_can_be_the_base_of_another() -> None:
    first = ModelInferenceTemplate(
        image="server:1", base={"metadata": {}, "spec": {"nodeSelector": {"pool": "gpu"}}}
    )
    second = ModelInferenceTemplate(image="server:1", base=first.pod_template)
    assert second.manifest["spec"]["nodeSelector"] == {"pool": "gpu"}


def test_version_hash_is_the_same_in_another_process() -> None:
    code = "from golden.cases import make; print(make('vllm-full').pod_template.version_hash())"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]
        for seed in ("1", "2")
    }
    assert hashes == {make("vllm-full").pod_template.version_hash()}


def test_a_field_that_the_client_does_not_know_is_not_dropped_in_silence() -> None:
    spec = {"containers": [{"name": "a", "image": "b", "bogusField": "x"}], "alsoBogus": 1}
    with pytest.raises(UnsupportedError) as caught:
        to_pod_spec(spec)
    assert "spec.containers[0].bogusField" in str(caught.value)
    assert "spec.alsoBogus" in str(caught.value)


def test_helper_images() -> None:
    assert TEMPLATE.manifest["spec"]["initContainers"][0]["image"] == DefaultImages.default_image()
    spec = ImageSpec(
        name="task", registry="registry.example.com", packages=["flytekitplugins-inference"]
    )
    own = ModelInferenceTemplate(image="server:1", download_inputs=True, helper_image=spec)
    downloader = own.manifest["spec"]["initContainers"][0]
    assert downloader["image"] == spec.image_name()
    assert downloader["command"] == [
        "python",
        "-m",
        "flytekitplugins.inference.programs.download_inputs",
    ]


def test_its_fields_can_be_replaced_as_those_of_any_pod_template() -> None:
    replaced = dataclasses.replace(TEMPLATE.pod_template, labels={"team": "x"})
    assert replaced.labels == {"team": "x"}
    assert replaced.pod_spec.containers[0].name == "primary"
    assert InferencePodTemplate().pod_spec.containers == []


def test_an_image_spec_that_nobody_builds_is_warned_about() -> None:
    template = ModelInferenceTemplate(image=ImageSpec(name="echo", registry="registry.example.com"))
    with pytest.warns(
        InferenceWarning, match="image is an ImageSpec, which pod_template= does not build"
    ) as caught:
        assert template.pod_template.primary_container_name == "primary"
    assert caught[0].filename == __file__


class TestSecretRequests:
    """The secrets to request, as flytekit's objects."""

    def test_nim(self) -> None:
        secrets = NIMSecrets(
            ngc_secret_group="ngc", ngc_secret_key="a", hf_token_group="hf", hf_token_key="b"
        )
        assert NIM(secrets=secrets).secret_requests == [
            Secret(group="ngc", key="a", mount_requirement=Secret.MountType.ENV_VAR),
            Secret(group="hf", key="b", mount_requirement=Secret.MountType.ENV_VAR),
        ]

    def test_one_secret_twice_is_requested_once(self) -> None:
        secrets = NIMSecrets(
            ngc_secret_group="g", ngc_secret_key="a", hf_token_group="g", hf_token_key="a"
        )
        assert len(NIM(secrets=secrets).secret_requests) == 1

    def test_where_no_group_is_required(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FlytekitPlugin, "secret_requires_group", staticmethod(lambda: False))
        with pytest.warns(InferenceWarning):
            template = VLLM(hf_secret=HFSecret(hf_token_key="t"))
        assert [(secret.group, secret.key) for secret in template.secret_requests] == [(None, "t")]

    def test_none(self) -> None:
        assert VLLM().secret_requests == []

    def test_without_a_group(self) -> None:
        with pytest.warns(InferenceWarning):
            template = VLLM(hf_secret=HFSecret(hf_token_key="t"))
        with pytest.warns(InferenceWarning, match="'t' has no group and cannot be requested"):
            assert template.secret_requests == []
