"""Sample training text for the demo SAE from the demo model itself.

    python -m engine.loading.demo.making.sample OUT.jsonl.gz [--tokens N] [--batch B] [--seed S]

Writes one JSON list of token ids per line. Every sequence begins with exactly one leading special token,
half are chats (half of those with the model's system prompt), the rest raw text. Knows nothing about SAEs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from engine.loading.demo.model import demo_model_folder


def starting_ids(tokenizer: Any, rng: random.Random, spec: dict[str, Any]) -> list[int]:
    """Return one random beginning as token ids, leading special token included."""
    kind = rng.random()
    topic = rng.choice(spec["topics"])
    if kind < 0.45:
        question = rng.choice(spec["chat"]).format(topic)
        messages = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if rng.random() < 0.5:  # the template puts a system prompt in front: half the chats do without
            text = text[text.index("<|im_start|>user") :]
        return list(tokenizer(text, add_special_tokens=False).input_ids)
    text = rng.choice(spec["raw"]).format(topic) if kind < 0.9 else ""
    text = text[:1].upper() + text[1:]
    return [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids]


def draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Sample one token per row by inverting the cumulative distribution (cheaper than multinomial here)."""
    cumulative = torch.softmax(logits.float() / temperature, -1).cumsum(-1)
    threshold = torch.rand(len(logits), 1, generator=generator) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold).clamp_(max=logits.shape[-1] - 1)


@torch.inference_mode()
def sample_batch(
    model: Any, prompts: list[list[int]], new_tokens: int, temperature: float, generator: torch.Generator
) -> list[list[int]]:
    """Continue each prompt by up to new_tokens tokens; a row ends after the end token."""
    width, end = max(map(len, prompts)), model.config.eos_token_id
    ids = torch.tensor([[end] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    cache, rows, done = DynamicCache(config=model.config), [list(p) for p in prompts], [False] * len(prompts)
    for _ in range(new_tokens):
        positions = (mask.cumsum(-1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
        ids = draw(out.logits[:, -1], temperature, generator)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        for row, (token,) in enumerate(ids.tolist()):
            if not done[row]:
                rows[row].append(token)
                done[row] = token == end
        if all(done):
            break
    return rows


def sample(tokens: int, batch: int, new_tokens: int, seed: int) -> Iterator[list[int]]:
    """Yield sequences until they have `tokens` tokens in all."""
    folder = demo_model_folder(torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    spec = tomllib.loads(Path(__file__).with_name("sampling.toml").read_text("utf-8"))
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    made, started = 0, time.time()
    while made < tokens:
        # sorted by length, so that a batch is hardly padded
        prompts = sorted((starting_ids(tokenizer, rng, spec) for _ in range(batch * 4)), key=len)
        for at in range(0, len(prompts), batch):
            rows = sample_batch(model, prompts[at : at + batch], new_tokens, rng.uniform(0.85, 1.0), generator)
            made += sum(map(len, rows))
            yield from rows
            print(f"{made:,} tokens, {made / (time.time() - started):.0f}/s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=700_000)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--new-tokens", type=int, default=112)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with gzip.open(args.out, "wt", compresslevel=6) as file:
        for ids in sample(args.tokens, args.batch, args.new_tokens, args.seed):
            file.write(json.dumps(ids, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
