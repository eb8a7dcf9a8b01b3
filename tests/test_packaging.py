"""The wheel and the source distribution: what is in them, what they say, and that they work without
the source."""

from __future__ import annotations

import configparser
import email
import email.message
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

import flytekitplugins.inference
from flytekitplugins.inference.distribution import NAME, install_command

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "plugins" / "flytekitplugins-inference"
PACKAGE = PROJECT / "flytekitplugins" / "inference"

USER_MODULE = """
from flytekit import task

from flytekitplugins.inference import VLLM

template = VLLM(arg_dict={"model": "org/model"}, download_inputs=True)


@task(task_config=template)
def ask(prompt: str) -> str:
    return prompt
"""
RUN_WITHOUT_SOURCE = """
import os, sys

sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != sys.argv[1]]
import flytekitplugins.inference
import user_module

first = user_module.template.pod_template.pod_spec.init_containers[0]
print(flytekitplugins.inference.__file__, type(user_module.ask).__name__, first.name)
"""


def build(kind: str, target: Path) -> Path:
    """Return what the project's own build backend makes of it: a `wheel` or an `sdist`."""
    code = f"import sys; from hatchling.build import build_{kind} as build; build(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=PROJECT, check=True)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def about(wheel: Path) -> email.message.Message:
    """Return the wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def test_the_wheel_holds_the_package_and_its_metadata_and_nothing_else(wheel: Path) -> None:
    expected = {
        str(path.relative_to(PROJECT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert "flytekitplugins/inference/py.typed" in found
    assert (
        "flytekitplugins/__init__.py" not in found
    )  # a namespace, shared with flytekit's other plugins


def test_the_licence_is_in_the_repository_the_wheel_and_the_source_distribution(
    wheel: Path, sdist: Path
) -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in text
    assert b"END OF TERMS AND CONDITIONS" in text
    assert (PROJECT / "LICENSE").read_bytes() == text
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
        assert archive.read(name) == text
    with tarfile.open(sdist) as source:
        member = source.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/LICENSE")
        assert member is not None
        assert member.read() == text


def test_the_source_distribution_holds_the_package_its_documents_and_no_tests(
    wheel: Path, sdist: Path
) -> None:
    with tarfile.open(sdist) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} <= names
    tops = {name.partition("/")[0] for name in names}
    documents = {"README.md", "CHANGELOG.md", "ARCHITECTURE.md", "LICENSE", "docs"}
    assert tops - {".gitignore"} == {"flytekitplugins", "pyproject.toml", "PKG-INFO", *documents}


def test_a_wheel_of_the_source_distribution_is_that_of_the_repository(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    with tarfile.open(sdist) as source:
        source.extractall(tmp_path, filter="data")
    (project,) = tmp_path.iterdir()
    (tmp_path / "dist").mkdir()
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "dist")], cwd=project, check=True)
    (again,) = (tmp_path / "dist").iterdir()
    assert again.name == wheel.name
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as other:
        assert {name: one.read(name) for name in one.namelist()} == {
            name: other.read(name) for name in other.namelist()
        }


def test_the_version_is_one(about: email.message.Message, wheel: Path) -> None:
    version = flytekitplugins.inference.__version__
    assert version == about["Version"] == metadata.version(NAME) == wheel.name.split("-")[1]
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == version


def test_no_version_of_the_other_product_of_this_name_replaces_it() -> None:
    """The index has flytekit's own plugin below 2; no upgrade and no `>=1.16` may prefer it."""
    assert Version(flytekitplugins.inference.__version__) >= Version("2")
    wanted = Requirement(install_command("openai").removeprefix("pip install ").strip("'"))
    assert wanted.name == NAME
    assert wanted.extras == {"openai"}
    assert wanted.specifier.contains(flytekitplugins.inference.__version__)
    assert not wanted.specifier.contains("1.16.31")


def test_the_metadata_says_whose_it_is_and_under_which_terms(about: email.message.Message) -> None:
    assert about["Name"] == NAME
    assert about["License-Expression"] == "Apache-2.0"
    assert about.get_all("License-File") == ["LICENSE"]
    assert about["Author"]
    assert about["Requires-Python"]
    assert "Typing :: Typed" in (about.get_all("Classifier") or [])
    assert all(
        url.partition(", ")[2].startswith("https://") for url in about.get_all("Project-URL") or []
    )


def test_no_extra_reads_as_a_version(about: email.message.Message) -> None:
    """`extra == "v2"` makes pip 24.1 to 25.3 compare versions, and fail with every other extra."""
    extras = about.get_all("Provides-Extra")
    assert extras
    for extra in extras:
        with pytest.raises(InvalidVersion):
            Version(extra)


def test_the_links_of_the_readme_hold_on_an_index(about: email.message.Message) -> None:
    assert about["Description-Content-Type"] == "text/markdown"
    text = about.get_payload()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    for name in re.findall(r" \(((?:docs|examples)/[^)]*|[A-Z]+\.md)\)", text):
        assert (PROJECT / name).exists() or (ROOT / name).exists(), name
    assert "(docs/batch.md)" in text


def test_the_documents_and_messages_name_an_extra_that_exists(about: email.message.Message) -> None:
    extras = set(about.get_all("Provides-Extra") or [])
    asked = [
        (path.name, extra)
        for path in [
            *PACKAGE.rglob("*.py"),
            *PROJECT.rglob("*.md"),
            *ROOT.glob("examples/**/*"),
            ROOT / "README.md",
        ]
        if path.is_file() and path.suffix in (".py", ".md", "")
        for found in re.findall(
            r"""(?:install_command\(|inference\[)(["'\w, -]+)[)\]]""",
            path.read_text(encoding="utf-8"),
        )
        for extra in re.findall(r"[a-z][a-z-]+", found)
    ]
    assert ("chat.py", "openai") in asked
    assert [(name, extra) for name, extra in asked if extra not in extras] == []


def test_how_to_install_is_written_once() -> None:
    """Each message that names this distribution takes the command from `distribution.py`, with its
    bound."""
    assert [
        path.name
        for path in PACKAGE.rglob("*.py")
        if f"{NAME}[" in path.read_text(encoding="utf-8")
    ] == []


def test_the_wheel_registers_its_servers_and_one_entry_point_with_flytekit(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")
        )
        parser = configparser.ConfigParser()
        parser.read_string(archive.read(name).decode())
    entry_points = {section: dict(parser[section]) for section in parser.sections()}
    servers = {path.parent.name for path in PACKAGE.glob("*/serve.py")}
    groups = {"console_scripts", "flytekit.plugins", "flytekitplugins.inference.servers"}
    assert entry_points.keys() == groups
    assert entry_points["console_scripts"] == {
        "flyte-inference": "flytekitplugins.inference.cli.commands:main"
    }
    assert entry_points["flytekit.plugins"] == {
        "inference": "flytekitplugins.inference.flyte.register"
    }
    assert entry_points["flytekitplugins.inference.servers"].keys() == servers


def test_the_installed_wheel_works_without_the_source(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps"]
    subprocess.run(
        [*install, "--python", sys.executable, "--target", str(site), str(wheel)], check=True
    )
    elsewhere.mkdir()
    (elsewhere / "user_module.py").write_text(USER_MODULE)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-c", RUN_WITHOUT_SOURCE, str(PROJECT)]
    done = subprocess.run(
        command,
        cwd=elsewhere,
        env={**environ, "PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(site / "flytekitplugins" / "inference" / "__init__.py"),
        "InferenceTask",
        "input-downloader",
    ]


# The other product of this name: flytekit's own plugin, in the same folder


OTHER_FILES = {
    "__init__.py": "from .nim.serve import NIM\n",
    "sidecar_template.py": "class ModelInferenceTemplate:\n    pass\n",
    "nim/serve.py": "from ..sidecar_template import ModelInferenceTemplate as NIM\n",
}
"""Those of its files that matter here, as short as they can be."""
OTHER_INFO = "flytekitplugins_inference-1.16.31.dist-info"
LOOK = """
import sys

sys.path[:] = [entry for entry in sys.path if entry != sys.argv[1]]
try:
    import flytekit
    print("flytekit works")
    from flytekitplugins.inference import VLLM
    print("the package works")
except ImportError as error:
    print(error)
"""


def look(site: Path) -> str:
    """Return what an interpreter prints that imports flytekit and the package in `site`."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-c", LOOK, str(PROJECT)]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(
        command, env={**environ, "PYTHONPATH": str(site)}, check=True, **streams
    ).stdout


@pytest.mark.parametrize(
    ("written", "removed", "other_info", "works"),
    [
        pytest.param([], [], False, ["flytekit", "the package"], id="ours alone"),
        pytest.param([], [], True, ["flytekit", "the package"], id="ours over the other"),
        pytest.param(list(OTHER_FILES), [], True, ["flytekit"], id="the other over ours"),
        pytest.param(
            list(OTHER_FILES),
            [],
            False,
            ["flytekit"],
            id="the other over ours, without its metadata",
        ),
        pytest.param(
            [],
            list(OTHER_FILES),
            True,
            ["flytekit"],
            id="the other removed, and with it files of ours",
        ),
        pytest.param(["sidecar_template.py"], [], True, ["flytekit"], id="one file of the other"),
    ],
)
def test_files_of_the_other_product_among_ours_are_told(
    written: list[str],
    removed: list[str],
    other_info: bool,
    works: list[str],
    wheel: Path,
    tmp_path: Path,
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "flytekitplugins" / "inference"
    for name in written:
        (folder / name).write_text(OTHER_FILES[name])
    for name in removed:
        (folder / name).unlink()
    if other_info:
        (tmp_path / OTHER_INFO).mkdir()
        (tmp_path / OTHER_INFO / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.16.31\n"
        )
    printed = look(tmp_path)
    assert [name for name in ("flytekit", "the package") if f"{name} works" in printed] == works
    version = flytekitplugins.inference.__version__
    reported = f"Files of {NAME} {version} in {folder} are missing, or replaced" in printed
    assert reported == (works != ["flytekit", "the package"]), printed
    assert (f"{OTHER_INFO} is there too" in printed) == (reported and other_info)
    assert "Traceback" not in printed


def test_this_session_tests_the_source() -> None:
    assert Path(flytekitplugins.inference.__file__).parent == PACKAGE
