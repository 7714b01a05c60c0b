import xml.etree.ElementTree as ET

from proxy.protocol.page.charts import Mark, course, intervals

MARKS = [Mark("geo", 0.9, 0.8, 0.95), Mark("<script>$x$</script> & more", 0.5, 0.3, 0.7)]
SVG = "{http://www.w3.org/2000/svg}"


def drawings(markup: str) -> list[ET.Element]:
    return ET.fromstring(f"<both>{markup}</both>").findall(f"div/{SVG}svg")


def texts(drawing: ET.Element) -> list[str]:
    return ["".join(text.itertext()) for text in drawing.iter(f"{SVG}text")]


def test_a_chart_is_drawn_for_wide_and_for_narrow_screens_with_text_as_text():
    wide, narrow = drawings(intervals(MARKS, unit="share", title="Agreement", line=0.95))

    assert "geo" in texts(wide) and "geo" in texts(narrow)
    assert "80.0 %" in texts(wide)
    assert wide.get("aria-label") == "Agreement"


def test_labels_stay_text_whatever_they_say():
    wide, _ = drawings(intervals(MARKS, unit="share", title='<"&>'))

    assert "<script>$x$</script> & more" in texts(wide)
    assert wide.get("aria-label") == '<"&>'


def test_a_label_that_is_too_long_is_cut():
    wide, _ = drawings(intervals([Mark("x" * 500, 0, 0, 0)], unit="share", title=""))

    assert "x" * 43 + "…" in texts(wide)


def test_colours_are_the_pages():
    chart = intervals(MARKS, unit="share", title="Agreement", line=0.95)

    assert "var(--accent)" in chart and "var(--text)" in chart
    assert "#01" not in chart and "#02" not in chart


def test_the_same_figures_are_the_same_drawing():
    one, other = (course([1, 2], MARKS, unit="points", title="So far", line=0) for _ in range(2))

    assert one == other
    assert "pairs" in texts(drawings(one)[0])
