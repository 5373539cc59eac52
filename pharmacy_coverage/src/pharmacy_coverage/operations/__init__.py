"""Is it well? For machines, and for the person who looks after it."""
