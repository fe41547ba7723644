"""One process at a time works in a directory: a lock that ends with its process.

The lock is the kernel's (`flock`), on a file that nothing else opens, and its descriptor is not
passed on to child processes. So it is free again whatever its process ends by, `kill -9` included;
what the file says is only there to name the holder.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from tacit.errors import DirectoryInUseError

_NAME = ".lock"
_LONGEST_HOLDER = 200


class DirectoryLock:
    """A directory taken for this process, until `release` or the process's end."""

    def __init__(self, directory: Path) -> None:
        """Take a directory, which must exist.

        Raises:
            DirectoryInUseError: another process has it; the message says which.
            OSError: it cannot be written.
        """
        self._descriptor = -1
        descriptor = os.open(directory / _NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BlockingIOError as error:
            holder = os.pread(descriptor, _LONGEST_HOLDER, 0).decode("utf-8", "replace")
            os.close(descriptor)
            raise DirectoryInUseError(
                f"{directory} is in use by {holder or 'another process'}: one process works in "
                "it at a time; stop that one, or name another directory"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the directory go; nothing happens if that was done."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
