"""Applying for a shift, the rules that say who may, and the confirm that makes one of them certain."""
