"""The ONNX exporter: any graph, the whole training step included, as one file of standard operators."""

from __future__ import annotations

from graphc.backends.onnx.export import export
from graphc.backends.onnx.verify import Report, verify

__all__ = ["Report", "export", "verify"]
