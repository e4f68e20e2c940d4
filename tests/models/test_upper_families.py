"""Attribution above the hook in many families: the model's own numbers, or a refusal in words.

The reference is plain transformers on one row at a time, with a hook of the test's own on the block.
"""

import pytest
import torch
import transformers as tf
from tiny import BOS, EOS, make_tokenizer

from engine.loading.load_model import load_model
from engine.models.hooks import resolve_hook
from engine.models.upper_check import checked_upper
from engine.models.upper_layers import Row
from engine.records import Prompt

D, TEXTS = 16, ("She said the tide is in.", "A doctor ate")
IDS = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS}
BASE = IDS | {
    "hidden_size": D,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
GPT = IDS | {"n_embd": D, "n_layer": 4, "n_head": 2, "n_positions": 128, "initializer_range": 0.3}
GEMMA4 = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300, "num_kv_shared_layers": 0}

CONFIGS = {
    "Gemma4Text": GEMMA4 | {"layer_types": ["sliding_attention", "full_attention"] * 2, "global_head_dim": 8},
    "Qwen3_5Text": LINEAR,
    "Qwen3_5MoeText": LINEAR | MOE | {"shared_expert_intermediate_size": 16},
    "Qwen3Next": LINEAR | MOE | {"shared_expert_intermediate_size": 16},
    "Lfm2": {"layer_types": ["conv", "full_attention"] * 2, "block_multiple_of": 8},
    "OlmoHybrid": LINEAR,
    "Bloom": {"n_layer": 4, "n_head": 2},
    "Falcon": IDS | {"hidden_size": D, "num_hidden_layers": 4, "num_attention_heads": 2, "initializer_range": 0.3},
    "RecurrentGemma": {"lru_width": D, "attention_window_size": 16},
    "GPTJ": GPT | {"rotary_dim": 4},
    "CodeGen": GPT | {"rotary_dim": 4, "n_head": 4},
    "GPTBigCode": GPT,
    "GPTNeo": {"num_layers": 4, "num_heads": 2, "attention_types": [[["global", "local"], 2]]},
    "Mixtral": MOE,
    "Qwen2Moe": MOE | {"shared_expert_intermediate_size": 16},
    "Qwen3Moe": MOE,
    "GptOss": MOE | {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "Olmoe": MOE,
    "Phimoe": MOE,
    "GraniteMoe": MOE,
}
for plain_name in [
    "Olmo",
    "Olmo2",
    "Olmo3",
    "Cohere",
    "Cohere2",
    "Starcoder2",
    "StableLm",
    "Nemotron",
    "Exaone4",
    "Ernie4_5",
    "HunYuanDenseV1",
    "SeedOss",
    "Apertus",
    "Arcee",
    "Granite",
    "Glm",
    "Glm4",
    "SmolLM3",
    "Persimmon",
    "Ministral",
    "Helium",
    "Llama",
    "Mistral",
    "Qwen2",
    "Qwen3",
    "Gemma",
    "Gemma2",
    "Gemma3Text",
    "Phi",
    "Phi3",
    "BitNet",
    "DiffLlama",
    "VaultGemma",
]:
    CONFIGS[plain_name] = {}


def written(name, folder):
    """A random model of the family in a folder of its own."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    fields = CONFIGS[name] if "initializer_range" in CONFIGS[name] else BASE | CONFIGS[name]
    model = tf.AutoModelForCausalLM.from_config(getattr(tf, f"{name}Config")(vocab_size=len(tokenizer), **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain(model, block, ids, delta_TD):
    """Logits_TV of one row by itself, with delta added to what leaves the block."""

    def add(_module, _args, out):
        return (out[0] + delta_TD, *out[1:]) if isinstance(out, tuple) else out + delta_TD

    handle = model.get_submodule(block).register_forward_hook(add)
    try:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


def margin(logits_TV):
    return logits_TV[-1].log_softmax(-1)[5] - logits_TV[-1].log_softmax(-1)[9]


@pytest.mark.parametrize("name", CONFIGS)
def test_baseline_effect_and_gradient_are_plain_transformers(name, tmp_path):
    model = load_model(str(written(name, tmp_path / "m")), name, torch.device("cpu"), torch.float32)
    exact = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    hook = resolve_hook(model.module, "blocks.2.hook_resid_post")
    upper = checked_upper(model, hook)
    rows = [model.tokens.feed(Prompt(text)).ids for text in TEXTS]
    captured = model.capture_batch(upper.entry, rows)
    entry = [Row(ids, h.clone()) for ids, h in zip(rows, captured, strict=True)]
    past = [upper.remember(row) for row in entry]
    delta_TD = torch.randn(len(rows[0]), D)
    delta_TD[:3] = 0
    last = [[len(ids) - 1] for ids in rows]
    for ids, found_V in zip(rows, upper.logits(entry, [None, None], last), strict=True):
        torch.testing.assert_close(found_V, plain(exact, hook.path, ids, 0)[-1], rtol=1e-3, atol=1e-3)
    wanted_V = plain(exact, hook.path, rows[0], delta_TD)[-1]
    for start in (0, 3):
        found_V = upper.logits(entry, [delta_TD, None], last, past, start)[0]
        torch.testing.assert_close(found_V, wanted_V, rtol=1e-3, atol=1e-3)
    zero_BTD = torch.zeros(1, len(rows[0]), D, requires_grad=True)
    zero_TD = torch.zeros(len(rows[0]), D, requires_grad=True)
    (g_BTD,) = torch.autograd.grad(margin(upper.logits(entry[:1], zero_BTD, last[:1])), zero_BTD)
    (wanted_TD,) = torch.autograd.grad(margin(plain(exact, hook.path, rows[0], zero_TD)), zero_TD)
    torch.testing.assert_close(g_BTD[0], wanted_TD, rtol=1e-3, atol=1e-3)
