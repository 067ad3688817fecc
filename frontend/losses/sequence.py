"""The loss of label sequences that are not aligned with the input."""

from __future__ import annotations

import graphc as gx
from graphc.frontend.checked import Natural, checked
from graphc.frontend.losses.base import Loss, reduce_weighted
from graphc.ir.node import Node


@checked
def ctc(y_true: Node, y_pred: Node, blank: Natural = 0) -> Node:
    """Minus the log probability of the labels over all alignments: see :class:`CTC`.

    >>> import graphc as gx
    >>> y, z = gx.placeholder("y", ("batch", 5), "int64"), gx.placeholder("z", ("batch", "time", 30))
    >>> ctc(y, z).type
    f32[batch]
    """
    return gx.ctc_loss(y_true, y_pred, blank=blank)


class CTC(Loss):
    """Connectionist temporal classification: minus the log probability of the labels over all alignments.

    An alignment says a label or nothing (blank) at each time step. If the output has a mask, the time steps that
    count are the first ones of each row, as many as the mask lets through. See :func:`gx.ctc_loss <graphc.ctc_loss>`
    for lengths given otherwise.

    Args:
        reduction, name: see :class:`Loss`.
        blank: the class that says nothing; labels are padded with it at the end.

    Shapes: y_true: (batch, n), class numbers; y_pred: (batch, time, classes), logits.

    Source: Graves et al. 2006, https://doi.org/10.1145/1143844.1143891
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "ctc", blank: Natural = 0
    ) -> None:
        super().__init__(name, reduction)
        self.blank = blank

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return ctc(y_true, y_pred, self.blank)

    def __call__(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None, mask: Node | None = None) -> Node:
        """The reduced loss; the mask says how many time steps of each row count."""
        if mask is None:
            return super().__call__(y_true, y_pred, sample_weight)
        steps = gx.sum(gx.cast(mask, "int64"), axis=-1)
        values = gx.ctc_loss(y_true, y_pred, input_lengths=steps, blank=self.blank)
        return reduce_weighted(values, sample_weight, None, self.reduction)
