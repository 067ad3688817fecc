"""The GPU benchmark: what graphc is compared with, as it was given, and graphc beside it."""
