"""Annotations that hold: constructors and functions get what the types of their arguments say, or one clear error.

An annotation is read as it is written: ``int``, ``float``, ``bool``, ``str``, ``Path``, ``None``, the names below,
functions, dicts and sequences of these. What is given must be one of them, and numbers of NumPy's become Python's.
Where an annotation says something else as well (``Any``, a class), the function judges what is of none of these kinds.
"""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

import numpy as np

from graphc.errors import AxisError, DTypeError
from graphc.frontend.arguments import is_number, is_whole, shown, suggestion
from graphc.ir.location import user_line

Count: TypeAlias = int
"""A positive whole number."""
Natural: TypeAlias = int
"""A whole number from 0 on."""
Ends: TypeAlias = "int | Sequence[int | Sequence[int]]"
"""How much at the ends of axes: a whole number from 0 on, or one or a pair of them for each axis."""
Extended: TypeAlias = float
"""A number or an infinity; a ``float`` is finite."""
NonNegative: TypeAlias = float
"""A finite number of at least 0."""
Positive: TypeAlias = float
"""A finite number above 0."""
Limit: TypeAlias = float
"""A number of at least 0, or infinity, which limits nothing."""
Bound: TypeAlias = float
"""A number above 0, or infinity, which bounds nothing."""
Part: TypeAlias = float
"""A number from 0 to 1."""
LessThanAll: TypeAlias = float
"""A number from 0 to below 1."""

P = ParamSpec("P")
R = TypeVar("R")
_REFUSED: Any = object()


@dataclass(frozen=True)
class Kind:
    """One word of an annotation.

    Attributes:
        what: how messages call it.
        take: the plain value of what is of this kind; of other things a mark that it is not.
    """

    what: str
    take: Callable[[Any], Any]


def _instance(what: str, cls: Any) -> Kind:
    return Kind(what, lambda value: value if isinstance(value, cls) else _REFUSED)


def _whole(what: str, least: float) -> Kind:
    return Kind(what, lambda value: int(value) if is_whole(value, least) else _REFUSED)


def _number(what: str, low: float, high: float, *without: float) -> Kind:
    def take(value: Any) -> Any:
        return _plain(value) if is_number(value, low, high) and float(value) not in without else _REFUSED

    return Kind(what, take)


def _flag(value: Any) -> Any:
    plain = _plain(value)
    return bool(plain) if plain is None or isinstance(plain, bool) or (is_whole(plain, 0) and plain < 2) else _REFUSED


def _plain(value: Any) -> Any:
    return cast("Any", value).item() if isinstance(value, np.generic) or getattr(value, "shape", None) == () else value


_INF = math.inf
_KINDS = {
    "None": _instance("None", type(None)),
    "str": _instance("a text", str),
    "Path": _instance("a path", os.PathLike),
    "bool": Kind("True or False", _flag),
    "int": _whole("a whole number", -_INF),
    "Natural": _whole("a whole number from 0 on", 0),
    "Count": _whole("a positive whole number", 1),
    "float": _number("a number", -_INF, _INF, -_INF, _INF),
    "Extended": _number("a number", -_INF, _INF),
    "NonNegative": _number("a number of at least 0", 0, _INF, _INF),
    "Positive": _number("a positive number", 0, _INF, 0, _INF),
    "Limit": _number("a number of at least 0", 0, _INF),
    "Bound": _number("a positive number", 0, _INF, 0),
    "Part": _number("a number from 0 to 1", 0, 1),
    "LessThanAll": _number("a number from 0 to below 1", 0, 1, 1),
}
_ENDS = "Natural | Sequence[Natural | Sequence[Natural]]"
_SEQUENCE = re.compile(r"(?:Sequence|Iterable|list|tuple)\[(.*?)(?:, \.\.\.)?\]")


@dataclass(frozen=True)
class Rule:
    """What an argument takes.

    Attributes:
        kinds: the kinds that its annotation names.
        closed: whether these are all.
    """

    kinds: tuple[Kind, ...]
    closed: bool

    def take(self, value: Any) -> Any:
        """The plain value, or a mark that it is of no kind."""
        for kind in self.kinds:
            plain = kind.take(value)
            if plain is not _REFUSED:
                return plain
        return _REFUSED if self.closed else value

    @property
    def what(self) -> str:
        """What messages ask for; None, which is the default mostly, last."""
        kinds = sorted((kind.what for kind in self.kinds), key=lambda what: what == "None")
        return " or ".join(kinds)


def _words(union: str) -> list[str]:
    """The members of a union, which may have unions in brackets."""
    words: list[str] = []
    for part in union.split(" | "):
        if words and words[-1].count("[") > words[-1].count("]"):
            words[-1] += f" | {part}"
        else:
            words.append(part)
    return words


@lru_cache(maxsize=1024)
def _read(annotation: str) -> Rule:
    kinds: list[Kind] = []
    closed = True
    for word in _words(annotation.replace("Ends", _ENDS)):
        inner = _SEQUENCE.fullmatch(word)
        of = None if inner is None else _read(inner[1])
        if word in _KINDS:
            kinds.append(_KINDS[word])
        elif of is not None:
            kinds.append(_several(of))
        elif word.startswith("Callable["):
            kinds.append(_instance("a function", Callable))
        elif word.startswith(("Mapping[", "dict[")):
            kinds.append(_instance("a dict", Mapping))
        else:
            closed = False
    return Rule(tuple(sorted(kinds, key=lambda kind: kind.what != "None")), closed)


def _several(rule: Rule) -> Kind:
    """A sequence of what a rule takes."""

    def take(value: Any) -> Any:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            return _REFUSED
        given = cast("Iterable[Any]", value)
        if getattr(given, "shape", None) == ():
            return _REFUSED
        if not rule.kinds or not isinstance(given, list | tuple | range | set | np.ndarray):
            return given  # what others made may be endless: it is asked as it goes
        items = [rule.take(item) for item in given]
        if any(item is _REFUSED for item in items):
            return _REFUSED
        return items if isinstance(value, list) else tuple(items)

    return Kind(f"a list, each {rule.what}" if rule.closed else "a list", take)


@dataclass(frozen=True)
class Rules:
    """What the arguments of a function take.

    Attributes:
        rules: by name, for the arguments that ask for anything.
        places: the numbers of the arguments that may be given by position.
        asking: those among them that ask for anything, by number.
        needed: the arguments without a default, and their numbers.
        least, most: how many arguments have to be given by position where none is by name, and may be.
        names: those that may be given by name; None: any.
        signature: the function's.
    """

    rules: Mapping[str, Rule]
    places: Mapping[str, int]
    asking: tuple[tuple[int, str], ...]
    needed: tuple[tuple[float, str], ...]
    least: float
    most: float
    names: frozenset[str] | None
    signature: inspect.Signature

    def fit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Can the function be called with these? The same as the signature says, in a tenth of its time."""
        count = len(args)
        if not kwargs:
            return self.least <= count <= self.most
        if count > self.most or not (self.names is None or kwargs.keys() <= self.names):
            return False
        if any(place >= count and name not in kwargs for place, name in self.needed):
            return False
        return all(self.places.get(name, count) >= count for name in kwargs)

    def take(self, owner: str, name: str, value: Any) -> Any:
        """The plain value of an argument.

        Raises:
            AxisError: it is of no kind that the argument takes.
        """
        rule = self.rules.get(name)
        plain = value if rule is None else rule.take(value)
        if rule is None or plain is not _REFUSED:
            return plain
        default = self.signature.parameters[name].default
        example = f", such as {default!r}" if default and type(default) in (int, float, str) else ""
        alone = rule.take([value]) is not _REFUSED
        remedy = f"write {name}=[{shown(value)}]" if alone else f"give {rule.what}{example}"
        raise AxisError(f"{name} of {owner} is {shown(value)}", at=user_line(), remedy=remedy)


def _rules(function: Callable[..., Any]) -> Rules:
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    found = {p.name: _read(p.annotation) for p in parameters if isinstance(p.annotation, str) and p.kind in _NAMED}
    rules = {name: rule for name, rule in found.items() if rule.kinds}
    places = {p.name: place for place, p in enumerate(parameters) if p.kind is p.POSITIONAL_OR_KEYWORD}
    kinds = {p.kind for p in parameters}
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _NAMED]
    return Rules(
        rules,
        places,
        tuple((place, name) for name, place in places.items() if name in rules),
        tuple((places.get(name, math.inf), name) for name in needed),
        max((places.get(name, math.inf) + 1 for name in needed), default=0),
        math.inf if inspect.Parameter.VAR_POSITIONAL in kinds else len(places),
        None if inspect.Parameter.VAR_KEYWORD in kinds else frozenset(p.name for p in parameters if p.kind in _NAMED),
        signature,
    )


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function that is given what its annotations say; a decorator. Unknown names of arguments are told, too.

    Raises:
        AxisError: when it is called with a value that an argument does not take.
        DTypeError: when it is called with arguments that it does not have, or without those that it needs.

    >>> @checked
    ... def halve(x: float, times: Count = 1):
    ...     return x / 2**times
    >>> halve(np.float32(3), times=np.int64(2))
    0.75
    """
    read: list[Rules] = []  # at the first call: reading all signatures would take part of every import

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not read:
            read.append(_rules(function))
        rules = read[0]
        owner = type(args[0]).__name__ if function.__name__ == "__init__" else function.__name__
        if not rules.fit(args, kwargs):
            try:
                rules.signature.bind(*args, **kwargs)
            except TypeError as error:
                what = f"{owner} does not take these arguments"
                raise misfit(what, f"see help({owner})", rules.signature, kwargs, error) from None
        plain = list(args)
        for place, name in rules.asking:
            if place >= len(args):
                break
            plain[place] = rules.take(owner, name, args[place])
        for name, value in kwargs.items():
            kwargs[name] = rules.take(owner, name, value)
        return cast("Any", function)(*plain, **kwargs)

    return cast("Callable[P, R]", call)


def hold_annotations(cls: type) -> None:
    """Let the constructor of one of graphc's own classes be :func:`checked`; a user's annotations are the user's."""
    if cls.__module__.startswith("graphc.") and "__init__" in vars(cls):
        cls.__init__ = checked(cls.__init__)


_ELSEWHERE = {
    "jit_compile": "leave jit_compile out, every step is compiled",
    "run_eagerly": "leave run_eagerly out, every step is compiled; backend='reference' computes node by node",
    "steps_per_execution": "leave steps_per_execution out, steps follow each other without it",
    "auto_scale_loss": "leave auto_scale_loss out, precision='mixed_float16' scales the loss",
    "workers": "give workers to the gx.data.PyDataset",
    "use_multiprocessing": "give workers to the gx.data.PyDataset",
    "max_queue_size": "give max_queue_size to the gx.data.PyDataset",
}
"""What to do about arguments that Keras has, or had, at places where they mean nothing here."""


def misfit(
    what: str, write: str, signature: inspect.Signature, kwargs: Mapping[str, Any], error: TypeError
) -> DTypeError:
    """The error of a call whose arguments a signature does not have, or lacks."""
    unknown = next((name for name in kwargs if name not in signature.parameters), "")
    near = f"{_ELSEWHERE[unknown]}; " if unknown in _ELSEWHERE else suggestion(unknown, signature.parameters)
    return DTypeError(f"{what}: {error}", at=user_line(), remedy=f"{near}{write}")
