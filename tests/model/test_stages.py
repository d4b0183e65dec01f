"""Epochs of a coupled training."""

from scmoe.model._cplmixvae_stages import FROM_GRAPH, FROM_TREE, stage_epochs


def test_default_steps():
    assert stage_epochs(100, None, None, None, FROM_GRAPH) == (5, 30, 3)
    assert stage_epochs(100, None, None, None, FROM_TREE) == (3, 6, 2)


def test_few_cells_are_not_seen_without_end():
    assert stage_epochs(1, None, None, None, FROM_GRAPH) == (500, 500, 50)


def test_what_is_given_is_kept():
    assert stage_epochs(100, 12, None, None, FROM_GRAPH) == (5, 12, 3)
    assert stage_epochs(100, 4, None, None, FROM_GRAPH) == (4, 4, 3)
    assert stage_epochs(100, 12, 7, 9, FROM_GRAPH) == (7, 12, 9)
