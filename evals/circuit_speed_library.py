"""The `linear-relational` package on the same prompts; run by the Python of its own environment.

`evals/circuit_speed.py` starts this file and talks to it through two files: a JSON task and a
safetensors answer. It imports nothing of Dragoman, so the other environment needs nothing of it.
The package is used through its public `Trainer`. It needs transformers 4.42 to 4.44: earlier ones
lack a class that it imports, later ones hand back a cache that grows as the package reuses it,
which silently changes its Jacobians.
"""

import importlib
import importlib.metadata
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Estimate the maps of one task, and write them with the seconds that each layer took."""
    task = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch: Any = importlib.import_module("torch")
    library: Any = importlib.import_module("linear_relational")
    safetensors: Any = importlib.import_module("safetensors.torch")
    torch.set_num_threads(task["threads"])
    model, tokenizer = _load(Path(task["folder"]), task["config"])
    trainer = library.Trainer(model, tokenizer)
    prompts = [
        library.Prompt(each["text"], each["answer"], subject=each["subject"])
        for each in task["prompts"]
    ]
    answer, seconds = {}, {}
    for layer in task["layers"]:
        started = time.process_time()
        fitted = trainer.train_lre(
            relation="benchmark",
            subject_layer=layer,
            object_layer=task["object_layer"],
            prompts=prompts,
            object_aggregation="first_token",
            validate_prompts=False,
            verbose=False,
        )
        seconds[str(layer)] = time.process_time() - started
        answer[f"{layer}.weight"] = fitted.weight.contiguous()
        answer[f"{layer}.bias"] = fitted.bias.contiguous()
    safetensors.save_file(
        answer, task["answer"], metadata={"seconds": json.dumps(seconds), "versions": _versions()}
    )


def _versions() -> str:
    names = ("linear-relational", "transformers", "torch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _load(folder: Path, config: dict[str, Any]) -> tuple[Any, Any]:
    """The model with the sizes given, since older libraries do not read newer configurations."""
    transformers: Any = importlib.import_module("transformers")
    torch: Any = importlib.import_module("torch")
    safetensors: Any = importlib.import_module("safetensors.torch")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
    model.load_state_dict(
        {
            key: value
            for path in sorted(folder.glob("*.safetensors"))
            for key, value in safetensors.load_file(path).items()
        },
        strict=False,  # a tied head is not in the file
    )
    model.tie_weights()
    document = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    merges = document["model"]["merges"]
    # Written as pairs since tokenizers 0.20, as text before.
    document["model"]["merges"] = [
        each if isinstance(each, str) else " ".join(each) for each in merges
    ]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tokenizer.json"
        path.write_text(json.dumps(document), "utf-8")
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(path), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
        )
    return model.to(torch.float32).eval(), tokenizer


if __name__ == "__main__":
    main()
