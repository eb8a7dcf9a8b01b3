"""What an import costs: which modules it loads, when, and what happens when ours are broken.

Every test asks a fresh interpreter. How long imports take is measured by `dev/bench/imports.py`,
not here.
"""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import flytekitplugins.inference

PACKAGE = "flytekitplugins.inference"
ROOT = Path(flytekitplugins.inference.__file__).parent

USER_MODULE = """
from flytekit import task

from flytekitplugins.inference import VLLM

template = VLLM(arg_dict={"model": "org/model"}, gpu=1)


@task(task_config=template)
def configured(prompt: str) -> str:
    return prompt


@task(pod_template=template.pod_template, secret_requests=template.secret_requests)
def explicit(prompt: str) -> str:
    return prompt
"""


def run(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, with `path` in front of its import path."""
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FLYTE"))
    }
    if path is not None:
        environ["PYTHONPATH"] = str(path)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=120, check=False
    )


def answer(code: str, *, path: Path | None = None) -> object:
    """Run `code`, which prints JSON on its last line, in a fresh interpreter."""
    done = run(code, path=path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def new_modules(imports: str) -> set[str]:
    """Return the modules that `imports` brings into an interpreter."""
    code = (
        "import json, sys\nbefore = "
        f"set(sys.modules)\n{imports}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    modules = answer(code)
    assert isinstance(modules, list)
    return set(modules)


def foreign(modules: set[str]) -> set[str]:
    """Return those modules that are neither the standard library's nor ours."""
    ours = ("flytekitplugins", PACKAGE)
    return {
        name
        for name in modules
        if name not in ours
        and not name.startswith(f"{PACKAGE}.")
        and name.split(".")[0] not in sys.stdlib_module_names
    }


def modules_below(*rooms: str) -> list[str]:
    """Return the names of all modules in some rooms of the package; `""` is the root itself."""
    names = []
    for room in rooms:
        names.append(f"{PACKAGE}.{room}")
        if (ROOT / room).is_dir():
            names += [
                f"{PACKAGE}.{room}.{module.name}"
                for module in pkgutil.iter_modules([str(ROOT / room)])
            ]
    return names


# Descriptions are free


def test_the_package_imports_nothing_but_the_standard_library() -> None:
    modules = new_modules(f"from {PACKAGE} import *")
    assert f"{PACKAGE}.vllm.serve" in modules
    assert foreign(modules) == set()


def test_a_servers_room_is_imported_when_it_is_asked_for() -> None:
    modules = new_modules(f"import {PACKAGE}")
    assert not {name for name in modules if name.endswith(".serve")}
    assert {
        name for name in new_modules(f"from {PACKAGE} import NIM") if name.endswith(".serve")
    } == {f"{PACKAGE}.nim.serve"}


def test_the_package_and_a_program_import_no_description() -> None:
    """Python imports the root before a program's first line, where SIGTERM has no handler yet."""
    ours = {name for name in new_modules(f"import {PACKAGE}") if name.startswith(PACKAGE)}
    assert ours == {PACKAGE, f"{PACKAGE}.distribution"}
    modules = new_modules(f"import {PACKAGE}.programs.wait_for_server")
    above = tuple(f"{PACKAGE}.{room}" for room in ("pod", "sidecar_template", "client"))
    assert not {name for name in modules if name.startswith(above)}


def test_a_description_does_not_import_the_packages_edges() -> None:
    modules = new_modules(f"from {PACKAGE} import ModelInferenceTemplate")
    edges = tuple(f"{PACKAGE}.{room}" for room in ("flyte", "local", "client"))
    # what a template offers to talk to its server, by name only
    methods = {f"{PACKAGE}.client{name}" for name in ("", ".methods", ".protocols")}
    assert {name for name in modules if name.startswith(edges)} == methods


def test_making_a_template_imports_nothing_more() -> None:
    modules = new_modules(
        f"from {PACKAGE} import NIM, VLLM, ModelInferenceTemplate\n"
        "ModelInferenceTemplate(image='a', download_inputs=True); VLLM(arg_dict={'model': "
        "'org/model'})"
    )
    assert foreign(modules) == set()


def test_every_program_imports_third_parties_only_inside_functions() -> None:
    modules = new_modules(
        "\n".join(f"import {name}" for name in modules_below("programs", "errors"))
    )
    assert foreign(modules) == set()


def test_the_local_runner_imports_nothing_but_the_standard_library() -> None:
    modules = new_modules("\n".join(f"import {name}" for name in modules_below("local", "pod")))
    assert foreign(modules) == set()


# flytekit's import, with our entry point


WITHOUT_ENTRY_POINT = """
import importlib.metadata

original = importlib.metadata.entry_points

def entry_points(**wanted):
    found = original(**wanted)
    if wanted != {"group": "flytekit.plugins"}:
        return found
    return [p for p in found if p.name != "inference"]

importlib.metadata.entry_points = entry_points
import flytekit

flytekit.entry_points = original
"""


def test_importing_flytekit_does_not_import_kubernetes() -> None:
    modules = new_modules("import flytekit")
    assert f"{PACKAGE}.flyte.register" in modules
    assert "kubernetes" not in modules


def test_importing_flytekit_does_not_import_more_foreign_modules_than_without_our_entry_point() -> (
    None
):
    without = new_modules(WITHOUT_ENTRY_POINT)
    assert f"{PACKAGE}.flyte.register" not in without
    assert foreign(new_modules("import flytekit")) - foreign(without) == set()


def test_an_error_of_ours_does_not_break_flytekit_and_is_logged() -> None:
    done = run(
        f"""
        import sys, types
        # it has no InferenceTask, as after half an upgrade
        broken = types.ModuleType("{PACKAGE}.flyte.task")
        sys.modules[broken.__name__] = broken
        import flytekit
        print(flytekit.task)
        """
    )
    assert done.returncode == 0, done.stderr
    assert "function task" in done.stdout
    assert "flytekitplugins-inference could not register with flytekit" in done.stderr
    assert "cannot import name 'InferenceTask'" in done.stderr


def test_an_error_while_registering_a_type_does_not_break_flytekit_and_is_logged() -> None:
    done = run(
        f"""{WITHOUT_ENTRY_POINT}
from flytekit.core.task import TaskPlugins

def refuse(*args):
    raise TypeError("registered twice")

TaskPlugins.register_pythontask_plugin = refuse
flytekit.load_implicit_plugins()
print("alive")
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "alive"
    assert "registered twice" in done.stderr


# What a user's module costs in the task's pod, which imports it again


def test_a_users_module_does_not_import_kubernetes_until_a_pod_spec_is_read(tmp_path: Path) -> None:
    (tmp_path / "user_module.py").write_text(USER_MODULE)
    code = """
        import json, sys
        import user_module
        before = "kubernetes" in sys.modules
        user_module.explicit.pod_template.pod_spec
        print(json.dumps([before, "kubernetes" in sys.modules]))
    """
    assert answer(code, path=tmp_path) == [False, True]


# flytekit looks a task's plugin up by the exact type of its task_config

FIND = """
    from flytekit.core.task import TaskPlugins
    from flytekitplugins.inference import *
    import flytekitplugins.inference.sidecar_template as module

    def found(template):
        return TaskPlugins.find_pythontask_plugin(template).__name__

    def everyone(template):
        children = template.__subclasses__()
        return [template, *(below for child in children for below in everyone(child))]

    import json
    templates = everyone(module.ModelInferenceTemplate)
    print(json.dumps({template.__name__: found(template) for template in templates}))
"""
MINE = """
    from dataclasses import dataclass
    from flytekitplugins.inference import VLLM, ModelInferenceTemplate

    @dataclass(frozen=True, kw_only=True)
    class Mine(ModelInferenceTemplate):
        pass

    class MyVLLM(VLLM):
        pass
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(MINE + "    import flytekit\n" + FIND, id="before flytekit is imported"),
        pytest.param("    import flytekit\n" + MINE + FIND, id="after flytekit is imported"),
    ],
)
def test_every_template_type_finds_its_task_class(code: str) -> None:
    found = answer(code)
    assert isinstance(found, dict)
    assert {"ModelInferenceTemplate", "NIM", "VLLM", "Mine", "MyVLLM"} <= set(found)
    assert set(found.values()) == {"InferenceTask"}


@pytest.mark.parametrize("first", modules_below("flyte"))
def test_the_order_of_imports_does_not_matter(first: str) -> None:
    code = f"""
        import json
        import {first}
        from flytekit.core.task import TaskPlugins
        from flytekitplugins.inference import VLLM
        print(json.dumps(TaskPlugins.find_pythontask_plugin(VLLM).__name__))
    """
    done = run(code)
    assert "could not register" not in done.stderr
    assert done.stdout.splitlines()[-1:] == ['"InferenceTask"']
