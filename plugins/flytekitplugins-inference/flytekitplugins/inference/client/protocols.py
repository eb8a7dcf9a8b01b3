"""The protocols that model servers speak, as a parameter of types: it tells which client comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

__all__ = ["AnyProtocol", "Protocol_co"]

AnyProtocol = Literal["openai", "v2", "none"]
"""OpenAI's API, the Open Inference Protocol of Triton, MLServer and KServe, or one of its own."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Protocol_co = TypeVar("Protocol_co", bound=AnyProtocol, default=AnyProtocol, covariant=True)
else:
    from typing import TypeVar

    # Python 3.10 has no defaults of type variables, and only type checkers need them
    Protocol_co = TypeVar("Protocol_co", covariant=True)
