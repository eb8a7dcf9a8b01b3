"""`check --cluster`, against the API of a stub."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.cli.commands import main

from .stub_cluster import ANSWERS, NAMESPACE, NODE, kubeconfig, stub_cluster

FLOWS = str(Path(__file__).parent / "flows.py")


def ask(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    answers: dict[str, Any],
) -> tuple[int, list[dict[str, str]]]:
    """Return the exit code, and the findings, of a check of `flows:llm` in the namespace `team`."""
    with stub_cluster(folder, {**ANSWERS, **answers}) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        # the module reads the variable when it is imported
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        code = main(["check", f"{FLOWS}:llm", "--context", "stub", "--namespace", "team", "--json"])
    return code, json.loads(capsys.readouterr().out)["findings"]


def quota(hard: dict[str, str], used: dict[str, str]) -> dict[str, Any]:
    item = {"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}}
    return {f"{NAMESPACE}/resourcequotas": {"items": [item]}}


def limit_range(**entry: Any) -> dict[str, Any]:
    item = {"metadata": {"name": "lr"}, "spec": {"limits": [{"type": "Container", **entry}]}}
    return {f"{NAMESPACE}/limitranges": {"items": [item]}}


def node(**allocatable: str) -> dict[str, Any]:
    named = {name.replace("_", "."): amount for name, amount in allocatable.items()}
    resources = {**NODE["status"]["allocatable"], **named}
    return {
        "/api/v1/nodes": {
            "items": [{"metadata": {"name": "n"}, "status": {"allocatable": resources}}]
        }
    }


def test_a_cluster_with_everything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, findings = ask(capsys, monkeypatch, tmp_path, {})
    assert code == 0
    assert {one["check"]: one["text"] for one in findings if one["status"] == "ok"} == {
        "lint": "Kubernetes accepts the pod.",
        "pod security": "team enforces privileged, which the pod meets.",
        "sidecars": "Kubernetes 1.36 has native sidecars.",
        "secrets": "The secret huggingface exists.",
        "nodes": "A node is large enough for the pod, apart from what runs there.",
    }


@pytest.mark.parametrize(
    ("answers", "check", "part"),
    [
        (
            {"/version/": {"major": "1", "minor": "28", "gitVersion": "v1.28"}},
            "sidecars",
            "1.28 has no native",
        ),
        ({NAMESPACE: 404}, "namespace", "no namespace team"),
        (
            {
                NAMESPACE: {
                    "metadata": {
                        "name": "team",
                        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
                    }
                }
            },
            "pod security",
            "team enforces restricted, and the pod is baseline",
        ),
        (
            {f"{NAMESPACE}/secrets/huggingface": 404},
            "secrets",
            "kubectl create secret generic huggingface --from-literal=token=… -n team",
        ),
        (
            {f"{NAMESPACE}/secrets/huggingface": {"metadata": {"name": "huggingface"}, "data": {}}},
            "secrets",
            "lacks token",
        ),
        (quota({"requests.cpu": "2"}, {}), "quota", "needs 4 requests.cpu, the whole quota is 2"),
        (quota({"cpu": "8"}, {"cpu": "6"}), "quota", "needs 4 cpu, 2 of 8 is left now"),
        (quota({"limits.memory": "8Gi"}, {}), "quota", "needs 16Gi limits.memory"),
        (
            quota({"requests.nvidia.com/gpu": "1"}, {"requests.nvidia.com/gpu": "1"}),
            "quota",
            "needs 1 requests.nvidia.com/gpu, 0 of 1",
        ),
        (quota({"pods": "1"}, {"pods": "1"}), "quota", "needs 1 pods, 0 of 1"),
        (
            limit_range(min={"memory": "1Gi"}),
            "limit range",
            "input-downloader has 500Mi memory, less than the least of 1Gi",
        ),
        (
            limit_range(max={"cpu": "3"}),
            "limit range",
            "model-server has 4 cpu, more than 3",
        ),
        (node(cpu="3"), "nodes", "n lacks 4 cpu (has 3)"),
        (
            {
                "/api/v1/nodes": {
                    "items": [
                        {
                            "metadata": {"name": "n"},
                            "status": {"allocatable": {"cpu": "64", "memory": "256Gi"}},
                        }
                    ]
                }
            },
            "nodes",
            "n lacks 1 nvidia.com/gpu (has 0)",
        ),
    ],
)
def test_what_a_cluster_lacks(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    answers: dict[str, Any],
    check: str,
    part: str,
) -> None:
    code, findings = ask(capsys, monkeypatch, tmp_path, answers)
    assert code == 1
    problems = [one for one in findings if one["status"] == "problem"]
    assert [one["check"] for one in problems] == [check]
    assert part in problems[0]["text"]


@pytest.mark.parametrize(
    ("answers", "check"),
    [
        (quota({"cpu": "8", "memory": "64Gi"}, {"cpu": "4"}), "quota"),
        (quota({"services": "0"}, {}), "quota"),
        (limit_range(min={"memory": "100Mi"}, max={"cpu": "8"}), "limit range"),
    ],
)
def test_what_suffices_is_no_problem(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    answers: dict[str, Any],
    check: str,
) -> None:
    code, findings = ask(capsys, monkeypatch, tmp_path, answers)
    assert code == 0
    assert not [one for one in findings if one["check"] == check and one["status"] == "problem"]


@pytest.mark.parametrize(
    ("path", "check"),
    [
        ("/version/", "sidecars"),
        (NAMESPACE, "namespace"),
        (f"{NAMESPACE}/secrets/huggingface", "secrets"),
        (f"{NAMESPACE}/resourcequotas", "quota"),
        (f"{NAMESPACE}/limitranges", "limit range"),
        ("/api/v1/nodes", "nodes"),
    ],
)
@pytest.mark.parametrize("status", [401, 403])
def test_what_may_not_be_read_is_a_note(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    path: str,
    check: str,
    status: int,
) -> None:
    code, findings = ask(capsys, monkeypatch, tmp_path, {path: status})
    assert code == 0
    notes = [one["text"] for one in findings if (one["check"], one["status"]) == (check, "note")]
    assert any("may not read" in text for text in notes)


def test_a_cluster_that_does_not_answer_ends_with_69(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        path = kubeconfig(tmp_path, unused.getsockname()[1])
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        assert main(["check", f"{FLOWS}:llm", "--cluster"]) == 69
    assert "does not answer" in capsys.readouterr().err


def test_a_context_that_does_not_exist_ends_with_78(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path, 1)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    assert main(["check", f"{FLOWS}:llm", "--context", "other"]) == 78
    assert "kubectl config get-contexts" in capsys.readouterr().err
