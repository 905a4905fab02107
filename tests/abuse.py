#!/usr/bin/env python3
"""Clients that mean harm, against a server: slow ones, half uploads, resets, wrong tokens; while a good client calls on. For tests/python/test_abuse.py.

    tests/abuse.py PORT SECONDS --slow N --half N --resets PER_SECOND --tokens PER_SECOND

Prints one line of JSON: what was done. Connections come from many addresses of this machine (127.0.1.x), as from many machines."""

import argparse
import asyncio
import json
import random
import socket
import struct
import time

HEADERS = b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nHemi-Key: " + b"0" * 64 + b"\r\nContent-Length: 100000\r\n\r\n"
RESET = struct.pack("ii", 1, 0)


class Abuse:
    def __init__(self, options):
        self.o, self.end, self.done = options, time.monotonic() + options.seconds, {"slow": 0, "half": 0, "resets": 0, "tokens": 0, "cut": 0, "refused": 0}
        self.rng, self.most, self.open = random.Random(3), 0, 0

    def left(self):
        return self.end - time.monotonic()

    async def dial(self, number):
        loop = asyncio.get_running_loop()
        s = socket.socket()
        s.setblocking(False)
        s.bind((f"127.0.1.{1 + number % 200}", 0))
        try:
            await asyncio.wait_for(loop.sock_connect(s, ("127.0.0.1", self.o.port)), 20)
        except (OSError, asyncio.TimeoutError):
            self.done["refused"] += 1
            s.close()
            return None
        self.open += 1
        self.most = max(self.most, self.open)
        return s

    def close(self, s, reset=False):
        if reset:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        s.close()
        self.open -= 1

    async def send(self, s, data):
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(s, data), 10)
            return True
        except (OSError, asyncio.TimeoutError):
            return False

    async def slow(self, number):
        """A byte now and then: of a header, of a body, or of what it reads."""
        kind = number % 3
        while self.left() > 0:
            s = await self.dial(number)
            if s is None:
                await asyncio.sleep(1)
                continue
            self.done["slow"] += 1
            alive = True
            if kind == 1:
                alive = await self.send(s, HEADERS)
            if kind == 2:
                alive = await self.send(s, b"GET /v2/models HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
            while alive and self.left() > 0:
                await asyncio.sleep(min(3 + 4 * self.rng.random(), max(0.05, self.left())))
                alive = await self.send(s, b"x") if kind < 2 else await self.read(s)
            self.done["cut"] += not alive
            self.close(s, True)

    async def read(self, s):
        try:
            return bool(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(s, 1), 1))
        except asyncio.TimeoutError:
            return True
        except OSError:
            return False

    async def half(self, number):
        """An upload of keys that stops in the middle."""
        await asyncio.sleep(self.rng.random() * max(0.1, self.o.seconds / 2))
        s = await self.dial(number)
        if s is None:
            return
        path = "%064x" % self.rng.getrandbits(256)
        if await self.send(s, f"PUT /v2/keys/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n".encode() + bytes(20000)):
            self.done["half"] += 1
        await asyncio.sleep(max(0, self.rng.random() * self.left()))
        self.close(s, number % 2 == 0)

    async def resets(self):
        """In the middle of headers, of bodies, and before the answer."""
        number = 0
        while self.left() > 0 and self.o.resets:
            await asyncio.sleep(1 / self.o.resets)
            number += 1
            s = await self.dial(number)
            if s is None:
                continue
            data = HEADERS + bytes(2000)
            await self.send(s, data[: self.rng.randrange(1, len(data))])
            if number % 3 == 0:
                await self.send(s, bytes(90000))
            self.done["resets"] += 1
            self.close(s, True)

    async def tokens(self):
        number = 0
        while self.left() > 0 and self.o.tokens:
            await asyncio.sleep(1 / self.o.tokens)
            number += 1
            s = await self.dial(number)
            if s is None:
                continue
            await self.send(s, b"GET /v2/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hemi_%064x\r\n\r\n" % self.rng.getrandbits(256))
            await self.read(s)
            self.done["tokens"] += 1
            self.close(s)

    async def run(self):
        work = [self.slow(i) for i in range(self.o.slow)] + [self.half(i) for i in range(self.o.half)] + [self.resets(), self.tokens()]
        await asyncio.gather(*work)
        print(json.dumps({**self.done, "most_at_once": self.most}))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("port", type=int)
    p.add_argument("seconds", type=float)
    for name in ("slow", "half", "resets", "tokens"):
        p.add_argument(f"--{name}", type=int, default=0)
    asyncio.run(Abuse(p.parse_args()).run())


if __name__ == "__main__":
    main()
