"""Faults on purpose, on real servers: what breaks, what is lost, what comes back."""
