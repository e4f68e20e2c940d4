"""Makers of tiny things: a random Llama, a byte-level tokenizer, random SAEs in SAELens format. No downloads."""

import json
import string
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

D_MODEL, D_SAE, LAYERS = 16, 40, 3

BOS, EOS = 0, 1

SPECIAL = ("<s>", "</s>", "<|user|>", "<|assistant|>")

MERGES = [("a", "b"), ("Ġ", "f"), ("Ġf", "e")]

SINK = "~"
"""The token whose embedding is so long that it is an attention sink."""

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

SENTENCES = (
    "The nurse fed the lab rats.",
    "A doctor said that she ate.",
    "Felt hats are back, he wrote!",
    "Seven ferries left at dawn...",
    "cab grab dab, about a fable",
    "Who else fears feathers?",
)


def make_tokenizer(chat_template: str | None = TEMPLATE, bos: bool = True) -> PreTrainedTokenizerFast:
    """Every byte is a token, and a few pairs are merged."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*SPECIAL, *alphabet, *(a + b for a, b in MERGES)]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>" if bos else None, eos_token="</s>", pad_token="</s>"
    )
    wrapped.chat_template = chat_template
    return wrapped


def write_model(folder: Path, seed: int = 0, chat_template: str | None = TEMPLATE) -> Path:
    """A random float32 Llama and its tokenizer, as save_pretrained writes them."""
    tokenizer = make_tokenizer(chat_template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.4,
        tie_word_embeddings=False,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(SINK)] *= 200
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sae_weights(encoder: str = "jumprelu", seed: int = 0, bias: float = -0.3) -> dict[str, torch.Tensor]:
    """Random weights with which a few of D_SAE features fire per token."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = {
        "W_enc": random(D_MODEL, D_SAE) / D_MODEL**0.5,
        "W_dec": torch.nn.functional.normalize(random(D_SAE, D_MODEL)),
        "b_enc": bias + 0.2 * random(D_SAE),
        "b_dec": 0.2 * random(D_MODEL),
    }
    if encoder == "jumprelu":
        weights["threshold"] = 0.4 + 0.4 * torch.rand(D_SAE, generator=generator)
    return weights


def sae_config(
    encoder: str = "jumprelu",
    normalisation: object = "constant_norm_rescale",
    apply_b_dec_to_input: bool | None = False,
    hook: str = "blocks.1.hook_resid_pre",
    old: bool = False,
    model_name: str = "tiny",
) -> dict[str, object]:
    """cfg.json's content; `old` is the layout of SAELens before 6, None leaves apply_b_dec_to_input out."""
    config: dict[str, object] = {
        "prepend_bos": True,
        "d_in": D_MODEL,
        "d_sae": D_SAE,
        "dtype": "float32",
        "normalize_activations": normalisation,
    }
    if apply_b_dec_to_input is not None:
        config["apply_b_dec_to_input"] = apply_b_dec_to_input
    if encoder == "topk":
        config["k"] = 4
    if old:
        return config | {"hook_point": hook, "model_name": model_name, "activation_fn_str": "relu"}
    return config | {"architecture": encoder, "metadata": {"hook_name": hook, "model_name": model_name}}


def write_sae(
    folder: Path,
    encoder: str = "jumprelu",
    normalisation: object = "constant_norm_rescale",
    apply_b_dec_to_input: bool | None = False,
    dtype: torch.dtype = torch.float32,
    hook: str = "blocks.1.hook_resid_pre",
    old: bool = False,
    model_name: str = "tiny",
    weights: dict[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> Path:
    """A SAE folder in SAELens format. Biases and thresholds stay float32, as SAELens keeps them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = sae_config(encoder, normalisation, apply_b_dec_to_input, hook, old, model_name)
    (folder / "cfg.json").write_text(json.dumps(config), "utf-8")
    weights = sae_weights(encoder, seed) if weights is None else weights
    tensors = {k: (v.to(dtype) if k.startswith("W_") else v).contiguous() for k, v in weights.items()}
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


def write_reference(path: Path, seed: int = 0) -> Path:
    """More passages than one batch holds, of letters and words; one is longer than a passage may be."""
    generator = torch.Generator().manual_seed(seed)
    letters = string.ascii_letters + "     ,.é"
    picks = torch.randint(len(letters), (16, 40), generator=generator).tolist()
    lines = [*SENTENCES, *("".join(letters[i] for i in row) for row in picks), "long " * 70 + SINK + " end"]
    path.write_text("\n\n".join(lines) + "\n", "utf-8")
    return path
