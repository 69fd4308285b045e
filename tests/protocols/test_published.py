"""The published figures agree with each other, so that no digit was lost on the way."""

import pytest

from protocols import published


def test_in_distribution_is_the_mean_of_the_sources_and_the_last_figure_the_harmonic_mean():
    for method, figures in published.DOMAIN.items():
        inside, outside, harmonic = published.DOMAIN_MEANS[method]
        assert sum(figures[source] for source in published.TARGETS) / 4 == pytest.approx(inside, abs=0.0051)
        assert published.harmonic_mean(inside, outside) == pytest.approx(harmonic, abs=0.0101)


def test_out_of_distribution_is_a_mean_in_which_the_two_unpublished_targets_are_possible():
    published_targets = [t for targets in published.TARGETS.values() for t in targets if t not in {"CVC300", "BKAI"}]
    assert len(published_targets) == 8
    for method, figures in published.DOMAIN.items():
        rest = 10 * published.DOMAIN_MEANS[method][1] - sum(figures[target] for target in published_targets)
        assert 45 < rest / 2 < 85


def test_prompt_designs_have_their_harmonic_mean():
    for inside, outside, harmonic in published.PROMPT_DESIGNS.values():
        assert published.harmonic_mean(inside, outside) == pytest.approx(harmonic, abs=0.0101)


def test_the_published_nsd_lies_a_little_above_the_dsc_and_more_data_never_hurt_our_method():
    assert len(published.DATA_EFFICIENCY) == 20
    for shares in published.DATA_EFFICIENCY.values():
        assert list(shares) == [10, 25, 50, 100]
        assert all(1.2 < nsd - dsc < 5.6 for dsc, nsd in shares.values())
    ours = list(published.DATA_EFFICIENCY[published.OURS].values())
    assert ours == sorted(ours)
    assert ours[-1] == max(shares[100] for shares in published.DATA_EFFICIENCY.values())


def test_names_are_known_in_any_spelling():
    assert published.canonical("clinicdb") == "ClinicDB"
    assert published.canonical("hippocampus") == "hippocampus"
