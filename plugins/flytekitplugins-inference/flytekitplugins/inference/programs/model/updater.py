"""Another version of a model that is being served.

It is fetched beside the old one and swapped in; when the server refuses it, the old one comes back.
What is published stays published whatever happens here; a failed look at the source is counted in
the metadata.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InferenceError, ServerError, ServerNotReadyError
from .cache import Version
from .publication import describe, is_published, remove_link, swap_link, target_of, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .fetcher import Fetcher, FetchResult
    from .notify import Notifier
    from .targets import Target

NOBODY = "no server is told; it reads the new version when it starts again or opens its files anew"


def update_record(interval: float, notifiers: Sequence[Notifier]) -> dict[str, Any]:
    """Return what the metadata says of updates at first."""
    told = [f"{notifier.kind}={notifier.url}" for notifier in notifiers]
    return {
        "interval_seconds": interval,
        "notifies": told or NOBODY,
        "polls": 0,
        "failed_polls": 0,
        "last_poll_at": "",
        "last_error": "",
        "refused": {},
        "previous": {},
    }


class Updater:
    """Looks for other versions of what is published.

    Args:
        fetcher: Brings them.
        notifiers: Who is told.
        say: Called with what happens.
    """

    def __init__(
        self, fetcher: Fetcher, notifiers: Sequence[Notifier], say: Callable[[str], None]
    ) -> None:
        self._fetcher = fetcher
        self._notifiers = notifiers
        self._say = say

    def poll(self, targets: Sequence[Target], fields: dict[str, Any]) -> None:
        """Ask every target's source once, and note in `fields`, the metadata, what came of it."""
        record = fields["updates"]
        record["polls"] += 1
        record["last_poll_at"] = timestamp()
        errors = []
        for target in targets:
            try:
                self._poll(target, fields)
            except InferenceError as error:
                errors.append(f"{target.name}: {error.code}: {error.message}")
                self._say(
                    f"poll failed target={target.name} error={error.code} reason={error.message!r}"
                )
            except Exception as error:
                # only the kind of error is shown: its text may hold what the source was asked with
                traceback.print_exc()
                errors.append(f"{target.name}: {type(error).__name__}")
                self._say(f"poll failed target={target.name} error={type(error).__name__}")
        record["failed_polls"] += bool(errors)
        record["last_error"] = "; ".join(errors)

    def _poll(self, target: Target, fields: dict[str, Any]) -> None:
        # no answer is a failed look, not a reason to go back to the last known version
        result = self._fetcher.fetch(
            target.source, target.selection, target.check, may_be_offline=False
        )
        served = target.described(fields)
        refused = fields["updates"]["refused"].get(target.name, {}).get("revision")
        if served["revision"] == result.version.revision and is_published(
            result.version, target.link
        ):
            return
        # a server that has refused this version is not told again at each look
        if refused == result.version.revision:
            self._release(result.version)
            return
        self.replace(target, result, fields)

    def replace(self, target: Target, result: FetchResult, fields: dict[str, Any]) -> None:
        """Publish another version; take it back when the server refuses it."""
        record = fields["updates"]
        old = target_of(target.link)
        begun = time.monotonic()
        swap_link(target.link, result.version.files)
        accepted: list[tuple[Notifier, str]] = []
        try:
            for notifier in self._notifiers_of(target):
                for name in target.served_names:
                    notifier.tell(name, result.version.files)
                    accepted.append((notifier, name))
        except ServerError as error:
            swap_link(target.link, old) if old else remove_link(target.link)
            self._take_back(accepted, old)
            # a server that did not answer may take it at the next look
            if not isinstance(error, ServerNotReadyError):
                record["refused"][target.name] = {
                    "revision": result.version.revision,
                    "error": error.message,
                }
            self._release(result.version)
            raise
        result.seconds["publish"] = round(time.monotonic() - begun, 3)
        record["refused"].pop(target.name, None)
        target.describe_in(fields, describe(target.source.label, target.source.ref, result))
        self._retire(record, target, old)
        self._say(f"updated target={target.name} revision={result.version.revision}")

    def _notifiers_of(self, target: Target) -> list[Notifier]:
        return [
            notifier
            for notifier in self._notifiers
            if notifier.is_for_adapters == target.is_adapter
        ]

    def _take_back(self, accepted: Sequence[tuple[Notifier, str]], old: Path | None) -> None:
        """Have every server that took the new version load the old one again.

        So no two serve different versions.
        """
        if old is None:
            return
        for notifier, name in accepted:
            try:
                notifier.tell(name, old)
            except ServerError as error:
                self._say(f"not taken back model={name} reason={error.message!r}")

    def _retire(self, record: dict[str, Any], target: Target, old: Path | None) -> None:
        """Keep the version that was published until now, and let go of the one before it."""
        before = record["previous"].get(target.name)
        # the one before may have come back
        if before and Path(before) not in (old, target_of(target.link)):
            version = Version(Path(before).parent, "")
            self._release(version)
            if self._fetcher.cache.is_unlimited:
                self._fetcher.cache.remove(version)
        record["previous"][target.name] = str(old) if old else ""

    def keep(self, fields: dict[str, Any]) -> list[Path]:
        """Take the leases of everything that is published or was just before, and return them."""
        described = [fields, *fields.get("adapters", {}).values()]
        paths = [Path(item["path"]) for item in described if item.get("path")]
        paths += [
            Path(path) for path in fields.get("updates", {}).get("previous", {}).values() if path
        ]
        leases = (
            Version(path.parent, "").use(self._fetcher.holder, self._fetcher.heartbeat)
            for path in paths
        )
        return [lease for lease in leases if lease]

    def _release(self, version: Version) -> None:
        lease = version.lease_of(self._fetcher.holder)
        self._fetcher.heartbeat.remove(lease)
        with contextlib.suppress(OSError):
            lease.unlink()
