"""Python's expressions worked out by ourselves, from their syntax tree: nothing of the file is ever executed.

Strings, integers, lists, tuples, dicts and names; ``+ - * / // % & | ^ << >>``, comparisons, ``and or not in``,
``a if b else c``, indexing and slicing; the four pure functions of ``FUNCTIONS``. All else is refused where it stands.
Work and size are bounded: what a hostile file can make of them is an error, too.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

MAX_SIZE = 1 << 14  # characters or elements of a value
MAX_BITS = 128  # of an integer
MAX_DEPTH = 100  # of an expression
BUDGET = 1 << 16  # steps, and characters or elements made, all together

_DIRECTIVE = re.compile(r"%(?:\([^()]*\))?[-+ #0]*[0-9]{0,3}(?:\.[0-9]{0,3})?(.?)", re.DOTALL)
_CONVERSIONS = "diouxXsrc%"

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Sub: operator.sub,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,  # as in the Python of xm's time
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.RShift: operator.rshift,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_NAMES = {
    ast.Call: "a call",
    ast.Attribute: "an attribute",
    ast.Lambda: "a lambda",
    ast.ListComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.JoinedStr: "an f-string",
    ast.Pow: "a power",
    ast.Starred: "a starred value",
}


class Refused(Exception):
    """What cannot be worked out, and the node at which."""

    def __init__(self, node: ast.AST, message: str) -> None:
        super().__init__(message)
        self.node = node


def _text(value: Any) -> str:
    if not isinstance(value, (str, int)):
        raise TypeError("str() of a string or a number only")
    return str(value)


def _number(value: Any) -> int:
    if isinstance(value, str) and len(value) > MAX_BITS:
        raise ValueError("the number is too long")
    return int(value)


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > MAX_SIZE:
        raise ValueError("the range is too long")
    return list(numbers)


FUNCTIONS: dict[str, Callable[..., Any]] = {"str": _text, "int": _number, "len": len, "range": _range}


class Evaluator:
    """Works out expressions; ``names`` are the variables so far, ``used`` those that were read."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"True": True, "False": False, "None": None}
        self.used: set[str] = set()
        self._left = BUDGET
        self._depth = 0

    def value(self, node: ast.expr) -> Any:
        """The value of an expression. Refused for what is not read here, or does not work."""
        kind = _KINDS.get(type(node))
        if kind is None:
            raise Refused(node, f"{describe(node)} is not read here: nothing of the file is executed")
        self.charge(node, 1)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refused(node, f"an expression more than {MAX_DEPTH} deep")
        try:
            return self._checked(node, kind(self, node))
        except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, OverflowError) as error:
            what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise Refused(node, f"this cannot be worked out: {what}") from None
        finally:
            self._depth -= 1

    def charge(self, node: ast.AST, work: int) -> None:
        """Count work; Refused when it is too much."""
        self._left -= work
        if self._left < 0:
            raise Refused(node, "too much to work out; write the values themselves")

    def _checked(self, node: ast.expr, value: Any) -> Any:
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise Refused(node, "the number is too large")
        elif value is not None and not isinstance(node, (ast.Name, ast.Constant)):
            if len(value) > MAX_SIZE:
                raise Refused(node, "the value is too large")
            self.charge(node, len(value))
        return value

    def _constant(self, node: ast.Constant) -> Any:
        if node.value is None or isinstance(node.value, (str, int)):
            return node.value
        raise Refused(node, f"a {type(node.value).__name__} has no place in a configuration")

    def _name(self, node: ast.Name) -> Any:
        if node.id not in self.names:
            raise Refused(node, f"{node.id} has no value here")
        self.used.add(node.id)
        return self.names[node.id]

    def _list(self, node: ast.List) -> list[Any]:
        return [self.value(each) for each in node.elts]

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.value(each) for each in node.elts)

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        if None in node.keys:
            raise Refused(node, "a dict in a dict with ** is not read here")
        made = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                made[self._key(key)] = self.value(value)
        return made

    def _key(self, node: ast.expr) -> str | int:
        """A key of a dict; a tuple of tuples may take for ever to hash."""
        key = self.value(node)
        if not isinstance(key, (str, int)):
            raise Refused(node, "a key is a string or a number")
        return key

    def _binary(self, node: ast.BinOp) -> Any:
        return self.combine(node, node.op, self.value(node.left), self.value(node.right))

    def combine(self, node: ast.AST, op: ast.operator, left: Any, right: Any) -> Any:
        """What an operator makes of two values, bounded before it is made."""
        if isinstance(op, ast.Add):
            if not isinstance(left, int) and not isinstance(right, int) and left is not None and right is not None:
                self._fits(node, len(left) + len(right))
            return left + right
        if isinstance(op, ast.Mult):
            for many, of in ((left, right), (right, left)):
                if isinstance(many, int) and isinstance(of, (str, list, tuple)):
                    self._fits(node, max(many, 0) * len(of))
            return left * right
        if isinstance(op, ast.LShift):
            if not 0 <= right <= MAX_BITS:
                raise Refused(node, "the number is too large")
            return left << right
        if isinstance(op, ast.Mod):
            return self._format(node, left, right) if isinstance(left, str) else left % right
        if type(op) not in _BINARY:
            raise Refused(node, f"{describe(op)} is not read here")
        return _BINARY[type(op)](left, right)

    def _fits(self, node: ast.AST, size: int) -> None:
        if size > MAX_SIZE:
            raise Refused(node, "the value is too large")

    def _format(self, node: ast.AST, text: str, values: Any) -> str:
        """``text % values``, its directives looked at before."""
        directives = _DIRECTIVE.findall(text)
        strange = next((each for each in directives if not each or each not in _CONVERSIONS), None)
        if strange is not None:
            raise Refused(node, f"% with the directive {strange!r} is not read here")
        parts = values.values() if isinstance(values, dict) else values if isinstance(values, tuple) else (values,)
        if not all(isinstance(part, (str, int)) for part in parts):
            raise Refused(node, "% takes strings and numbers")
        longest = max((len(part) for part in parts if isinstance(part, str)), default=0)
        self._fits(node, len(text) + len(directives) * (4 * longest + 1000) if directives else len(text))
        made: str = text % values
        return made

    def _unary(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not value
        if isinstance(node.op, ast.USub):
            return -value
        return ~value if isinstance(node.op, ast.Invert) else +value

    def _bool(self, node: ast.BoolOp) -> Any:
        value = None
        for each in node.values:
            value = self.value(each)
            if bool(value) is isinstance(node.op, ast.Or):
                break
        return value

    def _comparison(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, each in zip(node.ops, node.comparators, strict=True):
            right = self.value(each)
            if isinstance(op, (ast.In, ast.NotIn)) and not isinstance(right, (str, list, tuple, dict)):
                raise Refused(node, "in looks into a string, a list or a dict")
            self._plain(node, left)
            self._plain(node, right)
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def _plain(self, node: ast.AST, value: Any) -> None:
        """Refuse to compare lists of lists: such a one may hold itself over and over, and take for ever."""
        if isinstance(value, (list, tuple)) and not all(isinstance(each, (str, int)) for each in value):
            raise Refused(node, "only strings, numbers and lists of them are compared")
        self.charge(node, len(value) if isinstance(value, (str, list, tuple)) else 1)

    def _choice(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _subscript(self, node: ast.Subscript) -> Any:
        value = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            bounds = (node.slice.lower, node.slice.upper, node.slice.step)
            return value[slice(*(None if each is None else self.value(each) for each in bounds))]
        return value[self._key(node.slice)]

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS or name in self.names or node.keywords:
            called = ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""
            raise Refused(
                node,
                f"a call{f' of {called[:40]}' if called else ''} is not made: nothing of the file is executed; write "
                "the value itself",
            )
        return FUNCTIONS[name](*(self.value(each) for each in node.args))


_KINDS: dict[type[ast.expr], Callable[[Evaluator, Any], Any]] = {
    ast.Constant: Evaluator._constant,
    ast.Name: Evaluator._name,
    ast.List: Evaluator._list,
    ast.Tuple: Evaluator._tuple,
    ast.Dict: Evaluator._dict,
    ast.BinOp: Evaluator._binary,
    ast.UnaryOp: Evaluator._unary,
    ast.BoolOp: Evaluator._bool,
    ast.Compare: Evaluator._comparison,
    ast.IfExp: Evaluator._choice,
    ast.Subscript: Evaluator._subscript,
    ast.Call: Evaluator._call,
}


def describe(node: ast.AST) -> str:
    """A kind of node for a person."""
    return _NAMES.get(type(node), f"Python's {type(node).__name__}")
