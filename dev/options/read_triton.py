"""The options of `tritonserver`, read from a checkout of its source.

    git clone --depth 1 --branch v2.71.0 https://github.com/triton-inference-server/server
    python -m dev.options triton server

Only the declarations of options and the cases of the parser's `switch` are read, as text; nothing
is compiled.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dev.options.frame import Options, snake

PARSER = "src/command_line_parser.cc"

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


def read(checkout: str) -> Options:
    """Return the options that the source declares."""
    root = Path(checkout)
    options = Options(
        room="triton",
        program="tritonserver",
        source=f"`{PARSER}` of triton-inference-server/server",
        version=(root / "TRITON_VERSION").read_text().strip(),
        aliases=dict(ALIASES),
        deprecated=dict(DEPRECATED),
        removed=dict(REMOVED),
    )
    add_kinds(options, (root / PARSER).read_text(encoding="utf-8"))
    for name in sorted((set(DEPRECATED) - options.names) | (set(REMOVED) & options.names)):
        sys.exit(f"{name}: this script knows it as something else")
    return options


def add_kinds(options: Options, source: str) -> None:
    """Add the names of each kind."""
    repeatable = {option for option, body in _CASE.findall(source) if _REPEATABLE.search(body)}
    kinds = {"Option::ArgNone": "SWITCHES", "Option::ArgBool": "BOOLEANS"}
    for option, flag, argument in _DECLARED.findall(source):
        name = snake(flag)
        if option == "OPTION_HELP" or name in ALIASES:
            continue
        kind = "APPENDED" if option in repeatable else kinds.get(argument, "VALUES")
        options.kinds[kind].add(name)
