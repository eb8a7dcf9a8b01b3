"""A secret's parts become variables that expand on every generation of the platform."""

from __future__ import annotations

import pytest

from flytekitplugins.inference.pod.parts import EnvVar
from flytekitplugins.inference.pod.secrets import SecretReference, masked


def _secret(
    group: str | None = "hugging-face", key: str = "token", prefix: str = "_FSEC_"
) -> SecretReference:
    return SecretReference(prefix=prefix, group=group, key=key)


def test_with_a_group_the_variable_is_declared_before_it_is_referred_to() -> None:
    assert _secret().env("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") == (
        EnvVar(name="_FSEC_HUGGING-FACE_TOKEN", secret_name="hugging-face", secret_key="token"),
        EnvVar(name="HF_TOKEN", value="$(_FSEC_HUGGING-FACE_TOKEN)"),
        EnvVar(name="HUGGING_FACE_HUB_TOKEN", value="$(_FSEC_HUGGING-FACE_TOKEN)"),
    )


def test_without_a_group_only_the_reference_is_written_and_a_warning_says_why() -> None:
    secret = _secret(group=None, prefix="_union_")
    assert secret.env("HF_TOKEN") == (EnvVar(name="HF_TOKEN", value="$(_UNION_TOKEN)"),)
    (warning,) = secret.warnings()
    assert "'token' has no group" in warning
    assert "_UNION_TOKEN too late" in warning


def test_a_group_that_is_no_kubernetes_name_is_only_referred_to() -> None:
    secret = _secret(group="my_group", key="my_hf_token")
    assert secret.env("HF_TOKEN") == (
        EnvVar(name="HF_TOKEN", value="$(_FSEC_MY_GROUP_MY_HF_TOKEN)"),
    )
    (warning,) = secret.warnings()
    assert "'my_group' cannot be the name of a Kubernetes secret" in warning


def test_a_dash_in_the_variable_is_warned_about() -> None:
    (warning,) = _secret().warnings()
    assert "_FSEC_HUGGING-FACE_TOKEN contains '-' or '.'" in warning
    assert _secret(group="hf").warnings() == []


def test_problems() -> None:
    assert _secret().problems() == []
    assert _secret(prefix="").problems() == []
    assert "key must be a text, not ''" in _secret(key="").problems()[0]
    assert "key must be a text, not None" in _secret(key=None).problems()[0]  # type: ignore[arg-type]
    assert "prefix must be a text, not None" in _secret(prefix=None).problems()[0]  # type: ignore[arg-type]
    assert "group must be a text or None, not ''" in _secret(group="").problems()[0]
    assert "'my key' has characters other than" in _secret(key="my key").problems()[0]
    assert "'ß' has characters other than" in _secret(key="ß").problems()[0]
    assert "is not an environment variable's name" in _secret(prefix="1 ").problems()[0]


@pytest.mark.parametrize("token", ["hf_" + "a1" * 15, "nvapi-" + "b" * 40, "sk-" + "c" * 30])
def test_a_token_in_place_of_its_name_is_refused_and_not_repeated(token: str) -> None:
    for secret in (_secret(key=token), _secret(group=token)):
        (problem,) = secret.problems()
        assert "looks like a token" in problem
        assert token not in problem


def test_masking() -> None:
    assert masked('{"value": "Bearer hf_' + "a1" * 15 + '"}') == '{"value": "Bearer …"}'
