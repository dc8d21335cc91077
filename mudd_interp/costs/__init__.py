"""What dense connections cost: parameters, FLOPs and activation memory beside the plain twin.

The paper's Table 1 and appendix E, three ways: by its formulas, by the sums that they approximate,
and counted from the model as it is built.
"""

from mudd_interp.costs.cost import Cost as Cost
from mudd_interp.costs.cost import cost as cost
from mudd_interp.costs.report import print_cost as print_cost
