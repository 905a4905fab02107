"""FHEModelDev, FHEModelServer, FHEModelClient, HybridFHEModelServer: bytes in, bytes out."""

import copy
import logging
import pickle
import threading

import numpy
import pytest
import torch
from conftest import Deployment, close

from hemi_fhe import (
    HemiConflictError,
    HemiError,
    HemiFormatError,
    HemiKeyError,
    HemiNotFoundError,
    HemiShapeError,
    HemiStateError,
    errors,
)
from hemi_fhe.deployment import fhe_client_server
from hemi_fhe.deployment import FHEModelClient, FHEModelDev, FHEModelServer
from hemi_fhe.torch.compile import compile_torch_model
from hemi_fhe.torch.hybrid_model import HybridFHEModel, HybridFHEModelServer


@pytest.fixture
def module_folder(small):
    return small.folder / "seq.0"


@pytest.fixture
def pair(module_folder):
    return FHEModelClient(module_folder), FHEModelServer(str(module_folder))


def check(result, linear, x):
    expected = linear(torch.as_tensor(x)).detach().numpy()
    assert isinstance(result, numpy.ndarray) and result.dtype == numpy.float32 and result.shape == expected.shape
    assert numpy.abs(result - expected).max() < 0.05


def test_round_trip(pair, small):
    client, server = pair
    client.generate_private_and_evaluation_keys()
    keys = client.get_serialized_evaluation_keys()
    for shape in [(10,), (1, 10), (5, 10), (2, 3, 10)]:
        x = torch.randn(*shape)
        for given in (x, x.numpy(), x.double().numpy(), x.tolist()):
            request = client.quantize_encrypt_serialize(given)
            reply = server.run(request, keys)
            assert isinstance(request, bytes) and isinstance(reply, bytes) and isinstance(keys, bytes)
            check(client.deserialize_decrypt_dequantize(reply), small.float.seq[0], x)


def test_both_folders_are_accepted(module_folder, small):
    """The older page gives the module's folder, the newer one that of its shape."""
    for folder in (module_folder, module_folder / "po_1_10_pc", str(module_folder)):
        client, server = FHEModelClient(folder), FHEModelServer(folder)
        request = client.quantize_encrypt_serialize(numpy.ones(10))
        check(client.deserialize_decrypt(server.run(request, client.get_serialized_evaluation_keys())), small.float.seq[0], torch.ones(10))


def test_replies_in_another_order(pair, small):
    client, server = pair
    keys = client.get_serialized_evaluation_keys()
    xs = [torch.randn(10) * 10**i for i in range(3)]
    requests = [client.quantize_encrypt_serialize(x) for x in xs]
    replies = [server.run(r, keys) for r in requests]
    for i in (2, 0, 1):
        result = client.deserialize_decrypt_dequantize(replies[i], request=requests[i])
        assert numpy.abs(result - small.float.seq[0](xs[i]).detach().numpy()).max() < 0.05 * 10**i
    with pytest.raises(HemiStateError, match="once"):
        client.deserialize_decrypt_dequantize(replies[0])
    with pytest.raises(HemiStateError):
        client.deserialize_decrypt_dequantize(replies[0], request=requests[0])


def test_replies_in_order(pair, small):
    client, server = pair
    keys = client.get_serialized_evaluation_keys()
    xs = [torch.randn(10) for _ in range(3)]
    replies = [server.run(r, keys) for r in [client.quantize_encrypt_serialize(x) for x in xs]]
    results = client.deserialize_decrypt_dequantize(*replies)
    assert isinstance(results, tuple)
    for result, x in zip(results, xs):
        check(result, small.float.seq[0], x)


def test_wrong_inputs(pair):
    client, _ = pair
    for wrong in (numpy.zeros(9), numpy.zeros((10, 1)), 3.0, numpy.zeros((0, 10))):
        with pytest.raises(HemiShapeError):
            client.quantize_encrypt_serialize(wrong)
    with pytest.raises(ValueError):
        client.quantize_encrypt_serialize(numpy.zeros(10), numpy.zeros(10))
    with pytest.raises(ValueError):
        client.quantize_encrypt_serialize(numpy.full(10, numpy.nan))


def test_wrong_bytes(pair):
    client, server = pair
    keys = client.get_serialized_evaluation_keys()
    request = client.quantize_encrypt_serialize(numpy.ones(10))
    reply = server.run(request, keys)
    for wrong in (b"", b"x", request[:-1], request + b"x", bytes(len(request)), b"\xff" * len(request)):
        with pytest.raises(HemiError):
            server.run(wrong, keys)
    for wrong in (b"", b"x", keys[:-1], keys + b"x", bytes(len(keys))):
        with pytest.raises(HemiError):
            server.run(request, wrong)
    for wrong in (b"", reply[:-1], reply + b"x", bytes(len(reply))):
        with pytest.raises(HemiError):
            client.deserialize_decrypt_dequantize(wrong)
    client.deserialize_decrypt_dequantize(reply)  # wrong replies have not used the request up


def test_request_for_another_module(pair, tmp_path):
    client, _ = pair
    other = FHEModelServer(Deployment(tmp_path, seed=5).folder / "seq.0")
    request = client.quantize_encrypt_serialize(numpy.ones(10))
    with pytest.raises(HemiConflictError):
        other.run(request, client.get_serialized_evaluation_keys())


def test_another_key_does_not_decrypt(module_folder, pair, small):
    client, server = pair
    other = FHEModelClient(module_folder)
    x = numpy.ones(10, dtype=numpy.float32)
    request = client.quantize_encrypt_serialize(x)
    other.quantize_encrypt_serialize(x)
    reply = server.run(request, client.get_serialized_evaluation_keys())
    wrong = other.deserialize_decrypt_dequantize(reply)
    assert numpy.abs(wrong - small.float.seq[0](torch.as_tensor(x)).detach().numpy()).max() > 1


def test_key_folder(module_folder, tmp_path, small):
    a = FHEModelClient(module_folder, key_dir=tmp_path / "keys")
    a.generate_private_and_evaluation_keys()
    files = {f.name: f.read_bytes() for f in (tmp_path / "keys").iterdir()}
    assert files and all(f.stat().st_mode & 0o077 == 0 for f in (tmp_path / "keys").iterdir())
    b = FHEModelClient(module_folder, key_dir=str(tmp_path / "keys"))
    server = FHEModelServer(module_folder)
    request = b.quantize_encrypt_serialize(numpy.ones(10))
    check(b.deserialize_decrypt(server.run(request, b.get_serialized_evaluation_keys())), small.float.seq[0], torch.ones(10))
    b.generate_private_and_evaluation_keys()
    assert {f.name: f.read_bytes() for f in (tmp_path / "keys").iterdir()} == files
    b.generate_private_and_evaluation_keys(force=True)
    assert {f.name: f.read_bytes() for f in (tmp_path / "keys").iterdir()} != files


def test_keys_are_the_same_within_a_process(pair):
    client, _ = pair
    keys = client.get_serialized_evaluation_keys()
    assert client.get_serialized_evaluation_keys() == keys
    assert len(keys) < 60000  # 10 x 10: only the public key
    client.generate_private_and_evaluation_keys(force=True)
    assert client.get_serialized_evaluation_keys() != keys


def test_missing_files(tmp_path):
    for make in (FHEModelClient, FHEModelServer):
        for folder in (tmp_path, tmp_path / "nothing"):
            with pytest.raises(HemiError) as raised:
                make(folder)
            assert str(tmp_path.name) in str(raised.value)


def test_damaged_files(small, tmp_path):
    for name, make in (("client.zip", FHEModelClient), ("server.zip", FHEModelServer)):
        data = (small.folder / "seq.0" / "po_1_10_pc" / name).read_bytes()
        for i, damaged in enumerate([b"", data[: len(data) // 2], data[:-30] + bytes(30), data.replace(b"linear", b"kernel")]):
            folder = tmp_path / f"{name}-{i}"
            folder.mkdir()
            (folder / name).write_bytes(damaged)
            with pytest.raises(HemiError):
                make(folder)


def test_client_is_not_copied(pair):
    client, _ = pair
    client.quantize_encrypt_serialize(numpy.ones(10))
    for secret in (client, client._keys, next(iter(client._pending.values()))[0]):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                attempt(secret)


def test_server_from_threads(module_folder, small):
    server, wrong = FHEModelServer(module_folder), []

    def call():
        try:
            client = FHEModelClient(module_folder)
            keys = client.get_serialized_evaluation_keys()
            for _ in range(5):
                x = torch.randn(2, 10)
                request = client.quantize_encrypt_serialize(x)
                check(client.deserialize_decrypt_dequantize(server.run(request, keys), request=request), small.float.seq[0], x)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_caches_are_bounded(pair, module_folder):
    client, server = pair
    for _ in range(20):
        client.generate_private_and_evaluation_keys(force=True)
        server.run(client.quantize_encrypt_serialize(numpy.ones(10)), client.get_serialized_evaluation_keys())
    assert len(server._keys) == fhe_client_server.KEYS_HELD < 20
    for _ in range(fhe_client_server.PENDING_HELD + 5):
        client.quantize_encrypt_serialize(numpy.ones(10))
    assert len(client._pending) == fhe_client_server.PENDING_HELD


def test_dev(model, tmp_path):
    x = torch.randn(50, 10)
    hybrid = HybridFHEModel(model, "seq.0")
    with pytest.raises(HemiStateError, match="compile_model"):
        FHEModelDev(tmp_path / "a", hybrid.remote_modules["seq.0"])
    with pytest.raises(TypeError):
        FHEModelDev(tmp_path / "a", object())
    hybrid.compile_model(x)
    compiled = (hybrid.private_q_modules["seq.0"], hybrid.remote_modules["seq.0"], compile_torch_model(hybrid.private_modules["seq.0"], x))
    for i, module in enumerate(compiled):
        for _ in range(2):  # safe to repeat
            FHEModelDev(str(tmp_path / str(i)), module).save(via_mlir=True)
        client, server = FHEModelClient(tmp_path / str(i)), FHEModelServer(tmp_path / str(i))
        request = client.quantize_encrypt_serialize(x[:3])
        result = client.deserialize_decrypt(server.run(request, client.get_serialized_evaluation_keys()))
        check(result, hybrid.private_modules["seq.0"], x[:3])
    with pytest.raises(ValueError):
        FHEModelDev(tmp_path / "b", compiled[0]).save(mode="training")


# ---- HybridFHEModelServer


@pytest.fixture
def served(small, tmp_path):
    return HybridFHEModelServer(tmp_path / "keys", small.models, logging.getLogger("hemi-test"))


def test_hybrid_server(served, small, tmp_path):
    names = ("model", "seq.0", "po_1_10_pc")
    assert served.list_modules("model") == {"seq.0": {"po_1_10_pc": {}}}
    assert served.list_shapes("model", "seq.0") == {"po_1_10_pc": {}}
    served.check_inputs(*names)
    served.check_inputs("model", None, None)
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "client.zip").write_bytes(served.get_client(*names))
    client = FHEModelClient(tmp_path / "client")
    uid = served.add_key(client.get_serialized_evaluation_keys(), *names)["uid"]
    assert served.load_key(uid) == client.get_serialized_evaluation_keys()
    x = torch.randn(3, 10)
    reply = served.compute(client.quantize_encrypt_serialize(x), uid, *names)
    check(client.deserialize_decrypt_dequantize(reply), small.float.seq[0], x)
    assert served.get_circuit(*names) is served.get_circuit(*names)
    later = HybridFHEModelServer(tmp_path / "keys", small.models, None)
    check(client.deserialize_decrypt_dequantize(later.compute(client.quantize_encrypt_serialize(x), uid, *names)), small.float.seq[0], x)


def test_hybrid_server_refuses_unknown_names(served):
    good = ("model", "seq.0", "po_1_10_pc")
    for i in range(3):
        for bad in ("", "..", ".", "../model", "/etc", "nothing", "model\0", "po_1_11_pc", "seq.0/po_1_10_pc"):
            names = list(good)
            names[i] = bad
            for method in (served.check_inputs, served.get_client, served.get_circuit):
                with pytest.raises(HemiNotFoundError) as raised:
                    method(*names)
                assert isinstance(raised.value, ValueError) and "/work" not in str(raised.value)
            with pytest.raises(HemiNotFoundError):
                served.compute(b"", "0" * 64, *names)


def test_hybrid_server_refuses_ids_that_are_paths(served, small, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    for uid in ("../secret", "/etc/passwd", "", "x" * 64, "0" * 63, "0" * 65, "0" * 64, "A" * 64, "0" * 64 + "\n"):
        with pytest.raises(HemiKeyError) as raised:
            served.load_key(uid)
        assert isinstance(raised.value, KeyError)
        if uid != "0" * 64:
            with pytest.raises(HemiKeyError):
                served.dump_key(b"", uid)


def test_hybrid_server_checks_keys(served):
    for wrong in (b"", b"keys", bytes(50000)):
        with pytest.raises(HemiError):
            served.add_key(wrong, "model", "seq.0", "po_1_10_pc")
    assert not served.key_path.exists()


# ---- exceptions


def test_exceptions_are_what_they_say():
    pairs = {
        errors.HemiArgumentError: ValueError,
        errors.HemiShapeError: ValueError,
        errors.HemiFormatError: ValueError,
        errors.HemiKeyError: KeyError,
        errors.HemiNotFoundError: LookupError,
        errors.HemiConnectionError: ConnectionError,
        errors.HemiIOError: OSError,
        errors.HemiMemoryError: MemoryError,
        errors.HemiStateError: RuntimeError,
        errors.HemiUnsupportedError: NotImplementedError,
    }
    for kind, builtin in pairs.items():
        error = kind("what was wrong")
        assert isinstance(error, builtin) and isinstance(error, HemiError)
        assert str(error) == "what was wrong" and error.status < 0
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind and str(again) == str(error) and again.status == error.status


def test_every_status_has_its_exception():
    from hemi_fhe import _native

    for status in range(-23, -1):
        name = _native.ffi.string(_native.lib.hemi_status_name(status)).decode()
        error = _native.error_of(status)
        assert error.status == status and str(error)
        if status != -18:  # a method of HTTP that is not allowed: no call here can give it
            assert type(error) is not HemiError, name
