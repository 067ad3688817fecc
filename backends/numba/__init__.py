"""The CPU backend: kernels compiled by Numba, matrix products by OpenBLAS, one native call a step."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from graphc.backends.numba.threads import get_threads, set_threads

if TYPE_CHECKING:
    from graphc.backends.numba.executable import NumbaExecutable
    from graphc.lower.plan import Plan


class NumbaBackend:
    """See :class:`graphc.backend.Backend`."""

    name = "numba"
    priority = 50
    lowers = True

    def available(self) -> str | None:
        for package in ("numba", "llvmlite"):
            if importlib.util.find_spec(package) is None:
                return f"the package {package} is missing: pip install {package}"
        from graphc.backends.numba.blas import missing

        return missing()

    def takes(self, op: object) -> bool:
        from graphc.ops.cond import Cond
        from graphc.ops.panels import PackedPanels, PanelProduct
        from graphc.ops.patches import PatchGradient, PatchProduct
        from graphc.ops.rows import UpdateRows

        if isinstance(op, PatchProduct | PatchGradient):
            return len(op.strides) <= 2
        return isinstance(op, Cond | PackedPanels | PanelProduct | UpdateRows)

    def plan_key(self) -> str:
        from graphc.backends.numba.build import target

        return target()

    def compile(self, plan: Plan) -> NumbaExecutable:
        from graphc.backends.numba.executable import NumbaExecutable

        return NumbaExecutable(plan)


backend = NumbaBackend()

__all__ = ["NumbaBackend", "backend", "get_threads", "set_threads"]
