"""Pharmacies: where they are, in which zone they live, when they want their report."""
