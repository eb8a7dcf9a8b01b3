"""The one rule for secrets in plain text: whoever may read a pod's specification would read them.

A text is taken for a secret by what it is called (a variable, an option, a key of JSON), by where
it stands (a password in a URL) or by its shape (a token's). A reference to a variable is none, and
neither is what cannot be one: a switch, a small number, a path. No sentence repeats a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .secrets import looks_like_a_token

__all__ = ["secrets_in_variable", "secrets_in_words"]

_ADVICE = (
    "name a secret instead of its value: by the template's own field, or by a variable that base= "
    "takes from a Kubernetes secret"
)
_KIND = r"api[_-]?key|password|passwd|passphrase|secret|secret[_-]?(access[_-]?)?key|credentials?"
_OWNERS = r"hf|hub|hf[_-]api|hugging[_-]?face|hugging[_-]?face[_-]hub|api|auth|access|bearer|admin"
"""Whose tokens are secrets; those of a tokenizer (`eos_token`) are not."""
_VARIABLE = re.compile(rf"(.*_)?({_KIND}|(secret_)?access_key|token)|(.*_)?secrets?_.*", re.I)
_NAMED_AFTER_ONE = re.compile(r".*_(file|path|dir|name|names|env|url|prefix|group|id)", re.I)
"""`HF_TOKEN_PATH` tells where a secret is."""
_OPTION = re.compile(rf"--?(.+-)?({_KIND})|--(({_OWNERS})-)?token", re.I)
_JSON = re.compile(
    rf"""["']([\w-]*({_KIND})|({_OWNERS})[_-]token)["']\s*:\s*["'](?!\$\()[^"']+""", re.I
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/@:]*:(?!\$\()[^\s/@]+@", re.I)
_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.+)")
_HARMLESS = re.compile(r"|true|false|yes|no|on|off|\d{1,3}|/.*|empty|none|dummy|null", re.I)
_REFERENCE = re.compile(r"\$\([\w.-]+\)|\$\{?\w")


def secrets_in_variable(name: str, value: str) -> Iterator[str]:
    """Yield a sentence if a variable of a container holds a secret."""
    if looks_like_a_token(value):
        yield f"variable {name!r} holds what looks like a token; {_ADVICE}"
    elif _is_called_a_secret(name) and _may_be_one(value):
        yield f"variable {name!r} holds a secret, by its name; {_ADVICE}"
    elif problem := _problem_of_text(value):
        yield f"variable {name!r} holds {problem}; {_ADVICE}"


def secrets_in_words(words: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for the first secret in a container's command line."""
    # a shell's text is one word; a text with spaces in any other place has no options inside
    parts = [part for word in words for part in (word, *(word.split() if " " in word else ()))]
    for index, part in enumerate(parts):
        if problem := _problem_of_part(part, "".join(parts[index + 1 : index + 2])):
            yield f"its arguments hold {problem}; {_ADVICE}"
            return


def _problem_of_part(part: str, following: str) -> str | None:
    if looks_like_a_token(part):
        return "what looks like a token"
    option, equals, value = part.partition("=")
    if _OPTION.fullmatch(option):
        value = value if equals else following
        if not value.startswith("-") and _may_be_one(value):
            return f"a secret behind {option}"
    assignment = _ASSIGNMENT.fullmatch(part)
    if assignment and _is_called_a_secret(assignment[1]) and _may_be_one(assignment[2]):
        return f"a secret in {assignment[1]}"
    return _problem_of_text(part)


def _problem_of_text(text: str) -> str | None:
    if _URL.search(text):
        return "a URL with a password"
    if match := _JSON.search(text):
        return f"a secret as {match[1]!r}"
    return None


def _is_called_a_secret(name: str) -> bool:
    return bool(_VARIABLE.fullmatch(name)) and not _NAMED_AFTER_ONE.fullmatch(name)


def _may_be_one(value: str) -> bool:
    return not _HARMLESS.fullmatch(value) and not _REFERENCE.search(value)
