"""What this distribution is called, which version it is, and how to get it.

Standard library only, and read by every layer. `pyproject.toml` takes the version from here.
"""

from __future__ import annotations

__all__ = ["NAME", "__version__", "install_command"]

NAME = "flytekitplugins-inference"
"""The name on the package index, which has the versions below 2 from another product: flytekit's own plugin."""

__version__ = "2.0.0"


def install_command(*extras: str) -> str:
    """Return the command that installs what some extras of this package need.

    The bound keeps pip from answering with version 1 of the name. Where this package is installed already, pip installs
    the libraries of the extras and leaves the package as it is.

    Args:
        extras: Their names, as in `pyproject.toml`.
    """
    return f"pip install '{NAME}[{','.join(extras)}]>={__version__.partition('.')[0]}'"
