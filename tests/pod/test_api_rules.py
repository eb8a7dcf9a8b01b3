"""`lint` finds what the API server refuses; `tests/cluster` asks a real one the same."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flytekitplugins.inference import ConfigError, ModelInferenceTemplate, Probe, Probes, Volume
from flytekitplugins.inference.pod.lint import lint
from pod.api_refusals import HANGS, POD, REFUSALS, changed


def test_what_the_api_server_accepts_is_no_problem() -> None:
    assert lint(POD) == []


@pytest.mark.parametrize("what", [*REFUSALS, *HANGS])
def test_what_it_refuses_is_one_problem(what: str) -> None:
    change, words = {**REFUSALS, **HANGS}[what]
    problems = lint(changed(change))
    assert len(problems) == 1, problems
    assert words in problems[0]


@pytest.mark.parametrize("what", [*REFUSALS, *HANGS])
def test_it_is_found_in_containers_of_others_too(what: str) -> None:
    change, words = {**REFUSALS, **HANGS}[what]
    assert any(words in problem for problem in lint(changed(change), ours=()))


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "probe": (
        {"probes": Probes(liveness=Probe(path="/", period_seconds=2**31))},
        "livenessProbe: periodSeconds must be at most 2147483647",
    ),
    "user": ({"security_context": {"runAsUser": -1}}, "runAsUser must be between 0"),
    "profile": (
        {"security_context": {"seccompProfile": {"type": "Localhost"}}},
        "the type Localhost needs a localhostProfile",
    ),
    "GPU": ({"gpu": 1, "gpu_resource": "requests.nvidia.com/gpu"}, "is not a resource's name"),
    "volume": (
        {"volumes": [Volume(name="v", source={"hostPath": {"path": ""}}, mount_path="/v")]},
        "volume 'v': hostPath: path is missing",
    ),
    "cache": (
        {"model": "s3://b/m", "model_cache": {"persistentVolumeClaim": {"claimName": ""}}},
        "claimName is missing",
    ),
    "base's deadline": (
        {"base": {"spec": {"activeDeadlineSeconds": 0}}},
        "activeDeadlineSeconds must be between 1",
    ),
    "base's DNS": ({"base": {"spec": {"dnsPolicy": "None"}}}, "needs a nameserver"),
    "base's labels": (
        {"base": {"metadata": {"labels": {"team": "a b"}}, "spec": {}}},
        "label 'team': 'a b' is not a label's value",
    ),
    "base's toleration": (
        {"base": {"spec": {"tolerations": [{"value": "x"}]}}},
        "tolerations[0]: without a key",
    ),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_a_template_refuses_it_where_it_is_written(what: str) -> None:
    options, words = OPTIONS[what]
    given: dict[str, Any] = {"image": "s:1", "gpu": 0, **options}
    with pytest.raises(ConfigError, match=re.escape(words)):
        ModelInferenceTemplate(**given)


@pytest.mark.parametrize(
    "field", ["tolerations", "nodeSelector", "dnsConfig", "hostAliases", "securityContext"]
)
@pytest.mark.parametrize("value", [1, "x", [1], ["x"], {"a": 1}])
def test_another_type_than_the_schemas_does_not_end_in_a_traceback(field: str, value: Any) -> None:
    pod = changed(lambda pod: pod["spec"].update({field: value}))
    assert isinstance(lint(pod), list)
