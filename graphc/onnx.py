"""Export to ONNX, and ``verify``."""

from __future__ import annotations

from graphc.backends.onnx import *
