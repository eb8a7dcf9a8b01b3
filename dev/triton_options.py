"""Print the text of `flytekitplugins/inference/triton/options.py`, read from the parser of Triton's source.

    git clone --depth 1 --branch v2.71.0 https://github.com/triton-inference-server/server
    python dev/triton_options.py server > new.py && mv new.py <the path above>

Only the declarations of options and the cases of the parser's `switch` are read, as text; nothing
is compiled. Options that the old text lists and the parser no longer has join the removed ones, to
be completed by hand.
"""

from __future__ import annotations

import re
import runpy
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

MODULE = (
    Path(__file__).resolve().parent.parent
    / "plugins/flytekitplugins-inference/flytekitplugins/inference/triton/options.py"
)
PARSER = "src/command_line_parser.cc"
KINDS = {
    "SWITCHES": "Switched on by their name: `--x`.",
    "BOOLEANS": "On or off by a value: `--x true`, `--x false`.",
    "APPENDED": "One value; the name is repeated for more: `--x a --x b`.",
    "VALUES": "One value.",
}

# What the parser does not say.
ALIASES = {"model_store": "model_repository"}
REMOVED = {
    "tf_add_vgpu": ("2.2.0", "backend_config"),
    "tf_allow_soft_placement": ("2.2.0", "backend_config"),
    "tf_gpu_memory_fraction": ("2.2.0", "backend_config"),
}
DEPRECATED = {
    "response_cache_byte_size": "cache_config=local,size=…",
    "strict_model_config": "disable_auto_complete_config",
    "trace_count": "trace_config=count=…",
    "trace_file": "trace_config=triton,file=…",
    "trace_level": "trace_config=level=…",
    "trace_log_frequency": "trace_config=triton,log-frequency=…",
    "trace_rate": "trace_config=rate=…",
}

_DECLARED = re.compile(
    r'\{\s*(OPTION_\w+),\s*"([a-z0-9-]+)",\s*(Option::Arg\w+|"[^"]*")', re.DOTALL
)
_CASE = re.compile(r"case (OPTION_\w+):(.*?)(?=case OPTION_|\n      \}\n)", re.DOTALL)
_REPEATABLE = re.compile(
    r"\.(push_back|insert|emplace)\(|ParseRestrictedFeatureOption|_\[cache_name\]|trace_level_ \|"
)


def read(source: str) -> dict[str, set[str]]:
    """The names of each kind."""
    repeatable = {option for option, body in _CASE.findall(source) if _REPEATABLE.search(body)}
    kinds: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for option, flag, argument in _DECLARED.findall(source):
        name = flag.replace("-", "_")
        if option == "OPTION_HELP" or name in ALIASES:
            continue
        kind = {"Option::ArgNone": "SWITCHES", "Option::ArgBool": "BOOLEANS"}.get(
            argument, "VALUES"
        )
        kinds["APPENDED" if option in repeatable else kind].add(name)
    return kinds


def names(constant: str, members: Iterable[str], comment: str) -> str:
    text = textwrap.fill(
        " ".join(sorted(members)), 116, break_on_hyphens=False, break_long_words=False
    )
    body = f'"""\n{textwrap.indent(text, "    ")}\n    """' if len(text) > 80 else f'"{text}"'
    return f"#: {comment}\n{constant}: Final = _names({body})\n"


def table(constant: str, of: str, entries: dict[str, Any], comment: str) -> str:
    rows = "".join(
        f"    {literal(key)}: {literal(value)},\n" for key, value in sorted(entries.items())
    )
    return f"#: {comment}\n{constant}: Final[Mapping[str, {of}]] = {{\n{rows}}}\n"


def literal(value: str | tuple[str, ...]) -> str:
    """`repr` as the formatter writes it."""
    return f'"{value}"' if isinstance(value, str) else "(" + ", ".join(map(literal, value)) + ")"


HEAD = '''"""The options of `tritonserver` as data, so that a wrong name is found before a pod is started.

Read from `{parser}` of triton-inference-server/server {version} by `dev/triton_options.py`. Names
are in snake case, without dashes; the server itself takes dashes only. Every name is of exactly one kind.
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


#: The version of Triton that these options are of.
VERSION: Final = "{version}"
'''


def module(version: str, kinds: dict[str, set[str]], removed: dict[str, Any]) -> str:
    parts = [names(constant, kinds[constant], comment) for constant, comment in KINDS.items()]
    parts += [
        "#: Every name, without aliases.\nOPTIONS: Final = " + " | ".join(KINDS) + "\n",
        table("ALIASES", "str", ALIASES, "Other names."),
        table(
            "DEPRECATED",
            "str",
            DEPRECATED,
            "What the server still takes, with a warning; and what to say instead.",
        ),
        table(
            "REMOVED",
            "tuple[str, str]",
            removed,
            "What the server no longer has: the first version without it, and what to say instead "
            "(empty: nothing).",
        ),
    ]
    public = sorted([*KINDS, "ALIASES", "DEPRECATED", "OPTIONS", "REMOVED", "VERSION"])
    head = HEAD.format(
        parser=PARSER, version=version, all="\n".join(f'    "{name}",' for name in public)
    )
    return "\n".join([head, *parts])


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    root = Path(sys.argv[1])
    kinds = read((root / PARSER).read_text(encoding="utf-8"))
    version = (root / "TRITON_VERSION").read_text().strip()
    options = set().union(*kinds.values())
    known = runpy.run_path(str(MODULE)) if MODULE.exists() else {}
    removed = {
        **REMOVED,
        **{name: what for name, what in known.get("REMOVED", {}).items() if name not in options},
    }
    for name in sorted(known.get("OPTIONS", set()) - options):
        print(f"{name}: no longer there; say in REMOVED what replaces it", file=sys.stderr)
        removed[name] = (version, "")
    for name in sorted((set(DEPRECATED) - options) | (set(REMOVED) & options)):
        print(f"{name}: this script knows it as something else", file=sys.stderr)
        return 1
    print(module(version, kinds, removed), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
