"""Which Pod Security level each server's pod meets: asked of the API server, told in the docs."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from dev.kubernetes.files import CHECKOUT

from cluster.api import Namespace, RefusedError
from cluster.pods import prepare_namespace
from cluster.test_golden_pods import UNREADY, compiled
from cluster.test_starts import NOT_ROOT, RESTRICTED
from golden.cases import CASES

if TYPE_CHECKING:
    from collections.abc import Callable

    Pod = dict[str, Any]

PAGE = CHECKOUT / "plugins/flytekitplugins-inference/docs/pods.md"
LEVELS = ("restricted", "baseline")
OWN_RIGHTS = {"generic-security-context"}
"""Pods whose user gives the server rights of his own."""
SETTINGS = ("as it is", "primary set", "not root")


@pytest.fixture(scope="module")
def levels(make_namespace: Callable[..., Namespace]) -> dict[str, Namespace]:
    """A namespace for each level, which refuses what does not meet it."""
    pods = [compiled(name) for name in CASES]
    made = {}
    for level in LEVELS:
        made[level] = make_namespace(**{"pod-security.kubernetes.io/enforce": level})
        prepare_namespace(made[level], pods)
    return made


def test_the_page_says_what_the_api_server_says(levels: dict[str, Namespace]) -> None:
    """One line for each kind of server: the lowest level of its golden pods, by setting."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in sorted({*CASES} - {*UNREADY}):
        pod = compiled(name)
        if name in OWN_RIGHTS or _has_parts_of_the_users(pod):
            continue
        kind = name.partition("-")[0]
        for setting, changed in zip(SETTINGS, _settings(pod), strict=True):
            found[kind][setting].add(_level(levels, changed))
    table = {kind: [_lowest(found[kind][each]) for each in SETTINGS] for kind in sorted(found)}
    lines = [f"| {kind} | {' | '.join(row)} |" for kind, row in table.items()]
    kinds = "|".join(table)
    documented = re.findall(rf"(?m)^\| (?:{kinds}) \|.*\|$", PAGE.read_text())
    assert documented == lines, "\n".join(lines)


def _has_parts_of_the_users(pod: Pod) -> bool:
    """Return whether a level is the user's own affair: containers from `base=`, host paths."""
    names = {container["name"] for container in pod["spec"].get("initContainers", ())}
    return "warm-disk" in names or any("hostPath" in each for each in pod["spec"]["volumes"])


def _settings(pod: Pod) -> tuple[Pod, Pod, Pod]:
    """Return the pod as it is, with the primary's context set, and with a user besides."""
    primary_set = copy.deepcopy(pod)
    primary_set["spec"]["containers"][0]["securityContext"] = dict(RESTRICTED)
    not_root = copy.deepcopy(primary_set)
    not_root["spec"]["securityContext"] = {
        **(not_root["spec"].get("securityContext") or {}),
        **NOT_ROOT,
    }
    return pod, primary_set, not_root


def _level(levels: dict[str, Namespace], pod: Pod) -> str:
    for level, namespace in levels.items():
        try:
            namespace.create("pods", pod, dryRun="All")
            return level
        except RefusedError as error:
            if "violates PodSecurity" not in str(error):
                raise
    return "privileged"


def _lowest(found: set[str]) -> str:
    return next(level for level in ("privileged", "baseline", "restricted") if level in found)
