"""Texts that models write: the decoder's keys and values are the state of a generation.

A prompt is read in one pass. From there on each step computes one token, looks at the keys and values of all before it,
and writes its own behind them, in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import tracing
from graphc.frontend.config import user_line
from graphc.frontend.decoder import Decoded, Decoder
from graphc.frontend.layers.remembered import Places, Remembered, Seen
from graphc.frontend.layers.transformer import TransformerDecoder
from graphc.ir.node import Node

State = dict[str, Any]


class CachedDecoder:
    """A decoder as the step of a generation: see :func:`graphc.generation.greedy`.

    Rows do not depend on each other: each is what it would be alone, wherever its prompt is padded.

    Args:
        decoder: the layers.
        embed: ``embed(tokens, positions)``: what goes into them, of tokens (batch, time) at positions (time,) or
            (batch, time).
        logits: ``logits(x)``: what comes of their result.
        length: so many tokens are written at most.
        mask_zero: no token looks at token 0.

    Source: Shazeer 2019, https://arxiv.org/abs/1911.02150, section 2.4: incremental generation.
    """

    def __init__(
        self,
        decoder: TransformerDecoder,
        embed: Callable[[Node, Node], Node],
        logits: Callable[[Node], Node],
        length: int,
        mask_zero: bool = False,
    ) -> None:
        self._decoder = decoder
        self._embed = embed
        self._logits = logits
        self._length = length
        self._mask_zero = mask_zero

    def look_at(self, memory: Node) -> Any:
        """The constants of a generation that looks at a memory, (batch, steps, n): its keys and values."""
        mask = tracing.mask_of(memory)
        return {
            "held": self._decoder.remember_memory(memory),
            "mask": None if mask is None else gx.expand_dims(mask, 1),
        }

    def begin(self, prompt: Node, mask: Node | None = None, constants: Any = None) -> tuple[State, Node]:
        """Read prompts: the state after all their tokens but the last, and the last.

        Args:
            prompt: (batch, time).
            mask: (batch, time), which tokens count: at least one in each row; default all.
            constants: what :meth:`look_at` gave.
        """
        if mask is None and self._mask_zero:
            mask = gx.not_equal(prompt, 0)
        time = prompt.shape[1]
        if mask is None:
            return self._begin_with(prompt[:, :-1], None, time - 1, constants), gx.cast(prompt[:, -1], "int64")
        places = gx.arange(time)
        last = gx.max(gx.where(mask, places, 0), axis=1, keepdims=True)
        before = gx.logical_and(mask, gx.not_equal(places, last))
        state = self._begin_with(prompt, before, gx.sum(gx.cast(before, "int64"), axis=1), constants)
        return state, gx.cast(gx.take_along(prompt, last, 1)[:, 0], "int64")

    def _begin_with(self, prompt: Node, mask: Node | None, position: Any, constants: Any) -> State:
        """The state after prompts of which these tokens count; the next one stands at ``position``."""
        batch, time = prompt.shape
        if mask is None:
            positions = gx.arange(time)
            places = Places(positions)
            seen = gx.full((batch, time), True, "bool")
        else:
            positions = gx.maximum(gx.cumsum(gx.cast(mask, "int64"), axis=1) - 1, 0)
            places = Places(positions, gx.expand_dims(mask, 1), positions)
            seen = mask
        memory = self._memory(constants)
        if time == 0:
            held = self._nothing_held(batch, memory)
        else:
            held = self._decoder.read(self._embed(prompt, positions), places, memory)[1]
        rows = gx.zeros((batch,), "int64")
        state: State = {
            "held": [one.widened(self._length) for one in held],
            "seen": gx.pad(seen, (0, 0), (0, self._length), value=False),
            "position": rows + (position if isinstance(position, Node) else gx.size_of(position)),
            "slot": rows + gx.size_of(time),
        }
        if self._decoder.relative_position_bias is not None:
            known = gx.broadcast_to(positions, (batch, time))
            state["positions"] = gx.pad(known, (0, 0), (0, self._length))
        return state

    def step(self, tokens: Node, state: State, constants: Any = None) -> tuple[Node, State]:
        """The logits behind one more token in each row, (batch,), and the next state."""
        slot = gx.maximum(gx.max(state["slot"]), 0)  # all rows have the same
        position = gx.expand_dims(state["position"], 1)
        token = gx.expand_dims(tokens, 1)
        counts = gx.not_equal(token, 0) if self._mask_zero else gx.full(token.shape, True, "bool")
        after: State = {
            "seen": gx.update_slice(state["seen"], counts, slot, axis=1),
            "position": state["position"] + 1,
            "slot": state["slot"] + 1,
        }
        if "positions" in state:
            after["positions"] = gx.update_slice(state["positions"], position, slot, axis=1)
        places = Places(position, gx.expand_dims(after["seen"], 1), after.get("positions"), slot)
        x, held = self._decoder.step(self._embed(token, position), state["held"], places, self._memory(constants))
        return self._logits(x)[:, 0], {"held": held, **after}

    def _memory(self, constants: Any) -> list[Seen] | None:
        return None if constants is None else [Seen(held, constants["mask"]) for held in constants["held"]]

    def _nothing_held(self, batch: Any, memory: Sequence[Seen] | None) -> list[Remembered]:
        """The keys and values of no token, of the types that those of one would have."""
        token, position = gx.zeros((batch, 1), "int64"), gx.arange(1)
        made = self._decoder.read(self._embed(token, position), Places(position), memory)[1]
        return [Remembered(*(gx.zeros((*x.shape[:2], 0, x.shape[3]), x.dtype) for x in one)) for one in made]


def write(
    decoder: Decoder,
    arrays: dict[str, Any],
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    beams: int | None,
    length_penalty: float,
    callback: Callable[[Any], object] | None,
) -> Decoded:
    """Generate in the way that the arguments of a model's ``generate`` ask for."""
    drawn = temperature is not None or top_k is not None or top_p is not None
    if beams is not None and (drawn or callback is not None):
        raise AxisError(
            "a beam search neither draws tokens nor knows them before it ends",
            at=user_line(),
            remedy="leave out beams, or temperature, top_k, top_p and callback",
        )
    if callback is not None:
        items = decoder.stream(arrays, temperature, top_k, top_p, seed, callback)
        while True:
            try:
                next(items)
            except StopIteration as end:
                return end.value
    if beams is not None:
        return decoder.beam_search(arrays, beams, length_penalty)
    if drawn:
        return decoder.sample(arrays, 1.0 if temperature is None else temperature, top_k, top_p, seed)
    return decoder.greedy(arrays)


def as_prompts(prompts: Any, mask: Any, pad: int) -> tuple[Any, Any]:
    """Prompts as one array (batch, time), and which of its tokens count; None: all.

    Raises:
        ShapeError: there is a prompt without tokens, or the mask is of another shape.
    """
    rows = [np.asarray(row) for row in prompts]
    if rows and all(row.ndim == 0 for row in rows):
        raise ShapeError("prompts are one row of tokens", at=user_line(), remedy="give several rows: prompts[None]")
    if mask is None and len({row.size for row in rows}) > 1:
        time = max(row.size for row in rows)
        mask = np.array([np.arange(time) < row.size for row in rows])
        rows = [np.pad(row, (0, time - row.size), constant_values=pad) for row in rows]
    array = np.asarray(rows, np.int64)
    counted = None if mask is None else np.asarray(mask, bool)
    if array.ndim != 2 or (counted is not None and counted.shape != array.shape):
        shown = "" if counted is None else f", the mask {list(counted.shape)}"
        raise ShapeError(
            f"prompts have shape {list(array.shape)}{shown}", at=user_line(), remedy="give (batch, time) for both"
        )
    if (array.shape[1] if counted is None else counted.any(axis=1).all()) == 0:
        raise ShapeError(
            "there is a prompt without tokens", at=user_line(), remedy="let each begin with a token of its own"
        )
    return array, counted
