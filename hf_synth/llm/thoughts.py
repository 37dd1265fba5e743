"""Thoughts in the text of a reply: what a reasoning model thinks is cut out, and only its answer is read.

A server without a reasoning parser leaves the thoughts in the text, between tags that each family of models writes in
its own way; templates that put the opening tag into the prompt leave the closing tag alone. Thoughts hold drafts, which
look like answers. When it is not certain where the thoughts end, all that may be a thought is cut, and the answer is
asked for again.

The tags of these families are known: <think>, <thinking>, <thought>, <reasoning>, <reflection> and the like (DeepSeek,
Qwen, EXAONE, Marco, Reflection), with a prefix (<seed:think>), [THINK] (Magistral), ◁think▷ (Kimi),
<|begin_of_thought|> (Sky-T1, OpenThinker), <|START_THINKING|> (Command A), <|channel>thought (Gemma 4), <unused94>
(MedGemma), the channels of harmony (gpt-oss), "Here is my thought process:" (Granite), and fenced blocks of that name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

THINKING = "thinking"  # code of a reply, and reason of a row, where thoughts are all that there is
_NAMES = (
    r"(?:(?:think(?:ing)?|thought|reasoning)(?:[_ -]?(?:process|steps?|mode|trace|chain|block|content|text))?|thoughts|"
    r"(?:self[_-]?)?reflections?|scratch_?pad|rationale|monologue|cot|"
    r"(?:inner|internal|hidden)_?(?:thoughts?|thinking|monologue|reasoning|voice|dialogue)|chain_of_thought|"
    r"deliberat(?:e|ion)|cognition|antthinking|"
    r"(?:nach)?denken|gedanken(?:gang)?|überlegung(?:en)?|raisonnement|r[ée]flexions?|pens[ée]es?|razonamiento|"
    r"pensamientos?)"
)
# Names that a note may hold as a tag: they count where an answer does not begin with its JSON.
_WIDE = (
    r"(?:analysis|plan(?:ning)?|drafts?|brainstorm(?:ing)?|chain-of-thought|reflect|reason|notes_to_self|internal|hidden|"
    r"steps?|critique|analyse|análisis)"
)
_LESS = r"(?:<|&(?:amp;)*(?:lt|\#0*60|\#x0*3c);|＜|\\u003c)"
_MORE = r"(?:>|&(?:amp;)*(?:gt|\#0*62|\#x0*3e);|＞|\\u003e)"
_GAP = r"[\s\u200b\u2060\ufeff]?"
_PREFIX = r"(?:[a-z]\w{0,20}:)?"
_FINAL = ("final", "answer", "response")
# An opening or closing tag; the groups are (closing mark, name) of each style. Attributes must look like attributes: a
# note may say "Na < thought to be low".
_TAG = re.compile(
    rf"{_LESS}{_GAP}(?P<xml_end>(?:\\?/)?){_GAP}(?P<xml>{_PREFIX}{_NAMES}(?::\w{{1,20}})?|(?P<wide>{_WIDE}))"
    rf"(?:\s+[\w:.-]+\s*=[^<>&]{{0,200}}?)?{_GAP}(?P<empty>/?){_MORE}"
    rf"|\[\s?(?P<square_end>/?)\s?(?P<square>{_NAMES})\s?\]"
    r"|[◁◀⟨]\s?(?P<kimi_end>/?)\s?(?P<kimi>think(?:ing)?)\s?[▷▶⟩]"
    rf"|{_LESS}[|｜]\s?(?P<pipe_end>/|end[_▁]?(?:of[_▁]?)?)?(?:(?:begin|start)[_▁]?(?:of[_▁]?)?)?(?P<pipe>{_NAMES})"
    rf"(?:[_▁](?:start|begin|(?P<pipe_last>end)))?\s?[|｜]?{_MORE}"
    r"|<\|channel>[ \t]?(?P<gemma>[a-z_]{0,20})|(?P<gemma_end><channel\|>)"
    r"|<unused(?P<medgemma>9[45])>(?:thought\b)?"
    r"|<\|inner_(?P<inner>prefix|suffix)\|>"
    r"|<details(?P<details>[^<>]{0,300})>|(?P<details_end></details>)",
    re.IGNORECASE,
)
_SQUARE = re.compile(rf"\[\s?(/?)\s?({_NAMES})\s?\]", re.IGNORECASE)
_HINT = re.compile(  # a quick look: most texts have none
    rf"{_LESS}\s?[|｜]|<channel\||<unused9|<details|[◁◀⟨]|{_LESS}{_GAP}\\?/?{_GAP}{_PREFIX}(?:{_NAMES}|{_WIDE})\b|\[\s?/?\s?{_NAMES}\s?\]",
    re.IGNORECASE,
)
# Harmony: the header of a message, with some or all of its markers; the last final message is the answer.
_HEADER = re.compile(
    r"<\|channel\|>\s?(?P<channel>[a-z]+)[^<\n]{0,80}(?:<\|constrain\|>[^<\n]{0,40})?(?:<\|message\|>)?"
    r"|<\|start\|>\s?(?:assistant)?\s?(?P<bare>[a-z]*)\s?<\|message\|>",
    re.IGNORECASE,
)
_MARKER = re.compile(
    rf"{_LESS}\|\s?(?P<name>channel|message|start|end|return|call|constrain)\s?\|{_MORE}", re.IGNORECASE
)
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
# Harmony, Gemma and Granite without markers.
_STRIPPED_FINAL = re.compile(r"assistantfinal(?:\s?json(?=\s*[\[{]))?(?:<\|message\|>)?")
_STRIPPED_START = re.compile(
    r"\s*(?:assistant)?(?:analysis|commentary(?: to=\S+)?)(?=[^\s:;,.\-|_*`)\]/]|\n)|\s*thought\n"
)
_GRANITE = re.compile(r"[\s#*]*here(?: is|['’]s) my thought process\b.{0,3}:", re.IGNORECASE)
_GRANITE_END = re.compile(r"here(?: is|['’]s) my response\b.{0,3}:(?:\*\*)?", re.IGNORECASE)
_SPACED, _SPACED_FINAL = re.compile(r"\s*(?:assistant\s)?analysis\s"), re.compile(r"\bassistant\s?final\b")
# Thoughts under a heading, in lines marked as quoted, and in comments.
_HEADED = re.compile(
    r"[\s*#_]*(?:thinking|thoughts?|thought process|reasoning|chain of thought|scratchpad|analysis|drafts?)"
    r"(?:[\s*_]*:|(?<=[\w*_])[ \t*_]*(?=\n))",
    re.IGNORECASE,
)
_ANSWER_HEAD = re.compile(
    r"^[ \t*#_]*(?:final )?(?:answer|output|response|result|json)(?:[ \t*_]*:[ \t*_]*|[ \t*_]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_QUOTED = re.compile(r"\s*(?:>[^\n]*(?:\n|\Z))+")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FENCED = re.compile(rf"^[ \t]*```[ \t]*{_NAMES}[ \t]*$", re.IGNORECASE | re.MULTILINE)
_FENCE_LINE = re.compile(r"^[ \t]*```[ \t]*(\w*)[ \t]*$", re.MULTILINE)
_OPEN_FENCE, _CLOSE_FENCE = re.compile(r"```[ \t]*\w*\s*\Z"), re.compile(r"\s*```[ \t]*(?=\n|\Z)")
# Marks around an answer, and a model's own marks of its end.
_ANSWERS = ("answer", "final_answer", "finalanswer", "solution")
_WRAPPED = re.compile(
    r"<(?P<name>answer|final_?answer|solution|output|response|final|conclusion)\b[^<>]{0,100}>"
    r"(?P<answer>.*?)(?:</(?P=name)\s*>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_PIPES = re.compile(
    r"<\|(?:(?:begin|end)_of_(?:solution|box)|(?:START|END)_(?:RESPONSE|TEXT|ACTION))\|>"
    r"|<\|channel>(?:final|answer|response)\s?"
)
_LAST = re.compile(
    r"(?:<\|(?:im_end|end|endoftext|end_of_text|eot_id|eom_id|return|end_of_turn)\|>|</s>|<eos>|<end_of_turn>"
    r"|<｜end▁of▁sentence｜>)\Z"
)
_BEGINS = re.compile(r"[\s`~*\ufeff]*+(?:json\s*+)?[\[{|]", re.IGNORECASE)
_MUSING = re.compile(
    r"\W*(?:ok(?:ay)?|alright|hm+|let(?:['’]s| me| us)|first|next|now|so|well|wait|maybe|perhaps|"
    r"(?:i|we)(?: |['’]ll )(?:\w+ )?(?:need|should|must|have|will|want|think|try|write)|i['’]ll|the user|"
    r"the (?:task|prompt|instructions?))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Said:
    """What a text says beside its thoughts.

    Args:
        text: the text without them; empty where the last thought has no end.
        thoughts: whether there were any.
        unfinished: whether the last thought has no end.
    """

    text: str
    thoughts: bool = False
    unfinished: bool = False


_UNFINISHED = Said("", thoughts=True, unfinished=True)


def without_thoughts(text: str, *, whole: bool = True) -> Said:
    """Cut the thoughts out of a model's text.

    Args:
        whole: False for a text that was cut at the token limit. One that begins like thinking aloud is then taken for
            a thought whose end was not reached, since templates may put the opening tag into the prompt.

    Returns:
        The rest of the text, without marks around an answer and without a model's own marks of the end.
    """
    said = _cut(text)
    if not said.thoughts and not whole and _MUSING.match(text) and not _BEGINS.match(text):
        return _UNFINISHED
    return replace(said, text=_unwrap(said.text)) if "<" in said.text else said


def without_tags(text: str) -> Said:
    """Cut tagged thoughts out of one text of an answer; unlike a whole answer, a note may hold any words."""
    return _cut_tags(text, 0) if _HINT.search(text) else Said(text)


def _json_start(text: str) -> int:
    """Return where the first JSON begins."""
    return min((place for place in (text.find("{"), text.find('["'), text.find("[{")) if place >= 0), default=len(text))


def _cut(text: str) -> Said:
    """Cut thoughts of every form, one form after the other."""
    marked = _HINT.search(text) is not None
    thoughts = False
    if marked and "|" in text:  # markers of harmony may come escaped
        text = _MARKER.sub(lambda marker: f"<|{marker['name'].lower()}|>", text)
    if marked and ("<|channel|>" in text or "<|message|>" in text):
        if (said := _cut_harmony(text)).unfinished:
            return said
        text, thoughts = said.text, said.thoughts
    elif (place := text.rfind("assistantfinal")) >= 0 and (final := _STRIPPED_FINAL.match(text, place)):
        text, thoughts = text[final.end() :], True
    elif _GRANITE.match(text) or (_GRANITE_END.search(text) and not _BEGINS.match(text)):
        *_, place = -1, *(end.end() for end in _GRANITE_END.finditer(text))
        if place < 0:
            return _UNFINISHED
        text, thoughts = text[place:], True
    elif (spaced := _SPACED.match(text)) and (finals := _SPACED_FINAL.split(text[spaced.end() :]))[1:]:
        text, thoughts = finals[-1], True
    elif _STRIPPED_START.match(text):
        return _UNFINISHED
    elif _HEADED.match(text):
        if (answers := _ANSWER_HEAD.split(text))[1:]:
            text, thoughts = answers[-1], True
        elif "{" in text and not text.rstrip().endswith(("}", "]", "```", ">")):
            return _UNFINISHED
    elif (quoted := _QUOTED.match(text)) and text[quoted.end() :].strip():
        text, thoughts = text[quoted.end() :], True
    if 0 <= text.find("<!--") < _json_start(text):
        text = _COMMENT.sub("", text, count=1)
    for cut in (_cut_tags if marked else None, _cut_fenced if "```" in text else None):
        if cut is not None:
            if (said := cut(text)).unfinished:
                return said
            text, thoughts = said.text, thoughts or said.thoughts
    return Said(text, thoughts)


def _cut_harmony(text: str) -> Said:
    """Return the last final message of harmony's channels; text before the first header is a thought."""
    *_, last = None, *_HEADER.finditer(text)
    if last is None:
        return Said(text)
    if (last["channel"] or last["bare"] or "final").lower() not in _FINAL:
        return _UNFINISHED
    answer = text[last.end() :]
    end = _MESSAGE_END.search(answer)
    return Said(answer[: end.start()] if end else answer, thoughts=True)


def _cut_tags(text: str, start: int | None = None) -> Said:
    """Cut what stands between tags, nested ones with it; a closing tag alone makes all before it a thought.

    Args:
        start: where tags that a note may hold no longer count; the first JSON when None.
    """
    start = _json_start(text) if start is None else start
    kept: list[str] = []
    open_tags: list[str] = []
    place, thoughts = 0, False
    paired = {f"{mark}{word}".lower() for mark, word in _SQUARE.findall(text)}
    if opening := _SQUARE.match(text.lstrip()):  # an answer that begins with a tag
        paired |= {opening[2].lower(), f"/{opening[2].lower()}"}
    for tag in _TAG.finditer(text):
        name, ends = _read_tag(tag, paired)
        doubtful = tag["wide"] or (tag["details"] is not None and "reasoning" not in tag["details"])
        if doubtful and name not in open_tags and (ends or tag.start() >= start):
            continue
        if not name or (name == "details" and ends and "details" not in open_tags):
            continue
        if tag["empty"] and not ends:
            if not open_tags:
                kept.append(text[place : tag.start()])
                place = tag.end()
        elif not ends:
            if not open_tags:
                kept.append(text[place : tag.start()])
            open_tags.append(name)
        elif name in open_tags:
            while open_tags.pop() != name:
                pass
            place = tag.end()
        elif not open_tags:  # the opening tag was in the prompt
            kept, place = [], tag.end()
        thoughts = True
    if open_tags:
        return _UNFINISHED
    return Said(_joined([*kept, text[place:]]), thoughts=True) if thoughts else Said(text)


def _read_tag(tag: re.Match[str], paired: set[str]) -> tuple[str, bool]:
    """Return a name that opening and closing tags share, "" for what is no tag of a thought, and whether it closes."""
    if tag["gemma_end"]:
        return "channel", True
    if tag["gemma"] is not None:
        return "" if tag["gemma"].lower() in _FINAL else "channel", False
    if tag["medgemma"]:
        return "unused", tag["medgemma"] == "95"
    if tag["inner"]:
        return "inner", tag["inner"].lower() == "suffix"
    if tag["details"] is not None or tag["details_end"]:
        return "details", bool(tag["details_end"])
    if word := tag["square"]:  # notes have square brackets too: capitals, or a pair
        pair = {word.lower(), f"/{word.lower()}"} <= paired
        sure = word.isupper() or pair or tag["square_end"]
        return f"square {word.lower()}" if sure else "", bool(tag["square_end"])
    for style in ("xml", "kimi", "pipe"):
        if tag[style]:
            return f"{style} {tag[style].lower()}", bool(tag[f"{style}_end"] or (style == "pipe" and tag["pipe_last"]))
    return "", False


def _joined(parts: list[str]) -> str:
    """Join what stands around thoughts; the fence around a thought goes with it."""
    out = parts[:1]
    fences = out[0].count("```")
    for part in parts[1:]:
        fence, after = _OPEN_FENCE.search(out[-1], max(0, len(out[-1]) - 40)), _CLOSE_FENCE.match(part)
        if fence and after and fences % 2 == 1:
            out[-1], part = out[-1][: fence.start()], part[after.end() :]
            fences -= 1
        fences += part.count("```")
        out.append(part)
    return "".join(out)


def _cut_fenced(text: str) -> Said:
    """Cut fenced blocks that are named as thoughts, with the blocks inside them."""
    kept: list[str] = []
    place = 0
    while start := _FENCED.search(text, place):
        kept.append(text[place : start.start()])
        depth = 1
        for line in _FENCE_LINE.finditer(text, start.end()):
            depth += 1 if line[1] else -1
            if not depth:
                place = line.end()
                break
        else:
            return _UNFINISHED
    return Said("".join([*kept, text[place:]]), thoughts=True) if kept else Said(text)


def _unwrap(text: str) -> str:
    """Take an answer out of the marks around it, where it does not begin without them."""
    text = _PIPES.sub("", text).rstrip()
    while end := _LAST.search(text, max(0, len(text) - 40)):
        text = text[: end.start()].rstrip()
    if _BEGINS.match(text):
        return text
    answers = list(_WRAPPED.finditer(text))
    if any(answer["name"].lower() in _ANSWERS for answer in answers):
        return "\n".join(answer["answer"] for answer in answers)
    if len(answers) == 1 and answers[0][0] == text.lstrip():
        return answers[0]["answer"]
    return text
