"""`image_spec`: what flytekit's own builder makes of it, and that the wheel in its build context
installs."""

from __future__ import annotations

import csv
import io
import re
import shlex
import subprocess
import sys
import warnings
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from flytekit import FlyteContextManager, ImageSpec, task
from flytekit.configuration import ImageConfig, SerializationSettings
from flytekit.core.context_manager import ExecutionState
from flytekit.image_spec.default_builder import create_docker_context
from flytekit.image_spec.image_spec import ImageBuildEngine

from flytekitplugins.inference import (
    ConfigError,
    InferenceWarning,
    ModelInferenceTemplate,
    UnsupportedError,
    __version__,
)
from flytekitplugins.inference.distribution import NAME
from flytekitplugins.inference.errors import DestinationError
from flytekitplugins.inference.flyte import image, wheel
from flytekitplugins.inference.flyte.image import WHEEL_PATH, image_spec

PROJECT = Path(__file__).parents[2] / "plugins" / "flytekitplugins-inference"
RUN_INSTALLED = """
import sys
sys.path[:] = [entry for entry in sys.path if entry != sys.argv[1]]
import flytekitplugins.inference as package
from importlib import metadata
from pathlib import Path
from flytekitplugins.inference.flyte import image, wheel
distribution = wheel.installed_distribution()
Path(sys.argv[2]).write_bytes(wheel.build_wheel(distribution))
servers = sorted(package.installed_servers())
print(package.__file__, package.__version__, distribution.version, servers)
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")


def context_of(spec: ImageSpec, folder: Path) -> tuple[str, list[str]]:
    """Return the Dockerfile and the requirements that flytekit's builder writes."""
    folder.mkdir()
    create_docker_context(spec, folder)
    return (folder / "Dockerfile").read_text(), (
        folder / "requirements_uv.txt"
    ).read_text().splitlines()


def install(wheel_file: Path, target: Path) -> None:
    """Install a wheel without its requirements into a folder of its own."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps"]
    subprocess.run(
        [*command, "--python", sys.executable, "--target", str(target), str(wheel_file)], check=True
    )


def test_the_build_context_holds_the_wheel_and_the_dockerfile_installs_it_last(
    tmp_path: Path,
) -> None:
    spec = image_spec(
        "openai",
        name="answers",
        registry="registry.example.com",
        packages=["pandas"],
        commands=["true"],
    )
    dockerfile, requirements = context_of(spec, tmp_path / "context")
    assert (tmp_path / "context" / WHEEL_PATH).read_bytes() == WHEEL_PATH.read_bytes()
    steps = [
        dockerfile.index("--requirement requirements_uv.txt"),
        dockerfile.index(
            f"COPY --chown=flytekit {WHEEL_PATH.as_posix()} /root/{WHEEL_PATH.parent.as_posix()}/"
        ),
        dockerfile.index(f"/root/{WHEEL_PATH.as_posix()} && true"),
    ]
    assert steps == sorted(steps)
    assert {"pandas", "kubernetes>=28.1", f"flytekit=={metadata.version('flytekit')}"} <= set(
        requirements
    )
    assert not [line for line in requirements if line.startswith(NAME)]


@pytest.mark.parametrize(
    ("extras", "present", "absent"),
    [
        ((), ["kubernetes", "aiohttp"], ["openai", "pyarrow", "tritonclient", "docker"]),
        (("openai",), ["kubernetes", "openai"], ["pyarrow", "tritonclient"]),
        (("batch", "open-inference"), ["pyarrow", "tritonclient", "httpx"], ["openai"]),
    ],
)
def test_the_requirements_are_those_of_the_extras(
    extras: tuple[str, ...], present: list[str], absent: list[str]
) -> None:
    names = {re.split(r"[^\w-]", package)[0] for package in image_spec(*extras).packages}
    assert set(present) <= names
    assert not set(absent) & names


def test_the_wheel_in_the_context_installs_and_makes_the_same_wheel_again(tmp_path: Path) -> None:
    context_of(image_spec(), tmp_path / "context")
    first = tmp_path / "context" / WHEEL_PATH
    install(first, tmp_path / "site")
    again = tmp_path / "again.whl"
    done = subprocess.run(
        [sys.executable, "-c", RUN_INSTALLED, str(PROJECT), str(again)],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, *versions = done.stdout.split()[:3]
    assert file == str(tmp_path / "site" / "flytekitplugins" / "inference" / "__init__.py")
    assert versions == [__version__, __version__]
    assert "'vllm'" in done.stdout
    assert again.read_bytes() == first.read_bytes()


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    """The files are those of the build backend's wheel, its record is that of its contents."""
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=PROJECT, check=True)
    with zipfile.ZipFile(tmp_path / wheel.FILE_NAME) as archive:
        expected = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(io.BytesIO(wheel.build_wheel(wheel.installed_distribution()))) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert contents.keys() == expected.keys()
    made_here = (".dist-info/RECORD", ".dist-info/WHEEL", ".dist-info/METADATA")
    assert [
        name
        for name in contents
        if contents[name] != expected[name] and not name.endswith(made_here)
    ] == []
    (metadata,) = (name for name in contents if name.endswith(".dist-info/METADATA"))
    # the README behind the headers may have been edited since the editable installation
    assert contents[metadata].partition(b"\n\n")[0] == expected[metadata].partition(b"\n\n")[0]
    (record,) = (content.decode() for name, content in contents.items() if name.endswith("RECORD"))
    rows = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(record))}
    assert rows.keys() == contents.keys()
    assert {name: int(size) for name, (_, size) in rows.items() if size} == {
        name: len(content) for name, content in contents.items() if not name.endswith("RECORD")
    }


def test_the_image_is_the_same_in_the_pod_where_nothing_is_written(tmp_path: Path) -> None:
    on_the_laptop = image_spec("openai", name="answers")
    content = WHEEL_PATH.read_bytes()
    WHEEL_PATH.unlink()
    current = FlyteContextManager.current_context()
    state = current.new_execution_state().with_params(mode=ExecutionState.Mode.TASK_EXECUTION)
    with FlyteContextManager.with_context(current.with_execution_state(state)):
        assert image_spec("openai", name="answers").id == on_the_laptop.id
    assert not WHEEL_PATH.exists()
    image_spec("openai", name="answers")
    assert WHEEL_PATH.read_bytes() == content


def test_the_image_is_another_one_when_the_package_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = image_spec(name="answers")
    tag = before.tag
    monkeypatch.setattr(image, "build_wheel", lambda distribution: b"changed")
    after = image_spec(name="answers")
    assert after.tag != tag
    assert after.id == before.id


def test_the_users_files_and_commands_are_kept(tmp_path: Path) -> None:
    Path("data.json").write_text("{}")
    spec = image_spec(copy=["data.json"], commands=["echo one", "echo two"], apt_packages=["git"])
    dockerfile, _ = context_of(spec, tmp_path / "context")
    assert (tmp_path / "context" / "data.json").read_text() == "{}"
    (command,) = re.findall(r"uv pip install --no-deps.*", dockerfile)
    assert shlex.split(command)[-6:] == ["&&", "echo", "one", "&&", "echo", "two"]


def test_git_is_told_to_leave_the_wheel_out() -> None:
    image_spec()
    assert (WHEEL_PATH.parent / ".gitignore").read_text() == "*\n"
    assert {path.name for path in WHEEL_PATH.parent.iterdir()} == {".gitignore", WHEEL_PATH.name}


@pytest.mark.parametrize(
    ("extras", "fields", "words"),
    [
        (("opanai",), {}, ["'opanai'", "batch, containers"]),
        (("v2",), {}, ["'v2'", "open-inference"]),
        ((), {"packages": [NAME]}, [NAME, "Leave it out"]),
        (
            (),
            {"packages": ["numpy", "FlytekitPlugins_Inference[openai]>=1.16"]},
            ["[openai]>=1.16", "extras"],
        ),
    ],
)
def test_what_it_refuses(extras: tuple[str, ...], fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        image_spec(*extras, **fields)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not WHEEL_PATH.exists()


def test_packages_that_are_files_or_options_pass() -> None:
    assert image_spec(packages=["--pre", "./other.whl"]).packages[-2:] == ["--pre", "./other.whl"]


def test_a_directory_that_cannot_be_written_is_named() -> None:
    WHEEL_PATH.parent.write_text("a file, not a directory")
    with pytest.raises(DestinationError, match=r"\.inference-image.*Hint: Work in a directory"):
        image_spec()


def test_a_package_that_is_only_on_the_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(name: str) -> list[metadata.Distribution]:
        return [found for found in original(name="flytekit") if name == NAME]

    original = metadata.distributions
    monkeypatch.setattr(metadata, "distributions", other)
    with pytest.raises(
        ConfigError,
        match=rf"is imported from {PROJECT}.*only {metadata.version('flytekit')}.*pip install -e",
    ):
        image_spec()


def test_a_flytekit_that_cannot_copy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image.dataclasses, "fields", lambda kind: ())
    with pytest.raises(
        UnsupportedError, match=r"needs flytekit 1\.14 or newer; this is .* Dockerfile"
    ):
        image_spec()


# An image that asks the index for this package gets the other product of its name

SETTINGS = SerializationSettings(image_config=ImageConfig.auto(img_name="registry.example.com/a:1"))
OTHER = [
    "flytekitplugins-inference",
    "Flytekitplugins_Inference[openai]>=1.16",
    "flytekitplugins-inference~=1.16.0",
]
OURS = [
    "flytekitplugins-inference>=2",
    "flytekitplugins-inference @ https://wheels.example.com/x.whl",
    "flytekitplugins-envd",
    "./flytekitplugins_inference-2.0.0-py3-none-any.whl",
]


def registered(image: Any, **options: Any) -> None:
    """Register a task whose function runs in `image`."""
    template = ModelInferenceTemplate(image="server:1", **options)

    @task(task_config=template, container_image=image)
    def ask() -> str:
        return ""

    ask.get_k8s_pod(SETTINGS)


@pytest.mark.parametrize("package", OTHER)
@pytest.mark.parametrize("where", ["container_image", "helper_image"])
def test_a_task_whose_image_has_the_other_product_is_warned_about(
    package: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageBuildEngine, "build", lambda spec: None)
    spec = ImageSpec(name="a", registry="registry.example.com", packages=["numpy", package])
    task_image = "registry.example.com/task:1"
    images = (spec, None) if where == "container_image" else (task_image, spec)
    with pytest.warns(InferenceWarning, match=r"installs flytekit's own plugin.*image_spec\(\)"):
        registered(images[0], helper_image=images[1])


@pytest.mark.parametrize("package", OURS)
def test_other_images_are_not(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageBuildEngine, "build", lambda spec: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registered(ImageSpec(name="a", registry="registry.example.com", packages=[package]))
        registered(image_spec(name="a", registry="registry.example.com"))
        registered("registry.example.com/task:1")
