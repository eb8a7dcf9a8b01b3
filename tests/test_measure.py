"""What dev/names.py refuses and dev/measure.py counts, on packages of a few lines."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "dev" / "names.py"))


def table(package: Path) -> dict[str, str]:
    """Return what dev/measure.py prints for a package that is its own tests."""
    command = [sys.executable, "-m", "dev.measure", str(package), str(package)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.rsplit("  ", 1) for line in done.stdout.splitlines()]
    return {name.strip(): value.strip() for name, value in rows}


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_class_that_stands_twice_is_named_with_both_places(names: Any, tmp_path: Path) -> None:
    package = write(
        tmp_path, a="class Engine: ...\nclass Other: ...", b="def f():\n    class Engine: ..."
    )
    assert names["class_twins"](package) == {"Engine": ["a.py:1", "b.py:2"]}


def test_a_module_that_stands_twice_is_named_unless_each_room_has_it(
    names: Any, tmp_path: Path
) -> None:
    package = write(tmp_path, a__retry="", b__retry="", a__serve="", b__serve="", c="")
    assert names["module_twins"](package) == {"retry.py": ["a/retry.py", "b/retry.py"]}


def test_circles_are_told_by_the_kind_of_their_imports(tmp_path: Path) -> None:
    lazy = "def f():\n    from . import b\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .d import X\n"
    package = write(
        tmp_path, a=lazy, b="from .a import f", c=typed, d="from .c import Y", e="from .a import f"
    )
    rows = table(package)
    assert rows["circles of imports when loaded"] == "0"
    assert rows["circles of imports when loaded + in functions"] == "1 (a b)"
    assert rows["circles of imports when loaded + in functions + for types"] == ("2 (a b; c d)")


def test_sizes_leave_out_docstrings(tmp_path: Path) -> None:
    text = (
        '"""A module."""\n'
        "def f(x: int) -> int:\n"
        '    """Return it.\n\n    At once.\n    """\n'
        "    # why\n"
        "    y = x\n"
        "    return y  # so\n"
        "try:\n    f(1)\nexcept (ValueError, Exception):\n    pass\n"
    )
    rows = table(write(tmp_path, a=text))
    assert rows["lines of a function: median, p95, max"] == "2, 2, 2"
    assert rows["tokens a line of code"] == "4.14"
    assert rows["comments per 1000 lines"] == f"{2000 / 13:.1f}"
    assert rows["broad excepts per 1000 lines"] == f"{1000 / 13:.2f}"
    assert rows["lines of tests ÷ lines of code"] == "1.00"
