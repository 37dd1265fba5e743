"""Tiny models made on the spot: a ModernBERT encoder trained in seconds on open text, and a T5 without weights.

They show that the software runs, and say nothing about notes. No weights are shipped.

The encoder has one layer and its own WordPiece vocabulary. Its word vectors are computed, not learnt: a factorisation
of the co-occurrence of words (PPMI and SVD; Levy and Goldberg 2014). A few epochs of masked-language modelling then
train the layers. It knows the words of its texts alone. Use open text only: the vocabulary spells out their words.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.models.base_models import TOY
from hf_synth.models.loading import cpu_threads, quiet
from hf_synth.models.record import weights_sha256, write_facts
from hf_synth.models.tokens import pad
from hf_synth.reports.progress import counted, stage
from hf_synth.task.columns import MANIFEST, Access
from hf_synth.task.folders import new_folder

VOCABULARY = 4_000  # tokens at most
WIDTH, LAYERS, HEADS, WINDOW = 64, 1, 4, 32  # WINDOW: tokens of local attention, half on each side
MAX_TOKENS = 512
MLM_EPOCHS, MLM_BATCH, MLM_RATE, MLM_MASKED = 6, 16, 2e-3, 0.3
NEAR = 4  # words on each side that count as co-occurring
DROPOUT = {"embedding_dropout": 0.1, "mlp_dropout": 0.1, "classifier_dropout": 0.3}  # in fine-tuning
# `TrainingArguments` for this encoder: a network this small needs a large learning rate. `train` sets the epochs.
DEMO_ARGS: dict[str, Any] = {"learning_rate": 3e-3, "per_device_train_batch_size": 16}
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_encoder(texts: Sequence[str], output_dir: str | Path, *, seed: int) -> Path:
    """Train a tiny encoder on open, unlabelled texts and write it to a folder that `train` can start from.

    Args:
        texts: a thousand or more, in every style of the task: gold and synthetic texts, but no test texts. Other words
            mean nothing to it.
        seed: the same seed and texts give the same weights on a CPU.

    Raises:
        ColumnError: there is no text.
        OutputError: the folder cannot be written.
    """
    from transformers import ModernBertConfig, ModernBertForMaskedLM, set_seed

    if not texts or not all(isinstance(text, str) for text in texts):
        raise ColumnError("an encoder is made from texts, and a row has none: leave out rejected rows")
    with new_folder(Path(output_dir)) as draft, quiet(), cpu_threads(), stage("making a tiny encoder"):
        tokenizer = _wordpiece(texts)
        ids = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS, return_attention_mask=False)["input_ids"]
        set_seed(seed)
        tokens = {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "bos": "[CLS]", "eos": "[SEP]"}
        special = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}
        config = ModernBertConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, max_position_embeddings=MAX_TOKENS, local_attention=WINDOW,
            layer_types=["sliding_attention"] * LAYERS, classifier_pooling="mean", sparse_prediction=True, **special,
        )  # fmt: skip
        network = ModernBertForMaskedLM(config)
        _set_word_vectors(network, ids, seed)
        _train_masked(network, tokenizer, ids, seed)
        for name, share in DROPOUT.items():
            setattr(network.config, name, share)
        network.model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        facts = {"kind": "encoder", "seed": seed, "texts": len(texts), "weights": weights_sha256(draft)}
        _write_records(draft, "open", facts)
    return Path(output_dir)


def make_seq2seq(texts: Sequence[str], output_dir: str | Path, *, access: Access = "open") -> Path:
    """Write a tiny T5 without weights, which `train` starts from its seed, and a tokenizer of the words of texts.

    Args:
        texts: inputs and targets of a text2text task. The vocabulary spells out words that occur three times.
        access: of the texts; the model counts as at least as strict.

    Raises:
        ColumnError: there is no text.
        OutputError: the folder cannot be written.
    """
    from transformers import T5Config

    if not texts or not all(isinstance(text, str) for text in texts):
        raise ColumnError("a tokenizer is made from texts, and a row has none: leave out rejected rows")
    with new_folder(Path(output_dir)) as draft, quiet(), stage("making a tiny text-to-text model"):
        tokenizer = _wordpiece(texts, writes=True)
        T5Config(
            vocab_size=len(tokenizer), d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=2 * WIDTH, num_layers=2,
            num_heads=HEADS, dropout_rate=0.0, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        ).save_pretrained(draft)  # fmt: skip
        tokenizer.save_pretrained(draft)
        _write_records(draft, access, {"kind": "seq2seq", "texts": len(texts)})
    return Path(output_dir)


def _write_records(draft: Path, access: Access, facts: dict[str, Any]) -> None:
    """Write the facts and the manifest of a tiny model."""
    write_facts(draft, {**facts, "access": access, "row_digests": [], "pretrained_on": TOY})
    manifest = {"stage": "encoder", "access": access}
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _wordpiece(texts: Sequence[str], *, writes: bool = False) -> Any:
    """Make a WordPiece tokenizer of the words seen three times or more, and of characters.

    Words are ranked by frequency, ties in alphabetical order: the trainers of `tokenizers` break ties at random.

    Args:
        writes: whether its model writes texts: case is kept, tokens are joined again, and a text ends with [SEP] alone.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(lowercase=not writes), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters = sorted({character for word in words for character in word})
    frequent = [word for word, n in sorted(words.items(), key=lambda item: (-item[1], item[0])) if n >= 3]
    pieces = [*_SPECIAL, *characters, *(f"##{c}" for c in characters), *frequent]
    vocabulary = list(dict.fromkeys(pieces))[:VOCABULARY]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    if writes:
        tokenizer.decoder = decoders.WordPiece()
    first, second = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    begin, more = ("", {"eos_token": "[SEP]"}) if writes else ("[CLS] ", {})
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin}$A [SEP]", pair=f"{begin}$A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", first), ("[SEP]", second)],
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=MAX_TOKENS, model_input_names=["input_ids", "attention_mask"], **more,
    )  # fmt: skip


def _set_word_vectors(network: Any, ids: Sequence[Sequence[int]], seed: int) -> None:
    """Set the word vectors: the leading singular vectors of the positive pointwise mutual information of near words."""
    import torch
    from scipy import sparse
    from sklearn.utils.extmath import randomized_svd

    n, width = network.config.vocab_size, network.config.hidden_size
    flat = np.concatenate([np.concatenate([row, np.full(NEAR, -1)]) for row in ids])
    counts = sparse.csr_matrix((n, n))
    for distance in range(1, NEAR + 1):
        a, b = flat[:-distance], flat[distance:]
        a, b = a[(a >= 0) & (b >= 0)], b[(a >= 0) & (b >= 0)]
        counts = counts + sparse.coo_matrix((np.full(len(a), 1 / distance), (a, b)), shape=(n, n)).tocsr()
    counts = (counts + counts.T).tocoo()
    share = np.asarray(counts.sum(1)).ravel() ** 0.75
    total = np.asarray(counts.sum(1)).ravel()
    pmi = np.log(counts.data * share.sum() / (total[counts.row] * share[counts.col]))
    keep = pmi > 0
    ppmi = sparse.coo_matrix((pmi[keep], (counts.row[keep], counts.col[keep])), shape=(n, n)).tocsr()
    u, s, _ = randomized_svd(ppmi, n_components=min(n, width), random_state=seed)
    vectors = u * np.sqrt(s)
    vectors -= vectors.mean(0)
    vectors *= network.config.initializer_range * math.sqrt(width) / np.linalg.norm(vectors, axis=1).mean()
    seen = np.zeros(n, dtype=bool)
    seen[np.unique(flat[flat >= 0])] = True
    table = network.get_input_embeddings().weight
    with torch.no_grad():
        table[torch.from_numpy(seen), : vectors.shape[1]] = torch.from_numpy(vectors[seen].astype(np.float32))


def _train_masked(network: Any, tokenizer: Any, ids: Sequence[Sequence[int]], seed: int) -> None:
    """Train the layers by masked-language modelling (Devlin et al. 2019)."""
    import torch

    rng = np.random.default_rng(seed)
    groups = _by_length(ids)
    steps = MLM_EPOCHS * len(groups)
    optimiser = torch.optim.AdamW(network.parameters(), lr=MLM_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, MLM_RATE, total_steps=steps, pct_start=0.1)
    network.train()
    for _ in counted("epoch", range(MLM_EPOCHS)):
        for i in rng.permutation(len(groups)):
            batch = pad(tokenizer, [{"input_ids": row} for row in groups[i]])
            hidden, targets = _mask(batch["input_ids"], len(tokenizer), tokenizer.mask_token_id, rng)
            if (targets < 0).all():
                continue  # no token of a short batch was masked: its mean loss would be NaN
            inputs = {"input_ids": hidden, "attention_mask": batch["attention_mask"], "labels": targets}
            network(**{name: torch.from_numpy(values) for name, values in inputs.items()}).loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
    network.eval()


def _by_length(ids: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    return [[ids[i] for i in order[j : j + MLM_BATCH]] for j in range(0, len(order), MLM_BATCH)]


def _mask(
    ids: npt.NDArray[np.int64], n_tokens: int, mask: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Mask 30% of the tokens: 80% of them by the mask token, 10% by a random token; 10% stay."""
    chosen = (rng.random(ids.shape) < MLM_MASKED) & (ids >= len(_SPECIAL))
    how = rng.random(ids.shape)
    hidden = np.where(chosen & (how < 0.8), mask, ids)
    hidden = np.where(chosen & (how >= 0.9), rng.integers(len(_SPECIAL), n_tokens, ids.shape), hidden)
    return hidden, np.where(chosen, ids, -100)
