import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.jobs.work import double, end_once, lose_the_ray_worker_once, misbehave, read, slowly
from vjepa.data.jobs import local
from vjepa.data.jobs.engine import JobResult, run_jobs
from vjepa.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]
RUN = """
import signal
import sys
from pathlib import Path
from tests.data.jobs.work import slowly
from vjepa.data.jobs import local
from vjepa.data.jobs.engine import run_jobs

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
    items = [f"{sys.argv[1]}|{i}" for i in range(40)]
    for result in run_jobs(slowly, items, num_processes=2, journal=Path(sys.argv[2])):
        pass
"""


def by_index(results) -> list[JobResult]:
    return sorted(results, key=lambda result: result.index)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_exception_is_the_result_of_its_item():
    results = list(run_jobs(misbehave, ["a", "raise", "b"]))
    assert [r.value for r in results] == ["A", None, "B"]
    assert results[1].error == "ValueError: no such thing" and results[0].error == ""


@pytest.mark.slow
def test_what_hangs_or_crashes_is_ended_and_the_rest_goes_on():
    items = ["a", "hang", "crash", "b", "leave", "raise", "hang", "c", "d"]
    started = time.monotonic()
    results = by_index(run_jobs(misbehave, items, num_processes=2, timeout_seconds=1.0))
    assert time.monotonic() - started < 60
    assert [r.index for r in results] == list(range(9))
    assert [r.value for r in results] == ["A", None, None, "B", None, None, None, "C", "D"]
    hung = "no result after 1 s: it hung and was ended"
    assert [r.index for r in results if r.ended] == [1, 2, 4, 6]
    assert [r.error for r in results][1:7] == [
        hung,
        "its process crashed (SIGSEGV)",
        "",
        "its process crashed (exit code 7)",
        "ValueError: no such thing",
        hung,
    ]


@pytest.mark.slow
def test_an_item_whose_process_was_killed_or_stopped_is_repeated_once(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "LOOK_SECONDS", 0.2)
    items = [f"{tmp_path}|SIGKILL", f"{tmp_path}|SIGSTOP"]
    results = by_index(run_jobs(end_once, items, num_processes=1))
    assert results == [JobResult(0, "SIGKILL"), JobResult(1, "SIGSTOP")]


@pytest.mark.slow
def test_one_two_or_no_processes_give_the_same():
    alone = list(run_jobs(double, range(50)))
    assert alone[3] == JobResult(3, {"twice": 6, "pair": (3, 3)})
    for num_processes in (1, 2):
        assert by_index(run_jobs(double, range(50), num_processes=num_processes)) == alone


@pytest.mark.slow
def test_relative_paths_start_from_the_folder_of_the_caller(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("here")
    monkeypatch.chdir(tmp_path)
    (result,) = run_jobs(read, ["a.txt"], num_processes=1)
    assert result.value == "here" and not result.error


@pytest.mark.slow
def test_a_time_limit_needs_a_process_to_kill():
    with pytest.raises(ValueError, match="Give num_processes 1 or more, or no timeout_seconds"):
        list(run_jobs(double, [1], timeout_seconds=1.0))
    assert len(list(run_jobs(double, [1], timeout_seconds=60.0, num_processes=1))) == 1
    assert len(list(run_jobs(double, [1]))) == 1
    with pytest.raises(ValueError, match="Omit timeout_seconds"):
        list(run_jobs(double, [1], timeout_seconds=0.0, num_processes=1))


@pytest.mark.slow
def test_a_worker_that_cannot_begin_ends_the_job_with_advice(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import os, vjepa.data.jobs.engine as jobs\ndef work(item): return os.getpid()\n"
        "print(list(jobs.run_jobs(work, [1], num_processes=NUM)))\n"
    )

    def run(text):
        script.write_text(text)
        return subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=ROOT, check=False)

    text = script.read_text()
    assert "begin below `if __name__" in run(text.replace("NUM", "1")).stderr
    advised = text.replace("print", 'if __name__ == "__main__":\n    print').replace("NUM", "1")
    assert "error=''" in run(advised).stdout


def test_a_journal_is_taken_up_and_a_torn_line_done_again(tmp_path):
    log, journal = tmp_path / "log", tmp_path / "done.jsonl"
    items = [f"{log}|{i}" for i in range(3)]
    first = list(run_jobs(slowly, items, journal=journal))
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-4])
    again = list(run_jobs(slowly, items[::-1], journal=journal))  # by key, wherever the item is now
    assert {r.value for r in again} == {r.value for r in first} and again[0].index == 1
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["0", "1", "2", "2"]
    assert journal.read_bytes() == whole
    assert list(run_jobs(double, [4], journal=tmp_path / "d")) == [
        JobResult(0, {"twice": 8, "pair": [4, 4]})
    ], "a value is the same whether it is new or was read"
    keyed = list(run_jobs(slowly, items, journal=journal, key=lambda item: f"other {item}"))
    assert len(keyed) == 3 and len(log.read_text().splitlines()) == 7


def test_an_error_is_done_too(tmp_path):
    for _ in range(2):
        (result,) = run_jobs(misbehave, ["raise"], journal=tmp_path / "j")
        assert result.error.startswith("ValueError")
    assert len((tmp_path / "j").read_text().splitlines()) == 1


def test_a_file_that_is_no_journal_is_refused_with_advice_that_works(tmp_path):
    journal = tmp_path / "j"
    for text in ("path,label\n", "[1]\n", '{"key": "a"}\n'):
        journal.write_text(text)
        with pytest.raises(UsageError, match=r"j:1: not a line .* Delete the file to begin again"):
            list(run_jobs(double, [1], journal=journal))
    journal.unlink()
    assert len(list(run_jobs(double, [1], journal=journal))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_no_process_and_is_taken_up(tmp_path, sent):
    log, journal = tmp_path / "log", tmp_path / "done.jsonl"
    command = [sys.executable, "-c", RUN, str(log), str(journal)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_bytes().splitlines()) > 5):
        assert time.monotonic() < give_up and run.poll() is None
        time.sleep(0.02)
    run.send_signal(sent)
    assert run.wait(timeout=10) != 0
    give_up = time.monotonic() + 10
    workers = {int(line.split()[1]) for line in log.read_text().splitlines()}
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < give_up, "a worker outlived its parent"
        time.sleep(0.02)
    kept = {json.loads(line)["value"] for line in journal.read_bytes().splitlines(keepends=True)[:-1]}
    before = log.read_text().splitlines()
    items = [f"{log}|{i}" for i in range(40)]
    results = by_index(run_jobs(slowly, items, journal=journal))
    assert [r.value for r in results] == [str(i) for i in range(40)]
    redone = {line.split()[0] for line in log.read_text().splitlines()[len(before) :]}
    assert not redone & kept and len(redone) < 40


@pytest.mark.slow
def test_a_caller_that_stops_ends_the_processes(tmp_path):
    items = [f"{tmp_path / 'log'}|{i}" for i in range(200)]
    results = run_jobs(slowly, items, num_processes=2)
    next(results)
    results.close()
    workers = {int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()}
    assert workers and not any(alive(pid) for pid in workers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of what it leaves open
def test_ray_gives_the_same_and_a_lost_worker_loses_nothing(tmp_path, monkeypatch, ray_cluster):
    assert by_index(run_jobs(double, range(16), engine="ray")) == list(run_jobs(double, range(16)))
    (tmp_path / "a.txt").write_text("here")
    monkeypatch.chdir(tmp_path)
    assert [r.value for r in run_jobs(read, ["a.txt"], engine="ray")] == ["here"]
    journal = tmp_path / "j"
    items = ["a", "hang", "crash", "b"]
    odd = by_index(run_jobs(misbehave, items, engine="ray", timeout_seconds=1.0, journal=journal))
    assert [r.value for r in odd] == ["A", None, None, "B"]
    assert "hung" in odd[1].error and "SIGSEGV" in odd[2].error
    assert by_index(run_jobs(misbehave, items, journal=journal)) == odd  # nothing left that could hang here
    items = [f"{tmp_path}|{i}" for i in range(16)]
    results = by_index(run_jobs(lose_the_ray_worker_once, items, engine="ray", num_processes=2))
    assert (tmp_path / "lost").exists()
    assert [r.value for r in results] == [str(i) for i in range(16)]


def test_a_ray_that_does_not_start_is_named(monkeypatch):
    ray = pytest.importorskip("ray")

    def refuses(**options):
        raise RuntimeError("Timed out waiting for file gcs_server_port")

    monkeypatch.setattr(ray, "init", refuses)
    with pytest.raises(UsageError, match="no Ray to work on: Timed out.*ray start --head"):
        list(run_jobs(double, [1], engine="ray"))


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'pip install "vjepa-toolkit\[ray\]"'):
        list(run_jobs(double, [1], engine="ray"))
