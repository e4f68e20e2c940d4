"""The sweep over families: what is captured, continued, edited and attributed is the model's own, or refused in words.

The reference is plain transformers on one row at a time, without a cache, with a hook of the test's own on the block
that computes the edit from the SAE's weights.
"""

import pytest
import torch
import transformers as tf
from editing import make_reference, random_sae
from tiny import BOS, EOS, make_tokenizer

from engine.bench.subjects import endless
from engine.generation.decoding import Text, lists_of, rows_of
from engine.generation.edits import ResidualEditor
from engine.generation.steps import Steps
from engine.loading.load_model import load_model
from engine.models.hooks import resolve_hook
from engine.models.upper_check import checked_upper
from engine.models.upper_layers import Row
from engine.records import Edit, Generate, Prompt, Sampling

D, TEXTS = 16, ("She said the tide is in.", "A doctor ate")

NEW = 18
"""Tokens of each text: more than the 16 after which a step is captured."""

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
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 4,
}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
LATENT = {"kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "head_dim": 4}
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
    "Bamba": MAMBA | {"attn_layer_indices": [1, 3], "mamba_expand": 2},
    "FalconH1": MAMBA | {"mamba_d_ssm": 32},
    "GraniteMoeHybrid": MAMBA | MOE | {"layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 16},
    "Jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4}
    | {"use_mamba_kernels": False, "num_experts": 2},
    "NemotronH": {"hybrid_override_pattern": "M*M*", "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8}
    | {"n_groups": 1, "chunk_size": 4},
    "Zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 4, "mamba_headdim": 8, "adapter_rank": 4}
    | {"mamba_d_state": 8, "chunk_size": 4},
    "MiniMax": MOE | {"layer_types": ["linear_attention", "full_attention"] * 2, "block_size": 4},
    "Lfm2Moe": MOE | {"layer_types": ["conv", "full_attention"] * 2},
    "DeepseekV2": ROUTED | LATENT | {"q_lora_rank": None, "first_k_dense_replace": 1},
    "DeepseekV3": ROUTED | LATENT | {"q_lora_rank": 8, "first_k_dense_replace": 1},
    "Youtu": LATENT | {"q_lora_rank": 8},
    "Glm4Moe": ROUTED,
    "Llama4Text": MOE
    | {"num_local_experts": 2, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1}
    | {"intermediate_size_mlp": 32},
    "JetMoe": MOE | {"kv_channels": 8},
    "FlexOlmo": MOE,
    "HunYuanMoEV1": MOE | {"moe_topk": 2},
    "Ernie4_5_Moe": {"moe_num_experts": 4, "moe_k": 2},
    "XGLM": IDS | {"d_model": D, "ffn_dim": 32, "num_layers": 4, "attention_heads": 2, "initializer_range": 0.3},
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
    "Ministral3",
    "ModernBertDecoder",
    "Doge",
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


def changed(model, block, ids, edit):
    """Logits_TV of one row by itself, with the vectors h_TD that leave the block replaced by edit(h_TD)."""

    def replace(_module, _args, out):
        whole = out if not isinstance(out, tuple) else out[0]
        spared_T = torch.tensor(ids) == BOS  # no edit acts there, wherever it stands
        new = torch.where(spared_T[:, None], whole[0], edit(whole[0]))[None]
        return new if not isinstance(out, tuple) else (new, *out[1:])

    handle = model.get_submodule(block).register_forward_hook(replace)
    try:
        with torch.inference_mode():
            return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


def continued(model, block, ids, edit):
    """The next NEW tokens and their log-probabilities, each by a pass over everything before it."""
    ids, logprobs = list(ids), []
    for _ in range(NEW):
        last_V = changed(model, block, ids, edit)[-1].log_softmax(-1)
        ids.append(int(last_V.argmax()))
        logprobs.append(float(last_V.max()))
    return tuple(ids[-NEW:]), torch.tensor(logprobs)


def result_of(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def margin(logits_TV):
    return logits_TV[-1].log_softmax(-1)[5] - logits_TV[-1].log_softmax(-1)[9]


@pytest.fixture(scope="module", params=CONFIGS)
def family(request, tmp_path_factory):
    """(the family's LanguageModel, plain transformers' own of the same files, the hook point)"""
    folder = written(request.param, tmp_path_factory.mktemp("family") / request.param)
    model = endless(load_model(str(folder), request.param, torch.device("cpu"), torch.float32))
    exact = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, exact, resolve_hook(model.module, "blocks.2.hook_resid_post")


def test_what_is_captured_of_padded_rows_is_what_leaves_the_block(family):
    model, exact, hook = family
    rows = [model.tokens.feed(Prompt(text)).ids for text in TEXTS]
    for ids, captured_TD in zip(rows, model.capture_batch(hook, rows), strict=True):
        seen = []
        changed(exact, hook.path, ids, lambda h_TD, seen=seen: seen.append(h_TD) or h_TD)
        torch.testing.assert_close(captured_TD, seen[0], rtol=1e-4, atol=1e-5)


def test_texts_with_and_without_edits_are_those_of_passes_without_a_cache(family):
    model, exact, hook = family
    ids = model.tokens.feed(Prompt(TEXTS[1])).ids
    sae = random_sae(D, hook.name)
    h_TD = model.capture_batch(hook, [ids])[0]
    firing = torch.relu(h_TD @ sae.w_enc_DF + sae.b_enc_F).sum(0).argmax()
    ablated, steered = int(firing), (int(firing) + 1) % sae.d_sae
    request = Generate(Prompt(TEXTS[1]), (Edit(ablated), Edit(steered, 2.0, "steer")), Sampling(max_tokens=NEW))
    rows = rows_of(request)
    editor = ResidualEditor(model, sae, hook, make_reference(sae), lists_of(request, rows, request.edits))
    found = result_of(Text(model, Steps(model, editor, len(ids) + NEW), rows, ids, request).run())

    def edit(h_TD):
        f_T = torch.relu(h_TD @ sae.w_enc_DF[:, ablated] + sae.b_enc_F[ablated])
        return h_TD - f_T[:, None] * sae.w_dec_FD[ablated] + 2.0 * sae.w_dec_FD[steered]

    texts = continued(exact, hook.path, ids, lambda h_TD: h_TD), continued(exact, hook.path, ids, edit)
    for arm, (wanted_ids, wanted) in zip(found.arms, texts, strict=False):
        assert tuple(arm.ids) == wanted_ids
        torch.testing.assert_close(torch.tensor(arm.logprobs), wanted, rtol=1e-4, atol=1e-4)
    assert texts[0][1].ne(texts[1][1]).any()


def test_baseline_effect_and_gradient_are_plain_transformers(family):
    model, exact, hook = family
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
