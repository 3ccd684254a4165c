"""Names made of ids. Two different ids never share a name: a hash tells them apart, the rest is for readers."""

from __future__ import annotations

import base64
import re

_PLAIN_COMPONENT = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}")
_NOT_READABLE = re.compile(r"[^a-z0-9]+")


def digest(*parts: str, characters: int) -> str:
    """Hash `parts` into lower-case base32. Lengths are hashed too, so `ab`, `c` differs from `a`, `bc`."""
    import hashlib  # late: it loads OpenSSL

    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode()
        hasher.update(len(data).to_bytes(8, "big") + data)
    return base64.b32encode(hasher.digest()).decode().lower()[:characters]


def readable_part(text: str) -> str:
    """Return an id's plain letters and digits, joined by `-`."""
    return _NOT_READABLE.sub("-", text[:100].lower()).strip("-")


def workspace_component(text: str) -> str:
    """Map an id one to one to a file name. A plain id is its own name; others get `~` and a hash.

    An id with upper case is not plain, because file systems that fold case would merge it with another id.
    """
    if _PLAIN_COMPONENT.fullmatch(text):
        return text
    return f"{readable_part(text)[:40]}~{digest('workspace', text, characters=26)}"
