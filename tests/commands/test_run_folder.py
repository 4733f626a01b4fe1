"""The folders of runs: one per fit, whoever starts at the same time, and a link to the last."""

from concurrent.futures import ThreadPoolExecutor

from vjepa.commands.run_folder import link_latest, loggers_of


def test_fits_that_start_together_take_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        loggers = list(pool.map(loggers_of, [tmp_path / "runs"] * 8))
    assert sorted(csv.version for csv, _ in loggers) == list(range(8))
    assert all(csv.log_dir == board.log_dir for csv, board in loggers)


def test_latest_leads_to_the_last_run(tmp_path, caplog):
    runs = [tmp_path / "version_0", tmp_path / "version_1"]
    for run in runs:
        run.mkdir()
        assert link_latest(run) == tmp_path / "latest"
        assert (tmp_path / "latest").resolve() == run
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").mkdir()  # a folder of the user's
    assert link_latest(runs[0]) == runs[0]
    assert "name the run itself" in caplog.text and len(list(tmp_path.iterdir())) == 3
