"""Workloads, peers and the measurement of one of them, each in a process of its own."""
