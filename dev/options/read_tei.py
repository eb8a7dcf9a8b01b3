"""The options of text-embeddings-router, read from its source on standard input.

    git show v1.9.3:router/src/main.rs | python -m dev.options tei 1.9.3

The router is a Rust program whose options are the fields of `struct Args`, declared by clap:
`#[clap(…)]`, then `name: Type,`. The type tells how an option takes its value.
"""

from __future__ import annotations

import re
import sys

from dev.options.frame import Options

_FIELD = re.compile(
    r"#\[clap\((?P<clap>[^\]]*)\)\]\s*(?:#\[redact[^\]]*\]\s*)?(?P<name>\w+): (?P<type>[\w:<>]+),"
)


def read(version: str) -> Options:
    """Return the options that standard input declares."""
    options = Options(
        room="tei",
        program="text-embeddings-router",
        source="`router/src/main.rs` (struct Args) of huggingface/text-embeddings-inference",
        version=version,
    )
    for declared in _FIELD.finditer(sys.stdin.read()):
        if "long" in declared["clap"]:
            options.kinds[kind(declared)].add(declared["name"])
    return options


def kind(declared: re.Match[str]) -> str:
    """Return how an option takes its value."""
    if declared["type"] == "bool":
        return "BOOLEANS" if "num_args" in declared["clap"] else "SWITCHES"
    return "APPENDED" if "Vec<" in declared["type"] else "VALUES"
