"""Kubernetes quantities: what is one, what it is worth, and what was probably meant."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flytekitplugins.inference import QuantityError
from flytekitplugins.inference.pod.quantity import format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("2", Fraction(2)),
        ("+2", Fraction(2)),
        ("-1", Fraction(-1)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1.", Fraction(1)),
        ("500m", Fraction(1, 2)),
        ("100u", Fraction(1, 10_000)),
        ("1n", Fraction(1, 10**9)),
        ("1k", Fraction(1000)),
        ("20G", Fraction(20 * 10**9)),
        ("20Gi", Fraction(20 * 2**30)),
        ("1.5Ti", Fraction(3 * 2**39)),
        ("1Ei", Fraction(2**60)),
        ("1e3", Fraction(1000)),
        ("1E3", Fraction(1000)),
        ("12E-1", Fraction(12, 10)),
        ("1E", Fraction(10**18)),
    ],
)
def test_value(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("20GB", "'20G' (powers of 1000) or '20Gi' (powers of 1024)"),
        ("20gb", "'20G' (powers of 1000) or '20Gi'"),
        ("2GiB", "'2Gi' (powers of 1024)"),
        ("500MB", "'500M' (powers of 1000) or '500Mi'"),
        ("64kb", "'64k' (powers of 1000) or '64Ki'"),
        ("1 Gi", "'1Gi' (powers of 1024)"),
        (" 8 ", "Did you mean '8'?"),
        ("10bytes", "Did you mean '10'?"),
        ("1,5", "Write a number"),
        ("much", "Write a number"),
        ("", "Write a number"),
        ("1Gi\n", "'1Gi'"),
    ],
)
def test_hint(text: str, hint: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_quantity(text)
    assert repr(text) in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("value", "text"),
    [(2, "2"), (2.0, "2"), (0.5, "500m"), (1.25, "1250m"), ("250m", "250m"), (0.1, "100m")],
)
def test_format(value: object, text: str) -> None:
    assert format_quantity(value) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, None, [1], 0.0001, float("nan"), float("inf")])
def test_what_is_no_quantity_is_refused(value: object) -> None:
    with pytest.raises(QuantityError):
        format_quantity(value)  # type: ignore[arg-type]


@given(st.decimals(min_value=0, max_value=10**9, places=3))
def test_numbers_keep_their_value(number: object) -> None:
    assert parse_quantity(format_quantity(float(number))) == Fraction(str(float(number)))  # type: ignore[arg-type]
