"""A WebSocket client for one exec: RFC 6455 as far as a client needs it, blocking, on the standard library."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from urllib.parse import urlsplit

MAX_MESSAGE = 1 << 20
MAX_HEAD = 64 << 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocketError(Exception):
    pass


def dial(origin: str, timeout: float) -> tuple[socket.socket, str]:
    """A connection to an origin's server and what its Host header says. Every name under .localhost is this host."""
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WebSocketError(f"{origin} is no http(s) origin")
    secure = parts.scheme == "https"
    local = parts.hostname == "localhost" or parts.hostname.endswith(".localhost")
    address = ("127.0.0.1" if local else parts.hostname, parts.port or (443 if secure else 80))
    connection = socket.create_connection(address, timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if secure:
        connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
    return connection, parts.netloc


class WebSocket:
    def __init__(self, origin: str, path: str, headers: dict[str, str], timeout: float) -> None:
        self._socket, host = dial(origin, timeout)
        try:
            self._buffer = self._handshake(host, path, headers)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send_text(self, text: str) -> None:
        self._send(TEXT, text.encode())

    def send_binary(self, data: bytes) -> None:
        self._send(BINARY, data)

    def receive(self) -> str | bytes | None:
        """The next message, or None after the server's close."""
        kind, message = 0, b""
        while True:
            first, second = self._read(2)
            opcode, length = first & 0x0F, second & 0x7F
            if second & 0x80:
                raise WebSocketError("the server masks its frames")
            if length == 126:
                (length,) = struct.unpack("!H", self._read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._read(8))
            if length + len(message) > MAX_MESSAGE:
                raise WebSocketError(f"a message of more than {MAX_MESSAGE} bytes")
            payload = self._read(length)
            if opcode == PING:
                self._send(PONG, payload)
            elif opcode == CLOSE:
                return None
            elif opcode != PONG:
                kind, message = opcode or kind, message + payload
                if first & 0x80:
                    return message.decode() if kind == TEXT else message

    def close(self) -> None:
        try:
            self._send(CLOSE, struct.pack("!H", 1000))
        except OSError:
            pass
        self._socket.close()

    def _handshake(self, host: str, path: str, headers: dict[str, str]) -> bytes:
        key = base64.b64encode(os.urandom(16))
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = self._socket.recv(16 << 10)
            if not more or len(head) > MAX_HEAD:
                raise WebSocketError("the server hung up in the handshake")
            head += more
        head, _, rest = head.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        if status.split(" ")[1:2] != ["101"]:
            raise WebSocketError(f"the gateway answered {status!r} {rest[:300]!r}")
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        named = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if named.get("sec-websocket-accept") != accept:
            raise WebSocketError("the server's Sec-WebSocket-Accept is wrong")
        return rest

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
        self._socket.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))

    def _read(self, length: int) -> bytes:
        while len(self._buffer) < length:
            more = self._socket.recv(64 << 10)
            if not more:
                raise WebSocketError("the connection ended in the middle of a message")
            self._buffer += more
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken
