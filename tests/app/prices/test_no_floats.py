"""No float on the way from a price to a bill: the source itself is searched for whatever could make one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MONEY_PATH: dict[str, set[str] | None] = {
    "app/money.py": None,
    "app/prices/records.py": None,
    "app/prices/calculation.py": None,
    "app/prices/service.py": None,
    "app/prices/graphql.py": None,
    "app/execution/steps.py": None,
    "app/requests/repository.py": None,
    "app/api/scalars.py": {"parse_decimal", "_decimal_literal"},
    "seed/genai_prices.py": None,
    "seed/reference.py": None,
}
"""With the functions that money passes through, where a module also does other things."""

_ROUNDING = {"float", "round", "fsum"}
_ROUNDING_MODULES = {"math", "statistics", "numpy"}


def offences(source: str, functions: set[str] | None = None) -> list[str]:
    """What in `source` makes a float or may round, as "line: what"."""
    tree: ast.AST = ast.parse(source)
    if functions is not None:
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in functions]
        assert {node.name for node in found} == functions, "the money path has moved"
        tree = ast.Module(body=list(found), type_ignores=[])
    return [f"{line}: {what}" for line, what in sorted(_offences(tree))]


def _offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float() | complex()):
                yield node.lineno, f"literal {node.value!r}"
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _ROUNDING:
                yield node.lineno, f"call of {name}"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield node.lineno, "true division"
            case ast.BinOp(left=left, right=right) if _is_decimal(left) or _is_decimal(right):
                if not (_is_constant(left) and _is_constant(right)):
                    yield node.lineno, "arithmetic in the ambient Decimal context"
            case ast.Import(names=names) if any(alias.name in _ROUNDING_MODULES for alias in names):
                yield node.lineno, "import of a module of floats"
            case ast.ImportFrom(module=str(module)) if module in _ROUNDING_MODULES:
                yield node.lineno, "import from a module of floats"


def _is_decimal(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Decimal"


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) or (_is_decimal(node) and all(map(_is_constant, getattr(node, "args", []))))


@pytest.mark.parametrize("path", MONEY_PATH)
def test_no_float_is_made_on_the_money_path(path: str) -> None:
    assert offences((ROOT / path).read_text(), MONEY_PATH[path]) == []


def test_every_module_of_prices_is_searched() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "app/prices").glob("*.py")}
    assert modules - {"app/prices/__init__.py"} <= set(MONEY_PATH)


@pytest.mark.parametrize(
    "source",
    [
        "price = 0.15",
        "price = Decimal(1e-6)",
        "price = float(text)",
        "cost = tokens * price / 1_000_000",
        "cost /= 1_000_000",
        "cost = round(cost, 4)",
        "cost = Decimal(tokens) * price",
        "import math",
        "from statistics import mean",
        "total = math.fsum(amounts)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert offences(source)


def test_the_search_takes_exact_source_as_exact() -> None:
    assert (
        offences("LIMIT = Decimal(10) ** 10\namount = EXACT.multiply(Decimal(tokens), price)\nhalf = tokens // 2") == []
    )


def test_the_search_looks_into_the_named_functions_only() -> None:
    source = "def seconds():\n    return 0.5\ndef cost():\n    return 1"
    assert offences(source, {"cost"}) == []
    assert offences(source, {"seconds"}) == ["2: literal 0.5"]
