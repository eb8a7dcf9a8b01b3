"""Print the text of a server's `options.py`, read from the server's own parser. Run in the root.

    python -m dev.options vllm               > new.py    with the Python that has vLLM
    python -m dev.options sglang             > new.py    with the Python that has SGLang
    python -m dev.options llamacpp b11549    > new.py    with llama-server on the PATH
    python -m dev.options triton <checkout>  > new.py    a checkout of Triton's source
    python -m dev.options tei 1.9.3 <main.rs > new.py    the source of the router's options
    python -m dev.options vllm --check                   parses recorded cases; also sglang

Then `mv new.py …/inference/<server>/options.py`. What the committed text says about removed options
is kept. Options that it lists and the parser no longer has join them: say there what replaces them.
`dev/servers` installs a llama-server, which does not know its own build number.
"""

from __future__ import annotations

import importlib
import sys

from dev.options.frame import keep_removed, text

ARGUMENTS = {"vllm": 0, "sglang": 0, "llamacpp": 1, "triton": 1, "tei": 1}
"""Server → how many arguments its reader takes."""


def main(words: list[str]) -> int:
    """Print the text that the command line asks for."""
    server, rest = (words[0], words[1:]) if words else ("", [])
    if server not in ARGUMENTS:
        print(__doc__, file=sys.stderr)
        return 64
    reader = importlib.import_module(f"dev.options.read_{server}")
    if rest == ["--check"] and hasattr(reader, "check"):
        return int(reader.check())
    if len(rest) != ARGUMENTS[server]:
        print(__doc__, file=sys.stderr)
        return 64
    options = reader.read(*rest)
    keep_removed(options)
    print(text(options), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
