"""Fetching archives through pooch: pinned hashes, several mirrors, resumed where they broke off, once for everybody.

Nothing is asked for but by https, whatever a mirror redirects to: a hash says that a file was not changed on its way,
not that nobody saw what was asked for. This machine itself may be asked without. What is being fetched is told to the
logger `mnistlab.data`; nothing is written to the terminal.
"""

# ruff: noqa: PLC0415 (pooch, requests and filelock are needed only when something is fetched)

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

from mnistlab.errors import DataUnavailableError
from mnistlab.util.credentials import without_credentials

if TYPE_CHECKING:
    from pooch.typing import Downloader
    from requests import Response

log = logging.getLogger("mnistlab.data")
log.addHandler(logging.NullHandler())  # without a handler, Python itself would write warnings to the terminal

_PIECE = 1 << 16
_REDIRECTIONS = 5  # GitHub and the mirrors of today take one or two


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long to wait and how much to take. Times are seconds, `size` is bytes of one archive."""

    connect: float = 10.0
    read: float = 30.0
    whole: float = 900.0
    size: int = 1 << 27
    attempts: int = 3  # per mirror, each going on where the last one broke off


LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file to fetch: its name below every mirror, and its hash as pooch writes it (`sha256:...`)."""

    name: str
    known_hash: str


def fetch(archives: Sequence[Archive], mirrors: Sequence[str], folder: Path, limits: Limits = LIMITS) -> None:
    """See to it that `folder` holds every archive, whole and with its known hash.

    However many processes ask at once, one fetches and the others wait for it. A file appears under its own name
    only when its hash is right.

    Raises:
        DataUnavailableError: naming every mirror and why it failed, or why `folder` can't be written.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for archive in archives:
                _fetch_one(archive, mirrors, folder, limits)
    except OSError as error:
        raise DataUnavailableError(f"nothing can be stored in the cache folder {folder}: {error}") from error


def _fetch_one(archive: Archive, mirrors: Sequence[str], folder: Path, limits: Limits) -> None:
    failures: list[str] = []
    for mirror in mirrors:
        failure = _from_mirror(archive, mirror, folder, limits)
        if failure is None:
            return
        failures.append(without_credentials(f"  {mirror}: {failure}"))
        log.warning(failures[-1].strip())
    heading = f"{archive.name} can't be fetched from any of {len(mirrors)} mirrors"
    raise DataUnavailableError("\n".join([heading, *failures]))


def _from_mirror(archive: Archive, mirror: str, folder: Path, limits: Limits) -> str | None:
    """Fetch from one mirror; return why that failed, or None. A connection that breaks off is taken up again."""
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.CRITICAL)  # it would write to the terminal; `log` says what it would say
    url = mirror.rstrip("/") + "/" + archive.name
    failure = ""
    for _ in range(limits.attempts):
        download = _Download(folder / f"{archive.name}.part", limits)
        try:
            pooch.retrieve(url, archive.known_hash, archive.name, folder, downloader=cast("Downloader", download))
        except requests.HTTPError as error:
            return str(error).partition(" for url")[0]
        except requests.RequestException as error:
            failure = _in_words(error, limits)
            if not download.got_on:
                return failure
        except ValueError as error:  # pooch's word for a hash that does not match, and ours for a refusal
            failure = _hash_in_words(error)
            if not download.resumed:  # else the older part may have been at fault: it is gone, so begin afresh
                return failure
        else:
            return None
    return failure


class _Download:
    """A downloader for pooch that keeps what it got in `part`, and goes on from there by an HTTP range request."""

    def __init__(self, part: Path, limits: Limits) -> None:
        self.part = part
        self.limits = limits
        self.resumed = False
        self.got_on = False

    def __call__(self, url: str, output_file: Any, pooch: Any, *, check_only: bool | None = None) -> None:  # noqa: ARG002
        """Fetch `url` to the path `output_file`; the other two belong to pooch's signature and mean nothing here.

        Raises:
            requests.RequestException: if the server can't be reached, refuses, or breaks off.
            ValueError: if the file is larger than allowed or the server leads away from https.
        """
        if self.part.is_symlink():  # it leads to a file that is not ours to write
            self.part.unlink()
        start = self.part.stat().st_size if self.part.exists() else 0
        log.info("fetching %s%s", without_credentials(url), f", going on at byte {start:,}" if start else "")
        with _get(url, start, self.limits) as response:
            self.resumed = start > 0 and response.status_code in {206, 416}
            if response.status_code == 416:
                self.part.unlink()
                raise ValueError(f"the file ends before byte {start:,}, so what was there is no part of it")
            response.raise_for_status()
            self._store(response, start if _goes_on_at(response, start) else 0)
        shutil.move(os.fspath(self.part), output_file)

    def _store(self, response: Response, size: int) -> None:
        """Append the body to `part`, or begin it anew where the server sends the file from its beginning."""
        end = time.monotonic() + self.limits.whole
        with self.part.open("ab" if size else "wb") as file:
            for piece in response.iter_content(_PIECE):
                size += len(piece)
                if size > self.limits.size:
                    self.part.unlink()
                    raise ValueError(f"more than the {self.limits.size:,} bytes that are allowed")
                if time.monotonic() > end:
                    raise ValueError(f"not whole after {self.limits.whole:g} s ({size:,} bytes are kept)")
                file.write(piece)
                self.got_on = True


def _get(url: str, start: int, limits: Limits) -> Response:
    """Ask for `url` from byte `start` on; each redirection is looked at before it is followed.

    Raises:
        ValueError: if a hop is not https, or there are too many.
    """
    import requests

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    limit = (limits.connect, limits.read)
    for hop in range(_REDIRECTIONS + 1):
        _check_https(url, redirected=hop > 0)
        response = requests.get(url, headers=headers, stream=True, timeout=limit, allow_redirects=False)
        if not response.is_redirect:
            return response
        url = urljoin(url, response.headers["location"])
        response.close()
    raise ValueError(f"redirected more than {_REDIRECTIONS} times, at last to {url}")


def _goes_on_at(response: Response, start: int) -> bool:
    return (
        start > 0
        and response.status_code == 206
        and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    )


def _check_https(url: str, *, redirected: bool) -> None:
    """Refuse what would travel unencrypted."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(parts.hostname or "")):
        raise ValueError(f"{'redirected to ' if redirected else ''}{url}: only https is fetched")


def _is_here(host: str) -> bool:
    """Return whether a host's name is a number of this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_words(error: Exception, limits: Limits) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return f"no answer within {limits.connect:g} s (connecting) or {limits.read:g} s (reading)"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the connection broke off ({error})"
    cause = str(getattr(error.args[0], "reason", error) if error.args else error)  # urllib3's word for it is shorter
    return f"no connection ({cause.partition('): ')[2] or cause})"


def _hash_in_words(error: ValueError) -> str:
    """Return the expected and the found hash of pooch's sentence, or our own sentence as it is."""
    _, known, rest = str(error).partition("known hash: ")
    return "other contents: " + rest.partition(". Deleted")[0] if known else str(error)
