"""Whether a start can succeed: `load_model --check` as a process, against the loader's sources."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.errors import SourceUnavailableError
from flytekitplugins.inference.programs.retry import Retry
from patience import patient, wait_for

pytest.importorskip("huggingface_hub")

MIB = 1024 * 1024
LARGE = random.Random(5).randbytes(17 * MIB)  # two parts; what is larger than one comes by ranges
FILES = {"config.json": b"{}", "model.bin": LARGE}
ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
REVISION = "api/models/owner/name/revision/main"


def tree(*places: Path) -> list[tuple[str, int, int]]:
    """Return everything below `places`, with the times at which it was written to."""
    found = (path for place in places for path in (place, *place.rglob("*")) if path.exists())
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in found)


@pytest.fixture
def check(load: Any, tmp_path: Path) -> Any:
    """Run the check; what the loader writes is as it was afterwards."""

    def run(*arguments: str, **environ: str) -> Any:
        places = (tmp_path / "models", tmp_path / "cache", tmp_path / "loras")
        before = tree(*places)
        done = load.wait(load.start("--check", *arguments, **environ))
        assert tree(*places) == before
        return done

    return run


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """The cache as another mount, which nobody can write."""
    place = tmp_path / "read-only"
    place.mkdir()
    (tmp_path / "cache").mkdir(exist_ok=True)
    commands = [
        ["mount", "--bind", str(tmp_path / "cache"), str(place)],
        ["mount", "-o", "remount,bind,ro", str(place)],
    ]
    if any(
        subprocess.run(command, capture_output=True, check=False).returncode for command in commands
    ):
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


# It can succeed


def test_a_check_downloads_nothing_and_writes_nothing(hub: Any, check: Any) -> None:
    sha = hub.commit(FILES)
    done = check("owner/name", **hub.environ)
    assert done.code == 0, done.stderr
    assert f"revision={sha} cache=False missing_bytes={len(LARGE) + 2}" in done.stderr
    assert f"check passed missing_bytes={len(LARGE) + 2}" in done.stderr
    assert (hub.stored(LARGE), "bytes=0-0") in hub.web.requests
    assert hub.web.sent == {**hub.web.sent, hub.stored(LARGE): 1}
    assert hub.stored(b"{}") not in hub.web.sent


def test_the_patterns_of_the_run_are_those_of_the_check(hub: Any, check: Any) -> None:
    hub.commit(FILES)
    assert "missing_bytes=2" in check("owner/name", "--include", "*.json", **hub.environ).stderr
    done = check("owner/name", "--include", "model.gguf", **hub.environ)
    assert (done.code, done.message["error"]) == (66, "SourceNotFoundError")
    assert "'model.gguf'" in done.message["message"]


@pytest.mark.parametrize("path", [REVISION, "resolve"])
def test_a_fault_of_the_network_is_no_reason_to_fail(hub: Any, check: Any, path: str) -> None:
    hub.commit(FILES)
    hub.web.faults[hub.stored(LARGE) if path == "resolve" else path] = ["503", "reset"]
    done = check("owner/name", **hub.environ)
    assert done.code == 0, done.stderr


def test_a_model_adapters_and_variables_are_one_check(hub: Any, check: Any, tmp_path: Path) -> None:
    hub.commit(FILES)
    hub.commit(ADAPTER, repository="alice/sql")
    places = ("--adapter", "sql=alice/sql", "--adapters-directory", str(tmp_path / "loras"))
    done = check(
        "owner/name", *places, "--require-env", "HF_TOKEN", HF_TOKEN="hf_geheim", **hub.environ
    )
    assert done.code == 0, done.stderr
    assert f"check passed missing_bytes={len(LARGE) + 2 + 9}" in done.stderr
    assert "hf_geheim" not in done.stderr


def test_an_input_of_the_task_is_not_there_to_be_checked(hub: Any, check: Any) -> None:
    hub.commit(ADAPTER)
    done = check(
        "input:model", "--adapter", "a=owner/name", "--adapters-directory", "loras", **hub.environ
    )
    assert done.code == 0, done.stderr
    assert "unchecked target=model reason='the inputs of the task are not here yet'" in done.stderr
    assert "checked target=a " in done.stderr


def test_objects_of_a_store_are_checked(s3: Any, check: Any) -> None:
    s3.put("check/model.bin", b"weights")
    done = check("s3://bucket/check", **s3.environ)
    assert done.code == 0, done.stderr
    assert "check passed missing_bytes=7" in done.stderr


# The cache


def test_a_pinned_commit_in_a_cache_that_cannot_be_written_needs_no_network(
    hub: Any, load: Any, check: Any, read_only: Path
) -> None:
    sha = hub.commit(FILES)
    load(f"owner/name@{sha}", **hub.environ)
    asked = len(hub.web.requests)
    done = check(
        f"owner/name@{sha}",
        "--cache",
        str(read_only),
        **{**hub.environ, "HF_ENDPOINT": "http://127.0.0.1:9"},
    )
    assert done.code == 0, done.stderr
    assert f"revision={sha} cache=True missing_bytes=0" in done.stderr
    assert len(hub.web.requests) == asked


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    hub: Any, check: Any, read_only: Path
) -> None:
    hub.commit(FILES)
    done = check("owner/name", "--cache", str(read_only), **hub.environ)
    assert done.code == 0, done.stderr
    assert list(read_only.iterdir()) == []


def test_a_branch_that_the_cache_has_passes_while_the_hub_is_away(
    hub: Any, load: Any, check: Any
) -> None:
    sha = hub.commit(FILES)
    load("owner/name", **hub.environ)
    done = check("owner/name", **{**hub.environ, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.code == 0, done.stderr
    assert f"offline revision={sha}" in done.stderr


def test_a_complete_revision_is_not_read_again(hub: Any, load: Any, check: Any) -> None:
    hub.commit(FILES)
    load("owner/name", **hub.environ)
    hub.web.requests.clear()
    assert "cache=True missing_bytes=0" in check("owner/name", **hub.environ).stderr
    assert {path.split("/")[0] for path, _ in hub.web.requests} == {"api"}


def test_what_a_killed_download_has_brought_is_not_missing(hub: Any, load: Any, check: Any) -> None:
    files = {"model-1.bin": LARGE, "model-2.bin": LARGE[: 2 * MIB]}
    hub.commit(files)
    hub.web.bytes_per_second = 4 * MIB
    process = load.start(
        "owner/name", "--once", "--jobs", "1", stderr=subprocess.DEVNULL, **hub.environ
    )
    wait_for(lambda: hub.web.sent.get(hub.stored(LARGE), 0) >= 4 * MIB, 30)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = check("owner/name", **hub.environ)
    # the file under way has all its blocks already
    assert f"check passed missing_bytes={2 * MIB}\n" in done.stderr


# It cannot


@pytest.mark.parametrize(
    ("path", "status", "code", "token", "expected"),
    [
        (REVISION, 401, "RepoNotFound", "", (66, "SourceNotFoundError", "HF_TOKEN")),
        (REVISION, 401, "", "hf_x", (77, "SourceForbiddenError", "HF_TOKEN")),
        (REVISION, 404, "RepoNotFound", "hf_x", (66, "SourceNotFoundError", "spelling")),
        (REVISION, 404, "RevisionNotFound", "hf_x", (66, "RevisionNotFoundError", "branch")),
        (REVISION, 403, "GatedRepo", "hf_x", (77, "GatedModelError", "conditions")),
        ("resolve", 401, "GatedRepo", "", (77, "GatedModelError", "conditions")),
        ("resolve", 403, "GatedRepo", "hf_x", (77, "GatedModelError", "conditions")),
        ("stored", 403, "", "hf_x", (77, "SourceForbiddenError", "")),
    ],
)
def test_each_refusal_is_the_error_of_the_run(
    hub: Any,
    load: Any,
    check: Any,
    path: str,
    status: int,
    code: str,
    token: str,
    expected: tuple[int, str, str],
) -> None:
    sha = hub.commit({"config.json": b"{}", "model.bin": LARGE})
    paths = {"resolve": f"owner/name/resolve/{sha}/model.bin", "stored": hub.stored(LARGE)}
    hub.refuse(paths.get(path, path), status, code, "Invalid" if not code else "")
    done = check("owner/name", HF_TOKEN=token, **hub.environ)
    assert (done.code, done.message["error"]) == expected[:2]
    assert expected[2] in done.message["hint"]
    told = done.message
    real = load("owner/name", HF_TOKEN=token, **hub.environ).message
    assert real == {**told, "message": real["message"]}
    assert real["message"].startswith(told["message"])  # and how many other parts failed


def test_a_revision_that_is_not_there_is_told(hub: Any, check: Any) -> None:
    hub.commit(FILES)
    hub.refuse("api/models/owner/name/revision/v9", 404, "RevisionNotFound")
    done = check("owner/name@v9", **hub.environ)
    assert (done.code, done.message["error"]) == (66, "RevisionNotFoundError")
    assert "'v9'" in done.message["message"]


def test_all_problems_are_told_at_once(hub: Any, check: Any, small_disk: Path) -> None:
    hub.commit({"README.md": b"no adapter"}, repository="alice/sql")
    hub.commit(FILES)
    hub.refuse("api/models/bob/chat/revision/main", 403, "GatedRepo")
    adapters = ("--adapter", "alice/sql", "--adapter", "bob/chat", "--adapters-directory", "loras")
    done = check("owner/name", *adapters, "--cache", str(small_disk), **hub.environ)
    assert (done.code, done.message["error"]) == (66, "InvalidSourceError")
    for text in (
        "3 problems.",
        "hf://alice/sql is not a LoRA adapter",
        "hf://bob/chat is gated",
        "bytes are needed",
    ):
        assert text in done.message["message"]


@pytest.mark.parametrize(
    ("uri", "text"),
    [("s3://bucket/check-nothing", "nothing below"), ("s3://no-such-bucket/x", "404")],
)
def test_what_a_store_does_not_have_is_told(s3: Any, check: Any, uri: str, text: str) -> None:
    done = check(uri, **s3.environ)
    assert (done.code, done.message["error"]) == (66, "SourceNotFoundError")
    assert text in done.message["message"]


def test_what_a_store_forbids_is_told(web: Any, check: Any) -> None:
    web.answers["bucket"] = (403, {})
    environ = {"FLYTE_AWS_ACCESS_KEY_ID": "key", "FLYTE_AWS_SECRET_ACCESS_KEY": "very-secret"}
    done = check("s3://bucket/model", FLYTE_AWS_ENDPOINT=web.url("").rstrip("/"), **environ)
    assert (done.code, done.message["error"]) == (77, "SourceForbiddenError")
    assert "very-secret" not in done.stderr


def test_objects_that_may_be_listed_but_not_read_are_told(web: Any, check: Any) -> None:
    web.files["bucket"] = (
        b"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>1</KeyCount><Contents><Key>model/model.bin</Key>"
        b"<Size>7</Size><ETag>x</ETag></Contents></ListBucketResult>"
    )
    web.answers["bucket/model/model.bin"] = (403, {})
    environ = {"FLYTE_AWS_ACCESS_KEY_ID": "key", "FLYTE_AWS_SECRET_ACCESS_KEY": "very-secret"}
    done = check("s3://bucket/model", FLYTE_AWS_ENDPOINT=web.url("").rstrip("/"), **environ)
    assert (done.code, done.message["error"]) == (77, "SourceForbiddenError")
    assert "model/model.bin" in done.message["message"]


def test_a_source_that_cannot_be_reached_is_unavailable(hub: Any, check: Any) -> None:
    done = check("owner/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert (done.code, done.message["error"]) == (69, "SourceUnavailableError")
    assert "HF_ENDPOINT" in done.message["hint"]


def test_a_source_that_is_silent_is_unavailable(hub: Any, check: Any) -> None:
    hub.commit(FILES)
    hub.web.faults[REVISION] = ["hold"] * 9
    done = check("owner/name", "--stall-timeout", "1", "--attempts", "2", **hub.environ)
    assert (done.code, done.message["error"]) == (69, "SourceUnavailableError")
    assert hub.web.count(REVISION) == 2


def test_trying_again_has_an_end() -> None:
    tries: list[int] = []

    def action() -> None:
        tries.append(1)
        raise SourceUnavailableError("away")

    with pytest.raises(SourceUnavailableError):
        Retry(backoff_seconds=0.0, until=time.monotonic() - 1).call(action, threading.Event())
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("value", "state"),
    [(None, "is not set"), (" ", "is empty"), ("$(_FSEC_HF_TOKEN)", "still is a reference")],
)
def test_without_its_variables_no_source_is_asked(
    hub: Any, check: Any, value: str | None, state: str
) -> None:
    hub.commit(FILES)
    environ = {} if value is None else {"HF_TOKEN": value}
    done = check("owner/name", "--require-env", "HF_TOKEN", **environ, **hub.environ)
    assert (done.code, done.message["error"]) == (77, "SourceForbiddenError")
    assert f"The environment variable HF_TOKEN {state}" in done.message["message"]
    assert "_FSEC" not in done.stderr
    assert hub.web.requests == []


def test_a_variable_can_be_required_of_a_check_only(load: Any) -> None:
    done = load("owner/name", "--require-env", "HOME")
    assert (done.code, done.message["error"]) == (64, "UsageError")


# Space and memory


def test_too_little_space_is_told(hub: Any, check: Any, small_disk: Path) -> None:
    hub.commit(FILES)
    done = check("owner/name", "--cache", str(small_disk / "not" / "there"), **hub.environ)
    assert (done.code, done.message["error"]) == (74, "DestinationError")
    assert f"{len(LARGE) + 2} bytes are needed" in done.message["message"]
    assert list(small_disk.iterdir()) == []


def test_all_that_will_lie_there_needs_space_together(
    hub: Any, check: Any, small_disk: Path
) -> None:
    hub.commit({"model.bin": bytes(5 * MIB)})
    hub.commit({**ADAPTER, "adapter_model.safetensors": bytes(5 * MIB)}, repository="alice/sql")
    cache = ("--cache", str(small_disk))
    adapter = ("--adapter", "alice/sql", "--adapters-directory", "loras")
    assert check("owner/name", *cache, **hub.environ).code == 0
    assert check(*adapter, *cache, **hub.environ).code == 0
    done = check("owner/name", *adapter, *cache, **hub.environ)
    assert (done.code, done.message["error"]) == (74, "DestinationError")
    assert f"{10 * MIB + 2} bytes are needed" in done.message["message"]


def test_what_the_limit_of_the_cache_removes_is_free(
    hub: Any, load: Any, check: Any, small_disk: Path
) -> None:
    cache = ("--cache", str(small_disk))
    hub.commit({"model.bin": bytes(5 * MIB)})
    assert load("owner/name", *cache, **hub.environ).code == 0
    hub.commit({"model.bin": b"x" * 5 * MIB})
    assert check("owner/name", *cache, **hub.environ).code == 74
    before = tree(small_disk)
    assert check("owner/name", *cache, "--cache-limit", "7Mi", **hub.environ).code == 0
    assert tree(small_disk) == before


def test_too_little_memory_is_told(hub: Any, load: Any, tmp_path: Path) -> None:
    """The machine's memory is made small; test_cgroup.py reads a container's limit."""
    small = tmp_path / "meminfo"
    small.write_text("MemTotal:          16384 kB\n")
    inside = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount --bind {small} /proc/meminfo && exec "$@"',
        "sh",
    ]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    process = load.start("--check", "owner/name", before=inside, **hub.environ)
    done = load.wait(process)
    assert (done.code, done.message["error"]) == (78, "ConfigError"), done.stderr
    assert f"may use {16 * MIB}" in done.message["message"]
    assert hub.web.requests == []


# Its end


def test_sigterm_ends_it_at_once(hub: Any, load: Any) -> None:
    hub.commit(FILES)
    hub.web.faults[REVISION] = ["hold"]
    process = load.start("--check", "owner/name", **hub.environ)
    wait_for(lambda: hub.web.requests, 30)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(patient(10)) == 143
    assert time.monotonic() - begun < patient(1)
    assert not os.path.lexists(load.root / "models")
