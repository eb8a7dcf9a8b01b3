"""Kubernetes quantities: `500m`, `2`, `1Gi`.

Grammar: k8s.io/apimachinery `pkg/api/resource/quantity.go` (v0.31), `<quantity> ::=
<signedNumber><suffix>`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ..errors import QuantityError

__all__ = ["format_quantity", "parse_quantity"]

_SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{
        suffix: Fraction(1000 ** (power + 1))
        for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"))
    },
    **{
        suffix: Fraction(1024 ** (power + 1))
        for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
    },
}
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_QUANTITY = re.compile(rf"({_NUMBER})(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i)?)\Z")
_LOOKS_LIKE = re.compile(rf"({_NUMBER})\s*([kmgtpe])?(i)?b?(?:ytes?)?\Z", re.IGNORECASE)


def parse_quantity(text: str) -> Fraction:
    """Return the exact value of a Kubernetes quantity, in its base unit (bytes, cores, pieces).

    Args:
        text: For example `"500m"` (half a core), `"20Gi"` (bytes) or `"1e3"`.

    Raises:
        QuantityError: If `text` is not a quantity; the hint names what was probably meant.
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise QuantityError(f"{text!r} is not a Kubernetes quantity.", hint=_suggestion(text))
    number, exponent, suffix = match.groups()
    return Fraction(number + exponent) if exponent else Fraction(number) * _SUFFIXES[suffix or ""]


def format_quantity(value: str | float) -> str:
    """Return `value` as Kubernetes writes it: a text as it is, `2` as `"2"`, `0.5` as `"500m"`.

    Raises:
        QuantityError: If `value` is not a quantity, or finer than a thousandth.
    """
    if isinstance(value, str):
        parse_quantity(value)
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise QuantityError(
            f"{value!r} is a {type(value).__name__}, not a quantity.",
            hint="Write 2, 0.5 or '500m'.",
        )
    try:
        # through its text: as a float, 0.1 is no tenth, and would be finer than a thousandth
        exact = Fraction(str(value))
    except ValueError:
        raise QuantityError(f"{value!r} is not a finite number.") from None
    if exact.denominator == 1:
        return str(exact.numerator)
    if (exact * 1000).denominator == 1:
        return f"{exact * 1000}m"
    raise QuantityError(
        f"{value!r} is finer than a thousandth.", hint=f"Write '{int(exact * 1000)}m'."
    )


def _suggestion(text: str) -> str:
    match = _LOOKS_LIKE.match(text.strip())
    if match is None:
        return (
            "Write a number with an optional suffix, such as '2', '500m', '20G' (10^9) or "
            "'20Gi' (2^30)."
        )
    number, unit, _ = match.groups()
    if unit is None:
        return f"Did you mean '{number}'?"
    decimal = "k" if unit in "kK" else unit.upper()
    return (
        f"Did you mean '{number}{decimal}' (powers of 1000) or '{number}{unit.upper()}i' "
        "(powers of 1024)?"
    )
