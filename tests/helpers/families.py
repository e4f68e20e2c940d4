"""Makers of a tiny random model of every family, with the byte-level tokenizer of `tiny`. No downloads.

FAMILIES are those whose blocks' insides saescope knows. COMMON and RARE are swept for right numbers or a refusal: by
their `model_type`, behind a slash what is special about a variant of one.
"""

from pathlib import Path

import torch
import transformers as tf
from tiny import BOS, EOS, make_tokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

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


SWEPT = GROUPED | {
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "head_dim": 8,
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
"""What all families below share, unless they say otherwise; each takes what it knows of it."""

MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}

LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}

ROUTED = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}

INDEXED = LATENT | ROUTED | {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 128}

LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16,
}

CONV = {"layer_types": ["conv", "full_attention"] * 2, "block_multiple_of": 8, "num_dense_layers": 1}

MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}

GEMMA_4 = MIXED | {
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 300,
    "global_head_dim": 8,
    "num_kv_shared_layers": 0,
}

COMMON = {
    "apertus": {},
    "arcee": {},
    "bamba": MAMBA | {"attn_layer_indices": [1, 3]},
    "bitnet": {},
    "bloom": {},
    "codegen": {"rotary_dim": 4, "num_attention_heads": 4},
    "cohere2": MIXED,
    "deepseek_v2": LATENT | ROUTED,
    "deepseek_v3": LATENT | ROUTED,
    "diffllama": {},
    "ernie4_5": {},
    "exaone4": MIXED,
    "falcon": {"head_dim": None},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 32},
    "gemma3n_text": GEMMA_4 | {"laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 4, "altup_num_inputs": 2},
    "gemma4": GEMMA_4,
    "gemma4_text": GEMMA_4,
    "gemma4_text/shared keys and values": GEMMA_4 | {"num_kv_shared_layers": 2},
    "glm4": {},
    "glm4_moe": ROUTED,
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gpt_oss": MIXED,
    "gptj": {"rotary_dim": 4},
    "granite": {},
    "granitemoe": {},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 16},
    "helium": {},
    "hunyuan_v1_dense": {},
    "jamba": {"mamba_d_state": 8, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": CONV,
    "lfm2_moe": CONV,
    "llama4_text": {"attention_chunk_size": WINDOW, "intermediate_size_mlp": 32},
    "mamba": {},
    "minimax": {"layer_types": ["linear_attention", "full_attention"] * 2, "block_size": 8},
    "ministral": MIXED,
    "mixtral": {},
    "mpt": {},
    "nemotron": {},
    "nemotron_h": {
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
        "layers_block_type": ["mamba", "attention", "mlp", "attention"],
    },
    "olmo2": {},
    "olmo3": MIXED,
    "olmo_hybrid": LINEAR,
    "olmoe": {},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": D_MODEL},
    "persimmon": {},
    "phimoe": {},
    "qwen3_5": LINEAR,
    "qwen3_5_moe_text": LINEAR,
    "qwen3_moe": {},
    "qwen3_next": LINEAR,
    "recurrent_gemma": {"lru_width": D_MODEL, "attention_window_size": 16},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": WINDOW},
}

RARE = {
    "afmoe": {},
    "aria_text": {},
    "axk1": LATENT | ROUTED,
    "axk2": LATENT | ROUTED,
    "bailing_hybrid": LATENT | ROUTED,
    "beam": LATENT | ROUTED,
    "cohere": {},
    "cohere2_moe": MIXED,
    "cwm": {},
    "deepseek_v32": INDEXED,
    "deepseek_v32/few tokens": INDEXED | {"index_topk": 16},
    "doge": {},
    "dots1": ROUTED,
    "ernie4_5_moe": {},
    "exaone_moe": {},
    "falcon_mamba": {},
    "flex_olmo": {},
    "flint": {},
    "gemma4_unified_text": {},
    "glm": {},
    "glm4_moe_lite": LATENT | ROUTED,
    "glm_moe_dsa": INDEXED,
    "granite_swa": {},
    "granitemoe_swa": {},
    "granitemoeshared": {},
    "hunyuan_v1_moe": {},
    "hy_v3": {},
    "hyperclovax": {},
    "inkling2_text": {},
    "inkling_text": {},
    "jais2": {},
    "jetmoe": {},
    "kolibri1": {},
    "laguna": {},
    "lfm3": {},
    "mamba2": {"head_dim": 8, "num_heads": 4, "expand": 2, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "mellum": {},
    "minicpm3": LATENT,
    "minimax_m2": {},
    "minimax_m3_vl_text": {},
    "ministral3": {},
    "modernbert-decoder": {},
    "nanochat": {},
    "olmo": {},
    "openai-gpt": {},
    "qwen2_moe": LINEAR | {"layer_types": None},
    "qwen3_5_text": LINEAR,
    "rwkv": {},
    "seed_oss": {},
    "solar_open": {},
    "vaultgemma": {},
    "xglm": {"ffn_dim": 32, "attention_heads": 2},
    "youtu": LATENT,
}

WRAPPERS = ("gemma4", "qwen3_5")
"""Those whose configuration holds the text model's: multimodal ones."""


def swept_config(name, vocab_size):
    """The configuration of a tiny model of COMMON or RARE; None where this version of transformers lacks the family."""
    model_type = name.partition("/")[0]
    if model_type not in CONFIG_MAPPING:
        return None
    given = (COMMON | RARE)[name]
    fields = {key: value for key, value in (SWEPT | given | {"vocab_size": vocab_size}).items() if value is not None}
    if model_type in WRAPPERS:
        return CONFIG_MAPPING[model_type](text_config=fields, vision_config=VISION)
    return CONFIG_MAPPING[model_type](**fields)


def config(name, vocab_size):
    """The configuration of a family's tiny model."""
    if name not in FAMILIES:
        return swept_config(name, vocab_size)
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
