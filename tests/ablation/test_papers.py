"""Papers as text in sections: each format, what is left out for length, what is no paper."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.ablation.planner.papers import Paper, PaperSection, read_paper
from mezo.errors import MezoError

MARKDOWN = """\
# Walks in the Dark

We walk.

## 1 Method

Take a step.

```python
# not a heading
```

## References

A, B.
"""


def headings(paper: Paper) -> list[str]:
    return [section.heading for section in paper.sections]


def test_markdown(tmp_path: Path) -> None:
    (tmp_path / "paper.md").write_text("\ufeff" + MARKDOWN)
    paper = read_paper(tmp_path / "paper.md")
    assert paper.title == "Walks in the Dark"
    assert headings(paper) == ["Walks in the Dark", "1 Method", "References"]
    assert "\n".join(section.text for section in paper.sections) == MARKDOWN.rstrip("\n")


def test_plain_text(tmp_path: Path) -> None:
    text = "Walks in the Dark\n\nAbstract\nWe walk.\n1 Introduction\nOnce.\n3.2 Our Method\nThen.\nReferences\nA.\n"
    (tmp_path / "paper.txt").write_text(text)
    paper = read_paper(tmp_path / "paper.txt")
    assert headings(paper) == ["", "Abstract", "1 Introduction", "3.2 Our Method", "References"]
    assert paper.title == "Walks in the Dark"


def latex(folder: Path) -> Path:
    (folder / "parts").mkdir(parents=True)
    (folder / "main.tex").write_text(
        "\\documentclass{article}\n\\title{Walks \\\\ in the {\\bf Dark}}\n\\begin{document}\n"
        "\\begin{abstract}\nWe walk. % secretly\n\\end{abstract}\n\\input{parts/method}\n"
        "\\include{parts/none}\n\\input{../outside}\n\\section*{Results}\n50\\% better\n\\end{document}\nafter\n"
    )
    (folder / "parts/method.tex").write_text("\\section{Method}\n\\input{parts/step.tex}\n")
    (folder / "parts/step.tex").write_text("A step.\n")
    (folder.parent / "outside.tex").write_text("the password")
    return folder


def test_latex_is_put_together_from_its_own_folder(tmp_path: Path) -> None:
    paper = read_paper(latex(tmp_path / "paper"))
    assert paper.title == "Walks in the Dark"
    text = "\n".join(section.text for section in paper.sections)
    assert headings(paper)[1:] == ["abstract", "Method", "Results"]
    assert "A step." in text
    assert "50\\% better" in text
    for hidden in ("secretly", "password", "documentclass", "after"):
        assert hidden not in text
    assert read_paper(tmp_path / "paper/main.tex") == paper


def test_latex_that_includes_itself(tmp_path: Path) -> None:
    (tmp_path / "main.tex").write_text("\\documentclass{a}\\begin{document}\\input{main}\\end{document}")
    with pytest.raises(MezoError, match="does a file include itself"):
        read_paper(tmp_path)


def test_a_folder_with_two_papers_or_none(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="found none"):
        read_paper(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.tex").write_text("\\documentclass{x}")
    with pytest.raises(MezoError, match=r"found a\.tex, b\.tex; give the file itself"):
        read_paper(tmp_path)


def pdf(path: Path, lines: list[str], *, password: str | None = None) -> Path:
    """A PDF of one page of text, written by pypdf."""
    pypdf = pytest.importorskip("pypdf")
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    page = writer.add_blank_page(600, 800)
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    stream = DecodedStreamObject()
    shown = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
    stream.set_data(f"BT /F1 12 Tf 50 750 Td {shown}ET".encode())
    page[NameObject("/Contents")] = writer._add_object(stream)
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(path)
    return path


def test_pdf(tmp_path: Path) -> None:
    paper = read_paper(
        pdf(tmp_path / "paper.pdf", ["Walks in the Dark", "Abstract", "We walk.", "1 Method", "Step."])
    )
    assert paper.title == "Walks in the Dark"
    assert headings(paper) == ["", "Abstract", "1 Method"]


def test_pdfs_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="no text in it; a scanned PDF"):
        read_paper(pdf(tmp_path / "scan.pdf", []))
    with pytest.raises(MezoError, match="locked with a password"):
        read_paper(pdf(tmp_path / "locked.pdf", ["x"], password="p"))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of the kind")
    with pytest.raises(MezoError, match="not readable as a PDF"):
        read_paper(tmp_path / "broken.pdf")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.md", None, "no such paper"),
        ("empty.md", b" \n", "no text in it"),
        ("picture.png", b"\x89PNG\xff", "expected text in UTF-8, LaTeX or a PDF, found other bytes at 0"),
    ],
)
def test_what_is_no_paper(tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(MezoError, match=message):
        read_paper(tmp_path / name)


SECTIONS = tuple(
    PaperSection(heading, f"# {heading}\n" + 10 * "word ")
    for heading in ("Title", "Method", "Related work", "Experiments", "Appendix A", "References")
)


def test_references_go_before_appendices_and_both_before_the_method() -> None:
    paper = Paper("Title", SECTIONS)

    def words(text: str) -> int:
        return text.count("word")

    left = []
    for budget in (60, 50, 40, 30, 20, 10):
        text = paper.fit(budget, words)
        assert words(text) == budget
        left.append(text.partition("[left out for length: ")[2].rstrip("]"))
    assert left == [
        "",
        "References",
        "Appendix A; References",
        "Related work; Appendix A; References",
        "Related work; Experiments; Appendix A; References",
        "Method; Related work; Experiments; Appendix A; References",
    ]
    assert "cut off here" in paper.fit(5, words)


@given(
    st.lists(st.tuples(st.text("Ab#\n ", max_size=9), st.text(max_size=60)), min_size=1, max_size=6),
    st.integers(1, 80),
)
def test_what_fits_fits(parts: list[tuple[str, str]], budget: int) -> None:
    paper = Paper("t", tuple(PaperSection(heading, text) for heading, text in parts))
    text = paper.fit(budget, len)
    whole = "\n".join(section.text for section in paper.sections)
    shown = text.rpartition("\n[")[0] if len(whole) > budget and "\n[" in text else text
    assert len(shown) <= max(budget, 1) or text == whole
