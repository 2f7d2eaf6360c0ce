"""The table of clients and what works with each, as it stands in the docs."""

from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "kafka-clients.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
WORKS, HAS_NOT, NOT_RUN = "✓", "–", "not run"


def markdown(columns, rows):
    lines = [f"| client | {' | '.join(columns)} |", f"| --- |{' :-: |' * len(columns)}"]
    for client, row in rows:
        cells = (row.get(column, NOT_RUN) for column in columns)
        lines.append(f"| {client} | {' | '.join('FAILED' if cell.startswith('failed') else cell for cell in cells)} |")
    return "".join(f"{line}\n" for line in lines)


def differs(table):
    """Whether the docs say something else. A client that isn't installed here is told by its row, and not compared."""
    kept = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    pairs = list(zip(table.splitlines(), kept.splitlines(), strict=False))
    same_length = len(table.splitlines()) == len(kept.splitlines())
    return not same_length or any(new != old for new, old in pairs if NOT_RUN not in new)


def write(table):
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + table + END + rest.partition(END)[2])
