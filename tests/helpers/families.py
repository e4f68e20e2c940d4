"""Makers of a tiny random model of every family, with the byte-level tokenizer of `tiny`. No downloads."""

from pathlib import Path

import torch
import transformers as tf
from tiny import BOS, EOS, make_tokenizer

LAYERS, D_MODEL, WINDOW = 3, 16, 8

SHARED = {
    "hidden_size": D_MODEL,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": EOS,
}

GROUPED = SHARED | {"num_key_value_heads": 2}

WIDE_HEADS = GROUPED | {"head_dim": 6}
"""Heads side by side are wider than the residual stream here, as in Gemma and Qwen3."""

SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}

GPT2 = {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}

VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 8,
    "patch_size": 4,
}

NEOX = SHARED | {"rotary_pct": 0.5}


def config(name, vocab_size):
    """The configuration of a family's tiny model."""
    vocab = {"vocab_size": vocab_size}
    sizes = {
        "llama": (tf.LlamaConfig, GROUPED),
        "mistral": (tf.MistralConfig, GROUPED | {"sliding_window": WINDOW}),
        "qwen2": (tf.Qwen2Config, GROUPED),
        "qwen3": (tf.Qwen3Config, WIDE_HEADS),
        "gemma": (tf.GemmaConfig, WIDE_HEADS),
        "gemma2": (tf.Gemma2Config, WIDE_HEADS | SLIDING),
        "gemma3": (tf.Gemma3TextConfig, WIDE_HEADS | SLIDING),
        "gpt2": (tf.GPT2Config, GPT2 | {"bos_token_id": BOS, "eos_token_id": EOS}),
        "gpt_neox": (tf.GPTNeoXConfig, NEOX),
        "gpt_neox_sequential": (tf.GPTNeoXConfig, NEOX | {"use_parallel_residual": False}),
        "phi": (tf.PhiConfig, GROUPED),
        "phi3": (tf.Phi3Config, GROUPED | {"sliding_window": WINDOW}),
    }
    if name == "gemma3_multimodal":
        text = WIDE_HEADS | SLIDING | vocab
        return tf.Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4, image_token_index=2)
    kind, fields = sizes[name]
    return kind(**fields, **vocab)


FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_multimodal",
    "gpt2",
    "gpt_neox",
    "gpt_neox_sequential",
    "phi",
    "phi3",
)

PARALLEL = ("gpt_neox", "phi")


def write_family(name: str, folder: Path, seed: int = 0) -> Path:
    """A random float32 model of the family and its tokenizer, as save_pretrained writes them.

    Norms and biases are random too: left at ones and zeros they would hide mistakes.
    """
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_config(config(name, len(tokenizer))).float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def parts(module, layer):
    """(block, attention's output projection, the norm behind it or None, final norm) of a model, found by hand."""
    base = module.model if hasattr(module, "model") else getattr(module, "transformer", None) or module.gpt_neox
    base = getattr(base, "language_model", base)
    block = (base.h if hasattr(base, "h") else base.layers)[layer]
    attention = next(getattr(block, n) for n in ("self_attn", "attn", "attention") if hasattr(block, n))
    projection = next(getattr(attention, n) for n in ("o_proj", "c_proj", "dense") if hasattr(attention, n))
    gemma = hasattr(block, "post_feedforward_layernorm")
    norm = next(getattr(base, n) for n in ("norm", "ln_f", "final_layer_norm", "final_layernorm") if hasattr(base, n))
    return block, projection, block.post_attention_layernorm if gemma else None, norm
