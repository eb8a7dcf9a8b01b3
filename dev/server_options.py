"""Print the text of a room's `options.py`, read from the server's own argument parser.

    python dev/server_options.py sglang > new.py && mv new.py <sglang/options.py>
    python dev/server_options.py llamacpp b11549 > new.py && mv new.py <llamacpp/options.py>
    python dev/server_options.py sglang --check

For SGLang, run it with the Python of an environment that has it. llama.cpp is asked with
`llama-server --help`, which must be on the PATH (`dev/servers llamacpp` installs one) and does not
know its own build number. What the old text says about removed options is kept; options that it
lists but the parser no longer has join them, to be completed by hand. `--check` parses the cases of
`tests/servers/data/sglang.json`. `dev/vllm_options.py` does the same for vLLM.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import runpy
import subprocess
import sys
import textwrap
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ROOT / "plugins/flytekitplugins-inference/flytekitplugins/inference"
CASES = ROOT / "tests/servers/data/sglang.json"
KINDS = {
    "NEGATABLE": "Booleans: `--x`, and `--no-x` for False.",
    "SWITCHES": "Booleans that can only be switched on: `--x`.",
    "LISTS": "One or more values behind one name: `--x a b`.",
    "APPENDED": "One value; the name is repeated for more: `--x a --x b`.",
    "JSON": "One value that is read as JSON.",
    "VALUES": "One value.",
}
TABLES = {
    "ALIASES": "Other names, without their one or two dashes.",
    "INVERSES": "Names that switch an option of `NEGATABLE` off.",
    "ENVIRONMENT": "Variable → the option that it sets; an argument goes before it.",
    "REMOVED": "What the server no longer has: a version without it, and what to say instead "
    "(empty: nothing).",
}
SGLANG_SHORT = ("tp", "pp", "dp")
"""What people write, and argparse takes where it is the beginning of one name only."""
SGLANG_TEXTS = {
    "str",
    "int",
    "float",
    "human_readable_int",
    "nullable_str",
    "parse_cuda_graph_backend_arg",
}
SGLANG_JSON = {"loads", "json_list_type", "parse_cuda_graph_config_arg"}
SGLANG_JSON_TEXTS = {
    *(
        "deepep_config",
        "hicache_storage_backend_extra_config",
        "hisparse_config",
        "json_model_override_args",
    ),
    *("kv_events_config", "model_loader_extra_config", "modelexpress_config", "watermark_config"),
}
"""Texts to the parser, which the server reads as JSON (or some also as a file's name)."""
LLAMA_ENDS = {"help", "version", "cache_list", "completion_bash", "list_devices"}
"""Print something and end."""
LLAMA_JSON = {"json_schema", "chat_template_kwargs", "ui_config", "mcp_servers_json"}
LLAMA_REPEATED = {"logit_bias", "dry_sequence_breaker"}


@dataclass
class Options:
    """What a parser knows."""

    server: str
    source: str
    version: str
    kinds: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    commas: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    inverses: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    removed: dict[str, tuple[str, str]] = field(default_factory=dict)


def snake(name: str) -> str:
    """Return an option's name without dashes in front, in snake case."""
    return name.lstrip("-").replace("-", "_")


# SGLang: a parser of Python's argparse


def sglang_parser() -> argparse.ArgumentParser:
    """Return the parser of `ServerArgs`."""
    parser = argparse.ArgumentParser()
    importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    return parser


def check_sglang() -> int:
    """Return 1 when the parser makes something else of a recorded command line."""
    parser, status = sglang_parser(), 0
    usual = vars(parser.parse_args(["--model-path", "m"]))
    for case in json.loads(CASES.read_text())["cases"]:
        parsed = vars(parser.parse_args(["--model-path", "m", *case["argv"]]))
        if (
            found := {name: value for name, value in parsed.items() if value != usual[name]}
        ) != case["parsed"]:
            print(f"{case['about']}: {found!r}", file=sys.stderr)
            status = 1
    return status


def read_sglang() -> Options:
    """Return the options of `ServerArgs`."""
    parser = sglang_parser()
    version = importlib.import_module("sglang.version").__version__.split("+")[0]
    options = Options(
        "SGLang", "the argument parser of `sglang.srt.server_args.ServerArgs`", version
    )
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = [
            snake(string) for string in action.option_strings if not string.startswith("--no-")
        ]
        options.kinds[sglang_kind(action)].add(names[0])
        options.aliases.update(dict.fromkeys(names[1:], names[0]))
    for short in SGLANG_SHORT:
        begun = [name for name in parser._option_string_actions if name.startswith(f"--{short}")]
        if begun == [f"--{short}-size"]:
            options.aliases[short] = f"{short}_size"
    return options


def sglang_kind(action: argparse.Action) -> str:
    """Return how an option takes its value."""
    reader = getattr(action.type, "__name__", "str")
    if isinstance(action, argparse.BooleanOptionalAction):
        return "NEGATABLE"
    if isinstance(action, argparse._StoreTrueAction) or action.nargs == 0:
        return "SWITCHES"
    if action.nargs in ("+", "*"):
        return "LISTS"
    if reader in SGLANG_JSON or snake(action.option_strings[0]) in SGLANG_JSON_TEXTS:
        return "JSON"
    if reader in SGLANG_TEXTS and action.nargs in (None, "?"):
        return "VALUES"
    raise SystemExit(
        f"{action.option_strings}: nargs={action.nargs!r} type={action.type!r}: a kind this "
        "script lacks"
    )


# llama.cpp: the text of --help

_ENTRY = re.compile(r"(?m)^(?=-)")
_NAME = re.compile(r"--?[A-Za-z][\w.-]*")
_VARIABLE = re.compile(r"\(env: (\w+)\)")


def read_llamacpp(version: str) -> Options:
    """Return the options of `llama-server --help`."""
    text = subprocess.run(
        ["llama-server", "--help"], check=True, capture_output=True, text=True
    ).stdout
    options = Options("llama.cpp", "`llama-server --help`", version)
    for section in re.split(r"(?m)^-{5} .* -{5}$", text)[1:]:
        for entry in _ENTRY.split(section)[1:]:
            add_llamacpp(options, entry)
    return options


def add_llamacpp(options: Options, entry: str) -> None:
    """Add one option: its names and value on the first line, behind them or below what it does."""
    head = re.split(r"(?<=\S)\s{2,}(?!-)", re.sub(r",\s+", ", ", entry.splitlines()[0]))[0].strip()
    spelled = [match.group() for part in head.split(", ") if (match := _NAME.match(part))]
    value = re.sub(r"^(?:--?[A-Za-z][\w.-]*(?:, |$| ))*", "", head)
    if (
        LLAMA_ENDS & set(map(snake, spelled)) or "." in head.partition(" ")[0]
    ):  # a dot stands before a key
        return
    positive = [
        name for name in spelled if not re.match(r"--?no-|-n(kvo|ocb|r)$|-no(-|cb)", name)
    ] or spelled
    main = snake(max((name for name in positive if name.startswith("--")), key=long_name(entry)))
    if "argument has been removed" in entry:
        instead = re.search(r"use --([\w-]+)", " ".join(entry.split()))
        for name in spelled:
            options.removed[snake(name)] = (
                f"{options.version} or earlier",
                snake(instead[1]) if instead else "",
            )
        return
    is_negatable = len(positive) < len(spelled) or (
        not value and f"--no-{main.replace('_', '-')}" in spelled
    )
    options.kinds[llamacpp_kind(main, value, is_negatable=is_negatable)].add(main)
    if value.endswith(",...") or (value and "comma-separated" in entry):
        options.commas.add(main)
    for name in map(snake, spelled):
        if name != main:
            others = options.aliases if name in map(snake, positive) else options.inverses
            others[name] = main
    if variable := _VARIABLE.search(entry):
        options.environment[variable[1]] = main


def long_name(entry: str) -> Any:
    """Return a key that prefers the name which the option's variable has, else the longest."""
    variable = _VARIABLE.search(entry)
    wanted = variable[1].lower().removeprefix("llama_arg_") if variable else ""
    return lambda name: (snake(name) == wanted, wanted.endswith(snake(name)), len(name))


def llamacpp_kind(name: str, value: str, *, is_negatable: bool) -> str:
    """Return how an option takes its value."""
    if is_negatable:
        return "NEGATABLE"
    if not value:
        return "SWITCHES"
    if name in LLAMA_JSON:
        return "JSON"
    if name in LLAMA_REPEATED:
        return "APPENDED"
    return "LISTS" if value == "START END" else "VALUES"


# The text

HEAD = '''"""The options of {server} as data, so that a wrong name is found before a pod is started.

Read from {source} of {server} {version}
by `dev/server_options.py`. Names are in snake case, without dashes. Every name is of exactly one kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
{all}
]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The version that these options are of.
VERSION: Final = "{version}"
'''


def names(constant: str, members: set[str], comment: str) -> str:
    """Return a set of names, filled to the width of a line."""
    text = textwrap.fill(
        " ".join(sorted(members)), 116, break_on_hyphens=False, break_long_words=False
    )
    body = f'"""\n{textwrap.indent(text, "    ")}\n    """' if len(text) > 80 else f'"{text}"'
    return f"#: {comment}\n{constant}: Final = _names({body})\n"


def table(constant: str, entries: Mapping[str, Any], comment: str) -> str:
    """Return a table, one row in a line."""
    of = "tuple[str, str]" if constant == "REMOVED" else "str"
    rows = "".join(
        f"    {literal(key)}: {literal(value)},\n" for key, value in sorted(entries.items())
    )
    return f"#: {comment}\n{constant}: Final[Mapping[str, {of}]] = {{\n{rows}}}\n"


def literal(value: str | tuple[str, ...]) -> str:
    """Return `repr` as the formatter writes it."""
    return f"({', '.join(map(literal, value))})" if isinstance(value, tuple) else f'"{value}"'


def module(options: Options) -> str:
    """Return the whole text."""
    tables = {name: getattr(options, name.lower()) for name in TABLES}
    kinds = {kind: options.kinds[kind] for kind in KINDS if options.kinds[kind]}
    present = {name: entries for name, entries in tables.items() if entries}
    parts = [names(kind, members, KINDS[kind]) for kind, members in kinds.items()]
    if options.commas:
        parts.append(
            names("COMMAS", options.commas, "Those of `VALUES` that take a list as `--x a,b`.")
        )
    parts += [table(name, entries, TABLES[name]) for name, entries in present.items()]
    public = sorted([*kinds, *present, "VERSION", *(["COMMAS"] if options.commas else [])])
    listed = "\n".join(f'    "{name}",' for name in public)
    head = HEAD.format(
        server=options.server, source=options.source, version=options.version, all=listed
    )
    return "\n".join([head, *parts])


def keep_removed(options: Options, old: Path) -> None:
    """Keep what is known of removed options, and note those that have gone."""
    known = runpy.run_path(str(old)) if old.exists() else {}
    here = set().union(*options.kinds.values()) | set(options.aliases)
    before = set().union(*(known.get(kind, set()) for kind in KINDS))
    gone = dict.fromkeys(before - here, (options.version, ""))
    for name in sorted(gone.keys() - known.get("REMOVED", {}).keys()):
        print(f"{name}: no longer there; say in REMOVED what replaces it", file=sys.stderr)
    options.removed = {**options.removed, **gone, **known.get("REMOVED", {})}
    options.removed = {name: what for name, what in options.removed.items() if name not in here}


def main(words: list[str]) -> int:
    """Print the module that the command line asks for."""
    if words == ["sglang", "--check"]:
        return check_sglang()
    if words == ["sglang"]:
        options = read_sglang()
    elif len(words) == 2 and words[0] == "llamacpp":
        options = read_llamacpp(words[1])
    else:
        print(__doc__, file=sys.stderr)
        return 64
    options.commas &= options.kinds["VALUES"]
    keep_removed(options, ROOMS / words[0] / "options.py")
    print(module(options), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
