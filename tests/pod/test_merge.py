"""The user's pod + ours: by name, add-only, a difference shows both sides."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flytekitplugins.inference import SpecConflictError
from flytekitplugins.inference.pod.merge import merge_manifests

OURS = {
    "spec": {
        "initContainers": [
            {"name": "server", "image": "s:1", "env": [{"name": "A", "value": "1"}]}
        ],
        "containers": [{"name": "primary", "resources": {}}],
        "volumes": [{"name": "shared-data", "emptyDir": {}}],
    }
}


def test_what_only_one_side_has_is_kept() -> None:
    base = {
        "metadata": {"labels": {"team": "x"}},
        "spec": {
            "nodeSelector": {"pool": "gpu"},
            "initContainers": [{"name": "warm", "image": "w:1"}],
            "containers": [
                {"name": "log", "image": "l:1"},
                {"name": "primary", "resources": {"limits": {"cpu": "1"}}},
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    }
    assert merge_manifests(base, OURS) == {
        "metadata": {"labels": {"team": "x"}},
        "spec": {
            "nodeSelector": {"pool": "gpu"},
            "initContainers": [{"name": "warm", "image": "w:1"}, *OURS["spec"]["initContainers"]],
            "containers": [
                {"name": "primary", "resources": {"limits": {"cpu": "1"}}},
                {"name": "log", "image": "l:1"},
            ],
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "shared-data", "emptyDir": {}},
            ],
        },
    }


def test_an_addition_to_a_container_of_ours_is_merged() -> None:
    base = {
        "spec": {
            "initContainers": [
                {"name": "server", "env": [{"name": "B", "value": "2"}], "stdin": True}
            ]
        }
    }
    server = merge_manifests(base, OURS)["spec"]["initContainers"][0]
    assert server["stdin"] is True
    assert server["env"] == [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]


def test_the_same_on_both_sides_is_no_conflict() -> None:
    assert merge_manifests(OURS, OURS) == OURS


def test_every_difference_is_shown_with_both_sides() -> None:
    base = {
        "spec": {
            "initContainers": [
                {"name": "server", "image": "other:2", "env": [{"name": "A", "value": "9"}]}
            ],
            "volumes": [{"name": "shared-data", "hostPath": {"path": "/x"}}],
        }
    }
    with pytest.raises(SpecConflictError) as caught:
        merge_manifests(base, OURS)
    assert list(caught.value.problems) == [
        'spec.initContainers[server].image: base has "other:2", the template has "s:1"',
        'spec.initContainers[server].env[A].value: base has "9", the template has "1"',
        'spec.volumes[shared-data]: base has {"hostPath": {"path": "/x"}, "name": "shared-data"}, '
        'the template has {"emptyDir": {}, "name": "shared-data"}',
    ]


def test_a_long_side_is_shortened() -> None:
    with pytest.raises(SpecConflictError) as caught:
        merge_manifests({"a": "x" * 5000}, {"a": "y" * 5000})
    assert len(str(caught.value)) < 1000


manifests = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from("abc"), manifests),
    st.dictionaries(st.sampled_from("def"), manifests),
)
def test_nothing_is_shared_and_nothing_is_changed(base: dict, ours: dict) -> None:
    before = copy.deepcopy((base, ours))
    merged = merge_manifests(base, ours)
    assert merged == {**base, **ours}
    _spoil(merged)
    assert (base, ours) == before


@given(st.dictionaries(st.sampled_from("abc"), manifests))
def test_merging_twice_changes_nothing(manifest: dict) -> None:
    assert merge_manifests(manifest, manifest) == manifest


def _spoil(manifest: dict) -> None:
    for value in manifest.values():
        if isinstance(value, dict):
            _spoil(value)
    manifest["spoiled"] = True
