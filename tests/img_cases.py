"""Command lines for qemu-img and for ours: generated over sub-commands, options and images, and errors by hand.

A case is a list of command lines that run one after the other in a directory with the images of SETUP. Words are
separated by spaces; none of the cases needs a space in a word, "%" stands for the empty word.
"""

from __future__ import annotations

# A table of command lines, one beside the other:
# ruff: noqa: C901, E501, PLR0912
from collections.abc import Iterator
from itertools import product

from tests import img_debug_cases, img_option_cases

SETUP = (
    "create -q -f qcow2 base.q 4M",
    "io base.q write -P 1 0 200k|write -P 2 1M 64k|write -z 2M 128k|write -P 3 4190208 4k",
    "create -q -f qcow2 -b base.q -F qcow2 over.q",
    "io over.q write -P 4 64k 64k|write -P 5 3M 10k",
    "create -q -f qcow2 -b over.q -F qcow2 top.q 6M",
    "io top.q write -P 6 5M 64k|write -z 64k 64k",
    "create -q -f qcow2 -o compat=0.10 v2.q 3M",
    "io v2.q write -P 7 128k 64k",
    "create -q -f qcow2 -o cluster_size=512,refcount_bits=1 small.q 256k",
    "io small.q write -P 8 1k 3k",
    "create -q -f qcow2 -o cluster_size=2M,lazy_refcounts=on big.q 16M",
    "io big.q write -P 9 3M 1M",
    "create -q -f raw disk.raw 2M",
    "io-raw disk.raw write -P 10 256k 64k",
    "create -q -f raw odd.raw 100000",
    "convert -f qcow2 -O qcow2 -c base.q comp.q",
    "create -q -f qcow2 -o preallocation=metadata pre.q 1M",
    "create -q -u -f qcow2 -b gone.q -F qcow2 orphan.q 1M",
    "create -q -f qcow2 snap.q 1M",
    "io snap.q write -P 11 0 64k",
    "snapshot -c first snap.q",
    "io snap.q write -P 12 64k 64k|write -P 13 0 4k",
    "snapshot -c second snap.q",
    "create -q -f qcow2 kept.q 1M",
    "io kept.q write 0 192k|write 512k 64k|write -z 64k 64k|write -z 256k 64k|write -z 128k 64k|write -z 512k 64k",
    "create -q -f qcow2 empty.q 64M",
    "create -q -f qcow2 -b disk.raw -F raw onraw.q",
)

IMAGES = (
    "base.q", "over.q", "top.q", "v2.q", "small.q", "big.q", "disk.raw", "odd.raw", "comp.q", "pre.q", "orphan.q",
    "snap.q", "kept.q", "empty.q", "onraw.q", "leak.q", "corrupt.q", "cut.q", "text", "nothing", "missing",
)  # fmt: skip
GOOD = ("base.q", "over.q", "top.q", "v2.q", "small.q", "big.q", "disk.raw", "odd.raw", "comp.q", "snap.q", "empty.q")
QCOW2 = ("base.q", "over.q", "top.q", "v2.q", "small.q", "big.q", "comp.q", "snap.q", "empty.q")

Case = tuple[str, ...]


def generated() -> Iterator[Case]:
    """Cases over all combinations that make sense."""
    for image, options in product(IMAGES, ("", "--output=json", "--backing-chain", "-U", "-f raw", "-f qcow2")):
        yield (f"info {options} {image}",)
    for image, options in product(IMAGES, ("", "--output=json", "-q")):
        yield (f"check {options} {image}",)
    for image, options in product(IMAGES, ("", "--output=json", "-s 1M -l 1M --output=json")):
        yield (f"map {options} {image}",)
    for image, fix in product(("base.q", "leak.q", "v2.q"), ("leaks", "all")):
        yield (f"check -r {fix} {image}", f"check {image}")
    targets = (
        "-O raw", "-O qcow2", "-O qcow2 -c", "-O raw -S 0", "-O qcow2 -S 64k", "-O qcow2 -o compat=0.10",
        "-O qcow2 -o cluster_size=4k,refcount_bits=64", "-O qcow2 -o cluster_size=2M,lazy_refcounts=on -p",
        "-O qcow2 -m 4 -W", "-O raw -C",
    )  # fmt: skip
    for image, options in product((*GOOD, "pre.q", "onraw.q", "orphan.q", "missing"), targets):
        yield (f"convert {options} {image} new",)
    for one, other in product((*GOOD, "missing"), repeat=2):
        yield (f"compare {one} {other}",)
    for one, other in product(("base.q", "comp.q", "v2.q", "empty.q"), repeat=2):
        yield (f"compare -s {one} {other}",)
    for options in product(("", "compat=0.10", "compat=1.1"), ("", "cluster_size=4k", "cluster_size=2M"),
                           ("", "preallocation=metadata", "preallocation=full", "lazy_refcounts=on", "refcount_bits=8"),
                           ("1M", "100000", "1.5G")):  # fmt: skip
        *parts, size = options
        if "preallocation=full" in parts and size == "1.5G":
            continue
        text = ",".join(part for part in parts if part)
        yield (f"create -f qcow2 {'-o ' + text if text else ''} new {size}",)
    for image, size in product(
        ("base.q", "v2.q", "small.q", "disk.raw", "snap.q", "over.q"), ("+1M", "8M", "-64k", "512")
    ):
        yield (f"resize {image} {size}",)
        yield (f"resize --shrink {image} {size}", f"info --output=json {image}")
        yield (f"resize -q --preallocation=full {image} {size}",)
    for image in QCOW2:
        yield (f"snapshot -c new {image}", f"snapshot -l {image}", f"snapshot -d new {image}")
        for option in (
            "compat=0.10",
            "compat=1.1",
            "lazy_refcounts=on",
            "refcount_bits=16",
            "size=32M",
            "cluster_size=4k",
        ):
            yield (f"amend -f qcow2 -o {option} {image}",)
    for image, options in product(GOOD, ("", "-O qcow2", "-O qcow2 --output=json", "-O qcow2 -o cluster_size=4k")):
        yield (f"measure {options} {image}",)
    for size in ("0", "1", "1M", "1G", "10T"):
        yield (f"measure --size {size} -O qcow2",)
    for image, options in product(GOOD, ("bs=1M", "bs=1000 count=3", "bs=64k skip=1 count=2", "skip=1000000000")):
        yield (f"dd -O qcow2 if={image} of=new {options}",)
        yield (f"dd if={image} of=new {options}",)


BY_HAND: tuple[Case, ...] = (
    ("",), ("nothing",), ("--foo",), ("-q info base.q",),
    ("create",), ("create -f",), ("create -z a",), ("create a",), ("create a 1X",), ("create a 9E",), ("create a %",),
    ("create a 1 2",), ("create -f foo a 1M",), ("create -f qcow2 -o help",), ("create -f raw -o help",),
    ("create -f qcow2 -o help x",), ("create -f qcow2 -o foo=1 new 1M",), ("create -f qcow2 -o ,x=1 new 1M",),
    ("create -f qcow2 -o cluster_size=3 new 1M",), ("create -f qcow2 -o cluster_size=x new 1M",),
    ("create -f qcow2 -o refcount_bits=3 new 1M",), ("create -f qcow2 -o refcount_bits=x new 1M",),
    ("create -f qcow2 -o compat=0.9 new 1M",), ("create -f qcow2 -o compat=0.10,refcount_bits=8 new 1M",),
    ("create -f qcow2 -o lazy_refcounts=maybe new 1M",), ("create -f qcow2 -o preallocation=foo new 1M",),
    ("create -f raw -o preallocation=metadata new 1M",), ("create -f raw -o preallocation=full new 1M",),
    ("create -f qcow2 -o data_file_raw=on new 1M",), ("create -f qcow2 -o encryption=on new 1M",),
    ("create -f qcow2 -o encrypt.format=foo new 1M",), ("create -f qcow2 -o size=2M new",),
    ("create -f qcow2 -o size=2M new 1M",), ("create -f qcow2 -b base.q new",), ("create -f qcow2 -F qcow2 new 1M",),
    ("create -f qcow2 -b base.q -F qcow2 new", "info new", "map new"), ("create -f qcow2 -b gone -F qcow2 new",),
    ("create -f qcow2 -b gone -F qcow2 new 1M",), ("create -u -f qcow2 -b gone -F qcow2 new 1M",),
    ("create -u -f qcow2 -b gone -F qcow2 new",), ("create -u -f qcow2 -b gone new 1M",),
    ("create -f qcow2 -b base.q -F foo new 1M",), ("create -f raw -b base.q new 1M",), ("create -f qcow2 /nodir/x 1M",),
    ("create -f qcow2 foo:bar 1M",), ("create -f qcow2 % 1M",), ("create -f qcow2 -b new -F qcow2 new",),
    ("create -f raw null-co:// 1M",), ("create -f qcow2 -b odd.raw -F raw new",), ("create -f raw . 1M",),
    ("create -f qcow2 -o cluster_size=512 new 1T",), ("create -f qcow2 new 5T", "info --output=json new"),
    ("create -f raw new 7E",), ("create -q -f qcow2 a,b 1M", "info a,b"), ("create -f qcow2 file:new 1M", "info file:new"),
    ("create -f qcow2 -o cluster_size=4k -o lazy_refcounts=on new 1M",), ("create -f qcow2 new 0x100000",),
    ("create --object secret,id=s,data=p -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s new 1M", "info new"),
    ("info",), ("info base.q v2.q",), ("info --output=foo base.q",), ("info -f foo base.q",), ("info .",),
    ("info json:{",), ("info json:[]",), ("info foo:base.q",), ("info --image-opts base.q",),
    ('info json:{"driver":"qcow2","file":{"driver":"file","filename":"base.q"}}',),
    ('info json:{"file.filename":"base.q"}',), ("info --image-opts driver=qcow2,file.filename=base.q",),
    ("info --image-opts file.filename=base.q",), ("info --image-opts driver=qcow2,file.filename=gone",),
    ("info --image-opts driver=foo,file.filename=base.q",), ("info --image-opts driver=qcow2",),
    ("info --image-opts -f qcow2 base.q",), ("info null-co://",), ("info --object foo,id=x base.q",),
    ("info --object secret,data=x base.q",), ("info --object secret,id=s base.q",), ("info --output",), ("info -x base.q",),
    ("info --backing-chain --output=json top.q",), ("info --out=json base.q",), ("info -- base.q",),
    ("check -r foo base.q",), ("check -r",), ("check",), ("check -T foo base.q",), ("check base.q v2.q",),
    ("check --output=json -r all leak.q",), ("check -q -r leaks leak.q",), ("check -U base.q",),
    ("map",), ("map -s x base.q",), ("map -l x base.q",), ("map --output=foo base.q",), ("map -l 100 base.q",),
    ("snapshot",), ("snapshot base.q",), ("snapshot -c",), ("snapshot -l -c x base.q",), ("snapshot -a nope snap.q",),
    ("snapshot -d nope snap.q",), ("snapshot -a first snap.q", "map --output=json snap.q"), ("snapshot -c x disk.raw",),
    ("snapshot -a x disk.raw",), ("snapshot -l disk.raw",), ("snapshot -U -c x base.q",), ("snapshot -d 1 snap.q",),
    ("snapshot -d first snap.q", "snapshot -d second snap.q", "check snap.q"), ("snapshot -l gone",),
    ("resize",), ("resize base.q",), ("resize base.q foo",), ("resize base.q %",), ("resize 1M base.q",), ("resize gone 1M",),
    ("resize --shrink base.q -100M",), ("resize --preallocation=foo base.q 8M",),
    ("resize --preallocation=metadata base.q 8M", "check base.q"), ("resize -f raw --preallocation=metadata disk.raw 8M",),
    ("resize -f raw disk.raw 3M", "info disk.raw"), ("resize --shrink --preallocation=full base.q 1M",),
    ("compare",), ("compare base.q",), ("compare -f foo base.q v2.q",), ("compare -T foo base.q v2.q",),
    ("compare -q base.q v2.q",), ("compare base.q comp.q v2.q",), ("compare -f raw -F qcow2 base.q base.q",),
    ("rebase",), ("rebase base.q",), ("rebase -b % over.q", "map --output=json over.q"), ("rebase -u -b % over.q",),
    ("rebase -b base.q over.q",), ("rebase -u -b base.q over.q",), ("rebase -b gone -F qcow2 over.q",),
    ("rebase -b base.q -F foo over.q",), ("rebase -u -b gone -F qcow2 over.q", "info over.q"),
    ("rebase -b base.q -F qcow2 disk.raw",), ("rebase -u -b base.q -F qcow2 disk.raw",), ("rebase -b x -F qcow2 gone",),
    ("rebase -b v2.q -F qcow2 over.q", "check over.q"), ("rebase -b disk.raw -F raw over.q", "check over.q"),
    ("rebase -b base.q -F qcow2 top.q", "check top.q"), ("rebase -b % orphan.q",), ("rebase -b v2.q -F qcow2 base.q",),
    ("commit",), ("commit base.q",), ("commit disk.raw",), ("commit gone",), ("commit orphan.q",), ("commit -t foo over.q",),
    ("commit -b foo over.q",), ("commit over.q", "map --output=json over.q"), ("commit -d over.q",), ("commit -q top.q",),
    ("commit -b base.q top.q",), ("commit -b over.q top.q",), ("commit -d -b base.q top.q",), ("commit onraw.q",),
    ("amend",), ("amend base.q",), ("amend -o compat=1.1",), ("amend -o foo=1 base.q",), ("amend -f qcow2 -o help",),
    ("amend -f raw -o help",), ("amend -o compat=0.9 base.q",), ("amend -o backing_file=x base.q",),
    ("amend -f raw -o size=1M disk.raw",), ("amend -o preallocation=full base.q",), ("amend -o refcount_bits=3 base.q",),
    ("amend -o refcount_bits=64 base.q", "amend -o compat=0.10 base.q"), ("amend -o size=32M base.q", "info base.q"),
    ("amend -o lazy_refcounts=on v2.q",), ("amend -o refcount_bits=8 v2.q",), ("amend -o help base.q",),
    ("convert",), ("convert base.q",), ("convert -O foo base.q x",), ("convert missing x",), ("convert -O raw -c base.q x",),
    ("convert -S 3 base.q x",), ("convert -S x base.q x",), ("convert -n -O qcow2 base.q gone",),
    ("convert -n -O raw base.q odd.raw",), ("convert -n -O qcow2 base.q big.q",), ("convert -n -O raw v2.q disk.raw",),
    ("convert -O qcow2 -o cluster_size=3 base.q x",), ("convert -O qcow2 -o help",), ("convert -O raw base.q /nodir/x",),
    ("convert -O qcow2 -B base.q -F qcow2 over.q new", "info new"), ("convert -O qcow2 -B gone -F qcow2 over.q new",),
    ("convert -O raw -B base.q over.q new",), ("convert -O qcow2 -B base.q over.q new",), ("convert -l nope snap.q x",),
    ("convert -l first -O raw snap.q new",), ("convert -l snapshot.id=2 -O qcow2 snap.q new",),
    ("convert -l snapshot.name=first snap.q new",), ("convert -l snapshot.foo=1 base.q x",), ("convert -m 0 base.q x",),
    ("convert -m 17 base.q x",), ("convert -C -S 0 base.q x",), ("convert -c -C base.q x",), ("convert -s x base.q x",),
    ("convert --target-is-zero base.q x",), ("convert --bitmaps base.q x",), ("convert --skip-broken-bitmaps base.q x",),
    ("convert base.q v2.q new",), ("convert -O qcow2 disk.raw odd.raw base.q new",), ("convert -t foo base.q x",),
    ("convert -T foo base.q x",), ("convert --salvage base.q new",), ("convert --salvage -C base.q x",),
    ("convert -O qcow2 -o size=8M base.q new", "info new"), ("convert -O qcow2 -o size=1M base.q new",),
    ("convert -n -O qcow2 -o compat=0.10 base.q v2.q",), ("convert -O raw base.q base.q",), ("convert -D x",),
    ("convert --image-opts driver=qcow2,file.filename=base.q new",), ("convert -O raw base.q null-co://",),
    ("convert --target-image-opts base.q driver=qcow2,file.filename=x",),
    ("convert -n --target-image-opts base.q driver=qcow2,file.filename=big.q",),
    ("convert -O qcow2 -o preallocation=metadata base.q new",), ("convert -O qcow2 -o preallocation=full base.q new",),
    ("convert -q -p -O qcow2 base.q new",), ("convert -n --target-is-zero -O qcow2 base.q empty.q",),
    ("dd",), ("dd if=base.q",), ("dd of=x",), ("dd if=base.q of=x foo=1",), ("dd if=base.q of=x bs=0",),
    ("dd if=base.q of=x bs=x",), ("dd if=gone of=x",), ("dd if=base.q of=x count=-1",), ("dd base.q",), ("dd -n if=a of=x",),
    ("dd if=base.q of=/nodir/x",), ("dd if=base.q of=x bs=3G",), ("dd -O foo if=base.q of=x",),
    ("measure",), ("measure --size x",), ("measure --size 1G base.q",), ("measure -O foo --size 1",),
    ("measure -O qcow2 -l nope snap.q",), ("measure -O qcow2 -l first snap.q",), ("measure --size 8E -O qcow2",),
    ("measure -o preallocation=full -O qcow2 --size 1M",), ("measure base.q v2.q",), ("measure -f qcow2 --size 1",),
    ("bench",), ("bench -c x base.q",), ("bench -c 10 base.q",), ("bench -c 10 -w -f raw disk.raw",),
    ("bench -c 5 --flush-interval=2 base.q",), ("bench -c 5 --flush-interval=2 -d 1 -w base.q",), ("bench -o x base.q",),
    ("bench -S x base.q",), ("bench --pattern 300 -w base.q",), ("bench -t foo base.q",), ("bench -i foo base.q",),
    ("bench -c 5 --no-drain --flush-interval 3 -w base.q",), ("bench -c 20 -s 64k -S 128k -o 4k base.q",),
    ("bench -c 5 -i native base.q",), ("bench -c 5 -n base.q",), ("bench -c 5 -i io_uring base.q",), ("bench -c 0 -d 0 base.q",),
    ("bench -c 3 -o 1G base.q",), ("bench -c 2 -s 8M base.q",), ("bench -c 50 -d 4 -w --flush-interval 7 --no-drain base.q",),
    ("bench -c 30 -w -s 64k -S 100k --pattern 7 base.q",), ("bench -q -c 5 base.q",), ("bench -U -c 5 base.q",),
    ("create -f qcow2 -o extended_l2=on new 1M",), ("create -f qcow2 -o compression_type=zstd new 1M",),
    ("create -f qcow2 -o data_file=data new 1M",), ("bitmap --add base.q b0",), ("check -r all corrupt.q",),
    ("create --object secret,id=s,data=p -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s new 1M",),
    ("bench -d 0 base.q",), ("convert -c -n -O qcow2 base.q big.q",), ("-V",), ("--help",), ("create --help",),
    ("info nbd:x",), ("check -r leaks corrupt.q",),
    ("create -f qcow2 -o encrypt.format=aes,encrypt.key-secret=nope new 1M",),
    ("create --object secret,id=s,data=p -q -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s new 1M",
     "convert --object secret,id=s,data=p -n --target-image-opts odd.raw driver=qcow2,file.filename=new,encrypt.key-secret=s",
     "compare --object secret,id=s,data=p --image-opts driver=qcow2,file.filename=new,encrypt.key-secret=s driver=raw,file.filename=odd.raw",
     "check new", "map new", "info new"),
    ("bitmap",), ("bitmap base.q b0",), ("bitmap --add base.q",),
)  # fmt: skip


def all_cases() -> list[Case]:
    """Every case once."""
    cases = (*BY_HAND, *generated(), *img_debug_cases.CASES, *img_option_cases.cases())
    return list(dict.fromkeys(tuple(" ".join(line.split()) for line in case) for case in cases))
