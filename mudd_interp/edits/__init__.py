"""Interventions: what to change in a forward pass, as values, and the hooks that change it."""

from mudd_interp.edits.apply import Means as Means
from mudd_interp.edits.apply import batched_hooks as batched_hooks
from mudd_interp.edits.apply import edit_hooks as edit_hooks
from mudd_interp.edits.apply import edited as edited
from mudd_interp.edits.apply import edits_by_position as edits_by_position
from mudd_interp.edits.apply import run as run
from mudd_interp.edits.edit import ACTIONS as ACTIONS
from mudd_interp.edits.edit import Action as Action
from mudd_interp.edits.edit import Edit as Edit
from mudd_interp.edits.edit import Edits as Edits
from mudd_interp.edits.edit import as_edits as as_edits
from mudd_interp.edits.edit import edits_from_json as edits_from_json
from mudd_interp.edits.edit import edits_text as edits_text
from mudd_interp.edits.edit import edits_to_json as edits_to_json
from mudd_interp.edits.edit import every_edge as every_edge
from mudd_interp.edits.frozen import Held as Held
from mudd_interp.edits.frozen import frozen as frozen
