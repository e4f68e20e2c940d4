"""Broken, hostile and wrong SAE folders: an error with a remedy, no crash, nothing run, bounded memory and time."""

import contextlib
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import foreign
import numpy as np
import pytest
import torch
from broken import CONFIG, WEIGHTS, WRITERS, check, refused, rewrite, tensors_of
from tiny import D_MODEL, D_SAE, write_sae

from engine.loading import formats
from engine.loading.formats import load_sae
from engine.records import Failed, Load, Loaded
from engine.serving.client import ask
from engine.serving.local import LocalClient


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """(format, folder) of a SAE that works, in each format."""
    folder = tmp_path / f"a SAE, or {foreign.QWEN_NAME}"
    WRITERS[request.param](folder)
    return request.param, folder


OF_THEIR_OWN = (
    ("dictionary_learning", "threshold"),
    ("Llama Scope R1", f"dataset_average_activation_norm.{foreign.R1_HOOK}"),
)
"""Tensors that need not be there, or whose fault is said in words of their own."""

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
with_configuration = pytest.mark.parametrize("written", CONFIG, indirect=True)

# ---- weights


def test_a_truncated_weight_file_is_named(written):
    format, folder = written
    path = folder / WEIGHTS[format]
    whole = path.read_bytes()
    for size in [0, 1, 7, 8, 9, 30, 100, 400, *range(500, len(whole), 97), len(whole) - 1]:
        path.unlink()
        path.write_bytes(whole[:size])
        assert path.name in refused(folder, "cannot be read|was not opened|has no tensor").message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(written, bad):
    format, folder = written
    path = folder / WEIGHTS[format]
    tensors = tensors_of(format, path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and (format, name) not in OF_THEIR_OWN:
            broken = tensor.clone()
            broken.view(-1)[-1] = bad
            rewrite(format, path, tensors | {name: broken})
            refused(folder, "holds NaN or infinite numbers")


def test_weights_of_the_wrong_shape_are_named(written):
    format, folder = written
    path = folder / WEIGHTS[format]
    tensors = tensors_of(format, path)
    for name, tensor in tensors.items():
        if tensor.ndim == 0:
            continue
        for shape in [
            (),
            (1,),
            (0,),
            (D_MODEL + 1,),
            (D_SAE + 1,),
            (3, 3),
            (1, 1, 1),
            (D_SAE, D_MODEL, 1),
            (0, D_MODEL),
        ]:
            rewrite(format, path, tensors | {name: torch.zeros(shape)})
            refused(folder, "shape|d_model")


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        (format, dtype)
        for format in WRITERS
        for dtype in (torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64, *FLOAT8)
        if format != "Gemma Scope" or dtype not in FLOAT8  # numpy has none
    ],
    indirect=["written"],
    ids=str,
)
def test_weights_of_the_wrong_dtype_are_named(written, dtype):
    format, folder = written
    path = folder / WEIGHTS[format]
    tensors = tensors_of(format, path)
    for name, tensor in tensors.items():
        if tensor.ndim > 0 and tensor.is_floating_point():
            rewrite(format, path, tensors | {name: tensor.to(dtype)})
            refused(folder, re.escape(str(dtype)))


def test_missing_and_strange_tensors_are_named(written):
    format, folder = written
    path = folder / WEIGHTS[format]
    tensors = tensors_of(format, path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and (format, name) not in OF_THEIR_OWN:
            rewrite(format, path, {other: tensor for other, tensor in tensors.items() if other != name})
            refused(folder, "has no tensor")
    rewrite(format, path, {f"layer.{i}": torch.zeros(2) for i in range(500)} | {"\x1b[2J": torch.zeros(2)})
    assert "\x1b" not in refused(folder, "has no tensor").message
    rewrite(format, path, {})
    refused(folder, "has no tensor")


def test_further_tensors_do_no_harm_whatever_they_are(written):
    format, folder = written
    path = folder / WEIGHTS[format]
    more = {"n": torch.tensor(3), "log_sparsity": torch.full((D_SAE,), -torch.inf), "mask": torch.ones(2).bool()}
    rewrite(format, path, tensors_of(format, path) | more)
    assert load_sae(folder).d_sae == D_SAE


def header(claimed, payload=b""):
    """A safetensors file of a header and what follows."""
    text = json.dumps(claimed).encode()
    return struct.pack("<Q", len(text)) + text + payload


@pytest.mark.parametrize(
    "content",
    [
        header(
            {"W_enc": {"dtype": "F32", "shape": [50_000, 500_000], "data_offsets": [0, 100_000_000_000]}}, b"0" * 64
        ),
        header({"W_enc": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}, b"0" * 63),
        header({"W_enc": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 64]}}, b"0" * 64),
        header({"W_enc": {"dtype": "F32", "shape": [-4, 4], "data_offsets": [64, 0]}}, b"0" * 64),
        header({"W_enc": {"dtype": "F4", "shape": [4, 4], "data_offsets": [0, 64]}}, b"0" * 64),
        struct.pack("<Q", 100_000_000_000) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        struct.pack("<Q", 90_000) + b"[" * 90_000,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 134217728\n",
        b"<!DOCTYPE html><html><title>404</title></html>",
    ],
    ids=[
        "100 GB",
        "a byte short",
        "overflow",
        "negative",
        "unknown dtype",
        "header 100 GB",
        "header 2^64",
        "deep",
        "lfs",
        "html",
    ],
)
def test_a_safetensors_header_that_lies_is_refused_at_once(tmp_path, content):
    write_sae(tmp_path)
    (tmp_path / "sae_weights.safetensors").unlink()
    (tmp_path / "sae_weights.safetensors").write_bytes(content)
    error = refused(tmp_path, "sae_weights.safetensors cannot be read", seconds=1)
    if b"git-lfs" in content:
        assert "git lfs pull" in error.remedy


# ---- archives and pickles


def npy(shape, dtype="<f4", payload=b"", version=(1, 0)):
    """A numpy file that claims this shape."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + payload


def write_npz(folder, **members):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "params.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


GOOD = {name: npy(tuple(t.shape), payload=t.numpy().tobytes()) for name, t in foreign.gemma_weights().items()}


def test_a_plain_archive_of_numpy_files_is_read(tmp_path):
    write_npz(tmp_path, **GOOD)
    assert load_sae(tmp_path).d_sae == D_SAE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy((50_000, 500_000)), "claims shape"),
        (npy((2**40, 2**40)), "claims shape"),
        (npy((-5, -5), payload=b"0" * 100), "claims shape"),
        (npy((D_MODEL, D_SAE), payload=b"0" * 100), "claims shape"),
        (npy((2,), dtype="|O", payload=pickle.dumps([1, 2])), "Object arrays"),
        (npy((2,), dtype="|O", payload=b"x" * 100), "Object arrays"),
        (npy((D_MODEL, D_SAE), dtype=">f4", payload=b"0" * 4 * D_MODEL * D_SAE), "byte"),
        (npy((D_MODEL, D_SAE), dtype="<U1", payload=b"0" * 4 * D_MODEL * D_SAE), "type"),
        (npy((2,), payload=b"0" * 8, version=(9, 9)), "version"),
        (npy((2,), dtype="__import__('os').system('false')", payload=b"0" * 8), ""),
        (b"", ""),
        (b"\x00" * 5_000_000, "claims to unpack"),
    ],
    ids=[
        "100 GB",
        "overflow",
        "negative",
        "too large",
        "objects",
        "rubbish objects",
        "big-endian",
        "text",
        "version",
        "code",
        "empty",
        "bomb",
    ],
)
def test_a_numpy_archive_that_lies_is_refused_at_once(tmp_path, content, reason):
    write_npz(tmp_path, **(GOOD | {"W_enc": content}))
    refused(tmp_path, f"params.npz cannot be read: .*{reason}", seconds=1)


def test_an_object_array_runs_nothing(tmp_path):
    canary = tmp_path / "canary"
    np.savez(tmp_path / "params.npz", W_enc=np.array([Evil(canary)], dtype=object))
    refused(tmp_path, "Object arrays")
    assert not canary.exists()


def test_a_zip_that_overlaps_itself_is_refused(tmp_path):
    """Many names for one compressed member: small on disk, large when read."""
    write_npz(tmp_path, **GOOD, more=b"\x00" * 900_000)
    whole = (tmp_path / "params.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "params.npz") as archive:
        start = archive.start_dir
    entries, end = whole[start:-22], whole[-22:]
    count, many = len(GOOD) + 1, 60
    end = end[:8] + struct.pack("<HHL", count * many, count * many, len(entries) * many) + end[16:]
    (tmp_path / "params.npz").write_bytes(whole[:start] + entries * many + end)
    refused(tmp_path, "claims to unpack")


class Evil:
    """What a pickle of it would run."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch '{self.canary}'",)


@pytest.mark.parametrize("how", ["torch", "torch, old layout", "pickle", "beside the weights"])
def test_an_evil_pickle_is_not_run(tmp_path, how):
    foreign.write_dictionary(tmp_path)
    canary, path = tmp_path / "canary", tmp_path / "ae.pt"
    state = torch.load(path, weights_only=True)
    path.unlink()
    if how == "pickle":
        path.write_bytes(pickle.dumps(Evil(canary)))
    else:
        content = state | {"extra": Evil(canary)} if how == "beside the weights" else Evil(canary)
        torch.save(content, path, _use_new_zipfile_serialization=how != "torch, old layout")
    error = refused(tmp_path, r"ae\.pt")
    assert not canary.exists()
    assert "weights_only=False" not in error.message + error.remedy
    if how in ("torch", "beside the weights"):  # the others are not even archives
        assert "could run code" in error.message
    with contextlib.suppress(Exception):  # without care it would have run
        torch.load(path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(2)], torch.zeros(2), 3, "W_enc", None, {}, {"W_enc": "a"}, {3: torch.zeros(2)}],
    ids=["list", "tensor", "number", "text", "none", "empty", "no tensor", "number as name"],
)
def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path, content):
    foreign.write_dictionary(tmp_path)
    torch.save(content, tmp_path / "ae.pt")
    refused(tmp_path, "not named tensors|has no tensor")


def test_tensors_larger_than_what_stores_them_are_refused_at_once(tmp_path):
    foreign.write_dictionary(tmp_path, "BatchTopKSAE")
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    endless = torch.zeros(1).expand(1_000_000, 1_000_000)
    for name in ("encoder.weight", "decoder.weight", "encoder.bias", "threshold"):
        torch.save(state | {name: endless}, tmp_path / "ae.pt")
        refused(tmp_path, "has no tensor", seconds=1)
    for odd in (torch.eye(3).to_sparse(), torch.zeros(2, 2, device="meta")):
        torch.save(state | {"encoder.weight": odd}, tmp_path / "ae.pt")
        refused(tmp_path)


# ---- configurations

ODD = [
    None,
    True,
    False,
    0,
    -1,
    10**6,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "x" * 10_000,
    "\ud800",
    "\x1b[2J\n",
    [],
    [1],
    {},
    {"k": 5},
    {"in": 10**400},
    {"in": "x"},
    [[[[{}]]]],
]


@with_configuration
def test_every_key_may_hold_anything(written):
    """Each key of each configuration, with every odd value: an error or a SAE that works."""
    format, folder = written
    path = folder / CONFIG[format]
    raw = json.loads(path.read_text("utf-8"))
    places = [(raw, key) for key in (*raw, "unheard of")] + [
        (inner, key) for inner in raw.values() if isinstance(inner, dict) for key in inner
    ]
    for holder, key in places:
        before = holder.get(key)
        for odd in ODD:
            holder[key] = odd
            path.write_text(json.dumps(raw), "utf-8")
            check(folder)
        holder[key] = before
    for odd in ODD:
        path.write_text(json.dumps(odd), "utf-8")
        if not isinstance(odd, dict):
            refused(folder, "should hold a JSON object|cannot be read")
        else:
            check(folder)


@with_configuration
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"k": 5,}',
        "[]",
        "3",
        '"cfg"',
        "null",
        "NaN",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"k": ' + "9" * 10_000 + "}",
        '{"k": "\\ud800"}',
        "\x00\xff",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_a_broken_configuration_is_named(written, text):
    format, folder = written
    (folder / CONFIG[format]).write_text(text, "utf-8")
    assert CONFIG[format] in refused(folder).message


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{\x00}\x00", b"\x80abc", b"\xef\xbb\xbf{}"], ids=["utf-16", "latin", "bom"]
)
def test_a_configuration_in_another_encoding_is_named(tmp_path, content):
    (write_sae(tmp_path) / "cfg.json").write_bytes(content)
    refused(tmp_path, "cfg.json")


def test_a_huge_configuration_is_not_read(tmp_path):
    with (write_sae(tmp_path) / "cfg.json").open("r+b") as file:
        file.truncate(100 << 30)  # sparse: it takes no space
    refused(tmp_path, "too large for a configuration", seconds=1)


# ---- memory, and the engine


LIMITED = """
import resource, sys
from pathlib import Path
from engine.loading.formats import load_sae
from engine.records.errors import SaeError
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), -1))
for folder in sys.argv[1:]:
    try:
        load_sae(Path(folder))
        print("read", folder)
    except SaeError as error:
        print("refused", error.message)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits a process' memory so")
def test_what_claims_to_be_huge_is_refused_in_little_memory(tmp_path):
    write_npz(tmp_path / "shape", **(GOOD | {"W_enc": npy((50_000, 500_000))}))
    write_npz(tmp_path / "bomb", **(GOOD | {"W_enc": npy((25_000_000,), payload=bytes(100_000_000))}))
    write_sae(tmp_path / "header")
    lie = {"W_enc": {"dtype": "F32", "shape": [50_000, 500_000], "data_offsets": [0, 10**11]}}
    (tmp_path / "header" / "sae_weights.safetensors").write_bytes(header(lie))
    foreign.write_dictionary(tmp_path / "endless", "BatchTopKSAE")
    state = torch.load(tmp_path / "endless" / "ae.pt", weights_only=True)
    torch.save(state | {"encoder.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "endless" / "ae.pt")
    write_sae(tmp_path / "deep")
    (tmp_path / "deep" / "cfg.json").write_text("[" * 16_000_000)
    folders = ["shape", "bomb", "header", "endless", "deep"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in folders)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(formats.__file__).parents[3],
    )
    *lines, _ = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in lines] == ["refused"] * len(folders)


def test_the_engine_outlives_broken_saes(tmp_path, files, load):
    client = LocalClient()
    for number, format in enumerate(WRITERS):
        folder = tmp_path / str(number)
        WRITERS[format](folder)
        (folder / WEIGHTS[format]).unlink()
        (folder / WEIGHTS[format]).write_bytes(b"PK\x03\x04 rubbish" * 20)
        events = list(client.stream(Load(model=files.model, sae=str(folder), device="cpu", dtype="float32")))
        assert isinstance(events[-1], Failed) and WEIGHTS[format] in events[-1].message and events[-1].remedy
    assert ask(client, load, Loaded).d_sae == D_SAE
