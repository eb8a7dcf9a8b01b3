"""`PublicDataclass`: the base of the dataclasses that users create.

It adds two things. One error reports all wrong arguments and suggests the right ones. `help()`
shows the meaning and default of each field: Python discards the texts below fields, which editors
show, so they are read from the source on demand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ArgumentError
from .keywords import refuse_unknown

if TYPE_CHECKING:
    from types import CodeType

__all__ = ["PublicDataclass"]

TAKES_MORE_KEYWORDS = 0x08
"""`inspect.CO_VARKEYWORDS`: the function has a `**parameter`."""


class PublicDataclass:
    """Refuses wrong arguments by name, and lists its fields in `help()`."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        text = vars(cls).get("__doc__")
        # `slots=True` creates the class twice, the second time with our `__doc__`
        if not isinstance(text, _Documentation):
            # through `type`, because type checkers know `__doc__` as a text
            type.__setattr__(cls, "__doc__", _Documentation(text or ""))

    # hidden from type checkers, which check the fields by themselves
    if not TYPE_CHECKING:

        def __new__(cls, *values: Any, **keywords: Any) -> Any:
            """Refuse arguments that `__init__` does not take, which runs next."""
            code = getattr(cls.__init__, "__code__", None)
            if code is not None and not code.co_flags & TAKES_MORE_KEYWORDS:
                cls._refuse_arguments(code, len(values), keywords)
            return super().__new__(cls)

    @classmethod
    def _refuse_arguments(cls, code: CodeType, values: int, keywords: dict[str, Any]) -> None:
        """Refuse what `__init__` does not take."""
        call = f"{cls.__name__}(…)"
        known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        refuse_unknown(call, keywords, known, advice=cls._belongs_elsewhere)
        positional = code.co_argcount - 1
        if values > positional:
            name = "model" if "model" in known else known[0]
            most = f"at most {positional}" if positional else "no"
            raise ArgumentError(
                f"{call} takes {most} values without a name, and got {values}.",
                hint=f"Name them: {cls.__name__}({name}=…).",
            )

    @classmethod
    def _belongs_elsewhere(cls, keyword: str) -> str:
        """Return where an unknown keyword belongs, or an empty text."""
        return ""


class _Documentation:
    """The `__doc__` of a class: its docstring, and its fields."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __get__(self, instance: object, owner: type) -> str:
        own = vars(owner)
        if "__dataclass_fields__" in own and "__match_args__" not in own:
            # the `dataclass` decorator is running: it writes a docstring if the class has none
            return self.text or owner.__name__
        from .field_docs import with_fields

        return with_fields(owner, self.text)
