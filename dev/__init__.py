"""Everything that `make run` starts around toril and the platform: real servers, for development only.

`python -m dev` is the way in. `dev.mongo` and `dev.mailcatcher` also stand alone, for tests.
"""
