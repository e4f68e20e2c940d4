"""Mutated SAE folders: from one number, always the same damage to a file of one format.

`python tests/helpers/mutate.py FIRST COUNT` tries COUNT of them, beginning with number FIRST, and prints each number
whose SAE neither works nor is refused with a SaeError.
"""

import faulthandler
import io
import json
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path

import foreign
import torch
from broken import CONFIG, WEIGHTS, check
from damage import damage
from tiny import sae_config, write_sae

ODD = (
    None,
    True,
    0,
    -1,
    1,
    2,
    5,
    16,
    40,
    10**6,
    2**31,
    2**63,
    10**30,
    0.5,
    -1.5,
    1e300,
    "",
    "none",
    "topk",
    [],
    [[]],
    {},
)

DTYPES = ("F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E5M2", "I8", "I32", "I64", "U8", "U16", "BOOL", "C64", "F4", "")


def originals(folder: Path) -> list[tuple[str, Path]]:
    """(format, folder) of SAEs that work, several kinds of some formats."""
    made = []
    for kind in ("jumprelu", "standard"):
        made.append(("SAELens", write_sae(folder / f"saelens {kind}", kind, "none", dtype=torch.bfloat16)))
    topk = write_sae(folder / "saelens topk", "standard", "layer_norm")
    config = sae_config("topk", "layer_norm") | {"k": 5, "rescale_acts_by_decoder_norm": True}
    foreign.write_json(topk / "cfg.json", config)
    scaled = write_sae(folder / "saelens scaled", "standard", "expected_average_only_in", old=True)
    foreign.write_json(scaled / "activation_scaler.json", {"scaling_factor": 0.5})
    made += [("SAELens", topk), ("SAELens", scaled)]
    for kind in ("AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK", "MatryoshkaBatchTopKSAE"):
        foreign.write_dictionary(folder / kind, kind)
        made.append(("dictionary_learning", folder / kind))
    for number, changes in enumerate(({}, {"act_fn": "topk", "sparsity_include_decoder_norm": True})):
        foreign.write_llama_scope(folder / f"llama {number}", **changes)
        made.append(("Llama Scope", folder / f"llama {number}"))
    for format, writer in (
        ("Gemma Scope", foreign.write_gemma_scope),
        ("Gemma Scope 2", foreign.write_gemma_scope_2),
        ("sparsify", foreign.write_sparsify),
        ("Llama Scope R1", foreign.write_llama_scope_r1),
        ("Qwen-Scope", foreign.write_qwen_scope),
        ("Goodfire", foreign.write_goodfire),
        ("attn-saes", foreign.write_attn_saes),
    ):
        writer(folder / format)
        made.append((format, folder / format))
    return made


# ---- damage to bytes


def damage_archive(rng: random.Random, content: bytes) -> bytes:
    """A member changed before it is packed, so that its checksum is right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    tree = [i for i, (name, _) in enumerate(members) if name.endswith(("data.pkl", ".npy"))]
    chosen = rng.choice(tree) if rng.random() < 0.8 else rng.randrange(len(members))
    name, member = members[chosen]
    how = rng.random()
    if how < 0.85:
        members[chosen] = (name, damage(rng, member))
    elif how < 0.95:
        members[chosen] = (name, rng.choice(members)[1])
    else:
        del members[chosen]
    packed = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(packed, "w", kind) as archive:
        for name, member in members:
            archive.writestr(name, member)
    return packed.getvalue()


def damage_header(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(sorted(header))
        about = header[name]
        how = rng.randrange(6) if "shape" in about else 5
        if how == 0:
            about["dtype"] = rng.choice(DTYPES)
        elif how == 1:
            about["shape"] = rng.choice((about["shape"][::-1], [*about["shape"], 1], about["shape"][:-1], [2**62, 4]))
        elif how == 2 and about["shape"]:
            about["shape"][rng.randrange(len(about["shape"]))] = rng.choice((0, 1, 2, 16, 40, 41, 2**40, -1))
        elif how == 3:
            about["data_offsets"][rng.randrange(2)] = rng.choice((0, 1, 64, 2560, 2**40, 2**64, -4))
        elif how == 4:
            header[rng.choice(sorted(header))] = about
        else:
            header[rng.choice(("W_enc", "b_dec", "__metadata__", "", "scaling_factor", "\x1b"))] = header.pop(name)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) + rng.choice((0, 0, 0, 0, 1, -1))) + text + content[8 + length :]


def damage_json(rng: random.Random, content: bytes) -> bytes:
    """A configuration whose values are others, or each other's."""
    raw = json.loads(content)
    holders = [raw, *(value for value in raw.values() if isinstance(value, dict))]
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder = rng.choice([holder for holder in holders if holder])
        key, other = rng.choice(sorted(holder)), rng.choice(sorted(holder))
        how = rng.randrange(4)
        if how == 0:
            holder[key], holder[other] = holder[other], holder[key]
        elif how == 1:
            holder.pop(key)
            if not holder:
                break
        else:
            holder[key] = rng.choice(ODD)
    return json.dumps(raw).encode()


def mutate(number: int, made: list[tuple[str, Path]], folder: Path) -> str:
    """Copies one of the originals to `folder` with the damage of this number; says what was done."""
    rng = random.Random(number)
    format, original = rng.choice(made)
    shutil.rmtree(folder, ignore_errors=True)  # never written over: a mapped file must not change
    shutil.copytree(original, folder)
    target = WEIGHTS[format] if rng.random() < 0.65 or format not in CONFIG else CONFIG[format]
    if (folder / "activation_scaler.json").exists() and rng.random() < 0.3:
        target = "activation_scaler.json"
    path = folder / target
    content = path.read_bytes()
    special = {
        ".safetensors": damage_header,
        ".npz": damage_archive,
        ".pt": damage_archive,
        ".pth": damage_archive,
        ".json": damage_json,
    }
    by = special[path.suffix] if rng.random() < 0.6 else damage
    changed = by(rng, content)
    if rng.random() < 0.1:
        changed = damage(rng, changed)
    if rng.random() < 0.02:
        other_format, other = rng.choice(made)
        changed = (other / WEIGHTS[other_format]).read_bytes()
    path.unlink()
    path.write_bytes(changed)
    return f"{original.name}: {by.__name__} of {target}"


def try_numbers(numbers: range, folder: Path) -> tuple[int, list[str]]:
    """(how many still worked, the failures in words), each of which names its number."""
    made = originals(folder / "originals")
    worked, failures = 0, []
    for number in numbers:
        (folder / "number").write_text(str(number))
        what = mutate(number, made, folder / f"mutated {foreign.QWEN_NAME}")
        start = time.process_time()
        try:
            worked += check(folder / f"mutated {foreign.QWEN_NAME}")
        except Exception:
            failures.append(f"number {number} ({what}):\n{traceback.format_exc()}")
        if (took := time.process_time() - start) > 2:
            failures.append(f"number {number} ({what}) took {took:.1f} s")
    return worked, failures


if __name__ == "__main__":
    faulthandler.enable()
    torch.set_num_threads(1)
    first, count = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as place:
        print("in", place, "where the file `number` says which one is tried", flush=True)
        try_numbers(range(1), Path(place))
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, -1))
        shutil.rmtree(Path(place) / "originals")
        begun = time.monotonic()
        worked, failures = try_numbers(range(first, first + count), Path(place))
    print(*failures, sep="\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{count} tried in {time.monotonic() - begun:.0f} s, {worked} worked, {len(failures)} failed; peak {peak} MiB"
    )
