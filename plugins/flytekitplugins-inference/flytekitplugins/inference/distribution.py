"""The name and version of this distribution, how to get it, and whether its files are its own.

Standard library only, and read by every layer. `pyproject.toml` takes the version from here.
"""

from __future__ import annotations

import sys

__all__ = ["NAME", "__version__", "foreign_files", "install_command"]

NAME = "flytekitplugins-inference"
"""The name on the package index, which has the versions below 2 from another product: flytekit's
own plugin."""

__version__ = "2.0.0"


def install_command(*extras: str) -> str:
    """Return the command that installs what some extras of this package need.

    The bound keeps pip from answering with version 1 of the name. Where this package is installed
    already, pip installs the libraries of the extras and leaves the package as it is.

    Args:
        extras: Their names, as in `pyproject.toml`.
    """
    return f"pip install '{NAME}[{','.join(extras)}]>={__version__.partition('.')[0]}'"


def foreign_files() -> str:
    """Return a message if files of flytekit's own plugin replaced ours, else an empty text.

    Both distributions have `__init__.py`, `sidecar_template.py` and the packages of three servers
    in the same folder. pip removes one before it installs the other; `--ignore-installed`, image
    layers and copied folders do not, and removing one of two then removes files of the other.
    Called only after an import has failed, because it reads a directory.
    """
    from pathlib import Path

    folder = Path(__file__).parent
    site = folder.parents[1]
    others = [path.name for path in sorted(site.glob(f"{NAME.replace('-', '_')}-*.dist-info"))]
    others = [
        name for name in others if name != f"{NAME.replace('-', '_')}-{__version__}.dist-info"
    ]
    root = sys.modules[__package__]
    if not others and getattr(root, "__version__", None) == __version__:
        return ""
    detail = f" ({', '.join(others)} is there too)" if others else ""
    return (
        f"Files of {NAME} {__version__} in {folder} are missing, or replaced by another version's "
        f"or by those of flytekit's own plugin of this name{detail}. Hint: Remove all of it, then "
        f"install this package again: pip uninstall {NAME}, as often as it finds something; delete "
        f"{folder}; pip install the wheel."
    )
