"""A small transformer with low-rank adapters: the frozen matrices are remote, the adapters are the client's."""

import torch
from harness import serving
from torch import nn
from torch.nn.functional import cross_entropy

NAME = "lora"
BYTES, CONTEXT = 256, 32
torch.set_num_threads(1)  # small operations: a second thread costs more than it brings
PIECES = 4  # batches that the fine-tuning goes through again and again


class Adapted(nn.Module):
    """y = W x + b + B A x. W and b are frozen, and remote; A and B are trained, and stay."""

    def __init__(self, inputs, outputs, rank):
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.a, self.b = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class Layer(nn.Module):
    def __init__(self, size, heads, rank):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(size), nn.LayerNorm(size)
        self.q, self.k, self.v, self.o = (Adapted(size, size, rank) for _ in range(4))
        self.up, self.down = Adapted(size, 4 * size, rank), Adapted(4 * size, size, rank)

    def forward(self, x):
        batch, length, size = x.shape
        h = self.before(x)  # one tensor for q, k and v: one encryption, one request
        split = lambda y: y.view(batch, length, self.heads, -1).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.q(h)), split(self.k(h)), split(self.v(h))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        attended = torch.softmax(scores.masked_fill(later, float("-inf")), -1) @ v
        x = x + self.o(attended.transpose(1, 2).reshape(batch, length, size))
        return x + self.down(torch.relu(self.up(self.between(x))))


class Transformer(nn.Module):
    def __init__(self, options):
        super().__init__()
        size = options.size
        self.token, self.position = nn.Embedding(BYTES, size), nn.Embedding(CONTEXT, size)
        self.layers = nn.ModuleList(Layer(size, 4, options.rank) for _ in range(options.layers))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, BYTES)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def build(options):
    torch.manual_seed(options.seed)
    return Transformer(options)


def remote_names(model):
    return [f"layers.{i}.{part}.base" for i in range(len(model.layers)) for part in ("q", "k", "v", "o", "up", "down")]


def batches(name, count, size, seed):
    """Pieces of a text of this project, byte by byte."""
    data = torch.tensor(list((serving.ROOT / name).read_bytes()))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        starts = torch.randint(len(data) - CONTEXT - 1, (size,), generator=generator)
        yield torch.stack([data[s : s + CONTEXT + 1] for s in starts])


def loss_of(model, piece):
    logits = model(piece[:, :-1])
    return cross_entropy(logits.reshape(-1, BYTES), piece[:, 1:].reshape(-1))


def adapters_of(model):
    """Freezes all but the adapters, which it returns."""
    chosen = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.split(".")[-2] in ("a", "b")
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen


def fine_tune(model, call, options, progress=None):
    """The losses of some steps of training of the adapters, on another text than the model was trained on."""
    optimizer = torch.optim.Adam(adapters_of(model), lr=0.02)
    losses = []
    pieces = list(batches("docs/threat-model.md", PIECES, options.batch, options.seed + 1))
    for step in range(options.steps):
        piece = pieces[step % PIECES]
        optimizer.zero_grad()
        loss = loss_of(call, piece)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if progress is not None:
            progress.step(note=f"loss {losses[-1]:.3f}")
    return losses
