"""Prints the sizes of the package: what grew, and what makes it hard to read.

    .venv/bin/python -m dev.measure [PACKAGE [TESTS]]

Lines of a function are those of its body without the docstring. Tokens are names, operators,
numbers and strings of code; a docstring is none. Circles are modules that import each other: when
they are loaded, with imports inside functions as well, and with those for type checkers as well.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.names import PACKAGE, class_twins, module_twins

TESTS = Path(__file__).parents[1] / "tests"
NAME = "flytekitplugins.inference"
LOADED, LAZY, TYPES = "when loaded", "in functions", "for types"
"""Kinds of imports, from the one that can break a program to the one that only readers meet."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Imports = dict[str, set[str]]


@dataclass(frozen=True, kw_only=True)
class Module:
    """One file."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """All lines, also blank ones."""
        return self.text.count("\n")


def read_modules(root: Path) -> list[Module]:
    """Return all files of Python below `root`."""
    modules = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        modules.append(Module(path=path, text=text, tree=ast.parse(text)))
    return modules


# Functions, tokens, comments, excepts


def function_lines(modules: Sequence[Module]) -> list[int]:
    """Return the length of each function's body."""
    return [
        _body_lines(node)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, Function)
    ]


def _body_lines(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def tokens_per_line(modules: Sequence[Module]) -> float:
    """Return the tokens of an average line of code."""
    tokens = lines = 0
    for module in modules:
        documented = set(_docstring_lines(module.tree))
        code = [token for token in _tokens(module.text) if token.start[0] not in documented]
        tokens += len(code)
        lines += len({line for token in code for line in range(token.start[0], token.end[0] + 1)})
    return tokens / max(1, lines)


_LAYOUT = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
)


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _LAYOUT:
            yield token


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of every docstring: those of modules, classes, functions and fields."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def count_comments(modules: Sequence[Module]) -> int:
    """Return how many comments there are, each line of a longer one counted."""
    return sum(
        token.type == tokenize.COMMENT
        for module in modules
        for token in tokenize.generate_tokens(io.StringIO(module.text).readline)
    )


def count_broad_excepts(modules: Sequence[Module]) -> int:
    """Return how many handlers take every kind of error."""
    return sum(
        isinstance(node, ast.ExceptHandler) and _is_broad(node.type)
        for module in modules
        for node in ast.walk(module.tree)
    )


def _is_broad(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(
        isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in kinds
    )


# Circles


def find_circles(modules: Sequence[Module], root: Path, kinds: Sequence[str]) -> list[list[str]]:
    """Return the groups of modules that import each other, by imports of these kinds."""
    imports: Imports = {}
    for module in modules:
        imports[_name(module, root)] = set()
    for module in modules:
        name = _name(module, root)
        for kind, target in _imports(module, name, imports):
            if kind in kinds and target != name:
                imports[name].add(target)
    return _groups(imports)


def _name(module: Module, root: Path) -> str:
    parts = module.path.relative_to(root).with_suffix("").parts
    return ".".join((NAME, *(part for part in parts if part != "__init__")))


def _imports(module: Module, name: str, known: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield kind and target of each import of a module of the package."""
    is_package = module.path.name == "__init__.py"
    for kind, node in _import_statements(module.tree.body, LOADED):
        for target in _targets(node, name, is_package=is_package):
            # `from package import name`: a module of that name, else something in the package
            if (found := target if target in known else target.rpartition(".")[0]) in known:
                yield kind, found


def _import_statements(
    nodes: Sequence[ast.AST], kind: str
) -> Iterator[tuple[str, ast.Import | ast.ImportFrom]]:
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield kind, node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _import_statements(node.body, TYPES)
            yield from _import_statements(node.orelse, kind)
        else:
            inner = LAZY if isinstance(node, Function) and kind == LOADED else kind
            yield from _import_statements(list(ast.iter_child_nodes(node)), inner)


def _targets(node: ast.Import | ast.ImportFrom, name: str, *, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parts = name.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parts, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def _groups(imports: Imports) -> list[list[str]]:
    """Return the groups of which each module reaches each other."""
    reached = {name: _reachable(name, imports) for name in imports}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in imports
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def _reachable(name: str, imports: Imports) -> set[str]:
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        for target in imports[waiting.pop()] - reached:
            reached.add(target)
            waiting.append(target)
    return reached


# The table


def measure(package: Path, tests: Path) -> Iterator[tuple[str, str]]:
    """Yield name and value of each measure."""
    modules = read_modules(package)
    lines = sum(module.lines for module in modules)
    functions = sorted(function_lines(modules))
    yield "files", str(len(modules))
    yield "lines", str(lines)
    yield "lines of a file: median, p95, max", _spread(sorted(module.lines for module in modules))
    yield "functions", str(len(functions))
    yield "lines of a function: median, p95, max", _spread(functions)
    yield "tokens a line of code", f"{tokens_per_line(modules):.2f}"
    yield "comments per 1000 lines", f"{1000 * count_comments(modules) / lines:.1f}"
    yield "broad excepts per 1000 lines", f"{1000 * count_broad_excepts(modules) / lines:.2f}"
    for what, twins in (("class", class_twins(package)), ("module", module_twins(package))):
        yield f"{what} names that stand twice", _listed(twins)
    kinds: list[str] = []
    for kind in (LOADED, LAZY, TYPES):
        kinds.append(kind)
        circles = find_circles(modules, package, kinds)
        names = [" ".join(name.removeprefix(f"{NAME}.") for name in group) for group in circles]
        yield f"circles of imports {' + '.join(kinds)}", _listed(names)
    tested = sum(module.lines for module in read_modules(tests))
    yield "lines of tests ÷ lines of code", f"{tested / lines:.2f}"


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "none"
    p95 = values[round(0.95 * (len(values) - 1))]
    return f"{statistics.median(values):g}, {p95}, {values[-1]}"


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return f"{len(names)} ({'; '.join(names)})" if names else "0"


def main(argv: Sequence[str]) -> int:
    """Print the table for a package and its tests, by default this repository's."""
    package = Path(argv[0]) if argv else PACKAGE
    tests = Path(argv[1]) if len(argv) > 1 else TESTS
    for name, value in measure(package, tests):
        print(f"{name:70}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
