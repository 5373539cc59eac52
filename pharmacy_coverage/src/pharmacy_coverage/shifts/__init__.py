"""Shifts: posting them, finding them, and what they go through."""
