from .spread import Machines as Machines
from .spread import audit as audit
from .spread import correct as correct
from .spread import export as export
from .spread import generate as generate
from .spread import label as label
