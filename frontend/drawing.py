"""A model as a drawn graph: layers as boxes, one rank below the other, and what flows between them as lines.

The picture is SVG that needs nothing else, or, by the suffix of the file, whatever Matplotlib writes.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from graphc.errors import FileError, GraphError
from graphc.frontend import nest
from graphc.frontend.config import user_line
from graphc.frontend.files import replace_file
from graphc.frontend.tracing import Symbol

if TYPE_CHECKING:
    from graphc.frontend.model import Model

CHARACTER, LINE, MARGIN, GAP, RANK_GAP = 7.0, 17.0, 10.0, 26.0, 38.0
"""Sizes in pixels: a letter's width, a line of text, the space within boxes, between them, and between ranks."""


@dataclass(eq=False)
class Box:
    """A box of a drawing, or a point where a long line passes through a rank.

    Attributes:
        lines: its text; empty for such a point.
        x, y: its middle.
    """

    lines: list[str] = field(default_factory=list[str])
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        """Wide enough for the longest line of text."""
        return 2 * MARGIN + CHARACTER * max(map(len, self.lines)) if self.lines else 4.0

    @property
    def height(self) -> float:
        """High enough for all lines of text."""
        return MARGIN + LINE * len(self.lines) if self.lines else 0.0


@dataclass
class Layout:
    """Boxes with places, and lines as the boxes and points that they pass."""

    boxes: list[Box]
    paths: list[list[Box]]
    width: float = 0.0
    height: float = 0.0


class Picture(str):
    """The text of an SVG file, which notebooks show as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def draw_model(model: Model, path: str | Path | None, show_shapes: bool, show_params: bool) -> Picture:
    """The drawing of a model; see ``Model.plot``."""
    layout = lay_out(*_collect(model, show_shapes, show_params))
    picture = Picture(to_svg(layout, model.name))
    if path is not None:
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.suffix.lower() == ".svg":
                replace_file(target, picture.encode())
            else:
                _to_matplotlib(layout, target)
        except OSError as error:
            raise FileError(
                f"{target} cannot be written: {error.strerror or error}",
                at=user_line(),
                remedy="choose a file that can be written",
            ) from error
    return picture


def _collect(model: Model, show_shapes: bool, show_params: bool) -> tuple[list[Box], list[tuple[int, int]]]:
    """A box for each input and each call of a layer, and the pairs of boxes between which something flows."""
    calls = model.call_order
    if calls is None:
        raise GraphError(
            f"model {model.name!r} cannot be drawn: it was not declared by symbols, or its inputs are not known yet",
            at=user_line(),
            remedy="declare it with Input and layers, or call model.build((None, ...)) first",
        )
    boxes: list[Box] = []
    edges: list[tuple[int, int]] = []
    made_by: dict[int, int] = {}
    counted: set[int] = set()
    for call in (*(symbol.call for symbol in model.inputs), *calls):
        outputs = [leaf for leaf in nest.leaves(call.outputs) if isinstance(leaf, Symbol)]
        lines = [f"{call.layer.name} ({type(call.layer).__name__})"]
        if show_shapes:
            lines.append(", ".join(_shape(symbol) for symbol in outputs))
        params = call.layer.count_params() if call.layer.built else 0
        if show_params and params:
            lines.append("shared weights" if id(call.layer) in counted else f"{params:,} parameters")
        counted.add(id(call.layer))
        sources = [made_by[id(leaf)] for leaf in nest.leaves((call.args, call.kwargs)) if id(leaf) in made_by]
        edges += [(source, len(boxes)) for source in dict.fromkeys(sources)]
        made_by.update((id(symbol), len(boxes)) for symbol in outputs)
        boxes.append(Box(lines))
    return boxes, edges


def _shape(symbol: Symbol) -> str:
    return f"({', '.join(str(size) if isinstance(size, int) else 'None' for size in symbol.shape)})"


def lay_out(boxes: list[Box], edges: Sequence[tuple[int, int]]) -> Layout:
    """Give boxes their places: ranks by the longest way from an input, each rank ordered to cross few lines.

    Source:
        Sugiyama, Tagawa and Toda 1981, Methods for visual understanding of hierarchical system structures.
    """
    import networkx as nx

    graph: Any = cast("Any", nx).DiGraph()
    graph.add_nodes_from(range(len(boxes)))
    graph.add_edges_from(edges)
    rank_of: dict[int, int] = {}
    ranks: list[list[Box]] = []
    for rank, generation in enumerate(cast("Iterator[list[int]]", cast("Any", nx).topological_generations(graph))):
        rank_of.update((index, rank) for index in generation)
        ranks.append([boxes[index] for index in sorted(generation)])
    paths: list[list[Box]] = []
    for source, target in edges:
        points = [Box() for _ in range(rank_of[source] + 1, rank_of[target])]
        for rank, point in enumerate(points, rank_of[source] + 1):
            ranks[rank].append(point)
        paths.append([boxes[source], *points, boxes[target]])
    _order(ranks, paths)
    return _place(boxes, ranks, paths)


def _order(ranks: list[list[Box]], paths: Sequence[Sequence[Box]]) -> None:
    """Put boxes near the middle of their neighbours in the rank above, then below, a few times over."""
    above: dict[int, list[Box]] = {}
    below: dict[int, list[Box]] = {}
    for path in paths:
        for first, second in itertools.pairwise(path):
            below.setdefault(id(first), []).append(second)
            above.setdefault(id(second), []).append(first)
    for sweep in range(8):
        down = sweep % 2 == 0
        places = {id(box): float(place) for rank in ranks for place, box in enumerate(rank)}
        for rank in ranks if down else reversed(ranks):
            neighbours = above if down else below

            def middle(box: Box, table: dict[int, list[Box]] = neighbours, at: dict[int, float] = places) -> float:
                near = [at[id(other)] for other in table.get(id(box), ())]
                return sum(near) / len(near) if near else at[id(box)]

            rank.sort(key=middle)
            places.update((id(box), float(place)) for place, box in enumerate(rank))


def _place(boxes: list[Box], ranks: Sequence[Sequence[Box]], paths: list[list[Box]]) -> Layout:
    widths = [sum(box.width for box in rank) + GAP * (len(rank) - 1) for rank in ranks]
    width = max(widths, default=0.0) + 2 * GAP
    y = GAP
    for rank, taken in zip(ranks, widths, strict=True):
        height = max(box.height for box in rank)
        x = (width - taken) / 2
        for box in rank:
            box.x, box.y = x + box.width / 2, y + height / 2
            x += box.width + GAP
        y += height + RANK_GAP
    return Layout(boxes, paths, width, y - RANK_GAP + GAP)


def _ends(first: Box, second: Box) -> tuple[float, float, float, float]:
    """A line from the lower edge of one box to the upper edge of another."""
    return first.x, first.y + first.height / 2, second.x, second.y - second.height / 2


def to_svg(layout: Layout, title: str) -> str:
    """The drawing as SVG; every text in it is escaped."""
    w, h = layout.width, layout.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}" viewBox="0 0 {w:.0f} {h:.0f}" '
        'font-family="monospace" font-size="11.5">',
        f"<title>{_text(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
        f'<rect width="{w:.0f}" height="{h:.0f}" fill="white"/>',
    ]
    for path in layout.paths:
        x, y = path[0].x, path[0].y + path[0].height / 2
        curve = f"M{x:.1f},{y:.1f}"
        for first, second in itertools.pairwise(path):
            x0, y0, x1, y1 = _ends(first, second)
            bend = (y1 - y0) / 2
            curve += f" C{x0:.1f},{y0 + bend:.1f} {x1:.1f},{y1 - bend:.1f} {x1:.1f},{y1:.1f}"
        parts.append(f'<path d="{curve}" fill="none" stroke="#555" marker-end="url(#tip)"/>')
    for box in layout.boxes:
        left, top = box.x - box.width / 2, box.y - box.height / 2
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="5" '
            'fill="#eef4fb" stroke="#356"/>'
        )
        for number, line in enumerate(box.lines):
            weight = ' font-weight="bold"' if number == 0 else ""
            y = top + MARGIN / 2 + LINE * (number + 0.75)
            parts.append(f'<text x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle"{weight}>{_text(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _text(text: str) -> str:
    """Text for XML, without the characters that XML cannot hold."""
    return html.escape("".join(letter if letter.isprintable() else "\ufffd" for letter in text))


def _to_matplotlib(layout: Layout, path: Path) -> None:
    from graphc.frontend.plotting import new_figure

    figure = new_figure(layout.width / 80, layout.height / 80)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, layout.width), ylim=(layout.height, 0))
    axes.axis("off")
    for way in layout.paths:
        for first, second in itertools.pairwise(way):
            x0, y0, x1, y1 = _ends(first, second)
            style = "-|>" if second is way[-1] else "-"
            axes.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": style, "color": "#555555"})
    for box in layout.boxes:
        axes.text(
            box.x, box.y, "\n".join(box.lines), ha="center", va="center", size=8, family="monospace", parse_math=False,
            bbox={"boxstyle": "round", "facecolor": "#eef4fb", "edgecolor": "#335566"},
        )  # fmt: skip
    figure.set_layout_engine("none")
    figure.savefig(path)
