"""Sentences of the simulated LLM: longer than the clinic's phrases, in another style, with a vocabulary as wide.

Each sentence is whole and in one list only, so that `simulator.true_label` finds the facts of a note in its text.
"""

from __future__ import annotations

REGULAR = (
    "The patient continues to eat a regular diet without any difficulty swallowing.",
    "There is no dysphagia and no odynophagia at this time.",
    "Swallowing is effortless and all consistencies are tolerated.",
    "Appetite is excellent and meals include steak, bread and spicy food.",
    "Oral intake is preserved and there are no esophageal complaints.",
    "The diet is unrestricted and unchanged from baseline.",
    "The patient denies that food sticks or burns.",
    "Pills and solid food pass easily.",
    "Three full meals a day are taken with no modification of texture.",
    "Nothing about eating or drinking has changed since treatment began.",
    "The patient reports going out for pizza with no discomfort at all.",
    "Deglutition is intact and the patient eats ad libitum.",
    "No softer foods have been needed.",
    "Food goes down fine and weight is up slightly.",
    "He or she is not bothered by swallowing in the least.",
    "The full menu is enjoyed without pain.",
    "The patient chews and swallows anything that is served.",
    "Swallowing remains normal on direct questioning.",
    "Ribs and toast were eaten last night without a second thought.",
    "The patient eats well and has had to give up nothing.",
)
HISTORY = (
    "The soft diet of the earlier weeks has been given up and regular meals have resumed without pain.",
    "Prior odynophagia has fully resolved and any texture is tolerated again.",
    "The feeding tube was removed some time ago and the patient eats everything by mouth.",
    "The earlier hospital stay for dehydration is behind the patient, who now eats normally.",
    "Nutritional supplements were stopped because the appetite has returned and swallowing is painless.",
    "Viscous lidocaine is no longer needed now that swallowing is comfortable and the diet is full.",
    "Intravenous fluids were needed during treatment but not since, and regular meals are taken.",
    "The weeks of purees and soups are over and yesterday's dinner was a sandwich.",
)
ELSEWHERE = (
    "A soft diet is followed only because of new dentures, while swallowing itself is normal.",
    "The patient received saline for gastroenteritis and has no trouble with swallowing or with regular food.",
    "A recent admission for pneumonia is noted, and swallowing was never a problem.",
    "A gastrostomy from earlier tongue surgery remains in place unused while the patient eats normally by mouth.",
    "Boost is taken out of long habit for weight, with painless swallowing and full meals.",
    "Oxycodone is taken for hip pain alone and the diet is regular.",
    "Saline was given with cisplatin per protocol, and eating is unaffected.",
    "Taste is altered by chemotherapy although swallowing is painless and textures are unchanged.",
    "A stay in hospital for a flare of lung disease did not involve swallowing, and full meals are eaten.",
)
MILD = (
    "There is mild odynophagia, but the diet has not changed.",
    "Slight soreness on swallowing is noticed while all foods are still eaten.",
    "The patient feels a lump on swallowing, yet food passes normally and meals are complete.",
    "A scratchy sensation accompanies swallowing without any change of diet.",
    "Some burning behind the sternum occurs with meals, which are otherwise regular.",
    "A twinge with hot drinks is reported and eating is as usual.",
    "Low-grade discomfort of 2/10 on swallowing does not limit textures.",
    "The first bites are tight, then a normal plate is finished.",
    "The throat feels sunburned, although meals are the same as ever.",
    "A faint sting with citrus is mentioned and intake is unaffected.",
    "There is minimal dysphagia to dry bread, overcome with water, and nothing has been given up.",
    "A tickle at mid chest while eating has required no modification.",
    "The patient is aware of food going down, without limitation.",
    "Swallowing is just noticeable in the evening and the diet remains full.",
    "A barely perceptible catch with meat has led to no changes.",
    "Retrosternal warmth after swallowing is subtle and everything is still eaten.",
)
FINDING = (
    "Restaging CT shows incidental thickening of the esophageal wall in a patient without symptoms, and observation is chosen.",
    "PET shows diffuse uptake along the esophagus while the patient eats normally and feels nothing.",
    "Endoscopy for another reason found erythema of the mid esophagus in the absence of complaints.",
    "Mild esophageal edema within the treatment field is seen on imaging and is clinically silent.",
    "A barium study shows slight mucosal irregularity that causes no symptoms and will be observed.",
)
SOFT = (
    "Because of painful swallowing the patient has changed to a soft diet.",
    "Odynophagia now restricts intake to soups and purees.",
    "Dysphagia to solids has developed and only soft foods are taken.",
    "Bread and meat are avoided, and yogurt, eggs and mashed potatoes have taken their place.",
    "Everything has to be put through the blender before it is attempted.",
    "The patient can only manage oatmeal and smoothies.",
    "Solids have been cut out, while noodles and custard still go down.",
    "Meals take an hour and consist of lukewarm, mushy things.",
    "A full liquid diet has been adopted on account of pain.",
    "Food sticks at mid chest, so broth and ice cream are what is eaten.",
    "Toast has been given up in favour of congee and jelly.",
    "The texture of food has been downgraded at home because swallowing burns.",
    "The patient lives on milkshakes as the way of least pain.",
    "What used to be dinner is now applesauce.",
    "Sandwiches were swapped for cream of wheat once swallowing began to burn.",
    "Meat is cut very small and drowned in gravy, and most of it is left because it hurts.",
    "Solid meals are skipped altogether and bisque is sipped instead.",
    "Half of the former amounts are eaten and nothing that needs chewing goes down.",
    "Mechanical soft textures have been necessary since last week because of odynophagia.",
    "Baby food from the grandchildren is what works at present.",
)
SUPPLEMENT = (
    "Two to three cans of Ensure a day have been started because meals hurt.",
    "The dietitian has added oral nutritional supplements for swallowing pain.",
    "Protein shakes are relied upon for calories since swallowing became sore.",
    "Boost three times daily replaces what can no longer be eaten.",
    "High-calorie drinks are needed between painful meals.",
    "Sip feeds were prescribed, as meals alone do not suffice with this soreness.",
    "Carnation instant breakfast is taken in place of meals that cannot be swallowed comfortably.",
    "Liquid nutrition is needed on top of small, painful meals.",
)
FLUIDS = (
    "Intravenous fluids were given twice this week because the patient cannot drink enough for pain.",
    "The infusion room provided normal saline for dehydration due to odynophagia.",
    "Swallowing is too painful to keep up with fluids and a liter was infused today.",
    "Only sips are taken, so parenteral hydration has been arranged.",
    "Orthostatic symptoms from failed intake were treated with a bolus of crystalloid.",
    "Home health is running fluids overnight because water itself hurts.",
    "The day unit gives Ringer's lactate every other day since hardly anything goes down.",
    "Hydration by vein was required, as swallowing next to nothing is possible.",
)
TUBE = (
    "A gastrostomy was placed because the patient can no longer eat, and feeds are running.",
    "A Dobhoff tube is in place with feeds at goal and nothing by mouth.",
    "Nasogastric feeding was begun when swallowing failed.",
    "All calories now come through the new PEG.",
    "Total parenteral nutrition was started because of severe swallowing pain.",
    "Enteral formula runs by pump overnight, with nil orally.",
    "A nasojejunal tube was passed on the ward and carries the nutrition.",
    "A central line supplies parenteral nutrition for gut rest.",
    "Bolus feeds of five cans a day go through the feeding button.",
)
ADMITTED = (
    "The patient was admitted for dehydration from odynophagia.",
    "A hospital stay of three days became necessary because of inability to swallow.",
    "Direct admission was arranged today, as even saliva cannot be swallowed.",
    "The emergency department admitted the patient, who could take nothing by mouth.",
    "The patient has been an inpatient since the weekend with intractable odynophagia.",
    "Discharge was yesterday after a stay for failure to maintain oral intake.",
    "Readmission for swallowing pain required a PCA.",
    "Five nights were spent on the oncology floor because nothing would go down.",
    "The patient was sent up to the ward for pain control and nutrition.",
)
# What an error states in place of a fact: it was considered, feared or planned.
CONSIDERED = {
    "fluids": (
        "Intravenous fluids were considered, but enough is being drunk by mouth.", "Hydration was discussed and judged unnecessary.", "The infusion room has been told to expect the patient should intake fall.", "Saline will be arranged if drinking becomes difficult.",
    ),
    "tube": (
        "A feeding tube was discussed as a precaution and is not needed now.", "The patient would accept a PEG if things became worse.", "Tube feeding has been held in reserve.", "Gastroenterology is aware in case of need.",
    ),
    "admitted": (
        "Admission was weighed and found unnecessary.", "The patient prefers to stay at home, which is reasonable at present.", "The threshold for admission is low, though it has not been reached.", "A bed is available should matters decline.",
    ),
    "changed": (
        "A softer diet was recommended for the time when it might be needed.", "The dietitian explained purees in case they are wanted later.", "The patient has been told which foods to avoid if pain increases.",
    ),
}  # fmt: skip
OPENING = (
    "This patient with locally advanced lung cancer was seen during week {week} of chemoradiation.",
    "The patient returns in follow-up after thoracic radiation, {after} weeks from completion.",
    "Seen today is a patient receiving definitive treatment to the mediastinum, week {week}.",
    "I had the pleasure of seeing this patient with a hilar tumor, now at fraction {fraction}.",
    "A routine on-treatment visit took place in week {week} of therapy for small cell lung cancer.",
    "The patient with esophageal carcinoma is {after} weeks out from chemoradiotherapy.",
    "Interval assessment of a patient treated for thymoma, {after} weeks after the last fraction.",
    "The patient is tolerating week {week} of radiation for a superior sulcus tumor.",
)
SIDE = (
    "Cough is dry and unchanged.",
    "Fatigue is mild.",
    "Reflux is controlled with a proton pump inhibitor.",
    "Oral thrush was treated with nystatin.",
    "There is no fever.",
    "Breathlessness on exertion is stable.",
    "Possible pneumonitis is being treated with prednisone.",
    "Nausea lasted two days after chemotherapy.",
    "Weight is stable.",
    "One kilogram was lost since the last visit.",
    "Sleep is poor.",
    "Taste is metallic.",
    "Hoarseness persists since biopsy.",
    "The skin shows faint erythema.",
    "Heartburn after coffee is longstanding.",
    "Constipation follows antiemetics.",
    "Energy is returning.",
    "Ankles swell in the evening.",
    "The patient walks daily.",
)
MEDS = (
    "Medications include omeprazole and metoprolol.",
    "Current medications are lisinopril, atorvastatin and an inhaler.",
    "Magic mouthwash is used before meals.",
    "Sucralfate slurry has been prescribed.",
    "Liquid hydrocodone is taken for pain.",
    "Oxycodone is available as needed.",
    "A fentanyl patch has been applied.",
    "Viscous lidocaine is at hand.",
    "Medications were reviewed without change.",
    "Ondansetron is used after chemotherapy.",
    "Metformin and insulin continue.",
    "Gabapentin was added.",
)
EXAM = (
    "On examination the lungs are clear.",
    "The oropharynx is clear without thrush.",
    "There is no adenopathy.",
    "The patient is comfortable with a performance status of 1.",
    "Mucous membranes are moist.",
    "Breath sounds are reduced at the right base.",
    "The abdomen is soft.",
    "Skin is intact.",
    "The patient appears thin but in no distress.",
)
PLAN = (
    "Treatment continues as planned.",
    "Return in one week.",
    "Laboratory tests will be repeated with the next cycle.",
    "A CT is due in three months.",
    "The patient will see medical oncology.",
    "Skin care was reviewed.",
    "Weekly weights are to continue.",
    "Immunotherapy begins next month.",
    "Return precautions were given.",
    "Steroids will be tapered.",
)
# By the wording of a value of `clinic:facts`.
MEASURED = {
    "lost 3 kg since the visit before": (
        "Weight has fallen by 3 kg since the last visit.",
        "The patient has lost 3 kg since the last visit.",
        "The scales show a loss of 3 kg.",
    ),
    "lost 6 kg since the visit before": (
        "Weight has fallen by 6 kg since the last visit.",
        "The patient has lost 6 kg since the last visit.",
        "The scales show a loss of 6 kg.",
    ),
    "fever of 38.4 °C": (
        "The temperature is 38.4 °C today.",
        "A fever of 38.4 °C was measured.",
        "The patient is febrile at 38.4 °C.",
    ),
}
