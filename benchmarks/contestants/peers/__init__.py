"""The adapters of libraries that live in environments of their own, where no type checker of this repository looks."""
