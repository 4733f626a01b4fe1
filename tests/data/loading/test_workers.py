"""A worker of a data loader that is killed or stopped costs no clip, and is named if it happens again."""

import multiprocessing
import os
import signal
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from vjepa.data.loading import workers
from vjepa.data.loading.workers import LostWorkerError, from_workers

pytestmark = pytest.mark.slow


class Numbers(Dataset):
    def __getitem__(self, key):
        time.sleep(0.02)
        return key


class Deadly(Dataset):
    def __getitem__(self, key):
        if key == 3:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return key


def read(data, count=30, **given):
    keys, done = list(range(count)), []

    def rest():
        return DataLoader(data, sampler=keys[len(done) :], batch_size=None, num_workers=2, timeout=0.3)

    for number in from_workers(rest, lambda: f"{keys[len(done)]}.mp4"):
        done.append(int(number))
        yield done


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_is_replaced_and_nothing_is_read_twice(sent):
    before = signal.getsignal(signal.SIGCHLD)
    sent_once = False
    for done in read(Numbers()):
        if len(done) == 5 and not sent_once:
            sent_once = True
            os.kill(multiprocessing.active_children()[0].pid, sent)
    assert done == list(range(30))
    assert signal.getsignal(signal.SIGCHLD) == before, "torch's handler raises anywhere in the main thread"
    assert not multiprocessing.active_children()


def test_a_worker_that_is_lost_twice_is_an_error_that_names_the_file(monkeypatch):
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.3)
    with pytest.raises(
        LostWorkerError, match=r"twice, the next file is 3\.mp4: .* lower --num_workers"
    ) as error:
        list(read(Deadly(), count=6))
    assert "\n" not in str(error.value)
