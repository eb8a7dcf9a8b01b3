"""What is said when an optional dependency is missing: for what it is needed and how to get it."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import flytekitplugins.inference
from flytekitplugins.inference.dependencies import requires
from flytekitplugins.inference.distribution import install_command
from flytekitplugins.inference.errors import MissingDependencyError

ROOT = Path(flytekitplugins.inference.__file__).parent
OURS = {"flytekitplugins", "__future__"}
NOT_GUARDED = {
    "client/report/charts.py": {"matplotlib"},  # the page asks first, and says what to install
    "programs/stores/hub_store.py": {"hf_xet"},  # without it, files come by HTTP
}
ALWAYS_THERE = {"flyteidl", "fsspec", "google", "msgpack", "urllib3"}
"""What flytekit brings, and what comes with requests and botocore."""


def unguarded_imports(path: Path) -> Iterator[str]:
    """Yield the third-party packages that a module imports, and never within `requires`."""
    guarded: set[str] = set()
    others: set[str] = set()

    def walk(node: ast.AST, is_guarded: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                (guarded if is_guarded else others).update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and not child.level:
                (guarded if is_guarded else others).add(child.module or "")
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for statement in child.orelse:
                    walk(statement, is_guarded)
            else:
                is_here = isinstance(child, ast.With) and any(
                    ast.unparse(item.context_expr).startswith("requires(") for item in child.items
                )
                walk(child, is_guarded or is_here)

    walk(ast.parse(path.read_text()), False)
    roots = {name.partition(".")[0] for name in others}
    yield from roots - {name.partition(".")[0] for name in guarded} - OURS - sys.stdlib_module_names


@pytest.mark.parametrize(
    "path",
    [
        path
        for room in ("client", "programs", "local")
        for path in sorted((ROOT / room).rglob("*.py"))
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_optional_import_says_what_to_install(path: Path) -> None:
    allowed = NOT_GUARDED.get(path.relative_to(ROOT).as_posix(), set()) | ALWAYS_THERE
    assert set(unguarded_imports(path)) <= allowed


def test_the_search_sees_an_import_that_is_not_guarded(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n    import pyarrow.parquet\n    from pandas import DataFrame\n")
    assert set(unguarded_imports(path)) == {"pyarrow", "pandas"}


MISSING = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from flytekitplugins.inference.errors import MissingDependencyError
try:
    {call}
except MissingDependencyError as error:
    print(error)
"""
ENDPOINT = "__import__('flytekitplugins.inference.client.endpoint', fromlist=['*']).Endpoint"


@pytest.mark.parametrize(
    ("name", "call", "purpose", "install"),
    [
        (
            "pyarrow",
            "from flytekitplugins.inference.client.batch.rows import open_rows as f; "
            "f({parquet!r})",
            "A Parquet file needs the package pyarrow",
            install_command("batch"),
        ),
        (
            "pyarrow",
            "from flytekitplugins.inference.client.batch.output import open_output as f; "
            "from pathlib import Path; f(Path({parquet!r}).with_name('new.parquet'))",
            "A Parquet file needs the package pyarrow",
            install_command("batch"),
        ),
        (
            "jsonschema",
            "from flytekitplugins.inference.client.batch import structured as f; "
            "f(dict(type='object'))",
            "Validating by a JSON schema needs the package jsonschema",
            install_command("batch"),
        ),
        (
            "openai",
            ENDPOINT + "(url='http://h', protocol='openai').client()",
            "client() of a server that speaks OpenAI's API needs the package openai",
            install_command("openai"),
        ),
        (
            "tritonclient",
            ENDPOINT + "(url='http://h', protocol='v2').async_client()",
            "needs the package tritonclient[http]",
            install_command("open-inference"),
        ),
        (
            "aiohttp",
            ENDPOINT + "(url='http://h').batch([1], work=__import__('"
            "flytekitplugins.inference.client.batch', fromlist=['*']).chat())",
            "batch(…) needs the package aiohttp",
            "pip install aiohttp",
        ),
    ],
    ids=lambda value: value if str(value).isidentifier() else "",
)
def test_the_error_names_purpose_package_and_command(
    name: str, call: str, purpose: str, install: str, tmp_path: Path
) -> None:
    parquet = tmp_path / "rows.parquet"
    parquet.touch()
    code = MISSING.format(name=name, call=call.replace("{parquet!r}", repr(str(parquet))))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert purpose in done.stdout
    assert f"No module named '{name}" in done.stdout
    assert f"Hint: {install}" in done.stdout


def test_what_else_fails_in_the_block_is_left_alone() -> None:
    with pytest.raises(ValueError, match="other"), requires("x", "It", hint="no"):
        raise ValueError("other")


def test_an_error_that_says_it_already_is_kept() -> None:
    inner = MissingDependencyError("A needs b.", hint="pip install b")
    with pytest.raises(MissingDependencyError) as caught, requires("x", "It", hint="no"):
        raise inner
    assert caught.value is inner
