"""Objects described by their constructor's arguments, so that a model can be written down as text and read back.

A :class:`Configurable` remembers the arguments it was made with. Its text form names its class by a short key such as
``layers.Dense``: only graphc's own classes and those that the user registered or passes as ``custom_objects`` can come
back, so reading a file never imports or runs anything that it names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Self, cast

import numpy as np

from graphc.errors import FileError, GraphError
from graphc.frontend.arguments import suggestion
from graphc.frontend.checked import hold_annotations, misfit
from graphc.ir.dims import Dim, parse_size
from graphc.ir.location import user_line
from graphc.ir.types import DType

Json = Any

_HOME = "graphc.frontend."
_OPS = "graphc.ops."
_LATE = ("applications", "models")
"""Parts of the frontend that nothing imports before a user or a file asks for them."""
_built_in: dict[str, type[Configurable]] = {}
_registered: dict[str, Any] = {}
_functions: dict[str, Callable[..., Any]] = {}


class Configurable:
    """Base of all that can be written into a model file: it remembers the arguments of its constructor."""

    _given: dict[str, Any] | None
    keeps_identity = False
    """Whether one object in two places must come back as one object, as layers must."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(_HOME):
            _built_in[_key(cls)] = cls
        hold_annotations(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        object.__setattr__(self, "_given", _bind(cls, args, kwargs))
        return self

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments by name. Override it together with :meth:`from_config`."""
        if self._given is None:
            raise GraphError(
                f"{type(self).__name__} takes unnamed arguments (*args), which have no names in a file",
                at=user_line(),
                remedy="define get_config and from_config, or name the arguments",
            )
        return dict(self._given)

    def __repr__(self) -> str:
        """The call that made it: ``Adam(learning_rate=0.01)``."""
        given = "..." if self._given is None else ", ".join(f"{key}={value!r}" for key, value in self._given.items())
        return f"{type(self).__name__}({given})"

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """An object from what :meth:`get_config` returned."""
        return cls(**config)

    @classmethod
    def revive(cls, config: dict[str, Any], custom_objects: Mapping[str, Any]) -> Self:
        """What reading a file calls: :meth:`from_config`, for those that hold no further objects as text."""
        return cls.from_config(config)

    def get_setup(self) -> dict[str, Any]:
        """What is set after construction, such as a layer's final name; plain values."""
        return {}

    def apply_setup(self, setup: dict[str, Any]) -> None:
        """Set again what :meth:`get_setup` returned."""


def _bind(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    signature = _signature(cls)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        needed = [name for name, one in signature.parameters.items() if one.default is one.empty and one.kind in _NAMED]
        write = f"write {cls.__name__}({', '.join((*needed, '...'))}); see help({cls.__name__})"
        what = f"{cls.__name__} cannot be made of these arguments"
        raise misfit(what, write, signature, kwargs, error) from None
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return None
        if kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return found


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_signatures: dict[type, inspect.Signature] = {}


def _signature(cls: type) -> inspect.Signature:
    found = _signatures.get(cls)
    if found is None:
        full = inspect.signature(cls.__init__)
        found = _signatures[cls] = full.replace(parameters=list(full.parameters.values())[1:])
    return found


def _key(cls: type) -> str:
    return f"{cls.__module__.removeprefix(_HOME).split('.')[0]}.{cls.__name__}"


def register(thing: Any = None, *, name: str | None = None) -> Any:
    """Let a class or function of yours come back from a saved model under its name. A decorator.

    Args:
        thing: a layer, loss, metric, optimizer, initializer or regularizer class, or a function.
        name: what the file calls it; default its own name.

    Raises:
        GraphError: another object is registered under this name.

    >>> import graphc as gx
    >>> @gx.saving.register
    ... def cubed(x):
    ...     return x * x * x
    """

    def store(thing: Any) -> Any:
        key = name or thing.__name__
        known = _registered.get(key)
        if known is not None and known is not thing and known.__qualname__ != thing.__qualname__:
            raise GraphError(
                f"{key!r} is registered for {known!r}", at=user_line(), remedy="register it with another name="
            )
        _registered[key] = thing
        return thing

    return store if thing is None else store(thing)


def register_function(group: str, function: Callable[..., Any]) -> None:
    """Name one of graphc's own functions, such as an activation, for files."""
    _functions[f"{group}.{function.__name__}"] = function


class Written:
    """JSON that is written and read back as it is."""

    def __init__(self, data: Json) -> None:
        self.data = data


def serialize(value: Any) -> Json:
    """A value as JSON.

    Raises:
        GraphError: the value has no text form; the error says which.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return serialize(cast("Any", value).item())
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return {"array": array.tolist(), "dtype": str(array.dtype)}
    if isinstance(value, DType):
        return value.value
    if isinstance(value, type) and issubclass(value, np.generic):
        return np.dtype(cast("Any", value)).name
    if isinstance(value, Dim):
        return {"size": str(value)}
    if isinstance(value, list | tuple):
        return [serialize(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {"dict": {str(key): serialize(item) for key, item in cast("dict[Any, Any]", value).items()}}
    if isinstance(value, Written):
        return {"json": value.data}
    if isinstance(value, Configurable):
        return _serialize_object(value)
    thing = cast("Any", value)
    if callable(thing):
        return {"function": _name_of(thing)}
    raise GraphError(
        f"{value!r} has no form in a file",
        at=user_line(),
        remedy="define get_config and from_config of the object that holds it",
    )


def _serialize_object(value: Configurable) -> Json:
    seen = _sharing.places.get() if value.keeps_identity else None
    if seen is not None:
        seen[id(value)] = seen.get(id(value), 0) + 1
        if seen[id(value)] > 1:
            return {"same as": list(seen).index(id(value))}
    entry = {
        "class": _name_of(type(value)),
        "config": {key: serialize(item) for key, item in value.get_config().items()},
    }
    setup = value.get_setup()
    return {**entry, "setup": setup} if setup else entry


class _Sharing:
    """What one text has met so far: how often each object was written, or the objects read in order of beginning."""

    def __init__(self) -> None:
        self.places: ContextVar[dict[int, int] | None] = ContextVar("places", default=None)
        self.objects: ContextVar[list[Any] | None] = ContextVar("objects", default=None)


_sharing = _Sharing()


def serialize_whole(value: Configurable) -> Json:
    """An object as JSON in which layers that stand in several places are written once."""
    token = _sharing.places.set({})
    try:
        return serialize(value)
    finally:
        _sharing.places.reset(token)


def deserialize_whole(value: Json, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The object that :func:`serialize_whole` wrote."""
    token = _sharing.objects.set([])
    try:
        return deserialize(value, custom_objects)
    finally:
        _sharing.objects.reset(token)


def _name_of(thing: Any) -> str:
    for table in (_built_in, _functions):
        for key, known in table.items():
            if known is thing:
                return key
    for key, known in _registered.items():
        if known is thing:
            return f"custom.{key}"
    if getattr(thing, "__module__", "").startswith(_OPS) and getattr(ops(), thing.__name__, None) is thing:
        return f"ops.{thing.__name__}"
    name = getattr(thing, "__name__", "")
    if not name.isidentifier():
        raise GraphError(
            f"{thing!r} has no name by which a file could find it",
            at=user_line(),
            remedy="give it a name with def, and register it: @gx.saving.register",
        )
    return f"custom.{name}"


def deserialize(value: Json, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The value that :func:`serialize` wrote.

    Raises:
        FileError: it names a class or function that is not known here.
    """
    custom = custom_objects or {}
    if isinstance(value, list):
        return [deserialize(item, custom) for item in cast("list[Json]", value)]
    if not isinstance(value, dict):
        return value
    entry = cast("dict[str, Json]", value)
    if "array" in entry:
        return np.array(entry["array"], entry["dtype"])
    if "size" in entry:
        return parse_size(entry["size"])
    if "dict" in entry:
        return {key: deserialize(item, custom) for key, item in entry["dict"].items()}
    if "json" in entry:
        return entry["json"]
    if "function" in entry:
        return _find(entry["function"], custom)
    objects = _sharing.objects.get()
    if "same as" in entry and objects is not None:
        return objects[entry["same as"]]
    cls = _find(entry["class"], custom)
    place = None
    if objects is not None and getattr(cls, "keeps_identity", False):
        place = len(objects)
        objects.append(None)  # numbered as they were when written: outer ones first
    made = cls.revive({key: deserialize(item, custom) for key, item in entry["config"].items()}, custom)
    if "setup" in entry:
        made.apply_setup(entry["setup"])
    if objects is not None and place is not None:
        objects[place] = made
    return made


def ops() -> Any:
    """The module of the functions that ``gx`` exports."""
    return importlib.import_module("graphc.ops")


def _find(key: str, custom: Mapping[str, Any]) -> Any:
    group, _, name = key.partition(".")
    if group == "custom":
        found = custom.get(name, _registered.get(name))
    elif group == "ops":
        found = getattr(ops(), name, None)
        found = found if getattr(found, "__module__", "").startswith(_OPS) else None
    else:
        if group in _LATE:
            importlib.import_module(_HOME + group)
        found = _built_in.get(key) or _functions.get(key)
    if found is None:
        raise FileError(
            f"the file names {name!r}, which is not known here",
            remedy=f"pass custom_objects={{{name!r}: ...}}, or register it before loading: @gx.saving.register",
        )
    return found


def lookup(value: Any, table: Mapping[str, Any], kind: str, also: tuple[str, ...] = ()) -> Any:
    """What a string stands for (``"relu"``, ``"adam"``); other values pass through.

    Args:
        value: what the user gave.
        table: what there is, by name; names of classes are understood, but not offered.
        kind: what messages call it.
        also: names that the caller has dealt with.

    Raises:
        GraphError: nothing of this kind has that name.
    """
    if not isinstance(value, str):
        return value
    found = table.get(value, table.get(value.lower()))
    if found is None:
        found = _registered.get(value)
    if found is None:
        known = sorted({*(name for name in table if name.islower()), *also})
        raise GraphError(
            f"no {kind} is called {value!r}",
            at=user_line(),
            remedy=f"{suggestion(value, known)}use one of {', '.join(known)}, or pass your own",
        )
    return found
