"""Numbers given as text: the same description as with numbers, for each field of each server."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Optional

import pytest

from flytekitplugins.inference import (
    ConfigError,
    ModelInferenceTemplate,
    ModelServers,
    NIMSecrets,
    Probe,
    Probes,
    RegisteredModel,
    installed_servers,
)
from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.pod.whole_numbers import read_whole_numbers

HELPER = Helper(image="helper:1", bundled=False)
KINDS = {"generic": ModelInferenceTemplate, **installed_servers()}
MODEL = "s3://models/mine"
OPTIONS: dict[str, dict[str, Any]] = {
    "generic": {"image": "server:1", "model": MODEL},
    "nim": {"secrets": NIMSecrets(ngc_secret_group="ngc", ngc_secret_key="k"), "image": "nim:1"},
    "ollama": {"model": "llama3.2:1b"},
    "llamacpp": {"model": f"{MODEL}/a.gguf"},
    "mlserver": {"model_names": ["mine"]},
    "triton": {"model_names": ["mine"]},
}
VALUES = {"gpu": 2, "termination_grace_period": 90}
"""By field, where a port would be a wrong value."""
QUANTITIES = {"cpu", "download_inputs_cpu", "model_loader_cpu"}
BAD = [
    "one",
    " 1",
    "1 ",
    "1.5",
    "0x1",
    "1e3",
    "+1",
    "-1",
    "01",
    "",
    "1_000",
    "\u0661",
    "\u00b2",
    "1\n",
    "9" * 5000,
    True,
    1.5,
]


def _whole_numbers(kind: type[Any]) -> list[str]:
    """Return the fields declared as whole numbers, found by other means than the package's."""
    return [
        field.name
        for field in fields(kind)
        if field.init and str(field.type).startswith("int") and field.name not in QUANTITIES
    ]


NOTHING_TO_UPDATE = {("nim", "update_interval"), ("ollama", "update_interval")}
"""These bring no model that could be looked at again."""
FIELDS = [(name, field) for name, kind in KINDS.items() for field in _whole_numbers(kind)]


def _make(name: str, **options: Any) -> ModelInferenceTemplate:
    return KINDS[name](**{"model": MODEL, **OPTIONS.get(name, {}), **options})


@pytest.mark.filterwarnings("ignore::flytekitplugins.inference.InferenceWarning")
class TestEveryField:
    """Each whole number of each server."""

    def test_there_are_the_documented_ones(self) -> None:
        generic = {field for name, field in FIELDS if name == "generic"}
        assert generic == {
            "port",
            "gpu",
            "update_interval",
            "startup_timeout",
            "stop_timeout",
            "termination_grace_period",
        }
        for server in ("triton", "mlserver"):
            assert {"grpc_port", "metrics_port"} <= {
                field for name, field in FIELDS if name == server
            }

    @pytest.mark.parametrize(
        ("name", "field"), [case for case in FIELDS if case not in NOTHING_TO_UPDATE]
    )
    def test_text_is_the_number(self, name: str, field: str) -> None:
        number = VALUES.get(field, 7654)
        by_text, by_number = _make(name, **{field: str(number)}), _make(name, **{field: number})
        assert type(getattr(by_text, field)) is int
        assert by_text == by_number
        assert by_text.compile(HELPER) == by_number.compile(HELPER)
        assert replace(by_number, **{field: str(number)}) == by_number

    @pytest.mark.parametrize("bad", BAD, ids=[ascii(bad)[:12] for bad in BAD])
    @pytest.mark.parametrize(("name", "field"), FIELDS)
    def test_what_is_no_plain_number_is_told(self, name: str, field: str, bad: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            _make(name, **{field: bad})
        (problem,) = [
            problem
            for problem in str(caught.value).splitlines()
            if problem.startswith(f"  - {field}")
        ][:1]
        assert repr(bad) in problem
        assert "whole" in problem

    @pytest.mark.parametrize("field", sorted(QUANTITIES))
    def test_quantities_keep_their_own_grammar(self, field: str) -> None:
        made = _make("generic", **{field: "1"})
        assert getattr(made, field) == "1"
        assert made.compile(HELPER) == _make("generic", **{field: 1}).compile(HELPER)


def test_the_ports_of_several_servers_are_compared_as_numbers() -> None:
    members = {name: _make("generic", port=port) for name, port in (("a", "8000"), ("b", 8000))}
    with pytest.raises(ConfigError, match="a and b listen on port 8000"):
        ModelServers(members)


def test_periods_and_words_stay_what_they_are() -> None:
    made = _make("generic", startup_timeout="auto", update_interval=timedelta(minutes=1))
    assert (made.startup_timeout, made.update_interval) == ("auto", timedelta(minutes=1))


NUMBERS_OF_A_PROBE = _whole_numbers(Probe)


@pytest.mark.parametrize("field", NUMBERS_OF_A_PROBE)
def test_the_numbers_of_a_probe(field: str) -> None:
    by_text, by_number = (
        Probe(**{field: "8000"}),
        Probe(**{field: 8000}),
    )  # a port is one that the server has
    assert by_text == by_number
    assert _make("generic", probes=Probes(liveness=by_text)) == _make(
        "generic", probes=Probes(liveness=by_number)
    )


@pytest.mark.parametrize("bad", ["nine", "1.5", True])
@pytest.mark.parametrize("field", NUMBERS_OF_A_PROBE)
def test_bad_numbers_of_a_probe(field: str, bad: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        _make("generic", probes=Probes(liveness=Probe(path="/health", **{field: bad})))
    assert repr(bad) in str(caught.value)


def test_the_version_of_a_registered_model() -> None:
    assert RegisteredModel(name="fraud", version="3") == RegisteredModel(name="fraud", version=3)  # type: ignore[arg-type]
    for bad in ("three", "1.5", True, 0):
        with pytest.raises(
            ConfigError, match=r"version=.* of 'fraud' must be a whole number, 1 or greater"
        ):
            _make("generic", model=RegisteredModel(name="fraud", version=bad))  # type: ignore[arg-type]


def test_a_users_own_fields_however_they_are_declared() -> None:
    made = dataclasses.make_dataclass(
        "Own",
        [
            ("a", int),
            ("b", int | None),
            ("c", Optional[int]),  # noqa: UP045
            ("d", str),
            ("e", int | str),
            ("f", list[int]),
        ],
        frozen=True,
    )(*"123456")
    read_whole_numbers(made)
    assert dataclasses.astuple(made) == (1, 2, 3, "4", "5", "6")


@dataclass(frozen=True, kw_only=True)
class _Own(ModelInferenceTemplate):
    workers: int = 1


def test_a_users_own_template() -> None:
    assert _Own(image="server:1", workers="4") == _Own(image="server:1", workers=4)  # type: ignore[arg-type]
