"""The kernel IR that the Numba and the CUDA printers share, and its interpreter."""
