"""The grammar of models: one table, walked over by the laptop's side and by the pod's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import (
    TEI,
    VLLM,
    ConfigError,
    LlamaCpp,
    MLServer,
    Ollama,
    SGLang,
    Triton,
    VolumeModel,
)
from flytekitplugins.inference.errors import UsageError
from flytekitplugins.inference.facts.model_reference import (
    MODEL_FORMS,
    FileReference,
    HubReference,
    InputReference,
    ModelReference,
    RegistryReference,
    StoreReference,
    WebReference,
    has_scheme,
    parse_model_reference,
)
from flytekitplugins.inference.pod.model import parse_model
from flytekitplugins.inference.programs.load_model import _parser
from flytekitplugins.inference.programs.model.source import ModelSource, Selection, SourceAccess
from flytekitplugins.inference.programs.model.sources import cache_key, open_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIGNED = "https://h/m/x.gguf?X-Amz-Signature=geheim&X-Amz-Expires=60"
AZURE = "abfs://models@account.dfs.core.windows.net/qwen"
LONGEST = "n" * 96

ACCEPTED: dict[str, tuple[ModelReference, str, str]] = {
    # text: reference, what logs call it, what the model is called
    "owner/name": (HubReference(repository="owner/name"), "hf://owner/name", "owner/name"),
    "gpt2": (HubReference(repository="gpt2"), "hf://gpt2", "gpt2"),
    "hf://gpt2": (HubReference(repository="gpt2"), "hf://gpt2", "gpt2"),
    "HF://Owner/Name": (HubReference(repository="Owner/Name"), "hf://Owner/Name", "Owner/Name"),
    "o/n@v1": (HubReference(repository="o/n", revision="v1"), "hf://o/n", "o/n"),
    "o/n@refs/pr/3": (HubReference(repository="o/n", revision="refs/pr/3"), "hf://o/n", "o/n"),
    "o/n@a@b": (HubReference(repository="o/n", revision="a@b"), "hf://o/n", "o/n"),
    "o/n@zweig-ä": (HubReference(repository="o/n", revision="zweig-ä"), "hf://o/n", "o/n"),
    f"hf://o/n@{COMMIT}": (HubReference(repository="o/n", revision=COMMIT), "hf://o/n", "o/n"),
    LONGEST: (HubReference(repository=LONGEST), f"hf://{LONGEST}", LONGEST),
    "s3://bucket": (StoreReference(uri="s3://bucket"), "s3://bucket", "bucket"),
    "s3://b/p/v3/": (StoreReference(uri="s3://b/p/v3"), "s3://b/p/v3", "v3"),
    "S3://b/P": (StoreReference(uri="s3://b/P"), "s3://b/P", "P"),
    "s3a://b/p": (StoreReference(uri="s3://b/p"), "s3://b/p", "p"),
    "s3://b/möde l@v1": (StoreReference(uri="s3://b/möde l@v1"), "s3://b/möde l@v1", "möde l@v1"),
    "s3://b/x.gguf?versionId=3": (
        StoreReference(uri="s3://b/x.gguf?versionId=3"),
        "s3://b/x.gguf?...",
        "x.gguf",
    ),
    "gs://b/p": (StoreReference(uri="gs://b/p"), "gs://b/p", "p"),
    "gcs://b/p": (StoreReference(uri="gs://b/p"), "gs://b/p", "p"),
    AZURE: (StoreReference(uri=AZURE), AZURE, "qwen"),
    AZURE.replace("abfs", "abfss"): (StoreReference(uri=AZURE), AZURE, "qwen"),
    "https://h/x.gguf": (WebReference(url="https://h/x.gguf"), "https://h/x.gguf", "x.gguf"),
    "HTTPS://h/x.gguf": (WebReference(url="https://h/x.gguf"), "https://h/x.gguf", "x.gguf"),
    "http://h:8080/m/x.gguf": (
        WebReference(url="http://h:8080/m/x.gguf"),
        "http://h:8080/m/x.gguf",
        "x.gguf",
    ),
    SIGNED: (WebReference(url=SIGNED), "https://h/m/x.gguf?...", "x.gguf"),
    "https://h/a%20b%C3%A4.gguf": (
        WebReference(url="https://h/a%20b%C3%A4.gguf"),
        "https://h/a%20b%C3%A4.gguf",
        "a bä.gguf",
    ),
    "https://h/a%2Fb%0A.gguf": (
        WebReference(url="https://h/a%2Fb%0A.gguf"),
        "https://h/a%2Fb%0A.gguf",
        "a%2Fb%0A.gguf",
    ),
    "https://h/o/n/resolve/main/x.gguf": (
        WebReference(url="https://h/o/n/resolve/main/x.gguf"),
        "https://h/o/n/resolve/main/x.gguf",
        "x.gguf",
    ),
    "https://h/models/qwen/": (
        WebReference(url="https://h/models/qwen/"),
        "https://h/models/qwen/",
        "qwen",
    ),
    "models:/m/3": (RegistryReference(model="m", version=3), "models:/m", "m"),
    "Models:/m/3": (RegistryReference(model="m", version=3), "models:/m", "m"),
    "models:/a.b.c@live": (
        RegistryReference(model="a.b.c", alias="live"),
        "models:/a.b.c",
        "a.b.c",
    ),
    "models:/team@x/7": (RegistryReference(model="team@x", version=7), "models:/team@x", "team@x"),
    "models:/My Möde/1": (
        RegistryReference(model="My Möde", version=1),
        "models:/My Möde",
        "My Möde",
    ),
    "models:/m/Production": (RegistryReference(model="m", stage="Production"), "models:/m", "m"),
    "models:/m/latest": (RegistryReference(model="m", stage="latest"), "models:/m", "m"),
    "input:model": (InputReference(input="model"), "input:model", "model"),
    "input:modèle": (InputReference(input="modèle"), "input:modèle", "modèle"),
    "/data/model": (FileReference(path="/data/model"), "file:///data/model", "model"),
    "/data/model/": (FileReference(path="/data/model"), "file:///data/model", "model"),
    "file:///m": (FileReference(path="/m"), "file:///m", "m"),
    "/a?b/c@d e": (FileReference(path="/a?b/c@d e"), "file:///a?b/c@d e", "c@d e"),
}

REFUSED: dict[str, tuple[str, ...]] = {
    # text: what the error says
    "": ("is empty", "'owner/name[@revision]'"),
    "  ": ("is empty",),
    " o/n": ("' o/n' is not a model reference", "whitespace", "Write 'o/n'"),
    "o/n\n": ("whitespace", "Write 'o/n'"),
    "s3://b/a\x00b": ("control character",),
    "s3://b/a\nb": ("control character",),
    # hubs
    "not a model": ("not the name of a hub repository",),
    "ö/n": ("not the name of a hub repository",),
    "o/na--me": ("not the name of a hub repository",),
    "-x/n": ("not the name of a hub repository",),
    f"{LONGEST}n": ("not the name of a hub repository",),
    "o/n/": ("Write 'o/n'",),
    "o/n.git": ("Write 'o/n'",),
    "o/n:Q4_K_M": ("'o/n@Q4_K_M'",),
    "llama3.2:1b": ("'llama3.2@1b'",),
    "o/n/x.gguf": ("Write 'o/n' and choose 'x.gguf' by include",),
    "hub.example.com/o/n": ("Leave out the host: 'o/n'",),
    "o/n@": ("no revision follows '@'", "Write 'o/n'"),
    "o/n@a b": ("branch, tag or commit",),
    "o/n@-x": ("branch, tag or commit",),
    "o/n@a..b": ("branch, tag or commit",),
    "hf:o/n": ("two slashes", "Write 'hf://o/n'"),
    "hf://": ("not the name of a hub repository",),
    f"hf_{'geheim' * 6}": ("looks like a hub's access token",),
    # addresses
    "s3:b/p": ("two slashes", "Write 's3://b/p'"),
    "s3://": ("names no bucket", "'s3://bucket/prefix'"),
    "s3:///p": ("names no bucket",),
    "s4://b/p": ("'s4:'", "Did you mean 's3://b/p'?"),
    "ftp://h/x": ("no model can be read from 'ftp:' addresses",),
    "ftp://me:geheim@h/x?k=geheim": ("'ftp://h/x?...'",),
    "htps://me:geheim@h/x.gguf?k=geheim": ("Did you mean 'https://h/x.gguf?...'?",),
    "s3://key:geheim@b/p": ("'s3://b/p'", "user name or password", "credentials"),
    "s3://geheim@b/p": ("user name or password",),
    "abfs://me:geheim@account/p": ("user name or password",),
    "https://me:geheim@h/x.gguf": ("'https://h/x.gguf'", "user name or password"),
    "https://geheim@h/x.gguf": ("user name or password",),
    "me:geheim@h/x?sig=geheim": ("not the name of a hub repository",),
    "o/n@v?token=geheim": ("branch, tag or commit",),
    "o/n:t?token=geheim": ("not the name of a hub repository",),
    "https://h": ("names no file",),
    "https://h/": ("names no file", "'https://host/model.gguf'"),
    "https://h/?k=geheim": ("names no file",),
    "https://h/a/b/c?k=geheim": ("does not end in a file name", "index page"),
    "https://hub.example.com/Qwen/Qwen2.5-0.5B": ("web page", "'Qwen/Qwen2.5-0.5B'"),
    "https://h/o/n/tree/main": ("web page", "Write 'o/n@main'."),
    "https://h/o/n/blob/v2/q/x.gguf?download=true": ("'o/n@v2' and choose 'q/x.gguf' by include",),
    # registries
    "models:/m": ("which version", "'models:/m/3'", "'models:/m@champion'"),
    "models:/": ("which version",),
    "models:/m@": ("which version",),
    "models:/m/": ("which version",),
    "models:/a/b/3": ("which version",),
    "models:m/3": ("one slash", "Write 'models:/m/3'"),
    "models://m/3": ("one slash", "MLFLOW_TRACKING_URI"),
    "models://me:geheim@h/m": ("one slash",),
    "models:/m/0": ("no version, alias or stage",),
    "models:/m/3?k=geheim": ("no version, alias or stage",),
    "models:/m?k=geheim": ("which version",),
    # inputs and paths
    "input:": ("input of a task",),
    "input:a b": ("input of a task",),
    "input:model/": ("Write 'input:model'",),
    "file:m": ("two slashes", "Write 'file:///m'"),
    "file:/m": ("two slashes", "Write 'file:///m'"),
    "file://m": ("must be absolute", "Write 'file:///m'"),
    "file:///": ("root of the file system",),
    "/": ("root of the file system",),
    "~/model": ("'~'", "absolute path"),
    "~me/model": ("'~'",),
    "./model": ("relative path", "absolute path"),
    "../model": ("relative path",),
    ".": ("relative path",),
    "C:\\models\\x": ("Windows path", "'/mnt/c/models/x'"),
    "c:/models/x": ("Windows path",),
    "\\\\host\\share": ("Windows path",),
}


def access(**environ: str) -> SourceAccess:
    return SourceAccess(environ=environ, connections=1, stall_seconds=1)


def opened(text: str, *, revision: str = "") -> ModelSource:
    return open_source(text, access=access(), staging=Path("/staging"), revision=revision)


@pytest.mark.parametrize("text", ACCEPTED)
def test_both_sides_accept(text: str) -> None:
    reference, label, name = ACCEPTED[text]
    assert parse_model_reference(text) == reference
    assert parse_model_reference(reference.text) == reference
    assert (reference.label, reference.name) == (label, name)

    model = parse_model(text)
    assert not isinstance(model, VolumeModel)
    assert list(model.problems()) == []
    assert model.name == name

    source = opened(text)
    assert (source.label, source.name) == (label, name)
    words = model.source  # as the compiler hands the model to the loader
    revision = words[words.index("--revision") + 1] if "--revision" in words else ""
    handed = opened(words[0], revision=revision)
    assert type(handed) is type(source)
    for fact in ("label", "name", "identity", "ref", "is_pinned"):
        assert getattr(handed, fact) == getattr(source, fact)


@pytest.mark.parametrize("text", REFUSED)
def test_both_sides_refuse_in_the_same_words(text: str) -> None:
    with pytest.raises(ConfigError) as laptop:
        parse_model(text)
    with pytest.raises(UsageError) as pod:
        opened(text)
    assert (laptop.value.message, laptop.value.hint) == (pod.value.message, pod.value.hint)
    for words in REFUSED[text]:
        assert words in str(laptop.value)
    assert "geheim" not in str(laptop.value)


@pytest.mark.parametrize("text", [text for text in (*ACCEPTED, *REFUSED) if "geheim" in text])
def test_a_secret_is_in_no_label(text: str) -> None:
    if text in ACCEPTED:
        assert "geheim" not in opened(text).label + opened(text).name
        assert "geheim" not in cache_key(opened(text), Selection())


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("https://h/x.gguf?id=1", "https://h/x.gguf?id=2", False),
        ("s3://b/x.gguf?versionId=1", "s3://b/x.gguf?versionId=2", False),
        ("abfs://a@account/m", "abfs://b@account/m", False),
        ("s3a://b/m/", "s3://b/m", True),
        ("o/n@v1", "hf://o/n@v2", True),  # one directory of the cache for all their versions
        ("models:/m/3", "models:/m@live", True),
        ("/m", "file:///m", True),
    ],
)
def test_the_cache_tells_models_apart(one: str, other: str, is_same: bool) -> None:
    keys = [cache_key(opened(text), Selection()) for text in (one, other)]
    assert (keys[0] == keys[1]) is is_same


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://o/n", True),
        ("S3A://b/p", True),
        ("input:model", True),
        ("models:/m/3", True),
        ("/models/x", True),
        ("https://h/x.gguf", True),
        ("o/n", False),
        ("llama3.2:1b", False),
        ("hub.example.com/o/n:Q4_K_M", False),
        ("models:7b", False),
        ("s3:latest", False),
    ],
)
def test_a_scheme_tells_a_reference_from_a_name(text: str, expected: bool) -> None:
    """Ollama's own names have tags behind ':', which are no schemes."""
    assert has_scheme(text) is expected


def test_a_revision_is_given_once() -> None:
    assert opened("o/n", revision="v2").ref == "v2"
    assert opened("o/n@v2", revision="v2").ref == "v2"
    assert opened("o/n").ref == "main"
    assert opened(f"o/n@{COMMIT}").is_pinned
    with pytest.raises(UsageError, match="another revision"):
        opened("o/n@v1", revision="v2")


def test_what_a_form_lists_is_accepted() -> None:
    for form in MODEL_FORMS:
        for text in form.texts:
            assert parse_model_reference(text.replace("[@revision]", "@revision"))


def test_help_and_documents_list_every_form() -> None:
    package = Path(__file__).parents[2] / "plugins" / "flytekitplugins-inference"
    pages = {
        "--help": _parser().format_help(),
        "docs/model-loader.md": (package / "docs" / "model-loader.md").read_text(),
        "README.md": (package / "README.md").read_text(),
    }
    texts = [text for form in MODEL_FORMS for text in form.texts]
    wanted: dict[str, Any] = dict.fromkeys(("--help", "docs/model-loader.md"), texts)
    wanted["README.md"] = [form.texts[0] for form in MODEL_FORMS]
    for page, forms in wanted.items():
        missing = [form for form in forms if not re.search(re.escape(form), pages[page])]
        assert not missing, page


@pytest.mark.parametrize(
    "describe",
    [
        lambda model: VLLM(model=model, arg_dict={"model": "a/b"}),
        lambda model: SGLang(model=model, arg_dict={"model_path": "a/b"}),
        lambda model: TEI(model=model, arg_dict={"model_id": "a/b"}),
        lambda model: LlamaCpp(model=model, arg_dict={"hf_repo": "a/b"}),
        lambda model: MLServer(model=model, model_repository="/x", update_interval=1),
        lambda model: Triton(model=model, model_repository="/x", update_interval=1),
        lambda model: Ollama(model=model, env={"OLLAMA_HOST": "0"}),
        lambda model: VLLM(model="a/b", lora_adapters={"not a name": model}),
    ],
)
@pytest.mark.parametrize("model", [SIGNED, parse_model(SIGNED)], ids=["text", "type"])
def test_no_error_shows_a_signature(describe: Callable[[Any], object], model: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(model)
    assert "geheim" not in str(caught.value)
