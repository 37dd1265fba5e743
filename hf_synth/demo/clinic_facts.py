"""The facts of `clinic:facts`: what a grade follows from, in words that an LLM is asked to state, and patterns of it.

A note is asked for one state of swallowing, which decides the grade (`clinic.grade_of`), a weight and a temperature,
which do not. The patterns only find where a text mentions a value: whether it states it is read by
`generation.fact_check`.
"""

from __future__ import annotations

from hf_synth.task.facts import Fact, Facts, quantity

_SWALLOW = r"(?:swallow\w*|odynophagia|dysphagia)"
_ORAL = (
    r"(?:swallow|odynophagia|dysphagia|dehydrat|drink|eat\b|intake|nutrition|by mouth|saliva|PCA|go down|hydrat|"
    r"esophag)"
)
_HURTS = (
    r"(?:sore\w*|pain\w*|hurts?|sting\w*|burn\w*|uncomfortable|discomfort|smarts?|twinge|irritat\w*|raw|tight\w*|"
    r"lump|scratchy|catch|tickle|warmth)"
)
# A cause beside which a softer diet, fluids or an admission says nothing of swallowing.
_ELSEWHERE = (
    r"(?![^.;\n]{0,60}\b(?:because of|due to|for|from|with|since|after) (?:\w+ ){0,2}(?:dentures?|teeth|tooth|dental|"
    r"gastroenteritis|pneumonia|COPD|colonoscopy|cisplatin|surgery|(?:atrial )?fibrillation|flare|preparation|prep)\b)"
)
FELT = (
    rf"{_HURTS}[^.;\n]{{0,50}}\b(?:{_SWALLOW}|first bites|meals?|eating)|{_SWALLOW}[^.;\n]{{0,40}}\b{_HURTS}|"
    r"(?:mild|minimal|slight|low-grade|some|intermittent) (?:odynophagia|dysphagia)|\bodynophagia\b|"
    r"throat feels|aware of food going down|swallowing '?is '?just noticeable|on the way down"
)
SEEN = (
    r"(?:\bCT\b|\bPET\b|scan\b|scope\b|imaging|endoscop\w*|\bEGD\b|barium|cone beam)[^.;\n]{0,60}(?:esophag\w*|mucosa)"
    r"[^.;\n]{0,60}(?:thick\w*|edema|uptake|erythema|redness|irregular\w*|friable|inflam\w*|swell\w*)|"
    r"(?:thick\w*|edema|uptake|erythema|redness|irregular\w*|friable|inflam\w*)[^.;\n]{0,60}(?:esophag\w*|mucosa\w*)|"
    r"\bchanges? of the esophagus on (?:imaging|endoscopy|CT)|"
    r"esophag\w*[^.;\n]{0,30}(?:thick\w*|edema|uptake|erythema|redness|irregular\w*|friable|inflam\w*)"
)
CHANGED = (
    r"(?:(?:soft(?:er)?|puree[ds]?|mechanical soft|(?:full )?liquid|blended|mashed|mushy)\b(?: (?:soft|textured?))?"
    r"[ -](?:diets?|foods?|meals?|things|textures?)|"
    r"\bpurees?\b|\bpureed\b|\b(?:only|mostly|but|to|of|on) (?:\w+ )?(?:soups?|broth|liquids|smoothies|milkshakes|"
    r"porridge|oatmeal|yogurt|custard)\b|\b(?:lives?|living|gets by) (?:\w+ )?(?:on|off) (?:\w+ ){0,2}(?:liquids|"
    r"yogurt|milkshakes|porridge|soups?|custard|puree\w*)|given up (?:meat|solids?|toast|bread)|"
    r"(?:cut|left) out (?:all )?solids?|avoids? (?:bread|meat|solids?)|"
    r"through (?:a|the) blender|to be blended|(?:is|are) (?:mashed|blended)|"
    r"oatmeal and smoothies|applesauce|baby food|liquids and semi-solids|solid meals|texture (?:of \w+ )?has been "
    rf"downgraded|for cream of wheat|diet (?:has been|was) changed to soft){_ELSEWHERE}"
)
SUPPLEMENTS = (
    r"\b(?:ensure|boost|scandishakes?|fortisip|fresubin)\b|(?:nutrition(?:al)?|oral|protein|high-calorie) "
    r"(?:nutritional )?(?:supplements?|shakes?|drinks?)|\bsupplements?\b|\bONS\b|sip feeds?|liquid nutrition|"
    r"instant breakfast"
)
FLUIDS = (
    r"(?:\b(?:IV|intravenous|parenteral) (?:fluids?|hydration)|\bIVF\b|(?:normal )?saline|ringer'?s|crystalloid|"
    r"\bNS\b|hydrat(?:ed|ion) (?:in clinic|intravenously|by vein)|fluids? (?:by|through a) (?:vein|drip)|"
    rf"running fluids|through (?:a|the) drip){_ELSEWHERE}"
)
TUBE = (
    r"\bPEG\b(?! (?:in place )?since)|feeding tube|\bG-tube\b|gastrostomy(?! from)|naso(?:gastric|jejunal)|"
    r"\bNG (?:tube|feed\w*)|dobhoff|tube[ -]feed\w*|\bTPN\b|parenteral nutrition|enteral (?:formula|feed\w*|nutrition)|"
    r"feeding button|bolus feeds|\bfed (?:by|through|via) (?:an? )?(?:\w+ )?(?:tube|vein)"
)
ADMITTED = (
    rf"(?:(?:re)?admitted|admission|hospitali[sz]ed|in(?:to)? hospital|inpatient|stay for|to the ward|nights on the)"
    rf"[^.;\n]{{0,70}}{_ORAL}|nothing will go down"
)
_WEIGHT = r"(?:los[tes]+|fall\w*|fell|lighter|down|below|under|less|loss)"


def _lost(kilos: int) -> str:
    amount = quantity(kilos, "kg")
    return rf"\b{_WEIGHT}\b[^.;\n]{{0,25}}?{amount}|{amount} (?:\w+ )?{_WEIGHT}\b"


FACTS = Facts(
    items=(
        Fact("swallowing", (
            ("ordinary meals without pain or trouble", 0, ""),
            ("mild discomfort on swallowing, while all foods are still eaten", 1, FELT),
            ("a mild, unfelt change of the esophagus on imaging or endoscopy", 1, SEEN),
            ("the diet was changed to soft or liquid food because swallowing hurts", 2, CHANGED),
            ("takes oral nutritional supplements because meals hurt", 2, SUPPLEMENTS),
            ("received intravenous fluids because drinking hurts too much", 3, FLUIDS),
            ("fed by a tube or by vein because swallowing failed", 3, TUBE),
            ("was taken into hospital because of swallowing", 3, ADMITTED),
        )),
        Fact("weight", (
            ("no loss of weight", 0, ""),
            ("lost 3 kg since the visit before", 0, _lost(3)),
            ("lost 6 kg since the visit before", 0, _lost(6)),
        )),
        Fact("temperature", (
            ("no fever", 0, ""),
            ("fever of 38.4 °C", 0, quantity(38.4)),
        )),
    ),
    combine="max",
    bounds=(1, 2, 3),
)  # fmt: skip

# The state of swallowing by its wording, in the words of `clinic.Facts`; "regular" for none of them.
SWALLOWING = dict(
    zip(
        (value[0] for value in FACTS.items[0].values),
        ("regular", "felt", "finding", "changed", "supplements", "fluids", "tube", "admitted"),
        strict=True,
    )
)
