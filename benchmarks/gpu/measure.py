"""Fine-tuning, prediction and local generation on a GPU, beside what the GPU can do.

    python benchmarks/gpu/measure.py [--out docs/results/gpu.md] [--parts train predict generate]
    python benchmarks/gpu/measure.py --tiny          # the same on a CPU, with toy models; its figures say nothing

Models are built from a configuration with random weights, and nothing is downloaded: an encoder as large as
ModernBERT-base, which is fine-tuned in bfloat16 and predicts, and a Llama of about a billion weights, which writes.
Texts are random words: about 140 tokens on average, one in 50 of 512.

Tokens are useful ones: padding is not counted. The share of the device is that of the matrix products which these
tokens need (three times those of a forward pass in training) in the rate of large bfloat16 products, measured before.

The device's settings are never read or changed; only its name is asked for, and its memory in use.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from random_models import TASK, forward_flops, matmul_rate, rows_of, text_lengths, timed, write_encoder

from hf_synth.reports.page import markdown_table

PARTS = ("train", "predict", "generate")
COMMAND = "python benchmarks/gpu/measure.py"
GOAL = 0.4  # share of the rate of matrix products


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    Args:
        matmul: rows of the square matrices.
        rows: texts to train on, and to predict.
        longest: tokens of the longest texts.
        mean: tokens of a text on average.
        batches: rows of a training batch.
        budgets: tokens of a batch in prediction.
        questions: prompts that are answered.
        prompt: tokens of a prompt on average.
        answer: tokens of an answer.
        writing: tokens of a batch in generation, read and written.
    """

    matmul: int
    rows: int
    longest: int
    mean: int
    batches: tuple[int, ...]
    budgets: tuple[int, ...]
    questions: int
    prompt: int
    answer: int
    writing: tuple[int, ...]


WHOLE = Sizes(8_192, 8_192, 512, 140, (32, 64, 128), (8_192, 32_768, 131_072), 512, 400, 128, (65_536, 262_144))
TINY = Sizes(256, 24, 48, 16, (8,), (256,), 4, 12, 6, (512,))


def encoder_config(*, tiny: bool) -> Any:
    """Return the configuration of ModernBERT-base, which is the default one, or of a toy."""
    from transformers import ModernBertConfig

    small = {
        "vocab_size": 200, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64, "local_attention": 16,
    } if tiny else {}  # fmt: skip
    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return ModernBertConfig(**small, **special)


def write_llama(folder: Path, *, tiny: bool) -> Path:
    """Write a Llama with random weights and the sizes of Llama-3.2-1B, but a smaller vocabulary; or a toy."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from hf_synth.models.record import write_facts

    n_words = 100 if tiny else 32_000
    words = ["<unk>", "<s>", "</s>", "user", "assistant", *(f"w{i}" for i in range(n_words))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    fast.save_pretrained(folder)
    size = (32, 2, 2, 1, 64) if tiny else (2_048, 16, 32, 8, 8_192)
    hidden, layers, heads, key_heads, inner = size
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(words), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=key_heads, intermediate_size=inner, max_position_embeddings=4_096, bos_token_id=1,
        eos_token_id=2, tie_word_embeddings=False,
    )).to(torch.bfloat16).save_pretrained(folder)  # fmt: skip
    write_facts(folder, {"kind": "causal", "access": "open", "row_digests": []})
    return folder


# --- what is measured ------------------------------------------------------------------------------------------------
def forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: str) -> float:
    """Return the most memory that tensors took on a CUDA device since `forget_peak`; on a CPU that of the process."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure_training(base: Path, work: Path, sizes: Sizes, device: str, rate: float) -> list[list[str]]:
    """Fine-tune for one epoch at each batch size; the first batches of a short training before are not counted."""
    from hf_synth.models import training
    from hf_synth.models.inference import load_model

    lengths = text_lengths(sizes.rows, mean=sizes.mean, longest=sizes.longest)
    config = encoder_config(tiny=sizes is TINY)
    rows, flops = rows_of(lengths, config.vocab_size - 5), 3 * forward_flops(load_model(base), lengths)
    seconds, inner = [0.0], training.optimise

    def optimise(*given: Any, **more: Any) -> Any:
        seconds[0], result = timed(lambda: inner(*given, **more), device)
        return result

    lines = []
    training.optimise = optimise
    try:
        for batch in sizes.batches:
            args = {"num_train_epochs": 1, "per_device_train_batch_size": batch, "bf16": True, "save_strategy": "no"}
            some = rows.select(range(min(len(rows), 4 * batch)))
            training.train(TASK, some, base_model=base, output_dir=work / "warm", args=args)
            forget_peak(device)
            training.train(TASK, rows, base_model=base, output_dir=work / "trained", args=args)
            lines.append([f"{batch} rows", *figures(sum(lengths), seconds[0], flops, rate), f"{peak_gb(device):.1f}"])
    finally:
        training.optimise = inner
    return lines


def measure_prediction(model: Path, sizes: Sizes, device: str, rate: float) -> list[list[str]]:
    """Predict all rows twice with each setting, and count the second time: the model is loaded and warm then."""
    from hf_synth.models.inference import load_model, predict_proba

    lengths = text_lengths(sizes.rows, mean=sizes.mean, longest=sizes.longest, seed=1)
    config = encoder_config(tiny=sizes is TINY)
    rows, flops = rows_of(lengths, config.vocab_size - 5, seed=1), forward_flops(load_model(model), lengths)
    lines = []
    for dtype in (None, "bfloat16"):
        for budget in sizes.budgets:
            how: Any = {"device": device, "dtype": dtype, "tokens_per_batch": budget}
            predict_proba(TASK, model, rows, **how)
            forget_peak(device)
            seconds, _ = timed(lambda how=how: predict_proba(TASK, model, rows, **how), device)  # type: ignore[misc]
            name = f"{budget:,} tokens, {dtype or 'default'}"
            lines.append([name, *figures(sum(lengths), seconds, flops, rate), f"{peak_gb(device):.1f}"])
    return lines


def measure_generation(model: Path, work: Path, sizes: Sizes, device: str) -> list[list[str]]:
    """Answer the questions with each size of batch; the model is loaded before, and each time the journal is empty."""
    from hf_synth.llm.local import LocalLLM

    lengths = text_lengths(sizes.questions, mean=sizes.prompt, longest=4 * sizes.prompt, seed=2)
    texts = rows_of(lengths, 100 if sizes is TINY else 32_000, seed=2)["text"][:]
    asked = [[{"role": "user", "content": text}] for text in texts]
    lines = []
    for batch in sizes.writing:
        llm = LocalLLM(
            str(model), journal=work / f"{batch}.sqlite", device=device, dtype="bfloat16", batch_tokens=batch,
            max_new_tokens=sizes.answer,
        )  # fmt: skip
        llm.chat([[{"role": "user", "content": "w1 w2"}]], seed=1)  # loads it
        forget_peak(device)
        seconds, answers = timed(lambda llm=llm: llm.chat(asked, seed=0), device)  # type: ignore[misc]
        wrote, read = sum(a.completion_tokens for a in answers), sum(a.prompt_tokens for a in answers)
        failed = sum(answer.status == "error" for answer in answers)
        if failed:
            raise SystemExit(f"{failed} of {len(answers)} questions were not answered")
        speed = [f"{len(asked) / seconds:,.1f}", f"{wrote / seconds:,.0f}", f"{read / seconds:,.0f}"]
        lines.append([f"{batch:,} tokens", *speed, f"{seconds:.1f}", f"{peak_gb(device):.1f}"])
    return lines


def figures(tokens: int, seconds: float, flops: float, rate: float) -> list[str]:
    share = flops / seconds / rate
    return [f"{tokens / seconds:,.0f}", f"{flops / seconds / 1e12:.4g}", f"{share:.1%}", f"{seconds:.1f}"]


def measure(parts: Any, sizes: Sizes, device: str) -> str:
    """Measure the parts; return the page."""
    import torch
    import transformers

    tiny = sizes is TINY
    more = " --tiny" if tiny else ""
    seconds = 0.05 if tiny else 2.0
    rate = matmul_rate(device, "bfloat16", size=sizes.matmul, seconds=seconds, clock=time.perf_counter)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU ({platform.machine()})"
    about = " ".join((__doc__ or "").split("\n\n")[2].split()), " ".join((__doc__ or "").split("\n\n")[3].split())
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    text = [
        "# Fine-tuning, prediction and generation on a GPU",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on one {name} ({versions}): `{COMMAND}{more}`.",
        *about,
        f"Rate of matrix products in bfloat16 ({sizes.matmul:,} x {sizes.matmul:,}): {rate / 1e12:.4g} TFLOP/s.",
    ]  # fmt: skip
    if tiny:
        text.append("**Toy models on toy texts: these figures show that the commands run, and nothing else.**")
    shared = ["useful tokens/s", "TFLOP/s", "share of the device", "seconds", "peak GB"]
    with tempfile.TemporaryDirectory(prefix="gpu-") as place:
        work = Path(place)
        if {"train", "predict"} & set(parts):
            encoder = write_encoder(work / "encoder", encoder_config(tiny=tiny), longest=sizes.longest)
        steps: dict[str, tuple[str, list[str], Callable[[], list[list[str]]]]] = {
            "train": ("## Fine-tuning in bfloat16, one epoch", ["batch", *shared],
                      lambda: measure_training(encoder, work, sizes, device, rate)),
            "predict": ("## Prediction", ["batch and dtype", *shared],
                        lambda: measure_prediction(encoder, sizes, device, rate)),
            "generate": ("## Generation by `LocalLLM` in bfloat16",
                         ["batch", "answers/s", "tokens written/s", "tokens read/s", "seconds", "peak GB"],
                         lambda: measure_generation(write_llama(work / "llama", tiny=tiny), work, sizes, device)),
        }  # fmt: skip
        for part in parts:
            title, head, run = steps[part]
            lines = run()
            text += [title, markdown_table(head, lines)]
            if part != "generate" and not tiny:
                best = max(float(line[3].rstrip("%")) / 100 for line in lines)
                met = "met" if best >= GOAL else "not met"
                text.append(f"The goal of {GOAL:.0%} of the device is {met}: {best:.1%}.")
    return "\n\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tiny", action="store_true", help="toy models, on a CPU too: shows that everything runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    from hf_synth.models.inference import usual_device

    device = usual_device()
    if device == "cpu" and not args.tiny:
        raise SystemExit("there is no CUDA device: --tiny runs the same on a CPU")
    text = measure(args.parts, TINY if args.tiny else WHOLE, device)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
