"""`WithHubToken`, `WithAdapters`: servers that read the hub, and servers of LoRA adapters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import ConfigError
from ..facts.model_reference import InputReference, parse_model_reference
from . import check
from .description import Description
from .parts import EnvVar
from .secrets import HFSecret, SecretReference
from .server import Adapters

__all__ = ["ADAPTERS", "WithAdapters", "WithHubToken"]

ADAPTERS = "/adapters"
"""Where LoRA adapters lie, each in a directory of its name."""
# the name becomes a directory, and one half of `name=path`
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*\Z")


@dataclass(frozen=True, kw_only=True)
class WithHubToken(Description):
    """A server that can fetch from the Hugging Face hub by itself."""

    hf_secret: HFSecret | None = None
    """The token for gated or private models; public ones need none."""

    def token_reference(self) -> SecretReference | None:
        """Return the token by the parts of its name."""
        return self.hf_secret.reference() if self.hf_secret else None

    def token_variables(self, *names: str) -> tuple[EnvVar, ...]:
        """Return the variables that bring the token to the server.

        Args:
            names: Those in which the server reads it.
        """
        token = self.token_reference()
        return token.env(*names) if token else ()

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields."""
        yield from super().problems()
        if self.hf_secret is not None and not isinstance(self.hf_secret, HFSecret):
            # not its value: a token given by mistake must not end up in a log
            yield (
                "hf_secret must be an HFSecret(hf_token_key=…), not a "
                f"{type(self.hf_secret).__name__}"
            )
        elif self.hf_secret is not None:
            yield from (
                f"hf_secret: {problem}" for problem in self.hf_secret.reference().problems()
            )


@dataclass(frozen=True, kw_only=True)
class WithAdapters(WithHubToken):
    """A server of LoRA adapters in PEFT's format, which an init container downloads."""

    lora_adapters: Mapping[str, str] | None = None
    """LoRA adapters to bring and serve: the name under which requests ask for one →
    `owner/name[@revision]` of the hub, or another place that `model=` may name as a text."""
    lora_adapter_mem: str = "2Gi"
    """Memory of the container that downloads the adapters."""

    def adapter_paths(self) -> tuple[str, ...]:
        """Return `name=path` of each adapter, as vLLM and SGLang take them."""
        return tuple(f"{name}={ADAPTERS}/{name}" for name in self.lora_adapters or ())

    def adapters(self) -> Adapters | None:
        """Return what is to be downloaded, as `Server(adapters=…)` takes it; `None` for nothing."""
        if not self.lora_adapters:
            return None
        return Adapters(sources=self.lora_adapters, directory=ADAPTERS, mem=self.lora_adapter_mem)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields."""
        yield from super().problems()
        if self.lora_adapters is None:
            return
        if not isinstance(self.lora_adapters, Mapping):
            yield (
                "lora_adapters must be a dict of names and sources, not a "
                f"{type(self.lora_adapters).__name__}"
            )
            return
        yield from check.check_quantity("lora_adapter_mem", self.lora_adapter_mem, memory=True)
        for name, source in self.lora_adapters.items():
            if not isinstance(name, str) or not _NAME.match(name):
                yield (
                    f"lora_adapters: {name!r} is not a name; expected letters, digits, '.', '_' "
                    "and '-'"
                )
            yield from (f"lora_adapters[{name!r}]: {why}" for why in _source_problems(source))


def _source_problems(source: object) -> Iterator[str]:
    if not isinstance(source, str):
        yield f"expected a text such as 'owner/name', not a {type(source).__name__}"
        return
    try:
        reference = parse_model_reference(source)
    except ConfigError as error:
        yield str(error)
        return
    if isinstance(reference, InputReference):
        # the container that brings adapters starts before, or together with, the one for inputs
        yield f"{source!r} is an input of the task, and inputs arrive only after the adapters"
