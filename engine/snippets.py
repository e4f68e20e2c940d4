"""What the app shows, as something to run without it: a saescope command line, and a script on nnsight alone.

Writes text; knows nothing about torch.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence

from engine.records import Edit, Load, Loaded, Sampling

WIDTH = 110


def command_line(load: Load, question: str, raw: bool, edits: Sequence[Edit], sampling: Sampling) -> str:
    """The `saescope generate` command that does the same, quoted for a shell. What is as by default is left out."""
    usual = Sampling()
    options = [(name, getattr(load, name)) for name in Load.__struct_fields__]
    # repr: the shortest digits that read back as the same number
    options += [("ablate", e.feature) if e.strength == 0 else ("scale", f"{e.feature}={e.strength!r}") for e in edits]
    options += [(name, x) for name, x in _fields(sampling) if x != getattr(usual, name)]
    words = ["--raw"] * raw + ["--compare"] * bool(edits)
    words += [word for name, value in options if value is not None for word in _option(name, str(value))]
    # behind "--" nothing is taken for an option
    words += ["--", question] if question.startswith("-") else [question]
    return shlex.join(["saescope", "generate", *words])


def _fields(sampling: Sampling) -> list[tuple[str, int | float]]:
    return [(name, getattr(sampling, name)) for name in Sampling.__struct_fields__]


def _option(name: str, value: str) -> list[str]:
    """One option as words; a value that looks like an option itself is tied to its name."""
    flag = f"--{name.replace('_', '-')}"
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


INPUTS = {
    "none": "u, x = 1.0, h",
    "constant_norm_rescale": """\
u = h.norm(dim=-1, keepdim=True) / h.shape[-1] ** 0.5  # this SAE reads vectors of norm sqrt(d_model)
    x = h / u.clamp(min=1e-12)""",
    "layer_norm": """\
u = h.std(-1, keepdim=True)  # this SAE reads vectors of mean 0 and standard deviation 1
    x = (h - h.mean(-1, keepdim=True)) / (u + 1e-5)""",
}
"""How a vector h becomes the SAE's input x, per normalisation; u is the scale that was taken away."""

SCRIPT = """\
# Edits features of a SAE at the {hook}: f becomes factor * f, the SAE's error stays.
# Needs: pip install {packages}
{imports}import torch
from nnsight import NNsight
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

MODEL = {model}
SAE = {sae}
QUESTION = {question}
{edits}

tokenizer = AutoTokenizer.from_pretrained(MODEL)
module = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.{dtype}).to({device!r}).eval()
net = NNsight(module)

{sae_weights}


def edited(value, ids):  # the hooked vectors, one a token, with the change of each feature added
{other_outputs}    h = value.float()
    {activations}
    allowed = ids != bos  # the leading special token is never edited
    {sinks}
    return (h + allowed[..., None] * u * ((f * gain) @ w_dec)).to(value.dtype)


{prompt}
ids = tokenizer(text, add_special_tokens=False)["input_ids"]
bos = -1 if tokenizer.bos_token_id is None else tokenizer.bos_token_id
ids = [bos, *ids] if bos >= 0 and ids[:1] != [bos] else ids  # exactly one leading special token
stop = module.generation_config.eos_token_id
ends = {{tokenizer.eos_token_id, *(stop if isinstance(stop, list) else [stop])}}
cache, new, step = DynamicCache(config=module.config), [], torch.tensor([ids], device={device!r})
node = net.get({path!r})
while len(new) < {max_tokens} and not ends & set(new):  # the likeliest token each time
    with torch.inference_mode(), net.trace(input_ids=step, past_key_values=cache, use_cache=True):
        {put}
        logits = net.output.logits.save()
    step = logits[:, -1:].float().argmax(-1)
    new.append(int(step))
print(tokenizer.decode(new, skip_special_tokens=True))
"""


WEIGHTS = """\
# The SAE (SAELens format): encoder columns and decoder rows of the edited features, in float32
config = json.loads((SAE / "cfg.json").read_text("utf-8"))
weights = load_file(SAE / "sae_weights.safetensors", {device!r})
features = torch.tensor(list(EDITS), dtype=torch.long, device={device!r})
gain = torch.tensor([factor - 1 for factor in EDITS.values()], device={device!r})
w_enc, w_dec = weights["W_enc"][:, features].float(), weights["W_dec"][features].float()
bias = weights["b_enc"][features].float()
threshold = weights["threshold"][features].float().clamp(min=0) if "threshold" in weights else 0.0
subtracts = {{**config, **config.get("metadata", {{}})}}.get("apply_b_dec_to_input")
if subtracts is None or subtracts:  # where nothing is said, it is done
    bias = bias - weights["b_dec"].float() @ w_enc  # the encoder reads x - b_dec"""
ACTIVATIONS = """\
{inputs}
    z = x @ w_enc + bias
    f = z * (z > threshold)"""

LIBRARY_WEIGHTS = """\
# The SAE, by saescope: its format, normalisation or encoder takes more than a few lines
sae = read_sae(finish(locate(SAE)), torch.device({device!r}))
columns = sae.columns(list(EDITS))
gain = torch.tensor([factor - 1 for factor in EDITS.values()], device={device!r})
w_dec = columns.w_dec_KD"""
LIBRARY_ACTIVATIONS = """\
scaled = sae.normalise(h)
    u, f = scaled.u_T1, sae.encode_features(scaled.x_TD, columns)"""

IMPORTS = """\
import json
from pathlib import Path

{demo}from safetensors.torch import load_file
"""
LIBRARY_IMPORTS = """\
{demo}from engine.demo.model import finish  # saescope's
from engine.loading import read_sae
from engine.sources.saes import locate
"""


def is_plain(loaded: Loaded, load: Load) -> bool:
    """Whether a few lines of torch can read this SAE: SAELens' files in a folder, relu or jumprelu."""
    local = load.sae is None or load.sae.startswith(("/", "~", ".")) or not load.sae.count("/")
    simple = loaded.encoder in ("standard", "jumprelu") and loaded.normalisation in INPUTS
    return local and simple and loaded.sae_format in ("SAELens", "") and not (loaded.centered or loaded.rescaled)


def nnsight_snippet(
    loaded: Loaded,
    load: Load,
    edits: Sequence[Edit],
    question: str,
    raw: bool,
    max_tokens: int,
    sink_norm: float | None = None,
) -> str:
    """A Python script that reproduces the edited text, greedily, with transformers, nnsight and safetensors.

    A SAE that takes more than a few lines to read is read by saescope in it.
    `sink_norm`, in the model's units, is the norm above which a vector counts as an attention sink; None leaves that
    mask out of the script.
    """
    side, _, path = loaded.hook_module.partition(" of ")
    # a local version such as 2.13.0+cu129 is not on the package index
    versions = {name: version.partition("+")[0] for name, version in loaded.versions.items()}
    plain = is_plain(loaded, load)
    inputs = INPUTS.get(loaded.normalisation, "")
    packages = PACKAGES if plain else ("saescope", *PACKAGES)
    demo = "" if load.model and load.sae else DEMO
    return SCRIPT.format(
        hook=loaded.hook_module,  # a module's path: nothing that could end a comment
        packages=" ".join(f"{name}=={versions[name]}" if name in versions else name for name in packages),
        imports=(IMPORTS if plain else LIBRARY_IMPORTS).format(demo=demo),
        sae_weights=(WEIGHTS if plain else LIBRARY_WEIGHTS).format(device=loaded.device),
        activations=ACTIVATIONS.format(inputs=inputs) if plain else LIBRARY_ACTIVATIONS,
        # in place where the block goes on with the vector itself, past the module that is hooked
        put=f"node.{side}[:] = edited(node.{side}, step)"
        if side == "input"
        else f"node.{side} = edited(node.{side}, step)",
        model=f"demo.converted_folder(torch.{loaded.dtype})" if load.model is None else _literal(load.model),
        sae=_sae_path(load, plain),
        question=_literal(question),
        edits=_edits(edits),
        dtype=loaded.dtype,
        device=loaded.device,
        other_outputs=OTHER_OUTPUTS if side == "output" else "",
        sinks=SINKS_UNKNOWN if sink_norm is None else SINKS.format(norm=sink_norm),
        prompt="text = QUESTION" if raw else CHAT,
        path=path,
        max_tokens=max_tokens,
    )


PACKAGES = ("torch", "transformers", "nnsight", "safetensors")
DEMO = "import engine.demo.model as demo  # saescope's, only to find the files of its packaged demo\n"
DEMO_SAE = 'Path(demo.__file__).parent / "sae"'
OTHER_OUTPUTS = """\
    if isinstance(value, tuple):  # some blocks put out more than the vectors
        return (edited(value[0], ids), *value[1:])
"""
CHAT = """\
messages = [{"role": "user", "content": QUESTION}]
text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)"""
SINKS = "allowed &= h.norm(dim=-1) <= {norm!r}  # nor attention sinks"
SINKS_UNKNOWN = "# saescope also leaves attention sinks, vectors of an outlying norm, alone; this script may edit them"


def _sae_path(load: Load, plain: bool) -> str:
    """Where the SAE is, as an expression."""
    if load.sae is None:
        return DEMO_SAE if plain else f"str({DEMO_SAE})"
    return f"Path({_literal(load.sae)}).expanduser()" if plain else _literal(load.sae)


def _literal(text: str) -> str:
    """A Python string on one line."""
    return repr(text)


def _edits(edits: Sequence[Edit]) -> str:
    """The edits as a dict from feature to factor, over several lines where one is too short."""
    items = [f"{edit.feature}: {edit.strength!r}" for edit in edits]
    line = f"EDITS = {{{', '.join(items)}}}  # feature: factor, 0 ablates"
    if len(line) <= WIDTH:
        return line
    body = textwrap.fill(", ".join(items) + ",", WIDTH, initial_indent="    ", subsequent_indent="    ")
    return f"EDITS = {{  # feature: factor, 0 ablates\n{body}\n}}"
