"""Write PDFs: pages of the Python documentation that ships with every interpreter."""

from pydoc_data.topics import topics

_LINES_A_PAGE, _CHARACTERS_A_LINE = 54, 92
_TOPICS_A_DOCUMENT = 10


def write_document(number: int, path: str) -> None:
    """Write document `number` as a PDF: ten topics, one after the other, in pages of A4."""
    from reportlab.lib.pagesizes import A4  # type: ignore[import-untyped]
    from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]

    names = sorted(topics)
    first_topic = number * _TOPICS_A_DOCUMENT
    chosen = [names[(first_topic + offset) % len(names)] for offset in range(_TOPICS_A_DOCUMENT)]
    lines = [line[:_CHARACTERS_A_LINE] for name in chosen for line in topics[name].splitlines()]
    canvas = Canvas(path, pagesize=A4, invariant=1)
    canvas.setTitle(", ".join(chosen))
    for first_line in range(0, len(lines), _LINES_A_PAGE):
        text = canvas.beginText(48, A4[1] - 56)
        text.setFont("Courier", 9, leading=13.5)
        text.textLines("\n".join(lines[first_line : first_line + _LINES_A_PAGE]))
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
