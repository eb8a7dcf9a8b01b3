"""Telling a running model server that there is another version, in each server's own way."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...errors import ServerError, ServerNotReadyError, UsageError
from ...facts.address import AddressError, parse_address
from ...facts.http_exchange import NoAnswerError, ask
from ...facts.wording import excerpt

KINDS = ("triton", "mlserver", "sglang", "vllm-lora")
MAX_ANSWER_BYTES = 64 * 1024
MAX_EXCERPT = 500
"""Characters of a refusal that are told: it names the file that a server stumbled over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notifier:
    """One server that is told.

    Sources: Triton and MLServer: the model repository extension of the Open Inference Protocol,
    github.com/triton-inference-server/server `docs/protocol/extension_model_repository.md`; for
    `_renew` github.com/triton-inference-server/core
    `src/model_repository_manager/model_repository_manager.cc`. SGLang:
    `python/sglang/srt/entrypoints/http_server.py`, 0.5. vLLM: docs.vllm.ai "LoRA Adapters", dynamic
    serving.
    """

    kind: str
    url: str
    timeout_seconds: float = 600.0

    @property
    def is_for_adapters(self) -> bool:
        """Whether it takes adapters rather than the model."""
        return self.kind == "vllm-lora"

    def tell(self, name: str, path: Path) -> None:
        """Have the server load `path` as `name`.

        Raises:
            ServerNotReadyError: It does not answer.
            ServerError: It refuses.
        """
        if self.kind == "triton":
            self._renew(path / name)
        if self.kind in ("triton", "mlserver"):
            answer = self._post(f"/v2/repository/models/{quote(name, safe='')}/load", {})
        elif self.kind == "sglang":
            answer = self._post("/update_weights_from_disk", {"model_path": str(path)})
        else:
            body = {"lora_name": name, "lora_path": str(path), "load_inplace": True}
            answer = self._post("/v1/load_lora_adapter", body)
        if isinstance(answer, dict) and answer.get("success") is False:
            raise self._refused(200, str(answer.get("message", "")))

    def _renew(self, model: Path) -> None:
        """Make the directories of a model in a repository newer than anything that Triton has seen.

        It answers 200 and goes on with the old files unless something in the directory of that
        model version was changed later than all it has loaded (`ModelTimestamp::IsModified`,
        `IsModelVersionModified`, 24.10 to 26.06). Files that were downloaded earlier, as after an
        alias was moved back, would never be loaded.
        """
        try:
            for directory, _, _ in os.walk(model):
                os.utime(directory)
        except OSError as error:
            raise ServerError(
                f"Triton would not see that {model} is another version: its time cannot be set "
                f"({error.strerror}).",
                hint="The loader must own the files in its cache.",
            ) from error

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        address = parse_address(self.url.rstrip("/") + path)
        headers = {"Content-Type": "application/json"}
        sent = json.dumps(body).encode()
        try:
            with ask(
                address, "POST", seconds=self.timeout_seconds, headers=headers, body=sent
            ) as answer:
                status, text = answer.status, answer.read(MAX_ANSWER_BYTES)
        except NoAnswerError as error:
            raise ServerNotReadyError(
                f"The {self.kind} server at {self.url} did not answer: {error.text}."
            ) from error
        if not 200 <= status < 300:
            raise self._refused(status, text)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None

    def _refused(self, status: int, text: bytes | str) -> ServerError:
        return ServerError(
            f"The {self.kind} server at {self.url} refused the new version ({status}): "
            f"{excerpt(text, limit=MAX_EXCERPT)}.",
            hint="It goes on with the old one, which is published again.",
        )


def parse_notifier(text: str) -> Notifier:
    """Return the notifier that `KIND=URL` describes.

    Raises:
        UsageError: The kind is not known or the address is none.
    """
    kind, _, url = text.partition("=")
    hint = f"Write KIND=http://host:port with KIND one of {', '.join(KINDS)}."
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is no kind of server to notify.", hint=hint)
    try:
        address = parse_address(url)
    except AddressError as error:
        raise UsageError(f"The address to notify {error}.", hint=hint) from None
    if "?" in address.path:
        raise UsageError("The address to notify holds a query, which cannot be kept.", hint=hint)
    return Notifier(kind=kind, url=url)
