"""How text of a manifest becomes text for this machine: variables, references, paths and ports.

Pure functions, one per rule. Each works on text of the manifest only; what came from this machine
(variables, inherited environment, private directories) is put in by a later or the same single pass
and is never rewritten again.

The port rule. A number `P` that was replaced by `Q` is rewritten only where the text says that it
is a port:

* the word after a flag with the word `port` or `ports` in its name, or after `-p` (`--port 8000`,
  `--http-port 8000`);
* behind `=` of such a flag or name (`--port=8000`, `PORT=8000`, `serve(port=8000)`);
* behind a host that is this pod: `localhost:8000`, `127.0.0.1:8000`, `0.0.0.0:8000`, `[::1]:8000`,
  `*:8000`, `:8000`, alone or in a URL;
* the whole value of an environment variable with the word `PORT` in its name (`HTTP_PORT=8000`).

A word ends at `-`, `_`, `.` or a change from lower to upper case, so `--max-model-len 8000`,
`--report-every 8000` and `https://example.org:8000` stay as they are. A server that takes its port
in another way is given `$(INFERENCE_PORT)`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEMPLATE_VARIABLES = frozenset(
    {
        "input",
        "inputprefix",
        "outputprefix",
        "rawoutputdataprefix",
        "prevcheckpointprefix",
        "checkpointoutputprefix",
        "tasktemplatepath",
    }
)
"""Flyte's own template variables, in lower case (flytepropeller `core/template/template.go`,
v1.16)."""

_TEMPLATE = re.compile(r"\{\{\s*[.$]([A-Za-z][\w.]*)\s*\}\}")
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_SOLE_REFERENCE = re.compile(r"\$\(([^()]+)\)")
_WORDS = re.compile(r"[-_.]|(?<=[a-z0-9])(?=[A-Z])")
_ASSIGNED_PORT = re.compile(r"(?<![\w$.-])(-{0,2})([A-Za-z][\w.-]*)(=|\s+)(\d+)(?![\w.])")
_HOST_PORT = re.compile(
    r"""(?:(?<![\w.\-])(?:localhost|127(?:\.\d+){3}|0\.0\.0\.0)|\[::1?\]|(?<![^\s=,/"'@])\*?):(\d+)(?![\w.])"""
)


def fill_variables(text: str, variables: Mapping[str, str]) -> str:
    """Put Flyte's variables in place of `{{ .name }}` and `{{ $name }}`, in whatever case.

    Args:
        text: One word of a container's `command` or `args`.
        variables: Value by name; a name that is not here is left as it is.
    """
    values = {name.lower(): value for name, value in variables.items()}
    return _TEMPLATE.sub(lambda match: values.get(match[1].lower(), match[0]), text)


def unfilled_variables(text: str) -> tuple[str, ...]:
    """Return the names of Flyte's own variables that `text` still asks for."""
    return tuple(
        match[1] for match in _TEMPLATE.finditer(text) if match[1].lower() in TEMPLATE_VARIABLES
    )


def expand(text: str, env: Mapping[str, str]) -> str:
    """Expand `$(NAME)` as the kubelet does: `$$` is one `$`, an unknown name stays as it is.

    Source: kubernetes `third_party/forked/golang/expansion/expand.go`, v1.36.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else env.get(name, match[0])

    return _REFERENCE.sub(value, text)


def sole_reference(text: str) -> str | None:
    """Return `NAME` when `text` is `$(NAME)` and nothing else."""
    match = _SOLE_REFERENCE.fullmatch(text)
    return match[1] if match else None


@lru_cache(maxsize=64)
def _mount_pattern(paths: tuple[str, ...]) -> re.Pattern[str]:
    # the first alternative that fits wins, and one mount may lie below another
    longest_first = "|".join(re.escape(path) for path in sorted(paths, key=len, reverse=True))
    begins = (
        r"""(?:(?<![^\s=:,;"'`(\[{<>|&@])|(?<=file://)|(?<=:-))"""  # ":-" as in ${X:-/shared/x}
    )
    return re.compile(rf"{begins}({longest_first})(?![\w.\-+~@%*?#$])")


def map_paths(text: str, mounts: Mapping[str, str]) -> str:
    """Replace each mount path by the directory that stands for it, at path boundaries only.

    Args:
        text: Any text of the container.
        mounts: Directory on this machine by mount path, both without a slash at the end.
    """
    if not mounts:
        return text
    return _mount_pattern(tuple(mounts)).sub(lambda match: mounts[match[1]], text)


def names_port(name: str) -> bool:
    """Tell whether one of the words of `name` is `port` or `ports`."""
    return any(word.lower() in ("port", "ports") for word in _WORDS.split(name))


def map_ports(text: str, ports: Mapping[int, int]) -> str:
    """Replace ports in one text: behind a flag or `=`, and behind a host that is this pod."""
    if not ports:
        return text

    def assigned(match: re.Match[str]) -> str:
        dashes, name, separator, number = match.groups()
        is_flag = bool(dashes)
        is_port = names_port(name) or (is_flag and name == "p")
        if not is_port or (separator != "=" and not is_flag):
            return match[0]
        return f"{dashes}{name}{separator}{ports.get(int(number), number)}"

    def after_host(match: re.Match[str]) -> str:
        host = match[0][: -len(match[1])]
        return f"{host}{ports.get(int(match[1]), match[1])}"

    return _HOST_PORT.sub(after_host, _ASSIGNED_PORT.sub(assigned, text))


def map_port_words(words: Sequence[str], ports: Mapping[int, int]) -> list[str]:
    """Replace ports in a command line, where a number may be a word behind its flag."""
    mapped: list[str] = []
    flag = ""
    for word in words:
        follows_flag = flag == "-p" or (flag.startswith("-") and names_port(flag))
        if follows_flag and word.isdecimal():
            mapped.append(str(ports.get(int(word), word)))
        else:
            mapped.append(map_ports(word, ports))
        flag = word
    return mapped


def map_port_variable(name: str, value: str, ports: Mapping[int, int]) -> str:
    """Replace ports in the value of an environment variable."""
    if value.isdecimal() and names_port(name):
        return str(ports.get(int(value), value))
    return map_ports(value, ports)
