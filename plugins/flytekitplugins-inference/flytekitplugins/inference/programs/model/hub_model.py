"""A repository of a Hugging Face hub: which commit, which files, with which digests. See `store_hub` for the bytes."""

from __future__ import annotations

import os
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from ...dependencies import requires
from ...errors import (
    FetchError,
    GatedModelError,
    InferenceError,
    InvalidSourceError,
    RevisionNotFoundError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from ..preflight import token
from ..stores.hub_store import GATED_HINT, HubStore, has_xet
from ..stores.store import Source, error_for_status
from ..transfer.partial_file import MIN_PART_BYTES
from .digest import GIT_SHA1, Digest
from .source import ModelFile, Reading, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
NETWORK_HINT = (
    "Check HF_ENDPOINT, HTTPS_PROXY, and SSL_CERT_FILE where the network has "
    "certificates of its own."
)
ACCESS_HINT = "Set HF_TOKEN to a valid token of an account that may read it."


def within(seconds: float, action: Callable[[], _T], what: str) -> _T:
    """Return what `action` returns; clients whose requests have no time-out of their own are not waited for longer.

    Raises:
        SourceUnavailableError: It took more than `seconds`.
    """
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except FutureTimeoutError as error:
        if future.done():
            raise
        raise SourceUnavailableError(f"{what} did not answer within {seconds:g} s.") from error


class HubModel:
    """A repository at a branch, tag or commit.

    Args:
        repository: `owner/name`.
        ref: Branch, tag or commit.
        is_pinned: Whether `ref` is a commit.
        reading: How it is read. `HF_ENDPOINT` and `HF_TOKEN` of its environment are used.
    """

    def __init__(self, repository: str, *, ref: str, is_pinned: bool, reading: Reading) -> None:
        self._repository, self._reading = repository, reading
        self.label = f"hf://{repository}"
        self.ref = ref
        self.is_pinned = is_pinned

    def resolve(self) -> Snapshot:
        """See `ModelSource`.

        Raises:
            MissingDependencyError: huggingface_hub is not installed.
            SourceForbiddenError: HF_TOKEN holds what cannot be sent.
        """
        _prepare()
        with requires("huggingface_hub", self.label, hint="pip install huggingface_hub hf_xet"):
            from huggingface_hub import HfApi, constants, hf_hub_url
            from huggingface_hub.utils import build_hf_headers
        api = HfApi(
            token=token("HF_TOKEN", self._reading.environ) or None,
            library_name="flytekitplugins-inference",
        )
        headers = build_hf_headers(token=api.token, library_name="flytekitplugins-inference")
        commit, entries = self._ask(api, "authorization" in headers)
        files, xet = [], {}
        for entry in entries:
            uri = hf_hub_url(self._repository, entry.path, revision=commit, endpoint=api.endpoint)
            files.append(
                ModelFile(path=entry.path, source=_source(uri, entry), digest=_digest(entry))
            )
            if getattr(
                entry, "xet_hash", None
            ):  # older clients do not tell; then it comes over HTTP
                xet[uri] = entry.xet_hash
        store = HubStore(
            connections=self._reading.connections,
            stall_seconds=self._reading.stall_seconds,
            headers=headers,
            xet=xet if xet and not constants.HF_HUB_DISABLE_XET and has_xet() else {},
            xet_token_url=f"{api.endpoint}/api/models/{self._repository}/xet-read-token/{commit}",
        )
        return Snapshot(revision=commit, files=tuple(files), store=store, slow_down=store.slow_down)

    def _ask(self, api: Any, has_token: bool) -> tuple[str, list[Any]]:
        def ask() -> tuple[str, list[Any]]:
            info = api.model_info(
                self._repository, revision=self.ref, timeout=self._reading.stall_seconds
            )
            if not info.sha:
                raise ValueError("a repository without a commit")
            tree = api.list_repo_tree(self._repository, revision=info.sha, recursive=True)
            return str(info.sha), [entry for entry in tree if hasattr(entry, "blob_id")]

        try:
            return within(self._reading.stall_seconds, ask, f"The hub at {api.endpoint}")
        except InferenceError:
            raise
        except (
            Exception
        ) as error:  # what is not as the client expects ends in any kind: KeyError, TypeError, …
            refused = self._refused(error, has_token)
            raise refused or self._unavailable(error) from error

    def _refused(self, error: BaseException, has_token: bool) -> FetchError | None:
        from huggingface_hub import errors

        status = getattr(getattr(error, "response", None), "status_code", 0)
        if isinstance(error, errors.GatedRepoError):
            return GatedModelError(
                f"{self.label} is gated, and this account may not read it.", hint=GATED_HINT
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return RevisionNotFoundError(
                f"{self.label} has no revision {self.ref!r}.",
                hint="Give a branch, a tag or a full commit hash.",
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            hint = (
                "Check the spelling of owner/name."
                if has_token
                else f"Or it is private: {ACCESS_HINT}"
            )
            return SourceNotFoundError(
                f"There is no repository {self.label} that this account can see.", hint=hint
            )
        if status in (401, 403):
            what = (
                "The hub does not accept the token" if status == 401 else "This token may not read"
            )
            return SourceForbiddenError(f"{what} for {self.label} ({status}).", hint=ACCESS_HINT)
        return None

    def _unavailable(self, error: BaseException) -> FetchError:
        from huggingface_hub import errors

        status = getattr(getattr(error, "response", None), "status_code", 0)
        if status >= 400:
            return error_for_status(status, self.label, type(error).__name__)
        if isinstance(error, errors.HFValidationError):
            return InvalidSourceError(f"{self.label} is not the name of a repository: {error}.")
        is_answer = isinstance(error, (ValueError, KeyError, TypeError, AttributeError))
        what = "answered what no hub answers" if is_answer else "did not answer"
        return SourceUnavailableError(
            f"The hub {what} for {self.label} ({type(error).__name__}).",
            hint=NETWORK_HINT,
        )


def _prepare() -> None:
    """Make one certificate file serve all libraries: requests knows one variable, httpx and Rust's TLS the other."""
    given = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), None)
    for name in _CERTIFICATES if given else ():
        os.environ.setdefault(name, str(given))


def _source(uri: str, entry: Any) -> Source:
    # A small file comes whole: some servers compress text, and what is compressed has no ranges.
    return Source(
        uri=uri, size=entry.size, version=_digest(entry).value, ranges=entry.size > MIN_PART_BYTES
    )


def _digest(entry: Any) -> Digest:
    if entry.lfs is not None:
        return Digest(value=entry.lfs.sha256)
    return Digest(algorithm=GIT_SHA1, value=entry.blob_id) if len(entry.blob_id) == 40 else Digest()
