"""Known networks for images."""

from __future__ import annotations

from graphc.frontend.applications import *
