"""The report in the Deck: on one machine, and in a container with two flytekits' entry point."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flytekit import FlyteContextManager, task

from flytekitplugins.inference import local
from flytekitplugins.inference.flyte.deck import DECK_NAME
from users import minimal, reported

TESTS = Path(__file__).parent.parent
OLDEST = next(iter(sorted((TESTS.parent / ".venv" / "flytekit").glob("*"))), None)


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("INFERENCE_URL", raising=False)
    yield
    local.stop_idle()
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith("inference-report")
    ]


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Return a function that returns the files of a name that flytekit's sandbox got since."""
    caplog.set_level("INFO", logger="flytekitplugins.inference")
    sandbox = Path(FlyteContextManager.current_context().file_access.local_sandbox_dir)
    before = set(sandbox.rglob("*.html"))
    return lambda name: [path.read_text() for path in set(sandbox.rglob(name)) - before]


Written = Callable[[str], list[str]]


def test_a_task_with_a_deck_has_a_report(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    assert reported.reported() > 0
    (deck,), (page,) = written("deck.html"), written("inference-report.html")
    for text in (deck, page):
        assert "the server was always there." in text
        assert "echo:1" in text
    assert DECK_NAME in deck
    (told,) = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("flytekitplugins")
    ]
    where = Path(told.removeprefix("The report on inference is in "))
    assert where.read_text() == page
    assert (
        json.loads(where.with_suffix(".json").read_text())["servers"][0]["clients"]["answered"] >= 1
    )


def test_a_function_that_raises_has_one_too(written: Written) -> None:
    with pytest.raises(KeyError):
        reported.fails()
    (page,) = written("inference-report.html")
    assert "The function raised KeyError: &#x27;&lt;script&gt;no&lt;/script&gt;&#x27;" in page
    assert "<script" not in page


def test_an_async_function_has_one(written: Written) -> None:
    @task(task_config=minimal.ECHO, enable_deck=True)
    async def asynchronous() -> int:
        return int(minimal.ask(minimal.ECHO)["pid"])

    assert asyncio.run(asynchronous()) > 0
    assert len(written("inference-report.html")) == len(written("deck.html")) == 1


def test_an_async_function_that_raises_has_one_too(written: Written) -> None:
    @task(task_config=minimal.ECHO, enable_deck=True)
    async def asynchronous() -> int:
        if minimal.ask(minimal.ECHO)["pid"]:
            raise ValueError("late")
        return 0

    with pytest.raises(ValueError, match="late"):
        asyncio.run(asynchronous())
    (page,) = written("inference-report.html")
    assert "The function raised ValueError: late" in page


def test_a_task_without_a_deck_pays_nothing(written: Written) -> None:
    assert reported.plain() == ""
    assert not written("*.html")
    code = (
        "import sys; from users import reported; reported.plain()\n"
        "print([name for name in sys.modules if name.startswith('flytekitplugins.inference.') "
        "and ('report' in name or 'deck' in name)])"
    )
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# In a container: the entry point, on files instead of a bucket


def _execute(name: str, tmp_path: Path, path: str = "", **variables: str) -> tuple[Path, str]:
    """Return the output prefix of a task that has run, and what it logged."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "inputs.pb").write_bytes(b"")
    command: list[Any] = [
        sys.executable,
        "-c",
        "from flytekit.bin.entrypoint import execute_task_cmd as run; run()",
    ]
    command += ["--inputs", tmp_path / "inputs.pb", "--output-prefix", out]
    command += ["--raw-output-data-prefix", tmp_path / "raw"]
    command += ["--resolver", "flytekit.core.python_auto_container.default_task_resolver", "--"]
    command += ["task-module", "users.reported", "task-name", name]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (path, str(TESTS)))),
        **variables,
    }
    done = subprocess.run(
        list(map(str, command)), env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out, done.stderr


def _numbers(out: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((out / "inference-report.json").read_text())
    return numbers


@pytest.mark.parametrize("flytekit", ["", str(OLDEST)], ids=["newest", "oldest"])
def test_the_page_and_its_numbers_are_beside_the_outputs(tmp_path: Path, flytekit: str) -> None:
    if flytekit == "None":
        pytest.skip("dev/setup has not installed the oldest flytekit")
    out, _ = _execute("in_pod", tmp_path, flytekit)
    assert {"outputs.pb", "deck.html", "inference-report.json"} <= {
        path.name for path in out.iterdir()
    }
    assert "Inference report" in (out / "deck.html").read_text()
    assert _numbers(out)["servers"][0]["about"]["image"] == "echo:1"
    assert _numbers(out)["error"] == ""


@pytest.mark.parametrize("flytekit", ["", str(OLDEST)], ids=["newest", "oldest"])
def test_they_are_there_when_the_function_raises(tmp_path: Path, flytekit: str) -> None:
    if flytekit == "None":
        pytest.skip("dev/setup has not installed the oldest flytekit")
    out, _ = _execute("fails_in_pod", tmp_path, flytekit)
    assert (out / "error.pb").exists()
    page = (out / "deck.html").read_text()
    assert "The function raised KeyError" in page
    assert "<script>no" not in page
    assert _numbers(out)["error"] == "KeyError: '<script>no</script>'"


def test_the_deck_is_published_while_the_function_runs(tmp_path: Path) -> None:
    from flyteidl.core.literals_pb2 import LiteralMap

    out, _ = _execute("waits_for_deck", tmp_path)
    outputs = LiteralMap()
    outputs.ParseFromString((out / "outputs.pb").read_bytes())
    assert "Running, as of" in outputs.literals["o0"].scalar.primitive.string_value
    assert (
        "Running, as of"
        not in (out / "deck.html")
        .read_text()
        .partition("Inference report")[2]
        .partition("</h1>")[2][:200]
    )


def test_a_report_that_fails_does_not_reach_the_task(tmp_path: Path) -> None:
    out, log = _execute("in_pod", tmp_path, INFERENCE_URL="not an address")
    assert (out / "outputs.pb").exists()
    assert log.count("There is no report on inference.") == 1
    assert not (out / "inference-report.json").exists()
