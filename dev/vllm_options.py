"""Print the text of `flytekitplugins/inference/vllm/options.py`, read from the parser of an installed vLLM.

    python dev/vllm_options.py > new.py && mv new.py <the path above>

Run it with the Python of an environment that has vLLM. What the old text says about removed options
is kept, and options that it lists but the parser no longer has join them, to be completed by hand.
"""

from __future__ import annotations

import argparse
import importlib
import runpy
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MODULE = (
    Path(__file__).resolve().parent.parent
    / "plugins/flytekitplugins-inference/flytekitplugins/inference/vllm/options.py"
)
KINDS = {
    "NEGATABLE": "Booleans: `--x`, and `--no-x` for False.",
    "SWITCHES": "Booleans that can only be switched on: `--x`; there is no `--no-x`.",
    "OPTIONAL": "A value, or nothing behind the name: `--x` or `--x value`.",
    "LISTS": "One or more values behind one name: `--x a b`. No values is an error.",
    "APPENDED": "One value; the name is repeated for more: `--x a --x b`.",
    "JSON": "One value that is read as JSON. Dotted names set one key: `--x.key.nested value`.",
    "VALUES": "One value.",
}
JSON_READERS = {"loads", "parse_dataclass", "union_dict_and_str"}
TEXT_READERS = {
    "int", "float", "str", "human_readable_int", "human_readable_int_or_auto", "parse_reasoning_parser", "<lambda>",
}  # fmt: skip

# What the parser does not say.
COMMAS = {"device_ids", "disable_access_log_for_endpoints", "tool_server"}
SECRET = {"api_key": "VLLM_API_KEY", "hf_token": "HF_TOKEN"}
SECRET_KEYS = {
    "model_loader_extra_config": ("s3_access_key_id", "s3_secret_access_key"),
    "watermark_config": ("key",),
}


def serve_parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser of the `vllm` command line and that of its subcommand `serve`."""
    flexible = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    top = flexible(prog="vllm")
    subparsers = top.add_subparsers(dest="subparser")
    return top, importlib.import_module(
        "vllm.entrypoints.cli.serve"
    ).ServeSubcommand().subparser_init(subparsers)


def readers(function: Any) -> Iterator[str]:
    """Names of the functions that read one value: `function` and those that it wraps."""
    if callable(function):
        yield getattr(function, "__name__", repr(function))
        for cell in getattr(function, "__closure__", None) or ():
            if not isinstance(cell.cell_contents, type) or cell.cell_contents in (int, float, str):
                yield from readers(cell.cell_contents)


def kind(action: argparse.Action) -> str:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "NEGATABLE"
    if isinstance(action, argparse._StoreTrueAction):
        return "SWITCHES"
    if isinstance(action, argparse._AppendAction):
        return "APPENDED"
    if action.nargs in ("+", "?"):
        return {"+": "LISTS", "?": "OPTIONAL"}[action.nargs]
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


def read(parser: argparse.ArgumentParser) -> tuple[dict[str, set[str]], dict[str, str]]:
    """The names of each kind and the aliases."""
    kinds: dict[str, set[str]] = {name: set() for name in KINDS}
    strings: dict[int, list[str]] = {}
    for string, action in parser._option_string_actions.items():
        strings.setdefault(id(action), []).append(string)
    aliases = {"O": "optimization_level"}  # rewritten by vLLM before argparse sees it
    for action in parser._actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            continue
        found = kind(action)
        kinds[found].add(action.dest)
        others = set(strings[id(action)]) - {"--" + action.dest.replace("_", "-")}
        for other in sorted(others):
            bare = other.lstrip("-").replace("-", "_")
            if found == "NEGATABLE" and (other.startswith("--no-") or bare == inverse(action.dest)):
                continue
            aliases[bare] = action.dest
    return kinds, aliases


def inverse(name: str) -> str | None:
    if name.startswith("enable_"):
        return "disable_" + name.removeprefix("enable_")
    return "enable_" + name.removeprefix("disable_") if name.startswith("disable_") else None


def names(constant: str, members: Iterable[str], comment: str) -> str:
    text = textwrap.fill(
        " ".join(sorted(members)), 116, break_on_hyphens=False, break_long_words=False
    )
    body = f'"""\n{textwrap.indent(text, "    ")}\n    """' if len(text) > 80 else f'"{text}"'
    return f"#: {comment}\n{constant}: Final = _names({body})\n"


def table(constant: str, of: str, entries: dict[str, Any], comment: str) -> str:
    rows = "".join(row(key, value) for key, value in entries.items())
    return f"#: {comment}\n{constant}: Final[Mapping[str, {of}]] = {{\n{rows}}}\n"


def row(key: str, value: Any) -> str:
    """One line of a table, or several where the formatter wants them."""
    if len(line := f"    {literal(key)}: {literal(value)},\n") <= 121 or not isinstance(
        value, tuple
    ):
        return line
    return (
        f"    {literal(key)}: (\n"
        + "".join(f"        {literal(part)},\n" for part in value)
        + "    ),\n"
    )


def literal(value: str | tuple[str, ...]) -> str:
    """`repr` as the formatter writes it."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(literal, value)) + (",)" if len(value) == 1 else ")")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


HEAD = '''"""The options of `vllm serve` as data, so that a wrong name is found before a pod is started.

Read from the argument parser of vLLM {version} (`vllm.entrypoints.cli.serve`) by `dev/vllm_options.py`, with the Python
of an environment that has it:

    python dev/vllm_options.py > new.py && mv new.py <this file>

`dev/vllm_options_check.py` parses the cases of `tests/vllm_options_cases.json` there. Names are in snake case, without
dashes; the server takes dashes and underscores alike. Every name is of exactly one kind.
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


#: The version of vLLM that these options are of.
VERSION: Final = "{version}"
'''


def module(
    version: str, kinds: dict[str, set[str]], aliases: dict[str, str], removed: dict[str, Any]
) -> str:
    parts = [names(constant, kinds[constant], comment) for constant, comment in KINDS.items()]
    parts += [
        names(
            "COMMAS", COMMAS, "Those of `VALUES` whose one value is a list with commas: `--x a,b`."
        ),
        "#: Every name, without aliases and inverses.\nOPTIONS: Final = "
        + " | ".join(KINDS)
        + "\n",
        table(
            "ALIASES",
            "str",
            dict(sorted(aliases.items())),
            "Other names, without their one or two dashes.",
        ),
        "#: `disable_x` for `enable_x` and the other way round, which the server takes since "
        "0.33.0; older ones take\n"
        "#: `--no-enable-x` only, which all of them understand.\n"
        "INVERSES: Final[Mapping[str, str]] = {\n"
        '    {"enable": "disable", "disable": "enable"}[prefix] + "_" + rest: name\n'
        '    for name in NEGATABLE\n    for prefix, _, rest in [name.partition("_")]\n'
        '    if prefix in ("enable", "disable")\n}\n',
        table(
            "SECRET",
            "str",
            SECRET,
            "Options that are secrets, and the variable that the server reads instead.",
        ),
        table(
            "SECRET_KEYS",
            "tuple[str, ...]",
            SECRET_KEYS,
            "Keys of JSON options whose values are secrets.",
        ),
        table(
            "REMOVED",
            "tuple[str, str]",
            dict(sorted(removed.items())),
            "What the server no longer has: the first version without it, and what to say instead "
            "(empty: nothing).",
        ),
    ]
    public = sorted(
        [
            *KINDS,
            "ALIASES",
            "COMMAS",
            "INVERSES",
            "OPTIONS",
            "REMOVED",
            "SECRET",
            "SECRET_KEYS",
            "VERSION",
        ]
    )
    head = HEAD.format(version=version, all="\n".join(f'    "{name}",' for name in public))
    return "\n".join([head, *parts])


def main() -> int:
    version = importlib.import_module("vllm").__version__.split("+")[0]
    kinds, aliases = read(serve_parser()[1])
    options = set().union(*kinds.values())
    known = runpy.run_path(str(MODULE)) if MODULE.exists() else {}
    removed = {name: what for name, what in known.get("REMOVED", {}).items() if name not in options}
    for name in sorted(known.get("OPTIONS", set()) - options):
        print(f"{name}: no longer there; say in REMOVED what replaces it", file=sys.stderr)
        removed[name] = (version, "")
    for name in sorted(
        (COMMAS - kinds["VALUES"]) | (set(SECRET) - options) | (set(SECRET_KEYS) - kinds["JSON"])
    ):
        print(f"{name}: this script knows it as something else", file=sys.stderr)
        return 1
    print(module(version, kinds, aliases, removed), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
