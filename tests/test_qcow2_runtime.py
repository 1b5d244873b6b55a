"""What holds while an image is open: runtime options by QEMU's names, and the events that a write announces."""

import pytest

from e2kdisk.block.fault import FaultNode
from e2kdisk.block.open import open_disk
from e2kdisk.block.tree import Taken, nested
from e2kdisk.errors import UnsupportedFeature, UsageError
from e2kdisk.qcow2.create import create
from e2kdisk.qcow2.overlap import TEMPLATES
from e2kdisk.qcow2.refcount import Freed
from e2kdisk.qcow2.runtime import take_runtime
from tests.engine_lab import new_image, put
from tests.qcow2_model import open_image


def extras(discards=True, **options):
    taken = Taken("qcow2", nested({key.replace("_", "-"): value for key, value in options.items()}), kind="format")
    found = take_runtime(taken, "disk.qcow2", discards=discards)
    taken.finish()
    return found


def test_runtime_options_become_those_of_the_format():
    assert extras() == {}
    assert extras(lazy_refcounts="on", l2_cache_size="64k") == {"lazy_refcounts": True, "l2_cache_size": 65536}
    assert extras(cache_size="1M", refcount_cache_size="256k") == {"l2_cache_size": 768 << 10}
    assert extras(pass_discard_request="on", pass_discard_other=False, cache_clean_interval="5") == {}


def test_discards_are_passed_on_for_the_reasons_that_are_switched_on():
    assert extras(pass_discard_snapshot="off") == {"pass_discard": {Freed.REQUEST}}
    assert extras(pass_discard_other="on") == {"pass_discard": set(Freed)}
    assert extras(discards=False) == {"pass_discard": {Freed.SNAPSHOT}}
    assert extras(discards=False, pass_discard_request="on") == {}


def test_overlap_checks_are_a_template_and_switches_that_change_it():
    everything, usual = TEMPLATES["all"], TEMPLATES["cached"]
    assert extras(overlap_check="all") == extras(**{"overlap-check.template": "all"}) == {"overlap_check": everything}
    assert extras(**{"overlap-check.inactive-l2": "on"}) == {"overlap_check": usual | {"inactive L2 table"}}
    switches = {"overlap-check.template": "all", "overlap-check.main-header": "off", "overlap-check.active-l1": "off"}
    assert extras(**switches) == {"overlap_check": everything - {"header", "active L1 table"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lazy_refcounts": "maybe"}, "expects 'on' or 'off'"),
        ({"l2_cache_size": "x"}, "expects a non-negative number"),
        ({"cache_size": "1M", "l2_cache_size": "2M"}, "l2-cache-size may not exceed cache-size"),
        ({"l2_cache_entry_size": "1000"}, "must be a power of two"),
        ({"overlap_check": "foo"}, "Unsupported value 'foo'"),
        ({"overlap-check.foo": "on"}, "does not support the option 'overlap-check.foo'"),
        ({"foo": "1"}, "does not support the option 'foo'"),
    ],
)
def test_a_wrong_runtime_option_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        extras(**options)


@pytest.mark.parametrize("options", [{"data-file.filename": "x"}])
def test_what_is_not_built_yet_says_so(options):
    with pytest.raises(UnsupportedFeature):
        extras(**options)


def test_version_2_has_no_lazy_refcounts_at_runtime_either(tmp_path):
    create(tmp_path / "disk.qcow2", 1 << 20, version=2)
    with pytest.raises(UsageError, match="Lazy refcounts require"):
        open_disk(tmp_path / "disk.qcow2", lazy_refcounts=True)


def test_the_data_of_a_new_cluster_is_a_write_and_a_copy_is_announced_beside_it():
    file = new_image(1 << 20)
    fault = FaultNode(file)
    image = open_image(fault)
    put(image, 0, bytes(65536))
    assert (fault.seen["write_aio"], fault.seen["cow_write"]) == (1, 0)
    put(image, 65536 + 512, b"part of a cluster whose rest reads as zeros")
    assert (fault.seen["write_aio"], fault.seen["cow_write"]) == (2, 0)
    image.scheduler.run(image.snapshots.create("before"))
    put(image, 512, b"part of a cluster that the snapshot has too")
    assert (fault.seen["write_aio"], fault.seen["cow_write"], fault.seen["cow_read"]) == (3, 1, 2)
