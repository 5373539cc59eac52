"""Inputs that nobody would write by hand: nothing crashes, nothing is half-written, each refusal has a type."""
