"""The programs' modules as one deterministic text that travels in a pod spec, and its bootstrap.

For images that lack this package, such as the documented default of the input downloader. The text
is a zip archive (without compression: zlib's output differs between builds), compressed by bzip2
(whose output does not), in base64 (which survives Flyte's `{{.x}}` and Kubernetes' `$(X)`
rewriting).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..programs.protocol import PROGRAMS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BOOTSTRAP", "programs_bundle"]

_PACKAGE = Path(__file__).parent.parent
_NAME = "flytekitplugins/inference"

BOOTSTRAP = f"""\
import os, signal
signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
import base64, bz2, runpy, sys, tempfile
archive = os.path.join(tempfile.mkdtemp(), "programs.zip")
with open(archive, "wb") as file:
    file.write(bz2.decompress(base64.b64decode(os.environ["{PROGRAMS_VARIABLE}"])))
sys.path.insert(0, archive)
sys.argv.pop(0)
runpy.run_module("{_NAME.replace("/", ".")}.programs." + sys.argv[0], \
run_name="__main__", alter_sys=True)
"""
"""Given to `python -c`, with the program's name and its arguments behind it.

The archive stays: the model loader starts Python anew from it, for each look at its source.
SIGTERM: `sigterm`.
"""


@functools.lru_cache
def programs_bundle(program: str) -> str:
    """Return one program, with all it imports of ours, as base64 text.

    The same sources give the same text everywhere.

    Args:
        program: Its name, such as `download_inputs`.
    """
    # here and below: `import flytekit` imports this module, and hardly ever needs these
    import base64
    import bz2

    # zipimport finds a namespace package only by its folder's own entry
    namespace = f"{_NAME.partition('/')[0]}/"
    sources = {namespace: b"", f"{_NAME}/__init__.py": b""}
    for path in sorted(_modules(program)):
        sources[f"{_NAME}/{path.relative_to(_PACKAGE).as_posix()}"] = _code(path)
    return base64.b64encode(bz2.compress(_archive(sources))).decode("ascii")


def _modules(program: str) -> set[Path]:
    """Return the file of `program` and of each module of ours that it imports, anywhere.

    So a program reaches what is ours by a relative import and in no other way, even a module that
    it starts as a process of its own.
    """
    modules: set[Path] = set()
    pending = [_PACKAGE / "programs" / f"{program}.py"]
    while pending:
        path = pending.pop()
        if path not in modules:
            modules.add(path)
            pending += [*_imports(path), *_packages(path)]
    return modules


def _imports(path: Path) -> Iterator[Path]:
    """Yield the file of each module that the module at `path` imports relatively."""
    import ast

    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            places = [base, *(base / alias.name for alias in node.names)]
            yield from (file for place in places if (file := _file(place)))


def _file(place: Path) -> Path | None:
    """Return the file of the module or package at `place`; `None` for another name, or the root."""
    files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return next((file for file in files if file.is_file() and place != _PACKAGE), None)


def _packages(path: Path) -> Iterator[Path]:
    """Yield the `__init__.py` of each package that the module at `path` lies in, but the root's."""
    inner = path.relative_to(_PACKAGE).parents
    return (_PACKAGE / package / "__init__.py" for package in inner if package.name)


def _code(path: Path) -> bytes:
    """Return a module's source with blank lines where docstrings stand.

    Every pod carries it, and a third of it is docstrings; a traceback's line numbers stay true.
    """
    import ast

    source = path.read_bytes()
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and len(body) > 1:
            for docstring in filter(_is_docstring, body):
                count = docstring.end_lineno - docstring.lineno + 1
                lines[docstring.lineno - 1 : docstring.end_lineno] = [b"\n"] * count
    return b"".join(lines)


def _is_docstring(node: Any) -> bool:
    """Whether a statement is a text alone: of a module, class or function, or below a field."""
    import ast

    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(node.value.value, str)


def _archive(sources: dict[str, bytes]) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, source in sources.items():
            entry = zipfile.ZipInfo(name)  # dated 1980-01-01, whatever the file's time is
            entry.create_system = 3  # Unix, on every platform
            archive.writestr(entry, source)
    return buffer.getvalue()
