"""Write tables as CSV: measurements of a gauge at a millpond, every minute."""

import random
from datetime import datetime, timedelta

ROWS = 300_000
_HEADER = "time,gauge,level_m,flow_m3_s,temperature_c,sluice_open,note\n"
_NOTES = ("", "", "", "", "ice", "leaves in the rake", '"read twice, see ""log"""', "après la crue")


def write_table(number: int, path: str) -> None:
    """Write a CSV with `ROWS` rows of gauge `number`."""
    dice = random.Random(number)
    time, level = datetime(2024, 1, 1) + timedelta(days=number), 1.8
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123  the path may be a descriptor's
        file.write(_HEADER)
        for _ in range(ROWS):
            time += timedelta(minutes=1)
            level = min(3.0, max(0.4, level + dice.uniform(-0.01, 0.01)))
            sluice = "true" if level > 2.0 else "false"
            note = _NOTES[dice.getrandbits(3)] if dice.random() < 0.02 else ""
            row = f"{time.isoformat(' ')},G{number},{level:.3f},{level**1.5:.4f},{4 + 5 * level:.1f}"
            file.write(f"{row},{sluice},{note}\n")
