"""What is owed, and the machinery that sees it done. See `models` for the life of an entry."""
