"""See `test_model`."""

import pytest

# So that what differs is shown, wherever it is asserted.
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("jobs", "ledger", "machine", "moves")))
