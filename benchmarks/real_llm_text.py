"""The written text of docs/results/real_llm.md. Figures stand in the tables, which `real_llm_page.py` makes."""

ABOUT = """\
# The paper's experiments with a real small LLM

Measured by `benchmarks/real_llm.py`. Nothing is simulated: texts and labels of the gold are real and openly licensed,
rows are written by a small language model in this process's care (llama.cpp), and the encoder is pretrained MiniLM. A
synthetic row's label is what the generator was asked for; nobody knows whether it is true. These generators are among
the weakest that exist: what a large one would bring is another question.
"""

HEAD = """\
What was run: MTS-Dialog (200 gold sections, 20 labels) and SDOH-NLI (200 gold pairs, 5% of them True). Each seed has
its own gold, notes, corrector and models. The generator sees two exemplars of one label and writes one row an answer,
with at most three calls for each row that is wanted; for ratio 4, which wants 800 rows, with at most two. Correctors
are a linear head on frozen features, MiniLM, and SmolLM2 as a judge; the model that is scored is a linear head or a
fine-tuned MiniLM.

## What it shows

**The paper's order does not appear. It is reversed.** Uncorrected notes help more than notes with the corrector's
labels, and more than those of `auto`, which chooses by accuracy. `auto` by macro-F1 keeps most of the gain of the
fine-tuned MiniLM on SDOH-NLI.
"""

SCORES = """\
The best score of a line is bold. Argmax is the paper's rule: the corrector's labels alone. `auto` chooses its method by
accuracy on held-out gold, or by macro-F1 (`--auto-metric macro_f1`). Where a field is empty, it was not run.
"""

CHANGES = """\
Intervals in brackets are 95% intervals over seeds; fewer than three seeds have none. Bold: beyond chance after Holm's
correction over all comparisons of the study; the last two columns are compared apart, over the ratios of the study.
"""

RECALL = """\
Means over seeds. A label is rare here when less than 10% of the test rows have it.
"""

USED = """\
- Uncorrected notes help the fine-tuned MiniLM on both tasks: on MTS-Dialog beyond chance, on SDOH-NLI with p = .055
  after Holm's correction over four comparisons. With the linear head no difference from gold alone is beyond chance
  after it, with one exception: ratio 4 on SDOH-NLI, a study with fewer comparisons.
- The corrector's labels alone take the gain of the fine-tuned MiniLM away, on both tasks, and that of the exception.
- `auto` used none of the notes in all runs on SDOH-NLI. It kept its promise, which is about gold alone, and it missed
  the gain.
- **`auto` by macro-F1 gains with the fine-tuned MiniLM on both tasks.** On SDOH-NLI it is .603, which is .114 above
  gold alone (95% interval .090 to .138) and .024 below uncorrected notes (.089 below to .041 above). In all three seeds
  it chose `clean_drop`, which left out 148 of 391 notes and changed no label. On MTS-Dialog it is .070, which is .028
  above gold alone (.008 to .047) and .004 below uncorrected notes (.018 below to .010 above), with `weight` in two
  seeds.
- With the linear head its gain is smaller and not beyond chance. On SDOH-NLI with notes of SmolLM2 it is .005, .075 and
  .064 at ratios .5, 1 and 2; where 800 notes were wanted it is .018, .009, .038 and .061 at ratios .5 to 4. Uncorrected
  notes gain .045 to .065. In half of those runs with 800 wanted, and in two of three at ratio .5, it used no note. On
  MTS-Dialog the linear head has .230 and .239 with it, .225 and .240 with uncorrected notes and .219 with gold alone.
  It used no note of Gemma in all six runs on SDOH-NLI, though uncorrected ones gain .035 and .046 there; on MTS-Dialog
  it is .229 and uncorrected .232.
- The promise of `auto` by macro-F1 says little on ten True pairs: not below gold alone by more than 19 points, at ratio
  2.
- **Who gains**: the True pairs. MiniLM finds none of them with gold alone, 27% with `auto` by macro-F1 and 34% with
  uncorrected notes. The price is accuracy, .957 before and .928 and .925 then: 4% and 5% of the other pairs are called
  True. Who is judged by accuracy should let `auto` choose by accuracy. On MTS-Dialog the 17 labels with less than 10%
  of the test rows gain recall, .138 to .165 (.177 with uncorrected notes), and accuracy rises from .549 to .569.

**Why.** The LLM is asked for as many notes of a rare label as of a common one. Gold has about ten True pairs. A
corrector that such gold trained never says True, and takes the label from every note; `auto` compares methods on the
same ten pairs, which cannot tell a gain from chance. `correct`, `run` and the card say so: *the corrector finds no
held-out gold row of True*. The report of `run` also trains on uncorrected notes, and says where they do better.

**What to do then**: label more gold of the rare label (`generate` cannot replace it). Where macro-F1 is what counts,
let `auto` choose by it (`--auto-metric macro_f1`), or keep the LLM's labels (`--method none`), and confirm the gain on
rows that were not used to find it.

Read off the curve of gold alone of the linear head, without an interval (3 runs): 200 gold with uncorrected notes are
worth some 300 to 590 gold notes on SDOH-NLI and 210 to 240 on MTS-Dialog; on SDOH-NLI with those that `auto` by
macro-F1 keeps 557 at ratio 2, at least 800 at ratio 1, and 221 to 486 where 800 were wanted. Notes alone are worth at
most 50 on MTS-Dialog, and 50 to 230 on SDOH-NLI. More than one note for each gold row adds little. SmolLM2 as a judge
brings no gain that can be told from chance. MiniLM with three epochs on 200 rows of 20 labels is far from trained: its
absolute scores on MTS-Dialog say little. A run "corrected (auto) notes alone" fails where `auto` uses no note: there is
nothing to train on.
"""

GENERATORS = """\
## Generator against generator

SmolLM2 135M was tuned to follow instructions; Gemma 3 270M is a base model. Scores are means of macro-F1 over the seeds
that both have, on the same gold and test rows. Notes are those that were trained on: `auto` may use none. With both,
the best mix of each ratio has gold and uncorrected notes.
"""

RARE = """\
## Rare section headers

Labels of MTS-Dialog with fewer than 12 test rows, which is most of them; F1 of the linear head, the mean over seeds. A
training mix finds a label when one of its runs has a test row right.
"""

SUBGROUPS = """\
## Categories of the hypotheses

Test pairs of SDOH-NLI by what the hypothesis is about, which words of its template decide (`CATEGORIES` in
`benchmarks/real_llm_page.py`). Counts are means over seeds; "True in gold" are the True pairs among the 200. Found are
True pairs that are labelled True, false alarms are other pairs that are. A change of macro-F1 has its 95% interval;
bold: beyond chance after Holm's correction over the categories of the table.

Alcohol and tobacco gain most: they have most of the True pairs in the gold. Drugs, employment and living alone, which
have few or none, get more false alarms than pairs that are found. Both hold with uncorrected notes and with `auto` by
macro-F1. No change of one category is beyond chance.
"""

SUMMARIES = """\
## Summaries of MTS-Dialog

No small pretrained sequence-to-sequence model comes as a Python package, so a T5 of two layers was trained from nothing
on real pairs. ROUGE is that of hf_synth, without stemming, on the 200 test dialogues.
"""

KEPT = """\
## Tokens and hours of a run

The mean over seeds of what one run of the generator took, for the largest ratio of a study. Tokens are those of the
answers that rows or rejects came of. Hours are wall time on at most two cores; answers that an earlier, stopped call
had kept took none.
"""

FULL = """\
[runs.jsonl](real_llm/runs.jsonl) has a line for each run. Prompts are in [prompts.json](real_llm/prompts.json).
[rows.csv](real_llm/rows.csv) lists each row with its label, status and sha256; the texts are not in this repository.

Not run: ratio 4 on MTS-Dialog, Gemma on MTS-Dialog beyond ratio .5, and Gemma with a fine-tuned encoder.
`auto` by macro-F1 was run later than the rest, on the same notes, and no LLM was asked. The X that `auto` promises by
accuracy is that of the version that ran it: where it is above 0, it is half a point higher now.

## All tables
"""
