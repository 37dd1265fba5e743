"""Sentences for `fact_check.py`: how a note states a fact of `clinic:facts`, and how it only mentions it.

The held-out sentences were written before the patterns of the task and the rules of the check, which were not changed
for them. Those for development were written with the patterns. All are invented.
"""

from __future__ import annotations

# fact: (sentences that state it now, of this patient; sentences that deny it or mention it of another time or person)
HELD_OUT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "felt": (
        (
            "It smarts a little when she swallows, but she eats what the family eats.",
            "Some pain on swallowing in the mornings; the menu at home is the same.",
            "He describes mild pain with swallowing and has not altered his meals.",
            "Swallowing has become uncomfortable, though nothing has been left off the plate.",
        ),
        (
            "No pain or discomfort with swallowing.",
            "She is free of odynophagia.",
            "The sore swallowing of March is long gone.",
            "Told to ring us if swallowing becomes painful.",
        ),
    ),
    "finding": (
        (
            "On the planning CT the wall of the esophagus looks thickened; he feels nothing of it.",
            "Endoscopy on Tuesday: patchy redness of the esophagus, without any complaint.",
            "Esophageal edema on the scan, an incidental finding.",
            "The barium swallow shows an irregular esophageal mucosa, otherwise she is well.",
        ),
        (
            "CT without esophageal thickening.",
            "The esophagus looks normal on the scan.",
            "Endoscopy will be considered if symptoms develop.",
            "Esophageal wall thickening on an earlier CT, no longer seen.",
        ),
    ),
    "changed": (
        (
            "Because it hurts to swallow she now lives on porridge and custard.",
            "He has moved to a pureed diet since the weekend, swallowing is too sore for anything else.",
            "Only soft food goes down.",
            "Now takes nothing but soups, as bread scrapes on the way down.",
            "Swallowing is so sore that all food is mashed.",
        ),
        (
            "No need of a soft diet so far.",
            "A soft diet was recommended should swallowing become painful.",
            "She was on purees in May and is back on normal meals.",
            "His brother has been on a liquid diet since a stroke.",
            "Denies any change to soft food or liquids.",
        ),
    ),
    "supplements": (
        (
            "Eating hurts, so three bottles of Fortisip a day make up for it.",
            "Oral nutritional supplements twice a day, meals are too painful.",
            "She gets by on small meals and nutrition drinks.",
            "Takes two Ensure daily.",
        ),
        (
            "He has not needed nutritional supplements.",
            "Nutritional supplements were offered and declined.",
            "Stopped her Ensure last month.",
            "We may add nutrition drinks if weight falls.",
        ),
    ),
    "fluids": (
        (
            "Got a litre of saline through the drip today, he cannot drink.",
            "Intravenous fluids on three days of this week for dehydration.",
            "She came up for IV hydration, having drunk next to nothing.",
            "Had to be given fluids by vein, since drinking hurts too much.",
        ),
        (
            "IV fluids were not required.",
            "He has never needed intravenous fluids.",
            "Intravenous hydration was discussed in case he stops drinking.",
            "Had IV fluids in the first cycle, none since.",
            "Her sister received IV fluids after surgery.",
        ),
    ),
    "tube": (
        (
            "A nasogastric tube was passed on Friday and feeds have begun.",
            "All nutrition is now given by the gastrostomy tube.",
            "He is fed by PEG.",
            "TPN was begun, as nothing can be swallowed.",
        ),
        (
            "No feeding tube.",
            "A PEG was discussed and he would rather wait.",
            "The gastrostomy tube was taken out in June.",
            "Declined a nasogastric tube.",
            "His late wife had been fed through a PEG.",
        ),
    ),
    "admitted": (
        (
            "He was taken into hospital on Sunday because he could no longer swallow.",
            "Currently an inpatient for dehydration, as drinking is too painful.",
            "Admitted to the ward with complete inability to swallow.",
            "Was kept in hospital for two nights since she could not drink.",
        ),
        (
            "No hospital admission for dehydration or pain.",
            "Did not need to be admitted for poor intake.",
            "Will be admitted if he cannot drink.",
            "Was hospitalized for poor intake two years ago.",
            "Admission for hydration was offered, which she declined.",
        ),
    ),
    "lost": (
        (
            "Weighs three kilos less than at the last visit.",
            "Weight is down by 3.0 kg.",
            "He has lost 3 kilograms since we last saw him.",
            "Weight loss of 3 kg.",
        ),
        (
            "Has not lost 3 kg as feared.",
            "Lost 8 kg since the last visit.",
            "Should he lose 3 kg, the dietitian will see him.",
            "He had lost 3 kg last year.",
        ),
    ),
    "fever": (
        (
            "Temp 38.4 in the clinic, febrile.",
            "Temperature today 38.4 C.",
            "She arrived with a fever of 38.4 °C.",
            "Febrile to 38.4°.",
        ),
        (
            "No temperature of 38.4 or above.",
            "Temperature 36.8 °C.",
            "To come in at once if the temperature reaches 38.4 °C.",
            "Had a fever of 38.4 last spring.",
        ),
    ),
}
DEVELOPMENT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "felt": (
        (
            "Swallowing hurts slightly; meals are the same as ever.",
            "Mild odynophagia without any change of diet.",
            "A sore swallow at night, eats normal food.",
        ),
        (
            "No odynophagia.",
            "Denies pain with swallowing or heartburn.",
            "Pain on swallowing resolved two weeks ago.",
            "May become sore on swallowing in the next weeks.",
        ),
    ),
    "finding": (
        (
            "CT today: mild thickening of the esophageal wall, no symptoms.",
            "Endoscopy shows erythema of the esophagus.",
            "Esophageal inflammation was seen on PET, she has no complaints.",
        ),
        (
            "CT shows no thickening of the esophagus.",
            "History of esophageal thickening on CT in 2019.",
            "Rule out esophageal thickening on the next CT.",
        ),
    ),
    "changed": (
        (
            "She switched to a soft diet because swallowing hurts.",
            "Pureed food only, due to pain.",
            "Lives on liquids since swallowing became too painful.",
        ),
        (
            "A soft diet has not been necessary.",
            "Was on a soft diet last month, eats everything again.",
            "A soft diet may be needed later.",
            "Mother is on a pureed diet.",
            "Soft diet because of a tooth extraction.",
        ),
    ),
    "supplements": (
        (
            "Drinks supplements three times a day because meals hurt.",
            "Started on Boost between meals.",
            "Nutrition shakes replace lunch.",
        ),
        (
            "No supplements.",
            "Supplements were discontinued.",
            "Consider supplements at the next visit.",
            "Denies use of Ensure or other drinks.",
        ),
    ),
    "fluids": (
        (
            "Received IV fluids today.",
            "Hydrated intravenously as she cannot drink.",
            "One liter of normal saline was given for dehydration.",
        ),
        (
            "No IV fluids needed.",
            "IV fluids were considered but not given.",
            "Previously required intravenous fluids.",
            "If intake drops, give IV fluids.",
        ),
    ),
    "tube": (
        (
            "Feeding tube placed on Monday.",
            "Tube feeds are running at goal.",
            "Started on total parenteral nutrition.",
        ),
        (
            "Feeding tube not indicated.",
            "PEG removed in spring.",
            "Discussed a feeding tube.",
            "Her father has a feeding tube.",
        ),
    ),
    "admitted": (
        (
            "Admitted today for dehydration.",
            "In hospital since Monday, cannot swallow.",
            "Hospitalized because of poor oral intake.",
        ),
        (
            "Never admitted for swallowing trouble.",
            "Would admit if unable to drink.",
            "Prior admission for dehydration, fully recovered.",
            "Husband was admitted for dehydration.",
        ),
    ),
    "lost": (
        ("Lost 3 kg since the last visit.", "Down 3 kg.", "3 kg lighter than last time."),
        ("No weight loss of 3 kg.", "Lost 6 kg.", "If he loses 3 kg we add supplements.", "Lost 13 kg."),
    ),
    "fever": (
        ("Fever of 38.4 °C.", "Temperature 38.4.", "Temp is 38.4 C today."),
        ("No fever.", "Temperature 37.1 °C.", "Return if temperature is above 38.4 °C.", "Temperature 138.4."),
    ),
}
# Written after the patterns and the rules, in search of what they miss: unusual words, indirect statements, contexts
# far from the mention. Neither was changed for them.
HARD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "felt": (
        (
            "Winces at each gulp, finishes her plate regardless.",
            "Meals are accompanied by a dull ache behind the breastbone; she eats what she likes.",
            "It feels like sandpaper when food goes down, the menu is unaltered.",
            "Some retrosternal pressure after bread, no food avoided.",
        ),
        (
            "Swallowing gives no trouble, and she has never had any pain there.",
            "Asked about pain on swallowing, he shakes his head.",
            "Painful swallowing was a feature of the first course, in 2021.",
            "Sore swallowing is a common effect of this treatment, the leaflet was handed out.",
        ),
    ),
    "finding": (
        (
            "MRI: circumferential mural thickening of the gullet, clinically silent.",
            "Incidentally, the gullet is inflamed on the staging scan.",
            "Radiology comments on oesophageal wall oedema; she notices nothing.",
        ),
        (
            "Repeat CT: the oesophageal thickening described in January is not reproduced.",
            "Endoscopy of the esophagus entirely unremarkable.",
            "Referred to exclude inflammation of the esophagus.",
        ),
    ),
    "changed": (
        (
            "Everything is passed through a sieve before he can get it down.",
            "Nothing firmer than semolina has been eaten this week, because of the pain.",
            "Has had to make do with jelly and ice cream.",
            "Texture: IDDSI level 4 since Monday for painful swallowing.",
        ),
        (
            "The dietitian handed out recipes for soft food, which she has had no reason to use.",
            "Soft meals are ordered for everyone on this ward.",
            "Thought about going over to liquids, then managed a roast.",
            "Eats solids; the purees in the freezer are her grandson's.",
        ),
    ),
    "supplements": (
        (
            "Relies on Fresubin to keep his weight.",
            "Meritene twice daily, as meals are an ordeal.",
            "A sip of Nutridrink every two hours is what she manages.",
        ),
        (
            "Ensure samples were left at the desk and not collected.",
            "Supplements: see dietitian if below 50 kg.",
            "The Boost prescription of last autumn has lapsed.",
        ),
    ),
    "fluids": (
        (
            "Two bags of Hartmann's went in this morning, he cannot keep up orally.",
            "Put on a drip overnight, since not even water goes down.",
            "Rehydrated in the day unit, 1500 ml over four hours.",
        ),
        (
            "Drinks two litres a day, so that the saline which had been ordered was sent back.",
            "A drip was not set up after all.",
            "Saline flush of the port, good return.",
        ),
    ),
    "tube": (
        (
            "Feeds by button, 1800 kcal in 24 hours.",
            "RIG inserted on Thursday, in use from Friday.",
            "Nutrison runs at 80 ml/h through the nose.",
        ),
        (
            "The consent for a gastrostomy lies signed in the notes, unused.",
            "Tube feeding came up again, the family is against it.",
            "Shares a room with a man on tube feeds.",
        ),
    ),
    "admitted": (
        (
            "Came through the emergency department on Friday night and is on 4 West, not able to drink.",
            "Day 3 of her stay; pain on swallowing is treated with a pump.",
            "Had to be brought in by ambulance and kept, dry and in pain.",
        ),
        (
            "Bed was booked for rehydration but she had picked up by the morning and went home.",
            "An admission for swallowing trouble was averted.",
            "The last hospital stay, for poor intake, dates from before treatment.",
        ),
    ),
    "lost": (
        ("64.0 kg, three less than on the 4th.", "3kg gone since we met.", "The scales show minus 3 kg."),
        ("Weight 3 kg above that of May.", "Lost 3 pounds.", "Lost 3 cm of waist, weight the same."),
    ),
    "fever": (
        ("T 38,4 this evening.", "Spiked 38.4 at noon.", "38.4 tympanic."),
        (
            "Never above 38.4 on his chart.",
            "Highest value at home before antibiotics: 38.4, in March.",
            "INR 38.4 is an error of the laboratory.",
        ),
    ),
}
