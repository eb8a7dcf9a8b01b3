"""What the model loader does when the hub, the network, the disk or its own process fails."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patience import patient, wait_for

pytest.importorskip("huggingface_hub")

MIB = 1024 * 1024
LARGE = random.Random(7).randbytes(40 * MIB)  # three parts
REVISION = "api/models/owner/name/revision/main"


# The hub refuses


@pytest.mark.parametrize(
    ("path", "status", "code", "token", "expected"),
    [
        (REVISION, 401, "RepoNotFound", "", (66, "SourceNotFoundError", "HF_TOKEN")),
        (REVISION, 404, "RepoNotFound", "hf_x", (66, "SourceNotFoundError", "spelling")),
        (REVISION, 404, "RevisionNotFound", "hf_x", (66, "RevisionNotFoundError", "branch")),
        (REVISION, 403, "GatedRepo", "hf_x", (77, "GatedModelError", "conditions")),
        (REVISION, 403, "", "hf_x", (77, "SourceForbiddenError", "HF_TOKEN")),
        ("resolve", 403, "GatedRepo", "hf_x", (77, "GatedModelError", "conditions")),
        ("resolve", 404, "EntryNotFound", "hf_x", (66, "SourceNotFoundError", "")),
    ],
)
def test_each_refusal_is_an_error_of_its_own(
    hub: Any,
    load: Any,
    path: str,
    status: int,
    code: str,
    token: str,
    expected: tuple[int, str, str],
) -> None:
    sha = hub.commit({"model.bin": b"weights"})
    hub.refuse(f"owner/name/resolve/{sha}/model.bin" if path == "resolve" else path, status, code)
    done = load("owner/name", HF_TOKEN=token, **hub.environ)
    assert (done.code, done.message["error"]) == expected[:2]
    assert expected[2] in done.message["hint"]
    assert "owner/name" in done.message["message"]
    assert not (done.root / "models" / ".ready").exists()


def test_a_token_that_the_hub_does_not_accept_is_told_apart(hub: Any, load: Any) -> None:
    hub.refuse(REVISION, 401, message="Invalid credentials in Authorization header")
    done = load("owner/name", HF_TOKEN="hf_very_secret", **hub.environ)
    assert (done.code, done.message["error"]) == (77, "SourceForbiddenError")
    assert "does not accept the token" in done.message["message"]
    assert "hf_very_secret" not in done.stderr


def test_a_file_that_was_asked_for_and_is_not_there_is_named(hub: Any, load: Any) -> None:
    hub.commit({"config.json": b"{}"})
    done = load("owner/name", "--include", "model.gguf", **hub.environ)
    assert done.code == 66
    assert "'model.gguf'" in done.message["message"]
    assert "config.json" in done.message["hint"]


def test_a_hub_that_cannot_be_reached_is_unavailable(load: Any) -> None:
    done = load("owner/name", "--attempts", "2", HF_ENDPOINT="http://127.0.0.1:9")
    assert (done.code, done.message["error"]) == (69, "SourceUnavailableError")


@pytest.mark.parametrize(
    "body", [b"<html>Sign in</html>", b"[]", b"{}", b'{"id": "owner/name"}', b"null"]
)
def test_what_is_no_hub_is_unavailable(hub: Any, load: Any, body: bytes) -> None:
    hub.web.files[REVISION] = body
    done = load("owner/name", "--attempts", "2", **hub.environ)
    assert (done.code, done.message["error"]) == (69, "SourceUnavailableError")
    assert "HF_ENDPOINT" in done.message["hint"]
    assert "Traceback" not in done.stderr


def test_a_tree_that_no_hub_has_is_unavailable(hub: Any, load: Any) -> None:
    sha = hub.commit({"model.bin": b"weights"})
    hub.web.files[f"api/models/owner/name/tree/{sha}"] = b'{"error": "no"}'
    done = load("owner/name", "--attempts", "1", **hub.environ)
    assert (done.code, done.message["error"]) == (69, "SourceUnavailableError")


def test_a_name_that_no_repository_has_is_told(load: Any) -> None:
    assert load("owner/na--me", "--attempts", "1", HF_ENDPOINT="http://127.0.0.1:9").code == 64


@pytest.mark.parametrize("token", ["hf_geheim\n", "  hf_geheim\r\n"])
def test_a_token_may_end_with_a_line_break(hub: Any, load: Any, token: str) -> None:
    hub.commit({"model.bin": b"weights"})
    assert load("owner/name", HF_TOKEN=token, **hub.environ).code == 0
    assert "Bearer hf_geheim" in hub.web.tokens


def test_a_token_with_a_line_break_inside_names_its_variable(hub: Any, load: Any) -> None:
    hub.commit({"model.bin": b"weights"})
    done = load("owner/name", HF_TOKEN="hf_ge\nheim", **hub.environ)
    assert (done.code, done.message["error"]) == (77, "SourceForbiddenError")
    assert "The environment variable HF_TOKEN holds" in done.message["message"]
    assert "heim" not in done.stderr


@pytest.mark.parametrize(
    "uri", ["https://127.0.0.1:9/model/", "http://127.0.0.1:9/model/model.bin"]
)
def test_a_web_server_that_is_away_is_unavailable(uri: str, load: Any) -> None:
    done = load(uri, "--attempts", "2")
    assert (done.code, done.message["error"]) == (69, "SourceUnavailableError")


def test_a_file_of_a_web_server_keeps_its_name(web: Any, load: Any) -> None:
    web.put("models/model.bin", b"weights")
    assert load(web.url("models/model.bin")).files == {"model.bin": b"weights"}
    assert load(web.url("models/none.bin"), "--attempts", "1").code == 66


# The network fails


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "truncate", "corrupt", "hold"])
def test_a_fault_is_overcome(hub: Any, load: Any, fault: str) -> None:
    hub.commit({"config.json": b"{}", "model.bin": LARGE})
    hub.web.faults[hub.stored(LARGE)] = [fault, "", fault] if fault != "corrupt" else [fault]
    if fault == "hold":
        hub.web.gate.set()
    done = load("owner/name", **hub.environ)
    assert done.code == 0, done.stderr
    assert done.files == {"config.json": b"{}", "model.bin": LARGE}


@pytest.mark.parametrize("path", [REVISION, "tree"])
@pytest.mark.parametrize("fault", ["500", "reset", "truncate"])
def test_a_fault_of_the_interface_is_overcome(hub: Any, load: Any, path: str, fault: str) -> None:
    sha = hub.commit({"config.json": b"{}"})
    hub.web.faults[REVISION if path == REVISION else f"api/models/owner/name/tree/{sha}"] = [fault]
    assert load("owner/name", **hub.environ).files == {"config.json": b"{}"}


def test_a_stall_is_noticed_and_tried_again_with_fewer_connections(hub: Any, load: Any) -> None:
    hub.commit({"model.bin": LARGE})
    hub.web.faults[hub.stored(LARGE)] = ["stall"] * 3
    begun = time.monotonic()
    done = load("owner/name", "--stall-timeout", "1", **hub.environ)
    assert done.files == {"model.bin": LARGE}
    assert "slower connections=4" in done.stderr
    assert time.monotonic() - begun < patient(20)


def test_a_trickle_is_a_stall(hub: Any, load: Any) -> None:
    hub.commit({"model.bin": LARGE})
    hub.web.faults[hub.stored(LARGE)] = ["trickle"]
    begun = time.monotonic()
    assert load("owner/name", "--stall-timeout", "1", **hub.environ).files == {"model.bin": LARGE}
    assert time.monotonic() - begun < patient(20)


def test_a_hub_that_is_silent_is_noticed(hub: Any, load: Any) -> None:
    hub.commit({"config.json": b"{}"})
    hub.web.faults[REVISION] = ["hold"]
    begun = time.monotonic()
    assert load("owner/name", "--stall-timeout", "1", **hub.environ).files == {"config.json": b"{}"}
    assert time.monotonic() - begun < patient(15)


def test_what_stays_corrupt_is_an_error_and_never_published(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    hub.commit({"model.bin": b"weights", "good.bin": b"good"})
    hub.web.faults[hub.stored(b"weights")] = ["corrupt"] * 99
    done = load("owner/name", **hub.environ)
    assert (done.code, done.message["error"]) == (74, "DigestMismatchError")
    assert hashlib.sha256(b"weights").hexdigest() in done.message["message"]
    assert hub.web.count(hub.stored(b"weights")) == 2
    assert not (tmp_path / "models" / "current").exists()
    assert not list((tmp_path / "cache").rglob("manifest.json"))


def test_a_small_file_that_is_not_in_lfs_is_verified_too(hub: Any, load: Any) -> None:
    hub.commit({"config.json": b"{}"})
    hub.web.faults[hub.stored(b"{}")] = ["corrupt"] * 99
    assert load("owner/name", **hub.environ).message["error"] == "DigestMismatchError"


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x10" + bytes(7) + b"{}", None])
def test_a_safetensors_file_that_was_cut_at_its_source_is_an_error(
    hub: Any, load: Any, data: bytes | None
) -> None:
    if data is None:
        header = json.dumps({"w": {"dtype": "U8", "shape": [99], "data_offsets": [0, 99]}}).encode()
        data = len(header).to_bytes(8, "little") + header + bytes(98)
    hub.commit({"model.safetensors": data})
    done = load("owner/name", **hub.environ)
    assert (done.code, done.message["error"]) == (66, "InvalidSourceError")
    assert "model.safetensors" in done.message["message"] or "resolve" in done.message["message"]


def test_an_object_whose_etag_is_no_md5_is_accepted_when_it_comes_the_same_twice(
    s3: Any, load: Any
) -> None:
    s3.client.put_object(
        Bucket=s3.bucket,
        Key="kms/model.bin",
        Body=b"weights",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId="k",
    )
    done = load("s3://bucket/kms", **s3.environ)
    assert done.files == {"model.bin": b"weights"}


# The disk is full


def test_too_little_space_is_told_before_the_first_byte(
    hub: Any, load: Any, small_disk: Path
) -> None:
    hub.commit({"model.bin": LARGE})
    done = load("owner/name", "--cache", str(small_disk), **hub.environ)
    assert (done.code, done.message["error"]) == (74, "DestinationError")
    assert f"{len(LARGE)} bytes are needed" in done.message["message"]
    assert "bytes are free" in done.message["message"]
    assert hub.web.count(hub.stored(LARGE)) == 0


def test_the_least_recently_used_make_way(hub: Any, load: Any, small_disk: Path) -> None:
    for number in range(4):
        files = {"model.bin": bytes([number]) * 3 * MIB}
        hub.commit(files)
        done = load("owner/name", "--cache", str(small_disk), "--cache-limit", "7Mi", **hub.environ)
        assert done.files == files, done.stderr
        assert len(list(small_disk.rglob("manifest.json"))) == min(number + 1, 2)
        for lease in small_disk.rglob(
            "leases/*"
        ):  # what `--once` published is in use until its lease expires
            os.utime(lease, (0, 0))


def test_a_download_that_was_given_up_makes_way_too(hub: Any, load: Any, tmp_path: Path) -> None:
    hub.commit({"model.bin": LARGE})
    hub.web.bytes_per_second = 8 * MIB
    process = load.start("owner/name", "--once", stderr=subprocess.DEVNULL, **hub.environ)
    wait_for(lambda: sum(hub.web.sent.values()) > 4 * MIB)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.commit({"model.bin": b"other"})
    assert load("owner/name", "--cache-limit", "1Mi", **hub.environ).files == {
        "model.bin": b"other"
    }
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_version_in_use_stays_whatever_the_limit(hub: Any, load: Any, tmp_path: Path) -> None:
    hub.commit({"model.bin": b"first"})
    load.publish = "models-1"
    with (tmp_path / "log").open("w") as log:
        load.start("owner/name", stderr=log, **hub.environ)
    wait_for((tmp_path / "models-1" / ".ready").exists)
    hub.commit({"model.bin": b"second"})
    load.publish = "models"
    assert load("owner/name", "--cache-limit", "1", **hub.environ).files == {"model.bin": b"second"}
    assert (tmp_path / "models-1" / "current" / "model.bin").read_bytes() == b"first"


# The process dies


def killed(process: Any, seconds: float) -> None:
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def is_half(published: Path) -> bool:
    """Whether something is visible that is not complete."""
    link = published / "current"
    return link.is_symlink() and not (link.resolve().parent / "manifest.json").exists()


def kill_until_done(
    hub: Any, load: Any, kills: int, files: dict[str, bytes], tmp_path: Path
) -> None:
    dice = random.Random(11)
    done = 0
    while done < kills:
        process = load.start("owner/name", "--once", stderr=subprocess.DEVNULL, **hub.environ)
        killed(process, dice.uniform(0.05, 1.0))
        done += 1
        assert not is_half(tmp_path / "models")
        if (tmp_path / "models" / ".ready").exists():
            assert load("owner/name", **hub.environ).files == files
            subprocess.run(
                ["rm", "-rf", str(tmp_path / "models"), str(tmp_path / "cache")], check=True
            )
    assert load("owner/name", **hub.environ).files == files


FOUR = {f"model-{n}.bin": random.Random(n).randbytes(20 * MIB) for n in range(3)} | {
    "config.json": b"{}"
}


def test_a_killed_run_is_continued(hub: Any, load: Any, tmp_path: Path) -> None:
    hub.commit(FOUR)
    hub.web.bytes_per_second = 20 * MIB
    kill_until_done(hub, load, 4, FOUR, tmp_path)


@pytest.mark.slow
def test_forty_kills_at_random_moments_end_with_the_right_bytes(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    hub.commit(FOUR)
    hub.web.bytes_per_second = 20 * MIB
    kill_until_done(hub, load, 40, FOUR, tmp_path)


def test_a_kill_costs_at_most_one_chunk_of_a_file(hub: Any, load: Any) -> None:
    hub.commit({"model.bin": LARGE})
    hub.web.bytes_per_second = 8 * MIB
    path = hub.stored(LARGE)
    process = load.start("owner/name", "--once", **hub.environ)
    wait_for(lambda: hub.web.sent.get(path, 0) > 30 * MIB)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.web.bytes_per_second = 0.0
    assert load("owner/name", **hub.environ).files == {"model.bin": LARGE}
    print("wasted", hub.web.sent[path] - len(LARGE))
    assert hub.web.sent[path] - len(LARGE) <= 16 * MIB


# Who may write


@pytest.fixture
def stranger(tmp_path: Path) -> tuple[str, ...]:
    """Return the beginning of a command that runs as another user.

    That user may read everything, since the interpreter may be anywhere, but writes only its own.
    """
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("nobody else can be had here")
    for place in (tmp_path, tmp_path / "models"):
        place.mkdir(exist_ok=True)
        os.chown(place, 1000, 1000)
    may_read = ("--inh-caps", "-all,+dac_read_search", "--ambient-caps", "+dac_read_search")
    return ("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", *may_read)


@pytest.fixture
def volume() -> Iterator[Path]:
    """A directory that everybody may enter, as pytest's are not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_a_cache_of_another_user_is_told_by_the_check_and_by_the_run(
    hub: Any, load: Any, stranger: tuple[str, ...], volume: Path
) -> None:
    hub.commit({"model.bin": b"weights"})
    cache = volume / "cache"
    cache.mkdir(mode=0o755)

    def run(option: str) -> Any:
        return load.wait(
            load.start("owner/name", option, "--cache", str(cache), before=stranger, **hub.environ)
        )

    for option in ("--check", "--once"):
        done = run(option)
        assert (done.code, done.message["error"]) == (74, "DestinationError")
        assert "cache" in done.message["message"]
        assert "fsGroup" in done.message["hint"]
        assert "uid 1000" in done.message["hint"]
    os.chown(cache, 0, 1000)
    cache.chmod(0o775)  # as fsGroup does
    for option in ("--check", "--once", "--check"):
        assert run(option).code == 0


def test_a_cache_of_another_user_that_has_everything_passes(
    hub: Any, load: Any, stranger: tuple[str, ...], tmp_path: Path
) -> None:
    sha = hub.commit({"model.bin": b"weights"})
    assert load("owner/name", **hub.environ).code == 0
    assert (tmp_path / "cache").stat().st_uid == 0
    assert (
        load.wait(load.start(f"owner/name@{sha}", "--check", before=stranger, **hub.environ)).code
        == 0
    )


def test_a_loader_that_is_killed_again_and_again_leaves_a_count(
    hub: Any, load: Any, tmp_path: Path
) -> None:
    hub.commit({"model.bin": b"weights"})
    hub.web.faults[REVISION] = ["hold"] * 3
    starts = tmp_path / "models" / ".starts"
    for number in (1, 2, 3):
        process = load.start("owner/name", stderr=subprocess.DEVNULL, **hub.environ)
        wait_for(lambda number=number: starts.exists() and starts.read_text() == f"{number}\n")
        process.kill()
        process.wait()
    hub.web.faults.clear()
    assert load("owner/name", **hub.environ).code == 0
    assert not starts.exists()


# Many at once


def test_concurrent_pods_download_once(hub: Any, load: Any, tmp_path: Path) -> None:
    hub.commit(FOUR)
    hub.web.bytes_per_second = 40 * MIB
    processes = []
    for number in range(4):
        load.publish = f"models-{number}"
        processes.append(load.start("owner/name", "--once", **hub.environ))
    for process in processes:
        assert load.wait(process).code == 0
    for number in range(4):
        current = (tmp_path / f"models-{number}" / "current").resolve()
        assert {path.name: path.read_bytes() for path in current.iterdir()} == FOUR
    for data in FOUR.values():
        assert hub.web.sent[hub.stored(data)] == len(data)


def test_a_waiting_pod_takes_over_when_the_downloading_one_is_killed(hub: Any, load: Any) -> None:
    hub.commit(FOUR)
    hub.web.bytes_per_second = 5 * MIB
    first = load.start("owner/name", "--once", stderr=subprocess.DEVNULL, **hub.environ)
    wait_for(lambda: len(hub.web.sent))
    second = load.start("owner/name", "--once", **hub.environ)
    time.sleep(1)
    first.send_signal(signal.SIGKILL)
    hub.web.bytes_per_second = 0.0
    begun = time.monotonic()
    assert load.wait(second).files == FOUR
    # the kernel tells on one machine; another machine waits for the lease
    assert time.monotonic() - begun < patient(20)


@pytest.mark.parametrize("is_live", [True, False])
def test_the_lease_of_another_machine_is_respected_until_it_expires(
    hub: Any, load: Any, tmp_path: Path, is_live: bool
) -> None:
    sha = hub.commit({"config.json": b"{}"})
    assert load("owner/name", **hub.environ).code == 0
    version = (tmp_path / "models" / "current").resolve().parent
    (version / "manifest.json").unlink()
    lease = version.with_name(f"{sha}.lease")
    lease.write_text(json.dumps({"boot": "another machine", "holder": "x"}))
    if not is_live:
        os.utime(lease, (time.time() - 60, time.time() - 60))
    process = load.start("owner/name", "--once", **hub.environ)
    if is_live:
        time.sleep(2)
        assert process.poll() is None
        os.utime(lease, (time.time() - 60, time.time() - 60))
    assert load.wait(process).files == {"config.json": b"{}"}
    assert not lease.exists()


def test_a_long_download_of_adapters_keeps_its_lease(hub: Any, load: Any, tmp_path: Path) -> None:
    """With `--once`, too, each byte that arrives renews the lease; the previous adapter stays."""
    hub.commit(
        {"adapter_config.json": b"{}", "adapter_model.bin": b"small"}, repository="alice/first"
    )
    hub.commit({"adapter_config.json": b"{}", "adapter_model.bin": LARGE}, repository="bob/second")
    adapters = [
        "--adapter",
        "alice/first",
        "--adapter",
        "bob/second",
        "--adapters-directory",
        str(tmp_path / "loras"),
    ]
    hub.web.bytes_per_second = 1 * MIB  # each of three connections: as long as it takes
    first = load.start(*adapters, "--once", **hub.environ)
    wait_for(lambda: hub.web.sent.get(hub.stored(LARGE), 0) > 2 * MIB)
    (writing,) = (tmp_path / "cache").glob("bob--second*/*.lease")
    (using,) = (tmp_path / "cache").glob("alice--first*/*/leases/*")
    load.publish = "models-2"
    other = [word.replace("loras", "loras-2") for word in adapters]
    second = load.start(*other, "--once", **hub.environ)
    for lease in (writing, using):
        os.utime(lease, (1, 1))
    wait_for(lambda: min(lease.stat().st_mtime for lease in (writing, using)) > 1, seconds=15)
    hub.web.bytes_per_second = 0.0
    assert (load.wait(first).code, load.wait(second).code) == (0, 0)
    assert (tmp_path / "loras-2" / "bob--second" / "adapter_model.bin").read_bytes() == LARGE
    assert hub.web.sent[hub.stored(LARGE)] == len(LARGE)
