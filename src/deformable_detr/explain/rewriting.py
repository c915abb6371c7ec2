"""Functions compiled anew from their source, so that a recorder sees values as soon as a statement has made them.

Lines and variables stay those of the file, so a debugger that is opened inside shows the source as it stands there.
"""

import ast
import inspect
import linecache
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

MADE, STOPS = "__made__", "__stops__"       # what a rewritten function calls


@dataclass(frozen=True)
class Site:
    """A value in the source of a function.

    It is named by the variable that it is assigned to, as in "offsets", or "attended#2" for the second assignment; by
    "return"; or as a part of what is returned: "return.tokens" is an argument of the call, "return.1" the second of
    several values. A name that is found at several lines means all of them.
    """

    value: str
    file: str
    line: int


def rewritten(function: Callable[..., Any], values: Iterable[str], made: Callable[[Site, Any], None],
              stops: Callable[[Site], Iterable[Any]], names: Mapping[str, Any] | None = None) -> FunctionType:
    """A copy of `function` that reports the named `values`; see `Site` for how they are named.

    `made` is called with each as soon as it is computed. After the statement, `stops` gives the tensors to stop at: for
    each, `breakpoint()` is called from the copy, on the line of the value, with the local variable `tensor`. `names`
    replace global names of the copy.
    """
    original = _plain(function)
    marker = _Marker(set(values), original.__code__.co_filename)
    code = _compiled(marker.marked(_definition(original)), original.__code__)

    def report(number: int, value: Any) -> Any:
        site, index = marker.sites[number]
        made(site, value if index is None else value[index])
        return value

    def stops_at(number: int) -> Iterable[Any]:
        return stops(marker.sites[number][0])

    free = dict(zip(original.__code__.co_freevars, original.__closure__ or (), strict=True))
    copy = FunctionType(code, {**original.__globals__, MADE: report, STOPS: stops_at, **(names or {})},
                        original.__name__, original.__defaults__, tuple(free[name] for name in code.co_freevars))
    copy.__kwdefaults__ = original.__kwdefaults__
    return copy


def site_of(function: Callable[..., Any], value: str) -> Site:
    """Where a value is first made in a function."""
    original = _plain(function)
    marker = _Marker({value}, original.__code__.co_filename)
    marker.marked(_definition(original))
    return marker.sites[0][0]


def _plain(function: Callable[..., Any]) -> FunctionType:
    """Without the decorators around it, such as those that check types in tests."""
    plain = inspect.unwrap(getattr(function, "__func__", function))
    assert isinstance(plain, FunctionType)
    return plain


def _definition(function: FunctionType) -> ast.FunctionDef:
    """The function in the syntax tree of its file."""
    node: Any = ast.parse("".join(linecache.getlines(function.__code__.co_filename)))
    for name in function.__qualname__.split("."):
        node = next(part for part in node.body if getattr(part, "name", None) == name)
    return node


def _compiled(definition: ast.FunctionDef, original: CodeType) -> CodeType:
    """The code of a definition, which shares the variables of the functions or classes around the original."""
    free = [ast.parse(f"{name} = None").body[0] for name in original.co_freevars]
    around: Any = ast.parse("def around(): pass").body[0]
    around.body = [*free, definition]
    module = compile(ast.fix_missing_locations(ast.Module([around], [])), original.co_filename, "exec")
    return _inside(_inside(module, "around"), definition.name)


def _inside(code: CodeType, name: str) -> CodeType:
    return next(part for part in code.co_consts if isinstance(part, CodeType) and part.co_name == name)


class _Marker(ast.NodeTransformer):
    """Hands the values that are named over to `MADE`, and stops after their statements.

    `sites` are those found, each with the index of the value in what the expression gives, if it is one of several.
    """

    def __init__(self, values: set[str], file: str) -> None:
        self.values, self.file = values, file
        self.sites: list[tuple[Site, int | None]] = []
        self._assigned: Counter[str] = Counter()

    def marked(self, definition: ast.FunctionDef) -> ast.FunctionDef:
        """The definition, without decorators."""
        definition.decorator_list = []
        definition.body = [part for statement in definition.body for part in self._visited(statement)]
        missing = self.values - {site.value for site, _ in self.sites}
        assert not missing, f"no value {', '.join(missing)} in {definition.name} of {self.file}"
        return definition

    def _visited(self, statement: ast.stmt) -> list[ast.stmt]:
        found = self.visit(statement)
        return found if isinstance(found, list) else [found]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Functions inside a function have values of their own."""
        return node

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        first = len(self.sites)
        for target in node.targets:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            for index, part in enumerate(parts):
                if isinstance(part, ast.Name):
                    node.value = self._assigned_value(node.value, part.id, node.lineno,
                                                      None if parts == [target] else index)
        return [node, *self._stops(first)]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> list[ast.stmt]:
        first = len(self.sites)
        if isinstance(node.target, ast.Name) and node.value:
            node.value = self._assigned_value(node.value, node.target.id, node.lineno)
        return [node, *self._stops(first)]

    def visit_Return(self, node: ast.Return) -> list[ast.stmt]:
        first, value = len(self.sites), node.value
        if value is None:
            return [node]
        if isinstance(value, ast.Call):
            value.args = [self._handed(part, f"return.{index}", part.lineno) for index, part in enumerate(value.args)]
            for keyword in value.keywords:
                keyword.value = self._handed(keyword.value, f"return.{keyword.arg}", keyword.value.lineno)
        if isinstance(value, ast.Tuple):
            value.elts = [self._handed(part, f"return.{index}", part.lineno) for index, part in enumerate(value.elts)]
        value = self._handed(value, "return", node.lineno)
        if len(self.sites) == first:
            return [node]
        kept = ast.copy_location(ast.Assign([ast.Name("returned", ast.Store())], value), node)
        return [kept, *self._stops(first), ast.copy_location(ast.Return(ast.Name("returned", ast.Load())), node)]

    def _assigned_value(self, value: ast.expr, name: str, line: int, index: int | None = None) -> ast.expr:
        self._assigned[name] += 1
        value = self._handed(value, name, line, index)
        return self._handed(value, f"{name}#{self._assigned[name]}", line, index)

    def _handed(self, value: ast.expr, name: str, line: int, index: int | None = None) -> ast.expr:
        if name not in self.values:
            return value
        self.sites.append((Site(name, self.file, line), index))
        call: Any = ast.parse(f"{MADE}({len(self.sites) - 1}, 0)", mode="eval").body
        call.args[1] = value
        return _located(call, value, value.lineno)

    def _stops(self, first: int) -> list[ast.stmt]:
        # A loop, since a debugger that is opened inside stops at the next line or at the next jump back: here, at once.
        return [_located(ast.parse(f"for tensor in {STOPS}({number}): breakpoint()").body[0], None, site.line)
                for number, (site, _) in enumerate(self.sites[first:], start=first)]


def _located(node: Any, kept: ast.AST | None, line: int) -> Any:
    """The node and its parts at `line`; what is `kept` stays where it was."""
    if node is not kept:
        if "lineno" in node._attributes:
            node.lineno = node.end_lineno = line
            node.col_offset = node.end_col_offset = 0
        for part in ast.iter_child_nodes(node):
            _located(part, kept, line)
    return node
