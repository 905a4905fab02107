"""Modules that receive the very same tensor: found at calibration, later served by one encryption and one request."""

import threading
import weakref

import torch

from ._tensors import storage_address, version_of

UNUSED_LIMIT = 2  # results that nobody came for, in a row, before the siblings are no longer asked for


class Recorder:
    """Copies the inputs of a calibration. Modules that got the same tensor (the same memory, shape and version, and the
    same numbers) get the same copy."""

    def __init__(self):
        self._lock = threading.Lock()
        self._seen = {}  # what tells tensors apart -> (the tensor, whose memory is not used again meanwhile, its copy)

    def record(self, x):
        key = (storage_address(x), x.data_ptr(), version_of(x), tuple(x.shape), x.stride(), x.dtype)
        with self._lock:
            seen = self._seen.get(key)
            if seen is not None and key[0] and torch.equal(seen[1], x.detach().to("cpu", torch.float32)):
                return seen[1]
            copy = x.detach().to("cpu", torch.float32, copy=True)
            self._seen[key] = (x.detach(), copy)
            return copy

    def end_of_call(self):
        """Tensors of different calls of the model are different inputs."""
        with self._lock:
            self._seen.clear()


def groups_of(records):
    """From {name: its records}: lists of names that got the same inputs every time."""
    groups = {}
    for name, inputs in records.items():
        if inputs:
            groups.setdefault(tuple(map(id, inputs)), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


class _Kept:
    """The results of one input, until the siblings come for them. Not longer than the input itself lives."""

    def __init__(self, generation, x, flat, asked, results):
        self.generation, self.version, self.flat, self.asked = generation, version_of(x), flat, asked
        self.results, self.shared = results, bool(results)
        self.lost = False  # the input went before they came
        self.input = weakref.ref(x, self._forget)

    def _forget(self, _):
        self.lost = bool(self.results)
        self.results, self.flat = {}, None

    def of(self, generation, x, flat):
        """Whether these are results of x: that very object, and unchanged, also where a change leaves no trace (memory
        shared with an array)."""
        return (
            self.generation == generation
            and self.input() is x
            and self.version == version_of(x)
            and self.flat is not None
            and torch.equal(self.flat, flat)
        )


class SharedResults:
    """Per thread and group at most one set of results that were asked for together with another module's."""

    def __init__(self):
        self._local = threading.local()
        self._unused = {}  # group -> sets in a row that nobody came for
        self._generation = 0

    def forget(self):
        """In all threads: what there is belongs to other modules or keys."""
        self._generation += 1
        self._unused = {}

    def _kept(self):
        return self._local.__dict__.setdefault("kept", {})

    def take(self, group, name, x, flat):
        """The result of module `name` for x if it is here: (y,), given once. None otherwise."""
        kept = self._kept().get(group)
        if kept is None or not kept.of(self._generation, x, flat):
            return None
        if not kept.shared and kept.asked != name:
            self._unused[group] = 0  # they share after all: from the next input on
        if name not in kept.results:
            return None
        self._unused[group] = 0
        return (kept.results.pop(name),)

    def worth_asking(self, group):
        """Whether the siblings are asked for too: not where they did not come for their results."""
        self.drop(group)
        return self._unused.get(group, 0) < UNUSED_LIMIT

    def drop(self, group):
        kept = self._kept().pop(group, None)
        if kept is not None and kept.generation == self._generation and (kept.results or kept.lost):
            self._unused[group] = self._unused.get(group, 0) + 1

    def keep(self, group, name, x, flat, results):
        """results: {sibling: y}; empty where only module `name` was asked."""
        # a copy: flat may be x's own memory
        self._kept()[group] = _Kept(self._generation, x, flat.clone(), name, results)
