"""The options of llama.cpp's server, read from `llama-server --help`."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from dev.options.frame import Options, snake

ENDS = {"help", "version", "cache_list", "completion_bash", "list_devices"}
"""Print something and end."""
JSON = {"json_schema", "chat_template_kwargs", "ui_config", "mcp_servers_json"}
REPEATED = {"logit_bias", "dry_sequence_breaker"}

_ENTRY = re.compile(r"(?m)^(?=-)")
_NAME = re.compile(r"--?[A-Za-z][\w.-]*")
_VARIABLE = re.compile(r"\(env: (\w+)\)")


def read(version: str) -> Options:
    """Return the options of `llama-server --help`."""
    text = subprocess.run(
        ["llama-server", "--help"], check=True, capture_output=True, text=True
    ).stdout
    options = Options(
        room="llamacpp",
        program="llama-server",
        source="`llama-server --help` of llama.cpp",
        version=version,
    )
    for section in re.split(r"(?m)^-{5} .* -{5}$", text)[1:]:
        for entry in _ENTRY.split(section)[1:]:
            add_option(options, entry)
    return options


def add_option(options: Options, entry: str) -> None:
    """Add one option: its names and value on the first line, behind them or below what it does."""
    head = re.split(r"(?<=\S)\s{2,}(?!-)", re.sub(r",\s+", ", ", entry.splitlines()[0]))[0].strip()
    spelled = [match.group() for part in head.split(", ") if (match := _NAME.match(part))]
    value = re.sub(r"^(?:--?[A-Za-z][\w.-]*(?:, |$| ))*", "", head)
    if (
        ENDS & set(map(snake, spelled)) or "." in head.partition(" ")[0]
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
    options.kinds[kind(main, value, is_negatable=is_negatable)].add(main)
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


def kind(name: str, value: str, *, is_negatable: bool) -> str:
    """Return how an option takes its value."""
    if is_negatable:
        return "NEGATABLE"
    if not value:
        return "SWITCHES"
    if name in JSON:
        return "JSON"
    if name in REPEATED:
        return "APPENDED"
    return "LISTS" if value == "START END" else "VALUES"
