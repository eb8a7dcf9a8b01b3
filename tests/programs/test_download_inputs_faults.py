"""Stores that fail for a while, sources that change, kills at any moment, and reruns."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flyteidl.core import literals_pb2

from patience import patient, wait_for

InputsPb = Callable[..., str]
PART = 16 * 1024 * 1024
LARGE = random.Random(0).randbytes(5 * PART + 12345)
SMALL = LARGE[:1_000_000]
HEAD = 256 * 1024


def _blob(uri: str) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.scalar.blob.uri = uri
    return literal


def test_a_small_file_takes_one_request(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", LARGE[:HEAD])
    assert download(inputs_pb(x=_blob(web.url("x")))).files == {"x/x": LARGE[:HEAD]}
    assert web.requests == [("x", f"bytes=0-{HEAD - 1}")]


@pytest.mark.parametrize("fault", ["500", "502", "503", "429", "408", "reset", "truncate"])
def test_what_passes_is_tried_again(
    fault: str, web: Any, inputs_pb: InputsPb, download: Any
) -> None:
    web.put("x", SMALL)
    web.faults["x"] = ["503", "", fault, fault, fault]
    ended = download(inputs_pb(x=_blob(web.url("x"))))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": SMALL}
    assert web.count("x") >= 5


def test_a_lost_connection_goes_on_where_it_was(
    web: Any, inputs_pb: InputsPb, download: Any
) -> None:
    web.put("x", LARGE[:PART])
    web.faults["x"] = ["", "truncate", "truncate"]
    ended = download(inputs_pb(x=_blob(web.url("x"))))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": LARGE[:PART]}
    starts = [int(asked[6:].split("-")[0]) for path, asked in web.requests][1:]
    assert starts == sorted(starts)
    assert starts[1] >= PART // 2 - 2**20
    assert starts[2] >= PART * 3 // 4 - 2**20


def test_a_server_without_ranges_begins_again(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.ranges = False
    web.put("x", SMALL)
    web.faults["x"] = ["", "reset", "truncate"]
    ended = download(inputs_pb(x=_blob(web.url("x"))))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": SMALL}


def test_an_answer_with_other_bytes_than_asked_for_is_not_stored(
    web: Any, s3: Any, inputs_pb: InputsPb, download: Any
) -> None:
    web.put("bucket/x", LARGE)
    web.headers["bucket/x"] = {"Content-Range": f"bytes 0-{HEAD - 1}/{len(LARGE)}"}
    environ = {**s3.environ, "FLYTE_AWS_ENDPOINT": web.url("")[:-1]}
    for uri in (web.url("bucket/x"), "s3://bucket/x"):
        ended = download(inputs_pb(x=_blob(uri)), "--attempts", "2", **environ)
        assert (ended.code, ended.message["error"]) == (69, "SourceUnavailableError")
        assert "sent other bytes than it was asked for" in ended.message["message"]
        assert ended.files == {}


def test_a_redirection_that_never_ends(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.faults["x"] = ["302"] * 99
    ended = download(inputs_pb(x=_blob(web.url("x"))), "--backoff", "20")
    assert (ended.code, ended.message["error"]) == (74, "FetchError")
    assert "is redirected again and again" in ended.message["message"]


def test_a_stall_is_noticed(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", SMALL)
    web.faults["x"] = ["", "stall"]
    ended = download(inputs_pb(x=_blob(web.url("x"))), "--stall-timeout", "0.5")
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": SMALL}


@pytest.mark.parametrize(("fault", "code"), [("404", 66), ("403", 77), ("400", 74), ("501", 74)])
def test_what_stays_is_not_tried_again(
    fault: str, code: int, web: Any, inputs_pb: InputsPb, download: Any
) -> None:
    web.put("x", SMALL)
    web.faults["x"] = [fault] * 9
    assert download(inputs_pb(x=_blob(web.url("x")))).code == code
    assert web.count("x") == 1


def test_tries_are_bounded(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", SMALL)
    web.faults["x"] = ["", *["truncate"] * 99]
    web.ranges = False
    ended = download(inputs_pb(x=_blob(web.url("x"))), "--attempts", "3")
    assert (ended.code, ended.message["error"]) in (
        (69, "SourceUnavailableError"),
        (74, "IntegrityError"),
    )
    assert ended.message["message"].startswith("x: ")
    assert web.count("x") == 1 + 3
    assert ended.files == {}


def test_s3_throttling(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    """The web server speaks enough S3 for one object."""
    web.put("bucket/x", SMALL)
    web.faults["bucket/x"] = ["503", "", "503", "truncate", "reset"]
    environ = {
        "FLYTE_AWS_ENDPOINT": web.url("")[:-1],
        "FLYTE_AWS_ACCESS_KEY_ID": "k",
        "FLYTE_AWS_SECRET_ACCESS_KEY": "s",
    }
    ended = download(inputs_pb(x=_blob("s3://bucket/x")), **environ)
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": SMALL}


def test_a_source_that_is_replaced_meanwhile(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    """The answer is held back until the file is replaced; what arrives is the new file, whole."""
    web.put("x", LARGE)
    web.faults["x"] = ["", *["hold"] * 6]
    process = download.start(inputs_pb(x=_blob(web.url("x"))), "--jobs", "2")
    wait_for(lambda: web.count("x") >= 3 or process.poll() is not None)
    assert process.poll() is None
    new = LARGE[::-1]
    web.put("x", new)
    web.gate.set()
    ended = download.wait(process)
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": new}


def test_a_source_that_never_rests(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", SMALL)

    class Restless(dict):  # type: ignore[type-arg]
        def get(self, path: str, default: Any = None) -> Any:
            return {"ETag": f'"{len(web.requests)}"'}

    web.headers = Restless()
    ended = download(inputs_pb(x=_blob(web.url("x"))))
    assert (ended.code, ended.message["error"]) == (74, "IntegrityError")
    assert "was replaced while it was read" in ended.message["message"]


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_at_any_moment(seed: int, web: Any, inputs_pb: InputsPb, download: Any) -> None:
    """A rerun ends with the right bytes and asks at most for the parts that were not complete."""
    web.put("x", LARGE)
    web.put("y", SMALL)
    web.bytes_per_second = 15e6
    uri = inputs_pb(x=_blob(web.url("x")), y=_blob(web.url("y")))
    process = download.start(uri, "--jobs", "3")
    time.sleep(random.Random(seed).uniform(0.2, 1.4))
    process.send_signal(signal.SIGKILL)
    process.wait()
    root = download.root
    assert not (root / "shared" / "inputs.json").exists() or process.returncode == 0
    for path in (root / "inputs").glob("?/*"):
        assert path.read_bytes() == web.files[path.name]
    journal = root / "inputs" / ".incoming" / "journal"
    lines = journal.read_text().splitlines() if journal.exists() else []
    complete = {int(line.split()[3]) for line in lines if line.startswith("part ")}
    web.requests.clear()
    web.bytes_per_second = 0
    ended = download.wait(download.start(uri))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": LARGE, "y/y": SMALL}
    # By their ends, which differ: six parts of x and one of y. Of the killed run only unfinished
    # ones may still arrive.
    ends = {int(asked.rpartition("-")[2]) + 1 for _, asked in web.requests} - {1, HEAD}
    assert ends == {*range(PART, 5 * PART + 1, PART), len(LARGE), len(SMALL)} - complete
    assert list((root / "inputs" / ".incoming").glob("*.partial")) == []


def test_a_kill_and_a_new_source(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", LARGE)
    web.bytes_per_second = 40e6
    uri = inputs_pb(x=_blob(web.url("x")))
    process = download.start(uri, "--jobs", "3")
    journal = download.root / "inputs" / ".incoming" / "journal"
    wait_for(
        lambda: (journal.exists() and "part" in journal.read_text()) or process.poll() is not None
    )
    assert process.poll() is None
    process.kill()
    process.wait()
    web.bytes_per_second = 0
    web.put("x", LARGE[::-1])
    ended = download(uri)
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": LARGE[::-1]}


def test_sigterm_ends_it_within_a_second(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", LARGE)
    web.put("y", SMALL)
    web.faults["x"] = ["", *["hold"] * 9]
    process = download.start(
        inputs_pb(x=_blob(web.url("x")), y=_blob(web.url("y"))), "--stall-timeout", str(patient(30))
    )
    wait_for(lambda: web.count("x") >= 3 or process.poll() is not None)
    assert process.poll() is None
    sent = time.monotonic()
    process.terminate()
    ended = download.wait(process)
    assert time.monotonic() - sent < patient(1.0)
    assert ended.code == 143
    assert "Traceback" not in ended.stderr
    assert (
        not (download.root / "shared").exists() or list((download.root / "shared").iterdir()) == []
    )
    assert set(ended.files) <= {"y/y"}


def test_sigterm_while_it_waits_to_try_again(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", SMALL)
    web.faults["x"] = ["503"] * 99
    process = download.start(inputs_pb(x=_blob(web.url("x"))), "--backoff", "20")
    wait_for(lambda: web.count("x") or process.poll() is not None)
    assert process.poll() is None
    time.sleep(0.2)
    sent = time.monotonic()
    process.terminate()
    assert download.wait(process).code == 143
    assert time.monotonic() - sent < patient(1.0)


def test_a_rerun_changes_nothing_and_fetches_nothing(
    web: Any, inputs_pb: InputsPb, download: Any
) -> None:
    uri = inputs_pb(x=_blob(web.put("x", LARGE)), y=_blob(web.put("y", b"")))
    first = download(uri)
    before = {path: path.stat().st_mtime_ns for path in Path(first.root, "inputs").glob("?/*")}
    web.requests.clear()
    second = download(uri)
    assert (second.code, second.inputs) == (0, first.inputs)
    assert web.count("x") == 1  # a look
    del before[
        Path(first.root, "inputs/y/y")
    ]  # an empty file has no first byte to bring a version with
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_file_that_somebody_changed_is_fetched_again(
    web: Any, inputs_pb: InputsPb, download: Any
) -> None:
    uri = inputs_pb(x=_blob(web.put("x", SMALL)))
    path = Path(download(uri).inputs["x"])
    path.write_bytes(SMALL[::-1])
    assert download(uri).files == {"x/x": SMALL}


def test_an_earlier_runs_files_leave_a_directory(
    tmp_path: Path, inputs_pb: InputsPb, download: Any
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "er" / "old").write_text("old")
    literal = _blob(str(tmp_path / "tree"))
    literal.scalar.blob.metadata.type.dimensionality = 1
    uri = inputs_pb(t=literal)
    assert list(download(uri).files) == ["t/tree/deep/er/old"]
    (tmp_path / "tree" / "deep" / "er" / "old").rename(tmp_path / "tree" / "new")
    assert list(download(uri).files) == ["t/tree/new"]
    assert [path.name for path in (tmp_path / "inputs" / "t" / "tree").iterdir()] == ["new"]


def test_what_was_a_directory_becomes_a_file_and_back(
    tmp_path: Path, inputs_pb: InputsPb, download: Any
) -> None:
    literal = literals_pb2.Literal()
    literal.scalar.structured_dataset.uri = str(tmp_path / "t")
    uri = inputs_pb(t=literal)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "x").write_text("in")
    assert download(uri).files == {"t/t/x": b"in"}
    (tmp_path / "t" / "x").unlink()
    (tmp_path / "t").rmdir()
    (tmp_path / "t").write_text("file")
    assert download(uri).files == {"t/t": b"file"}
    (tmp_path / "t").unlink()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "x").write_text("in")
    assert download(uri).files == {"t/t/x": b"in"}


def test_planted_links_are_not_followed(
    web: Any, tmp_path: Path, inputs_pb: InputsPb, download: Any
) -> None:
    """Other containers write to the same volume."""
    (tmp_path / "outside").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "inputs" / "y").mkdir(parents=True)
    (tmp_path / "inputs" / "x").symlink_to(tmp_path / "outside")
    (tmp_path / "inputs" / "y" / "y").symlink_to(victim)
    ended = download(inputs_pb(x=_blob(web.put("x", b"x")), y=_blob(web.put("y", b"y"))))
    assert ended.code == 0, ended.stderr
    assert ended.files == {"x/x": b"x", "y/y": b"y"}
    assert list((tmp_path / "outside").iterdir()) == []
    assert victim.read_text() == "mine"


def test_progress_is_told(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", SMALL)
    web.faults["x"] = ["", "hold"]
    process = download.start(inputs_pb(x=_blob(web.url("x"))), "--stall-timeout", str(patient(20)))
    first = process.stderr.readline()
    web.gate.set()
    lines = [first, *download.wait(process).stderr.splitlines()]
    assert lines[0].startswith(
        f"download_inputs progress files=0/1 bytes={HEAD} total_bytes=1000000 bytes_per_second="
    )
    assert lines[-1].startswith("download_inputs done files=1 bytes=1000000 seconds=")
