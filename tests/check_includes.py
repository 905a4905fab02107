#!/usr/bin/env python3
"""Includes go downwards only (docs/architecture.md): the order of the rooms, held to the sources.

    base < random < ring < rlwe < linear, ckks < circuit < wire < model < secret < client
    store: base.  server: store, and everything up to model, neither secret nor client.  cli: everything.

Prints one line `ok - ...` or `not ok - ...` per check; exits with 1 if any is not ok."""
import pathlib
import re
import sys
import tempfile

LEVELS = [["base"], ["random"], ["ring"], ["rlwe"], ["linear", "ckks"], ["circuit"], ["wire"], ["model"], ["secret"], ["client"]]
LEVEL = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
SERVER_LEVEL = LEVEL["model"]
ROOMS = set(LEVEL) | {"store", "server", "cli"}

# public headers: who may include them (everyone else gets only declarations that any room may see)
PUBLIC_FOR = {"client.h": {"client", "cli"}, "server.h": {"server", "cli"}, "hemi.h": {"cli"}}
# libraries that belong to one room
SYSTEM_FOR = {"curl/": {"client"}, "microhttpd": {"server"}, "sqlite3": {"store"}, "libpq": {"store"}, "postgresql": {"store"}, "gnutls": {"server"},
              "protobuf-c": {"model"}, "openblas": {"cli"}, "cblas": {"cli"}}
GENERATED_FOR = {"onnx.pb-c.h": {"model"}}

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)


def may_include(room, other):
    if other == room or room == "cli":
        return True
    if room == "store":
        return other == "base"
    if room == "server" and other == "store":
        return True
    if room == "server":
        return LEVEL.get(other, SERVER_LEVEL + 1) <= SERVER_LEVEL
    return other in LEVEL and LEVEL[other] < LEVEL[room]


def complaint(room, kind, name):
    """What is wrong with this include in this room, or None."""
    if kind == "<":
        for prefix, rooms in SYSTEM_FOR.items():
            if name.startswith(prefix) and room not in rooms:
                return f"<{name}> belongs to {', '.join(sorted(rooms))}"
        if name.split("/")[0] in ROOMS | {"hemi"}:
            return f"<{name}> is ours: write it in quotes"
        return None
    if name in GENERATED_FOR:
        return None if room in GENERATED_FOR[name] else f'"{name}" belongs to {", ".join(sorted(GENERATED_FOR[name]))}'
    other, _, rest = name.partition("/")
    if not rest or ".." in name:
        return f'"{name}" does not name its room'
    if other == "hemi":
        if rest in PUBLIC_FOR and room not in PUBLIC_FOR[rest]:
            return f'"{name}" is not for this room'
        return None
    if other not in ROOMS:
        return f'"{name}": there is no room {other}'
    return None if may_include(room, other) else f'"{name}" is not below this room'


def violations(root):
    """(complaints, number of includes seen) of a tree with src/ and perhaps include/, examples/."""
    found, seen = [], 0
    for path in sorted(root.glob("src/**/*.[ch]")):
        parts = path.relative_to(root / "src").parts
        room = parts[0] if len(parts) > 1 else None
        if room not in ROOMS:
            found.append(f"{path.relative_to(root)}: there is no room {parts[0]}")
            continue
        for kind, name in INCLUDE.findall(path.read_text(encoding="utf-8")):
            seen += 1
            what = complaint(room, kind, name)
            if what:
                found.append(f"{path.relative_to(root)}: {what}")
    for pattern in ("include/hemi/*.h", "examples/*.c"):  # what users see needs nothing but public headers
        for path in sorted(root.glob(pattern)):
            for kind, name in INCLUDE.findall(path.read_text(encoding="utf-8")):
                seen += 1
                if kind == '"' and not name.startswith("hemi/"):
                    found.append(f'{path.relative_to(root)}: "{name}" is not public')
    for name in ("server.h", "model.h", "params.h", "status.h"):  # the server's view, all the way down
        todo, reached = [name], set()
        while todo:
            header = root / "include/hemi" / todo.pop()
            if header.name in reached or not header.is_file():
                continue
            reached.add(header.name)
            todo += [n[5:] for _, n in INCLUDE.findall(header.read_text(encoding="utf-8")) if n.startswith("hemi/")]
        if "client.h" in reached:
            found.append(f"include/hemi/{name} leads to hemi/client.h")
    return found, seen


def self_test():
    """Made-up trees: each bad include is found, each good one is not."""
    cases = [  # (file, include line, is it wrong)
        ("base/a.c", '#include "base/error.h"', False), ("base/a.c", '#include "random/sample.h"', True),
        ("random/a.c", '#include "base/bits.h"', False), ("ring/a.c", '#include "rlwe/context.h"', True),
        ("rlwe/a.c", '#include "secret/key.h"', True), ("linear/a.c", '#include "ckks/x.h"', True),
        ("ckks/a.c", '#include "rlwe/context.h"', False), ("wire/a.h", '#include "model/module.h"', True),
        ("wire/a.c", '#include "linear/layout.h"', False), ("secret/a.c", '#include "client/keys.h"', True),
        ("client/a.c", '#include "secret/key.h"', False), ("server/a.c", '#include "secret/key.h"', True),
        ("server/a.c", '#include "client/http.h"', True), ("server/a.c", '#include "wire/wire.h"', False),
        ("server/a.c", '  #  include "secret/cipher.h"', True), ("server/a.c", '#include "cli/options.h"', True),
        ("client/a.c", '#include "server/route.h"', True), ("cli/a.c", '#include "client/session.h"', False),
        ("server/a.c", '#include "hemi/client.h"', True), ("server/a.c", '#include "hemi/server.h"', False),
        ("linear/a.c", '#include "hemi/params.h"', False), ("base/a.c", '#include "error.h"', True),
        ("base/a.c", '#include "../secret/key.h"', True), ("base/a.c", "#include <stdint.h>", False),
        ("server/a.c", "#include <curl/curl.h>", True), ("client/a.c", "#include <curl/curl.h>", False),
        ("wire/a.c", "#include <secret/key.h>", True), ("attic/a.c", "", True), ("base/a.c", '#include "attic/x.h"', True),
    ]
    for file, line, wrong in cases:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "src" / file
            path.parent.mkdir(parents=True)
            path.write_text(line + "\n")
            if bool(violations(pathlib.Path(folder))[0]) != wrong:
                return f"{file} with {line!r}: {'not found' if wrong else 'complained about'}"
    with tempfile.TemporaryDirectory() as folder:
        public = pathlib.Path(folder) / "include/hemi"
        public.mkdir(parents=True)
        (public / "server.h").write_text('#include "hemi/model.h"\n')
        (public / "model.h").write_text('#include "hemi/client.h"\n')
        (public / "client.h").write_text("")
        if not violations(pathlib.Path(folder))[0]:
            return "server.h that leads to client.h: not found"
    return None


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    failed = False
    fault = self_test()
    print(f"not ok - the checker of includes: {fault}" if fault else "ok - the checker of includes finds made-up violations")
    failed |= fault is not None
    found, seen = violations(root)
    for what in found:
        print(f"  {what}")
    if seen == 0:
        print("not ok - no include was found at all")
        failed = True
    elif found:
        print(f"not ok - {len(found)} of {seen} includes do not go downwards")
        failed = True
    else:
        print(f"ok - all {seen} includes go downwards")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
