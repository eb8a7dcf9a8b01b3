"""The grammar of models: what a text such as `owner/name@v2` or `s3://bucket/prefix` refers to.

`model=`, `lora_adapters=` and the model loader's command line speak it, so that what a laptop
accepts is what the pod understands. `parse_model_reference` reads it; `text` of each reference
writes it again. Pure: nothing here looks whether the model exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from ..errors import ConfigError

__all__ = [
    "MODEL_FORMS",
    "FileReference",
    "HubReference",
    "InputReference",
    "ModelForm",
    "ModelReference",
    "RegistryReference",
    "StoreReference",
    "WebReference",
    "has_scheme",
    "parse_model_reference",
]


@dataclass(frozen=True, kw_only=True)
class ModelForm:
    """One way to write a model; `--help`, the errors and the documents list them."""

    texts: tuple[str, ...]
    meaning: str
    """What it refers to, and which variables configure the access."""


MODEL_FORMS = (
    ModelForm(
        texts=("owner/name[@revision]", "hf://owner/name[@revision]"),
        meaning="a repository of a Hugging Face hub (HF_ENDPOINT, HF_TOKEN)",
    ),
    ModelForm(
        texts=("s3://bucket/prefix", "gs://bucket/prefix", "abfs://container@account/prefix"),
        meaning="all files below a prefix of an object store, or one file",
    ),
    ModelForm(
        texts=("https://host/model.gguf", "https://host/directory/"),
        meaning="one file of a web server, or all that the index page of a directory links to",
    ),
    ModelForm(
        texts=("models:/name/3", "models:/name@alias", "models:/name/Stage"),
        meaning="a version of a model in an MLflow registry (MLFLOW_TRACKING_URI)",
    ),
    ModelForm(texts=("input:name",), meaning="a file or directory among the task's inputs"),
    ModelForm(
        texts=("/directory/model", "file:///directory/model"),
        meaning="a file or directory where the loader runs: this machine, or its container",
    ),
)
_EXPECTED = (
    "Expected 'owner/name[@revision]', 's3://bucket/prefix', 'https://host/model.gguf', "
    "'models:/name/3', 'models:/name@alias', 'input:name' or '/absolute/path'."
)
_ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs"}
"""Other names of the same protocol: Hadoop's for S3 and for Azure over TLS, fsspec's for Google."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_REPOSITORY = re.compile(r"(\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)
"""Source: `REPO_ID_REGEX` of huggingface_hub 2.4, `utils/_validators.py`."""
_HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{30,}")
_REVISION = re.compile(r"[^\s~^:?*\[\\-][^\s~^:?*\[\\]*")
"""What git allows in the name of a branch or tag; see git-check-ref-format(1)."""
_STAGE = re.compile(r"[A-Za-z]\w*", re.ASCII)
_ALIAS = re.compile(r"[\w.-]+", re.ASCII)
_ENDING = re.compile(r"\.[A-Za-z]\w*\Z", re.ASCII)
"""Of a file's name. `Qwen2.5-0.5B` has none: it is the name of a repository."""
_NO_REPOSITORY = "it is not the name of a hub repository"
_PASSWORD = re.compile(r"(?<![^/])[^/@]*:[^/@]*@")
_USER = re.compile(r"(?<=//)[^/@]*@")


@dataclass(frozen=True, kw_only=True)
class HubReference:
    """A repository of a Hugging Face hub."""

    repository: str
    """`owner/name`, or only `name` for the few that have no owner."""
    revision: str = ""
    """Branch, tag or commit; empty for the default branch."""

    @property
    def text(self) -> str:
        """The reference as a text that is read as this one again."""
        return f"{self.label}@{self.revision}" if self.revision else self.label

    @property
    def label(self) -> str:
        """What logs and errors call it: without its revision, and without secrets."""
        return f"hf://{self.repository}"

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.repository


@dataclass(frozen=True, kw_only=True)
class RegistryReference:
    """A model of an MLflow registry, by exactly one of version, alias and stage."""

    model: str
    version: int | None = None
    alias: str = ""
    stage: str = ""
    """A stage, which newer registries replace by aliases, or `latest` for the newest version."""

    @property
    def text(self) -> str:
        """See `HubReference`."""
        return f"{self.label}{self.selector if self.alias else f'/{self.selector}'}"

    @property
    def label(self) -> str:
        """See `HubReference`."""
        return f"models:/{self.model}"

    @property
    def name(self) -> str:
        """See `HubReference`."""
        return self.model

    @property
    def selector(self) -> str:
        """What selects the version: `3`, `@alias` or `Production`."""
        if self.version is not None:
            return str(self.version)
        return f"@{self.alias}" if self.alias else self.stage


@dataclass(frozen=True, kw_only=True)
class StoreReference:
    """All files below a prefix of an object store, or one file."""

    uri: str
    """With the usual name of its scheme, and without a slash at its end."""

    @property
    def text(self) -> str:
        """See `HubReference`."""
        return self.uri

    @property
    def label(self) -> str:
        """See `HubReference`."""
        return _shown(self.uri)

    @property
    def name(self) -> str:
        """See `HubReference`. The name of the file where it is one."""
        return self.uri.partition("?versionId=")[0].rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class WebReference:
    """One file of a web server, or all that the index page of a directory links to."""

    url: str
    """With its query, which may be a signature and so a secret."""

    @property
    def text(self) -> str:
        """See `HubReference`."""
        return self.url

    @property
    def label(self) -> str:
        """See `HubReference`."""
        return _shown(self.url)

    @property
    def is_directory(self) -> bool:
        """Whether it is the address of an index page."""
        return _without_query(self.url).endswith("/")

    @property
    def name(self) -> str:
        """See `StoreReference`."""
        last = _without_query(self.url).rstrip("/").rpartition("/")[2]
        name = unquote(last)
        return name if name.isprintable() and "/" not in name else last


@dataclass(frozen=True, kw_only=True)
class FileReference:
    """A file or directory where the loader runs."""

    path: str
    """Absolute, without a slash at its end."""

    @property
    def text(self) -> str:
        """See `HubReference`."""
        return f"file://{self.path}"

    @property
    def label(self) -> str:
        """See `HubReference`."""
        return self.text

    @property
    def name(self) -> str:
        """See `StoreReference`."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class InputReference:
    """A file or directory among the task's inputs."""

    input: str
    """The input's name."""

    @property
    def text(self) -> str:
        """See `HubReference`."""
        return f"input:{self.input}"

    @property
    def label(self) -> str:
        """See `HubReference`."""
        return self.text

    @property
    def name(self) -> str:
        """See `HubReference`."""
        return self.input


ModelReference = (
    HubReference
    | RegistryReference
    | StoreReference
    | WebReference
    | FileReference
    | InputReference
)


def has_scheme(text: str) -> bool:
    """Whether `text` begins with its kind, as `hf://…` does and `owner/name` does not."""
    match = _SCHEME.match(text)
    if match is None:
        return text.startswith("/")
    scheme, rest = match[1].lower(), match[2]
    known = _ALIASES.get(scheme, scheme) in _READERS
    return known and (rest.startswith("/") or scheme == "input")


def parse_model_reference(text: str) -> ModelReference:
    """Return what `text` refers to.

    Raises:
        ConfigError: It is none of `MODEL_FORMS`. Shows the text without what may be secret.
    """
    _refuse_unprintable(text)
    _refuse_local_habits(text)
    if text.startswith("/"):
        return _file(text, "file", text)
    match = _SCHEME.fullmatch(text)
    if match is None:
        return _hub(text, "hf", text)
    scheme, rest = match[1].lower(), match[2]
    scheme = _ALIASES.get(scheme, scheme)
    if scheme not in _READERS:
        raise _unknown_scheme(text, scheme, rest)
    if scheme in ("models", "input"):
        return _READERS[scheme](text, scheme, rest)
    if not rest.startswith("//"):
        nearest = f"{scheme}://{'/' if scheme == 'file' else ''}{rest.lstrip('/')}"
        raise _refused(text, f"two slashes must follow '{scheme}:'", f"Write {_shown(nearest)!r}.")
    return _READERS[scheme](text, scheme, rest[2:])


def _refuse_unprintable(text: str) -> None:
    if not text.strip():
        raise ConfigError("The text that names the model is empty.", hint=_EXPECTED)
    if text != text.strip():
        raise _refused(text, "there is whitespace around it", f"Write {_shown(text.strip())!r}.")
    if not text.isprintable():
        raise _refused(text, "it contains a control character")


def _refuse_local_habits(text: str) -> None:
    """Refuse paths that mean something here and something else, or nothing, in a container."""
    if "\\" in text or re.match(r"[A-Za-z]:/(?!/)", text):
        raise _refused(
            text,
            "it is a Windows path, and the loader runs on Linux",
            "Write the path as Linux spells it, such as '/mnt/c/models/x'.",
        )
    if text.startswith("~"):
        raise _refused(
            text,
            "'~' stands for another directory on each machine",
            "Write the absolute path, such as '/home/me/model'.",
        )
    if text in (".", "..") or text.startswith(("./", "../")):
        raise _refused(
            text,
            "a relative path leads to another place in each container",
            "Write the absolute path, such as '/data/model'.",
        )


def _hub(text: str, _scheme: str, body: str) -> HubReference:
    repository, at, revision = body.partition("@")
    if _HUB_TOKEN.fullmatch(repository):
        raise ConfigError(
            "The text that names the model looks like a hub's access token.",
            hint=f"Pass the token by hf_secret= or the variable HF_TOKEN. {_EXPECTED}",
        )
    if not _is_repository(repository):
        raise _refused(text, _NO_REPOSITORY, _nearest_repository(_shown(body)))
    if at and not revision:
        raise _refused(text, "no revision follows '@'", f"Write {repository!r}.")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise _refused(text, "no branch, tag or commit has the name that follows '@'")
    return HubReference(repository=repository, revision=revision)


def _is_repository(text: str) -> bool:
    return (
        _REPOSITORY.fullmatch(text) is not None
        and not re.search(r"--|\.\.", text)
        and not text.endswith(".git")
    )


def _nearest_repository(text: str) -> str:
    """Return advice about what is almost the name of a repository; empty where there is none."""
    trimmed = text.strip("/").removesuffix(".git")
    name, colon, tag = trimmed.rpartition(":")
    if colon and _is_repository(name) and _ALIAS.fullmatch(tag):
        return f"A revision follows '@': '{name}@{tag}'."
    if _is_repository(trimmed):
        return f"Write {trimmed!r}."
    parts = trimmed.split("/")
    if len(parts) > 2 and "." in parts[0] and _is_repository("/".join(parts[1:3])):
        return f"Leave out the host: {'/'.join(parts[1:3])!r}."
    if len(parts) > 2 and _is_repository("/".join(parts[:2])):
        return (
            f"Write {'/'.join(parts[:2])!r} and choose {'/'.join(parts[2:])!r} by include "
            "(--include)."
        )
    return ""


def _registry(text: str, _scheme: str, rest: str) -> RegistryReference:
    """Read what follows `models:`, as MLflow's own client does (`_parse_model_uri`, 3.17)."""
    if not rest.startswith("/") or rest.startswith("//"):
        nearest = _shown(f"models:/{rest.strip('/')}")
        raise _refused(
            text,
            "one slash must follow 'models:'",
            f"Write {nearest!r}; the variable MLFLOW_TRACKING_URI names the registry.",
        )
    parts = rest[1:].split("/")
    name, selector, alias = parts[0], "", ""
    if len(parts) == 1:
        name, _, alias = name.rpartition("@")
    else:
        selector = parts[-1]
    if len(parts) > 2 or not name.strip() or ":" in name or not (alias or selector):
        first = _shown(parts[0]) or "name"
        raise _refused(
            text,
            "it does not say which version of the model",
            f"Write 'models:/{first}/3' for a version, 'models:/{first}@champion' for an alias.",
        )
    if alias and _ALIAS.fullmatch(alias):
        return RegistryReference(model=name, alias=alias)
    if not alias and selector.isascii() and selector.isdecimal() and int(selector) > 0:
        return RegistryReference(model=name, version=int(selector))
    if not alias and _STAGE.fullmatch(selector):
        return RegistryReference(model=name, stage=selector)
    raise _refused(text, "what follows the name is no version, alias or stage")


def _input(text: str, _scheme: str, rest: str) -> InputReference:
    if not rest.isidentifier():
        nearest = rest.strip("/")
        advice = f"Write 'input:{nearest}'." if nearest.isidentifier() else ""
        raise _refused(text, "no input of a task can have this name", advice)
    return InputReference(input=rest)


def _file(text: str, _scheme: str, path: str) -> FileReference:
    if not path.startswith("/"):
        raise _refused(text, "the path must be absolute", f"Write 'file:///{path}'.")
    if not path.strip("/"):
        raise _refused(text, "it is the root of the file system")
    return FileReference(path=path.rstrip("/"))


def _store(text: str, scheme: str, rest: str) -> StoreReference:
    place = rest.partition("/")[0]
    # Azure's `container@account` has no password; nothing else stands before an "@" of a store
    if _PASSWORD.match(rest) or ("@" in place and scheme != "abfs"):
        raise _has_credentials(text)
    if not place:
        raise _refused(text, "it names no bucket", f"Write '{scheme}://bucket/prefix'.")
    return StoreReference(uri=f"{scheme}://{rest.rstrip('/')}")


def _web(text: str, scheme: str, rest: str) -> WebReference:
    host, _, path = _without_query(rest).partition("/")
    if "@" in host:
        raise _has_credentials(text)
    if not host or not path.strip("/"):
        raise _refused(text, "it names no file", f"Write '{scheme}://host/model.gguf'.")
    if advice := _nearest_of_page(path.split("/")):
        raise _refused(text, "it is the address of a web page, not of a file", advice)
    if not path.endswith("/") and not _ENDING.search(path):
        raise _refused(
            text,
            "its path does not end in a file name",
            "End it with a file's name, such as '/model.gguf', or with '/' for an index page.",
        )
    return WebReference(url=f"{scheme}://{rest}")


def _nearest_of_page(parts: list[str]) -> str:
    """Return how to write the repository that a hub's web page shows; empty for other addresses.

    Hubs lay out their pages alike, whatever the host: `owner/name`, `owner/name/tree/revision`,
    `owner/name/blob/revision/file`.
    """
    repository = "/".join(parts[:2])
    if len(parts) < 2 or not _is_repository(repository):
        return ""
    if len(parts) == 2 and not _ENDING.search(repository):
        return f"If it is a hub's page, write {repository!r}."
    if len(parts) < 4 or parts[2] not in ("tree", "blob"):
        return ""
    file = "/".join(parts[4:])
    choice = f" and choose {file!r} by include (--include)" if file else ""
    return f"Write '{repository}@{parts[3]}'{choice}."


def _unknown_scheme(text: str, scheme: str, rest: str) -> ConfigError:
    if not rest.startswith("/"):
        return _refused(text, _NO_REPOSITORY, _nearest_repository(_shown(text)))
    import difflib  # here: every start of a program and every `import flytekit` loads this module

    similar = [
        known
        for known in difflib.get_close_matches(scheme, _READERS, n=3, cutoff=0.5)
        if known[0] == scheme[0]
    ]
    advice = f"Did you mean {_shown(f'{similar[0]}:{rest}')!r}?" if similar else ""
    return _refused(text, f"no model can be read from '{scheme}:' addresses", advice)


def _has_credentials(text: str) -> ConfigError:
    return _refused(
        text,
        "it contains a user name or password, which anyone who can read the pod would see",
        "Leave it out: the loader reads stores with the task's credentials, and web servers "
        "without any; there a signed address helps.",
    )


def _refused(text: str, reason: str, advice: str = "") -> ConfigError:
    return ConfigError(
        f"{_shown(text)!r} is not a model reference: {reason}.",
        hint=f"{advice} {_EXPECTED}".strip(),
    )


def _without_query(address: str) -> str:
    return re.split(r"[?#]", address, maxsplit=1)[0]


def _shown(text: str) -> str:
    """Return `text` without what may be secret.

    That is a user, a password, and a query, which may be a signature.
    """
    if text.startswith(("/", "file://")):
        return text  # in a path, "?" and "@" are letters like any other
    user = _PASSWORD if text.lower().startswith("abfs") else _USER
    address, question, _ = _PASSWORD.sub("", user.sub("", text)).partition("?")
    return f"{address}?..." if question else address


_READERS: dict[str, Callable[[str, str, str], ModelReference]] = {
    "hf": _hub,
    "models": _registry,
    "input": _input,
    "file": _file,
    **dict.fromkeys(("s3", "gs", "abfs"), _store),
    **dict.fromkeys(("http", "https"), _web),
}
"""By scheme: reads a whole text, given its scheme and what follows that."""
