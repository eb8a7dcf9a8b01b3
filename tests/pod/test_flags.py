"""A dictionary of options becomes the command line that the server itself parses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flytekitplugins.inference.pod.flags import OptionTable, option_problems, render_options
from flytekitplugins.inference.vllm.serve import OPTIONS

CASES = json.loads((Path(__file__).parent.parent / "vllm_options_cases.json").read_text())
"""Checked against vLLM's own parser by `python -m dev.options vllm --check`."""
TABLE = OptionTable(
    server="Server 1",
    negatable=frozenset({"cache"}),
    switches=frozenset({"quiet"}),
    booleans=frozenset({"cut"}),
    values=frozenset({"seed", "model_len", "ids"}),
    commas=frozenset({"ids"}),
    lists=frozenset({"names"}),
    appended=frozenset({"layer"}),
    json=frozenset({"config"}),
    aliases={"s": "seed", "c": "config"},
    inverses={"no_cache_at_all": "cache"},
    secret={"key": "give it from a secret"},
    secret_keys={"config": ("password",)},
    removed={"old": ("0.9", "new"), "gone": ("0.8", "")},
)


@pytest.mark.parametrize(
    "case", [c for c in CASES if "hf_token" not in c["arg_dict"]], ids=lambda case: case["about"]
)
def test_vllm_parses_what_is_rendered(case: dict) -> None:
    assert option_problems(case["arg_dict"], OPTIONS) == []
    assert list(render_options(case["arg_dict"], OPTIONS)) == case["argv"]


@pytest.mark.parametrize(
    ("options", "argv"),
    [
        ({"cache": None, "quiet": None, "seed": None}, ["--cache", "--quiet"]),
        ({"cache": False, "quiet": False}, ["--no-cache"]),
        ({"no_cache_at_all": True}, ["--no-cache"]),
        ({"cut": True}, ["--cut", "true"]),
        ({"cut": False}, ["--cut", "false"]),
        ({"cut": None}, []),
        ({"ids": [1, 2], "names": ("a", "b"), "layer": ["x", "y"]},
         ["--ids", "1,2", "--names", "a", "b", "--layer", "x", "--layer", "y"]),
        ({"--model-len": -1, "c.a_b": "x"}, ["--model-len=-1", "--config.a_b", '"x"']),
    ],
)  # fmt: skip
def test_each_kind_has_one_form(options: dict, argv: list[str]) -> None:
    assert option_problems(options, TABLE) == []
    assert list(render_options(options, TABLE)) == argv


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sead": 1}, ["Server 1 has no option 'sead'", "did you mean 'seed'?", "args="]),
        ({"layer": {"a": 1}}, ["'layer' takes one value, not the dict"]),
        ({"old": 1}, ["'old' is gone since 0.9", "'new'"]),
        ({"config": {"a": 1, "password": "abc"}}, ["the secret 'password'"]),
        ({"c.password": "abc"}, ["the secret 'password'"]),
        ({"gone": 1}, ["'gone' is gone since 0.8"]),
        ({"key": "abc"}, ["'key' would put a secret", "give it from a secret"]),
        ({"seed": 1, "s": 2}, ["'seed' and 's' are the same option"]),
        ({"cache": True, "no_cache_at_all": True}, ["are the same option"]),
        ({"config": {}, "config.a": 1}, ["'config' and 'config.a'"]),
        ({"config.a": 1, "config": {}}, ["'config.a' and 'config'"]),
        ({"seed.a": 1}, ["only options that take JSON have keys"]),
        ({"cache": "yes"}, ["give True or False, not 'yes'"]),
        ({"cut": "true"}, ["give True or False, not 'true'"]),
        ({"seed": True}, ["takes a value, not True"]),
        ({"seed": [1, 2]}, ["takes one value, not the list [1, 2]"]),
        ({"seed": {"a": 1}}, ["takes one value, not the dict"]),
        ({"names": []}, ["needs at least one value"]),
        ({"names": ["-x"]}, ["cannot take '-x'"]),
        ({"config": {"a": float("nan")}}, ["cannot hold"]),
        ({"config": {"a": object()}}, ["cannot hold"]),
        ({3: 1}, ["3 is a int"]),
    ],
)
def test_a_problem_says_what_was_given_and_what_to_do(options: dict, words: list[str]) -> None:
    problems = option_problems(options, TABLE)
    assert len(problems) == 1
    for word in words:
        assert word in problems[0]


def test_a_server_without_keys_of_options_is_given_the_whole() -> None:
    (problem,) = option_problems({"config.a": 1}, replace(TABLE, has_keys=False))
    assert (
        problem == "option 'config.a': Server 1 does not set single keys; give 'config' as a whole"
    )


def test_a_secret_is_not_repeated_in_the_message() -> None:
    assert "abc" not in option_problems({"key": "abc"}, TABLE)[0]


@given(
    st.dictionaries(
        st.sampled_from(["seed", "model_len", "config"]), st.text(min_size=1), max_size=3
    )
)
def test_a_text_arrives_whole_whatever_it_holds(options: dict[str, str]) -> None:
    import argparse

    parser = argparse.ArgumentParser(exit_on_error=False)
    for name in ("seed", "model-len", "config"):
        parser.add_argument(f"--{name}")
    words = [word.replace("$$", "$") for word in render_options(options, TABLE)]  # by Kubernetes
    parsed = parser.parse_args(words)
    assert {name: value for name, value in vars(parsed).items() if value is not None} == options
