"""Names of files, labels and URLs as text that is safe to show and to keep: nothing controls a terminal, no secrets."""

from __future__ import annotations

import re
import unicodedata

# control characters, invisible formatting (such as right-to-left marks), bytes that are not Unicode, line ends
UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # scripts such as Persian need them, and they control nothing
USER = re.compile(r"(?<=://)[^\s/?#\"'<>]+@")
# of queries, the values of keys such as X-Amz-Signature, sig, token, api_key
SECRET = re.compile(
    r"([?&;][^\s=&;?#\"'<>]*(?:sig|token|key|secret|passw|cred|auth)[^\s=&;?#\"'<>]*=)[^\s&;#\"'<>)]+",
    re.IGNORECASE,
)
HIDDEN = "***"


def printable(text: str) -> str:
    r"""Return a text as one line without characters that control a terminal, and without credentials of URLs.

    >>> printable("a\nb\x1b[31m.mp4"), printable("caf\udce9.mp4")
    ('a\\nb\\x1b[31m.mp4', 'caf\\xe9.mp4')
    """
    return "".join(map(_shown, redacted(text)))


def redacted(text: str) -> str:
    """Return a text with the credentials of the URLs in it hidden.

    >>> redacted("s3://me:secret@host/a.mp4?X-Amz-Signature=0a1b&version=2 is missing")
    's3://***@host/a.mp4?X-Amz-Signature=***&version=2 is missing'
    """
    if "://" not in text:
        return text
    return SECRET.sub(rf"\g<1>{HIDDEN}", USER.sub(f"{HIDDEN}@", text))


def _shown(letter: str) -> str:
    if letter.isprintable() or letter in JOINERS or unicodedata.category(letter) not in UNSAFE:
        return letter
    if "\udc80" <= letter <= "\udcff":  # a byte of a name that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()
