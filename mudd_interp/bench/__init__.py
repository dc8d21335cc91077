"""``mudd-interp bench``: speed and memory on this machine, beside what one would use instead.

Both sides of a ratio run in turn in one process, so that it means something even on a machine that
is busy now and then; memory is the peak of a fresh process. Nothing here is a test.
"""

from mudd_interp.bench.report import BENCHES as BENCHES
from mudd_interp.bench.report import check_figure as check_figure
from mudd_interp.bench.report import measure as measure
from mudd_interp.bench.report import print_report as print_report
from mudd_interp.bench.report import write_growth as write_growth
