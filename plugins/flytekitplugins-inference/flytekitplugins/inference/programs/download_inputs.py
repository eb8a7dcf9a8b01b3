"""The input downloader: writes a Flyte task's inputs as plain JSON and local files.

    python -m flytekitplugins.inference.programs.download_inputs {{.input}}

reads `inputs.pb`, downloads every file that it names and writes `inputs.json`: values unchanged,
files as absolute paths. `inputs.json` appears only after everything has arrived. A rerun continues.
"""

from __future__ import annotations

if __name__ == "__main__":  # before all else is imported
    from .sigterm import end_at_once

    end_at_once()

import itertools
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ..errors import InferenceError, InvalidSourceError, SourceNotFoundError, UsageError
from ..facts.address import mask, scheme_of, without_credentials
from .command_line import CommandLine, count, say, seconds
from .disk import write_json, writing
from .inputs.input_reader import InputReader, combined, item_index
from .inputs.values import Content, Kind, Reference, dotted, leaves, replace
from .local_names import folder_name, relative_paths, safe_name
from .main import start
from .protocol import INPUTS_DIRECTORY, INPUTS_FILE, VERSION
from .retry import Crew, Retry
from .start_budget import enforced, start_budget, telling
from .stores.flyte_stores import Stores
from .stores.store import SourceChangedError
from .transfer.transfers import Delivered, Delivery, Transfer, TransferProgress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROGRAM = "download_inputs"
HEAD_BYTES = 256 * 1024
"""Bytes that the first request for a file asks for: small files then take one request, not two."""
MAX_HEADS = 256
"""Number of files whose first bytes are kept in memory, which takes 64 MiB at most."""
MAX_JOBS = 256
"""Each job has a thread, a connection and a buffer of `BLOCK_BYTES`."""
MAX_ROUNDS = 3
"""How often the download starts again because somebody replaced a source meanwhile."""


_say = partial(say, PROGRAM)


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadConfig:
    """The options of the command line and the environment."""

    uri: str
    output: Path
    directory: Path
    jobs: int
    retry: Retry
    stall_seconds: float
    bound: frozenset[str]
    skip: frozenset[str]
    index: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """The files of a reference, and their local path."""

    reference: Reference
    path: str
    """The file or directory, relative to the root."""
    deliveries: tuple[Delivery, ...]
    is_directory: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """One file in the manifest."""

    input: str
    uri: str
    path: str
    bytes: int
    seconds: float


class Downloader:
    """One run of the program.

    Args:
        config: What to do.
        environ: Environment variables with Flyte's storage configuration.
    """

    def __init__(self, config: DownloadConfig, environ: Mapping[str, str]) -> None:
        self._config = config
        self._stores = Stores(environ, connections=config.jobs, stall_seconds=config.stall_seconds)
        self._crew = Crew(config.jobs)
        self._manifest = config.output.with_suffix(".manifest.json")
        self._started = time.monotonic()

    def run(self) -> None:
        """Download everything, then write the manifest and, last, `inputs.json`."""
        # an earlier run's files must go first: the task takes their presence as completion
        for stale in (self._config.output, self._manifest):
            with writing(stale):
                stale.unlink(missing_ok=True)
        config = self._config
        reader = InputReader(stores=self._stores, crew=self._crew, retry=config.retry)
        with telling(lambda: f"It was reading {mask(config.uri)}."):
            tree = reader.read(config.uri, config.index, config.bound)
        transfer = Transfer(
            self._stores, config.directory, jobs=config.jobs, retry=config.retry, tick=_report
        )
        local: dict[Any, str] = {}
        references = []
        for leaf in leaves(tree):
            if isinstance(leaf, Content):
                path = f"{folder_name(leaf.path)}/value.bin"
                transfer.write(path, leaf.data)
                local[leaf] = str(config.directory / path)
            elif self._is_skipped(leaf):
                local[leaf] = leaf.uri
            else:
                references.append(leaf)
        with telling(lambda: f"{transfer.progress} of the inputs had arrived."):
            placements, delivered = self._fetch(transfer, references)
        local.update({item.reference: str(config.directory / item.path) for item in placements})
        # last: a kill before this line leaves no `inputs.json`, so the rerun continues the download
        self._write(replace(tree, local), placements, delivered)
        transfer.close()

    def _fetch(
        self, transfer: Transfer, references: Sequence[Reference]
    ) -> tuple[list[Placement], list[Delivered]]:
        """Look up all sources, then download them.

        Starts again if somebody replaces a source between the two steps.
        """
        # first all lookups, then the downloads: a wrong address fails before gigabytes arrive
        for last in (False,) * (MAX_ROUNDS - 1) + (True,):
            # a run that continues an earlier one may have the files, and needs no first bytes
            heads = itertools.islice(
                itertools.repeat(HEAD_BYTES), MAX_HEADS if transfer.is_fresh else 0
            )
            placements = self._place_all(references, heads)
            for item in placements:
                if item.is_directory:
                    transfer.prune(item.path, {delivery.path for delivery in item.deliveries})
            outcome = transfer.fetch(
                [delivery for item in placements for delivery in item.deliveries]
            )
            if not outcome.failures:
                break
            if last or not all(
                isinstance(error, SourceChangedError) for _, error in outcome.failures
            ):
                owners = {
                    delivery.path: item.reference.path
                    for item in placements
                    for delivery in item.deliveries
                }
                raise combined(
                    [(owners[delivery.path], error) for delivery, error in outcome.failures]
                )
        return placements, outcome.delivered

    def _place_all(self, references: Sequence[Reference], heads: Iterator[int]) -> list[Placement]:
        placements: dict[Reference, Placement] = {}

        def place(reference: Reference) -> None:
            head_bytes = next(heads, 0)
            placements[reference] = self._config.retry.call(
                lambda: self._place(reference, head_bytes), self._crew.stop
            )

        with telling(lambda: f"{len(placements)} of {len(references)} inputs were looked up."):
            failures = self._crew.map(place, references)
        if failures:
            raise combined([(reference.path, error) for reference, error in failures])
        return [placements[reference] for reference in references]

    def _place(self, reference: Reference, head_bytes: int) -> Placement:
        is_folder = reference.kind is Kind.EITHER and reference.uri.endswith("/")
        if reference.kind is Kind.DIRECTORY or is_folder:
            return self._place_directory(reference)
        try:
            source = self._stores.stat(reference.uri, head_bytes)
        except (SourceNotFoundError, InvalidSourceError) as error:
            # Flyte's data does not always say whether an address is a directory; stores do
            if reference.kind is Kind.FILE or scheme_of(reference.uri) in ("http", "https"):
                raise
            try:
                return self._place_directory(reference)
            except InferenceError:
                raise error from None
        path = _path(reference)
        delivery = Delivery(source=source, path=path)
        return Placement(reference=reference, path=path, deliveries=(delivery,), is_directory=False)

    def _place_directory(self, reference: Reference) -> Placement:
        path = _path(reference)
        sources = dict(self._stores.find(reference.uri))
        names = relative_paths(sources)
        deliveries = tuple(
            Delivery(source=sources[key], path=f"{path}/{names[key]}") for key in sorted(sources)
        )
        return Placement(reference=reference, path=path, deliveries=deliveries, is_directory=True)

    def _is_skipped(self, reference: Reference) -> bool:
        name = dotted(reference.path)
        return any(
            name == skip or name.startswith((f"{skip}.", f"{skip}[")) for skip in self._config.skip
        )

    def _write(
        self, values: Any, placements: Sequence[Placement], delivered: Sequence[Delivered]
    ) -> None:
        owners = {
            delivery.path: item.reference for item in placements for delivery in item.deliveries
        }
        files = [
            FileRecord(
                input=dotted(owners[item.delivery.path].path),
                uri=mask(item.delivery.source.uri),
                path=str(self._config.directory / item.delivery.path),
                bytes=item.size,
                seconds=round(item.seconds, 3),
            )
            for item in sorted(delivered, key=lambda item: item.delivery.path)
        ]
        seconds = round(time.monotonic() - self._started, 3)
        size = sum(file.bytes for file in files)
        manifest = {
            "version": VERSION,
            "source": mask(self._config.uri),
            "files": [asdict(file) for file in files],
            "total_files": len(files),
            "total_bytes": size,
            "seconds": seconds,
        }
        # before `inputs.json`, which means that everything is there, the manifest too
        write_json(self._manifest, manifest)
        write_json(self._config.output, values)
        _say(f"done files={len(files)} bytes={size} seconds={seconds}")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program; see `--help`.

    Raises:
        UsageError: The arguments are wrong.
        InferenceError: An input cannot be downloaded.
    """
    parser = _parser()
    parsed = parser.parse_args(argv)
    if "{{" in parsed.uri or not parsed.uri:
        raise UsageError(
            f"{parsed.uri!r} is not an address.",
            hint="Flyte replaces {{.input}} in a container's arguments only.",
        )
    if not Path(parsed.output).absolute().name:
        raise UsageError(f"--output {parsed.output} is not a file.", hint=parser.hint)
    config = DownloadConfig(
        uri=parsed.uri,
        output=Path(parsed.output).absolute(),
        directory=Path(parsed.directory).absolute(),
        jobs=parsed.jobs,
        retry=Retry(attempts=parsed.attempts, backoff_seconds=parsed.backoff),
        stall_seconds=parsed.stall_timeout,
        bound=frozenset(parsed.bound),
        skip=frozenset(parsed.skip),
        index=item_index(environ),
    )
    with enforced(PROGRAM, start_budget(environ)):
        Downloader(config, environ).run()
    return 0


def _parser() -> CommandLine:
    parser = CommandLine(
        prog=PROGRAM,
        description="Download a Flyte task's inputs: values as JSON, files beside it.",
    )
    add = parser.add_argument
    add("uri", metavar="URI", help="address of inputs.pb; {{.input}} in a pod")
    add(
        "--output",
        default=INPUTS_FILE,
        metavar="PATH",
        help="the JSON file; written last (%(default)s)",
    )
    add(
        "--directory",
        default=INPUTS_DIRECTORY,
        metavar="PATH",
        help="where the files go (%(default)s)",
    )
    add(
        "--jobs",
        type=count(MAX_JOBS),
        default=16,
        metavar="N",
        help="parallel downloads (%(default)s)",
    )
    add(
        "--bound",
        action="append",
        default=[],
        metavar="NAME",
        help="map task: an input that all items share",
    )
    add(
        "--skip",
        action="append",
        default=[],
        metavar="NAME",
        help="leave the files of this value where they are",
    )
    parser.add_retries()
    add(
        "--stall-timeout",
        type=seconds(0.01),
        default=45.0,
        metavar="SECONDS",
        help="time without a byte that counts as a failure (%(default)s)",
    )
    return parser


def _path(reference: Reference) -> str:
    """Return the local path of a reference, relative to the root: its directory and base name."""
    is_http = scheme_of(reference.uri) in ("http", "https")
    address = without_credentials(reference.uri).partition("?" if is_http else "?versionId=")[0]
    _, separator, rest = address.partition("://")
    path = rest.partition("/")[2] if separator else address  # without the host
    if is_http:
        path = path.partition("#")[0]
    name = path.rstrip("/").rpartition("/")[2]
    return f"{folder_name(reference.path)}/{safe_name(unquote(name) if is_http else name)}"


def _report(progress: TransferProgress) -> None:
    rate = progress.bytes / max(time.monotonic() - progress.started, 0.001)
    _say(
        f"progress files={progress.files}/{progress.total_files} bytes={progress.bytes} "
        f"total_bytes={progress.total_bytes} bytes_per_second={rate:.0f}"
    )


if __name__ == "__main__":
    start(PROGRAM, main)
