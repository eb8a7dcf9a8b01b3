"""Plain texts that stand for models, and what each source tells the loader."""

from __future__ import annotations

import pytest

from flytekitplugins.inference import (
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
            ObjectStoreModel(uri="s3://bucket/models/v3/"),
            "v3",
            ("s3://bucket/models/v3/",),
        ),
        ("gs://bucket/m", ObjectStoreModel(uri="gs://bucket/m"), "m", ("gs://bucket/m",)),
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
    "text", ["", "gpt2", "a/b/c", "ftp://x/y", "models:/x", "models:/x/latest", "/models/x"]
)
def test_no_model(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_model(text)
    assert repr(text) in str(caught.value)
    assert "'owner/name'" in caught.value.hint


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
