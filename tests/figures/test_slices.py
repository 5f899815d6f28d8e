from __future__ import annotations

import base64
import io
import re
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from seg.evaluation import case_scores, summarise
from seg.figures import About, write_page
from seg.metrics import score_case

Pages = Any  # of conftest.py


def test_each_case_has_three_slices_with_words_and_scores(pages: Pages) -> None:
    page = pages.write({f"case_{steps}": pages.shifted(steps) for steps in range(1, 5)}, pages.noise())
    pictures = [picture for picture in page.all("svg") if picture.get("role") == "img"]
    # Four cases: three worst and the median is the third of them.
    assert len(pictures) == 9
    assert "The median case is rank 3, among the worst." in page.text
    # Four steps part the blocks of 6 x 8 x 4 voxels on 2 columns of 6 each: 32 mm by 4 mm, and by 3 voxels the tail.
    label = next(picture["aria-label"] for picture in pictures if "axial" in picture["aria-label"])
    reference = pages.labels()[..., 4]
    wrong = np.count_nonzero(reference != np.roll(reference, 4, axis=0))
    area = np.count_nonzero(reference) * 1.5
    assert label == (
        f"axial slice 4 of case case_4: the reference covers {area:.0f} mm², the prediction {area:.0f} mm²; "
        f"they differ on {wrong * 1.5:.0f} mm²."
    )
    dice = 2 * 2 * 8 * 4 / (2 * 6 * 8 * 4)
    assert re.search(rf"1 head{dice:.3f}", page.text)


def test_slices_have_the_proportions_of_the_body(pages: Pages) -> None:
    # Around the blocks are at least 10 mm: along Y 7 voxels, so 22 of 24 are shown; along X and Z all.
    page = pages.write({"case": pages.shifted(1)}, pages.noise())
    boxes = [picture["viewbox"] for picture in page.all("svg") if picture.get("role") == "img"]
    assert boxes == ["0 0 20 33", "0 0 20 40", "0 0 33 40"]
    scales = {path["transform"] for path in page.all("path") if "transform" in path}
    assert scales == {"scale(1 1.5)", "scale(1 4)", "scale(1.5 4)"}


def test_slices_are_those_with_the_largest_area_labelled_wrongly(pages: Pages) -> None:
    prediction = pages.labels()
    prediction[2:5, 20, 8] = 1
    prediction[3, 20:22, 8] = 1
    page = pages.write({"case": (prediction, pages.labels())}, pages.noise())
    assert page.positions() == {"axial": 8, "coronal": 20, "sagittal": 3}
    page = pages.write({"case": (pages.labels(), pages.labels())}, pages.noise())
    assert page.positions() == {"axial": 4, "coronal": 8, "sagittal": 6}
    assert "No voxel is labelled wrongly: the slices are those with most of the reference." in page.text


def test_images_lie_below_the_outlines_as_radiologists_read_them(pages: Pages) -> None:
    image = np.zeros(pages.shape)
    image[0:3, 21:23, :] = 100  # left, and the foremost that is shown
    page = pages.write({"case": pages.shifted(1)}, image)
    axial = page.all("image")[0]
    content = base64.b64decode(axial["href"].removeprefix("data:image/png;base64,"))
    pixels = matplotlib.image.imread(io.BytesIO(content))
    assert pixels.shape == (22, 20)
    bright = np.argwhere(pixels > 0.9)
    assert bright.tolist() == [[row, column] for row in (0, 1) for column in (17, 18, 19)]  # above, on the right
    assert (axial["width"], axial["height"]) == ("20", "33")


def test_fine_images_are_averaged_in_blocks(pages: Pages) -> None:
    # 600 x 2 x 2 voxels: blocks of three by one along X.
    prediction, reference = np.zeros((2, 601, 2, 2), np.uint8)
    prediction[1:600], reference[2:599] = 1, 1
    image = np.repeat(np.arange(601) // 3 % 2, 4).reshape(601, 2, 2).astype(float)
    sources = {"case": pages.files("0", prediction, reference, image)}
    values = score_case(prediction, reference, spacing_mm=pages.spacing_mm, num_classes=2, nsd_tolerance_mm=1.0)
    scores = case_scores(values, case_id="case", class_names=("background", "bar"))
    evaluation = summarise(scores, class_names=("background", "bar"), nsd_tolerance_mm=1.0, bootstrap_samples=10)
    write_page(pages.folder / "cases.html", evaluation, scores, sources, pages.about)
    axial = pages.read(pages.folder / "cases.html").all("image")[0]
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(axial["href"].partition(",")[2])))
    assert pixels.shape == (2, 201)
    assert axial["width"] == "603"
    # Shown from right to left, so blocks of three start at the far end: 601 = 200 * 3 + 1.
    assert set(np.round(pixels[0] * 3)) <= {0, 1, 2, 3}
    assert pixels[0, 0] == pytest.approx(np.mean(image[:597:-1, 0, 0]), abs=0.01)


def test_outlines_stand_on_a_blank_ground_without_images(pages: Pages) -> None:
    page = pages.write({"case": pages.shifted(1)})
    assert page.all("image") == []
    assert "No images were given: outlines stand on a blank ground." in page.text
    assert len([path for path in page.all("path") if path["class"] == "line reference"]) == 4  # one in the key


def test_an_image_on_another_grid_is_announced_and_left_out(pages: Pages, caplog: pytest.LogCaptureFixture) -> None:
    pairs = {"case": pages.shifted(1)}
    source = pages.files("0", *pairs["case"], np.zeros((4, 4, 4)))
    write_page(pages.folder / "cases.html", *pages.scored(pairs), {"case": source}, pages.about)
    assert (
        "Drawn without its image, which is damaged or lies on another grid."
        in pages.read(pages.folder / "cases.html").text
    )
    assert caplog.messages[-1] == (
        "case case is drawn without its image: image shape (4, 4, 4) differs from label shape (20, 24, 10); "
        "give the image on the label's grid."
    )
    moved = pages.affine.copy()
    moved[0, 3] = 0.6
    pages.save(source.images[0], pages.noise(), moved)
    write_page(pages.folder / "cases.html", *pages.scored(pairs), {"case": source}, pages.about)
    assert caplog.messages[-1] == (
        "case case is drawn without its image: image affine differs from label affine by 0.6 voxels at a corner, more "
        "than 0.5; give the image on the label's grid."
    )
    source.images[0].write_bytes(b"")
    write_page(pages.folder / "cases.html", *pages.scored(pairs), {"case": source}, pages.about)
    assert caplog.messages[-1].startswith("case case is drawn without its image: ")
    assert "No images were given" not in pages.read(pages.folder / "cases.html").text


def test_open_voxels_are_drawn_on_neither_side(pages: Pages) -> None:
    reference = pages.labels()
    reference[0:3] = 9
    prediction = pages.labels()
    prediction[0:3] = 1
    sources = {"case": pages.files("0", prediction, reference, None)}
    about = About(title="t", ignore_label=9)
    write_page(pages.folder / "cases.html", *pages.scored({"case": (pages.labels(), pages.labels())}), sources, about)
    page = pages.read(pages.folder / "cases.html")
    assert "Voxels that the reference leaves open (label 9) are shown as background." in page.text
    assert "No voxel is labelled wrongly" in page.text


def test_numbers_name_classes_where_they_are_and_where_they_should_not_be(pages: Pages) -> None:
    reference, prediction = np.zeros((2, 40, 40, 8), np.int16)
    reference[4:16, 4:16, 2:6] = 1
    prediction[4:16, 4:16, 2:6] = 1
    prediction[24:36, 24:36, 2:6] = 2
    page = pages.write({"case": (prediction, reference)})
    numbers = [span for span in page.all("span") if span["class"].startswith("number")]
    roles = [span["class"].split()[1] for span in numbers]
    # In the axial slice both, the reference's on the viewer's right below, the false one on the left above.
    assert roles[:2] == ["reference", "prediction"]
    places = [
        (float(place[1]), float(place[2]))
        for span in numbers[:2]
        if (place := re.fullmatch(r"left:([\d.]+)%;top:([\d.]+)%", span["style"]))
    ]
    assert places[0][0] > 60 > 40 > places[1][0]
    assert places[0][1] > 60 > 40 > places[1][1]
