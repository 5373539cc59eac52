"""placeholder"""


def worker() -> None: ...
