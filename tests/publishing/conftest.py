"""A trained model, and the Hub that rows and models are pushed to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from support.publishing_rows import CANARY, LABELS, NOUNS, OPEN, gold_rows

from hf_synth.task.labels import row_digests


@pytest.fixture
def not_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not load each export back: it takes a quarter of the time, and refuses nothing for what it holds.

    The tests without this fixture load theirs; one shows that an export which differs is refused (test_publishing).
    """
    monkeypatch.setattr("hf_synth.publishing.export._check_loads", lambda folder, views: None)


@pytest.fixture
def where(hub: Any, tmp_path: Path) -> dict[str, Any]:
    """Return the options of a push to the Hub of the tests."""
    return {"endpoint": hub.url, "token": hub.token, "export_dir": tmp_path / "export" / "x"}


@pytest.fixture
def api(hub: Any) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


# --- models ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny model as `train` leaves it, with things lying about that must not leave."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *NOUNS])}
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)}, max_position_embeddings=64,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    seen = row_digests(OPEN, gold_rows(OPEN).select(range(2)))
    facts = {"kind": "model", "access": "open", "task": "notes", "labels": list(LABELS), "row_digests": seen,
             "rows": {"gold": 2}, "base_model": "tiny", "secret": CANARY}  # fmt: skip
    (folder / "hf_synth_facts.json").write_text(json.dumps(facts))
    for name in ("training_args.bin", "optimizer.pt", "gold.csv", "predictions.json", "pytorch_model.bin", "notes.txt"):
        (folder / name).write_text(CANARY)
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "config.json").write_text(CANARY)
    (folder / "merges.txt").symlink_to(folder / "gold.csv")
    return folder
