"""What every test runs under."""

import os

import pytest
import torch
from hypothesis import settings

# No deadline: the first example of a test may compile a kernel.
settings.register_profile("mezo", deadline=None, derandomize=True)
settings.load_profile("mezo")

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: more threads would only wait
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
