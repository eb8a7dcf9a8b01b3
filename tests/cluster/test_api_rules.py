"""What `lint` says of a pod is what a real API server says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.api import RefusedError
from pod.api_refusals import HANGS, POD, REFUSALS, changed

if TYPE_CHECKING:
    from cluster.api import Namespace


def test_it_accepts_the_pod_of_which_the_others_are_changes(namespace: Namespace) -> None:
    namespace.create("pods", POD, dryRun="All")


@pytest.mark.parametrize("what", REFUSALS)
def test_it_refuses_what_lint_refuses(namespace: Namespace, what: str) -> None:
    with pytest.raises(RefusedError):
        namespace.create("pods", changed(REFUSALS[what][0]), dryRun="All")


@pytest.mark.parametrize("what", HANGS)
def test_it_accepts_what_no_object_can_satisfy(namespace: Namespace, what: str) -> None:
    namespace.create("pods", changed(HANGS[what][0]), dryRun="All")
