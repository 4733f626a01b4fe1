import shutil

import torch

from vjepa.commands import doctor as room
from vjepa.commands.doctor import attention_rows, bf16_row, decoder_rows, doctor


def test_every_part_is_tried(tmp_path):
    report = doctor(out=tmp_path)
    tried = {row["part"] for row in report.rows}
    assert {"device", "attention", "bf16", "decoder", "memory", "disk", "version"} <= tried
    pyav = next(row for row in report.rows if row["name"] == "pyav")
    assert pyav["works"] == "yes" and "8 frames" in pyav["detail"]
    assert report.figures["num_failed"] == sum(row["works"] == "no" for row in report.rows)


def test_a_decoder_that_fails_tells_why(monkeypatch):
    monkeypatch.setitem(room.BUILT_IN, "absent", "absent_package.Decoder")
    absent = next(row for row in decoder_rows() if row["name"] == "absent")
    assert absent["works"] == "no" and "No module named 'absent_package'" in absent["detail"]


def test_attention_kernels_of_the_cpu():
    assert {row["name"]: row["works"] for row in attention_rows(torch.device("cpu"))}["math on cpu"] == "yes"


def test_bf16_speed_is_a_figure():
    assert "Gflop/s" in bf16_row(torch.device("cpu"))["detail"]


def test_disk_of_the_folder_asked_for(tmp_path):
    disk = next(row for row in doctor(out=tmp_path).rows if row["part"] == "disk")
    assert disk["name"] == str(tmp_path)
    assert f"of {shutil.disk_usage(tmp_path).total / 2**30:.1f} GiB" in disk["detail"]
