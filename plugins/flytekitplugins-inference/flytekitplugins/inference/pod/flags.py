"""Renders a dictionary of options as a server's command line, by one rule for all servers.

| value | becomes |
|---|---|
| `True` | `--x` |
| `False` | `--no-x` where the server has it, else nothing |
| `True`, `False` | `--x true`, `--x false` where the server wants the word |
| `None` | `--x` for what is only switched on or off, else nothing: the server's own default |
| list | as the option is declared: `--x a b`, `--x a --x b`, `--x a,b` or one JSON text |
| dict | one JSON text |
| anything else | `--x value`, or `--x=value` when the value begins with a dash |

`_` and `-` in names are equal, the order is the dictionary's, and each value is one argument:
nothing is quoted, because no shell reads it. A dotted name (`config.key`) sets one key of a JSON
option.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from types import ModuleType
from typing import Any

__all__ = [
    "OptionTable",
    "form_problems",
    "literally",
    "option_problems",
    "render_options",
    "table_problems",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionTable:
    """The options that a server's command line has, by how each takes its value.

    Names are in snake case, and each is of one kind.
    """

    server: str
    """The server and its version, as a message names them."""
    negatable: frozenset[str] = frozenset()
    """`--x` and `--no-x`."""
    switches: frozenset[str] = frozenset()
    """`--x` only."""
    booleans: frozenset[str] = frozenset()
    """`--x true` and `--x false`."""
    values: frozenset[str] = frozenset()
    """`--x VALUE`."""
    commas: frozenset[str] = frozenset()
    """Of `values`, those that take a list as `A,B`."""
    lists: frozenset[str] = frozenset()
    """`--x A B`."""
    appended: frozenset[str] = frozenset()
    """`--x A --x B`."""
    json: frozenset[str] = frozenset()
    """`--x JSON`."""
    integers: frozenset[str] = frozenset()
    """Of `values`, whole numbers."""
    numbers: frozenset[str] = frozenset()
    """Of `values`, numbers."""
    sizes: frozenset[str] = frozenset()
    """Of `values`, whole numbers that may be written as `4k` (1000) or `4K` (1024)."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of `values` → what they may be."""
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Of numbers → the least and the most that the server takes; `None` is unbounded."""
    objects: frozenset[str] = frozenset()
    """Of `json`, objects."""
    texts: frozenset[str] = frozenset()
    """Of `json`, those that are also read as plain text."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Short name → long name."""
    inverses: Mapping[str, str] = field(default_factory=dict)
    """Name → the negatable option that it is the opposite of."""
    secret: Mapping[str, str] = field(default_factory=dict)
    """Options that hold a secret → where it belongs instead."""
    secret_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """JSON options → those of their keys that hold a secret."""
    removed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name → the version that removed it, and the option that took its place, if any."""
    has_keys: bool = True
    """Whether `--x.key` sets one key of a JSON option."""

    @classmethod
    def read(cls, options: ModuleType, *, server: str, **more: Any) -> OptionTable:
        """Return the table of a server's `options` module.

        Args:
            options: Holds `VERSION`, and constants named like the fields of this class, in upper
                case.
            server: The server's name.
            more: Fields that are not in the module.
        """
        constants = {
            one.name: getattr(options, one.name.upper())
            for one in fields(cls)
            if hasattr(options, one.name.upper())
        }
        return cls(server=f"{server} {options.VERSION}", **{**constants, **more})

    @property
    def bare(self) -> frozenset[str]:
        """The options that are switched on and off."""
        return self.negatable | self.switches

    @property
    def names(self) -> frozenset[str]:
        """Every long name."""
        return (
            self.bare
            | self.booleans
            | self.values
            | self.lists
            | self.appended
            | self.json
            | self.secret.keys()
        )

    def canonical(self, name: str) -> str:
        """Return the long name, in snake case, of `name` in any spelling; keep keys after a dot."""
        head, dot, keys = name.lstrip("-").partition(".")
        # only the head: the keys after the dot are the server's JSON, where `-` and `_` differ
        head = head.replace("-", "_")
        return self.aliases.get(head, head) + dot + keys


def render_options(
    options: Mapping[str, Any], table: OptionTable, *, is_table_of_server: bool = True
) -> tuple[str, ...]:
    """Return `options` as arguments. They are expected to have no `option_problems`.

    Args:
        options: Name → value.
        table: The options of the server.
        is_table_of_server: Whether the server is of the table's release. In another release an
            option keeps the name that the user gave it, and one that the table lacks is written by
            its value alone: `True` is `--x`, `False` and `None` are nothing, a list is `--x a b`.
    """
    render = _render if is_table_of_server else _render_for_another_release
    return tuple(
        literally(argument)
        for name, value in options.items()
        for argument in render(name, value, table)
    )


def literally(text: str) -> str:
    """Return a text that Kubernetes hands to a container as `text`.

    In arguments and variables it replaces `$(NAME)` by a variable and `$$` by `$`
    (`third_party/forked/golang/expansion/expand.go`, v1.36). The user's own `command`, `args` and
    `env` are Kubernetes' and keep that meaning; an option's value is the server's.
    """
    return text.replace("$", "$$")


def option_problems(options: Mapping[str, Any], table: OptionTable) -> list[str]:
    """Return one sentence for each option that the server lacks or cannot take in this form."""
    return [*form_problems(options, table), *table_problems(options, table)]


def form_problems(options: Mapping[str, Any], table: OptionTable) -> list[str]:
    """Return what is wrong with options in every release of the server.

    A name that is no text, one option twice, a secret, a value that no command line holds.
    """
    problems: list[str] = []
    spellings: dict[str, str] = {}
    for name, value in options.items():
        if not isinstance(name, str):
            problems.append(f"option {name!r} is a {type(name).__name__}; an option's name is text")
            continue
        canonical = table.canonical(name)
        # an option and its inverse set the same thing, so they count as one
        option = table.inverses.get(canonical, canonical)
        if twin := _twin(option, spellings):
            problems.append(f"options {twin!r} and {name!r} are the same option; give one of them")
        spellings[option] = name
        head = canonical.partition(".")[0]
        if head in table.secret:
            problems.append(
                f"option {name!r} would put a secret into the pod's specification; "
                f"{table.secret[head]}"
            )
        problems.extend(_secret_key_problems(name, option, value, table))
        problems.extend(_json_problems(name, value))
    return problems


def table_problems(options: Mapping[str, Any], table: OptionTable) -> list[str]:
    """Return what is wrong with options in the table's release of the server."""
    problems: list[str] = []
    for name, value in options.items():
        if not isinstance(name, str) or list(_json_problems(name, value)):
            continue
        canonical = table.canonical(name)
        option = table.inverses.get(canonical, canonical)
        problems.extend(
            _name_problems(name, canonical, table) or _value_problems(name, option, value, table)
        )
    return problems


def _twin(option: str, spellings: Mapping[str, str]) -> str | None:
    """Return how the user already gave `option`, if so.

    An option and one of its keys (`config.key`) exclude each other; two of its keys do not.
    """
    whole, dot, _ = option.partition(".")
    rivals = (
        [option, whole] if dot else [key for key in spellings if key.partition(".")[0] == whole]
    )
    return next((spellings[rival] for rival in rivals if rival in spellings), None)


def _render(name: str, value: Any, table: OptionTable) -> Iterator[str]:
    canonical = table.canonical(name)
    if canonical in table.inverses:
        canonical = table.inverses[canonical]
        value = not (value is None or value)
    head, dot, keys = canonical.partition(".")
    flag = "--" + head.replace("_", "-") + dot + keys
    if canonical in table.bare:
        if value is False:
            yield from (f"--no-{flag[2:]}",) if canonical in table.negatable else ()
        else:
            yield flag
    elif dot:
        yield from _flag_and(flag, _json(value), dashes_are_values=True)
    elif value is not None:
        yield from _render_value(flag, canonical, value, table)


def _render_for_another_release(name: str, value: Any, table: OptionTable) -> Iterator[str]:
    canonical = table.canonical(name)
    if canonical.partition(".")[0] in table.names:
        yield from _render(name, value, table)
        return
    flag = "--" + canonical.replace("_", "-")
    if isinstance(value, (list, tuple)):
        yield flag
        yield from map(_text, value)
    elif value is True:
        yield flag
    elif value is not None and value is not False:
        yield from _flag_and(flag, _text(value))


def _render_value(flag: str, canonical: str, value: Any, table: OptionTable) -> Iterator[str]:
    if not isinstance(value, (list, tuple)) or canonical in table.json:
        yield from _flag_and(flag, _text(value))
    elif canonical in table.commas:
        yield from _flag_and(flag, ",".join(map(_text, value)))
    elif canonical in table.appended:
        for item in value:
            yield from _flag_and(flag, _text(item))
    else:
        yield flag
        yield from map(_text, value)


def _flag_and(flag: str, text: str, *, dashes_are_values: bool = False) -> tuple[str, ...]:
    """Return one option with one value."""
    # a value with a leading dash would look like another option; a dotted option accepts it
    return (f"{flag}={text}",) if text.startswith("-") and not dashes_are_values else (flag, text)


def _text(value: Any) -> str:
    """One argument: a text as it is, everything else as JSON (which writes numbers as they are)."""
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _name_problems(name: str, canonical: str, table: OptionTable) -> list[str]:
    head, dot, _ = canonical.partition(".")
    if head in table.removed:
        version, instead = table.removed[head]
        return [
            f"option {name!r} is gone since {version}"
            + (f"; use {instead!r} instead" if instead else "")
        ]
    if head not in table.names and head not in table.inverses:
        advice = "give it through args= if your image has it"
        return [f"{table.server} has no option {name!r}{_closest(head, table)}; {advice}"]
    if dot and not table.has_keys:
        return [
            f"option {name!r}: {table.server} does not set single keys; give {head!r} as a whole"
        ]
    if dot and head not in table.json:
        return [f"option {name!r}: only options that take JSON have keys, and {head!r} takes none"]
    return []


def _secret_key_problems(
    name: str, canonical: str, value: Any, table: OptionTable
) -> Iterator[str]:
    head, _, keys = canonical.partition(".")
    # a key stands in the name (`--option.key`) or in the option's value
    names = {keys} if keys else set()
    if not keys and isinstance(value, Mapping):
        names = set(value)
    for key in sorted(names & set(table.secret_keys.get(head, ())), key=str):
        yield (
            f"option {name!r} would put the secret {key!r} into the pod's specification; give "
            "it by a variable"
        )


def _json_problems(name: str, value: Any) -> Iterator[str]:
    try:
        # NaN and infinity are Python's own addition to JSON
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield f"option {name!r} has a value that a command line cannot hold: {error}"


def _value_problems(name: str, canonical: str, value: Any, table: OptionTable) -> Iterator[str]:
    many = isinstance(value, (list, tuple))
    if canonical in table.bare | table.booleans:
        if value is not None and not isinstance(value, bool):
            yield f"option {name!r} is switched on and off; give True or False, not {value!r}"
    elif "." in canonical or value is None:
        return
    elif isinstance(value, bool):
        yield f"option {name!r} takes a value, not {value!r}"
    elif many and canonical in table.values - table.commas:
        yield f"option {name!r} takes one value, not the list {value!r}"
    elif isinstance(value, Mapping) and canonical in table.values | table.appended:
        yield f"option {name!r} takes one value, not the dict {value!r}"
    elif many and canonical not in table.json:
        yield from _item_problems(name, value)
    elif canonical in table.json:
        yield from _object_problems(name, canonical, value, table)
    else:
        yield from _reading_problems(name, canonical, value, table)


def _object_problems(name: str, canonical: str, value: Any, table: OptionTable) -> Iterator[str]:
    """Yield why the server's parser would not read a value as JSON of the right form."""
    read = value
    if isinstance(value, str):
        if canonical in table.texts:
            return
        try:
            read = json.loads(value)
        except ValueError:
            yield f"option {name!r} is read as JSON, which {value!r} is not; give a dict or a list"
            return
    if canonical in table.objects and not isinstance(read, Mapping):
        yield f"option {name!r} takes a dict, not {value!r}"


def _reading_problems(name: str, canonical: str, value: Any, table: OptionTable) -> Iterator[str]:
    """Yield why the server's parser would not read a single value."""
    if canonical in table.choices and _text(value) not in table.choices[canonical]:
        yield f"option {name!r} is one of {', '.join(table.choices[canonical])}, not {value!r}"
    kind = next((words for names, words in _numbers(table) if canonical in names), None)
    if kind is None:
        return
    number = _number(value, is_size=canonical in table.sizes, is_whole=kind is not _NUMBER)
    if number is None:
        yield f"option {name!r} takes {kind}, not {value!r}"
        return
    least, most = table.ranges.get(canonical, (None, None))
    if least is not None and number < least:
        yield f"option {name!r} is at least {least:g}, not {value!r}"
    if most is not None and number > most:
        yield f"option {name!r} is at most {most:g}, not {value!r}"


_NUMBER = "a number"


def _numbers(table: OptionTable) -> Iterator[tuple[frozenset[str], str]]:
    yield table.integers, "a whole number"
    yield table.sizes, "a whole number such as 4096, '4k' (4000) or '4K' (4096)"
    yield table.numbers, _NUMBER


def _number(value: Any, *, is_size: bool, is_whole: bool) -> Fraction | None:
    """Return what a parser reads, or `None` where it stops with an error."""
    text = _text(value).strip()
    if is_size and text.lower() == "auto":
        return Fraction(-1)
    if is_size and text and text[-1] in SIZE_UNITS:
        number, unit = text[:-1], text[-1]
        # powers of 1024 take no fraction
        form = _WHOLE if unit.isupper() else _DECIMAL
        return Fraction(number) * SIZE_UNITS[unit] if form.fullmatch(number) else None
    try:
        return Fraction(int(text)) if is_whole else Fraction(float(text))
    except (ValueError, OverflowError):  # infinity is no fraction
        return None


_WHOLE = re.compile(r"[0-9]+")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")
SIZE_UNITS = {
    **{unit: 1000 ** (power + 1) for power, unit in enumerate("kmgt")},
    **{unit: 1024 ** (power + 1) for power, unit in enumerate("KMGT")},
}
"""vLLM 0.33, `human_readable_int` of `vllm/utils/argparse_utils.py`."""


def _item_problems(name: str, items: Any) -> Iterator[str]:
    if not items:
        yield f"option {name!r} needs at least one value; leave it out to get the server's default"
    for item in items:
        if isinstance(item, str) and item.startswith("-"):
            yield (
                f"option {name!r} cannot take {item!r}: in a list, a leading dash starts "
                "another option"
            )


def _closest(canonical: str, table: OptionTable) -> str:
    # imported late: only an error needs it
    import difflib

    matches = difflib.get_close_matches(canonical, table.names, n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
