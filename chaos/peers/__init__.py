"""Clients of other libraries that need an environment of their own."""
