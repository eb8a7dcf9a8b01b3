"""Identifies a function across runs by its code and the values that it holds.

Every process derives the same identity. Names that the function looks up while it runs, such as
globals of its module and the functions that it calls, are not part of it.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import json
import types
import uuid
from typing import Any

_MOST_VALUES = 200_000
"""The most values that are compared: a function with more holds a data set or a model."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
_BUILT_IN = (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType)


def code_digest(function: Any) -> str:
    """Return a digest of what a function does.

    Comments, line numbers and the path of its file do not count. If the function holds a value that
    cannot be compared, each digest differs, so that no run reuses the answers of a function that
    may have been a different one.
    """
    digest, unknown = _digest(function)
    return f"not comparable: {', '.join(unknown)} ({uuid.uuid4().hex[:16]})" if unknown else digest


def incomparable(function: Any) -> list[str]:
    """Return what a function holds that cannot be compared between runs."""
    return _digest(function)[1]


def unwrapped(function: Any) -> Any:
    """Return the function within `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _digest(function: Any) -> tuple[str, list[str]]:
    former = _Former()
    try:
        text = json.dumps(former.form(function, "the function"))
    except RecursionError:
        return "", ["a value that is nested too deeply"]
    return hashlib.sha256(text.encode()).hexdigest()[:16], list(former.unknown)


class _Former:
    """Builds JSON values that are equal in two processes only if the original values are."""

    def __init__(self) -> None:
        self.unknown: dict[str, None] = {}
        """Values without such a form; in order, each once."""
        self._within: list[Any] = []
        """The values that enclose the current one, to detect cycles."""
        self._count = 0

    def form(self, value: Any, name: str) -> Any:
        """Return the form of a value; messages call it `name`."""
        self._count += 1
        if self._count > _MOST_VALUES:
            self.unknown["more values than are compared"] = None
            return None
        # not a subclass, which may behave otherwise; `repr`, because JSON has no bytes and no NaN
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return [type(value).__name__, repr(value)]
        for depth, outer in enumerate(self._within):
            if outer is value:
                # a cycle, told by its depth: an object's id differs in every process
                return ["within", depth]
        self._within.append(value)
        try:
            return [type(value).__name__, self._parts(value, name)]
        finally:
            self._within.pop()

    def _parts(self, value: Any, name: str) -> Any:
        if type(value) in (list, tuple):
            return [self.form(item, name) for item in value]
        if type(value) in (set, frozenset):
            # a set of texts has another order in every process, because their hashes are salted
            return sorted(json.dumps(self.form(item, name)) for item in value)
        if type(value) is dict:  # in its own order, because a prompt may depend on it
            return [
                [self.form(key, name), self.form(item, f"{name}[{key!r:.40}]")]
                for key, item in value.items()
            ]
        return self._behaviour(value, name)

    def _behaviour(self, value: Any, name: str) -> Any:
        if isinstance(value, (type, types.ModuleType, *_BUILT_IN)):
            return self._named(value, name)
        if isinstance(value, functools.partial):
            keywords = sorted(value.keywords.items())
            return [
                self.form(value.func, name),
                self.form(value.args, name),
                self.form(keywords, name),
            ]
        if isinstance(value, types.MethodType):
            return [self.form(value.__func__, name), self.form(value.__self__, name)]
        if isinstance(value, types.CodeType):
            names = [list(value.co_names), list(value.co_varnames), list(value.co_freevars)]
            return [value.co_code.hex(), names, self.form(value.co_consts, name)]
        return (
            self._function(value)
            if isinstance(value, types.FunctionType)
            else self._object(value, name)
        )

    def _named(self, value: Any, name: str) -> Any:
        owner = getattr(value, "__self__", None)
        values = (
            None if owner is None or isinstance(owner, types.ModuleType) else self.form(owner, name)
        )
        return [
            getattr(value, "__module__", None),
            getattr(value, "__qualname__", value.__name__),
            values,
        ]

    def _function(self, function: types.FunctionType) -> Any:
        code = function.__code__
        defaults = f"a default of {function.__name__}"
        forms = [
            self.form(function.__defaults__, defaults),
            self.form(function.__kwdefaults__, defaults),
        ]
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        return [
            self.form(code, function.__name__),
            forms,
            [self._cell(name, cell) for name, cell in cells],
        ]

    def _cell(self, name: str, cell: types.CellType) -> Any:
        try:
            value = cell.cell_contents
        except ValueError:
            return None  # not assigned yet
        return self.form(value, repr(name))

    def _object(self, value: Any, name: str) -> Any:
        """Return the form of what a pickle would keep of an object, and of its `__call__`."""
        call = getattr(type(value), "__call__", None)  # noqa: B004, the function itself is wanted
        # a pickle names the class only, so an edited `__call__` would go unnoticed
        called = self.form(call, name) if isinstance(call, types.FunctionType) else None
        try:
            # in pickle's own order: a registered function takes precedence over the class
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except Exception:  # whatever a class raises for what has no form outside its process
            self.unknown[f"{name} (of type {type(value).__name__})"] = None
            return None
        if isinstance(reduced, str):
            return [type(value).__module__, reduced, called]
        parts = [*reduced, *(None for _ in range(5 - len(reduced)))]
        lists = [None if part is None else list(part) for part in parts[3:5]]
        return [self.form([*parts[:3], *lists], name), called]
