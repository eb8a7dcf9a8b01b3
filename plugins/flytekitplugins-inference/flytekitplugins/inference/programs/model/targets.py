"""What one loader publishes: a model, adapters, or both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ...errors import InvalidSourceError, UsageError
from .source import ModelSource, Selection, SourceAccess
from .sources import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_FILES = (
    *(ADAPTER_CONFIG, *ADAPTER_WEIGHTS),
    *(
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
    *("vocab.json", "merges.txt", "chat_template.jinja", "new_embeddings.safetensors"),
)
"""What servers read of a LoRA adapter. Source: `LoRAModel.from_local_checkpoint`, vLLM
`vllm/lora/`."""
_NAMED_ADAPTER = re.compile(r"(?P<name>[^=/:@]+)=(?P<source>.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One thing to publish."""

    name: str
    """Names it in metadata and log."""
    served_names: tuple[str, ...]
    """What the server calls it; several for a repository of models, which is replaced as a
    whole."""
    source: ModelSource
    selection: Selection
    link: Path
    """The link that leads to its version."""
    is_adapter: bool = False

    def check(self, names: Sequence[str]) -> None:
        """Make sure that these files can be what is wanted.

        Raises:
            InvalidSourceError: They are not a LoRA adapter.
        """
        if self.is_adapter and (
            ADAPTER_CONFIG not in names or not set(ADAPTER_WEIGHTS) & set(names)
        ):
            raise InvalidSourceError(
                f"{self.source.label} is not a LoRA adapter: it needs {ADAPTER_CONFIG} and "
                f"{' or '.join(ADAPTER_WEIGHTS)}, and has {', '.join(names) or 'neither'}.",
                hint="Name the repository or directory that `save_pretrained` of peft wrote.",
            )

    def described(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return its part of the metadata, which at least tells the revision."""
        part = fields.get("adapters", {}).get(self.name, {}) if self.is_adapter else fields
        return part if "revision" in part else {"revision": None}

    def describe_in(self, fields: dict[str, Any], description: dict[str, Any]) -> None:
        """Put its part into the metadata."""
        if self.is_adapter:
            fields.setdefault("adapters", {})[self.name] = description
        else:
            fields.update(description)


def model_target(
    text: str,
    *,
    revision: str,
    served_names: tuple[str, ...],
    selection: Selection,
    link: Path,
    access: SourceAccess,
    staging: Path,
) -> Target:
    """Return the model as a target."""
    source = open_source(text, revision=revision, access=access, staging=staging / "model")
    names = served_names or (PurePosixPath(source.name).name,)
    return Target(name="model", served_names=names, source=source, selection=selection, link=link)


def adapter_targets(
    texts: Sequence[str], *, directory: Path, access: SourceAccess, staging: Path
) -> list[Target]:
    """Return adapters, each `NAME=SOURCE` or `SOURCE`, as targets below `directory`.

    Without NAME, an adapter is called by all of its place: `owner--name`.

    Raises:
        UsageError: Two have the same name, or one has none.
    """
    targets: dict[str, Target] = {}
    for text in texts:
        match = _NAMED_ADAPTER.fullmatch(text)
        name, address = (match["name"], match["source"]) if match else ("", text)
        source = open_source(address, access=access, staging=staging / f"adapter-{len(targets)}")
        place = re.sub(r"^\w+:/*", "", source.label).partition("?")[0]
        name = name or place.strip("/").replace("/", "--")
        if name in targets or name.strip(".") == "":
            raise UsageError(
                f"There are two adapters {name!r}.", hint="Name them: --adapter NAME=SOURCE."
            )
        selection = Selection(optional=ADAPTER_FILES, either=ADAPTER_WEIGHTS)
        targets[name] = Target(
            name=name,
            served_names=(name,),
            source=source,
            selection=selection,
            link=directory / name,
            is_adapter=True,
        )
    return list(targets.values())
