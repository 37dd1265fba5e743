"""What anyone gets from an exported model: a script for a process of its own, plain transformers and nothing of ours.

It reads one JSON object from stdin (where packages lie, the folder, the kind of the task, the texts) and writes one:
for a classifier the names of its labels and a row of probabilities for each text, else the text that it writes; or the
class of the error.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def answers(folder: str, kind: str, texts: list[list[str]], most: int) -> dict[str, Any]:
    """Load the model of a folder and let it answer, from this folder alone and without code of its own."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

    alone: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, **alone)
    given = [tokenizer(*text, return_tensors="pt") for text in texts]
    with torch.inference_mode():
        if kind == "text2text":
            writer: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, **alone).float().eval()
            ids = [writer.generate(g.input_ids, max_new_tokens=most, do_sample=False, num_beams=1)[0] for g in given]
            return {"texts": [tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]}
        network: Any = AutoModelForSequenceClassification.from_pretrained(folder, **alone).float().eval()
        logits = torch.cat([network(**g).logits for g in given])
    probs = logits.sigmoid() if kind == "multi_label" else logits.softmax(-1)
    return {"labels": [network.config.id2label[i] for i in range(logits.shape[1])], "probs": probs.tolist()}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    sys.path[:] = asked.pop("path")
    try:
        told = answers(**asked)
    except Exception as error:  # what it says may hold paths
        told = {"error": type(error).__name__}
    print(json.dumps(told))
