"""Predictions of an exported model by plain transformers: a script that `model_checks` runs in a separate process.

It reads one JSON object from stdin (sys.path, folder, kind of the task, texts, number of new tokens) and writes one:
label names and probabilities (N, K) of a classifier, the texts that a text2text model writes, or the class of an error.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def predictions(folder: str, kind: str, texts: list[list[str]], most: int) -> dict[str, Any]:
    """Load a model from its folder alone, without remote code, and predict; `most` limits the tokens of a text."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
    inputs = [tokenizer(*text, return_tensors="pt") for text in texts]
    with torch.inference_mode():
        if kind == "text2text":
            writer: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, **local).float().eval()
            ids = [writer.generate(i.input_ids, max_new_tokens=most, do_sample=False, num_beams=1)[0] for i in inputs]
            return {"texts": [tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]}
        network: Any = AutoModelForSequenceClassification.from_pretrained(folder, **local).float().eval()
        logits = torch.cat([network(**i).logits for i in inputs])
    probs = logits.sigmoid() if kind == "multi_label" else logits.softmax(-1)
    return {"labels": [network.config.id2label[i] for i in range(logits.shape[1])], "probs": probs.tolist()}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    sys.path[:] = request.pop("path")
    try:
        result = predictions(**request)
    except Exception as error:  # its message may hold paths
        result = {"error": type(error).__name__}
    print(json.dumps(result))
