"""Models of web servers: one file, or the files that an index page links to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WEIGHTS = bytes(range(256)) * 8 * 1024  # 2 MiB


def text_of(root: Path) -> str:
    """Return all that the loader has written below `root`: names of files, links, and JSON."""
    paths = [path for path in root.rglob("*") if "cache" in path.parts or "models" in path.parts]
    texts = [path.read_text() for path in paths if path.suffix == ".json"]
    return "\n".join([*map(str, paths), *texts])


def test_a_file_is_published_under_its_name(web: Any, load: Any) -> None:
    url = web.put("m/my%20x.gguf", WEIGHTS)
    done = load(url)
    assert done.code == 0, done.stderr
    assert done.files == {"my x.gguf": WEIGHTS}
    assert done.metadata["source"] == url
    # it is asked for its first byte, and then read once: nobody looks for links in it
    assert web.sent["m/my%20x.gguf"] <= len(WEIGHTS) + 1


def test_a_signature_is_sent_and_nowhere_shown(web: Any, load: Any, tmp_path: Path) -> None:
    url = web.put("m/x.gguf", WEIGHTS)
    done = load(f"{url}?X-Amz-Signature=geheim")
    assert done.code == 0, done.stderr
    assert done.files == {"x.gguf": WEIGHTS}
    assert done.metadata["source"] == f"{url}?..."
    assert "geheim" not in done.stderr + text_of(tmp_path)


def test_another_query_is_another_model(web: Any, load: Any) -> None:
    """What the cache has of one must not stand in for the other while the server is away."""
    url = web.put("x.gguf", WEIGHTS)
    assert load(f"{url}?id=1").code == 0
    web.faults["x.gguf"] = ["503"] * 9
    assert load(f"{url}?id=1", "--attempts", "1").files == {"x.gguf": WEIGHTS}
    other = load(f"{url}?id=2", "--attempts", "1")
    assert (other.code, other.message["error"]) == (69, "SourceUnavailableError")


@pytest.mark.parametrize("fault", ["503", "reset", "truncate"])
def test_a_fault_is_overcome(web: Any, load: Any, fault: str) -> None:
    url = web.put("x.gguf", WEIGHTS)
    web.faults["x.gguf"] = ["", fault]  # not the look at it, the download
    done = load(url)
    assert done.code == 0, done.stderr
    assert done.files == {"x.gguf": WEIGHTS}


def test_the_cache_has_it_until_it_is_replaced(web: Any, load: Any) -> None:
    url = web.put("x.gguf", WEIGHTS)
    first = load(url).metadata
    again = load(url).metadata
    assert (again["revision"], again["is_from_cache"]) == (first["revision"], True)
    web.put("x.gguf", WEIGHTS[::-1])
    replaced = load(url)
    assert replaced.files == {"x.gguf": WEIGHTS[::-1]}
    assert replaced.metadata["revision"] != first["revision"]


def test_a_server_without_lengths_and_etags_will_do(web: Any, load: Any) -> None:
    url = web.put("x.gguf", WEIGHTS)
    web.ranges = False
    web.headers["x.gguf"] = {"ETag": ""}
    done = load(url)
    assert done.code == 0, done.stderr
    assert done.files == {"x.gguf": WEIGHTS}


def test_an_index_page_names_the_files(web: Any, load: Any) -> None:
    web.put("m/config.json", b"{}")
    web.put("m/model.bin", WEIGHTS)
    url = web.put(
        "m/", b'<a href="../">up</a> <a href="config.json">c</a> <a href="model.bin">m</a>'
    )
    web.headers["m/"] = {"Content-Type": "text/html"}
    done = load(url)
    assert done.code == 0, done.stderr
    assert done.files == {"config.json": b"{}", "model.bin": WEIGHTS}


@pytest.mark.parametrize(
    ("fault", "code", "error"),
    [
        ("", 0, ""),
        ("404", 66, "SourceNotFoundError"),
        ("403", 77, "SourceForbiddenError"),
        ("503", 69, "SourceUnavailableError"),
    ],
)
def test_a_check_asks_for_the_first_byte(
    web: Any, load: Any, fault: str, code: int, error: str
) -> None:
    url = web.put("m/x.gguf", WEIGHTS)
    web.faults["m/x.gguf"] = [fault] * 99
    done = load(f"{url}?sig=geheim", "--check", "--attempts", "1")
    assert done.code == code, done.stderr
    assert "geheim" not in done.stderr
    assert web.sent.get("m/x.gguf", 0) < 1000
    if error:
        assert done.message["error"] == error
        assert "m/x.gguf" in done.message["message"]


def test_an_adapter_of_an_index_page(web: Any, load: Any, tmp_path: Path) -> None:
    web.put("loras/sql/adapter_config.json", b"{}")
    web.put("loras/sql/adapter_model.bin", b"w")
    page = b'<a href="adapter_config.json">c</a> <a href="adapter_model.bin">w</a>'
    url = web.put("loras/sql/", page)
    web.headers["loras/sql/"] = {"Content-Type": "text/html"}
    directory = tmp_path / "loras"
    done = load("--adapter", f"sql={url}", "--adapters-directory", str(directory))
    assert done.code == 0, done.stderr
    names = sorted(path.name for path in (directory / "sql").iterdir())
    assert names == ["adapter_config.json", "adapter_model.bin"]


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    program = [sys.executable, "-m", "flytekitplugins.inference.programs.load_model"]
    done = subprocess.run(
        [*program, "https://me:geheim@127.0.0.1:9/x.gguf"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 64
    assert "user name or password" in done.stderr
    assert "geheim" not in done.stderr
