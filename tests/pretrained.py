"""Tiny models of ``transformers`` with random weights, saved as their users save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SIZED: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", {**SMALL, "max_position_embeddings": 32}),
    "masked": ("BertForMaskedLM", {**SMALL, "max_position_embeddings": 32}),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "llama": ("LlamaForCausalLM", {**SMALL, "num_key_value_heads": 1, "max_position_embeddings": 32}),
    "t5": ("T5ForConditionalGeneration", {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2}),
    "vit": ("ViTForImageClassification", {**SMALL, "image_size": 16, "patch_size": 8}),
}
_ENDS = {"gpt2": {"bos_token_id": 1, "eos_token_id": 2}, "t5": {"num_heads": 2, "decoder_start_token_id": 0}}


def made(name: str) -> Any:
    """The model, in eval mode."""
    transformers = pytest.importorskip("transformers")
    cls, config = SIZED[name]
    torch.manual_seed(0)
    found = getattr(transformers, cls)
    return found(found.config_class(**config, **_ENDS.get(name, {}))).eval()


def saved(name: str, folder: Path, **how: Any) -> Path:
    """Its folder."""
    made(name).save_pretrained(folder, **how)
    return folder
