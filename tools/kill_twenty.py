"""Kills a run at random moments and resumes it each time; the weights must equal an uninterrupted run's.

python tools/kill_twenty.py --config R.yaml --out DIR [--kills 20] [--seed 0] [flags of `vjepa fit`]

The recipe needs a ModelCheckpoint with filename last and few steps between two files. Both runs use one thread:
sums depend on the number of threads. A run that ends before it is killed counts as no kill.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

log = logging.getLogger("kill_twenty")

NETWORKS = ("encoder", "context_encoder", "predictor")


def command(config: Path, root: Path, *more: str) -> list[str]:
    """The command line of a fit."""
    flags = ["--config", str(config), "--trainer.default_root_dir", str(root), *more]
    return [sys.executable, "-m", "vjepa", "fit", *flags]


def checkpoints(root: Path) -> dict[Path, float]:
    """Last checkpoints below `root`, each with its time."""
    return {path: path.stat().st_mtime for path in root.glob("**/last.ckpt")}


def killed(config: Path, root: Path, *more: str, wait: float) -> bool:
    """Start or resume; kill -9 the group `wait` seconds after a first new checkpoint. False if it ended before."""
    before = checkpoints(root)
    resume = ("--ckpt_path", "last") if before else ()
    process = subprocess.Popen(
        command(config, root, *more, *resume), start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while checkpoints(root) == before and process.poll() is None:
        time.sleep(0.005)
    time.sleep(wait)
    if process.poll() is not None:
        if process.returncode:
            raise RuntimeError(f"the run ended by itself with exit code {process.returncode}.")
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def weights(root: Path) -> list[bytes]:
    """Bytes of the networks that the last run below `root` exported."""
    exports = sorted(root.glob("version_*/export"), key=lambda path: path.stat().st_mtime)
    return [(exports[-1] / f"{name}.safetensors").read_bytes() for name in NETWORKS]


def kill_and_compare(
    config: Path, out: Path, *more: str, kills: int, longest: float, seed: int
) -> tuple[int, bool]:
    """How often a run was killed, and whether its weights equal those of one that was not."""
    chance, count = random.Random(seed), 0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command(config, out / "whole", *more), check=True, env=environment, **quiet)
    while count < kills and killed(config, out / "killed", *more, wait=chance.uniform(0, longest)):
        count += 1
        log.info("kill %d", count)
    if count == kills:
        last = command(config, out / "killed", *more, "--ckpt_path", "last")
        subprocess.run(last, check=True, env=environment, **quiet)
    return count, weights(out / "whole") == weights(out / "killed")


def main() -> int:
    """Run, and say how it went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--longest", type=float, default=0.5, help="most seconds between a checkpoint and a kill"
    )
    parser.add_argument("--seed", type=int, default=0)
    given, more = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    count, equal = kill_and_compare(
        given.config, given.out, *more, kills=given.kills, longest=given.longest, seed=given.seed
    )
    log.info("%d kills, weights %s", count, "bit-equal" if equal else "DIFFER")
    return 0 if equal and count == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
