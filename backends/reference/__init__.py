"""The reference backend: a graph computed node by node with NumPy. Slow, plain, and the oracle for the others."""

from graphc.backends.reference.backend import ReferenceBackend

backend = ReferenceBackend()

__all__ = ["ReferenceBackend", "backend"]
