import random

import pytest


@pytest.fixture
def rng(request) -> random.Random:
    """Chance that a run can repeat: from the run's seed and the test's name."""
    return random.Random(f"{request.config.getoption('fault_seed')} {request.node.nodeid}")


@pytest.fixture
def times(request):
    """Choose how often to do harm: the first number in a quick run, the second in a whole one."""
    is_whole = request.config.getoption("all_faults")
    return lambda quick, whole: whole if is_whole else quick
