"""Plain texts that stand for models, and what each source tells the loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from flytekitplugins.inference import (
    VLLM,
    ConfigError,
    HuggingFaceModel,
    ObjectStoreModel,
    RegisteredModel,
    TaskInputModel,
    VolumeModel,
)
from flytekitplugins.inference.pod.model import Model, parse_model, path_of


@pytest.mark.parametrize(
    ("text", "model", "name", "source"),
    [
        (
            "Qwen/Qwen2.5-0.5B",
            HuggingFaceModel(repo="Qwen/Qwen2.5-0.5B"),
            "Qwen/Qwen2.5-0.5B",
            ("hf://Qwen/Qwen2.5-0.5B",),
        ),
        (
            "hf://a/b@main",
            HuggingFaceModel(repo="a/b", revision="main"),
            "a/b",
            ("hf://a/b", "--revision", "main"),
        ),
        (
            "s3://bucket/models/v3/",
            ObjectStoreModel(uri="s3://bucket/models/v3"),
            "v3",
            ("s3://bucket/models/v3",),
        ),
        ("gs://bucket/m", ObjectStoreModel(uri="gs://bucket/m"), "m", ("gs://bucket/m",)),
        (
            "https://h/x.gguf?sig=geheim",
            ObjectStoreModel(uri="https://h/x.gguf?sig=geheim"),
            "x.gguf",
            ("https://h/x.gguf?sig=geheim",),
        ),
        ("/data/m", ObjectStoreModel(uri="file:///data/m"), "m", ("file:///data/m",)),
        ("gpt2", HuggingFaceModel(repo="gpt2"), "gpt2", ("hf://gpt2",)),
        (
            "models:/fraud/Production",
            RegisteredModel(name="fraud", stage="Production"),
            "fraud",
            ("models:/fraud/Production",),
        ),
        (
            "models:/fraud/3",
            RegisteredModel(name="fraud", version=3),
            "fraud",
            ("models:/fraud/3",),
        ),
        (
            "models:/fraud@live",
            RegisteredModel(name="fraud", alias="live"),
            "fraud",
            ("models:/fraud@live",),
        ),
        ("input:weights", TaskInputModel(input="weights"), "weights", ("input:weights",)),
    ],
)
def test_text(text: str, model: Model, name: str, source: tuple[str, ...]) -> None:
    parsed = parse_model(text)
    assert parsed == model
    assert parsed.name == name
    assert not isinstance(parsed, VolumeModel)
    assert parsed.source == source
    assert list(parsed.problems()) == []


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (HuggingFaceModel(repo="a/b/c"), "not the name of a hub repository"),
        (HuggingFaceModel(repo="hf://a/b"), "not the name of a hub repository"),
        (HuggingFaceModel(repo="a/b", revision=""), "no revision follows '@'"),
        (HuggingFaceModel(repo="a/b", revision="x y"), "no branch, tag or commit"),
        (ObjectStoreModel(uri="s3://"), "it names no bucket"),
        (ObjectStoreModel(uri="bucket/prefix"), "'hf://bucket/prefix' is no address of a store"),
        (ObjectStoreModel(uri="models:/m/3"), "'models:/m' is no address of a store"),
        (ObjectStoreModel(uri=Path("/m")), "must be a text, not a PosixPath"),  # type: ignore[arg-type]
        (ObjectStoreModel(uri="https://me:geheim@h/x.gguf"), "user name or password"),
        (ObjectStoreModel(uri="file:///models/x"), "is a VolumeModel(volume=…, path=…)"),
        (ObjectStoreModel(uri="/model-cache"), "is a VolumeModel(volume=…, path=…)"),
        (RegisteredModel(name="m"), "needs exactly one of version, alias and stage"),
        (RegisteredModel(name="m", version=1, stage="x"), "exactly one of version, alias"),
        (RegisteredModel(name="a/b", version=1), "does not say which version"),
        (RegisteredModel(name="m", alias="a b"), "no version, alias or stage"),
        (TaskInputModel(input="a b"), "no input of a task can have this name"),
    ],
)
def test_a_wrong_model_is_refused(model: Model, problem: str) -> None:
    assert not isinstance(model, VolumeModel)
    problems = list(model.problems())
    assert len(problems) == 1
    assert problem in problems[0]
    assert "geheim" not in problems[0]


@pytest.mark.parametrize("path", ["/models-of-mine/x", "/modelsx", "/data/models"])
def test_only_the_loaders_own_directories_are_refused(path: str) -> None:
    assert list(ObjectStoreModel(uri=path).problems()) == []


def test_patterns() -> None:
    model = HuggingFaceModel(repo="a/b", include=("*.json", "*.safetensors"), exclude=("*.pth",))
    expected = (
        "hf://a/b",
        "--include",
        "*.json",
        "--include",
        "*.safetensors",
        "--exclude",
        "*.pth",
    )
    assert model.source == expected


def test_paths() -> None:
    assert path_of(parse_model("a/b")) == "/models/current"
    assert path_of(VolumeModel(volume={"emptyDir": {}})) == "/models"
    assert path_of(VolumeModel(volume={"emptyDir": {}}, path="qwen/7b")) == "/models/qwen/7b"


@pytest.mark.parametrize("source", ["s3://adapters/sql", "models:/sql/3", "abfs://c@a/sql"])
def test_adapters_of_a_store_need_an_image_that_reads_it(source: str) -> None:
    """The plain Python image that brings adapters otherwise gets the hub's client and no other."""
    with pytest.raises(ConfigError, match=r"The adapter 'sql' \(.*helper image"):
        VLLM(arg_dict={"model": "a/b"}, lora_adapters={"sql": source}).manifest  # noqa: B018


@pytest.mark.parametrize("source", ["a/b@v1", "https://h/sql/", "/data/sql"])
def test_adapters_of_a_hub_need_none(source: str) -> None:
    template = VLLM(arg_dict={"model": "a/b"}, lora_adapters={"sql": source})
    names = [container["name"] for container in template.manifest["spec"]["initContainers"]]
    assert "download-loras" in names
