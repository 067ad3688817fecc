"""Bundled data, and how batches come to a model."""

from graphc.frontend.data.dataset import PyDataset as PyDataset
from graphc.frontend.data.digits import load_digits as load_digits
from graphc.frontend.data.prefetch import prefetch as prefetch
