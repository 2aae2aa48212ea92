"""Boxes that are no squares: motifs of signals, with one channel and with several."""

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.data import open_measurement
from mtdcore.data.noise import estimate_noise_std
from mtdcore.em.gauge.extent import closest_separation, length
from mtdcore.em.plan.beginning import views_of
from mtdcore.errors import ParameterError
from mtdcore.results.detections import detect
from mtdcore.results.halves import half_recoveries, half_set_correlation
from mtdcore.results.matching import match
from mtdcore.results.metrics import forgiven_shift
from mtdcore.results.nulls import null_like, null_runs
from mtdcore.results.uncertainty import unbiased_average

WIDTH, COUNT = 24, 30


def motif(channels=1):
    time = np.linspace(0.0, 1.0, WIDTH)
    return np.stack([np.sin(np.pi * time) * np.sin((3 + c) * np.pi * time**2) for c in range(channels)])


def simulated(channels=1, rotations=1, snr=2.0, seed=1):
    return mtd.simulate(
        motif(channels),
        shape=(channels, 80 * COUNT),
        count=COUNT,
        snr=snr,
        rotations=rotations,
        separation=1,
        seed=seed,
    )


def recovered(made, **options):
    return mtd.recover(
        made.measurement, **{"box_size": made.target.shape, "iterations": 30, "starts": 3} | options
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_motif_of_a_signal_comes_back(channels):
    made = simulated(channels)
    found = recovered(made)
    pixels = np.asarray(made.measurement)
    oracle = np.mean([pixels[:, c : c + WIDTH] for _, _, c in made.positions], axis=0)
    error = mtd.relative_error(found.target, made.target, max_shift=forgiven_shift(made.target.shape))
    assert error < 1.3 * mtd.relative_error(oracle, made.target) + 0.02
    assert found.expected_count == pytest.approx(COUNT, abs=1)
    copies = detect(made.measurement, found.target, found.likelihood)
    matched = match(copies, made.positions, 1.5, max_offset=6)
    assert (matched.precision, matched.recall) >= (0.95, 0.95)
    assert not copies.row.any()  # channels do not move


def test_the_fast_path_says_so_and_equals_the_reference(caplog):
    made = simulated()
    few = {"iterations": 3, "initial": made.target, "gauge": None}
    short = np.asarray(made.measurement)[:, :400]
    one, other = (
        mtd.recover(short, box_size=(1, WIDTH), backend=name, **few) for name in ("cpu", "reference")
    )
    np.testing.assert_allclose(one.target, other.target, atol=1e-3)
    from mtdcore.estep.backends.array.backend import _tell

    _tell.cache_clear()
    with caplog.at_level("INFO", logger="mtdcore"):
        mtd.recover(short, box_size=(1, WIDTH), backend="cpu", **few)
    assert "square boxes" in caplog.text


@pytest.mark.parametrize("options", [{"rotations": 2}, {"rotations": 1, "symmetry": "C2"}])
def test_no_view_of_a_signal_stands_twice(options, caplog):
    """Turned round is mirrored: one row of pixels has two views at most, and the log says why."""
    with caplog.at_level("INFO", logger="mtdcore"):
        views = views_of(box_size=(1, WIDTH), classes=1, mirror=True, **options)
    assert views == views_of(box_size=(1, WIDTH), classes=1, **options)
    assert "its mirror image" in caplog.text
    shown = views.apply(motif())
    assert len(np.unique(np.round(shown, 9), axis=0)) == views.count


def test_other_mirror_images_are_views():
    """Of a signal that is not turned, and of several channels, which a turn puts in reverse order."""
    assert views_of(1, (1, WIDTH), 1, mirror=True).count == 2
    assert views_of(2, (3, WIDTH), 1, mirror=True).count == 4


def test_copies_may_be_turned_round():
    made = simulated(rotations=2)
    found = recovered(made, rotations=2)
    assert mtd.relative_error(found.target, made.target, 2, max_shift=(0, 5)) < 0.3
    assert 0.2 < np.mean(detect(made.measurement, found.target, found.likelihood).rotation) < 0.8


def test_a_signal_is_a_measurement_of_one_row(tmp_path):
    signal = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    np.save(tmp_path / "signal.npy", signal)
    mask = np.arange(5000) > 10
    for source in (signal, tmp_path / "signal.npy"):
        measurement = open_measurement(source, mask)
        assert measurement.shape == (1, 1, 5000)
        pixels = np.asarray(measurement)
        np.testing.assert_array_equal(pixels[0, 11:], signal[11:])
        assert np.isnan(pixels[0, :11]).all()
    assert estimate_noise_std(open_measurement(signal)) == pytest.approx(1.0, rel=0.05)


def test_a_motif_does_not_depend_on_the_units():
    made = simulated()
    pixels = np.asarray(made.measurement, dtype=np.float64)
    plain, other = (
        mtd.recover(m, box_size=(1, WIDTH), iterations=20, starts=2) for m in (pixels, 1e3 * pixels + 50)
    )
    np.testing.assert_allclose(other.target, 1e3 * plain.target, atol=20)
    assert other.evidence == pytest.approx(plain.evidence, rel=1e-2)


def test_halves_of_a_signal_are_earlier_and_later():
    made = simulated(snr=3.0)
    found = recovered(made)
    pair = half_recoveries(
        made.measurement, found.target, box_size=made.target.shape, iterations=15, noise_std=made.noise_std
    )
    curve = half_set_correlation(*pair)
    assert len(curve.frequency) == WIDTH // 2
    assert curve.correlation[1] > 0.9
    average, level = unbiased_average(made.measurement, found)
    assert average.shape == made.target.shape
    assert level == pytest.approx(found.noise_std / np.sqrt(COUNT), rel=0.2)


def test_rotations_and_diameters_of_signals_are_refused_in_one_sentence():
    pixels = np.asarray(simulated().measurement)
    for wrong, match_ in (({"rotations": 4}, "rotations=1"), ({"diameter": 9.0}, "min_separation")):
        with pytest.raises(ParameterError, match=match_) as caught:
            mtd.recover(pixels, box_size=(1, WIDTH), **wrong)
        assert "\n" not in str(caught.value)


def test_the_length_of_a_motif():
    line = np.zeros((1, 40))
    line[0, 10:20] = [1, -1] * 5
    assert length(line) == closest_separation(line) == 10
    assert closest_separation(np.zeros((2, 1, 7))) == 7
    found = recovered(simulated(), min_separation="auto")
    assert found.likelihood.separation <= WIDTH
    assert found.likelihood.separations[0] == 1


@pytest.mark.parametrize("prior", [None, mtd.GaussianPrior(0.0, 0.5)])
def test_the_patch_model_takes_signals(prior):
    made = simulated(snr=4.0)
    found = mtd.recover(
        made.measurement,
        box_size=(1, WIDTH),
        likelihood="patch",
        prior=prior,
        initial=made.target,
        iterations=5,
    )
    assert mtd.relative_error(found.target, made.target, max_shift=(0, 5)) < 0.5


def test_boxes_that_move_along_both_axes():
    target = np.random.default_rng(3).normal(size=(4, 9))
    made = mtd.simulate(target, shape=(80, 120), count=40, snr=3.0, separation=1, seed=2)
    found = mtd.recover(made.measurement, box_size=(4, 9), iterations=30)
    assert mtd.relative_error(found.target, target, max_shift=(2, 4)) < 0.3
    assert found.expected_count == pytest.approx(40, abs=4)


def simulated_plates(**options):
    """Images of an L in a box of 10 x 16 pixels."""
    target = np.zeros((10, 16))
    target[2:8, 3:6] = target[5:8, 3:13] = 1.0
    if options.pop("even", False):
        target = (target + target[::-1, ::-1]) / 2
    return mtd.simulate(target, shape=(200, 200), density=0.12, snr=2.0, seed=1, **options)


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ({}, {"noise": "spectrum"}),
        ({"mirror": True}, {"mirror": True}),
        ({"subpixel": True}, {"subpixel": True}),
        ({"even": True}, {"symmetry": "C2"}),
    ],
)
def test_noise_hands_symmetry_and_places_between_pixels_in_boxes_that_are_no_squares(made, asked):
    plates = simulated_plates(**made)
    found = mtd.recover(
        plates.measurement, box_size=plates.target.shape, iterations=30, starts=3, noise_std="auto", **asked
    )
    alike = {"mirror": "mirror" in asked, "fractions": "subpixel" in asked}
    assert mtd.relative_error(found.target, plates.target, max_shift=(2, 3), **alike) < 0.25
    copies = detect(plates.measurement, found.target, found.likelihood)
    assert len(copies) == pytest.approx(len(plates.positions), abs=2)
    assert (copies.mirrored is not None) == alike["mirror"]
    assert (copies.row.dtype.kind == "f") == alike["fractions"]


def test_a_blob_and_its_mirror_image_do_not_stay_alike():
    plates = simulated_plates(mirror=True)
    found = mtd.recover(
        plates.measurement, box_size=plates.target.shape, iterations=30, initial="blob", mirror=True
    )
    assert mtd.relative_error(found.target, plates.target, max_shift=(2, 3), mirror=True) < 0.25


def test_hands_and_places_between_samples():
    made = mtd.simulate(
        motif(),
        shape=(1, 80 * COUNT),
        count=COUNT,
        snr=3.0,
        separation=1,
        mirror=True,
        subpixel=True,
        seed=3,
    )
    assert not made.positions[:, 1].any()  # there is nowhere to go across
    found = recovered(made, mirror=True, subpixel=True)
    shift = forgiven_shift(made.target.shape)
    assert mtd.relative_error(found.target, made.target, max_shift=shift, mirror=True, fractions=True) < 0.3
    copies = detect(made.measurement, found.target, found.likelihood)
    assert len(copies) == pytest.approx(COUNT, abs=2)
    assert not copies.row.any()
    assert (copies.column % 1.0).any()


def test_noise_of_a_signal_is_white_and_a_spectrum_is_refused():
    made = simulated()
    assert recovered(made, noise="auto", iterations=4).likelihood.whitening is None
    with pytest.raises(ParameterError, match='give noise="white"') as caught:
        recovered(made, noise="spectrum")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_nulls_of_a_signal_hold_no_copies(channels):
    made = simulated(channels)
    found = recovered(made)
    for kind in ("white", "phases"):
        null = np.asarray(null_like(made.measurement, found.likelihood, kind), dtype=np.float64)
        level = found.noise_std if kind == "white" else np.asarray(made.measurement).std()
        assert null.std() == pytest.approx(level, rel=0.1)
        assert abs(np.corrcoef(null.ravel(), np.asarray(made.measurement).ravel())[0, 1]) < 0.1
        (run,) = null_runs(
            made.measurement,
            found.likelihood,
            1,
            kind=kind,
            box_size=made.target.shape,
            iterations=20,
            starts=3,
        )
        assert run.evidence < 0.6 * found.evidence


def test_symmetries_that_leave_the_box_are_refused_in_one_sentence():
    with pytest.raises(ParameterError, match="symmetry C1") as caught:
        recovered(simulated(), symmetry="C3")
    assert "\n" not in str(caught.value)
