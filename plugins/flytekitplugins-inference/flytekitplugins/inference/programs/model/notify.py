"""Telling a running model server that there is another version, in each server's own way."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...errors import ServerError, ServerNotReadyError, UsageError

KINDS = ("triton", "mlserver", "sglang", "vllm-lora")
_MAX_ANSWER_CHARS = 500


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
        request = urllib.request.Request(  # noqa: S310 (checked in `parse_notifier`)
            self.url.rstrip("/") + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is in this pod
        try:
            with opener.open(request, timeout=self.timeout_seconds) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise self._refused(
                error.code, error.read(_MAX_ANSWER_CHARS).decode(errors="replace")
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerNotReadyError(
                f"The {self.kind} server at {self.url} did not answer: {error}."
            ) from error
        try:
            return json.loads(text)
        except ValueError:
            return None

    def _refused(self, status: int, text: str) -> ServerError:
        return ServerError(
            f"The {self.kind} server at {self.url} refused the new version ({status}): "
            f"{text[:_MAX_ANSWER_CHARS]}",
            hint="It goes on with the old one, which is published again.",
        )


def parse_notifier(text: str) -> Notifier:
    """Return the notifier that `KIND=URL` describes.

    Raises:
        UsageError: The kind is not known or the address is none.
    """
    kind, _, url = text.partition("=")
    if kind not in KINDS or not url.startswith(("http://", "https://")):
        raise UsageError(
            f"{text!r} does not say whom to notify.",
            hint=f"Write KIND=http://host:port with KIND one of {', '.join(KINDS)}.",
        )
    return Notifier(kind=kind, url=url)
