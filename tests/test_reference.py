"""README's table of the reference header is whole and true: each name declared there has a place that exists here."""

import re
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()

_STRUCTURES = """
    QCowHeader QCowSnapshot Qcow2Cache Qcow2UnknownHeaderExtension Qcow2Feature BDRVQcowState QCowCreateState
    Qcow2COWRegion QCowL2Meta
"""

_FUNCTIONS = """
    size_to_clusters size_to_l1 offset_to_l2_index align_offset qcow2_get_cluster_type qcow2_need_accurate_refcounts
    qcow2_backing_read1 qcow2_mark_dirty qcow2_update_header
    qcow2_refcount_init qcow2_refcount_close qcow2_alloc_clusters qcow2_alloc_clusters_at qcow2_alloc_bytes
    qcow2_free_clusters qcow2_free_any_clusters qcow2_update_snapshot_refcount qcow2_check_refcounts
    qcow2_grow_l1_table qcow2_l2_cache_reset qcow2_decompress_cluster qcow2_encrypt_sectors qcow2_get_cluster_offset
    qcow2_alloc_cluster_offset qcow2_alloc_compressed_cluster_offset qcow2_alloc_cluster_link_l2
    qcow2_discard_clusters qcow2_zero_clusters
    qcow2_snapshot_create qcow2_snapshot_goto qcow2_snapshot_delete qcow2_snapshot_list qcow2_snapshot_load_tmp
    qcow2_free_snapshots qcow2_read_snapshots
    qcow2_cache_create qcow2_cache_destroy qcow2_cache_entry_mark_dirty qcow2_cache_flush qcow2_cache_set_dependency
    qcow2_cache_depends_on_flush qcow2_cache_get qcow2_cache_get_empty qcow2_cache_put
"""

_CONSTANTS = """
    QCOW_MAGIC QCOW_CRYPT_NONE QCOW_CRYPT_AES QCOW_MAX_CRYPT_CLUSTERS QCOW_OFLAG_COPIED QCOW_OFLAG_COMPRESSED
    QCOW_OFLAG_ZERO REFCOUNT_SHIFT MIN_CLUSTER_BITS MAX_CLUSTER_BITS L2_CACHE_SIZE REFCOUNT_CACHE_SIZE
    DEFAULT_CLUSTER_SIZE QCOW2_OPT_LAZY_REFCOUNTS QCOW2_FEAT_TYPE_INCOMPATIBLE QCOW2_FEAT_TYPE_COMPATIBLE
    QCOW2_FEAT_TYPE_AUTOCLEAR QCOW2_INCOMPAT_DIRTY_BITNR QCOW2_INCOMPAT_DIRTY QCOW2_INCOMPAT_MASK
    QCOW2_COMPAT_LAZY_REFCOUNTS_BITNR QCOW2_COMPAT_LAZY_REFCOUNTS QCOW2_COMPAT_FEAT_MASK QCOW2_CLUSTER_UNALLOCATED
    QCOW2_CLUSTER_NORMAL QCOW2_CLUSTER_COMPRESSED QCOW2_CLUSTER_ZERO L1E_OFFSET_MASK L2E_OFFSET_MASK
    L2E_COMPRESSED_OFFSET_SIZE_MASK REFT_OFFSET_MASK
"""

STRUCTURES, FUNCTIONS, CONSTANTS = (names.split() for names in (_STRUCTURES, _FUNCTIONS, _CONSTANTS))

ROWS = [
    [re.findall(r"`([^`]+)`", cell) for cell in row]
    for row in re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|$", README.split("| reference | here")[1].split("\n\n")[0], re.MULTILINE
    )
]
"""The names on each side of a row."""

PLACES = [name for _, places in ROWS for name in places if re.fullmatch(r"[a-z_0-9]+(\.\w+)+", name)]


@pytest.mark.parametrize("name", [*STRUCTURES, *FUNCTIONS, *CONSTANTS])
def test_each_name_of_the_reference_header_has_its_row(name: str) -> None:
    rows = [here for there, here in ROWS if any(fnmatchcase(name, pattern) for pattern in there)]
    assert len(rows) == 1


@pytest.mark.parametrize("place", [place for place in PLACES if not place.startswith("e2kdisk.")])
def test_each_place_that_the_table_names_exists(place: str) -> None:
    module, *names = place.split(".")
    thing = import_module(f"e2kdisk.qcow2.{module}")
    for name in names:
        thing = getattr(thing, name)


def test_the_table_names_nothing_that_the_header_does_not_declare() -> None:
    known = [*STRUCTURES, *FUNCTIONS, *CONSTANTS]
    assert [name for there, _ in ROWS for name in there if not any(fnmatchcase(one, name) for one in known)] == []
