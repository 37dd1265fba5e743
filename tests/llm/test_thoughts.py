"""Thoughts of every family of models, in every form: no token of them reaches the parsed answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from hf_synth.generation.answers import parse, parse_label
from hf_synth.llm.thoughts import without_tags, without_thoughts
from hf_synth.task.task import Task

TASK = Task.from_columns("t", text_columns="text", label_column="label", labels=["none", "mild", "severe"])
GOOD = json.dumps({"entries": [{"text": "FINAL patient with a cough for three days.", "label": "mild"}]})
DRAFT = json.dumps({"entries": [{"text": "DRAFT patient, first try.", "label": "severe"}]})

STYLES: dict[str, tuple[str, str]] = {
    "think": ("<think>", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "thought": ("<thought>\n", "\n</thought>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "reflection": ("<reflection>", "</reflection>"),
    "magistral": ("[THINK]", "[/THINK]"),
    "kimi": ("◁think▷", "◁/think▷"),
    "seed": ("<seed:think>", "</seed:think>"),
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "harmony for tools": (
        "<|channel|>commentary to=f<|message|>",
        "<|call|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
    ),
    "harmony without markers": ("analysis", "assistantfinal"),
    "gemma": ("<|channel>thought\n", "<channel|>"),
    "medgemma": ("<unused94>thought\n", "<unused95>"),
    "upper case": ("<THINK>", "</THINK>"),
    "attributes": ("<think type='deep' n=\"2\">", "</think>"),
    "blanks": ("< think >", "</ think >"),
    "escaped": ("&lt;think&gt;", "&lt;/think&gt;"),
    "solution": ("<|begin_of_thought|>", "<|end_of_thought|><|begin_of_solution|>"),
    "command": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "pipes": ("<|think|>", "<|/think|>"),
    "apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "granite": ("Here is my thought process:\n", "\nHere is my response:\n"),
    "scratchpad": ("<scratchpad>", "</scratchpad>"),
    "details": ('<details type="reasoning" done="true">', "</details>"),
    "escaped twice": ("&amp;lt;think&amp;gt;", "&amp;lt;/think&amp;gt;"),
    "numbered": ("&#60;think&#x3E;", "&#x3c;/think&#62;"),
    "harmony in capitals": ("<|CHANNEL|>analysis<|MESSAGE|>", "<|END|><|START|>assistant<|CHANNEL|>final<|MESSAGE|>"),
    "harmony with blanks": ("<| channel |>analysis<| message |>", "<| end |><| channel |>final<| message |>"),
    "harmony escaped": (
        "&lt;|channel|&gt;analysis&lt;|message|&gt;", "&lt;|end|&gt;&lt;|channel|&gt;final&lt;|message|&gt;",
    ),
    "start and end": ("<|think_start|>", "<|think_end|>"),
    "wide bars": ("<｜begin▁of▁thinking｜>", "<｜end▁of▁thinking｜>"),
    "named": ("<think:deep>", "</think:deep>"),
    "content": ("<reasoning_content>", "</reasoning_content>"),
    "inner voice": ("<inner_voice>", "</inner_voice>"),
    "German": ("<überlegung>", "</überlegung>"),
    "French": ("<réflexion>", "</réflexion>"),
    "Spanish": ("<razonamiento>", "</razonamiento>"),
}  # fmt: skip
# what a model says, by the tags of its style; in the unfinished ones there is no answer
FORMS: dict[str, Callable[[str, str], str]] = {
    "closed": lambda a, b: f"{a}We try {DRAFT} hmm.{b}{GOOD}",
    "without an opener": lambda a, b: f"Okay, a first try: {DRAFT}\nbetter:\n{b}\n\n{GOOD}",
    "nested": lambda a, b: f"{a}We try {a}{DRAFT}{b} no, {DRAFT}{b}\n{GOOD}",
    "two": lambda a, b: f"{a}{DRAFT}{b}\n{a}again {DRAFT}{b}\n{GOOD}\n",
    "after words": lambda a, b: f"Sure.\n{a}{DRAFT}{b}\n{GOOD}",
    "before a fence": lambda a, b: f"{a}```json\n{DRAFT}\n```{b}\n```json\n{GOOD}\n```",
    "unclosed": lambda a, b: f"{a}\nmaybe {DRAFT} or",
    "unclosed with an inner one": lambda a, b: f"{a}maybe {a}{DRAFT}{b} or {DRAFT}",
}  # fmt: skip
UNFINISHED = {"unclosed", "unclosed with an inner one"}
# styles whose closing mark is the start of the answer: a second thought and a nested one are written otherwise
ONE_WAY = {name for name in STYLES if name.startswith("harmony")} | {"granite"}


def texts(answer: str, *, whole: bool = True) -> list[str]:
    return [one.row["text"] for one in parse(TASK, answer, ["mild"], whole=whole) if one.row]


@pytest.mark.parametrize("style", STYLES)
def test_no_thought_reaches_a_row_or_a_vote(style: str) -> None:
    for form, say in FORMS.items():
        if style == "details" and form == "without an opener":
            continue  # a closing </details> alone may be of anything
        answer = say(*STYLES[style])
        if style in ONE_WAY and form == "unclosed with an inner one":
            answer = say(STYLES[style][0], "")
        if form in UNFINISHED:
            for whole in (True, False):
                assert [(one.row, one.reason) for one in parse(TASK, answer, whole=whole)] == [(None, "thinking")], form
            assert parse_label(TASK, answer) is None
            continue
        assert texts(answer) == ["FINAL patient with a cough for three days."], form
        vote = answer.replace(GOOD, '{"label": "mild"}').replace(DRAFT, '{"label": "severe"}')
        votes = ("mild", None) if form == "after words" else ("mild",)  # a vote stands alone
        assert parse_label(TASK, vote) in votes, form
        bare = answer.replace(GOOD, "mild").replace(DRAFT, "severe").replace("```json\n", "```\n")
        assert parse_label(TASK, bare) in votes, form


@pytest.mark.parametrize("style", [name for name in STYLES if name not in {*ONE_WAY, "solution", "command"}])
def test_a_thought_in_a_fence_of_its_own_goes_with_the_fence(style: str) -> None:
    a, b = STYLES[style]
    answer = f"```\n{a}{DRAFT}{b}\n```\n```json\n{{}}\n```"
    assert texts(answer.replace("{}", GOOD)) == ["FINAL patient with a cough for three days."]
    assert parse_label(TASK, answer.replace("{}", '{"label": "mild"}')) == "mild"


@pytest.mark.parametrize(
    "answer",
    [
        f"<think>{DRAFT}</think><answer>{GOOD}</answer>",
        f"<thinking_process>{DRAFT}</thinking_process>{GOOD}",
        f"<internal_reasoning>{DRAFT}</internal_reasoning>{GOOD}",
        f"<internal>{DRAFT}</internal>{GOOD}",
        f"\\u003cthink\\u003e{DRAFT}\\u003c/think\\u003e{GOOD}",
        f"<think>{DRAFT}<\\/think>{GOOD}",
        f"I think {DRAFT} is not good.\n<answer>{GOOD}</answer>",
        f"<reasoning>{DRAFT}</reasoning>\n<output>{GOOD}</output>",
        f"<think>{DRAFT}</think>{GOOD}<|im_end|>",
        f"<think>\n\n</think>\n\n{GOOD}",
        f"<think/>{GOOD}",
        f"<analysis>{DRAFT}</analysis>\n{GOOD}",
        f"Sure:\n<plan>{DRAFT}</plan>{GOOD}",
        f"<think\u200b>{DRAFT}</think\u200b>{GOOD}",
        f"＜think＞{DRAFT}＜/think＞{GOOD}",
        f"**Thinking:** {DRAFT}\n\n**Final answer:** {GOOD}",
        f"> {DRAFT}\n> so\n\n{GOOD}",
        f"<!-- {DRAFT} -->{GOOD}",
        f"<details><summary>Thoughts</summary>{DRAFT}</details>{GOOD}",
        f"analysis {DRAFT} assistant final {GOOD}",
        f"<|channel>thought\n{DRAFT}<channel|><|channel>final\n{GOOD}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}<|return|>",
        f"assistantanalysisWe try {DRAFT}assistantcommentaryMore {DRAFT}assistantfinal{GOOD}",
        f"```thinking\nA draft:\n```json\n{DRAFT}\n```\n```\n{GOOD}",
        json.dumps({"thinking": json.loads(DRAFT), "entries": json.loads(GOOD)["entries"]}),
        json.dumps({"entries": [{"text": f"<think>{DRAFT}</think>FINAL patient with a cough for three days."}]}),
        json.dumps({"draft": json.loads(DRAFT)["entries"], "reasoning": "x", **json.loads(GOOD)}),
        json.dumps({"result": {"any name": json.loads(DRAFT), **json.loads(GOOD), "another": [DRAFT]}}),
        json.dumps({"initial_entries": json.loads(DRAFT)["entries"], "notes": json.loads(GOOD)["entries"]}),
        f"### Thinking\n{DRAFT}\n\n### Answer\n{GOOD}",
        f"**Thinking**\n{DRAFT}\n**Final answer**\n{GOOD}",
        f"[thinking]{DRAFT}[/thinking]{GOOD}",
        f"{GOOD}\n<|think_start|>or {DRAFT}<|think_end|>",
        GOOD.replace("FINAL", "\\u003cthink\\u003eDRAFT\\u003c/think\\u003eFINAL"),
    ],
)
def test_marks_and_fields_around_an_answer(answer: str) -> None:
    assert texts(answer) == ["FINAL patient with a cough for three days."]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (f"Okay, the user wants notes. First: {DRAFT} but", "thinking"),  # the opening tag was in the prompt
        (f"Let me think of {DRAFT} and", "thinking"),
        ("analysisWe need to write entries", "thinking"),
        ("thought\nThe user wants", "thinking"),
        ('{"entries": [{"text": "<think>a draft of it", "label": "mild"}]}', "thinking"),
        (json.dumps({"entries": [{"text": "<think>draft"}]}), "thinking"),
        (f"### Thinking\nmaybe {DRAFT} or", "thinking"),
        (f"[thinking] maybe {DRAFT} or", "thinking"),
        (f"{GOOD}\n<think>or {DRAFT}", "thinking"),
        (f"<step>{DRAFT}</step> Better: {GOOD}</steps> or else {DRAFT}", "unparsable"),
        (f"Mine: {DRAFT}\nBetter: {GOOD}", "unparsable"),
    ],
)
def test_an_answer_that_ends_in_a_thought_says_so(answer: str, reason: str) -> None:
    assert {(one.row is None, one.reason) for one in parse(TASK, answer, ["mild"], whole=False)} >= {(True, reason)}
    assert texts(answer, whole=False) == []


NOTES = [
    "Physician assistant final assessment: thought to be viral; reasoning discussed with family [**Hospital**].",
    "Na < 130, thought to be SIADH; K > 5. Reflection of light is normal. < thinking of discharge >= 3 days.",
    "Analysis of CSF: clear. [thinking] deferred, [x] thought disorder absent. Patient states 'I think so'.",
    "Final diagnosis: none. <b>Bold</b> <script>alert(1)</script> and </s> stay. Thought process: linear.",
    "COT: cot side up. BP &lt; 90 & >60. Here is my plan: rest. The answer: no. ```none``` `x`",
    "analysis pending; assistant finally agreed. Response: good. Solution: saline. {braces} [brackets]",
    "<plan>rest</plan> <!-- seen --> <details>x</details> Plan: rest.\\n> quoted\\nAnswer: none. Analysis: clear.",
    "channel block | 3 <|> 4 and final read by assistant. reasoning intact, [reasoning] and [think] absent",
]


@pytest.mark.parametrize("note", NOTES)
def test_an_ordinary_note_is_not_damaged(note: str) -> None:
    answer = json.dumps({"entries": [{"text": note, "label": "mild"}]})
    for said in (
        answer,
        f"```json\n{answer}\n```",
        f"Here you are:\n{answer}\nRegards",
        json.dumps(json.loads(answer)),
    ):
        assert texts(said) == [note]
        assert without_thoughts(said).thoughts is False
    assert without_tags(note).text == note


def test_the_usual_answer_costs_little_and_a_hostile_one_ends() -> None:
    hostile = [
        "<think>" * 20_000, "</think>" * 20_000, "a<think></think>" * 20_000, "[think]" * 20_000, "<" * 100_000,
        "<|channel|>analysis" * 10_000, "<answer>" * 20_000, " " * 200_000 + "<", "```thinking\n" * 20_000,
        "```\n<think></think>```\n" * 10_000, "<think a=" * 20_000, "assistantfinal" * 20_000, "&lt;" * 50_000,
        "<|im_end|>" * 20_000, "\n" * 200_000 + "</s>", "<details type=reasoning>" * 10_000,
        "Here is my response:" * 9_000,
    ]  # fmt: skip
    began = time.process_time()
    for text in hostile:
        without_thoughts(text)
    assert time.process_time() - began < 6.0


def test_answers_by_label_are_no_drafts() -> None:
    answer = f"Mild notes: {GOOD}\nSevere notes: {DRAFT}"
    assert [one.row["label"] for one in parse(TASK, answer, ["mild", "severe"]) if one.row] == ["mild", "severe"]
    assert texts(f"{GOOD}\n\n{DRAFT}") != [], "no words between them"


def test_a_label_may_be_called_like_a_thought() -> None:
    task = Task.from_columns("t", text_columns="text", label_column="label", labels=["plan", "analysis"])
    answer = json.dumps({"plan": ["Rest and fluids for a week."], "analysis": ["Blood count is normal today."]})
    assert [one.row["label"] for one in parse(task, answer) if one.row] == ["plan", "analysis"]
