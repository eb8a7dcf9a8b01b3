"""The programs' modules as one deterministic text that travels in a pod spec, and the few lines that start them there.

For images that lack this package, such as the documented default of the input downloader. The text is a zip archive
(without compression: zlib's output differs between builds), compressed by bzip2 (whose output does not), in base64
(which survives Flyte's `{{.x}}` and Kubernetes' `$(X)` rewriting).
"""

from __future__ import annotations

import functools
from pathlib import Path

from ..programs.protocol import PROGRAMS_VARIABLE

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
runpy.run_module("{_NAME.replace("/", ".")}.programs." + sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Given to `python -c`, with the program's name and its arguments behind it.

The archive stays: the model loader starts Python anew from it, for each look at its source. SIGTERM: `sigterm`.
"""


@functools.lru_cache
def programs_bundle(program: str) -> str:
    """Return one program, with all it imports of ours, as base64 text; the same bytes for the same sources everywhere.

    Args:
        program: Its name, such as `download_inputs`.
    """
    import base64  # here and below: `import flytekit` imports this module, and hardly ever needs these
    import bz2

    namespace = f"{_NAME.partition('/')[0]}/"  # zipimport finds a namespace package only by its folder's own entry
    sources = {namespace: b"", f"{_NAME}/__init__.py": b"", f"{_NAME}/errors.py": (_PACKAGE / "errors.py").read_bytes()}
    for name, source in sorted(_modules(program).items()):
        sources[f"{_NAME}/programs/{name}.py"] = source
    return base64.b64encode(bz2.compress(_archive(sources))).decode("ascii")


def _modules(program: str) -> dict[str, bytes]:
    """Return the source of `program` and of each module beside it that it imports, anywhere, by name.

    So a program reaches what is ours by `from .name import` or `from . import name` and in no other way, even a module
    that it starts as a process of its own.
    """
    import ast

    found: dict[str, bytes] = {}
    wanted = ["__init__", program]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = (_PACKAGE / "programs" / f"{name}.py").read_bytes()
            imports = (node for node in ast.walk(ast.parse(found[name])) if isinstance(node, ast.ImportFrom))
            beside = [node for node in imports if node.level == 1]
            wanted += [node.module for node in beside if node.module]
            wanted += [alias.name for node in beside if not node.module for alias in node.names]
    return found


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
