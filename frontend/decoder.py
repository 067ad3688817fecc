"""Decoder: the ways to write sequences with one step, as programs that are compiled when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import graphc as gx
from graphc.backend import Backend
from graphc.errors import AxisError, NameClashError
from graphc.frontend import generation, nest, tracing
from graphc.frontend.config import user_line
from graphc.frontend.generation import Nest, Step
from graphc.ir.node import Node

Arrays = Mapping[str, Any]


class Decoded(NamedTuple):
    """What a :class:`Decoder` wrote, as arrays.

    Attributes:
        tokens: (batch, length), or (batch, width, length) from a beam search; ``pad`` behind the end.
        lengths: how many tokens there are, the end included.
        log_probs: the logarithm of the probability under the model.
    """

    tokens: Any
    lengths: Any
    log_probs: Any


class Decoder:
    """Writes sequences for arrays of inputs: greedily, by sampling, by beam search, or token by token.

    Each way is one program, compiled when it is first used. Temperature, limits and seed of sampling are inputs of its
    program: other values compile nothing.

    Args:
        step: ``step(tokens, state)``, or with constants ``step(tokens, state, constants)``; see
            :func:`graphc.generation.greedy`.
        inputs: the placeholders that ``state``, ``start`` and ``constants`` are computed from.
        state: the first state, such as what an encoder made of the inputs; batch first.
        start: the first tokens (batch,), or prompts (batch, time).
        length: at most so many tokens.
        end: the token that ends a row.
        pad: what stands behind a row's end.
        constants: what stays the same at all steps, batch first.
        lengths: (batch,), how many tokens of each prompt count.
        backend: as for ``gx.compile``.

    Shapes: as :func:`graphc.generation.greedy`.
    Raises: NameClashError: an input is called ``seed``, ``temperature``, ``top_k`` or ``top_p``.
    Source: Sutskever et al. 2014, https://arxiv.org/abs/1409.3215.

    >>> import numpy as np
    >>> import graphc as gx
    >>> table = gx.constant(np.eye(5, k=1, dtype=np.float32))  # after token i comes i + 1
    >>> start = gx.placeholder("start", ("batch",), "int64")
    >>> step = lambda token, _: (gx.take(table, token, axis=0), None)
    >>> decoder = gx.generation.Decoder(step, [start], None, start, length=6, end=4, backend="reference")
    >>> decoder.greedy({"start": np.array([0, 2])}).tokens.tolist()
    [[1, 2, 3, 4, 0, 0], [3, 4, 0, 0, 0, 0]]
    >>> [token.tolist() for token in decoder.stream({"start": np.array([0, 2])})]
    [[1, 3], [2, 4], [3, 0], [4, 0]]
    """

    def __init__(
        self,
        step: Step,
        inputs: Sequence[Node],
        state: Nest,
        start: Node,
        length: int,
        end: int | None = None,
        pad: int = 0,
        constants: Nest = None,
        lengths: Node | None = None,
        backend: str | Backend = "auto",
        precision: str | None = None,
    ) -> None:
        self._step = step
        self._inputs = list(inputs)
        self._length, self._end, self._pad = length, end, pad
        self._state, self._start, self._constants, self._lengths = state, start, constants, lengths
        self._arguments: dict[str, Any] = {
            "state": state, "start": start, "length": length, "end": end, "pad": pad, "constants": constants,
            "lengths": lengths,
        }  # fmt: skip
        self._backend, self._precision = backend, precision
        self._programs: dict[Any, Any] = {}
        self._limits: dict[str, Any] = {
            "temperature": gx.placeholder("temperature", ()),
            "top_k": gx.placeholder("top_k", (), "int64"),
            "top_p": gx.placeholder("top_p", ()),
            "seed": gx.placeholder("seed", (), "uint32"),
        }
        for node in self._inputs:
            if node.name in self._limits:
                raise NameClashError(
                    f"an input is called {node.name!r}, as is one of the decoder's",
                    at=user_line(),
                    remedy="give it another name",
                )

    def greedy(self, inputs: Arrays) -> Decoded:
        """The likeliest token at each step; see :func:`graphc.generation.greedy`.

        Args:
            inputs: an array for each of the inputs, by name.
        """
        return Decoded(**self.program("greedy")(**inputs))

    def sample(
        self,
        inputs: Arrays,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Decoded:
        """Drawn tokens; see :func:`graphc.generation.sample`.

        Args:
            inputs: an array for each of the inputs, by name.
            temperature, top_k, top_p, seed: as there.
        """
        limits = _limit_arrays(temperature, top_k, top_p, seed)
        return Decoded(**self.program("sample")(**inputs, **limits))

    def beam_search(self, inputs: Arrays, width: int, length_penalty: float = 0.0) -> Decoded:
        """The ``width`` best sequences of a beam search; see :func:`graphc.generation.beam_search`.

        Args:
            inputs: an array for each of the inputs, by name.
            width, length_penalty: as there.
        """
        return Decoded(**self.program("beam_search", width, length_penalty)(**inputs))

    def stream(
        self,
        inputs: Arrays,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        callback: Callable[[Any], object] | None = None,
    ) -> Generator[Any, None, Decoded]:
        """Token by token: an iterator whose every item is one step, the tokens (batch,) with ``pad`` behind ends.

        The tokens are those that :meth:`greedy` and :meth:`sample` write in one call, and so is what the generator
        returns in the end.

        Args:
            inputs: an array for each of the inputs, by name.
            temperature, top_k, top_p, seed: as for :meth:`sample`; without a temperature and limits the likeliest.
            callback: called with each item before it is handed out, for code that rather listens than asks.
        """
        drawn = temperature is not None or top_k is not None or top_p is not None
        begin = self._program("begin", self._build_begin)
        advance = self._program(("advance", drawn), lambda: self._build_advance(drawn))
        limits = _limit_arrays(1.0 if temperature is None else temperature, top_k, top_p, seed) if drawn else {}
        carried = begin(**inputs)
        fixed = {name: carried.pop(name) for name in list(carried) if name.startswith("constant")}
        tokens = np.full((len(carried["token"]), self._length), self._pad, np.int64)
        for place in range(self._length):
            carried = advance(**carried, **fixed, **limits)
            shown = tokens[:, place] = carried.pop("shown")
            if callback is not None:
                callback(shown)
            yield shown
            if not carried["alive"].any():
                break
        return Decoded(tokens, carried["lengths"], carried["log_probs"])

    # programs

    def program(self, way: str = "greedy", width: int = 1, length_penalty: float = 0.0) -> Any:
        """The whole generation as one program, for example to export it.

        Args:
            way: ``"greedy"``; ``"sample"``, which takes ``temperature``, ``top_k``, ``top_p`` and ``seed``, too; or
                ``"beam_search"``.
            width, length_penalty: of a beam search.

        Raises:
            AxisError: there is no such way.
        """
        if way == "greedy":
            return self._program(way, lambda: self._compile(generation.greedy(self._step, **self._arguments)._asdict()))
        if way == "sample":

            def sampling() -> Any:
                made = generation.sample(self._step, **self._arguments, **self._limits)
                return self._compile(made._asdict(), self._limits.values())

            return self._program(way, sampling)
        if way != "beam_search":
            raise AxisError(
                f"there is no way {way!r} to generate", at=user_line(), remedy="use greedy, sample or beam_search"
            )

        def searching() -> Any:
            made = generation.beam_search(self._step, width=width, length_penalty=length_penalty, **self._arguments)
            return self._compile({name: node for name, node in made._asdict().items() if name != "scores"})

        return self._program((way, width, length_penalty), searching)

    def _program(self, key: Any, build: Callable[[], Any]) -> Any:
        if key not in self._programs:
            self._programs[key] = build()
        return self._programs[key]

    def _compile(self, outputs: Mapping[str, Node], further: Any = ()) -> Any:
        inputs = [*self._inputs, *further]
        return gx.compile(outputs, inputs=inputs, backend=self._backend, precision=self._precision)

    def _begun(self) -> tuple[dict[str, Any], Nest]:
        state, last = generation.begin(self._step, self._state, self._start, self._constants, self._lengths)
        return generation.first_carry(last, state), self._constants

    def _build_begin(self) -> Any:
        carry, constants = self._begun()
        fixed = _named({"constant": constants})
        return self._compile({**_named(carry), **fixed, **_masks(fixed)})

    def _build_advance(self, drawn: bool) -> Any:
        """One step whose carry comes in and goes out by name."""
        carry, constants = self._begun()
        table = {"constant": constants}
        nodes = _named(table)
        derived: dict[str, str] = {}
        taken, fixed, masks = (
            {name: _taken(name, node, derived) for name, node in found.items()}
            for found in (_named(carry), nodes, _masks(nodes))
        )
        for name, node in fixed.items():
            tracing.set_mask(node, masks.get(f"{name}_mask"))
        limits = self._limits if drawn else {}
        after, shown = generation.one_step(
            self._step,
            _refilled(carry, taken),
            self._end,
            self._pad,
            _refilled(table, fixed)["constant"],
            generation.sampler(**limits, stream=0) if drawn else generation.likeliest,
        )
        inputs = [*taken.values(), *fixed.values(), *masks.values(), *limits.values()]
        outputs = {**_named(after), "shown": shown}
        return gx.compile(outputs, inputs=inputs, backend=self._backend, precision=self._precision)


def _named(table: Mapping[str, Nest]) -> dict[str, Node]:
    """All nodes of structures, by the structure's name and a number where there may be several."""
    found: dict[str, Node] = {}
    for name, structure in table.items():
        if isinstance(structure, Node):
            found[name] = structure
        else:
            leaves = [leaf for leaf in nest.leaves(structure) if leaf is not None]
            found.update((f"{name}{place}", leaf) for place, leaf in enumerate(leaves))
    return found


def _taken(name: str, node: Node, derived: dict[str, str]) -> Node:
    """A placeholder for a node of another program. A size that was a formula there is one of its own here."""
    shape = [
        size
        if isinstance(size, int) or str(size).isidentifier()
        else derived.setdefault(str(size), f"s{len(derived)}_")
        for size in node.shape
    ]
    return gx.placeholder(name, shape, node.dtype)


def _masks(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The masks that travel with nodes, by the node's name and ``_mask``."""
    found = {f"{name}_mask": tracing.mask_of(node) for name, node in nodes.items()}
    return {name: mask for name, mask in found.items() if mask is not None}


def _refilled(table: Mapping[str, Nest], nodes: Mapping[str, Node]) -> dict[str, Nest]:
    """The structures with other nodes, in the order of :func:`_named`."""
    following = iter(nodes.values())
    return nest.map_leaves(lambda leaf: None if leaf is None else next(following), dict(table))


def _limit_arrays(temperature: float, top_k: int | None, top_p: float | None, seed: int) -> dict[str, Any]:
    """What the program of sampling takes; a share above 1 leaves out nothing."""
    generation.check_limits(temperature, top_k, top_p)
    return {
        "temperature": np.float32(temperature),
        "top_k": np.int64(np.iinfo(np.int64).max if top_k is None else top_k),
        "top_p": np.float32(2.0 if top_p is None else top_p),
        "seed": np.uint32(seed),
    }


__all__ = ["Decoded", "Decoder"]
