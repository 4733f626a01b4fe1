"""What all tests share: one core, and no accelerator of the machine they happen to run on."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)
