"""What every printer of kernels shares: names, precedence and indentation.

A printer turns mapped or unmapped kernels into text and decides nothing else. It says how a scalar function
is written by a :class:`Form`; the base class sets parentheses where the precedences ask for them.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.loops.kernel import Apply, Const, Expr, Load, Var

ATOM = 100
"""The precedence of what never needs parentheses: names, calls, subscripts."""


@dataclass(frozen=True, slots=True)
class Form:
    """How an application is written.

    Attributes:
        template: text with ``{0}``, ``{1}``, ... for the arguments.
        precedence: how tightly the whole binds.
        operands: for each argument the least precedence that needs no parentheses; 0 where missing.
    """

    template: str
    precedence: int = ATOM
    operands: tuple[int, ...] = ()

    @property
    def is_operator(self) -> bool:
        return self.precedence < ATOM


def infix(symbol: str, precedence: int) -> Form:
    """A binary operator that groups from the left."""
    return Form(f"{{0}} {symbol} {{1}}", precedence, (precedence, precedence + 1))


def compare(symbol: str, precedence: int) -> Form:
    """A binary operator that does not chain."""
    return Form(f"{{0}} {symbol} {{1}}", precedence, (precedence + 1, precedence + 1))


def prefix(symbol: str, precedence: int) -> Form:
    """A unary operator in front of its operand; never directly in front of another one."""
    return Form(f"{symbol}{{0}}", precedence, (precedence + 1,))


def call(name: str, arity: int) -> Form:
    """A function call."""
    return Form(f"{name}({', '.join(f'{{{i}}}' for i in range(arity))})")


class Printer:
    """Collects lines; a subclass adds the statements and the forms of one language.

    Attributes:
        reserved: words that the language or its run-time library takes.
        indent: the text of one level.
    """

    reserved: frozenset[str] = frozenset()
    indent = "    "

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0
        self._names: dict[str, str] = {}

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def line(self, text: str) -> None:
        self._lines.append(self.indent * self._depth + text)

    @contextmanager
    def indented(self) -> Generator[None]:
        self._depth += 1
        yield
        self._depth -= 1

    def name(self, name: str) -> str:
        """The identifier for a name of the kernel: the same each time, no reserved word, no other name's."""
        if name not in self._names:
            safe = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
            if not safe or safe[0].isdigit():
                safe = f"_{safe}"
            taken = {*self.reserved, *self._names.values()}
            while safe in taken:
                safe += "_"
            self._names[name] = safe
        return self._names[name]

    def expression(self, expression: Expr, least: int = 0) -> str:
        """The text of an expression, in parentheses if it binds less tightly than ``least``."""
        text, precedence = self._expression(expression)
        return f"({text})" if precedence < least else text

    def form(self, apply: Apply) -> Form:
        """How this application is written."""
        raise NotImplementedError(f"{type(self).__name__} does not define form")

    def constant(self, constant: Const, operand: bool) -> tuple[str, int]:
        """The text and precedence of a literal.

        ``operand``: its type may be left to what it stands beside, as it cannot in a call.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define constant")

    def load(self, load: Load) -> str:
        return f"{self.name(load.buffer)}[{self.expression(load.index)}]"

    def _expression(self, expression: Expr, operand: bool = True) -> tuple[str, int]:
        match expression:
            case Const():
                return self.constant(expression, operand)
            case Var(name=name):
                return self.name(name), ATOM
            case Load():
                return self.load(expression), ATOM
            case Apply(args=args):
                form = self.form(expression)
                # literals beside nothing but literals would be computed in the type of the literals
                typed = {argument.dtype for argument in args if not isinstance(argument, Const)}
                texts: list[str] = []
                for position, argument in enumerate(args):
                    text, precedence = self._expression(argument, form.is_operator and argument.dtype in typed)
                    least = form.operands[position] if position < len(form.operands) else 0
                    texts.append(f"({text})" if precedence < least else text)
                return form.template.format(*texts), form.precedence
