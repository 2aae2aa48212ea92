"""A run of volumes: a small chain from a cold start, resume with the same bits, races, symmetry, the gauge, refusals."""

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.data import open_measurement
from mtdcore.data.noise import estimate_noise_levels, estimate_noise_std, excess_energy
from mtdcore.em.checkpoint import load_checkpoint
from mtdcore.em.online.batches import OnlineEM
from mtdcore.em.volumes.gauge import find_axes, off_centre
from mtdcore.em.volumes.plan import VolumePlan, default_separation, last_band
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.em.volumes.starts import rough_blob
from mtdcore.em.volumes.state import load_volume_checkpoint, save_volume_checkpoint
from mtdcore.errors import CheckpointError, InputError, ParameterError
from mtdcore.estep.backends.matrix import Scores
from mtdcore.estep.volumes.expectation import volume_e_step
from mtdcore.estep.volumes.statistics import VolumeStatistics
from mtdcore.estep.volumes.templates import Search
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.grids import ball, moved, shifted
from mtdcore.model.volumes.maps import read_map
from mtdcore.model.volumes.projections import Projections
from mtdcore.mstep.volumes import VolumeUpdate
from mtdcore.results.volumes import align_volumes, orientation_information, shape_correlation
from mtdcore.results.volumes.copies import find_copies
from mtdcore.synthetic.placement import random_corners
from mtdcore.synthetic.volumes import Gaussians, chain


def simulated(thing, side, copies, snr, seed, count=2):
    rng = np.random.default_rng(seed)
    width = round(np.sqrt(copies / count * side**2 / 0.2))
    images = thing.projections(so3.random_rotations(copies, rng), side)
    sigma = np.sqrt(np.mean(images**2) / snr)
    pixels = sigma * rng.standard_normal((count, width, width))
    for m in range(count):
        per = copies // count
        corners = random_corners(rng, per, (width - side + 1, width - side + 1), side)
        for image, (row, column) in zip(images[m * per :], corners, strict=False):
            pixels[m, row : row + side, column : column + side] += image
    return pixels.astype(np.float32), sigma


SHORT = VolumePlan(10, iterations=6, first_views=60, last_views=120, coarse_views=40, seed=3)


@pytest.fixture(scope="module")
def small():
    return simulated(chain(10), 10, 40, 2.0, 0)[0]


def test_a_chain_comes_back_from_a_cold_start():
    """Strong signal, so that seconds are enough; the plan is that of every run, with fewer iterations."""
    side = 12
    pixels, sigma = simulated(chain(side), side, 200, 2.0, 0)
    truth = chain(side).volume(side) * ball(side)
    assert orientation_information(truth, sigma) > 4
    plan = VolumePlan(side, iterations=40, last_band=0.4, first_views=150, last_views=400, coarse_views=100)
    found = recover_volume(pixels, box_size=side, noise_std=sigma, plan=plan)
    aligned = align_volumes(found.volume, truth)
    assert shape_correlation(aligned.volume, truth) > 0.8
    assert found.expected_count == pytest.approx(200, rel=0.05)
    assert found.evidence > 1000
    assert len(found.history) == 40
    assert found.history[-1].share == 1.0


@pytest.mark.parametrize("each", [False, True])
def test_noise_gives_next_to_no_evidence(each):
    noise = np.random.default_rng(1).standard_normal((2, 120, 120)).astype(np.float32)
    plan = VolumePlan(10, iterations=10, first_views=60, last_views=120, coarse_views=40)
    given = {"box_size": 10, "noise_std": "auto" if each else 1.0}
    found = recover_volume(noise, **given, plan=plan, each=each)
    assert found.evidence < 30


@pytest.mark.parametrize("each", [False, True])
def test_a_run_that_finds_nothing_ends_early_and_says_so(each):
    noise = np.random.default_rng(1).standard_normal((2, 120, 120)).astype(np.float32)
    plan = VolumePlan(10, iterations=60, first_views=60, last_views=120, coarse_views=40)
    found = recover_volume(noise, box_size=10, plan=plan, each=each)
    assert found.stopped == "blank"
    assert 15 <= len(found.history) < 40
    assert abs(found.evidence) < 5


def test_noise_does_not_fall_below_half_of_what_neighbouring_pixels_tell(small, monkeypatch):
    """Where windows overlap, what copies explain is counted twice, and next to nothing may be left."""
    monkeypatch.setattr(VolumeStatistics, "residual_energy", lambda *_: -1.0)
    found = recover_volume(small, box_size=10, plan=SHORT)
    assert found.noise_std == pytest.approx(0.5 * estimate_noise_std(open_measurement(small)))
    assert np.isfinite([record.evidence for record in found.history]).all()


def test_a_volume_behind_ctfs_comes_back_without_them():
    """Volumes once took no notice of CTFs, and nothing said so."""
    frequencies = np.linspace(0.0, 0.5, 65)
    ctf = np.abs(np.sin(np.array([30.0, 45.0, 60.0, 80.0])[:, None] * frequencies**2 + 0.1))
    made = mtd.simulate_volume(chain(10), box_size=10, count=40, micrographs=4, snr=3.0, transfer=ctf, seed=1)
    plan = VolumePlan(
        10, iterations=12, last_band=0.4, first_views=60, last_views=150, coarse_views=50, cooling=0.0
    )
    same = {"box_size": 10, "noise_std": made.noise_std, "plan": plan, "initial": made.volume}
    known = recover_volume(made.measurement, micrographs=mtd.Micrographs(np.ones(4), transfer=ctf), **same)
    blind = recover_volume(made.measurement, **same)
    errors = [
        np.linalg.norm(one.volume - made.volume) / np.linalg.norm(made.volume) for one in (known, blind)
    ]
    assert errors[0] < 0.7 * errors[1]
    assert known.evidence > blind.evidence
    assert known.likelihood.micrographs is known.micrographs


def uneven(seed=0):
    """Four micrographs: noise of 1, 3, 3 and 1 times that of an SNR of 4, and twenty, twenty, twenty and no copies."""
    made = mtd.simulate_volume(chain(10), box_size=10, count=20, micrographs=4, snr=4.0, seed=seed)
    noise, rng = made.noise_std * np.array([1.0, 3.0, 3.0, 1.0]), np.random.default_rng([seed, 9])
    pixels = np.array(made.pixels, np.float64)
    pixels[1:3] += np.sqrt(noise[1] ** 2 - noise[0] ** 2) * rng.standard_normal(pixels[1:3].shape)
    pixels[3] = noise[3] * rng.standard_normal(pixels.shape[1:])
    return made.volume, pixels.astype(np.float32), noise


LATE = VolumePlan(
    10, iterations=16, last_band=0.4, first_views=60, last_views=200, coarse_views=50, cooling=0.0
)


def test_micrographs_are_told_apart_by_their_noise_and_their_copies():
    errors = []
    for seed in range(3):
        truth, pixels, noise = uneven(seed)
        same = {"box_size": 10, "plan": LATE, "initial": truth}
        alike, each = (recover_volume(7.0 + pixels, **same, each=own) for own in (False, True))
        best, levels = each.state.best, each.noise_std * each.micrographs.noise_ratio
        np.testing.assert_allclose(levels, noise, rtol=0.05)
        np.testing.assert_allclose(best.micrographs.count, [20, 20, 20, 1], atol=1.5)
        assert best.noise_std == pytest.approx(np.sqrt(np.mean(best.micrographs.noise**2)))
        assert each.likelihood.offset == pytest.approx(7.0, abs=0.05 * noise[0])
        assert each.evidence > 1.5 * alike.evidence
        assert f"from {levels.min():.4g} to {levels.max():.4g}" in each.noise
        assert "from" not in alike.noise
        errors.append([np.linalg.norm(one.volume - truth) / np.linalg.norm(truth) for one in (each, alike)])
        level, search = pixels + 7.0 - each.likelihood.offset, Search(Projections(10, 300, band=0.4))
        found = find_copies(level, each.volume, each.likelihood, search)
        assert set(found.micrograph) == {0, 1, 2}  # the last one holds none
    told, blind = np.mean(errors, axis=0)
    assert told < 0.95 * blind


def test_early_no_micrograph_settles_on_no_copies():
    """Real pictures were lost so: the first volume fits nowhere, one count after another fell to 1, and never rose again."""
    noise, states = np.random.default_rng(1).standard_normal((3, 90, 90)).astype(np.float32), []
    plan = VolumePlan(10, iterations=8, first_views=60, last_views=120, coarse_views=40)
    recover_volume(noise, box_size=10, plan=plan, each=True, callback=states.append)
    least = [one.best.micrographs.count.min() for one in states]
    assert min(least[:4]) >= 0.5 * states[0].first_count / 3 - 1e-9


def test_parts_of_one_micrograph_say_nothing_of_the_others():
    """A part that holds the noisy micrograph alone must not make the others noisy."""
    truth, pixels, noise = uneven()
    each = recover_volume(pixels, box_size=10, plan=LATE, initial=truth, each=True, parts=4)
    np.testing.assert_allclose(each.noise_std * each.micrographs.noise_ratio, noise, rtol=0.05)
    np.testing.assert_allclose(each.state.best.micrographs.count, [20, 20, 20, 1], atol=2)


def test_a_micrograph_that_is_masked_does_not_end_a_run(small):
    """Nothing tells its noise, and nothing of it is scored."""
    pixels = np.concatenate([small, np.full_like(small[:1], np.nan)])
    found = recover_volume(pixels, box_size=10, plan=SHORT, each=True)
    alone = recover_volume(small, box_size=10, plan=SHORT, each=True)
    levels = found.noise_std * found.micrographs.noise_ratio
    np.testing.assert_allclose(levels[:2], alone.noise_std * alone.micrographs.noise_ratio, rtol=0.1)
    with pytest.raises(InputError, match="no two neighbouring pixels"):
        recover_volume(pixels[2:], box_size=10, noise_std="auto", noise=alone.noise_model, each=True)


def test_levels_that_are_given_are_kept(small):
    """Known noise is not learned; the numbers of copies are where that is asked for."""
    facts = mtd.Micrographs(np.array([1.0, 1.2]), np.array([1.0, 2.0]))
    given = {"box_size": 10, "plan": SHORT, "micrographs": facts}
    found = recover_volume(small, **given, noise_std=0.5, each=True)
    np.testing.assert_allclose(found.micrographs.noise_ratio, facts.noise_ratio)
    assert found.noise_std == 0.5
    assert found.micrographs.count_share[0] == pytest.approx(0.5, abs=0.1)
    kept = recover_volume(small, **given)
    assert kept.micrographs is facts
    assert kept.noise_std != 0.5


def test_no_micrograph_falls_below_half_of_what_its_neighbouring_pixels_tell(small, monkeypatch):
    monkeypatch.setattr(Scores, "explained", lambda *_: 1e9)
    loud = small * np.array([1.0, 2.0], np.float32)[:, None, None]
    found = recover_volume(loud, box_size=10, plan=SHORT, each=True)
    levels = estimate_noise_levels(open_measurement(loud))
    np.testing.assert_allclose(found.state.best.micrographs.noise, 0.5 * levels)


def test_a_state_goes_on_as_it_was_made(small):
    states = []
    recover_volume(small, box_size=10, plan=SHORT, callback=states.append)
    with pytest.raises(ParameterError, match="each=False"):
        recover_volume(small, box_size=10, plan=SHORT, state=states[0], each=True)


def test_views_of_a_volume_are_for_another_function(small):
    """The noise of a run that took them was NaN, and the error told of that."""
    with pytest.raises(ParameterError, match="recover_volume"):
        mtd.recover(small, box_size=10, rotations=Projections(10, 20))


def test_a_recovered_volume_is_saved_as_a_map(small, tmp_path):
    pytest.importorskip("mrcfile")
    found = recover_volume(small, box_size=10, plan=SHORT)
    found.save_mrc(tmp_path / "v.mrc", pixel_size=3.5)
    volume, voxel_size = read_map(tmp_path / "v.mrc")
    np.testing.assert_array_equal(volume, found.volume.astype(np.float32))
    assert voxel_size == pytest.approx(3.5)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("facts", [None, mtd.Micrographs(np.ones(2), transfer=np.ones((2, 5)))])
def test_a_resumed_run_has_the_same_bits(small, tmp_path, facts, each):
    given = {"box_size": 10, "plan": SHORT, "parts": 2, "micrographs": facts, "each": each}
    states = []

    def keep(state):
        states.append(state)
        if state.iteration in (2, 3):
            save_volume_checkpoint(tmp_path / "c.safetensors", state, {"seed": 3})

    whole = recover_volume(small, **given, callback=keep)
    loaded = load_volume_checkpoint(tmp_path / "c.safetensors", {"seed": 3})
    assert loaded.iteration == 3
    again = recover_volume(small, **given, state=loaded)
    np.testing.assert_array_equal(again.volume, whole.volume)
    assert again.evidence == whole.evidence
    assert [r.evidence for r in again.history] == [r.evidence for r in whole.history]
    with pytest.raises(CheckpointError, match="other parameters: seed was 3, is 4"):
        load_volume_checkpoint(tmp_path / "c.safetensors", {"seed": 4})
    with pytest.raises(CheckpointError, match='format "volume'):
        load_checkpoint(tmp_path / "c.safetensors", {"seed": 3})
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="previous checkpoint, of iteration 2"):
        before = load_volume_checkpoint(tmp_path / "c.safetensors", {"seed": 3})
    again = recover_volume(small, **given, state=before)
    np.testing.assert_array_equal(again.volume, whole.volume)
    (tmp_path / "c.previous.safetensors").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        load_volume_checkpoint(tmp_path / "c.safetensors", {"seed": 3})


def test_copies_of_different_strength_are_told_from_one_another():
    """Taken to be alike, the faint ones are missed, and what a copy shows is the mean over those that are seen."""
    given = {"box_size": 10, "count": 40, "micrographs": 2, "snr": 6.0, "seed": 4}
    made = mtd.simulate_volume(chain(10), **given, amplitude_std=0.5)
    plan = VolumePlan(10, iterations=16, last_band=0.4, first_views=60, last_views=200, coarse_views=50)
    same = {"box_size": 10, "noise_std": made.noise_std, "plan": plan, "initial": made.volume}
    alike = recover_volume(made.measurement, **same)
    told = recover_volume(made.measurement, **same, amplitude_std="auto")
    assert alike.amplitude_std == 0.0
    assert told.amplitude_std == pytest.approx(0.5, abs=0.15)
    assert told.evidence > alike.evidence + 50
    search = Search(Projections(10, 400, band=0.4))
    found = find_copies(made.measurement, told.volume, told.likelihood, search)
    places = {tuple(p): a for p, a in zip(made.positions.tolist(), made.amplitudes, strict=True)}
    corners = zip(
        *(np.rint(one).tolist() for one in (found.micrograph, found.row, found.column)), strict=True
    )
    pairs = [(a, places[c]) for c, a in zip(corners, found.amplitude, strict=True) if c in places]
    assert len(pairs) > 50
    assert np.corrcoef(np.transpose(pairs))[0, 1] > 0.9
    errors = [np.linalg.norm(one.volume - made.volume) / np.linalg.norm(made.volume) for one in (told, alike)]
    assert errors[0] < 0.8 * errors[1]


def test_amplitudes_of_copies_that_are_alike_are_found_to_be(small):
    assert recover_volume(small, box_size=10, plan=SHORT, amplitude_std="auto").amplitude_std < 0.25


def test_a_race_ends_half_way_with_the_best(small):
    numbers = []
    recover_volume(
        small, box_size=10, plan=SHORT, starts=2, callback=lambda s: numbers.append(len(s.candidates))
    )
    assert numbers == [2, 2, 2, 1, 1, 1]


def test_the_scale_of_the_data_does_not_matter(small):
    one = recover_volume(small, box_size=10, plan=SHORT)
    seven = recover_volume(7.0 * small, box_size=10, plan=SHORT)
    np.testing.assert_allclose(seven.volume, 7.0 * one.volume, atol=1e-2 * np.abs(seven.volume).max())
    assert seven.evidence == pytest.approx(one.evidence, rel=1e-3)


def test_symmetry_is_found_and_then_imposed():
    side, rng = 14, np.random.default_rng(5)
    arm = np.array([[3.5, 0.5, 1.5], [2.0, 1.5, 3.0]])
    every = np.concatenate([arm @ g.T for g in so3.group("D2")])
    volume = Gaussians.of(every, 1.3).volume(side) * ball(side)
    turn = so3.random_rotations(1, rng)[0]
    rotation, fit = find_axes(moved(volume, turn), "D2")
    assert fit > 0.9
    views = Projections(side, 4, "D2")
    on_axes = moved(moved(volume, turn), rotation)
    assert np.linalg.norm(views.symmetrised(on_axes) - on_axes) < 0.25 * np.linalg.norm(on_axes)
    _, poor = find_axes(chain(side).volume(side), "D2")
    assert poor < fit - 0.05
    plan = VolumePlan(side, "D2", iterations=10)
    assert [plan.symmetry_at(i) for i in (0, 5, 6, 9)] == ["C1", "C1", "D2", "D2"]
    assert plan.search(9).views.count < 0.4 * plan.search(5).views.count


def test_a_plan_of_no_group_is_refused_before_it_begins():
    with pytest.raises(ParameterError, match="symmetry should be"):
        VolumePlan(24, "D")


def test_the_plan_marches():
    plan = VolumePlan(24, iterations=100, last_band=0.3)
    bands = [plan.band(i) for i in range(100)]
    assert bands[0] == 0.125
    assert bands[-1] == pytest.approx(0.3, abs=0.021)
    assert sorted(bands) == bands
    assert plan.search(0).coarse is None
    late = plan.search(99)
    assert (late.views.count, late.coarse.count) == (1200, 200)
    assert late.coarse.band <= 0.19
    assert [plan.heat(i, 16.0) for i in (0, 20, 40, 90)] == pytest.approx([16.0, 4.0, 1.0, 1.0])
    np.testing.assert_array_equal(plan.search(7).views.rotations, plan.search(7).views.rotations)
    assert so3.angle_between(plan.search(7).views.rotations[0], plan.search(8).views.rotations[0]) > 1e-3
    assert [plan.reads_all(i) for i in (84, 85)] == [False, True]
    assert (default_separation(32), default_separation(32, 20.0)) == (24, 14)
    assert last_band(11) > last_band(16) > last_band(32) == 0.30


def test_the_centre_of_mass_goes_to_the_middle():
    volume = shifted(chain(10).volume(10), np.array([1.0, 0.0, -0.6]))
    shift = off_centre(volume, ball(10))
    np.testing.assert_allclose(shift, [-1.0, 0.0, 0.6], atol=0.35)
    assert (
        off_centre(chain(10).volume(10), ball(10)) is None or np.abs(off_centre(volume, ball(10))).max() < 1.5
    )


def test_an_iteration_rests_on_its_part_alone(small):
    """Earlier parts were seen with poorer volumes: nothing of theirs enters but the volume and its prior."""
    states = []
    found = recover_volume(small, box_size=10, noise_std=0.3, plan=SHORT, parts=2, callback=states.append)
    before, after = states[0], states[1]
    level = found.noise_model.through(mtd.open_measurement(small))
    part = OnlineEM(parts=2, last=0, seed=SHORT.seed).batch(level, 1, SHORT.iterations)
    search, sigma = SHORT.search(1), 0.3 * np.sqrt(SHORT.heat(1, before.first_heat))
    given = WindowLikelihood(search.views, sigma, before.best.expected_count, default_separation(10))
    given = given.with_amplitude_std(before.best.amplitude_std)
    found = volume_e_step(part, before.best.volume, given, search).normalised()
    volume, _ = VolumeUpdate()(
        before.best.volume, found.right, found.normal, sigma, search.views.band, before.best.spectrum
    )
    np.testing.assert_array_equal(after.best.volume, volume)
    assert after.history[-1].share == pytest.approx(0.5)
    assert after.best.expected_count == max(2 * found.expected_count, 0.5 * before.first_count)


def test_a_start_has_the_energy_asked_for():
    start = rough_blob(12, 0.125, 50.0, np.random.default_rng(0))
    images = Projections(12, 200).apply(start)
    assert np.mean(np.sum(images**2, axis=(1, 2))) == pytest.approx(50.0, rel=0.05)


@pytest.mark.parametrize(
    "bad",
    [
        {"starts": 0},
        {"starts": 1.5},
        {"initial": np.zeros((4, 4, 4))},
        {"parts": 10**6},
        {"symmetry": "X"},
        {"noise": "spectrum"},
        {"noise_std": "Auto"},
        {"noise_std": 0.0},
        {"diameter": -3.0},
        {"diameter": 11.0},
        {"min_separation": "auto"},
        {"expected_count": -1},
        {"amplitude_std": -0.1},
        {"amplitude_std": "some"},
        {"seed": -1},
        {"prior": "proteins-3d"},
        {"callback": 3},
        {"micrographs": "each"},
        {"each": "auto"},
        {"subpixel": "auto"},
        {"micrographs": mtd.Micrographs(np.ones(3))},
    ],
)
def test_bad_arguments_are_refused(small, bad):
    with pytest.raises(ParameterError):
        recover_volume(small, box_size=10, iterations=1, **bad)


def test_copies_between_pixels_are_worth_more_where_they_are_looked_for():
    """From the truth, copies anywhere: half pixels explain what whole ones cannot, and the volume is nearer."""
    made = mtd.simulate_volume(
        chain(10), box_size=10, count=40, micrographs=2, snr=6.0, subpixel=True, seed=5
    )
    shared = {"iterations": 8, "last_band": 0.42, "first_band": 0.42, "first_views": 400, "last_views": 400}
    told = {}
    for subpixel in (False, True):
        plan = VolumePlan(10, **shared, coarse_views=60, cooling=0.0, subpixel=subpixel)
        told[subpixel] = recover_volume(
            made.measurement, box_size=10, noise_std=made.noise_std, plan=plan, initial=made.volume
        )
    assert told[True].evidence > told[False].evidence + 100
    truth = np.linalg.norm(made.volume)
    errors = [np.linalg.norm(told[one].volume - made.volume) / truth for one in (False, True)]
    assert errors[1] < 0.9 * errors[0]


def test_a_box_that_does_not_fit_is_refused(small):
    with pytest.raises(mtd.errors.InputError):
        recover_volume(small, box_size=500)


def test_a_run_with_symmetry_ends_symmetric():
    side = 10
    every = np.concatenate([np.array([[2.6, 0.4, 1.2], [1.2, 1.4, 2.2]]) @ g.T for g in so3.group("C2")])
    pixels, sigma = simulated(Gaussians.of(every, 1.0), side, 60, 3.0, 1)
    plan = VolumePlan(
        side, "C2", iterations=12, last_band=0.4, first_views=80, last_views=160, coarse_views=50, cooling=0.2
    )
    found = recover_volume(pixels, box_size=side, noise_std=sigma, plan=plan)
    views = Projections(side, 10, "C2")
    gap = (views.symmetrised(found.volume) - found.volume) * ball(side, 7.0)
    assert np.linalg.norm(gap) < 0.1 * np.linalg.norm(found.volume)
    assert found.history[-1].views < 0.7 * found.history[5].views
    assert found.expected_count == pytest.approx(60, rel=0.15)


def test_a_start_expects_a_tenth_of_the_area_and_is_too_weak_rather_than_too_strong(small):
    """The number was once L times too large. In crowds a start at the energy of so few copies fits nowhere: it dies."""
    states = []
    found = recover_volume(small, box_size=10, plan=SHORT, callback=states.append)
    assert states[0].first_count == pytest.approx(0.1 * small.size / 10**2)
    strength = found.plan.nats * states[0].first_heat * found.noise_model.noise_std**2
    energy = excess_energy(found.noise_model.through(open_measurement(small)), found.noise_model.noise_std)
    room = small.size / default_separation(10) ** 2
    assert strength == pytest.approx(max(energy / room, found.plan.nats * found.noise_model.noise_std**2))


def test_a_plan_takes_a_seed_and_refuses_what_it_would_overrule(small):
    """Symmetry, iterations, views and band beside a plan were dropped in silence, and null runs with a plan shared its seed."""
    seeds = [recover_volume(small, box_size=10, plan=SHORT, seed=seed).plan.seed for seed in (None, 8)]
    assert seeds == [3, 8]
    for beside in ({"symmetry": "C2"}, {"iterations": 7}, {"views": 50}, {"band": 0.2}):
        with pytest.raises(ParameterError, match="in the plan"):
            recover_volume(small, box_size=10, plan=SHORT, **beside)
    with pytest.raises(ParameterError, match="a box of 10"):
        recover_volume(small, box_size=12, plan=SHORT)


def test_a_mask_is_heeded(small):
    mask = np.zeros(small.shape, bool)
    mask[0] = True
    alone = recover_volume(small[:1], box_size=10, plan=SHORT, parts=1, expected_count=20)
    masked = recover_volume(small, mask=mask, box_size=10, plan=SHORT, parts=1, expected_count=20)
    assert masked.expected_count == pytest.approx(alone.expected_count, rel=0.02)
