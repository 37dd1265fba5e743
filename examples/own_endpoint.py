"""An LLM endpoint of your own, with a price, a budget and a journal: what is paid for is never paid for twice.

Any server that speaks OpenAI's protocol will do; here the simulator plays one, at invented prices.

    python examples/own_endpoint.py [WORK_FOLDER]
"""

import sys
from pathlib import Path

from hf_synth import LLM, generate, load_gold, load_task
from hf_synth.demo.simulator import running_simulator

PRICE = (3.0, 15.0)  # dollars per million tokens read and written; invented


def main(work: Path) -> None:
    task = load_task("clinic")
    gold = load_gold(task, n_train=80, n_validation=2, n_test=2)["train"]
    with running_simulator() as url:  # yours: "http://127.0.0.1:8000/v1", "https://api.openai.com/v1", ...

        def llm(budget: float) -> LLM:
            journal = work / "journal.sqlite"  # without it: next to the gold
            return LLM("simulator", base_url=url, price=PRICE, budget_usd=budget, journal=journal, concurrency=8)

        for run, budget in (("first", 1.0), ("same again", 1.0), ("twice as many", 1.0)):
            one = llm(budget)
            rows = generate(task, gold, one, n=120 if run == "twice as many" else 60)
            good = sum(status != "rejected" for status in rows["label_status"])
            print(f"{run}: {good} notes, ${one.spent_usd:.4f} spent in this run")

        one = llm(budget=0.5)
        rows = generate(task, gold, one, n=2_000)
        good = sum(status != "rejected" for status in rows["label_status"])
        print(f"2,000 notes with a budget of $0.50: {good} notes, ${one.spent_usd:.4f} spent, then it stopped")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out/endpoint"))
