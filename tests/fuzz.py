"""``python -m tests.fuzz 10000``: that many damaged and forged files, over all readers."""

import random
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent / "app"))

from tests.hostile import READERS, attempt, mutated


def main(cases: int) -> int:
    """Run the cases, print what came of them, and return how many were faults."""
    warnings.simplefilter("ignore")
    rng, faults = random.Random(0), 0
    for name, reader in READERS.items():
        ends, worst = Counter[str](), 0.0
        with TemporaryDirectory() as place:
            folder = Path(place) / ("0" * 64)
            folder.mkdir()
            reader.write(folder)
            valid = (folder / reader.name).read_bytes()
            assert attempt(reader, folder, valid) == "read", name
            for _ in range(-(-cases // len(READERS))):
                data = mutated(reader, valid, rng)
                begun = time.perf_counter()
                ends[attempt(reader, folder, data)[:150]] += 1
                worst = max(worst, time.perf_counter() - begun)
        faults += sum(n for end, n in ends.items() if end not in ("read", "refused"))
        print(f"{name:24}{worst:8.3f} s at most  {dict(ends)}")  # noqa: T201
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{faults} faults; {peak:,.0f} MiB at most")  # noqa: T201
    return faults


if __name__ == "__main__":
    raise SystemExit(bool(main(int(sys.argv[1]))))
