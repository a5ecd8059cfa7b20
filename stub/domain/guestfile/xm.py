"""xm's configuration files, which are Python (Xen's tools/python/xen/xm/create.py), read without executing them.

The file is parsed to a syntax tree; assignments, ``+=``, ``if`` and ``for`` are followed by ourselves. What a file may
only say when it is run (imports, functions, calls) is refused where it stands.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

from stub.domain.guestfile.evaluate import Evaluator, Refused
from stub.domain.guestfile.place import Mapping, Place, Setting, Source, Value

_MAX_NESTING = 32  # of if and for
_STATEMENTS = {
    ast.Import: "import",
    ast.ImportFrom: "import",
    ast.FunctionDef: "def",
    ast.ClassDef: "class",
    ast.While: "while",
    ast.Try: "try",
    ast.With: "with",
    ast.Delete: "del",
    ast.Assert: "assert",
    ast.Raise: "raise",
    ast.Global: "global",
}
_BUILT_IN = frozenset({"True", "False", "None"})


def parse(source: Source) -> ast.Module:
    """The file's syntax tree; ConfigError for what is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a string is the file's own affair
            return ast.parse(source.text)
    except SyntaxError as error:
        place = Place(max(error.lineno or 1, 1), max(error.offset or 1, 1))
        raise source.error(place, f"neither xl's grammar nor Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        reason = "it holds a NUL" if isinstance(error, ValueError) else "it is nested too deeply"
        raise source.error(Place(1, 1), f"neither xl's grammar nor Python: {reason}") from None


def read(source: Source, tree: ast.Module) -> tuple[dict[str, Setting], frozenset[str]]:
    """The settings of a file, and the names that it only uses to work out others; ConfigError with the place."""
    reader = _Reader(source)
    try:
        reader.block(tree.body, 0)
    except Refused as refused:
        raise source.error(reader.place(refused.node), str(refused)) from None
    return reader.settings, frozenset(reader.evaluator.used)


class _Reader:
    """Follows statements in their order."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.lines = source.text.splitlines()
        self.evaluator = Evaluator()
        self.settings: dict[str, Setting] = {}

    def place(self, node: ast.AST) -> Place:
        """Where a node stands; Python counts a line's bytes."""
        line: int = getattr(node, "lineno", 1)
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        column = len(text.encode(errors="replace")[: getattr(node, "col_offset", 0)].decode(errors="replace"))
        return Place(line, column + 1)

    def block(self, statements: list[ast.stmt], depth: int) -> None:
        """Statements one after the other."""
        for statement in statements:
            self.evaluator.charge(statement, 1)
            if depth > _MAX_NESTING:
                raise Refused(statement, f"statements nested more than {_MAX_NESTING} deep")
            self._statement(statement, depth)

    def _statement(self, node: ast.stmt, depth: int) -> None:
        value = self.evaluator.value
        match node:
            case ast.Assign():
                made = value(node.value)
                for target in node.targets:
                    self._assign(target, made, node.value)
            case ast.AugAssign(target=ast.Name(id=name)):
                before = self.evaluator.names.get(name)
                if before is None:
                    raise Refused(node.target, f"{name} has no value here")
                self._assign(node.target, self._combined(node, before, value(node.value)), node.value)
            case ast.If():
                self.block(node.body if value(node.test) else node.orelse, depth + 1)
            case ast.For() if not node.orelse:
                items = value(node.iter)
                if not isinstance(items, (list, tuple, str)):
                    raise Refused(node.iter, "for goes through a list, a tuple or a string")
                for item in items:
                    self._assign(node.target, item, node.iter)
                    self.block(node.body, depth + 1)
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Expr():
                value(node.value)
            case _:
                what = _STATEMENTS.get(type(node), f"Python's {type(node).__name__}")
                raise Refused(node, f"{what} is not read: nothing of the file is executed; write the values themselves")

    def _combined(self, node: ast.AugAssign, before: Any, value: Any) -> Any:
        try:
            made = self.evaluator.combine(node, node.op, before, value)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            raise Refused(node, f"this cannot be worked out: {error}") from None
        self.evaluator.charge(node, 1 if isinstance(made, int) else len(made))
        return made

    def _assign(self, target: ast.expr, made: Any, node: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)) and isinstance(made, (tuple, list)):
            if len(target.elts) != len(made):
                raise Refused(target, f"{len(made)} values for {len(target.elts)} names")
            for each, value in zip(target.elts, made, strict=True):
                self._assign(each, value, node)
            return
        if not isinstance(target, ast.Name) or target.id in _BUILT_IN:
            raise Refused(target, "only a plain name can be set")
        self.evaluator.names[target.id] = made
        self.settings.pop(target.id, None)
        if made is not None:
            value = self._placed(made, node)
            self.settings[target.id] = Setting(target.id, value, self.place(target))

    def _placed(self, made: Any, node: ast.expr, depth: int = 0) -> Value:
        """A value with the places of its parts, as far as they are written where it is."""
        place = self.place(node)
        if isinstance(made, (list, tuple)):
            if depth > _MAX_NESTING:
                raise Refused(node, "lists in lists too deep")
            self.evaluator.charge(node, len(made))
            written = node.elts if isinstance(node, (ast.List, ast.Tuple)) else []
            nodes = written if len(written) == len(made) else [node] * len(made)
            return Value(
                tuple(
                    self._placed("" if part is None else part, at, depth + 1)
                    for part, at in zip(made, nodes, strict=True)
                ),
                place,
            )
        if isinstance(made, dict):
            return Value(Mapping(), place)
        return Value(made, place, isinstance(node, ast.Constant) and self._is_plain(node))

    def _is_plain(self, node: ast.Constant) -> bool:
        """Whether a string's characters stand in the file as they are."""
        place = self.place(node)
        line = self.lines[place.line - 1] if place.line <= len(self.lines) else ""
        return isinstance(node.value, str) and line[place.column :].startswith(node.value) and place.column > 0
