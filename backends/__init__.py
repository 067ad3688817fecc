"""How a graph gets out: the backends. Calling this package lists them: ``gx.backends()``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.backend import Backend


class _Backends(ModuleType):
    """The package itself; callable, since ``gx.backends`` is both this package and the list of backends."""

    def __call__(self) -> tuple[Backend, ...]:
        """All known backends, the most preferred first."""
        from graphc.backend import backends

        return backends()


sys.modules[__name__].__class__ = _Backends
