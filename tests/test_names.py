"""Names that control a terminal, and credentials of URLs, in what is printed and written."""

import logging

import pytest

from tests.given.servers import serving
from vjepa.commands.console import OneLine, fail, show
from vjepa.commands.report import Report, write_result
from vjepa.data import DecodeError, ManifestError
from vjepa.data.loading.failures import FailureLedger
from vjepa.data.remote import fetch
from vjepa.errors import UsageError
from vjepa.names import printable, redacted
from vjepa.types import ClipFailure

HOSTILE = "a\x1b[31m\n\r\x07\u202e\x9b\u2028:smile:[red]\udce9.mp4"
SHOWN = "a\\x1b[31m\\n\\r\\x07\\u202e\\x9b\\u2028:smile:[red]\\xe9.mp4"
SECRETS = [
    "https://me:hunter2@host/a.mp4",
    "s3://hunter2@bucket/a.mp4",
    "simplecache::https://me:hun@ter2@host/a.mp4",
    "https://host/a.mp4?X-Amz-Credential=hunter2%2Fa&X-Amz-Signature=hunter2",
    "https://host/a.mp4?v=2&sig=hunter2",
    "https://host/a.mp4?api_key=hunter2#top",
    "gs://bucket/a?Signature=hunter2&GoogleAccessId=me",
]


def test_a_printable_name():
    assert printable(HOSTILE) == SHOWN
    plain = (
        "caf\u00e9 \u65e5\u672c\u3000\U0001f600 \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.mp4"
    )
    assert printable(plain) == plain


@pytest.mark.parametrize("url", SECRETS)
def test_credentials_are_hidden(url, tmp_path, capsys):
    assert "ter2" not in redacted(url) and "***" in redacted(url) and redacted(redacted(url)) == redacted(url)
    errors = [DecodeError(url, "gone"), ManifestError(url, 3, f"{url} is gone"), UsageError(f"{url} is gone")]
    assert not any("ter2" in str(error) for error in errors)
    ledger = FailureLedger(max_failures=9)
    ledger.observe(1, [ClipFailure(url, f"no answer from {url}")])
    ledger.write(tmp_path / "failures.csv")
    write_result(tmp_path, figures={url: [url]}, settings={"data": {"train": url}}, seed=None)
    assert not any("ter2" in file.read_text() for file in tmp_path.iterdir())
    show(Report(title=url, rows=[{"path": url}], figures={"source": url}))
    fail(f"error: {url}", code=2)
    shown = capsys.readouterr()
    assert "ter2" not in shown.out + shown.err and shown.out.count("***") >= 3


def test_other_urls_stay():
    for url in ("https://host/a.mp4?v=2#t", "https://host/@me/a.mp4", "s3://bucket/key=1/a.mp4", "a@b.mp4"):
        assert redacted(url) == url


def test_reports_errors_and_logs_show_no_control_characters(capsys):
    show(Report(title=HOSTILE, rows=[{"video": HOSTILE}], figures={HOSTILE: HOSTILE}))
    fail(f"error: {HOSTILE}", code=2)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [SHOWN, "video", SHOWN, f"{SHOWN}: {SHOWN}"]
    assert shown.err == f"vjepa: error: {SHOWN}\n"
    record = logging.LogRecord("vjepa.data", logging.INFO, "", 0, "cannot read %s", (HOSTILE,), None)
    assert OneLine("%(message)s").format(record) == f"cannot read {SHOWN}"


def test_a_password_is_sent_and_not_shown(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"video")
    with serving(tmp_path) as served:
        url = served.url.replace("://", "://me:hunter2@")
        assert fetch(f"{url}/a.mp4") == b"video"
        with pytest.raises(DecodeError, match=r"me|\*\*\*@.*no such file") as error:
            fetch(f"{url}/b.mp4")
        assert "hunter2" not in str(error.value)
