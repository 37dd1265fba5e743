"""What are synthetic notes worth, counted in gold notes? An experiment with five runs of each mixture.

Notes and LLM are simulated, and the model is a linear head on frozen features: seconds on a CPU. The same call with an
endpoint and `base_models=("emilyalsentzer/Bio_ClinicalBERT",)` measures yours.

    python examples/gold_equivalence.py [WORK_FOLDER]
"""

import sys
from pathlib import Path

import datasets

from hf_synth import LLM, Grid, experiment, load_gold, load_task
from hf_synth.demo.simulator import running_simulator


def main(work: Path) -> None:
    task = load_task("clinic")
    gold = load_gold(task, n_train=600, n_validation=2, n_test=300)
    grid = Grid(sizes=(100,), arms=("gold", "augment raw", "augment posterior"), ratios=(3.0,), curve=(200, 400))
    with running_simulator() as url:
        llm = LLM("simulator", base_url=url, journal=work / "journal.sqlite")
        results = experiment(task, {"simulator": llm}, gold=gold, out=work / "study", grid=grid, processes=0)
    for worth in results.worths:
        print(worth)
    print(f"the whole report: {results.out / 'report.html'}")


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out/equivalence"))
