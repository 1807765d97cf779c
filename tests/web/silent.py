"""A server that takes what it is asked and never answers, as one behind a firewall that drops what comes."""

import contextlib
import socket
import threading


class Silent:
    """Listens on loopback for as long as the block lasts, and holds every connection.

    Attributes:
        asked: How many connections there have been.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> "Silent":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing it alone does not wake who waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for connection in self._held:
            connection.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._held.append(self._listener.accept()[0])
                self.asked += 1
