"""The CPU backend: kernels compiled by Numba, matrix products by OpenBLAS, one native call a step."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.backends.numba.threads import get_threads, set_threads

if TYPE_CHECKING:
    from graphc.backends.numba.executable import NumbaExecutable
    from graphc.lower.plan import Plan


@dataclass(frozen=True)
class NumbaBackend:
    """See :class:`graphc.backend.Backend` for the other attributes.

    Attributes:
        winograd: compute convolutions of fixed kernels of 3 x 3 elements with fewer multiplications. An infinity or NaN
            in an image then makes all of the 2 x 2 results NaN whose tile it is in.

    >>> from graphc.backends.numba import NumbaBackend
    >>> NumbaBackend(winograd=False).name
    'numba'
    """

    winograd: bool = True
    name: str = "numba"
    priority: int = 50
    lowers: bool = True

    def available(self) -> str | None:
        for package in ("numba", "llvmlite"):
            if importlib.util.find_spec(package) is None:
                return f"the package {package} is missing: pip install {package}"
        from graphc.backends.numba.blas import missing

        return missing()

    def takes(self, op: object) -> bool:
        from graphc.ops.attention import ScaledDotProductAttention
        from graphc.ops.attention_gradients import AttentionGradients
        from graphc.ops.cond import Cond
        from graphc.ops.panels import PackedPanels, PanelProduct
        from graphc.ops.patches import PatchGradient, PatchProduct
        from graphc.ops.rows import UpdateRows
        from graphc.ops.winograd import WinogradProduct

        if isinstance(op, PatchProduct | PatchGradient):
            return len(op.strides) <= 2
        if isinstance(op, WinogradProduct):
            return self.winograd
        whole = Cond | PackedPanels | PanelProduct | UpdateRows | ScaledDotProductAttention | AttentionGradients
        return isinstance(op, whole)

    def plan_key(self) -> str:
        from graphc.backends.numba.build import target

        return f"{target()} winograd={self.winograd}"

    def compile(self, plan: Plan) -> NumbaExecutable:
        from graphc.backends.numba.executable import NumbaExecutable

        return NumbaExecutable(plan)


backend = NumbaBackend()

__all__ = ["NumbaBackend", "backend", "get_threads", "set_threads"]
