"""Bundled data."""

from graphc.frontend.data.digits import load_digits as load_digits
