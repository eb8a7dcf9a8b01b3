"""Modelfiles.

The expected values are what Ollama 0.33.3 made of the same text, by `ollama create` and its parser.
"""

from __future__ import annotations

from typing import Any

import pytest

from flytekitplugins.inference.errors import ConfigError
from flytekitplugins.inference.programs.ollama.modelfile import (
    decode_modelfile,
    fill_inputs,
    has_placeholders,
    parse_modelfile,
)
from flytekitplugins.inference.programs.ollama.recipe import (
    PARAMETERS,
    listed_name,
    modelfile_problems,
    name_problem,
    to_recipe,
)

Parsed = list[tuple[str, str, str]]


def parsed(text: str) -> Parsed:
    return [(command.directive, command.key, command.value) for command in parse_modelfile(text)]


def recipe(text: str, **inputs: Any) -> Any:
    return to_recipe(fill_inputs(parse_modelfile(text), inputs))


# Commands


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM foo", [("FROM", "", "foo")]),
        ("from   FOO BAR  \n", [("FROM", "", "FOO BAR")]),
        ('FROM "FOO  BAR  "', [("FROM", "", "FOO  BAR  ")]),
        ("\ufeffFROM foo", [("FROM", "", "foo")]),
        ("\r\n\t FROM foo\r\nSYSTEM bar\r\n", [("FROM", "", "foo"), ("SYSTEM", "", "bar")]),
        ("# FROM no\nFROM foo # not a comment", [("FROM", "", "foo # not a comment")]),
        ("FROM foo\n  # SYSTEM no\nSYSTEM", None),
        ("FROM foo\nSYSTEM \n", [("FROM", "", "foo"), ("SYSTEM", "", "")]),
        ('FROM foo\nSYSTEM ""\n', [("FROM", "", "foo"), ("SYSTEM", "", "")]),
        ('FROM foo\nSYSTEM """"""\n', [("FROM", "", "foo"), ("SYSTEM", "", "")]),
        (
            'FROM foo\nSYSTEM """\na\n\tb\n"""  \n',
            [("FROM", "", "foo"), ("SYSTEM", "", "\na\n\tb\n")],
        ),
        ('FROM foo\nSYSTEM """a "b" c"""', [("FROM", "", "foo"), ("SYSTEM", "", 'a "b" c')]),
        ('FROM foo\nSYSTEM "a\nb"', [("FROM", "", "foo"), ("SYSTEM", "", "a\nb")]),
        ('FROM foo\nSYSTEM "a" b\nc"', [("FROM", "", "foo"), ("SYSTEM", "", 'a" b\nc')]),
        ("FROM foo\nSYSTEM a 'b' \"c\"", [("FROM", "", "foo"), ("SYSTEM", "", "a 'b' \"c\"")]),
        (
            'FROM foo\nSYSTEM """a\n# b\nFROM c"""',
            [("FROM", "", "foo"), ("SYSTEM", "", "a\n# b\nFROM c")],
        ),
        (
            "FROM foo\nPARAMETER stop ### User: ",
            [("FROM", "", "foo"), ("PARAMETER", "stop", "### User:")],
        ),
        (
            'FROM foo\nPARAMETER stop "### User: "',
            [("FROM", "", "foo"), ("PARAMETER", "stop", "### User: ")],
        ),
        ('FROM foo\nPARAMETER stop """a\n"""', [("FROM", "", "foo"), ("PARAMETER", "stop", "a\n")]),
        ("PARAMETER top_k 3\nFROM foo", [("PARAMETER", "top_k", "3"), ("FROM", "", "foo")]),
        ("FROM foo\nMESSAGE user Hey: you", [("FROM", "", "foo"), ("MESSAGE", "user", "Hey: you")]),
        (
            'FROM foo\nMESSAGE system """\na\n"""',
            [("FROM", "", "foo"), ("MESSAGE", "system", "\na\n")],
        ),
        ("FROM foo\nSYSTEM 👩‍💻", [("FROM", "", "foo"), ("SYSTEM", "", "👩‍💻")]),
        (
            "FROM foo\nTEMPLATE {{ .Prompt }}",
            [("FROM", "", "foo"), ("TEMPLATE", "", "{{ .Prompt }}")],
        ),
        ('FROM foo\r\nSYSTEM """a\r\nb"""\r\n', [("FROM", "", "foo"), ("SYSTEM", "", "a\r\nb")]),
        ("FROM foo\rSYSTEM a\r", [("FROM", "", "foo"), ("SYSTEM", "", "a")]),
        ("FROM\tfoo\nPARAMETER\ttop_k\t1", [("FROM", "", "foo"), ("PARAMETER", "top_k", "1")]),
        ('FROM foo\nSYSTEM """""', None),
        ("FROM foo\n\x0b\nSYSTEM a", None),
    ],
)
def test_commands_are_read_as_ollama_reads_them(text: str, expected: Parsed | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError):
            parsed(text)
    else:
        assert parsed(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "FROM foo\nSYSTEM 👩‍💻",  # a joiner
        "FROM foo\nSYSTEM a\u00a0b",
        "FROM foo\nSYSTEM \u200f\u0645\u0631\u062d\u0628\u0627\u200f",
        "FROM foo\nSYSTEM a\u2028b\x85c\x0cd",
    ],
)
def test_characters_that_ollama_drops_are_kept(text: str) -> None:
    """`strconv.IsPrint` decides there what a Modelfile may hold; the API takes all of them."""
    assert parsed(text)[1][2] == text.partition("SYSTEM ")[2].strip()


@pytest.mark.parametrize(
    "content",
    [
        "FROM foo\nSYSTEM hé\r\n".encode(),
        "FROM foo\nSYSTEM hé\r\n".encode("utf-8-sig"),
        "FROM foo\nSYSTEM hé\r\n".encode("utf-16"),
        b"\xfe\xff" + "FROM foo\nSYSTEM hé\r\n".encode("utf-16-be"),
    ],
)
def test_a_byte_order_mark_tells_the_encoding(content: bytes) -> None:
    assert decode_modelfile(content) == "FROM foo\nSYSTEM hé\r\n"


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnicodeError):
        decode_modelfile(b"FROM foo\nSYSTEM \xff\xfe")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM"),
        ("FROM foo\n\x0b\nSYSTEM a", r"line 2 begins with '\x0b'"),
        ("FROM foo\nSYSTEM a\0b", "line 2 holds a zero byte"),
        ("PARAMETER top_k 1", "no FROM"),
        ("FROM foo\nBADCOMMAND x", "line 2 begins with 'BADCOMMAND'"),
        ("FROM foo\nSYSTEM a\nb c", "line 3 begins with 'b'"),
        ("FROM foo\n\nSYTEM a", "Did you mean SYSTEM?"),
        ("FROM", "line 1 (FROM) has no value"),
        ("FROM foo\nPARAMETER top_k\n", "line 2 (PARAMETER) needs a name and a value, not 'top_k'"),
        ("FROM foo\nMESSAGE badguy x", "needs one of system, user, assistant, and a text"),
        ("FROM foo\nMESSAGE system", "not 'system'"),
        ('FROM foo\nSYSTEM """a""\n\n', "opens on line 2 (SYSTEM) are never closed"),
        ('FROM foo\nSYSTEM "', "never closed"),
    ],
)
def test_what_is_no_modelfile_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_modelfile(text)
    assert message in str(caught.value)


def test_from_may_be_told_elsewhere() -> None:
    assert to_recipe(parse_modelfile("SYSTEM x", default_from="/models/current")).sources == (
        "/models/current",
    )
    assert to_recipe(parse_modelfile("", default_from="/models/current")).sources == (
        "/models/current",
    )


# Inputs


def test_values_are_put_in_as_they_are() -> None:
    text = (
        'FROM {inputs.base}\nSYSTEM """{"a": {inputs.n}, "b": {{ .Prompt }}, '
        '{inputs.deep.key}} {x}"""'
    )
    values = {"base": "llama3", "n": 3, "deep": {"key": '"""\nFROM evil {inputs.n}'}}
    filled = fill_inputs(parse_modelfile(text), values)
    assert [(command.directive, command.value) for command in filled] == [
        ("FROM", "llama3"),
        ("SYSTEM", '{"a": 3, "b": {{ .Prompt }}, """\nFROM evil {inputs.n}} {x}'),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (1.5, "1.5"),
        (True, "true"),
        ([1, "ü"], '[1, "ü"]'),
        ({"a": None}, '{"a": null}'),
    ],
)
def test_each_kind_of_value_has_a_text(value: Any, text: str) -> None:
    assert recipe("FROM x\nSYSTEM {inputs.v}", v=value).fields == {"system": text}


@pytest.mark.parametrize(
    "text", ["{inputs}", "{inputs.}", "{inputs[0]}", "{ inputs.x }", "{inputs.x-y}", "{inputs.1}"]
)
def test_what_looks_like_a_placeholder_but_is_none_is_told(text: str) -> None:
    assert has_placeholders(text)
    (problem,) = modelfile_problems(f"FROM x\nSYSTEM {text}", has_source=False)
    assert "line 2 (SYSTEM)" in problem
    assert "expected {inputs.name}" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{inputs}}", "{inputs}"),
        ("{{inputs.v}} is {inputs.v}", "{inputs.v} is 7"),
        ("{{ inputs['a'] }}", "{ inputs['a'] }"),
        ("{{{inputs.v}}}", "{{inputs.v}}"),
        ("{{inputs.v}", "{7"),
        ("{{ .Inputs }}", "{{ .Inputs }}"),
    ],
)
def test_doubled_braces_are_text(text: str, expected: str) -> None:
    assert recipe(f"FROM x\nSYSTEM {text}", v=7).fields == {"system": expected}
    assert modelfile_problems(f"FROM x\nSYSTEM {text}", has_source=False) == []
    assert has_placeholders(text) is ("7" in expected)


def test_what_an_input_holds_is_checked_though_it_looks_like_a_placeholder() -> None:
    with pytest.raises(ConfigError, match="is not a whole number"):
        recipe("FROM x\nPARAMETER top_k {inputs.v}", v="{inputs.v}")


@pytest.mark.parametrize(
    "text", ['{"inputs": 1}', "{{ .Inputs }}", "inputs.x", "{my_inputs.x}", "{inputsx}"]
)
def test_other_braces_are_no_placeholders(text: str) -> None:
    assert not has_placeholders(text)
    assert modelfile_problems(f"FROM x\nSYSTEM {text}", has_source=False) == []


# What Ollama takes


def test_parameters_have_types() -> None:
    text = (
        "FROM x\nPARAMETER num_ctx 4096\nPARAMETER temperature 1e-1\nPARAMETER use_mmap "
        "T\nPARAMETER top_k 1\n"
    )
    fields = recipe(text + "PARAMETER top_k 2\nPARAMETER stop a\nPARAMETER stop b").fields
    assert fields == {
        "parameters": {
            "num_ctx": 4096,
            "temperature": 0.1,
            "use_mmap": True,
            "top_k": 2,
            "stop": ["a", "b"],
        }
    }


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+5", 5.0),
        ("-9223372036854775808", -(2.0**63)),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_0.5", 10.5),
        ("3.4e38", 3.4e38),
    ],
)
def test_numbers_are_what_go_takes_for_one(text: str, number: float) -> None:
    assert recipe(f"FROM x\nPARAMETER temperature {text}").fields == {
        "parameters": {"temperature": number}
    }


@pytest.mark.parametrize("text", ["1", "1.2", "v0.14.0", "1.2.3-rc.1", "1.2.3+b.01", "1.2.3-0a"])
def test_versions_are_what_go_takes_for_one(text: str) -> None:
    assert recipe(f"FROM x\nREQUIRES {text}").fields == {"requires": text.removeprefix("v")}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("PARAMETER num_ctx 4k", "is not a whole number"),
        ("PARAMETER num_ctx 1_0", "is not a whole number"),
        ("PARAMETER num_ctx \u0663", "is not a whole number"),
        ("PARAMETER num_ctx 5.0", "is not a whole number"),
        ("PARAMETER num_ctx 9223372036854775808", "is not a whole number"),
        (f"PARAMETER num_ctx {'9' * 5000}", "is not a whole number"),
        ("PARAMETER temperature nan", "is not a number"),
        ("PARAMETER temperature inf", "is not a number"),
        ("PARAMETER temperature 1e40", "is not a number"),
        ("PARAMETER temperature \u0661", "is not a number"),
        ('PARAMETER temperature " 1"', "is not a number"),
        ("PARAMETER use_mmap yes", "is not a true or false"),
        ("PARAMETER temprature 1", "did you mean temperature?"),
        ("PARAMETER num_gqa 8", "Ollama has no such parameter"),
        ("ADAPTER lora", "is not a path"),
        ("REQUIRES soon", "is not a version"),
        ("REQUIRES 1-rc", "is not a version"),
        ("REQUIRES 1.2+b", "is not a version"),
        ("REQUIRES 01.2.3", "is not a version"),
        ("REQUIRES 1.2.3-01", "is not a version"),
        ("REQUIRES 1.2.3-", "is not a version"),
        ("FROM other", "a model's name stands alone"),
        ("ADAPTER /a\nADAPTER /b", "takes one ADAPTER"),
    ],
)
def test_what_ollama_refuses_is_told_before(line: str, message: str) -> None:
    problems = modelfile_problems(f"FROM foo\n{line}", has_source=False)
    assert len(problems) == 1
    assert message in problems[0]
    with pytest.raises(ConfigError):
        recipe(f"FROM foo\n{line}")


@pytest.mark.parametrize(
    ("text", "with_source", "without"),
    [
        ("FROM /models/current/a.gguf", "", ""),
        ("FROM {inputs.base}", "", ""),
        ("SYSTEM x", "", "no FROM"),
        (
            "FROM ./a.gguf",
            "",
            "line 1 (FROM): './a.gguf' would be one of the files that source= brings",
        ),
        ("FROM .", "", "'.' would be one"),
        ("FROM ./", "", "'./' would be one"),
        ("FROM ../a", "", "'../a' would be one"),
        ("FROM llama3\nADAPTER ./a.gguf", "", "line 2 (ADAPTER): './a.gguf' would be one"),
        ("FROM llama3\nDRAFT ./a.gguf", "", "line 2 (DRAFT): './a.gguf' would be one"),
        ("FROM llama3\nADAPTER /in/a.gguf", "", ""),
        ("FROM llama3\nADAPTER {inputs.a}", "", ""),
        ("FROM llama3", "names the model 'llama3', and source= is given too; give one of them", ""),
        (
            "FROM ./a.gguf\nDRAFT ./b/../a.gguf",
            "line 2 (DRAFT): ./b/../a.gguf is the model itself",
            "is the model",
        ),
    ],
)
def test_relative_paths_are_of_what_source_brings(
    text: str, with_source: str, without: str
) -> None:
    for has_source, expected in ((True, with_source), (False, without)):
        problems = modelfile_problems(text, has_source=has_source)
        assert expected in " ".join(problems)
        assert bool(problems) is bool(expected)


def test_the_parameters_are_ollamas() -> None:
    """As `api/types.go` (Options, Runner) at v0.33.3 names them."""
    names = """
    num_ctx num_batch num_gpu main_gpu use_mmap num_thread draft_num_predict num_keep seed
    num_predict top_k top_p min_p typical_p repeat_last_n temperature repeat_penalty
    presence_penalty frequency_penalty stop
    """
    assert set(PARAMETERS) == set(names.split())


# Names


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("llama3.2:1b", "llama3.2:1b"),
        ("library/llama3.2", "llama3.2:latest"),
        ("registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
        ("me/mine", "me/mine:latest"),
        ("hf.co/owner/name:Q4_K_M", "hf.co/owner/name:Q4_K_M"),
        ("localhost:5000/me/mine", "localhost:5000/me/mine:latest"),
    ],
)
def test_names_are_listed_as_ollama_lists_them(name: str, listed: str) -> None:
    assert name_problem(name) is None
    assert listed_name(name) == listed
    assert listed_name(listed) == listed


@pytest.mark.parametrize(
    "name", ["", "a b", "-a", "a:", "a/b/c/d e", "my.org/a", "a:b:c", "ä", "a" * 81, "'; rm -rf"]
)
def test_other_names_are_refused(name: str) -> None:
    assert name_problem(name)
