from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from seg.errors import DataError
from seg.figures import About, write_page

Pages = Any  # of conftest.py


def test_a_page_needs_no_other_file_and_runs_nothing(pages: Pages) -> None:
    page = pages.write({f"case_{steps}": pages.shifted(steps) for steps in range(1, 5)}, pages.noise())
    text = (pages.folder / "cases.html").read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert str(pages.folder) not in text
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "img"} == set()
    assert all(value.startswith("data:image/png;base64,") for image in page.all("image") for value in [image["href"]])
    assert page.all("html") == [{"lang": "en"}]
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert page.text.count("Research software, not for clinical use.") == 2
    assert "Data set: Test; licence: CC0; attribution: A & B." in page.text


def test_names_from_data_stay_text(pages: Pages) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
    about = About(title=evil, data_set=evil, licence=evil, attribution=evil, channel=evil)
    page = pages.write({evil: pages.shifted(1)}, pages.noise(), about)
    assert {tag for tag, _ in page.elements} & {"script", "img"} == set()
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count(evil) == 7  # title, heading, channel, case, data set, licence, attribution
    assert all(evil in picture["aria-label"] for picture in page.all("svg") if "aria-label" in picture)
    assert "2 <tail>" in page.text


def test_a_label_map_that_cannot_be_read_is_named(pages: Pages) -> None:
    pairs = {"case": pages.shifted(1)}
    source = pages.files("0", *pairs["case"], None)
    source.prediction.unlink()
    with pytest.raises(DataError, match=r"prediction\.nii\.gz: file must exist, got none; restore it or remove"):
        write_page(pages.folder / "cases.html", *pages.scored(pairs), {"case": source}, pages.about)


def test_scores_that_do_not_exist_are_marked(pages: Pages) -> None:
    one_sided, empty = pages.labels(), pages.labels()
    one_sided[one_sided == 2] = 0
    empty[empty == 2] = 0
    page = pages.write({"a": (one_sided, pages.labels()), "b": (empty, empty), "c": (empty * 0, empty * 0)})
    assert "one mask empty in 1 case: Dice 0, no HD95; both masks empty in 2 cases: left out" in page.text
    assert "1 case without a rank: all masks are empty in both maps." in page.text
    assert "2 <tail>0.000\N{INFINITY}0.000" in page.text
    assert page.text.count("2 <tail>\N{EN DASH}") == 1
    page = pages.write({"c": (empty * 0, empty * 0)})
    assert "Mean Dice \N{EN DASH} (95 % CI: no interval) over 1 case of 1 patient" in page.text
    assert page.all("article") == []


def test_small_differences_have_no_sign(pages: Pages) -> None:
    prediction = pages.labels()
    prediction[6, 8, 3] = 0  # 0.006 ml less, which rounds to 0.01; then 0.001 ml.
    assert "\N{MINUS SIGN}0.01" in pages.write({"a": (prediction, pages.labels())}).text
    scores = pages.scored({"a": (prediction, pages.labels())})[1]
    assert math.isclose(scores[0].scores.volume_difference_ml, -0.006)


def test_a_case_without_files_keeps_its_scores(pages: Pages) -> None:
    write_page(pages.folder / "cases.html", *pages.scored({"gone": pages.shifted(1)}), {}, pages.about)
    page = pages.read(pages.folder / "cases.html")
    assert "Not drawn: the data set does not hold this case any more." in page.text
    assert len(page.all("table")) == 2


def test_equal_inputs_give_equal_bytes_and_noise_stays_small(pages: Pages) -> None:
    rng = np.random.default_rng(0)
    shape = (128, 128, 2)
    prediction, reference = rng.integers(0, 3, (2, *shape), dtype=np.uint8)
    sources = {"case": pages.files("0", prediction, reference, rng.normal(size=shape))}
    evaluation, scores = pages.scored({"case": (prediction, reference)})
    sizes = set()
    contents = set()
    for name in ("a.html", "b.html"):
        write_page(pages.folder / name, evaluation, scores, sources, pages.about)
        contents.add((pages.folder / name).read_bytes())
        sizes.add((pages.folder / name).stat().st_size)
    assert len(contents) == 1
    # Six such cases are the most that a page holds.
    assert 6 * max(sizes) < 3 * 2**20
    assert "shortest outlines left out" in pages.read(pages.folder / "a.html").text
