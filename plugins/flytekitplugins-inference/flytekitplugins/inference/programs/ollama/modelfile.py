"""Ollama's Modelfile: text → commands, with the task's inputs in them. Pure: no I/O.

Facts: ollama/ollama v0.33.3, `parser/parser.go` (ParseFile). Three things differ on purpose: more
than one blank before a parameter's name or a message's role is skipped; characters that Go does not
count as printable (such as the joiner in an emoji, or a no-break space) are kept; bytes that are no
text are refused, not replaced.

Inputs are filled into the commands after these were read, so that no value can begin a command of
its own.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DIRECTIVES = frozenset(
    {
        *("ADAPTER", "DRAFT", "FROM", "LICENSE", "MESSAGE", "PARAMETER"),
        *("PARSER", "RENDERER", "REQUIRES", "SYSTEM", "TEMPLATE"),
    }
)
ROLES = ("system", "user", "assistant")
MAX_SHOWN = 60

_BLANK = re.compile(r"[ \t\r\n]*(?:#[^\r\n]*[ \t\r\n]*)*")
_WORD = re.compile(r"[^ \t\r\n]*")
_DIRECTIVE = re.compile(r"([A-Za-z]+)[ \t]+")
_KEY = re.compile(r"([A-Za-z0-9_]+)[ \t]")
_LINE = re.compile(r"[^\r\n]*")
_PLACEHOLDER = re.compile(r"\{inputs((?:\.[A-Za-z_][A-Za-z0-9_]*)+)\}")
_BRACES = re.compile(r"\{(\{\s*inputs\b[^{}]*\})\}|(?P<alike>\{\s*inputs\b[^\s}]*\}?)")
"""`{{inputs…}}`, which stands for the text between the outer braces; or what is a placeholder, or
looks like one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One command of a Modelfile."""

    directive: str
    """In capitals."""
    key: str = ""
    """A parameter's name, or a message's role."""
    value: str
    """Without its quotes."""
    line: int
    """Where it begins, from 1."""

    @property
    def place(self) -> str:
        """Where it is, as a message names it."""
        return f"line {self.line} ({' '.join(filter(None, (self.directive, self.key)))})"


def decode_modelfile(content: bytes) -> str:
    """Return the text of a Modelfile: UTF-8, or UTF-16 where a byte order mark says so, as editors of Windows write it.

    Raises:
        UnicodeError: It is neither.
    """
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


def parse_modelfile(text: str, *, default_from: str = "") -> tuple[Command, ...]:
    """Return the commands of a Modelfile.

    Args:
        text: The Modelfile.
        default_from: The model to start from when it has no FROM.

    Raises:
        ConfigError: It is not a Modelfile; names the line.
    """
    text = text.removeprefix("\ufeff")
    if (zero := text.find("\0")) >= 0:
        raise ConfigError(f"The Modelfile's line {_line(text, zero)} holds a zero byte.")
    commands: list[Command] = []
    position = _after(_BLANK, text, 0)
    while position < len(text):
        command, position = _command(text, position)
        commands.append(command)
        position = _after(_BLANK, text, position)
    if not any(command.directive == "FROM" for command in commands):
        if not default_from:
            raise ConfigError(
                "The Modelfile has no FROM.",
                hint="Begin it with the model to start from: FROM llama3.2",
            )
        commands.insert(0, Command(directive="FROM", value=default_from, line=1))
    return tuple(commands)


def _command(text: str, start: int) -> tuple[Command, int]:
    line = _line(text, start)
    word = _text_of(_WORD, text, start)
    directive = word.upper()
    if directive not in DIRECTIVES:
        import difflib  # hardly ever needed, and a template's module imports this one

        close = difflib.get_close_matches(directive, DIRECTIVES, n=1)
        listed = ", ".join(sorted(DIRECTIVES))
        raise ConfigError(
            f"The Modelfile's line {line} begins with {shown(word)}, which is no directive.",
            hint=(f"Did you mean {close[0]}? " if close else "")
            + f"There are {listed}; text of several lines needs "
            'triple quotes: """…""".',
        )
    head = _DIRECTIVE.match(text, start)
    if head is None:
        raise ConfigError(f"The Modelfile's line {line} ({directive}) has no value.")
    key, position = "", head.end()
    if directive in ("PARAMETER", "MESSAGE"):
        found = _KEY.match(text, position)
        if found is None or (directive == "MESSAGE" and found[1] not in ROLES):
            expected = (
                "a name and a value"
                if directive == "PARAMETER"
                else f"one of {', '.join(ROLES)}, and a text"
            )
            raise ConfigError(
                f"The Modelfile's line {line} ({directive}) needs {expected}, "
                f"not {shown(_text_of(_LINE, text, position).strip())}."
            )
        key, position = found[1], found.end()
    value, end = _value(text, position, f"line {line} ({directive})")
    return Command(directive=directive, key=key, value=value, line=line), end


def _value(text: str, start: int, place: str) -> tuple[str, int]:
    """Return a value, which ends with the first line on which no quotes are open, and where it ends."""
    end = start
    while True:
        end = _after(_LINE, text, end)
        value = _unquoted(text[start:end].strip())
        if value is not None:
            return value, end
        if end == len(text):
            raise ConfigError(
                f"The quotes that the Modelfile opens on {place} are never closed.",
                hint='A value that begins with " ends with " at the end of a line; one with """ '
                'ends with """.',
            )
        end += 1


def _unquoted(text: str) -> str | None:
    """Return `text` without its quotes, or None while they are open."""
    if text.startswith('"""'):
        return text[3:-3] if len(text) >= 6 and text.endswith('"""') else None
    if text.startswith('"'):
        return text[1:-1] if len(text) >= 2 and text.endswith('"') else None
    return text


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _text_of(pattern: re.Pattern[str], text: str, position: int) -> str:
    return text[position : _after(pattern, text, position)]


def _line(text: str, position: int) -> int:
    return 1 + len(re.findall(r"\r\n?|\n", text[:position]))


def shown(text: str) -> str:
    """Return `text` as a message shows it."""
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


# Inputs


def has_placeholders(text: str) -> bool:
    """Whether `text` asks for an input of the task, or looks as if it should."""
    return any(match["alike"] for match in _BRACES.finditer(text))


def fill_inputs(
    commands: Iterable[Command], inputs: Mapping[str, Any] | None
) -> tuple[Command, ...]:
    """Return `commands` with the task's inputs in place of `{inputs.name}` and `{inputs.name.key}`.

    Each value is put in as it is and not looked at again. `{{inputs.name}}` becomes the text
    `{inputs.name}`. All other braces stay as they are.

    Args:
        commands: A Modelfile's commands.
        inputs: The inputs as plain JSON; None when there are none.

    Raises:
        ConfigError: An input is not there, or has no text; names every place.
    """
    problems: list[str] = []
    filled = tuple(
        replace(command, value=_filled(command, inputs, problems)) for command in commands
    )
    if problems:
        names = ", ".join(sorted(inputs)) if inputs else "none"
        asked = "; ".join(problems)
        raise ConfigError(
            f"The Modelfile asks for what no input has: {asked}.",
            hint=f"The task's inputs: {names}.",
        )
    return filled


def placeholder_problems(commands: Iterable[Command]) -> list[str]:
    """Return one sentence for each thing that looks like a placeholder but is none."""
    return [problem for command in commands for problem in _malformed(command)]


def _filled(command: Command, inputs: Mapping[str, Any] | None, problems: list[str]) -> str:
    problems += _malformed(command)

    def value(match: re.Match[str]) -> str:
        if not match["alike"]:
            return match[1]
        placeholder = _PLACEHOLDER.fullmatch(match["alike"])
        if placeholder is None:  # told already
            return match[0]
        try:
            return _input(placeholder[1][1:].split("."), inputs or {})
        except ConfigError as error:
            problems.append(f"{_place(command, match.start())}: {match[0]} {error.message}")
            return match[0]

    return _BRACES.sub(value, command.value)


def _malformed(command: Command) -> list[str]:
    return [
        f"{_place(command, match.start())}: {shown(match[0])} is no placeholder; expected "
        f"{{inputs.name}}, or for the "
        "text itself {{inputs…}}"
        for match in _BRACES.finditer(command.value)
        if match["alike"] and not _PLACEHOLDER.fullmatch(match["alike"])
    ]


def _place(command: Command, position: int) -> str:
    return replace(command, line=command.line + _line(command.value, position) - 1).place


def _input(path: list[str], inputs: Mapping[str, Any]) -> str:
    value: Any = inputs
    for depth, key in enumerate(path):
        if not isinstance(value, dict) or key not in value:
            raise ConfigError(f"has no {key!r}" if depth else "is not an input")
        value = value[key]
    if value is None:
        raise ConfigError("is None")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
