"""Optional dependencies: the error for a missing one says what needs it and how to get it.

Standard library only; travels to containers that do not have the package installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingDependencyError

__all__ = ["requires"]


@contextmanager
def requires(package: str, purpose: str, *, hint: str) -> Iterator[None]:
    """Turn a failed import in the `with` block into an error that names the package to install.

    Args:
        package: Its name on the package index.
        purpose: What needs it, as the beginning of a sentence.
        hint: How to get it, and what works without it.

    Raises:
        MissingDependencyError: If something in the block cannot be imported.

    Example:
        ```python
        with requires("pyarrow", "Reading Parquet files", hint=install_command("batch")):
            import pyarrow
        ```
    """
    try:
        yield
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs the package {package}, which cannot be imported: {error}.", hint=hint
        ) from error
