"""What an editor shows of the public classes, asked from the language server of `dev/check`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCE = """\
from flytekitplugins.inference import VLLM, Triton

llm = VLLM(model="owner/name", mem="16Gi", startup_timeout=600)
llm.client(timeout=1).chat.completions
llm.batch([], deadline=3)
llm.client().
Triton().async_client().
VLLM()
llm.client(t)
llm.batch([], w)
"""
SERVER = Path(sys.executable).with_name("basedpyright-langserver")


class Editor:
    """One document in a language server, by the Language Server Protocol 3.17."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._requests = 0
        self._lines = SOURCE.splitlines()
        document = directory / "document.py"
        document.write_text(SOURCE)
        (directory / "pyrightconfig.json").write_text("{}")
        self._document = {"uri": document.as_uri()}
        folder = {"uri": directory.as_uri(), "name": "editor"}
        settings = {"workspace": {"configuration": True, "workspaceFolders": True}}
        self._ask("initialize", processId=None, workspaceFolders=[folder], capabilities=settings)
        self._tell("initialized")
        text = {**self._document, "languageId": "python", "version": 1, "text": SOURCE}
        self._tell("textDocument/didOpen", textDocument=text)

    def hover(self, line: str, word: str) -> str:
        """Return what is shown when the pointer rests on a word."""
        answer = self._ask("textDocument/hover", **self._position(line, word))
        return " ".join(answer["contents"]["value"].split()) if answer else ""

    def completions(self, line: str, typed: str) -> set[str]:
        """Return what is offered behind what has been typed."""
        answer = self._ask("textDocument/completion", **self._position(line, typed, behind=True))
        return {item["label"] for item in answer["items"]}

    def close(self) -> None:
        """End the server."""
        self._ask("shutdown")
        self._tell("exit")
        self._process.communicate()

    def _position(self, line: str, text: str, *, behind: bool = False) -> dict[str, Any]:
        number = next(i for i, one in enumerate(self._lines) if one.startswith(line))
        character = self._lines[number].index(text) + (len(text) if behind else 0)
        position = {"line": number, "character": character}
        return {"textDocument": self._document, "position": position}

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._requests += 1
        self._send(id=self._requests, method=method, params=parameters)
        while True:
            message = self._receive()
            if "method" not in message and message["id"] == self._requests:
                return message["result"]
            if message.get("method") == "workspace/configuration":
                settings = [{"pythonPath": sys.executable}] * len(message["params"]["items"])
                self._send(id=message["id"], result=settings)
            elif "id" in message:
                self._send(id=message["id"], result=None)

    def _tell(self, method: str, **parameters: Any) -> None:
        self._send(method=method, params=parameters)

    def _send(self, **message: Any) -> None:
        assert self._process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        size = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            size = int(value) if name.lower() == b"content-length" else size
        assert size, "the language server has ended"
        message: dict[str, Any] = json.loads(self._process.stdout.read(size))
        return message


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    if not SERVER.exists():
        pytest.skip(f"{SERVER.name} is not installed")
    editor = Editor(tmp_path_factory.mktemp("editor"))
    yield editor
    editor.close()


@pytest.mark.parametrize(
    ("line", "word", "meaning"),
    [
        ("llm =", "model", "The model to bring"),
        ("llm =", "mem", "Memory; requests and limits."),
        ("llm =", "startup_timeout", "Seconds that the whole start may take"),
        ("llm =", "VLLM", "A vLLM server beside a task."),
        ("llm.client(timeout", "timeout", "Default: 120."),
        ("llm.client(timeout", "client", "(default 120;"),
        ("llm.batch([], d", "deadline", "Seconds that one request may take. Default: 60."),
        ("llm.batch([], d", "batch", "(default 512)"),
    ],
)
def test_the_pointer_shows_meaning_and_unit(
    editor: Editor, line: str, word: str, meaning: str
) -> None:
    assert meaning in editor.hover(line, word)


def test_the_pointer_shows_defaults(editor: Editor) -> None:
    shown = editor.hover("llm =", "VLLM")
    assert 'mem: str = "10Gi"' in shown
    assert "gpu: int = 1" in shown


@pytest.mark.parametrize(
    ("line", "typed", "offered"),
    [
        ("llm.client().", "llm.client().", {"chat", "embeddings", "models"}),
        ("Triton()", "async_client().", {"infer", "metadata", "ready"}),
        ("VLLM()", "VLLM(", {"model=", "startup_timeout=", "arg_dict="}),
        ("llm.client(t)", "llm.client(t", {"timeout=", "outage_seconds="}),
        ("llm.batch([], w", "[], w", {"work="}),
    ],
)
def test_what_is_typed_is_completed(
    editor: Editor, line: str, typed: str, offered: set[str]
) -> None:
    assert offered <= editor.completions(line, typed)
