#!/usr/bin/env python3
"""Clients that mean harm, against a server: slow ones, half uploads, resets, wrong tokens; while a good client calls on. For tests/python/test_abuse.py.

    tests/abuse.py PORT SECONDS --recorded FOLDER --slow N --half N --resets PER_SECOND --tokens PER_SECOND

FOLDER holds what a client of theirs sent: `infer` and `keys`, requests with their header fields and bodies; so what they do gets as far as a tenant's request
does. Prints one line of JSON: what was done. Connections come from many addresses of this machine (127.0.1.x), as from many machines."""

import argparse
import asyncio
import json
import random
import re
import socket
import struct
import time
from pathlib import Path

RESET = struct.pack("ii", 1, 0)
SLOW = ("headers", "body", "reply")
PARTS = ("headers", "body", "computation", "reply")


class Abuse:
    def __init__(self, options):
        self.o, self.end = options, time.monotonic() + options.seconds
        self.done = {"cut": 0, "refused": 0, "half": 0, "tokens": 0, "refused_tokens": 0, **{f"slow_{k}": 0 for k in SLOW}, **{f"resets_{p}": 0 for p in PARTS}}
        self.rng, self.most, self.open = random.Random(3), 0, 0
        self.infer, self.keys = (Path(options.recorded, name).read_bytes() for name in ("infer", "keys"))
        self.head = self.infer.index(b"\r\n\r\n") + 4
        field = re.search(rb"(?im)^authorization:.*\r\n", self.infer)
        self.token = field.group() if field else b""

    def left(self):
        return self.end - time.monotonic()

    async def dial(self, number, small=False):
        loop = asyncio.get_running_loop()
        s = socket.socket()
        s.setblocking(False)
        if small:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
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

    async def read(self, s, most=1):
        """None: nothing came; b'': the connection ended."""
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(s, most), 1)
        except asyncio.TimeoutError:
            return None
        except OSError:
            return b""

    async def slow(self, number):
        """A byte now and then: of a header, of a body, or of what it reads. Cut, it comes again."""
        kind = SLOW[number % len(SLOW)]
        client = b"GET /v2/models/model/modules/seq.0/client HTTP/1.1\r\nHost: x\r\n" + self.token + b"\r\n"
        first = {"headers": b"GET /v2/models HTTP/1.1\r\n", "body": self.infer[: self.head + 10], "reply": client * 60}[kind]
        while self.left() > 0:
            s = await self.dial(number, kind == "reply")
            if s is None:
                await asyncio.sleep(1)
                continue
            self.done["slow_" + kind] += 1
            alive = await self.send(s, first)
            while alive and self.left() > 0:
                await asyncio.sleep(min(3 + 4 * self.rng.random(), max(0.05, self.left())))
                alive = await self.read(s) != b"" if kind == "reply" else await self.send(s, b"x")
            self.done["cut"] += not alive
            self.close(s, True)

    async def half(self, number):
        """An upload of keys that stops in the middle."""
        await asyncio.sleep(self.rng.random() * max(0.1, self.o.seconds / 2))
        s = await self.dial(number)
        if s is None:
            return
        keys = re.sub(rb"/v2/keys/[0-9a-f]{64}", b"/v2/keys/%064x" % self.rng.getrandbits(256), self.keys, count=1)
        if await self.send(s, keys[: len(keys) // 2]):
            self.done["half"] += 1
        await asyncio.sleep(max(0, self.rng.random() * self.left()))
        self.close(s, number % 2 == 0)

    async def reset(self, number):
        part = PARTS[number % len(PARTS)]
        s = await self.dial(number)
        if s is None:
            return
        whole = self.infer[:-1] + bytes([self.rng.randrange(256)])  # other bytes: not a repetition
        end = {"headers": self.rng.randrange(1, self.head), "body": self.rng.randrange(self.head, len(whole))}.get(part, len(whole))
        if await self.send(s, whole[:end]) and (part != "reply" or await self.read(s, 100)):
            self.done["resets_" + part] += 1
        self.close(s, True)

    async def wrong_token(self, number):
        s = await self.dial(number)
        if s is None:
            return
        await self.send(s, b"GET /v2/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hemi_%064x\r\n\r\n" % self.rng.getrandbits(256))
        reply = await self.read(s, 12)
        self.done["tokens"] += 1
        self.done["refused_tokens"] += reply == b"HTTP/1.1 401"
        self.close(s)

    async def often(self, what, rate):
        """None waits for the one before."""
        under_way, number = set(), 0
        while self.left() > 0 and rate:
            await asyncio.sleep(1 / rate)
            number += 1
            task = asyncio.ensure_future(what(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def run(self):
        work = [self.slow(i) for i in range(self.o.slow)] + [self.half(i) for i in range(self.o.half)]
        await asyncio.gather(*work, self.often(self.reset, self.o.resets), self.often(self.wrong_token, self.o.tokens))
        print(json.dumps({**self.done, "most_at_once": self.most}))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("port", type=int)
    p.add_argument("seconds", type=float)
    p.add_argument("--recorded", required=True)
    for name in ("slow", "half", "resets", "tokens"):
        p.add_argument(f"--{name}", type=int, default=0)
    asyncio.run(Abuse(p.parse_args()).run())


if __name__ == "__main__":
    main()
