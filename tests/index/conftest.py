"""A home is indexed the same, whether it is shared or not."""

import pytest


@pytest.fixture(autouse=True)
def engine(either_engine):
    """All of this holds with either engine."""
