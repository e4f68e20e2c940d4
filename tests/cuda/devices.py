"""What tests on a device need: a pair that fills some of a GPU, and a memory that is full."""

import json
from contextlib import contextmanager
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from tiny import make_tokenizer, sae_config
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig

WIDTH, LAYERS, FEATURES = 2048, 8, 16_384


def write_large(folder, device):
    """A random Llama in bfloat16, and a SAE in SAELens' format in float32."""
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=WIDTH, intermediate_size=5632, num_hidden_layers=LAYERS, num_attention_heads=16,
        num_key_value_heads=8, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    with device:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / "model")
        w_enc_DF = torch.randn(WIDTH, FEATURES) / WIDTH**0.5
        weights = {
            "W_enc": w_enc_DF,
            "W_dec": torch.nn.functional.normalize(w_enc_DF.T).contiguous(),
            "b_enc": torch.full((FEATURES,), -0.05),
            "b_dec": torch.zeros(WIDTH),
        }
    tokenizer.save_pretrained(folder / "model")
    (folder / "sae").mkdir()
    settings = sae_config("standard", "none") | {"d_in": WIDTH, "d_sae": FEATURES}
    (folder / "sae" / "cfg.json").write_text(json.dumps(settings), "utf-8")
    save_file(weights, folder / "sae" / "sae_weights.safetensors")


class NoMemory(TorchDispatchMode):
    """Every product finds the memory full."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "linear"):
            raise torch.OutOfMemoryError(f"{func} found no memory")
        return func(*args, **(kwargs or {}))


@contextmanager
def full(device):
    """Inside, the device's memory is full: on a GPU really, on a CPU for products and for models that are loaded."""
    if device.type == "cpu":
        no_room = torch.OutOfMemoryError("there is no room for the weights")
        with NoMemory(), patch.object(AutoModelForCausalLM, "from_pretrained", side_effect=no_room):
            yield
        return
    torch.cuda.empty_cache()
    ballast, size = [], 1 << 32
    while size >= 1 << 20:
        try:
            ballast.append(torch.empty(size, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            size //= 2
    try:
        yield
    finally:
        ballast.clear()
        torch.cuda.empty_cache()
