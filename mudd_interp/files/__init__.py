"""Files and folders: where they are, writing them whole or not at all, locks, digests and tables.

Everything that this library writes goes through here. Standard library only.
"""

from mudd_interp.files.digests import known_sha256 as known_sha256
from mudd_interp.files.digests import sha256 as sha256
from mudd_interp.files.digests import sha256_file as sha256_file
from mudd_interp.files.json_files import LARGEST as LARGEST
from mudd_interp.files.json_files import parse_json as parse_json
from mudd_interp.files.json_files import read_json as read_json
from mudd_interp.files.json_files import read_object as read_object
from mudd_interp.files.locks import exclusive as exclusive
from mudd_interp.files.places import is_stream as is_stream
from mudd_interp.files.places import is_there as is_there
from mudd_interp.files.places import place_of as place_of
from mudd_interp.files.seals import sealed as sealed
from mudd_interp.files.seals import unsealed as unsealed
from mudd_interp.files.staging import contents as contents
from mudd_interp.files.staging import recover as recover
from mudd_interp.files.tables import csv_rows as csv_rows
from mudd_interp.files.tables import csv_table as csv_table
from mudd_interp.files.whole import replacing as replacing
from mudd_interp.files.whole import replacing_folder as replacing_folder
from mudd_interp.files.whole import try_file as try_file
from mudd_interp.files.whole import try_folder as try_folder
from mudd_interp.files.whole import write_bytes as write_bytes
from mudd_interp.files.whole import write_text as write_text
