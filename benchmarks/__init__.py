"""Speed of graphc beside its peers, measured on this machine: ``python -m benchmarks cpu``."""
