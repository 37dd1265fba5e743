"""Use what was published with plain datasets and transformers: nothing of hf_synth is imported here.

    python examples/use_published_model.py OWNER/DATASET OWNER/MODEL "a text" ...

HF_ENDPOINT and HF_TOKEN name the Hub, as for any other model.
"""

import sys

import torch
from datasets import load_dataset
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline


def check_repository(name: str, kind: str) -> None:
    """End with one sentence where a repository cannot be read; a cached one is used offline (HF_HUB_OFFLINE=1)."""
    hub = constants.ENDPOINT
    try:
        HfApi().repo_info(name, repo_type=kind)
    except OfflineModeIsEnabled:
        return
    except RepositoryNotFoundError:
        if get_token() is None:
            sys.exit(f"{hub} shows no {kind} {name} without a token: set HF_TOKEN, or check the name")
        sys.exit(f"{hub} has no {kind} {name} that this token may read: check the name, HF_TOKEN and HF_ENDPOINT")
    except HfHubHTTPError as error:
        sys.exit(
            f"{hub} answers {error.response.status_code} when asked for {kind} {name}: check HF_TOKEN, or try again"
        )
    except Exception:  # no connection; its class depends on the HTTP library
        sys.exit(
            f"{hub} does not answer: check the network and HF_ENDPOINT, or start it (hf-synth hub serve --root DIR)"
        )


def main(dataset: str, model: str, texts: list[str]) -> None:
    check_repository(dataset, "dataset")
    check_repository(model, "model")
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
