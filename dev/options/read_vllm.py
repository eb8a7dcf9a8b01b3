"""The options of `vllm serve`, read from the argument parser of the installed vLLM."""

from __future__ import annotations

import argparse
import contextlib
import enum
import importlib
import io
import json
import sys
from typing import TYPE_CHECKING, Any

from dev.options.frame import ROOT, Options, snake

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = ROOT / "tests/vllm_options_cases.json"
"""Each has an `arg_dict`, the `argv` that it becomes, and what the server must understand:
`parsed`, values by name, for configuration objects the named fields only."""
JSON_READERS = {"loads", "parse_dataclass", "union_dict_and_str"}
TEXT_READERS = {
    "int",
    "float",
    "str",
    "human_readable_int",
    "human_readable_int_or_auto",
    "parse_reasoning_parser",
    "<lambda>",
}


LISTS_AS_JSON = {"allowed_headers", "allowed_methods", "allowed_origins"}
"""Lists that the parser reads as JSON."""
COMMAS = {"device_ids", "disable_access_log_for_endpoints", "tool_server"}
"""Take a list with commas, which the parser does not say."""


def serve_parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Return the parser of the `vllm` command line and that of its subcommand `serve`."""
    flexible = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    top = flexible(prog="vllm")
    subparsers = top.add_subparsers(dest="subparser")
    return top, importlib.import_module(
        "vllm.entrypoints.cli.serve"
    ).ServeSubcommand().subparser_init(subparsers)


def readers(function: Any) -> Iterator[str]:
    """Yield the names of the functions that read one value: `function` and those that it wraps."""
    if callable(function):
        yield getattr(function, "__name__", repr(function))
        for cell in getattr(function, "__closure__", None) or ():
            if not isinstance(cell.cell_contents, type) or cell.cell_contents in (int, float, str):
                yield from readers(cell.cell_contents)


def kind(action: argparse.Action) -> str:
    """Return how an option takes its value."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return "NEGATABLE"
    if isinstance(action, argparse._StoreTrueAction):
        return "SWITCHES"
    if isinstance(action, argparse._AppendAction):
        return "APPENDED"
    if action.nargs == "+":
        return "LISTS"
    if action.nargs == "?":
        return "VALUES"  # the bare `--x` that it also takes cannot be said, nor need it be
    if action.nargs is None:
        names = set(readers(action.type)) - {"_optional_type", "_parse_type"}
        if names & JSON_READERS:
            return "JSON"
        if names <= TEXT_READERS:
            return "VALUES"
    raise SystemExit(
        f"{action.option_strings}: nargs={action.nargs!r} type={action.type!r}: a kind this "
        "script lacks"
    )


def read() -> Options:
    """Return the options of `vllm serve`."""
    parser = serve_parser()[1]
    options = Options(
        room="vllm",
        program="vllm serve",
        source="the argument parser of `vllm.entrypoints.cli.serve` of vLLM",
        version=importlib.import_module("vllm").__version__.split("+")[0],
        aliases={"O": "optimization_level"},  # rewritten by vLLM before argparse sees it
        commas=set(COMMAS),
    )
    strings: dict[int, list[str]] = {}
    for string, action in parser._option_string_actions.items():
        strings.setdefault(id(action), []).append(string)
    for action in parser._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            add_option(options, action, strings[id(action)])
    if COMMAS - options.kinds["VALUES"]:
        sys.exit(f"{sorted(COMMAS)}: this script knows them as something else")
    return options


def add_option(options: Options, action: argparse.Action, strings: list[str]) -> None:
    """Add one option, its other names, and the name that switches it off."""
    how = kind(action)
    options.kinds[how].add(action.dest)
    # vLLM takes `disable_x` for `enable_x` and the other way round since 0.33.0; older ones take
    # `--no-enable-x` only, which all of them understand
    note_reader(options, action, how)
    opposite = inverse(action.dest) if how == "NEGATABLE" else None
    if opposite:
        options.inverses[opposite] = action.dest
    for string in sorted(strings):
        name = snake(string)
        is_negation = how == "NEGATABLE" and string.startswith("--no-")
        if name not in (action.dest, opposite) and not is_negation:
            options.aliases[name] = action.dest


def _numbers_first(text: str) -> tuple[int, str]:
    return (int(text) if text.isdigit() else sys.maxsize, text)


def note_reader(options: Options, action: argparse.Action, how: str) -> None:
    """Note how the parser reads the option's value, where that can be checked beforehand."""
    names = set(readers(action.type))
    if how == "JSON":
        if "union_dict_and_str" in names:
            options.readers["TEXTS"].add(action.dest)
        elif action.dest not in LISTS_AS_JSON:
            options.readers["OBJECTS"].add(action.dest)
    elif how == "VALUES" and action.choices:
        # numbers in their order, before words
        options.choices[action.dest] = tuple(sorted(map(str, action.choices), key=_numbers_first))
    elif how == "VALUES" and names & {"human_readable_int", "human_readable_int_or_auto"}:
        options.readers["SIZES"].add(action.dest)
    elif how == "VALUES" and "int" in names:
        options.readers["INTEGERS"].add(action.dest)
    elif how == "VALUES" and "float" in names:
        options.readers["NUMBERS"].add(action.dest)


def inverse(name: str) -> str | None:
    """Return the opposite option's name: `disable_x` of `enable_x`, or the other way round."""
    prefix, _, rest = name.partition("_")
    opposites = {"enable": "disable", "disable": "enable"}
    return f"{opposites[prefix]}_{rest}" if prefix in opposites else None


def matches(actual: Any, expected: Any) -> bool:
    """Return whether a parsed value is the expected one."""
    if isinstance(expected, dict) and not isinstance(actual, dict):
        return all(matches(getattr(actual, key, None), value) for key, value in expected.items())
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(expected)
            and all(map(matches, actual, expected))
        )
    if isinstance(actual, enum.Enum):
        return expected in (actual.name, actual.value)
    return type(actual) is type(expected) and bool(actual == expected)


def check() -> int:
    """Return 1 when the parser makes something else of a recorded command line."""
    parser, _ = serve_parser()
    cases = json.loads(CASES.read_text())
    wrong = 0
    for case in cases:
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                parsed = parser.parse_args(["serve", "some/model", *case["argv"]])
        except SystemExit:
            values: dict[str, Any] = {"error": complaint.getvalue().strip().splitlines()[-1]}
        else:
            values = {
                name: getattr(parsed, name, "absent")
                for name in {"model_tag": "", **case["parsed"]}
            }
        expected = {"model_tag": "some/model", **case["parsed"]}
        if values.keys() != expected.keys() or not all(
            matches(values[name], expected[name]) for name in expected
        ):
            wrong += 1
            print(f"{case['argv']}\n    expected {expected}\n    read     {values}")
    print(f"{len(cases)} cases, {wrong} wrong")
    return 1 if wrong else 0
