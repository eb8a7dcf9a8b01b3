"""The pages of all cases, made once: drawing takes a second or two each."""

from __future__ import annotations

import pytest

from client.report.cases import CASES
from flytekitplugins.inference.client.report.page import document, fragment


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    pytest.importorskip("matplotlib")
    return {name: document(fragment(make())) for name, make in CASES.items()}
