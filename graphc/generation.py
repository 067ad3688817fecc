"""Sequences written token by token: greedy, sampling, beam search, and streams."""

from __future__ import annotations

from graphc.frontend.decoder import *
from graphc.frontend.generation import *
