"""The architectures of the family: each a file with its configuration, modules and wiring.

A new one is a file here, and its kind in ``mudd_interp.config.wiring.HOMES``.
"""

from mudd_interp.model.wirings.attnres import AttnRes as AttnRes
from mudd_interp.model.wirings.hyper import Hyper as Hyper
from mudd_interp.model.wirings.mudd import MUDD as MUDD
from mudd_interp.model.wirings.plain import Plain as Plain
from mudd_interp.model.wirings.prepost import PrePost as PrePost
from mudd_interp.model.wirings.scalars import Scalars as Scalars
from mudd_interp.model.wirings.static import Static as Static
