"""A model folder as Transformers and the runner read it: config.json, model.safetensors (bf16), tokenizer.json."""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .config import ModelConfig
from .model import MsaModel
from .tokenizer import DEFAULT_PATH

LARGEST_BYTES = 16_000_000


def export_folder(model, folder, tokenizer_path=DEFAULT_PATH):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.detach().to(torch.bfloat16).contiguous().cpu()
        for name, value in model.state_dict().items()
    }
    size = sum(2 * value.numel() for value in tensors.values())
    if size > LARGEST_BYTES:
        raise ValueError(f"[export] size of the weights: got {size} bytes, allowed {LARGEST_BYTES}")
    temporary = folder / "model.safetensors.tmp"
    save_file(tensors, str(temporary), metadata={"format": "pt"})
    temporary.chmod(0o644)
    os.replace(temporary, folder / "model.safetensors")
    write_json(folder / "config.json", model.config.transformers_dict())
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": 0, "eos_token_id": 3, "do_sample": False, "max_new_tokens": 64},
    )
    if Path(tokenizer_path).resolve() != (folder / "tokenizer.json").resolve():
        shutil.copyfile(tokenizer_path, folder / "tokenizer.json")


def write_json(path, data):
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(data, handle, indent=2)
        handle.write("\n")


def load_folder(folder, operators=None, dtype=torch.float32):
    folder = Path(folder)
    model = MsaModel(ModelConfig.from_transformers(folder / "config.json"), operators)
    model.load_state_dict(
        {
            name: value.to(dtype)
            for name, value in load_file(str(folder / "model.safetensors")).items()
        }
    )
    return model
