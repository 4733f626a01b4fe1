"""What all tests share: one thread of torch, so that timings and sums do not depend on the machine."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)
