"""The options of SGLang, read from the argument parser of the installed one."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from dev.options.frame import ROOT, Options, snake

CASES = ROOT / "tests/servers/data/sglang.json"
SHORT = ("tp", "pp", "dp")
"""What people write, and argparse takes where it is the beginning of one name only."""
TEXTS = {
    "str",
    "int",
    "float",
    "human_readable_int",
    "nullable_str",
    "parse_cuda_graph_backend_arg",
}
JSON = {"loads", "json_list_type", "parse_cuda_graph_config_arg"}
JSON_TEXTS = {
    *(
        "deepep_config",
        "hicache_storage_backend_extra_config",
        "hisparse_config",
        "json_model_override_args",
    ),
    *("kv_events_config", "model_loader_extra_config", "modelexpress_config", "watermark_config"),
}
"""Texts to the parser, which the server reads as JSON (or some also as a file's name)."""


def parser_of_sglang() -> argparse.ArgumentParser:
    """Return the parser of `ServerArgs`."""
    parser = argparse.ArgumentParser()
    importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    return parser


def check() -> int:
    """Return 1 when the parser makes something else of a recorded command line."""
    parser = parser_of_sglang()
    status = 0
    usual = vars(parser.parse_args(["--model-path", "m"]))
    for case in json.loads(CASES.read_text())["cases"]:
        parsed = vars(parser.parse_args(["--model-path", "m", *case["argv"]]))
        changed = {name: value for name, value in parsed.items() if value != usual[name]}
        if changed != case["parsed"]:
            print(f"{case['about']}: {changed!r}", file=sys.stderr)
            status = 1
    return status


def read() -> Options:
    """Return the options of `ServerArgs`."""
    parser = parser_of_sglang()
    version = importlib.import_module("sglang.version").__version__.split("+")[0]
    options = Options(
        room="sglang",
        program="sglang serve",
        source="the argument parser of `sglang.srt.server_args.ServerArgs` of SGLang",
        version=version,
    )
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = [
            snake(string) for string in action.option_strings if not string.startswith("--no-")
        ]
        options.kinds[kind(action)].add(names[0])
        options.aliases.update(dict.fromkeys(names[1:], names[0]))
    for short in SHORT:
        begun = [name for name in parser._option_string_actions if name.startswith(f"--{short}")]
        if begun == [f"--{short}-size"]:
            options.aliases[short] = f"{short}_size"
    return options


def kind(action: argparse.Action) -> str:
    """Return how an option takes its value."""
    reader = getattr(action.type, "__name__", "str")
    if isinstance(action, argparse.BooleanOptionalAction):
        return "NEGATABLE"
    if isinstance(action, argparse._StoreTrueAction) or action.nargs == 0:
        return "SWITCHES"
    if action.nargs in ("+", "*"):
        return "LISTS"
    if reader in JSON or snake(action.option_strings[0]) in JSON_TEXTS:
        return "JSON"
    if reader in TEXTS and action.nargs in (None, "?"):
        return "VALUES"
    raise SystemExit(
        f"{action.option_strings}: nargs={action.nargs!r} type={action.type!r}: a kind this "
        "script lacks"
    )
