"""A Modelfile's commands → what `POST /api/create` takes; the rules for names. No I/O.

Facts: ollama/ollama v0.33.3, `parser/parser.go` (CreateRequest), `api/types.go` (Options,
FormatParams), `types/model/name.go`; Go's `strconv` and `golang.org/x/mod/semver` for what a number
or a version is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from posixpath import normpath
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from .modelfile import Command, has_placeholders, parse_modelfile, placeholder_problems, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PARAMETERS: Mapping[str, str] = {
    **dict.fromkeys(
        ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"),
        "whole number",
    ),
    **dict.fromkeys(("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"), "whole number"),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "temperature"), "number"),
    **dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty"), "number"),
    "use_mmap": "true or false",
    "stop": "text",
}
"""What each parameter takes."""
DEPRECATED = frozenset(
    {
        *("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock"),
        *("mirostat", "mirostat_tau", "mirostat_eta"),
    }
)
"""Parameters that Ollama leaves out with a warning."""

_FILES = ("FROM", "ADAPTER", "DRAFT")
"""The directives that name files."""
_TRUE = frozenset(["1", "t", "T", "true", "TRUE", "True"])
_FALSE = frozenset(["0", "f", "F", "false", "FALSE", "False"])
"""Go's `strconv.ParseBool`."""
# bounded: `int` raises ValueError for a text of more than 4300 digits
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}\Z")
_WHOLE_LIMIT = 2**63
_NUMBER_LIMIT = 3.4028235677973366e38
"""From here on a number is none for Go's 32 bits."""
_NUMERIC, _ANY = r"(?:0|[1-9]\d*)", r"[0-9A-Za-z-]+"
_BEFORE = rf"(?:{_NUMERIC}|\d*[A-Za-z-][0-9A-Za-z-]*)"
_PATCH = rf"\.{_NUMERIC}(?:-{_BEFORE}(?:\.{_BEFORE})*)?(?:\+{_ANY}(?:\.{_ANY})*)?"
_VERSION = re.compile(rf"v?{_NUMERIC}(?:\.{_NUMERIC}(?:{_PATCH})?)?\Z", re.ASCII)
_HOST = re.compile(r"\w[\w.:-]{0,349}\Z", re.ASCII)
_NAMESPACE = re.compile(r"\w[\w-]{0,79}\Z", re.ASCII)
_MODEL = re.compile(r"\w[\w.-]{0,79}\Z", re.ASCII)
_DEFAULT_HOST = "registry.ollama.ai"
_DEFAULT_NAMESPACE = "library"
_DEFAULT_TAG = "latest"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a Modelfile says, by its fields in `POST /api/create`."""

    sources: tuple[str, ...]
    """The values of FROM: one model's name, or paths."""
    adapters: tuple[str, ...]
    drafts: tuple[str, ...]
    fields: Mapping[str, Any]
    """Of `template`, `system`, `license`, `parameters`, `messages`, `renderer`, `parser`,
    `requires` those it has."""
    deprecated: tuple[str, ...]
    """Parameters that are left out."""

    @property
    def base(self) -> str:
        """The name of the model that it starts from; empty when that is a file or directory."""
        return "" if is_path(self.sources[0]) else self.sources[0]


def is_path(value: str) -> bool:
    """Whether the value of FROM names a file or directory.

    Ollama asks the disk; here the value must look like a path.
    """
    return value in (".", "..") or value.startswith(("/", "./", "../", "~"))


def to_recipe(commands: Iterable[Command]) -> Recipe:
    """Return what `commands`, which ask for no inputs any more, say.

    Raises:
        ConfigError: Ollama would refuse them; lists every problem.
    """
    commands = tuple(commands)
    problems = command_problems(commands, commands)
    if problems:
        raise ConfigError(f"The Modelfile is wrong: {'; '.join(problems)}.")

    def values(directive: str) -> tuple[str, ...]:
        return tuple(command.value for command in commands if command.directive == directive)

    single = {
        name: values(name.upper())[-1:] for name in ("template", "system", "renderer", "parser")
    }
    fields: dict[str, Any] = {name: last[0] for name, last in single.items() if last}
    if requires := values("REQUIRES"):
        fields["requires"] = requires[-1].removeprefix("v")
    if licenses := values("LICENSE"):
        fields["license"] = list(licenses)
    if parameters := _parameters(commands):
        fields["parameters"] = parameters
    messages = [command for command in commands if command.directive == "MESSAGE"]
    if messages:
        fields["messages"] = [
            {"role": message.key, "content": message.value} for message in messages
        ]
    return Recipe(
        sources=values("FROM"),
        adapters=values("ADAPTER"),
        drafts=values("DRAFT"),
        fields=fields,
        deprecated=tuple(
            dict.fromkeys(command.key for command in commands if command.key in DEPRECATED)
        ),
    )


def modelfile_problems(text: str, *, has_source: bool) -> list[str]:
    """Return one sentence for each problem of a Modelfile that can be found without its inputs.

    Args:
        text: The Modelfile.
        has_source: Whether files are brought, which FROM then means where it is left out, and
            relative paths name.
    """
    try:
        commands = parse_modelfile(text, default_from="/" if has_source else "")
    except ConfigError as error:
        return [str(error)]
    known = [command for command in commands if not has_placeholders(command.value)]
    named = [command for command in commands if command.directive in _FILES]
    problems = [*placeholder_problems(commands), *command_problems(commands, known)]
    if not has_source:
        return [
            *problems,
            *(_relative_problem(command) for command in named if _is_relative(command.value)),
        ]
    if not any(is_path(command.value) or has_placeholders(command.value) for command in named):
        base = next(command for command in named if command.directive == "FROM")
        problems.append(
            f"{base.place} names the model {base.value!r}, and source= is given too; give one of "
            "them, or name the "
            "brought file that goes with it, such as ADAPTER ./adapter.gguf"
        )
    return problems


def deprecated_parameters(text: str) -> list[str]:
    """Return the places of parameters that Ollama leaves out, in a Modelfile without problems."""
    commands = parse_modelfile(text, default_from="/")
    return [
        command.place
        for command in commands
        if command.directive == "PARAMETER" and command.key in DEPRECATED
    ]


def command_problems(commands: Sequence[Command], known: Sequence[Command]) -> list[str]:
    """Return one sentence for each command that Ollama would refuse.

    Args:
        commands: All of a Modelfile.
        known: Those of them that ask for no inputs.
    """
    problems = [problem for command in known for problem in _problems(command)]
    sources = [command for command in commands if command.directive == "FROM"]
    settled = [command for command in sources if command in known]
    models = {normpath(command.value) for command in settled}
    problems += [
        f"{draft.place}: {draft.value} is the model itself"
        for draft in known
        if draft.directive == "DRAFT" and normpath(draft.value) in models
    ]
    if len(sources) > 1 and not all(is_path(command.value) for command in settled):
        problems.append(
            f"{sources[1].place}: only files can be several in FROM, a model's name stands alone"
        )
    problems += [
        f"{extra.place}: Ollama takes one ADAPTER"
        for extra in commands
        if extra.directive == "ADAPTER"
    ][1:]
    return problems


def _is_relative(value: str) -> bool:
    return is_path(value) and not value.startswith(("/", "~"))


def _relative_problem(command: Command) -> str:
    return (
        f"{command.place}: {shown(command.value)} would be one of the files that source= brings, "
        "and there is none; "
        "begin it with /"
    )


def _problems(command: Command) -> Iterator[str]:
    if command.directive in _FILES and not command.value:
        yield f"{command.place}: it has no value"
    elif (
        command.directive == "FROM"
        and not is_path(command.value)
        and (problem := name_problem(command.value))
    ):
        yield f"{command.place}: {problem}, nor a path, which begins with / or ./"
    elif command.directive in ("ADAPTER", "DRAFT") and not is_path(command.value):
        yield f"{command.place}: {shown(command.value)} is not a path, which begins with / or ./"
    elif command.directive == "REQUIRES" and not _VERSION.match(command.value):
        yield f"{command.place}: {shown(command.value)} is not a version such as 0.33.0"
    elif command.directive == "PARAMETER":
        yield from _parameter_problems(command)


def _parameter_problems(command: Command) -> Iterator[str]:
    if command.key in DEPRECATED:
        return
    if command.key not in PARAMETERS:
        import difflib  # hardly ever needed, and a template's module imports this one

        close = difflib.get_close_matches(command.key, PARAMETERS, n=1)
        advice = (
            f"; did you mean {close[0]}?"
            if close
            else f"; there are {', '.join(sorted(PARAMETERS))}"
        )
        yield f"{command.place}: Ollama has no such parameter{advice}"
    elif _parameter(command) is None:
        yield f"{command.place}: {shown(command.value)} is not a {PARAMETERS[command.key]}"


def _parameters(commands: Iterable[Command]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for command in commands:
        if command.directive != "PARAMETER" or command.key in DEPRECATED:
            continue
        if command.key == "stop":  # the only one that may be given again
            parameters.setdefault("stop", []).append(command.value)
        else:
            parameters[command.key] = _parameter(command)
    return parameters


def _parameter(command: Command) -> Any:
    """Return a parameter's value with its type, or None when it has another."""
    kind, text = PARAMETERS[command.key], command.value
    if kind == "whole number":
        whole = int(text) if _WHOLE.match(text) else _WHOLE_LIMIT
        return whole if -_WHOLE_LIMIT <= whole < _WHOLE_LIMIT else None
    if kind == "number":
        try:
            number = float(text)
        except ValueError:
            return None
        is_plain = text.isascii() and text == text.strip()  # float() takes more
        return number if is_plain and abs(number) < _NUMBER_LIMIT else None
    if kind == "true or false":
        return (text in _TRUE) if text in _TRUE | _FALSE else None
    return text


# Names


def name_problem(name: str) -> str | None:
    """Say what keeps `name` from being a model's name in Ollama."""
    host, namespace, model, tag = _parts(name)
    if (
        _HOST.match(host)
        and _NAMESPACE.match(namespace)
        and _MODEL.match(model)
        and _MODEL.match(tag)
    ):
        return None
    return (
        f"{shown(name)} is not a model's name, such as 'llama3.2', 'llama3.2:1b' or "
        "'hf.co/owner/name:Q4_K_M'"
    )


def listed_name(name: str) -> str:
    """Return the name under which Ollama lists a model: with a tag, without default parts."""
    host, namespace, model, tag = _parts(name)
    owner = "" if namespace.lower() == _DEFAULT_NAMESPACE else f"{namespace}/"
    return f"{owner if host.lower() == _DEFAULT_HOST else f'{host}/{namespace}/'}{model}:{tag}"


def _parts(name: str) -> tuple[str, str, str, str]:
    path, tag = name, _DEFAULT_TAG
    if name.rfind(":") > name.rfind("/"):
        path, _, tag = name.rpartition(":")
    rest, _, model = path.rpartition("/")
    rest, _, namespace = rest.rpartition("/")
    host = rest.partition("://")[2] if "://" in rest else rest
    return host or _DEFAULT_HOST, namespace or _DEFAULT_NAMESPACE, model, tag
