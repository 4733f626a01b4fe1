"""Peak memory of loading a ViT-g encoder (1.0 B), by format: `python tools/bench_load.py --dtype bfloat16`.

Every load runs in its own process. Two increases of memory are printed, in units of the size of the weights: after
loading, and after every weight was read once (files are mapped, so their pages are read only then).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import vjepa
from vjepa.checkpoints import save_huggingface, save_meta
from vjepa.checkpoints.opening import read_safetensors
from vjepa.checkpoints.shards import INDEX, WEIGHTS

MODEL, NATIVE = "vit_giant_xformers_patch16_384", {"num_frames": 64}


def peak_bytes() -> int:
    """Return the largest resident size of this process so far; getrusage would include the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(path: str, queue: multiprocessing.Queue) -> None:
    """Load an encoder in this process; put seconds and memory into the queue."""
    torch.set_num_threads(1)
    vjepa.create_model("vit_tiny_patch16_224", depth=1)  # so that memory of the libraries does not count
    before, start = peak_bytes(), time.perf_counter()
    encoder = vjepa.load_encoder(path)
    seconds, loaded = time.perf_counter() - start, peak_bytes()
    with torch.no_grad():
        total = sum(float(weight.float().abs().max()) for weight in encoder.parameters())
    assert total > 0
    size = sum(weight.nbytes for weight in encoder.parameters())
    queue.put((seconds, (loaded - before) / size, (peak_bytes() - before) / size, size))


def write_shards(folder: Path, source: Path, count: int) -> None:
    """Write the weights of a transformers folder again, in `count` files with an index."""
    folder.mkdir()
    tensors = read_safetensors(source / WEIGHTS)
    (folder / "config.json").write_text((source / "config.json").read_text())
    keys = sorted(tensors)
    places = {
        key: f"model-{i * count // len(keys) + 1:05}-of-{count:05}.safetensors" for i, key in enumerate(keys)
    }
    for name in sorted(set(places.values())):
        save_file(
            {k: tensors[k] for k in keys if places[k] == name}, folder / name, metadata={"format": "pt"}
        )
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def main() -> None:
    """Write the files, load each and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--shards", type=int, default=4)
    arguments = parser.parse_args()
    start = time.perf_counter()
    with torch.device("meta"):
        encoder = vjepa.create_model(MODEL, **NATIVE)
    print(
        f"built on the meta device in {time.perf_counter() - start:.2f} s, {encoder.num_parameters:,} weights"
    )
    encoder = encoder.to(getattr(torch, arguments.dtype)).to_empty(device="cpu")
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.fill_(0.02)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        encoder.save_pretrained(root / "native")
        save_huggingface(root / "hf", encoder)
        write_shards(root / "hf_shards", root / "hf", arguments.shards)
        save_meta(root / "meta.pt", encoder=encoder)
        del encoder
        context = multiprocessing.get_context("spawn")
        for name in ("native", "hf", "hf_shards", "meta.pt"):
            queue = context.Queue()
            process = context.Process(target=measure, args=(str(root / name), queue))
            process.start()
            seconds, loaded, read, size = queue.get()
            process.join()
            print(
                f"{name:10} {size / 1e9:.2f} GB: loaded in {seconds:.2f} s, peak {loaded:.2f} x its size, "
                f"{read:.2f} x once all was read"
            )


if __name__ == "__main__":
    main()
