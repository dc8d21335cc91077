"""The server of the dashboard: what Streamlit is told, who may speak to it, how it starts and ends.

The pages themselves are in ``app/``.
"""

from mudd_interp.dashboard.options import LARGEST_UPLOAD as LARGEST_UPLOAD
from mudd_interp.dashboard.options import is_loopback as is_loopback
from mudd_interp.dashboard.server import serve as serve
