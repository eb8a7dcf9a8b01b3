"""A task's inputs, from `inputs.pb` and what it refers to, as a tree of values (see `values`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, InferenceError, IntegrityError, InvalidSourceError
from ...facts.address import mask
from ..stores.store import SourceChangedError
from .literals import parse_literal, parse_literal_map, select, value_of
from .values import OffloadedLiteral, Path, dotted, leaves, replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..retry import Crew, Retry
    from ..stores.flyte_stores import Stores

MAX_OFFLOADED_DEPTH = 20
"""Offloaded literals inside offloaded literals."""
MAX_REPORTED = 10
"""Failed inputs that one message names; the rest is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputReader:
    """Reads the inputs of a task.

    Args:
        stores: Where `inputs.pb` and offloaded literals are.
        crew: Who fetches offloaded literals.
        retry: How often they are tried again.
    """

    stores: Stores
    crew: Crew
    retry: Retry

    def read(self, uri: str, index: int | None, bound: frozenset[str]) -> Any:
        """Return the tree of the inputs at `uri`.

        Args:
            uri: The address of `inputs.pb`.
            index: The item of a map task, whose `inputs.pb` has those of all items; None outside of
                one.
            bound: Inputs that are the same for all items.

        Raises:
            InvalidSourceError: It is no LiteralMap, or a literal in it cannot be read.
        """
        try:
            literals = parse_literal_map(self._read_all(uri))
        except InvalidSourceError as error:
            raise InvalidSourceError(f"{mask(uri)}: {error.message}", hint=error.hint) from error
        if index is not None:
            # first, because an offloaded collection has to be here before its item can be chosen
            offloaded = [
                leaf for name, item in literals.items() if (leaf := _offloaded(name, item))
            ]
            literals.update(
                {str(leaf.path[0]): literal for leaf, literal in self._literals(offloaded).items()}
            )
            literals = select(literals, index, bound)
        return self._resolved({name: self._value(item, (name,)) for name, item in literals.items()})

    def _resolved(self, tree: Any) -> Any:
        """Return `tree` with the offloaded literals in it, and in these, fetched."""
        waiting: list[OffloadedLiteral] = []
        for _ in range(MAX_OFFLOADED_DEPTH):
            waiting = [leaf for leaf in leaves(tree) if isinstance(leaf, OffloadedLiteral)]
            if not waiting:
                return tree
            literals = self._literals(waiting)
            tree = replace(
                tree, {leaf: self._value(literal, leaf.path) for leaf, literal in literals.items()}
            )
        raise InvalidSourceError(
            f"{dotted(waiting[0].path)}: its offloaded literals refer to each other."
        )

    def _literals(self, offloaded: Sequence[OffloadedLiteral]) -> dict[OffloadedLiteral, Any]:
        literals = {}

        def fetch(leaf: OffloadedLiteral) -> None:
            literals[leaf] = parse_literal(self._read_all(leaf.uri), leaf.path)

        failures = self.crew.map(fetch, offloaded)
        if failures:
            raise combined([(leaf.path, error) for leaf, error in failures])
        return literals

    def _value(self, literal: Any, path: Path) -> Any:
        return value_of(literal, path, self.stores.is_readable)

    def _read_all(self, uri: str) -> bytes:
        def once() -> bytes:
            source = self.stores.stat(uri)
            data = b"".join(bytes(block) for block in self.stores.read(source, 0, source.size))
            if source.size not in (None, len(data)):
                raise IntegrityError(f"{mask(uri)} ended after {len(data)} of {source.size} bytes.")
            return data

        return self.retry.call(once, self.crew.stop)


def item_index(environ: Mapping[str, str]) -> int | None:
    """Return which item of a map task this pod works on, or None when it is no map task.

    Source: `ArrayNodeMapTask._compute_array_job_index`, flytekit 1.16.

    Raises:
        ConfigError: A variable does not hold a number.
    """
    variable = environ.get("BATCH_JOB_ARRAY_INDEX_VAR_NAME")
    if not variable:
        return None
    try:
        return int(environ.get("BATCH_JOB_ARRAY_INDEX_OFFSET") or 0) + int(
            environ.get(variable) or 0
        )
    except ValueError as error:
        raise ConfigError(f"{variable} or BATCH_JOB_ARRAY_INDEX_OFFSET is not a number.") from error


def combined(failures: Sequence[tuple[Path, InferenceError]]) -> InferenceError:
    """Return one error for those of several inputs.

    It is of the kind of the first that a rerun would not mend.
    """
    ordered = sorted(failures, key=lambda failure: dotted(failure[0]))
    first = next((error for _, error in ordered if not error.retryable), ordered[0][1])
    texts = [f"{dotted(path)}: {error.message}" for path, error in ordered[:MAX_REPORTED]]
    if len(ordered) > MAX_REPORTED:
        texts.append(f"and {len(ordered) - MAX_REPORTED} more.")
    kind = IntegrityError if isinstance(first, SourceChangedError) else type(first)
    head = "" if len(ordered) == 1 else f"{len(ordered)} inputs cannot be fetched. "
    return kind(head + " ".join(texts), hint=first.hint)


def _offloaded(name: str, literal: Any) -> OffloadedLiteral | None:
    if literal.WhichOneof("value") != "offloaded_metadata":
        return None
    return OffloadedLiteral(path=(name,), uri=literal.offloaded_metadata.uri)
