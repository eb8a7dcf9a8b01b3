"""The text of a server's `options.py`: one form for all servers, whoever reads their parser.

The text is data only: sets of names by how an option takes its value, and tables. It imports
nothing, so that it can be read again where the package is not installed.
"""

from __future__ import annotations

import runpy
import sys
import textwrap
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).resolve().parents[2]
INFERENCE = ROOT / "plugins/flytekitplugins-inference/flytekitplugins/inference"
WIDTH = 100
KINDS = {
    "NEGATABLE": "Booleans: `--x`, and `--no-x` for False.",
    "SWITCHES": "Booleans that can only be switched on: `--x`.",
    "BOOLEANS": "Booleans by a word: `--x true`, `--x false`.",
    "LISTS": "One or more values behind one name: `--x a b`.",
    "APPENDED": "One value; the name is repeated for more: `--x a --x b`.",
    "JSON": "One value that is read as JSON.",
    "VALUES": "One value.",
}
"""Kind of option → what the text says about it. Every name is of exactly one kind."""
TABLES = {
    "ALIASES": "Other names → the long name.",
    "INVERSES": "Names that switch an option of `NEGATABLE` off → that option.",
    "ENVIRONMENT": "Variables → the option that each sets; an argument overrules it.",
    "DEPRECATED": "What the server still takes, with a warning → what to say instead.",
    "REMOVED": "What the server no longer has → the first version known to lack it, and what to\n"
    "#: say instead (empty: nothing).",
}
READERS = {
    "INTEGERS": "Those of `VALUES` that are whole numbers.",
    "NUMBERS": "Those of `VALUES` that are numbers.",
    "SIZES": "Those of `VALUES` that are whole numbers, also as `4k` (1000) or `4K` (1024).",
    "OBJECTS": "Those of `JSON` that are objects.",
    "TEXTS": "Those of `JSON` that are also read as plain text.",
}
"""How the server's parser reads a value → what the text says about it."""
CHOICES = "Those of `VALUES` that take one of these."
COMMAS = "Those of `VALUES` that take a list as `--x a,b`."
HEAD = '''"""The options of `{program}` as data: a wrong name is found before a pod starts.

{source}
Written by `python -m dev.options {room}`. Names are in snake case, without dashes.
"""

#: The version that these options are of.
VERSION = "{version}"
'''


@dataclass(kw_only=True)
class Options:
    """What a parser knows."""

    room: str
    """The server's folder in the package."""
    program: str
    """The command whose options these are."""
    source: str
    """Where they were read: a noun phrase, which the text continues with the version."""
    version: str
    kinds: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    readers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    commas: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    inverses: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    deprecated: dict[str, str] = field(default_factory=dict)
    removed: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Every long name."""
        return set().union(*self.kinds.values())


def snake(name: str) -> str:
    """Return an option's name without dashes in front, in snake case."""
    return name.lstrip("-").replace("-", "_")


def committed(room: str) -> dict[str, Any]:
    """Return the constants of the text that is committed; none where there is no text yet."""
    path = INFERENCE / room / "options.py"
    return runpy.run_path(str(path)) if path.exists() else {}


def keep_removed(options: Options) -> None:
    """Keep what is known of removed options, and note those that have gone since.

    These are told on standard error: what replaces them is to be completed by hand.
    """
    old = committed(options.room)
    known = options.names | options.aliases.keys()
    before = set().union(*(old.get(kind, set()) for kind in KINDS))
    gone = dict.fromkeys(before - known, (options.version, ""))
    for name in sorted(gone.keys() - old.get("REMOVED", {}).keys() - options.removed.keys()):
        print(f"{name}: no longer there; say in REMOVED what replaces it", file=sys.stderr)
    removed = {**gone, **options.removed, **old.get("REMOVED", {})}
    options.removed = {name: what for name, what in removed.items() if name not in known}


def text(options: Options) -> str:
    """Return the whole text, as `ruff format` leaves it."""
    source = f"Read from {options.source} {options.version}."
    head = HEAD.format(
        program=options.program,
        source=textwrap.fill(source, WIDTH, break_on_hyphens=False, break_long_words=False),
        room=options.room,
        version=options.version,
    )
    sets = [(kind, options.kinds[kind], comment) for kind, comment in KINDS.items()]
    sets.append(("COMMAS", options.commas & options.kinds["VALUES"], COMMAS))
    sets += [(reader, options.readers[reader], comment) for reader, comment in READERS.items()]
    tables: list[tuple[str, Mapping[str, Any], str]] = [("CHOICES", options.choices, CHOICES)]
    tables += [(name, getattr(options, name.lower()), comment) for name, comment in TABLES.items()]
    return "\n".join(
        [
            head,
            *(_set(*parts) for parts in sets if parts[1]),
            *(_table(*parts) for parts in tables if parts[1]),
        ]
    )


def _set(constant: str, members: Iterable[str], comment: str) -> str:
    body = textwrap.fill(
        " ".join(sorted(members)),
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return f'#: {comment}\n{constant} = frozenset(\n    """\n{body}\n    """.split()\n)\n'


def _table(constant: str, entries: Mapping[str, Any], comment: str) -> str:
    rows = "".join(_row(name, value) for name, value in sorted(entries.items()))
    return f"#: {comment}\n{constant} = {{\n{rows}}}\n"


def _row(name: str, value: str | tuple[str, ...]) -> str:
    """Return one line, or several where the formatter wants them."""
    line = f"    {_literal(name)}: {_literal(value)},\n"
    if len(line) <= WIDTH + 1 or isinstance(value, str):
        return line
    parts = "".join(f"        {_literal(part)},\n" for part in value)
    return f"    {_literal(name)}: (\n{parts}    ),\n"


def _literal(value: str | tuple[str, ...]) -> str:
    """Return `repr` as the formatter writes it."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))})"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
