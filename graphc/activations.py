"""Activations: functions of a node that layers take by name."""

from __future__ import annotations

from graphc.frontend.activations import *
