"""The text templates from which nnsight_script.py builds a script on nnsight; nothing else."""

from __future__ import annotations

from engine.records import Positions

SCRIPT = """\
# Edits features of a SAE at the {hook}; the text is the likeliest token each time.
{notes}# Needs: pip install {packages}
{imports}import torch
from nnsight import NNsight
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

MODEL = {model}
SAE = {sae}
QUESTION = {question}
{prefill}{stop}{edits}

tokenizer = AutoTokenizer.from_pretrained(MODEL)
module = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.{dtype}).to({device!r}).eval()
net = NNsight(module)

{sae_weights}
{amounts}{units}

def edited(value, ids):  # the hooked vectors, one a token, with the change of each feature added
{other_outputs}    h = value.float()
    {activations}
    allowed = ids != bos  # the leading special token is never edited
    {sinks}
{where}{change}    return out.to(value.dtype)

{stopped}
{prompt}
ids = tokenizer(text, add_special_tokens=False)["input_ids"]
bos = -1 if tokenizer.bos_token_id is None else tokenizer.bos_token_id
ids = [bos, *ids] if {puts_bos} and bos >= 0 and ids[:1] != [bos] else ids  # as saescope feeds such prompts
stop = module.generation_config.eos_token_id
ends = {{tokenizer.eos_token_id, *(stop if isinstance(stop, list) else [stop])}}
cache, new, step = DynamicCache(config=module.config), [], torch.tensor([ids], device={device!r})
node = net.get({path!r})
while len(new) < {max_tokens} and not ends & set(new){unless}:
    with torch.inference_mode(), net.trace(input_ids=step, past_key_values=cache, use_cache=True):
        {put}
        logits = net.output.logits.save()
    step = logits[:, -1:].float().argmax(-1)
    new.append(int(step))
print(tokenizer.decode(new, skip_special_tokens=True))
"""

PACKAGES = ("torch", "transformers", "nnsight", "safetensors")

IMPORTS = """\
import json
from pathlib import Path

{demo}from safetensors.torch import load_file
"""

LIBRARY_IMPORTS = """\
{demo}from engine.loading.scripts import read_sae  # saescope's
"""

DEMO = "from engine.loading.scripts import demo_model, demo_sae  # saescope's, only to find its packaged demo\n"

DEMO_SAE = "demo_sae()"

# ---- the SAE

INPUTS = {
    "none": "u, x = 1.0, h",
    "constant_norm_rescale": """\
u = h.norm(dim=-1, keepdim=True) / h.shape[-1] ** 0.5  # this SAE reads vectors of norm sqrt(d_model)
    x = h / u.clamp(min=1e-12)""",
    "layer_norm": """\
u = h.std(-1, keepdim=True)  # this SAE reads vectors of mean 0 and standard deviation 1
    x = (h - h.mean(-1, keepdim=True)) / (u + 1e-5)""",
}
"""How a vector h becomes the SAE's input x, per normalisation; u is the scale that was divided out."""

WEIGHTS = """\
# The SAE (SAELens format): encoder columns and decoder rows of the edited features, in float32
config = json.loads((SAE / "cfg.json").read_text("utf-8"))
weights = load_file(SAE / "sae_weights.safetensors", {device!r})
features = torch.tensor(list(EDITS), dtype=torch.long, device={device!r})
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
# The SAE, by saescope: its format, normalisation or encoder, or these edits, take more than a few lines
sae = read_sae(SAE, {device!r})
columns = sae.columns(list(EDITS))
w_dec = columns.w_dec_KD"""

LIBRARY_ACTIVATIONS = """\
scaled = sae.normalise(h)
    u, f = scaled.u_T1, sae.encode_features(scaled.x_TD, columns)"""

OTHER_OUTPUTS = """\
    if isinstance(value, tuple):  # some blocks put out more than the vectors
        return (edited(value[0], ids), *value[1:])
"""

SINKS = "allowed &= h.norm(dim=-1) <= {norm!r}  # nor attention sinks"

SINKS_UNKNOWN = "# saescope also leaves attention sinks, vectors of an outlying norm, alone; this script may edit them"

# ---- the edits

GAIN = "gain = torch.tensor([factor - 1 for factor in EDITS.values()], device={device!r})\n"

GAIN_OFFSET_PUSH = """\
kinds = [(KIND.get(feature, {default!r}), x) for feature, x in EDITS.items()]
gain = torch.tensor([{gain}[kind] for kind, x in kinds], device={device!r})
offset = torch.tensor([{offset}[kind] for kind, x in kinds], device={device!r})
push = torch.tensor([{push}[kind] for kind, x in kinds], device={device!r})
"""

UNITS = """\
units = torch.nn.functional.normalize(sae.columns(list(PROJECT)).w_dec_KD)
onto = torch.linalg.pinv(units)
less = torch.tensor([factor - 1 for factor in PROJECT.values()], device={device!r})
"""

WHERE = """\
    last = torch.arange(ids.shape[-1], device=ids.device) == ids.shape[-1] - 1
    where = {  # `new` is empty in the prompt's pass
        "all": allowed,
        "prompt": allowed & (not new),
        "generated": allowed & bool(new),
        "last": allowed & last & (not new),
        "first-step": torch.full_like(allowed, not new),
    }
"""

ACTS_EVERYWHERE = "allowed[..., None]"

ACTS = """\
    acts = torch.stack([where[AT.get(feature, "all")] for feature in EDITS], -1)
"""

RECONSTRUCT = """\
    whole = sae.reconstruct(h.flatten(0, -2))[0].view_as(h)  # its error is lost
    h = torch.where({place}[..., None], whole, h)
"""

SCALED = """\
    out = h + u * (({acts} * f * gain) @ w_dec)
"""

CHANGED = """\
    out = h + u * (({acts} * (f * gain + offset)) @ w_dec) + ({acts} * push) @ w_dec
"""

PROJECT = """\
    part = (out - u * sae.b_dec_D - scaled.mu_T1) @ onto  # how much of each direction there is
    out = torch.where({place}[..., None], out + (part * less) @ units, out)
"""


def place(at: Positions) -> str:
    """Return where an edit acts, as an expression in the script."""
    return "allowed" if at == "all" else f"where[{at!r}]"


# ---- the prompt

CHAT = """\
messages = [{"role": "user", "content": QUESTION}]
text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)"""

STOPPED = """
def stopped(new):  # a text ends once it has one of these strings
    text = tokenizer.decode(new, skip_special_tokens=True)
    return any(string in text for string in STOP)

"""
