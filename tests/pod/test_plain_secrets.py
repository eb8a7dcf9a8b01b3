"""One rule finds secrets in plain text at every door through which they can come into a pod."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from flytekitplugins.inference import VLLM, ConfigError, LlamaCpp, ModelInferenceTemplate
from flytekitplugins.inference.pod.plain_secrets import secrets_in_variable, secrets_in_words

PLAIN = "opensesame1"
"""Looks like nothing; only where it stands tells that it is a secret."""
TOKEN = "ghp_" + "a1B2" * 9

VARIABLES: list[tuple[str, str]] = [
    *((name, PLAIN) for name in ("API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "DB_PASSWORD")),
    *((name, PLAIN) for name in ("AWS_SECRET_ACCESS_KEY", "CLIENT_SECRET", "SECRET_SALT")),
    *((name, PLAIN) for name in ("my_apikey", "MLFLOW_TRACKING_TOKEN", "GCP_CREDENTIALS")),
    ("HTTPS_PROXY", f"http://me:{PLAIN}@proxy:3128"),
    ("DATABASE_URL", f"postgresql+psycopg://me:{PLAIN}@db/x"),
    ("CONFIG", f'{{"password": "{PLAIN}"}}'),
    ("CONFIG", f"{{'s3_secret_access_key': '{PLAIN}'}}"),
    ("NOTE", TOKEN),
    ("NOTE", "-----BEGIN RSA PRIVATE KEY-----"),
]
NO_VARIABLES: list[tuple[str, str]] = [
    ("HF_TOKEN", "$(_FSEC_HF_TOKEN)"),
    ("HF_TOKEN", ""),
    ("HF_TOKEN_PATH", "/secrets/token"),
    ("TOKEN", "/var/run/token"),
    ("SECRET_NAME", "my-secret"),
    ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
    ("OPENAI_API_KEY", "EMPTY"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("MAX_TOKENS", "4096"),
    ("HTTPS_PROXY", "http://$(USER):$(PASSWORD)@proxy:3128"),
    ("HTTPS_PROXY", "http://proxy:3128"),
    ("CONFIG", '{"eos_token": "</s>", "password": "$(PASSWORD)"}'),
]
WORDS: list[list[str]] = [
    *([option, PLAIN] for option in ("--api-key", "--api_key", "--hf-token", "--token")),
    *([option, PLAIN] for option in ("--admin-api-key", "--ssl-keyfile-password", "--secret")),
    [f"--api-key={PLAIN}"],
    ["sh", "-c", f"vllm serve --api-key {PLAIN}"],
    ["sh", "-c", f"HF_TOKEN={PLAIN} vllm serve"],
    ["--backend-store-uri", f"postgresql://me:{PLAIN}@db/x"],
    ["--config", f'{{"api_key": "{PLAIN}"}}'],
    [TOKEN],
]
NO_WORDS: list[list[str]] = [
    [],
    ["--api-key", "$(KEY)"],
    ["--api-key=$(KEY)"],
    ["--api-key", "--port", "8000"],
    ["--api-key"],
    ["sh", "-c", 'vllm serve --api-key "$KEY"'],
    ["--token-env", "KEY"],
    ["--require-env", "NGC_API_KEY"],
    ["--eos-token", "</s>"],
    ["--max-num-batched-tokens", "8192"],
    ["--api-key-file", "/secrets/key"],
    ["--override", '{"eos_token": "</s>"}'],
]


@pytest.mark.parametrize(("name", "value"), VARIABLES)
def test_a_variable_that_holds_a_secret(name: str, value: str) -> None:
    (problem,) = secrets_in_variable(name, value)
    assert repr(name) in problem
    assert PLAIN not in problem
    assert TOKEN not in problem


@pytest.mark.parametrize(("name", "value"), NO_VARIABLES)
def test_a_variable_that_holds_none(name: str, value: str) -> None:
    assert list(secrets_in_variable(name, value)) == []


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_words_that_hold_a_secret(words: list[str]) -> None:
    (problem,) = secrets_in_words(["server", *words, "--verbose"])
    assert PLAIN not in problem
    assert TOKEN not in problem


@pytest.mark.parametrize("words", NO_WORDS, ids=" ".join)
def test_words_that_hold_none(words: list[str]) -> None:
    assert list(secrets_in_words(["server", *words])) == []


PROXY = {"HTTPS_PROXY": f"http://me:{PLAIN}@proxy:3128"}
PRIMARY = {"name": "primary", "env": [{"name": "API_KEY", "value": PLAIN}]}
DOORS: dict[str, Callable[..., Any]] = {
    "env": lambda **more: ModelInferenceTemplate(env={"MY_TOKEN": PLAIN}, **more),
    "env, a URL": lambda **more: ModelInferenceTemplate(env=PROXY, **more),
    "args": lambda **more: ModelInferenceTemplate(args=["--api-key", PLAIN], **more),
    "command": lambda **more: ModelInferenceTemplate(command=["s", f"--token={PLAIN}"], **more),
    "args of a server": lambda **more: VLLM(args=["--api-key", PLAIN], **more),
    "arg_dict": lambda **more: VLLM(arg_dict={"api_key": PLAIN}, **more),
    "arg_dict, JSON": lambda **more: VLLM(
        arg_dict={"kv_transfer_config": {"password": PLAIN}}, **more
    ),
    "model_loader_env": lambda **more: ModelInferenceTemplate(
        model="s3://b/m", model_loader_env={"MLFLOW_TRACKING_PASSWORD": PLAIN}, **more
    ),
    "model_loader_env, a URL": lambda **more: ModelInferenceTemplate(
        model="s3://b/m", model_loader_env=PROXY, **more
    ),
    "model": lambda **more: ModelInferenceTemplate(model=f"https://me:{PLAIN}@host/m", **more),
    "base": lambda **more: ModelInferenceTemplate(base={"spec": {"containers": [PRIMARY]}}, **more),
}


@pytest.mark.parametrize("start", [None, 60])
@pytest.mark.parametrize("door", DOORS)
def test_every_door_is_closed(door: str, start: int | None) -> None:
    with pytest.raises(ConfigError) as caught:
        DOORS[door](image="s:1", gpu=0, startup_timeout=start)
    assert PLAIN not in str(caught.value)
    assert re.search("secret|token|password", str(caught.value))


@pytest.mark.parametrize("args", [["--tools", "all"], ["--tools=all"], ["--ui-mcp-proxy"]])
def test_an_option_that_gives_the_pod_away_is_refused_in_args_too(args: list[str]) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        LlamaCpp(model="s3://b/m.gguf", gpu=0, args=args)
