"""Names from anywhere stay inside, apart and usable."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from flytekitplugins.inference.programs.local_names import folder_name, relative_paths, safe_name

WILD = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        *(
            "..",
            ".",
            "",
            "/",
            "//",
            "../..",
            "/etc/passwd",
            "a/../../b",
            "\0",
            "a\0b",
            "a\nb",
            "x" * 300,
            "\u00fc" * 200,
        ),
        *(
            "\udcff",
            "\ud800",
            "~",
            "%2E%2E",
            "a",
            "a/b",
            "a/b/c",
            "a//b",
            "/".join(["d" * 200] * 30),
        ),
    ]
)
KEYS = st.lists(st.lists(WILD, max_size=4).map("/".join), max_size=12)


def _check_inside(path: str) -> None:
    assert not path.startswith("/")
    assert "\0" not in path
    assert len(path.encode("utf-8")) <= 2300
    for part in path.split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode("utf-8")) <= 255


@given(WILD)
def test_a_safe_name_is_one_component(name: str) -> None:
    safe = safe_name(name)
    _check_inside(safe)
    assert "/" not in safe
    assert safe_name(name) == safe


@given(KEYS)
def test_paths_stay_inside_and_apart(keys: list[str]) -> None:
    paths = relative_paths(keys)
    assert set(paths) == set(keys)
    for path in paths.values():
        _check_inside(path)
    assert len(set(paths.values())) == len(paths)
    parents = {str(parent) for path in paths.values() for parent in PurePosixPath(path).parents}
    assert not parents & set(paths.values())
    assert relative_paths(reversed(keys)) == paths


@given(KEYS)
def test_paths_can_be_written(keys: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        for key, path in relative_paths(keys).items():
            place = Path(directory, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            assert not place.exists()
            place.write_bytes(key.encode("utf-8", "surrogatepass"))
            assert place.resolve().is_relative_to(Path(directory).resolve())


PARTS = st.tuples(WILD | st.text("ab._-", max_size=3)) | st.lists(
    st.integers(0, 11) | st.text("ab.1_-~", max_size=3) | WILD, min_size=1, max_size=4
).map(tuple)


@given(st.sets(PARTS, max_size=12))
def test_folders_are_apart(paths: set[tuple[str | int, ...]]) -> None:
    # A value is either a list or a dictionary: index 1 and key "1" never meet in one place.
    texts = {tuple(map(str, path)) for path in paths}
    folders = {folder_name(path) for path in texts}
    assert len(folders) == len(texts)
    for folder in folders:
        _check_inside(folder)
        assert "/" not in folder
        assert not folder.startswith(".")


def test_ordinary_names_are_kept() -> None:
    assert folder_name(("rows", 3, "image")) == "rows.3.image"
    assert relative_paths(["a.txt", "b/c d.bin", "\u00fc"]) == {
        "a.txt": "a.txt",
        "b/c d.bin": "b/c d.bin",
        "\u00fc": "\u00fc",
    }
    assert safe_name("..") == "%2E%2E"
    assert safe_name("x" * 300 + ".json").endswith(".json")
