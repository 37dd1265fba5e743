"""The language of the artificial clinic: how its writers say things, commonest first.

Each list is drawn from with falling odds, so that a few hundred notes hold the common ways and a few thousand the rare
ones. Every line was written for this file; no patient is in it.
"""

from __future__ import annotations

# --- eating as usual -------------------------------------------------------------------------------------------------
REGULAR = (
    "Eating a regular diet.", "No dysphagia or odynophagia.", "Swallowing without difficulty.", "Tolerating a regular diet well.",
    "Denies odynophagia, dysphagia.", "Good appetite, eats everything.", "PO intake is good, no pain with swallowing.",
    "No trouble with meals.", "Diet unchanged.", "Takes all consistencies without a problem.", "Meals are going down fine.",
    "Swallow is normal per pt.", "Eating steak and bread without any problem.", "Nothing sticks, nothing burns when eating.",
    "No change in what he or she can eat.", "Full diet.", "Still has three square meals a day.", "Weight up half a kilo, eating well.",
    "Reg diet, no restrictions.", "Oral intake preserved.", "Not bothered by swallowing in the least.", "Enjoys spicy food as always.",
    "Finished a plate of ribs last night without a second thought.", "Pills and solids pass easily.", "Has not had to modify diet.",
    "Eats out several times a week as before.", "No esophageal complaints whatsoever.", "Appetite robust; no alterations of texture needed.",
    "Denies pain on swallowing, has needed no softer foods.", "Swallowing remains effortless.", "Deglutition intact, diet ad lib.",
    "Chews and swallows anything put in front of them.",
)
# --- felt, but nothing about eating changes --------------------------------------------------------------------------
MILD = (
    "Mild odynophagia, eating a regular diet.", "Slight soreness with swallowing but diet unchanged.", "Some discomfort when swallowing, still eating everything.",
    "Notes a scratchy throat on swallowing, no diet change.", "New mild burning behind the sternum with meals; continues regular food.",
    "Feels a lump when swallowing, food passes normally.", "Minimal dysphagia to dry bread only, otherwise normal diet.",
    "Intermittent twinge with hot drinks, eats as usual.", "Swallowing is a bit sore in the evening; has not changed what is eaten.",
    "Low-grade odynophagia 2/10, regular textures.", "Aware of food going down, not limiting.", "Has started to notice irritation w/ swallowing, tolerating solids.",
    "Chest tightness with the first bites, settles, finishes the meal.", "A little raw on the way down yet manages a normal plate.",
    "Subtle retrosternal warmth after swallowing, no modification needed.", "Faint sting with citrus, otherwise unrestricted.",
    "Reports that swallowing 'is just noticeable'; full diet.", "Mentions a tickle at mid chest while eating, intake unaffected.",
    "Throat feels sunburned; meals same as ever.", "Barely perceptible catch with meat, washes down with water, no changes made.",
)
FINDING = (
    "CT shows mild esophageal wall thickening in the field; pt has no symptoms.", "Incidental distal esophageal thickening on restaging CT, asymptomatic, will observe.",
    "PET with diffuse FDG uptake along the esophagus, likely treatment effect; eats normally.", "EGD for Barrett surveillance: erythema of mid esophagus, no complaints.",
    "Imaging notes esophageal mural edema within the port; swallowing fine.", "Barium study for other reasons: slight mucosal irregularity at the irradiated segment; no symptoms, observation only.",
    "Scope last week incidentally found friable mid-esophageal mucosa; patient feels nothing.", "Esophagus mildly thickened on cone beam review, clinically silent.",
)
# --- eating has changed ----------------------------------------------------------------------------------------------
SOFT = (
    "Odynophagia, now on a soft diet.", "Switched to soft foods because of pain with swallowing.", "Painful swallowing; eating mostly soups and purees.",
    "Dysphagia to solids, taking soft foods only.", "Mechanical soft diet since last week due to odynophagia.", "Avoids bread and meat, living on yogurt, eggs and mashed potatoes.",
    "Can only manage oatmeal and smoothies.", "Pureed diet on account of swallowing pain.", "Cut out solids; noodles and custard go down.",
    "Meals take an hour, everything has to be blended.", "Has given up meat, cuts everything very small and adds gravy.",
    "Down to liquids and semi-solids because it hurts.", "Swallowing is painful enough that the diet has been changed to soft.", "Full liquid diet for odynophagia.",
    "Food sticks at mid chest, so sticks to broth and ice cream.", "Only lukewarm, mushy things now.", "Had to give up toast; congee and jelly for the last five days.",
    "Texture has been downgraded at home.", "Grandchildren's baby food is what works.", "Skips solid meals altogether, sips bisque.",
    "Lives on milkshakes by choice of least pain.", "What used to be dinner is now applesauce.", "Everything through the blender before it is attempted.",
    "Eats about half of former amounts and nothing that needs chewing.", "Swaps sandwiches for cream of wheat since swallowing began to burn.",
)
SUPPLEMENT = (
    "Drinking 2-3 Ensure a day.", "Started on Boost TID.", "Supplementing with nutrition shakes because meals hurt.", "Dietitian has added oral supplements.",
    "Relies on protein shakes for calories.", "Two cans of Ensure Plus daily to keep the weight.", "High-calorie drinks between meals as swallowing is sore.",
    "Takes Scandishakes, meals alone do not suffice.", "Carnation instant breakfast three times daily replaces what cannot be eaten.", "ONS prescribed, 600 kcal/day.",
    "Needs liquid nutrition on top of small meals.", "Sip feeds from the dietetic team.",
)
# --- severe ----------------------------------------------------------------------------------------------------------
FLUIDS = (
    "Received IV fluids twice this week for poor oral intake.", "IVF in the infusion room for dehydration due to odynophagia.", "Unable to keep up with fluids, 1 L NS given today.",
    "Needs IV hydration as swallowing is too painful.", "Getting normal saline every other day, cannot drink enough.", "Orthostatic from not drinking because of swallowing pain; hydrated in clinic.",
    "Bolus of saline given, takes only sips.", "Third liter of crystalloid this week since hardly anything goes down.", "Home health is running fluids overnight; water itself hurts.",
    "Parenteral hydration arranged, swallows next to nothing.", "Ringer's lactate in the day unit on account of failed intake.",
)
TUBE = (
    "PEG placed for inability to eat.", "G-tube placed last week because of severe odynophagia, feeds running.", "Dobhoff in place, tube feeds at goal.", "Now on tube feeding, nothing by mouth.",
    "NG feeds since Monday as swallowing failed.", "Relies on the gastrostomy for all calories; cannot swallow.", "Started TPN because of severe esophagitis symptoms.",
    "Bolus feeds through the new PEG, five cans a day.", "Nasojejunal tube was passed on the ward and nutrition is running through it.", "Enteral formula by pump overnight, nil orally.",
    "Central line for parenteral nutrition, gut rest.", "Feeding button carries the whole load at present.",
)
ADMITTED = (
    "Admitted for dehydration from odynophagia.", "Hospitalized for three days for inability to swallow.", "Was in hospital for pain control and nutrition, swallowing too painful.",
    "Direct admission today: cannot swallow saliva.", "Seen in the ED and admitted, unable to take anything by mouth.", "Inpatient since the weekend with intractable odynophagia.",
    "Discharged yesterday after a stay for failure to maintain oral intake.", "Sent up to the ward because nothing will go down.", "Readmitted for swallowing pain needing a PCA.",
    "Spent five nights on the oncology floor, spits rather than swallows.",
)
# --- medicines -------------------------------------------------------------------------------------------------------
TOPICAL = (
    "magic mouthwash before meals", "viscous lidocaine prn", "sucralfate slurry QID", "carafate AC and HS", "lidocaine swish and swallow", "BLM suspension",
    "Maalox/lidocaine/Benadryl", "honey and a local anaesthetic gel", "Gelclair",
)
OPIOID = (
    "oxycodone 5 mg q6h prn", "liquid hydrocodone before meals", "morphine elixir", "fentanyl patch 25 mcg", "Roxicet", "MS Contin bid with Roxanol for breakthrough", "tramadol",
    "hydromorphone liquid", "Lortab elixir", "methadone low dose at bedtime",
)
OTHER_MEDS = (
    "omeprazole 20 mg daily", "metoprolol", "lisinopril", "albuterol inhaler", "metformin", "atorvastatin", "aspirin 81", "levothyroxine", "ondansetron prn", "gabapentin",
    "tiotropium", "warfarin", "amlodipine", "sertraline", "insulin glargine", "prochlorperazine prn", "dexamethasone premedication", "pantoprazole", "furosemide", "tamsulosin",
    "allopurinol", "benzonatate", "docusate", "vitamin D", "zolpidem",
)
# --- what misleads ---------------------------------------------------------------------------------------------------
HISTORY = (
    "Had been on a soft diet last month, back to regular food now.", "Odynophagia of the first weeks has resolved, eats normally again.", "PEG was removed in the spring, eating by mouth without trouble.",
    "Earlier hospital stay for dehydration; since then full recovery and normal diet.", "Needed IV fluids during treatment, none since, regular meals.", "Ensure stopped two weeks ago, appetite is back.",
    "Previously lived on purees; that is over, had pizza yesterday.", "Swallowing pain gone, viscous lidocaine no longer needed, eats everything.", "Remembers a bad fortnight of soups, all behind now; any texture goes.",
    "Once required a feeding tube, long out, menu unrestricted.",
)
ELSEWHERE = (
    "Soft diet because of new dentures, swallowing itself is fine.", "IV fluids last week for gastroenteritis, no swallowing complaint, eats normally now.", "Admitted for pneumonia; no difficulty swallowing, regular diet.",
    "PEG in place since tongue surgery before this treatment, not used, eats by mouth normally.", "Drinks Boost since before diagnosis for weight, no pain with eating.", "Hospital stay for COPD flare, swallow normal, full meals.",
    "Takes oxycodone for hip pain; eats a normal diet.", "Received saline with cisplatin as per protocol, swallowing unaffected, regular diet.", "Liquids only yesterday for colonoscopy prep; otherwise normal food, no swallowing pain.",
    "Wife takes tube feeds, patient himself eats everything.", "Low appetite from chemo taste change, yet no pain or difficulty and no change of textures.", "Admitted with atrial fibrillation and discharged, never any trouble with food.",
)
ADVICE = (
    "Told to call if swallowing worsens.", "Counselled that a soft diet may be needed later.", "We discussed a feeding tube in case of decline; not needed at present.", "If odynophagia develops will start magic mouthwash.",
    "Return precautions: inability to drink, fever.", "Will consider IV fluids should intake drop.", "Dietitian available if required.", "Esophagitis expected in the coming weeks, reviewed signs.",
    "Not a candidate for PEG as things stand.", "Would admit only if unable to hydrate.", "Advised to keep up fluids.", "No indication for supplements today.",
)
SIDE = (
    "Mild fatigue.", "Cough is unchanged, dry.", "No fever, chills.", "Grade of dyspnea stable on exertion.", "Skin with faint erythema over the chest.", "Reflux controlled on PPI.", "Some heartburn after coffee, chronic.",
    "Oral thrush treated with nystatin.", "Hoarseness since the biopsy.", "Constipation from antiemetics.", "Sleeping poorly.", "Tingling in the fingers.", "Nausea for two days after chemo.", "Low-grade pneumonitis suspected, on prednisone.",
    "No hemoptysis.", "Hiccups now and then.", "Weight stable.", "Energy returning.", "Back pain from arthritis.", "Exertional dyspnea climbing stairs.", "Anxious about the scan.", "Ankles swell in the evening.",
    "Taste is metallic.", "Lost 1 kg since last visit.", "Alopecia.", "White plaques on the tongue have cleared.", "Sore shoulder from positioning.", "Denies chest pain.", "Walks the dog twice a day.", "Smoking cessation going well.",
)
EXAM = (
    "NAD, lungs clear.", "Oropharynx clear, no thrush.", "Lungs with scattered wheeze.", "Alert, comfortable, ECOG 1.", "Heart regular, no edema.", "Mild erythema of the anterior chest wall.", "No cervical or supraclavicular nodes.",
    "Well appearing, moist mucosa.", "Decreased breath sounds at the right base.", "Abdomen soft, nontender.", "KPS 80.", "Walks unaided, speaks in full sentences.", "Skin intact.", "Mucous membranes slightly dry.", "Cranial nerves intact.",
    "Port site clean.", "Hyperpigmentation in the field.", "No stridor.", "Cachectic but in no distress.", "Vitals stable.",
)
PLAN = (
    "Continue RT as planned.", "RTC in one week.", "Labs with next chemo.", "CT chest in 3 months.", "Continue current medications.", "Follow up with medical oncology.", "Skin care with Aquaphor.", "No treatment break.", "Weekly weights.",
    "See again on treatment day.", "Consolidation immunotherapy to start next month.", "MRI brain before PCI decision.", "Physical therapy referral.", "Social work to see.", "Repeat PFTs.", "Return in six weeks.", "Complete the remaining fractions.",
    "Taper steroids over four weeks.", "Flu vaccine given.", "PET/CT ordered.",
)
DISEASE = (
    "stage IIIA NSCLC", "limited stage small cell lung cancer", "stage IIIB adenocarcinoma of the lung", "squamous cell carcinoma of the right upper lobe", "thymoma, incompletely resected", "mid-esophageal SCC", "mediastinal Hodgkin lymphoma",
    "locally recurrent lung cancer", "GE junction adenocarcinoma", "left hilar tumor, poorly differentiated", "N2 lung cancer after lobectomy", "metastatic node at the carina", "left breast cancer with internal mammary nodes", "superior sulcus tumor",
)
