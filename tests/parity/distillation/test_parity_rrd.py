"""RRD against a loop, for the items that were drawn."""

import method_cases as case
import pytest

from dllm2rec.distillation.rrd import RRDDistiller, RRDSettings


@pytest.mark.parametrize(("depth", "interesting", "uninteresting"), [(12, 5, 6), (10, 10, 3), (8, 1, 1)])
def test_rrd_agrees_with_a_slow_loop(depth: int, interesting: int, uninteresting: int) -> None:
    settings = RRDSettings(lambda_d=0.3, depth=depth, interesting=interesting, uninteresting=uninteresting)
    distiller = RRDDistiller(lessons=case.lessons(depth), settings=settings)
    found = case.term(distiller)
    expected = 0.0
    for p in case.PLACES:
        wanted, rest = (items[p].tolist() for items in (distiller.interesting, distiller.uninteresting))
        listed = case.LISTS[p, :depth].tolist()
        assert sorted(wanted, key=listed.index) == wanted
        assert not {*rest} & {*listed, *case.HISTORY[p].tolist(), case.TARGET[p]}
        expected += case.slow_permutation([case.SCORES[p, i] for i in wanted], [case.SCORES[p, i] for i in rest])
    assert found == pytest.approx(0.3 * expected / len(case.ROW), rel=1e-5)
