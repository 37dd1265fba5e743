"""The demo's encoder: made in seconds, the same from the same seed, and a stock model for everyone else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.kinds import ASKED, asked_gold
from support.tiny import LABELS, SIGNS, toy_rows, toy_task

from hf_synth.demo.encoder import DEMO_ARGS, make_encoder, make_seq2seq
from hf_synth.errors import ColumnError, OutputError
from hf_synth.evaluation.evaluation import evaluate
from hf_synth.models.base_models import is_toy
from hf_synth.models.inference import embed
from hf_synth.models.loading import load_tokenizer
from hf_synth.models.record import model_facts, weights_sha256
from hf_synth.models.text2text import generate_text
from hf_synth.models.training import train


def texts(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [
        " ".join(rng.choices([w for s in SIGNS.values() for w in s] + t.split(), k=12)) for t in toy_rows(n)["text"]
    ]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(texts(200), tmp_path_factory.mktemp("encoder") / "e", seed=0)


def test_same_seed_same_encoder(encoder: Path, tmp_path: Path) -> None:
    assert weights_sha256(make_encoder(texts(200), tmp_path / "same", seed=0)) == weights_sha256(encoder)
    assert weights_sha256(make_encoder(texts(200), tmp_path / "other", seed=1)) != weights_sha256(encoder)


def test_it_is_a_stock_model_that_train_can_start_from(encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = train(toy_task(), toy_rows(120), base_model=encoder, output_dir=tmp_path / "m", args=DEMO_ARGS)
    test = toy_rows(60, seed=1)
    assert evaluate(toy_task(), folder, test, n_bootstrap=0).values["accuracy"] > 0.6  # a third by chance
    network, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    assert type(network).__module__.startswith("transformers.")
    assert network(**tokenizer("sore today", return_tensors="pt")).logits.shape == (1, len(LABELS))
    assert model_facts(folder)["access"] == "open"
    assert is_toy(model_facts(encoder))
    assert is_toy(model_facts(folder))
    assert embed(toy_task(), encoder, test).shape == (60, network.config.hidden_size)


def test_its_vocabulary_is_of_its_texts_only(encoder: Path) -> None:
    tokenizer = load_tokenizer(encoder)
    assert tokenizer.tokenize("Sore TODAY") == ["sore", "today"]
    assert tokenizer.tokenize("Ψ") == ["[UNK]"]
    ids = tokenizer("sore", "tube")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "sore", "[SEP]", "tube", "[SEP]"]


def test_a_tiny_t5_learns_to_write_the_words_of_its_texts(tmp_path: Path) -> None:
    """It begins without weights; its tokenizer keeps case and joins tokens to words again."""
    rows = asked_gold(24)
    words = [*(t for c in (*ASKED.text_columns, "answer") for t in rows[c]), *["Aspirin"] * 3]
    base = make_seq2seq(words, tmp_path / "t5", access="restricted")
    assert not list(base.glob("*.safetensors"))
    tokenizer = load_tokenizer(base)
    ids = tokenizer("patient on Aspirin. reports")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[-1:]) == ["[SEP]"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "patient on Aspirin. reports"
    folder = train(ASKED, rows, base_model=base, output_dir=tmp_path / "m", args={**DEMO_ARGS, "max_steps": 30})
    facts = model_facts(folder)
    assert (facts["access"], is_toy(facts)) == ("restricted", True)
    assert set(" ".join(generate_text(ASKED, folder, rows)).split()) <= {*" ".join(words).split(), *".:"}
    with pytest.raises(ColumnError, match="made from texts"):
        make_seq2seq([], tmp_path / "none")


def test_no_text_and_a_taken_place_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ColumnError, match="made from texts"):
        make_encoder([], tmp_path / "e", seed=0)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OutputError, match="not an earlier output"):
        make_encoder(texts(5), tmp_path / "mine", seed=0)
