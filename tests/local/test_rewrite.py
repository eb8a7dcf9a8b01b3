"""The rules for text, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flytekitplugins.inference.local.plan import rewrite

MOUNTS = {"/shared": "/p/shared", "/shared/models": "/p/models", "/tmp": "/p/tmp"}
PORTS = {8000: 45001, 9: 45002}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/shared", "/p/shared"),
        ("/shared/", "/p/shared/"),
        ("/shared/inputs.json", "/p/shared/inputs.json"),
        ("/shared/models/a", "/p/models/a"),
        ("/shared/modelsque", "/p/shared/modelsque"),
        ("file:///shared/x", "file:///p/shared/x"),
        ("--model=/shared/m", "--model=/p/shared/m"),
        ("a,/tmp/x:/tmp/y", "a,/p/tmp/x:/p/tmp/y"),
        ('{"path": "/tmp/x"}', '{"path": "/p/tmp/x"}'),
        ("cat /shared/a>/tmp/b; ls '/tmp'", "cat /p/shared/a>/p/tmp/b; ls '/p/tmp'"),
        ("${X:-/tmp/x}", "${X:-/p/tmp/x}"),
        ("/shared-data", "/shared-data"),
        ("/shared.json", "/shared.json"),
        ("/sharedness", "/sharedness"),
        ("/data/shared/x", "/data/shared/x"),
        ("./tmp/x ~/tmp $HOME/tmp $(HOME)/tmp", "./tmp/x ~/tmp $HOME/tmp $(HOME)/tmp"),
        ("http://example.org/shared/x", "http://example.org/shared/x"),
        ("s3://shared/x", "s3://shared/x"),
        ("", ""),
    ],
)
def test_mount_paths_are_replaced_at_path_boundaries(text: str, expected: str) -> None:
    assert rewrite.map_paths(text, MOUNTS) == expected


def test_a_private_directory_below_a_mount_path_is_not_mapped_again() -> None:
    assert (
        rewrite.map_paths("/tmp/a /tmp", {"/tmp": "/tmp/pod/tmp"}) == "/tmp/pod/tmp/a /tmp/pod/tmp"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--port=8000", "--port=45001"),
        ("--http-port=8000", "--http-port=45001"),
        ("--server.port=8000", "--server.port=45001"),
        ("--httpPort=8000", "--httpPort=45001"),
        ("exec serve --port 8000 --len 8000", "exec serve --port 45001 --len 8000"),
        ("exec serve -p 8000", "exec serve -p 45001"),
        ("HTTP_PORT=8000 exec serve", "HTTP_PORT=45001 exec serve"),
        ("serve(port=8000)", "serve(port=45001)"),
        ("http://localhost:8000/x", "http://localhost:45001/x"),
        ("http://localhost:8000", "http://localhost:45001"),
        ("0.0.0.0:8000", "0.0.0.0:45001"),
        ("127.0.0.1:8000,127.0.0.1:8001", "127.0.0.1:45001,127.0.0.1:8001"),
        ("http://[::1]:8000/", "http://[::1]:45001/"),
        ("tcp://*:8000", "tcp://*:45001"),
        (":8000", ":45001"),
        ("--listen=:8000", "--listen=:45001"),
        ("8000", "8000"),
        ("--max-model-len=8000", "--max-model-len=8000"),
        ("--report=8000 --transport-size 8000", "--report=8000 --transport-size 8000"),
        ("--port=80001 --port=18000", "--port=80001 --port=18000"),
        ("https://example.org:8000/x", "https://example.org:8000/x"),
        ("registry/image:8000", "registry/image:8000"),
        ("port 8000", "port 8000"),
        ("12:8000", "12:8000"),
    ],
)
def test_a_number_is_a_port_only_where_the_text_says_so(text: str, expected: str) -> None:
    assert rewrite.map_ports(text, PORTS) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--port", "8000"], ["--port", "45001"]),
        (["-p", "8000"], ["-p", "45001"]),
        (["--grpc_port", "9", "--rank", "9"], ["--grpc_port", "45002", "--rank", "9"]),
        (["--max-model-len", "8000"], ["--max-model-len", "8000"]),
        (["--report-every", "8000"], ["--report-every", "8000"]),
        (["port", "8000"], ["port", "8000"]),
        (["--port", "8001"], ["--port", "8001"]),
        (["--port", "$(PORT)", "8000"], ["--port", "$(PORT)", "8000"]),
    ],
)
def test_a_port_may_be_the_word_after_its_flag(words: list[str], expected: list[str]) -> None:
    assert rewrite.map_port_words(words, PORTS) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("INFERENCE_PORT", "8000", "45001"),
        ("PORT", "8000", "45001"),
        ("REPORT_LIMIT", "8000", "8000"),
        ("MAX_LEN", "8000", "8000"),
        ("OLLAMA_HOST", "0.0.0.0:8000", "0.0.0.0:45001"),
        ("URL", "http://localhost:8000/v1", "http://localhost:45001/v1"),
    ],
)
def test_ports_in_variables(name: str, value: str, expected: str) -> None:
    assert rewrite.map_port_variable(name, value, PORTS) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$(A$$", "$(A$"),
        ("a$$b", "a$b"),
    ],
)
def test_references_are_expanded_as_by_the_kubelet(text: str, expected: str) -> None:
    assert rewrite.expand(text, {"A": "1", "B": "2"}) == expected


@pytest.mark.parametrize("text", ["{{.input}}", "{{ .Input }}", "{{$input}}", "{{ .INPUT}}"])
def test_template_variables_have_four_spellings(text: str) -> None:
    assert rewrite.fill_variables(f"a{text}b", {"input": "/x"}) == "a/xb"


def test_other_templates_stay() -> None:
    text = "{{ messages }} {{ .outputPrefix }} {{input}}"
    assert rewrite.fill_variables(text, {"input": "/x"}) == text
    assert rewrite.unfilled_variables(text) == ("outputPrefix",)


@given(st.text(alphabet="ab/$(){}:=-. 8000", max_size=40))
def test_nothing_to_replace_changes_nothing(text: str) -> None:
    assert rewrite.map_paths(text, {}) == text
    assert rewrite.map_ports(text, {}) == text
    assert rewrite.fill_variables(text, {}) == text
