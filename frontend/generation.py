"""Sequences that a model writes itself, token by token: greedy, by sampling, by beam search.

All take a function for one step, ``step(tokens, state) -> (logits, state)``, which builds graph, and put it into a loop
that ends when every row has ended. A generation is thus part of a graph, and one native call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import graphc as gx
from graphc.errors import AxisError, DTypeError, GraphError, ShapeError
from graphc.frontend import nest, tracing
from graphc.frontend.arguments import is_whole
from graphc.frontend.config import user_line
from graphc.ir.node import Node

Nest = Any
Step = Callable[..., tuple[Node, Nest]]
"""``step(tokens, state)``, or ``step(tokens, state, constants)``: logits (batch, vocabulary) and the next state."""
Choose = Callable[[Node, Node], Node]
"""From logits (batch, vocabulary) and the number of the step to tokens (batch,)."""


class Generated(NamedTuple):
    """What :func:`greedy` and :func:`sample` return.

    Attributes:
        tokens: (batch, length), ``pad`` behind a row's end.
        lengths: (batch,), how many tokens a row has, its end included.
        log_probs: (batch,), the logarithm of a row's probability under the model.
    """

    tokens: Node
    lengths: Node
    log_probs: Node


class Beams(NamedTuple):
    """What :func:`beam_search` returns, the best sequence of each row first.

    Attributes:
        tokens: (batch, width, length), ``pad`` behind a sequence's end.
        lengths: (batch, width), how many tokens a sequence has, its end included.
        log_probs: (batch, width), the logarithm of its probability; -inf where there are fewer sequences than beams.
        scores: (batch, width), what beams are ranked by: ``log_probs`` over the penalty of the length.
    """

    tokens: Node
    lengths: Node
    log_probs: Node
    scores: Node


def filter_logits(logits: Any, temperature: Any = 1.0, top_k: Any = None, top_p: Any = None) -> Node:
    """Logits over the temperature, and -inf for what sampling leaves out.

    Args:
        logits: what ``softmax`` makes probabilities of, along the last axis.
        temperature: below 1 likely ones become likelier; a number or a scalar node.
        top_k: keep the k largest; of equal ones the first. A number or a scalar node.
        top_p: keep the likeliest until their probabilities, at this temperature and after ``top_k``, sum to at least
            so much. A number or a scalar node.

    Shapes: that of the logits.
    Raises: AxisError: a temperature that is not positive, ``top_k`` below 1, ``top_p`` outside (0, 1].
    Source: Fan et al. 2018, https://arxiv.org/abs/1805.04833 (top k); Holtzman et al. 2020,
        https://arxiv.org/abs/1904.09751 (top p).

    >>> import numpy as np
    >>> import graphc as gx
    >>> x = gx.placeholder("x", (4,))
    >>> kept = gx.compile({"kept": gx.generation.filter_logits(x, top_k=2)}, inputs=[x], backend="reference")
    >>> kept(x=np.float32([1, 3, 0, 2]))["kept"].tolist()
    [-inf, 3.0, -inf, 2.0]
    """
    check_limits(temperature, top_k, top_p)
    node = _as_logits(logits)
    scaled = node if isinstance(temperature, int | float) and temperature == 1 else node / temperature
    if top_k is None and top_p is None:
        return scaled
    order = gx.argsort(scaled, axis=-1, descending=True)
    ordered = gx.take_along(scaled, order, -1)
    if top_k is not None:
        place = gx.arange(node.shape[-1])
        ordered = gx.where(place < top_k, ordered, -gx.constant(float("inf"), ordered.dtype))
    if top_p is not None:
        before = gx.cumsum(gx.softmax(ordered, axis=-1), exclusive=True)
        ordered = gx.where(before < top_p, ordered, -gx.constant(float("inf"), ordered.dtype))
    return gx.put_along_axis(scaled, order, ordered, -1)


def greedy(
    step: Step,
    state: Nest,
    start: Any,
    length: int,
    end: int | None = None,
    pad: int = 0,
    constants: Nest = None,
    lengths: Any = None,
) -> Generated:
    """At each step the likeliest token; of equal ones the first.

    The loop ends when all rows have ended, or after ``length`` steps. A row's result does not depend on the others.

    Args:
        step: ``step(tokens, state)`` builds the logits (batch, vocabulary) and the next state from the tokens (batch,)
            before; with ``constants``, ``step(tokens, state, constants)``. It is called once.
        state: the first state: a node, or lists, tuples and dicts of nodes, batch first.
        start: the first token of each row (batch,), or prompts (batch, time), which are read first.
        length: at most so many tokens.
        end: the token that ends a row; None: all rows have ``length`` tokens.
        pad: what stands behind a row's end.
        constants: nodes that stay the same at all steps, batch first, such as what an encoder made; the layers of the
            step see the masks that travel with them.
        lengths: (batch,), how many tokens of each prompt count, from the first on, at least 1; default all.

    Shapes: tokens (batch, length), lengths and log_probs (batch,).
    Raises: AxisError: ``length`` below 1, ``end`` outside the vocabulary; ShapeError: logits or start of other shapes;
        DTypeError: start or logits of another kind.
    Source: Sutskever et al. 2014, https://arxiv.org/abs/1409.3215, section 3.2.

    >>> import numpy as np
    >>> import graphc as gx
    >>> table = gx.constant(np.eye(5, k=1, dtype=np.float32))  # after token i comes i + 1
    >>> start = gx.placeholder("start", ("batch",), "int64")
    >>> out = gx.generation.greedy(lambda token, _: (gx.take(table, token, axis=0), None), None, start, 6, end=4)
    >>> program = gx.compile({"tokens": out.tokens}, inputs=[start], backend="reference")
    >>> program(start=np.array([0, 2]))["tokens"].tolist()
    [[1, 2, 3, 4, 0, 0], [3, 4, 0, 0, 0, 0]]
    """
    return _write(step, state, start, length, end, pad, constants, lengths, likeliest)


def sample(
    step: Step,
    state: Nest,
    start: Any,
    length: int,
    end: int | None = None,
    pad: int = 0,
    constants: Nest = None,
    lengths: Any = None,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = None,
    seed: Any = 0,
    stream: int = 0,
) -> Generated:
    """At each step a token drawn with the model's probabilities, or those that :func:`filter_logits` leaves.

    Random numbers depend on seed, stream, step, row and token alone: the same seed writes the same text on every
    backend, up to logits that differ by rounding.

    Args:
        step, state, start, length, end, pad, constants, lengths: as in :func:`greedy`.
        temperature, top_k, top_p: as in :func:`filter_logits`; numbers or scalar nodes.
        seed: a number or a uint32 scalar node, such as a placeholder.
        stream: tells places of a program apart that draw from one seed.

    Shapes: tokens (batch, length), lengths and log_probs (batch,).
    Raises: AxisError, ShapeError, DTypeError: as :func:`greedy` and :func:`filter_logits`.
    Source: Maddison, Tarlow and Minka 2014, https://arxiv.org/abs/1411.0030, section 2.

    >>> import numpy as np
    >>> import graphc as gx
    >>> start = gx.placeholder("start", ("batch",), "int64")
    >>> fair = lambda token, _: (gx.zeros((token.shape[0], 2)), None)
    >>> out = gx.generation.sample(fair, None, start, 50, seed=1)
    >>> program = gx.compile({"tokens": out.tokens}, inputs=[start], backend="reference")
    >>> bool(0.3 < program(start=np.zeros(20, np.int64))["tokens"].mean() < 0.7)
    True
    """
    choose = sampler(temperature, top_k, top_p, seed, stream)
    return _write(step, state, start, length, end, pad, constants, lengths, choose)


def beam_search(
    step: Step,
    state: Nest,
    start: Any,
    length: int,
    width: int,
    end: int | None = None,
    pad: int = 0,
    constants: Nest = None,
    lengths: Any = None,
    length_penalty: float = 0.0,
) -> Beams:
    """The likeliest sequences that a search finds which keeps the ``width`` best beginnings at each step.

    Sequences that have ended stay among them as they are, and are ranked with those that go on, all by their
    ``log_prob / ((5 + length) / 6) ** length_penalty``. The loop ends when all have ended.

    Args:
        step: as in :func:`greedy`; it gets ``batch * width`` rows.
        state, constants: repeated for each beam, of ``batch`` rows.
        start, length, end, pad, lengths: as in :func:`greedy`.
        width: how many beginnings are kept; 1 is greedy.
        length_penalty: 0 ranks by probability, which favours short sequences; 0.6 to 1 are usual.

    Shapes: tokens (batch, width, length), the others (batch, width).
    Raises: AxisError: ``width`` or ``length`` below 1; else as :func:`greedy`.
    Source: Wu et al. 2016, https://arxiv.org/abs/1609.08144, equation 14, without its coverage penalty.

    >>> import numpy as np
    >>> import graphc as gx
    >>> table = gx.constant(np.log(np.float32([[0.01, 0.6, 0.39], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05]])))
    >>> start = gx.placeholder("start", ("batch",), "int64")
    >>> out = gx.generation.beam_search(lambda t, _: (gx.take(table, t, axis=0), None), None, start, 2, 2)
    >>> program = gx.compile({"tokens": out.tokens, "p": gx.exp(out.log_probs)}, inputs=[start], backend="reference")
    >>> found = program(start=np.array([0]))
    >>> found["tokens"].tolist(), [f"{p:.2f}" for p in found["p"][0]]  # greedy would find 0.6 * 0.4
    ([[[2, 0], [1, 0]]], ['0.35', '0.24'])
    """
    _check_count(length, "length")
    _check_count(width, "width")
    state, last = begin(step, state, start, constants, lengths)
    batch = last.shape[0]
    known = _each(lambda leaf: _repeated(leaf, width), constants)
    places = gx.arange(width)
    own = gx.broadcast_to(places, (batch, width))
    first = gx.expand_dims(gx.arange(batch), 1) * width
    infinity = gx.constant(float("inf"), "float32")

    def advance(carry: dict[str, Any], _: None) -> tuple[dict[str, Any], tuple[Node, Node]]:
        logits, following = _call(step, carry["token"], carry["state"], known, end)
        size = logits.shape[-1]
        each = gx.reshape(gx.log_softmax(gx.cast(logits, "float32"), axis=-1), (batch, width, size))
        alive = gx.expand_dims(carry["alive"], -1)
        stays = gx.where(gx.equal(gx.arange(size), 0), 0.0, -infinity)
        grown = gx.expand_dims(carry["log_probs"], -1) + gx.where(alive, each, stays)
        longer = carry["lengths"] + gx.cast(carry["alive"], "int64")
        ranks = grown / gx.expand_dims(_penalty(longer, length_penalty), -1)
        chosen = gx.top_k(gx.reshape(ranks, (batch, width * size)), width).indices
        parents, words = chosen // size, chosen % size
        grows = gx.take_along(carry["alive"], parents, 1)
        log_probs = gx.take_along(gx.reshape(grown, (batch, width * size)), chosen, 1)
        rows = gx.reshape(first + parents, (batch * width,))
        flat = gx.reshape(gx.where(grows, words, 0), (batch * width,))
        following_carry = {
            "token": flat,
            "alive": grows if end is None else gx.logical_and(grows, gx.not_equal(words, end)),
            "log_probs": log_probs,
            "lengths": gx.take_along(longer, parents, 1),
            "state": _each(lambda leaf: gx.take(leaf, rows, axis=0), following),
        }
        return following_carry, (words, parents - own)

    def going(carry: dict[str, Any]) -> Node:
        return gx.any(gx.logical_and(carry["alive"], carry["log_probs"] > -infinity))

    init = {
        "token": gx.repeat(last, width, axis=0),
        "alive": gx.full((batch, width), True, "bool"),
        "log_probs": gx.broadcast_to(gx.where(gx.equal(places, 0), 0.0, -infinity), (batch, width)),
        "lengths": gx.zeros((batch, width), "int64"),
        "state": _each(lambda leaf: _repeated(leaf, width), state),
    }
    ended, (words, moves) = gx.scan(advance, init, length=length, going=None if end is None else going)
    # Who came from whom: a step that did not run moved nothing, so that zeros are right for it.

    def follow(at: Node, x: tuple[Node, Node]) -> tuple[Node, Node]:
        return at + gx.take_along(x[1], at, 1), gx.take_along(x[0], at, 1)

    _, traced = gx.scan(follow, own, (words, moves), reverse=True)
    counts = ended["lengths"]
    behind = gx.arange(length) < gx.expand_dims(counts, -1)
    tokens = gx.where(behind, gx.transpose(traced, (1, 2, 0)), pad)
    return Beams(tokens, counts, ended["log_probs"], ended["log_probs"] / _penalty(counts, length_penalty))


def read_prompt(step: Step, state: Nest, prompt: Any, constants: Nest = None, lengths: Any = None) -> tuple[Nest, Node]:
    """The state after all tokens of a prompt but the last, and the last: what a generation begins with.

    Args:
        step, state, constants: as in :func:`greedy`.
        prompt: (batch, time).
        lengths: (batch,), how many tokens of each row count; default all.

    Shapes: the state's; the last tokens (batch,).
    Raises: ShapeError: a prompt without two axes.
    Source: Sutskever et al. 2014, https://arxiv.org/abs/1409.3215, section 2.

    >>> import graphc as gx
    >>> prompt = gx.placeholder("prompt", ("batch", "time"), "int64")
    >>> counting = lambda token, total: (gx.one_hot(token, 9), total + token)
    >>> total, last = gx.generation.read_prompt(counting, gx.zeros(("batch",), "int64"), prompt)
    >>> total.type, last.type
    (i64[batch], i64[batch])
    """
    if prompt.ndim != 2:
        raise ShapeError(f"a prompt has {prompt.ndim} axes", at=user_line(), remedy="give (batch, time)")
    count = prompt.shape[1]
    counted = gx.full((prompt.shape[0],), 0, "int64") + gx.size_of(count) if lengths is None else lengths

    def read(carry: Nest, x: tuple[Node, Node]) -> tuple[Nest, None]:
        token, place = x
        _, following = _call(step, token, carry, constants, None)
        inside = place < counted - 1
        kept = [_choose_rows(inside, new, old) for new, old in zip(_nodes(following), _nodes(carry), strict=True)]
        leaves = iter(kept)
        return _each(lambda _: next(leaves), carry), None

    tokens = gx.transpose(prompt)[:-1]
    after, _ = gx.scan(read, state, (tokens, gx.arange(tokens.shape[0])))
    last = gx.take_along(prompt, gx.expand_dims(counted - 1, 1), 1)
    return after, gx.cast(last[:, 0], "int64")


# what a token is chosen by


def likeliest(logits: Node, count: Node) -> Node:
    """The choice of :func:`greedy`."""
    return gx.argmax(logits, axis=-1)


def sampler(temperature: Any, top_k: Any, top_p: Any, seed: Any, stream: int) -> Choose:
    """The choice of :func:`sample`."""
    check_limits(temperature, top_k, top_p)

    def draw(logits: Node, count: Node) -> Node:
        kept = filter_logits(gx.cast(logits, "float32"), temperature, top_k, top_p)
        return gx.random.categorical(kept, seed, count, stream)

    return draw


def one_step(
    step: Step, carry: dict[str, Any], end: int | None, pad: int, constants: Nest, choose: Choose
) -> tuple[dict[str, Any], Node]:
    """A step of a generation: the next carry, and what it writes in each row."""
    logits, following = _call(step, carry["token"], carry["state"], constants, end)
    token = choose(logits, carry["count"])
    log_probs = gx.log_softmax(gx.cast(logits, "float32"), axis=-1)
    gained = gx.take_along(log_probs, gx.expand_dims(token, 1), 1)[:, 0]
    alive = carry["alive"]
    after = {
        "token": gx.where(alive, token, carry["token"]),
        "alive": alive if end is None else gx.logical_and(alive, gx.not_equal(token, end)),
        "lengths": carry["lengths"] + gx.cast(alive, "int64"),
        "log_probs": carry["log_probs"] + gx.where(alive, gained, 0.0),
        "count": carry["count"] + gx.constant(1, "uint32"),
        "state": following,
    }
    return after, gx.where(alive, token, pad)


def first_carry(last: Node, state: Nest) -> dict[str, Any]:
    """What the first step begins with."""
    rows = (last.shape[0],)
    return {
        "token": last,
        "alive": gx.full(rows, True, "bool"),
        "lengths": gx.zeros(rows, "int64"),
        "log_probs": gx.zeros(rows),
        "count": gx.constant(0, "uint32"),
        "state": state,
    }


def _write(
    step: Step,
    state: Nest,
    start: Any,
    length: int,
    end: int | None,
    pad: int,
    constants: Nest,
    lengths: Any,
    choose: Choose,
) -> Generated:
    _check_count(length, "length")
    state, last = begin(step, state, start, constants, lengths)

    def advance(carry: Any, _: Any) -> Any:
        return one_step(step, carry, end, pad, constants, choose)

    def going(carry: Any) -> Node:
        return gx.any(carry["alive"])

    ended, tokens = gx.scan(advance, first_carry(last, state), length=length, going=None if end is None else going)
    written = gx.arange(length) < gx.expand_dims(ended["lengths"], 1)
    return Generated(gx.where(written, gx.transpose(tokens), pad), ended["lengths"], ended["log_probs"])


def begin(step: Step, state: Nest, start: Any, constants: Nest, lengths: Any) -> tuple[Nest, Node]:
    """The first state and the first tokens, after prompts have been read."""
    if not isinstance(start, Node) or not start.dtype.is_integer:
        raise DTypeError(
            "start holds no tokens", at=user_line(), remedy="give a node of integers, (batch,) or (batch, time)"
        )
    if start.ndim == 2:
        return read_prompt(step, state, start, constants, lengths)
    if start.ndim != 1 or lengths is not None:
        raise ShapeError(
            f"start has {start.ndim} axes" + " and there are lengths" * (lengths is not None),
            at=user_line(),
            remedy="give one token for each row, (batch,), or prompts, (batch, time), perhaps with lengths",
        )
    return state, gx.cast(start, "int64")


def _call(step: Step, token: Node, state: Nest, constants: Nest, end: int | None) -> tuple[Node, Nest]:
    given = step(token, state) if constants is None else step(token, state, constants)
    if not isinstance(given, tuple) or len(given) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError(
            "the step of a generation returns no pair", at=user_line(), remedy="return (logits, next state)"
        )
    logits, following = given
    logits = _as_logits(logits)
    if logits.ndim != 2 or logits.shape[0] != token.shape[0]:
        raise ShapeError(
            f"logits are {logits.type} for {token.shape[0]} tokens",
            at=user_line(),
            remedy="return logits of shape (batch, vocabulary)",
        )
    size = logits.shape[1]
    if end is not None and isinstance(size, int) and not 0 <= end < size:
        raise AxisError(
            f"end is token {end}, the vocabulary has {size}", at=user_line(), remedy=f"give 0 to {size - 1}, or None"
        )
    return logits, following


def _as_logits(value: Any) -> Node:
    node = value if isinstance(value, Node) else gx.constant(value)
    if not node.dtype.is_float:
        raise DTypeError(f"logits are {node.dtype}", at=user_line(), remedy="give floats")
    return node


def _penalty(lengths: Node, alpha: float) -> Node:
    return ((gx.cast(lengths, "float32") + 5.0) / 6.0) ** float(alpha) if alpha else gx.ones(lengths.shape)


def _repeated(node: Node, width: int) -> Node:
    """A node with each row for each beam, and with its mask, which layers within the step look for."""
    found = gx.repeat(node, width, axis=0)
    mask = tracing.mask_of(node)
    tracing.set_mask(found, None if mask is None else gx.repeat(mask, width, axis=0))
    return found


def _choose_rows(rows: Node, new: Node, old: Node) -> Node:
    return gx.where(gx.reshape(rows, (rows.shape[0], *[1] * (new.ndim - 1))), new, old)


def _each(function: Callable[[Node], Node], structure: Nest) -> Nest:
    """The function applied to each node; None stays."""
    return nest.map_leaves(lambda leaf: None if leaf is None else function(leaf), structure)


def _nodes(structure: Nest) -> list[Node]:
    return [leaf for leaf in nest.leaves(structure) if leaf is not None]


def _check_count(value: Any, name: str) -> None:
    if not is_whole(value):
        raise AxisError(f"{name} is {value!r}", at=user_line(), remedy="give a whole number of at least 1")


def check_limits(temperature: Any, top_k: Any, top_p: Any) -> None:
    """Refuse numbers that no sampling is meant by; nodes are not looked at."""
    if isinstance(temperature, int | float | np.number) and not 0 < temperature < float("inf"):
        raise AxisError(
            f"the temperature is {temperature}", at=user_line(), remedy="give a positive number, or use greedy"
        )
    if top_k is not None and not isinstance(top_k, Node):
        _check_count(top_k, "top_k")
    if isinstance(top_p, int | float | np.number) and not 0 < top_p <= 1:
        raise AxisError(f"top_p is {top_p}", at=user_line(), remedy="give a share above 0 and up to 1")


__all__ = ["Beams", "Generated", "beam_search", "filter_logits", "greedy", "read_prompt", "sample"]
