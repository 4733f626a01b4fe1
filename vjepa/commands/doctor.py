"""The verb `doctor`: what works on this machine, by trying each part."""

from __future__ import annotations

import os
import platform
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from vjepa.commands.report import Report, versions
from vjepa.data.decoders.auto import fastest, trial
from vjepa.data.decoders.base import BUILT_IN

MATMUL_SIDE, MATMUL_TRIALS = 512, 5
KERNELS = {  # torch has these for each kind of device
    "cpu": ("FLASH_ATTENTION", "MATH"),
    "cuda": ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"),
}
GIB = 2**30

Row = dict[str, Any]


def doctor(*, out: Path | None = None) -> Report:
    """Try devices, video decoders, attention kernels and bf16, and report memory, disk and versions.

    Args:
        out: Folder for `result.json`; without it nothing is written.

    Returns:
        One row per part: its name, whether it works ("yes" or "no"), and a figure or the cause of the failure.
    """
    rows = [_row("system", platform.platform(), True, f"{os.cpu_count()} cores, {platform.machine()}")]
    devices = available_devices()
    for device in devices:
        rows.append(_row("device", str(device), True, _device_detail(device)))
        rows.extend(attention_rows(device))
        rows.append(bf16_row(device))
    rows.extend(decoder_rows())
    rows.append(_row("memory", "free", True, _free_memory()))
    folder = out or Path.cwd()
    disk = shutil.disk_usage(folder if folder.exists() else Path.cwd())
    rows.append(_row("disk", str(folder), True, f"{disk.free / GIB:.1f} of {disk.total / GIB:.1f} GiB free"))
    rows.extend(_row("version", name, True, version) for name, version in versions().items())
    failed = [f"{row['part']} {row['name']}" for row in rows if row["works"] == "no"]
    figures = {"rows": rows, "num_failed": len(failed), "devices": [str(device) for device in devices]}
    return Report(title="vjepa doctor", rows=rows, figures=figures)


def available_devices() -> list[torch.device]:
    """Return the CPU, and every accelerator that torch finds."""
    devices = [torch.device("cpu")]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        devices += [torch.device(kind.type, index) for index in range(torch.accelerator.device_count())]
    return devices


def decoder_rows() -> list[Row]:
    """Try each decoder backend; return a row per backend, and one for `auto` that names its choice."""
    tried = {name: trial(name) for name in BUILT_IN if name != "auto"}
    rows = [_row("decoder", name, found.works, found.detail) for name, found in tried.items()]
    try:
        return [_row("decoder", "auto", True, f"reads videos with {fastest()}, images with frames"), *rows]
    except ImportError as failure:
        return [_row("decoder", "auto", False, str(failure)), *rows]


def attention_rows(device: torch.device) -> list[Row]:
    """Try the forward pass of each kernel of scaled dot-product attention on `device`; return a row per kernel."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    query = torch.ones(1, 2, 64, 32, device=device, dtype=dtype)
    rows = []
    for kernel in KERNELS.get(device.type, ("MATH",)):
        with warnings.catch_warnings(record=True) as reasons:
            warnings.simplefilter("always")
            try:
                with sdpa_kernel(getattr(SDPBackend, kernel)):
                    F.scaled_dot_product_attention(query, query, query)
                works, detail = True, str(dtype).removeprefix("torch.")
            except RuntimeError as error:
                causes = [str(reason.message).split(" (Triggered")[0] for reason in reasons]
                works, detail = False, " ".join((causes or [str(error)])[-1].split())
        rows.append(_row("attention", f"{kernel.lower()} on {device}", works, detail))
    return rows


def bf16_row(device: torch.device) -> Row:
    """Return the speed of a bf16 matrix product on `device`, and its ratio to fp32."""
    full, half = (_matmul_seconds(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    gigaflop = 2 * MATMUL_SIDE**3 / 1e9
    detail = f"{gigaflop / half:.0f} Gflop/s, {full / half:.1f} times fp32 ({gigaflop / full:.0f})"
    return _row("bf16", str(device), True, detail)


def _matmul_seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Return the shortest time of a few products; reading a number waits for the device."""
    matrix = torch.ones(MATMUL_SIDE, MATMUL_SIDE, device=device, dtype=dtype)
    seconds = []
    for _ in range(MATMUL_TRIALS):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _device_detail(device: torch.device) -> str:
    if device.type == "cpu":
        return f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    return device.type


def _free_memory() -> str:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return "unknown on this system"
    kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in meminfo.read_text().splitlines()}
    return f"{kibibytes['MemAvailable'] / 2**20:.1f} of {kibibytes['MemTotal'] / 2**20:.1f} GiB"


def _row(part: str, name: str, works: bool, detail: str) -> Row:
    return {"part": part, "name": name, "works": "yes" if works else "no", "detail": detail}
