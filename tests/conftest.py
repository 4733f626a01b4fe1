"""What all tests share: one thread of torch, so that timings and sums do not depend on the machine; a Ray cluster."""

import gc
import logging
import os
import warnings

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # and in the processes that tests start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Write names that are not UTF-8 with escapes in what a report captured: the processes of xdist send UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory):
    """A home of the tests' own, so that the cache of packet indices in it is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def ray_cluster(monkeypatch):
    """A Ray of two cores on this machine."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv(
        "RAY_AUTH_MODE", "disabled"
    )  # else it wants the token of the home, which tests exchange
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers wait for whatever else runs here
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of what it leaves open
        gc.collect()
