"""A repository of a Hugging Face hub: which commit, which files, with which digests.

`stores.hub_store` brings the bytes.
"""

from __future__ import annotations

import os
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
from ...facts.background import BackgroundCall
from ..preflight import token
from ..stores.hub_store import GATED_HINT, HubStore, has_xet
from ..stores.store import StoredFile, error_for_status
from ..transfer.partial_file import MIN_PART_BYTES
from .digest import GIT_SHA1, Digest
from .source import Snapshot, SnapshotFile, SourceAccess

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
    """Return what `action` returns, for clients whose requests have no time-out of their own.

    Raises:
        SourceUnavailableError: It took more than `seconds`.
    """
    call = BackgroundCall(action).start()
    if not call.wait(seconds):
        raise SourceUnavailableError(f"{what} did not answer within {seconds:g} s.")
    return call.result()


class HubModel:
    """A repository at a branch, tag or commit.

    Args:
        repository: `owner/name`, or only `name`.
        ref: Branch, tag or commit.
        is_pinned: Whether `ref` is a commit.
        access: How it is read. `HF_ENDPOINT` and `HF_TOKEN` of its environment are used.
    """

    def __init__(self, repository: str, *, ref: str, is_pinned: bool, access: SourceAccess) -> None:
        self._repository, self._access = repository, access
        self.label = self.identity = f"hf://{repository}"
        self.name = repository
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
            token=token("HF_TOKEN", self._access.environ) or None,
            library_name="flytekitplugins-inference",
        )
        headers = build_hf_headers(token=api.token, library_name="flytekitplugins-inference")
        commit, entries = self._ask(api, "authorization" in headers)
        files, xet = [], {}
        for entry in entries:
            uri = hf_hub_url(self._repository, entry.path, revision=commit, endpoint=api.endpoint)
            files.append(
                SnapshotFile(path=entry.path, source=_source(uri, entry), digest=_digest(entry))
            )
            # older clients have no such field; then the file comes over HTTP
            if getattr(entry, "xet_hash", None):
                xet[uri] = entry.xet_hash
        store = HubStore(
            connections=self._access.connections,
            stall_seconds=self._access.stall_seconds,
            headers=headers,
            xet=xet if xet and not constants.HF_HUB_DISABLE_XET and has_xet() else {},
            xet_token_url=f"{api.endpoint}/api/models/{self._repository}/xet-read-token/{commit}",
        )
        return Snapshot(revision=commit, files=tuple(files), store=store, slow_down=store.slow_down)

    def _ask(self, api: Any, has_token: bool) -> tuple[str, list[Any]]:
        def ask() -> tuple[str, list[Any]]:
            info = api.model_info(
                self._repository, revision=self.ref, timeout=self._access.stall_seconds
            )
            if not info.sha:
                raise ValueError("a repository without a commit")
            # of the commit: the branch may move between the two requests
            tree = api.list_repo_tree(self._repository, revision=info.sha, recursive=True)
            # without the folders, which have no `blob_id`
            return str(info.sha), [entry for entry in tree if hasattr(entry, "blob_id")]

        try:
            return within(self._access.stall_seconds, ask, f"The hub at {api.endpoint}")
        except InferenceError:
            raise
        except Exception as error:
            # a client that gets an answer it does not expect fails by any kind: KeyError, TypeError
            refusal = self._refusal(error, has_token)
            raise refusal or self._unavailable(error) from error

    def _refusal(self, error: BaseException, has_token: bool) -> FetchError | None:
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

        response = getattr(error, "response", None)
        status = getattr(response, "status_code", 0)
        if response is not None and status >= 400:
            retry_after = response.headers.get("Retry-After")
            name = type(error).__name__
            return error_for_status(status, self.label, name, retry_after=retry_after)
        if isinstance(error, errors.HFValidationError):
            return InvalidSourceError(f"{self.label} is not the name of a repository: {error}.")
        is_answer = isinstance(error, (ValueError, KeyError, TypeError, AttributeError))
        what = "answered what no hub answers" if is_answer else "did not answer"
        return SourceUnavailableError(
            f"The hub {what} for {self.label} ({type(error).__name__}).",
            hint=NETWORK_HINT,
        )


def _prepare() -> None:
    """Make one file of certificates serve all libraries.

    requests reads one of the variables, httpx and Rust's TLS the other.
    """
    given = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), None)
    for name in _CERTIFICATES if given else ():
        os.environ.setdefault(name, str(given))


def _source(uri: str, entry: Any) -> StoredFile:
    # A small file comes whole: some servers compress text, and what is compressed has no ranges.
    return StoredFile(
        uri=uri, size=entry.size, version=_digest(entry).value, ranges=entry.size > MIN_PART_BYTES
    )


def _digest(entry: Any) -> Digest:
    if entry.lfs is not None:
        return Digest(value=entry.lfs.sha256)
    return Digest(algorithm=GIT_SHA1, value=entry.blob_id) if len(entry.blob_id) == 40 else Digest()
