"""Files, modules and names that the documents mention exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PROJECT = REPOSITORY / "plugins" / "flytekitplugins-inference"
PACKAGE = PROJECT / "flytekitplugins" / "inference"
ARCHITECTURE = PROJECT / "ARCHITECTURE.md"
DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *PROJECT.glob("*.md"),
    *PROJECT.glob("docs/**/*.md"),
    *REPOSITORY.glob("examples/*/README.md"),
]
NO_NAMES = {"flytekitplugins.inference.servers", "flytekitplugins.inference.owner"}
"""The group of entry points, and a label of containers."""
NO_MODULES = {"default_image", "task_config"}
"""Single words among the rooms of ARCHITECTURE.md that are no modules."""


def _quoted(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"(?s)```.*?```", "", text))


def _missing_paths(text: str) -> list[str]:
    """Return the quoted paths of this repository that lead nowhere."""
    paths = [
        quoted.split()[0]
        for quoted in _quoted(text)
        if re.match(r"(dev|tests|examples|docs|flytekitplugins|plugins|facts|programs)/\w", quoted)
    ]
    roots = [REPOSITORY, PROJECT, PACKAGE]
    return [path for path in paths if not any((root / path).exists() for root in roots)]


def _missing_names(text: str) -> list[str]:
    """Return the dotted names below the package that cannot be imported or looked up."""
    names = set(re.findall(r"\bflytekitplugins\.inference(?:\.\w+)+", text)) - NO_NAMES
    return sorted(name for name in names if not _is_there(name))


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return hasattr(importlib.import_module(module), attribute)
    return True


@pytest.mark.filterwarnings("ignore:.*OllamaModel:DeprecationWarning")
@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix()
)
def test_what_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert _missing_paths(text) == []
    assert _missing_names(text) == []


def test_paths_and_names_that_do_not_exist_are_noticed() -> None:
    assert _missing_paths("`dev/test -n 0`, `dev/gone`, `/shared/x`") == ["dev/gone"]
    text = "flytekitplugins.inference.VLLM flytekitplugins.inference.gone"
    assert _missing_names(text) == ["flytekitplugins.inference.gone"]


def test_the_rooms_of_the_architecture_hold_the_modules_that_it_names() -> None:
    rooms = ARCHITECTURE.read_text(encoding="utf-8").partition("## Rooms")[2].partition("\n## ")[0]
    words = {word for word in _quoted(rooms) if re.fullmatch(r"[a-z][a-z_]+", word)}
    modules = {path.stem for path in PACKAGE.rglob("*.py")}
    assert len(words) > 30
    assert words - NO_MODULES <= modules


def test_every_room_is_in_the_architecture() -> None:
    rooms = {
        path.relative_to(PACKAGE).as_posix() + "/" if path.is_dir() else path.name
        for path in PACKAGE.iterdir()
        if path.name not in {"__init__.py", "__pycache__", "py.typed"}
    }
    assert rooms <= set(_quoted(ARCHITECTURE.read_text(encoding="utf-8")))
