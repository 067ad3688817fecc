"""Every error a user of graphc can meet.

An error says in one line what is wrong, shows the operands with the user's own lines, the line
at which it happened, and ends with what to do::

    ShapeError: matmul: inner dimensions differ: x[-1] is 768, w[-2] is 512
      x: f32[batch, 128, 768]   model.py:41   h = norm(x)
      w: f32[512, 3072]         model.py:12   w = gx.parameter("w", init((512, 3072)))
    at model.py:42   y = h @ w
    to do: make the last axis of x and the second to last of w the same size
"""

from __future__ import annotations


class GraphcError(Exception):
    """Base of all errors that graphc raises on purpose.

    Attributes:
        message: what is wrong, in one line.
        details: further lines, such as one for each operand; given as None where a line is not known, and left out.
        at: the user's line, ready to print, or None.
        remedy: what to do, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        details: tuple[str | None, ...] = (),
        at: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(line for line in details if line is not None)
        self.at = at
        self.remedy = remedy
        self._named = at is not None

    def __str__(self) -> str:
        lines = [self.message, *(f"  {line}" for line in self.details)]
        if self.at:
            lines.append(f"at {self.at}")
        if self.remedy:
            lines.append(f"to do: {self.remedy}")
        return "\n".join(lines)

    def located(self, prefix: str, details: tuple[str, ...], at: str | None) -> GraphcError:
        """This error with the operation, its operands and the user's line filled in, each unless already there."""
        if prefix and not self._named:
            self.message = f"{prefix}: {self.message}"
            self.details = (*details, *self.details)
            self._named = True
        if self.at is None:
            self.at = at
        return self


class ShapeError(GraphcError, ValueError):
    """Shapes do not fit each other or the operation."""


class DTypeError(GraphcError, TypeError):
    """An element type that the operation does not take, or a mix that would lose information."""


class AxisError(GraphcError, ValueError):
    """An axis, attribute or argument outside what the operation allows."""


class NameClashError(GraphcError, ValueError):
    """A name that is taken, missing, or not usable."""


class GraphError(GraphcError, ValueError):
    """A graph that is not well-formed: an unlisted input, a second update of one parameter, ..."""


class IndexRangeError(GraphcError, IndexError):
    """An index that lies outside its axis, found while a program ran. No state was changed."""


class NonFiniteError(GraphcError, FloatingPointError):
    """A NaN or infinity, found while a program ran with ``check_finite=True``. No state was changed."""


class BackendError(GraphcError, RuntimeError):
    """A backend that is missing, broken, or cannot run an operation."""


class FileError(GraphcError, OSError):
    """A model, graph or cache file that cannot be read or written."""

    def __str__(self) -> str:  # OSError's own __str__ would print errno
        return GraphcError.__str__(self)


class ParseError(GraphcError, ValueError):
    """Graph text that does not parse, with its line and column."""


class ExportError(GraphcError, ValueError):
    """A graph that has no form in the requested ONNX opset."""


class VerifyError(GraphcError, AssertionError):
    """A graph that a pass left invalid: a defect of graphc itself, with the pass's name."""
