"""The three ways to present a model: as a table, as a drawn graph, as equations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from graphc.errors import AxisError
from graphc.frontend.checked import Count, checked
from graphc.frontend.summary import Table
from graphc.ir.location import user_line

if TYPE_CHECKING:
    from graphc.frontend.drawing import Picture
    from graphc.frontend.model import Model


class Presented:
    """The part of :class:`~graphc.frontend.model.Model` that shows the architecture."""

    @checked
    def summary(
        self,
        line_length: Count | None = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Print the layers, the shapes of their outputs and the numbers of their parameters.

        Args:
            line_length: the width of the table, default 80.
            print_fn: takes one line at a time instead of ``print``.
            expand_nested: show the layers of models within the model below them.
            show_trainable: a column that says which layers are trained: Y, N, or - for those without weights.
            layer_range: the names of the first and the last layer to show.

        Raises:
            NameClashError: there is no layer of such a name.
        """
        model = cast("Model", self)
        shown = model.layers
        if layer_range is not None:
            if len(layer_range) != 2:
                raise AxisError(
                    f"layer_range of summary is {layer_range!r}",
                    at=user_line(),
                    remedy="give the names of two layers, the first and the last",
                )
            first, last = (shown.index(model.get_layer(name)) for name in layer_range)
            shown = shown[first : last + 1]
        Table(model, line_length or 80, print_fn or print, expand_nested, show_trainable).write(shown)

    @checked
    def plot(self, path: str | Path | None = None, show_shapes: bool = True, show_params: bool = True) -> Picture:
        """Draw the layers and what flows between them.

        Args:
            path: where to write the picture: ``.svg``, which needs nothing, or a format of Matplotlib's (extra
                ``plot``).
            show_shapes: write the shapes of outputs into the boxes.
            show_params: write the numbers of parameters into the boxes.

        Returns:
            The picture as SVG text, which notebooks show.

        Raises:
            GraphError: the model was not declared by symbols, or does not know its inputs yet.
            FileError: the file cannot be written.
            BackendError: Matplotlib is needed and not installed.
        """
        from graphc.frontend.drawing import draw_model

        return draw_model(cast("Model", self), path, show_shapes, show_params)

    def latex(self, document: bool = False) -> str:
        r"""The model as equations in LaTeX, a line for each layer; samples are rows.

        Args:
            document: a whole document, ready for ``pdflatex``; else an ``align*`` for the packages amsmath and amssymb.

        Raises:
            GraphError: the model was not declared by symbols, or does not know its inputs yet.

        >>> import graphc as gx
        >>> model = gx.Sequential([gx.Input((3,)), gx.layers.Dense(4, "relu"), gx.layers.Dense(1, "sigmoid")])
        >>> print(model.latex())
        \begin{align*}
          h_{1} &= \operatorname{relu}\left(x W_{1} + b_{1}\right) \\
          \hat{y} &= \sigma\left(h_{1} W_{2} + b_{2}\right) \\
          &\quad x \in \mathbb{R}^{3} \\
          &\quad W_{1} \in \mathbb{R}^{3 \times 4} \\
          &\quad b_{1} \in \mathbb{R}^{4} \\
          &\quad W_{2} \in \mathbb{R}^{4 \times 1} \\
          &\quad b_{2} \in \mathbb{R}^{1}
        \end{align*}
        """
        from graphc.frontend.latex import write_latex

        return write_latex(cast("Model", self), document)
