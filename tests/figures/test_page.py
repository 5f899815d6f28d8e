from __future__ import annotations

import base64
import hashlib
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seg.errors import DataError
from seg.figures import About, write_page
from tests.pages import Page

Pages = Any  # of conftest.py
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}"


def pictures(page: Page) -> list[dict[str, str]]:
    return [image for image in page.all("img") if image["alt"]]


def test_a_page_needs_no_other_file_and_its_policy_allows_its_own_style_alone(pages: Pages) -> None:
    page = pages.write({f"case_{steps}": pages.shifted(steps) for steps in range(1, 5)}, pages.noise())
    text = (pages.folder / "cases.html").read_text(encoding="utf-8")
    assert "://" not in text
    assert str(pages.folder) not in text
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object"} == set()
    assert not any("style" in attributes for _, attributes in page.elements)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(link["href"].startswith("#") for link in page.all("a"))
    digest = base64.b64encode(hashlib.sha256(page.inline["style"].encode()).digest()).decode()
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; script-src 'none'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_names_from_data_stay_text(pages: Pages) -> None:
    about = About(title=EVIL, data_set=EVIL, licence=EVIL, attribution=EVIL, channel=EVIL)
    page = pages.write({EVIL: pages.shifted(1)}, pages.noise(), about)
    assert "script" not in {tag for tag, _ in page.elements}
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    # Title, heading, channel, data set, licence, attribution; the case in three strips, over its pictures, in a row.
    assert page.text.count(EVIL) == 11
    assert all(EVIL in picture["alt"] for picture in pictures(page))
    assert "2 <tail>" in page.text


def test_all_cases_have_a_row_and_a_dot_in_each_strip(pages: Pages) -> None:
    # Shifted by n of 20 voxels, the classes of 6 and 3 voxels overlap in 6 - n and 3 - n.
    page = pages.write({f"case_{steps}": pages.shifted(steps % 7) for steps in range(12)}, pages.noise())
    ranks = {f"rank-{rank}" for rank in range(1, 13)}
    assert {row["id"] for row in page.all("tr") if "id" in row} == ranks
    assert len(page.all("circle")) == 12 * 3
    assert {link["href"] for link in page.all("a")} >= {f"#{rank}" for rank in ranks}
    means = {f"case_{n}": np.mean([max(0, 6 - n % 7) / 6, max(0, 3 - n % 7) / 3]) for n in range(12)}
    titles = re.findall(r"(case_\d+): (\d\.\d+)", page.text)[:12]
    assert dict(titles) == {case_id: f"{mean:.4f}" for case_id, mean in means.items()}
    places = [float(circle["cx"].rstrip("%")) for circle in page.all("circle")[:12]]
    assert places == pytest.approx([2 + 96 * value for value in sorted(means.values())], abs=0.006)
    # Three worst, the median and the best, each three times as scan and as prediction.
    drawn = [article["id"] for article in page.all("article")]
    assert drawn == ["drawn-1", "drawn-2", "drawn-3", "drawn-7", "drawn-12"]
    assert len(pictures(page)) == 5 * 6


def test_slices_are_those_with_the_largest_area_labelled_wrongly(pages: Pages) -> None:
    def described(page: Page) -> list[list[int]]:
        return [[int(number) for number in re.findall(r"\d+", one["alt"])] for one in pictures(page)[::2]]

    prediction = pages.labels()
    prediction[2:5, 20, 8] = 1
    prediction[3, 20:22, 8] = 1
    found = described(pages.write({"case": (prediction, pages.labels())}))
    assert [numbers[0] for numbers in found] == [8, 20, 3]
    # In the axial slice four voxels of 1 x 1.5 mm are wrong, and nothing is right.
    assert found[0] == [8, 0, 6, 6]
    page = pages.write({"case": (pages.labels(), pages.labels())})
    assert [numbers[0] for numbers in described(page)] == [4, 8, 6]
    assert "No voxel is labelled wrongly" in page.text


def test_the_image_lies_below_the_labels_as_radiologists_read_it(pages: Pages) -> None:
    image = np.zeros(pages.shape)
    image[0:3, 21:23, :] = 100  # left, and the foremost that is shown
    axial = pictures(pages.write({"case": pages.shifted(1)}, image))[0]
    content = base64.b64decode(axial["src"].removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    height, width, _ = pixels.shape
    assert (axial["width"], axial["height"]) == (str(width), str(height))
    assert height / width == pytest.approx(33 / 20, rel=0.01)  # 22 rows of 1.5 mm over 20 columns of 1 mm
    corner = pixels[4 : height * 2 // 22 - 4, width * 17 // 20 + 4 : -4]
    assert corner.min() == 255
    assert pixels[height * 2 // 22 + 4 : height // 4, width * 3 // 4 : -25].max() == 0


def test_scores_that_do_not_exist_are_marked(pages: Pages) -> None:
    one_sided, empty = pages.labels(), pages.labels()
    one_sided[one_sided == 2] = 0
    empty[empty == 2] = 0
    page = pages.write({"a": (one_sided, pages.labels()), "b": (empty, empty), "c": (empty * 0, empty * 0)})
    text = " ".join(page.text.split())
    assert re.search("one side in 1 case: .*both sides in 2 cases: .*1 case without a rank, .*: c\\.", text)
    assert re.search("2 <tail>0.0+ ?\N{INFINITY} ?0.0+", text)
    page = pages.write({"c": (empty * 0, empty * 0)})
    assert "1 case of 1 patient" in page.text
    assert page.all("article") == []


def test_a_case_without_files_keeps_its_scores(pages: Pages) -> None:
    write_page(pages.folder / "cases.html", *pages.scored({"gone": pages.shifted(1)}), {}, pages.about)
    page = Page((pages.folder / "cases.html").read_text(encoding="utf-8"))
    assert (len(page.tables), page.all("img")) == (3, [])


def test_an_image_on_another_grid_is_logged_and_left_out(pages: Pages, caplog: pytest.LogCaptureFixture) -> None:
    pairs = {"case": pages.shifted(1)}
    source = pages.files("0", *pairs["case"], np.zeros((4, 4, 4)))
    moved = pages.affine.copy()
    moved[0, 3] = 0.6

    def written() -> str:
        write_page(pages.folder / "cases.html", *pages.scored(pairs), {"case": source}, pages.about)
        return (pages.folder / "cases.html").read_text(encoding="utf-8")

    for make, found in (
        (lambda: None, "image shape (4, 4, 4) differs from label shape (20, 24, 10)"),
        (lambda: pages.save(source.images[0], pages.noise(), moved), "by 0.6 voxels at a corner"),
        (lambda: source.images[0].write_bytes(b""), "case case is drawn without its image"),
    ):
        make()
        text = written()
        assert "Drawn without its image" in text
        assert "No images were given" not in text
        assert found in caplog.messages[-1]
    assert "No images were given" in pages.write(pairs).text


def test_voxels_that_the_reference_leaves_open_are_drawn_on_neither_side(pages: Pages) -> None:
    reference, prediction = pages.labels(), pages.labels()
    reference[0:3], prediction[0:3] = 9, 1
    sources = {"case": pages.files("0", prediction, reference, None)}
    about = About(title="t", ignore_label=9)
    write_page(pages.folder / "cases.html", *pages.scored({"case": (pages.labels(), pages.labels())}), sources, about)
    text = (pages.folder / "cases.html").read_text(encoding="utf-8")
    assert "(label 9)" in text
    assert "No voxel is labelled wrongly" in text


def test_a_label_map_that_cannot_be_read_is_named(pages: Pages) -> None:
    pairs = {"case": pages.shifted(1)}
    source = pages.files("0", *pairs["case"], None)
    source.prediction.unlink()
    with pytest.raises(DataError, match=r"prediction\.nii\.gz"):
        write_page(pages.folder / "cases.html", *pages.scored(pairs), {"case": source}, pages.about)


def test_equal_inputs_give_equal_bytes_and_noise_stays_small(pages: Pages) -> None:
    rng = np.random.default_rng(0)
    shape = (128, 128, 2)
    prediction, reference = rng.integers(0, 3, (2, *shape), dtype=np.uint8)
    sources = {"case": pages.files("0", prediction, reference, rng.normal(size=shape))}
    evaluation, scores = pages.scored({"case": (prediction, reference)})
    for name in ("a.html", "b.html"):
        write_page(pages.folder / name, evaluation, scores, sources, pages.about)
    first, second = ((pages.folder / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
    assert len(first) < 2**20  # five such cases are the most that a page holds
