"""Reads the options of text-embeddings-router from its source and writes `tei/options.py` to standard output.

    git -C text-embeddings-inference show v1.9.3:router/src/main.rs | python dev/tei_options.py
    1.9.3 > new.py

The router is a Rust program whose options are the fields of `struct Args`, declared by clap:
`#[clap(…)]`, then `name: Type,`. The type tells how an option takes its value.
"""

from __future__ import annotations

import re
import sys
import textwrap

_FIELD = re.compile(
    r"#\[clap\((?P<clap>[^\]]*)\)\]\s*(?:#\[redact[^\]]*\]\s*)?(?P<name>\w+): (?P<type>[\w:<>]+),"
)
KINDS = {
    "SWITCHES": "`--x` only.",
    "BOOLEANS": "`--x true` and `--x false`.",
    "VALUES": "`--x VALUE`.",
    "APPENDED": "`--x A --x B`.",
}
_HEAD = '''\
"""The options of `text-embeddings-router` as data, so that a wrong name is found before a pod is started.

Read from huggingface/text-embeddings-inference v{version}, `router/src/main.rs` (struct Args), by `dev/tei_options.py`.
Names are in snake case; the router takes them with dashes. Every name is of exactly one kind.
"""

from __future__ import annotations

from typing import Final

__all__ = ["APPENDED", "BOOLEANS", "SWITCHES", "VALUES", "VERSION"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The version of the router that these options are of.
VERSION: Final = "{version}"
'''


def kind(field: re.Match[str]) -> str:
    """Return how an option takes its value."""
    if field["type"] == "bool":
        return "BOOLEANS" if "num_args" in field["clap"] else "SWITCHES"
    return "APPENDED" if "Vec<" in field["type"] else "VALUES"


def main() -> None:
    """Translate standard input."""
    fields = [field for field in _FIELD.finditer(sys.stdin.read()) if "long" in field["clap"]]
    print(_HEAD.format(version=sys.argv[1]), end="")
    for name, text in KINDS.items():
        names = sorted(field["name"] for field in fields if kind(field) == name)
        lines = textwrap.fill(" ".join(names), 116, initial_indent="    ", subsequent_indent="    ")
        print(f'\n#: {text}\n{name}: Final = _names("""\n{lines}\n""")')


if __name__ == "__main__":
    main()
