"""Processors in processes of their own, which can be killed.

`pool` is the worker's side: it starts children, keeps them for later, kills them. `child` is what runs in one of them.
They speak over two pipes, in frames of JSON behind their length; nothing is ever unpickled. `words` is what both know.
"""
