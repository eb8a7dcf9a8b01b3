"""One rule for the names of secrets, and the variables that pass a token to a server.

Flyte sets `<PREFIX><GROUP>_<KEY>`, upper-cased. Its 1.x webhook appends that variable after the
container's own, where Kubernetes no longer expands references to it; the second generation prepends
it. If the group is known, the variable is therefore declared here first, from the Kubernetes secret
of that name, and the server's own variable refers to it, which works in both cases. Sources:
flyteorg/flyte v1.16.8 `flytepropeller/pkg/webhook/utils.go`, kubernetes#90466.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..public_dataclass import PublicDataclass
from .names import env_name_problem, subdomain_problem
from .parts import EnvVar

__all__ = [
    "FLYTE_PREFIX",
    "APIKeySecret",
    "HFSecret",
    "SecretReference",
    "looks_like_a_token",
    "masked",
]

FLYTE_PREFIX = "_FSEC_"
"""What Flyte 1.x puts before the name of a secret's variable (webhook's default
`secretEnvVarPrefix`)."""


_TOKEN = re.compile(
    r"hf_[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}"
    # a JSON web token; a private key
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")


def looks_like_a_token(text: str) -> bool:
    """Whether `text` holds a secret's value: a token of the hub, of NGC, of an API, of a cloud."""
    return _TOKEN.search(text) is not None


def masked(text: str) -> str:
    """Return `text` for a message: with `…` in place of what looks like a token."""
    return _TOKEN.sub("…", text)


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretReference:
    """A secret by name, never by value."""

    prefix: str
    group: str | None
    key: str

    @property
    def variable(self) -> str:
        """The environment variable in which the platform delivers the secret."""
        group = f"{self.group}_" if self.group else ""
        return f"{self.prefix}{group}{self.key}".upper()

    @property
    def in_kubernetes(self) -> bool:
        """Whether a Kubernetes secret of the group's name can exist."""
        return bool(self.group) and subdomain_problem(self.group) is None

    def env(self, *names: str) -> tuple[EnvVar, ...]:
        """Return the variables that pass the secret as `names`, in the order of expansion."""
        declared = (EnvVar(name=self.variable, secret_name=self.group, secret_key=self.key),)
        references = tuple(EnvVar(name=name, value=f"$({self.variable})") for name in names)
        # before its references, because Kubernetes expands `$(X)` only by variables that precede it
        return (declared if self.in_kubernetes else ()) + references

    def problems(self) -> list[str]:
        """Return what keeps the secret from being delivered at all."""
        if any(
            isinstance(part, str) and looks_like_a_token(part)
            for part in (self.key, self.group, self.prefix)
        ):
            return [
                "what was given looks like a token; give the names under which the platform keeps "
                "it, not its value"
            ]
        problems = []
        if self.group is not None and not (isinstance(self.group, str) and self.group):
            problems.append(f"the secret's group must be a text or None, not {self.group!r}")
        for name, value in (("key", self.key), ("prefix", self.prefix)):
            if not isinstance(value, str) or (name == "key" and not value):
                problems.append(f"the secret's {name} must be a text, not {value!r}")
        if not problems and not _KEY.match(self.key):
            problems.append(
                f"the secret's key {self.key!r} has characters other than letters, digits, '-', "
                "'_' and '.'"
            )
        elif not problems and (problem := env_name_problem(self.variable)):
            problems.append(f"the secret would be delivered as {problem}")
        return problems

    def warnings(self) -> list[str]:
        """Return what may keep the secret from arriving on some platforms."""
        warnings = []
        if not self.group:
            warnings.append(
                f"The secret {self.key!r} has no group. Flyte 1.x requires one and defines "
                f"{self.variable} too late for the server, which then sees an unexpanded "
                "reference; give the group, which names the Kubernetes secret."
            )
        elif not self.in_kubernetes:
            warnings.append(
                f"The group {self.group!r} cannot be the name of a Kubernetes secret, so "
                f"{self.variable} is only referred to. That works where the platform defines it "
                "before the container's own variables; Flyte 1.x defines it after them."
            )
        if "-" in self.variable or "." in self.variable:
            warnings.append(
                f"{self.variable} contains '-' or '.'. Kubernetes accepts that, but dash and "
                "busybox shells drop such variables; prefer '_' in the prefix, group and key."
            )
        return warnings


@dataclass(frozen=True, kw_only=True)
class APIKeySecret(PublicDataclass):
    """The key that a server asks of its clients, by the name of its secret."""

    key: str
    """The secret's key."""
    group: str | None = None
    """The secret's group: in Flyte 1.x the name of the Kubernetes secret."""
    secrets_prefix: str = FLYTE_PREFIX
    """What the platform puts before the names of secrets' variables (`_FSEC_`, or `_UNION_`)."""

    def reference(self) -> SecretReference:
        """Return the secret by its parts."""
        return SecretReference(prefix=self.secrets_prefix, group=self.group, key=self.key)


@dataclass(frozen=True, kw_only=True)
class HFSecret(PublicDataclass):
    """The Hugging Face token, by the name of its secret."""

    secrets_prefix: str = FLYTE_PREFIX
    """What the platform puts before the names of secrets' variables (`_FSEC_`, or `_UNION_`)."""
    hf_token_key: str
    """The secret's key."""
    hf_token_group: str | None = None
    """The secret's group: in Flyte 1.x the name of the Kubernetes secret."""

    def reference(self) -> SecretReference:
        """Return the secret by its parts."""
        return SecretReference(
            prefix=self.secrets_prefix, group=self.hf_token_group, key=self.hf_token_key
        )
