"""Use what was published with plain datasets and transformers: nothing of hf_synth is imported here.

    python examples/use_published_model.py OWNER/DATASET OWNER/MODEL "a text" ...

HF_ENDPOINT and HF_TOKEN name the Hub, as for any other model.
"""

import sys

import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline


def main(dataset: str, model: str, texts: list[str]) -> None:
    rows = load_dataset(dataset, split="train")
    label = next(name for name, feature in rows.features.items() if hasattr(feature, "names"))
    print(f"{dataset}: {len(rows)} rows, columns {', '.join(rows.column_names)}")
    print(f"labels: {', '.join(rows.features[label].names)}")

    grade = pipeline("text-classification", model=model)
    for text in texts:
        best = grade(text)[0]
        print(f"{best['label']} ({best['score']:.2f}): {text}")

    # the same without `pipeline`, with the probability of every label
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        probs = network(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits.softmax(-1)
    for text, row in zip(texts, probs.tolist(), strict=True):
        print(f"{ {network.config.id2label[k]: round(p, 2) for k, p in enumerate(row)} }: {text}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
