# Public names of uniemox.model; clients import no others.
from .methods.eap import has_words as has_words
from .methods.relation import method_class as method_class
from .regions import PERSON_GROUPS as PERSON_GROUPS
