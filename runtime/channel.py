"""Messages between the server and a worker process: small JSON, at most one block with each."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping

_LARGEST_MESSAGE = 1 << 16


class Channel:
    """One end of a SOCK_SEQPACKET pair; every message arrives whole."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Return two connected ends."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send(self, message: Mapping[str, object], descriptor: int = -1) -> None:
        """Send a message, with a block's descriptor if given.

        Raises:
            OSError: the other end is gone.
        """
        text = json.dumps(message).encode()[:_LARGEST_MESSAGE]
        passed = [descriptor] if descriptor >= 0 else []
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))]
        self._end.sendmsg([text], rights if passed else [], socket.MSG_NOSIGNAL)

    def receive(self, seconds: float | None) -> tuple[dict[str, object], int] | None:
        """Wait for a message; returns it with its descriptor (-1 without), None at the end.

        Raises:
            TimeoutError: nothing within `seconds`.
        """
        self._end.settimeout(seconds)
        room = socket.CMSG_LEN(array.array("i").itemsize)
        try:
            text, rights, _, _ = self._end.recvmsg(_LARGEST_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError as error:
            raise TimeoutError from error
        except ConnectionError:
            return None
        descriptors = array.array("i")
        for _, _, content in rights:
            descriptors.frombytes(content)
        if not text:
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        return json.loads(text), descriptors[0] if descriptors else -1

    def close(self) -> None:
        """Close this end."""
        self._end.close()
