"""Generation and correction as one function for `datasets.map`: 1 -> n rows, 1 -> 1, and streaming.

Notes are artificial, the LLM is the simulator, the corrector is a tiny model. In your own script name your endpoint,
your gold and a base model instead. A second run makes no call: the answers are in the journal, and `datasets` finds
the mapped rows in its cache.

    python examples/map_generate_and_correct.py [WORK_FOLDER]
"""

import sys
from pathlib import Path

import datasets

from hf_synth import LLM, GenerateAndCorrect, fit_policy, generate, load_gold, load_task, train
from hf_synth.demo.encoder import DEMO_ARGS, make_encoder
from hf_synth.demo.simulator import running_simulator


def main(work: Path) -> None:
    task = load_task("clinic")
    gold = load_gold(task, n_train=120, n_validation=60, n_test=2)
    base = make_encoder(gold["train"]["text"], work / "encoder", seed=0)  # yours: "emilyalsentzer/Bio_ClinicalBERT"
    how = {**DEMO_ARGS, "max_steps": 60}
    corrector = train(task, gold["train"], base_model=base, output_dir=work / "corrector", args=how)

    with running_simulator() as url:  # yours: "http://127.0.0.1:8000/v1"
        llm = LLM("simulator", base_url=url, journal=work / "journal.sqlite")
        pilot = generate(task, gold["train"], llm, n=80)
        policy = fit_policy(task, pilot, corrector, gold=gold["validation"], method="posterior")
        transform = GenerateAndCorrect(task, llm, corrector, exemplars=gold["train"], policy=policy, n=3)
        rows = gold["train"].select(range(20))
        many = rows.map(transform, **transform.map_kwargs_for(rows))
        print(f"1 -> n: {len(rows)} gold rows became {len(many)} synthetic rows")

        one = GenerateAndCorrect(task, llm, corrector, exemplars=gold["train"], policy=policy)
        paired = rows.map(one)
        same = sum(a == b for a, b in zip(paired["text"], rows["text"], strict=True))
        print(f"1 -> 1: {len(paired)} rows, {same} of them with the text of their gold row")

        stream = rows.to_iterable_dataset()
        first = next(iter(stream.map(one, **one.map_kwargs_for(stream))))
        label = None if first["label"] is None else task.labels[first["label"]]
        print(f"streaming: the first row is {first['label_status']}, its label {label}")


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out/map"))
