"""Every option of every sub-command, as the help of qemu-img 7.2 lists them, each in one command line."""

# Command lines are as long as they are.
# ruff: noqa: E501
from collections.abc import Iterator

OPTIONS = {
    "amend": "--object --image-opts -p -q -f -t --force -o",
    "bench": "-c -d -f --flush-interval -i -n --no-drain -o --pattern -q -s -S -t -w -U",
    "bitmap": "--merge --add --remove --clear --enable --disable -b -F -g --object --image-opts -f",
    "check": "--object --image-opts -q -f --output -r -T -U",
    "commit": "--object --image-opts -q -f -t -b -r -d -p",
    "compare": "--object --image-opts -f -F -T -p -q -s -U",
    "convert": (
        "--object --image-opts --target-image-opts --target-is-zero --bitmaps -U -C -c -p -q -n -f -t -T -O -B -F -o "
        "-l -S -r -m -W --salvage"
    ),
    "create": "--object -q -f -b -F -u -o",
    "dd": "--image-opts -U -f -O",
    "info": "--object --image-opts -f --output --backing-chain -U",
    "map": "--object --image-opts -f --start-offset --max-length --output -U",
    "measure": "--output -O -o --size --object --image-opts -f -l",
    "snapshot": "--object --image-opts -U -q -l -a -c -d",
    "rebase": "--object --image-opts -U -q -f -t -T -p -u -b -F",
    "resize": "--object --image-opts -f --preallocation -q --shrink",
}
"""Sub-command -> its options; tests/test_img_differential.py compares them with the help itself."""

_LINES = {
    "amend": "-o lazy_refcounts=on base.q",
    "bench": "-c 5 base.q",
    "bitmap": "base.q b0",
    "check": "base.q",
    "commit": "over.q",
    "compare": "base.q v2.q",
    "convert": "base.q new",
    "create": "new 1M",
    "dd": "if=base.q of=new",
    "info": "base.q",
    "map": "base.q",
    "measure": "base.q",
    "snapshot": "snap.q",
    "rebase": "-b base.q -F qcow2 over.q",
    "resize": "base.q 8M",
}
"""What follows the option."""

_VALUES = {
    "--object": "secret,id=s,data=x", "--output": "json", "--flush-interval": "1", "--pattern": "7", "--merge": "b1",
    "--start-offset": "1M", "--max-length": "1M", "--size": "1M", "--preallocation": "full",
    "-f": "qcow2", "-F": "qcow2", "-t": "none", "-T": "none", "-g": "64k", "-r": "1M", "-i": "threads", "-S": "4k",
    "-m": "4", "-O": "qcow2", "-l": "snapshot.id=1",
}  # fmt: skip
"""The value of an option that has one, wherever it has the same meaning."""

_OTHERS = {
    ("amend", "-o"): "compat=1.1", ("bench", "-c"): "3", ("bench", "-d"): "2", ("bench", "-o"): "64k",
    ("bench", "-s"): "8k", ("bench", "-S"): "16k", ("bitmap", "-b"): "v2.q", ("check", "-r"): "leaks",
    ("commit", "-b"): "base.q", ("convert", "-B"): "base.q", ("convert", "-o"): "cluster_size=4k",
    ("create", "-b"): "base.q", ("create", "-o"): "size=1M", ("measure", "-o"): "cluster_size=4k",
    ("snapshot", "-l"): None, ("snapshot", "-a"): "first", ("snapshot", "-c"): "third", ("snapshot", "-d"): "first",
    ("rebase", "-b"): "v2.q",
}  # fmt: skip
"""Where it has another meaning, or none anywhere else."""

_LONG = """
    object image-opts target-image-opts force-share output format repair backing-chain flush-interval no-drain pattern add
    remove clear enable disable merge granularity source-file source-format target-is-zero bitmaps skip-broken-bitmaps
    salvage start-offset max-length size force preallocation shrink quiet progress cache options
"""
"""Long options, of which each sub-command knows some."""

_TREES = r"""
map --image-opts driver=qcow2,file.filename=over.q,backing.driver=qcow2,backing.file.filename=v2.q
map --image-opts driver=qcow2,file.filename=over.q,backing.file.filename=v2.q
map --image-opts driver=qcow2,file.filename=over.q,backing.driver=raw,backing.file.filename=disk.raw
convert -O raw --image-opts driver=qcow2,file.filename=over.q,backing.driver=raw,backing.file.filename=disk.raw new
convert -O raw json:{"driver":"qcow2","file":{"driver":"file","filename":"over.q"},"backing":null} new
convert -O raw json:{"driver":"qcow2","file":{"driver":"file","filename":"over.q"},"backing":{"driver":"qcow2","file":{"driver":"file","filename":"v2.q"}}} new
convert -O raw json:{"driver":"qcow2","file":{"driver":"file","filename":"over.q"},"backing":{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"top.q"}}} new
convert -O raw json:{"driver":"qcow2","file":{"driver":"file","filename":"over.q"},"backing":{"driver":"null-co","size":4194304}} new
convert -O raw --image-opts driver=qcow2,file.filename=over.q,backing.driver=qcow2,backing.file.filename=gone new
convert -O raw --image-opts driver=qcow2,file.filename=over.q,backing.driver=foo,backing.file.filename=v2.q new
convert -O raw --image-opts driver=qcow2,file.filename=over.q,backing.foo=1 new
convert -O raw --image-opts driver=qcow2,file.filename=over.q,backing.driver=qcow2 new
convert -O raw --image-opts driver=qcow2,file.filename=over.q,backing.lazy-refcounts=on,backing.driver=qcow2,backing.file.filename=base.q new
compare --image-opts driver=qcow2,file.filename=over.q,backing.file.filename=base.q driver=qcow2,file.filename=over.q
convert -O raw --image-opts driver=raw,file.filename=disk.raw,offset=4096,size=8192 new
convert -O raw --image-opts driver=raw,offset=4096,file.filename=disk.raw new
info --image-opts driver=raw,offset=4096,size=8192,file.filename=disk.raw
info --image-opts driver=raw,offset=4097,size=8191,file.filename=disk.raw
info --image-opts driver=raw,offset=40960000,file.filename=disk.raw
info --image-opts driver=raw,size=4T,file.filename=disk.raw
convert -t writeback -O qcow2 base.q new
convert -t writethrough -O qcow2 base.q new
convert -t directsync -O qcow2 base.q new
convert -t none -T none -O qcow2 base.q new
convert -t unsafe -T directsync -O qcow2 base.q new
convert -O qcow2 --object secret,id=s,format=base64,data=cGFzcw== base.q new
info --object secret,id=s,format=base64,data=*** base.q
info --object secret,id=s,file=text base.q
info --object secret,id=s,file=gone base.q
info --object secret,id=s,data=x,file=text base.q
info --object secret,id=s,format=foo,data=x base.q
info --object secret,id=s,data=x --object secret,id=s,data=y base.q
info --object secret,id=s,data=x,keyid=t base.q
info --object {"qom-type":"secret","id":"s","data":"x"} base.q
info --object secret,id=s,data=x,foo=1 base.q
info --object secret,id=s,data=x,iv=AAAA base.q
info --object secret,id=s base.q
info --object secret,id=,data=x base.q
info --object secret,id=9x,data=x base.q
info --object secret base.q
info --object foo base.q
info --object foo,id=x base.q
info --object % base.q
info --object {"qom-type":"secret"} base.q
info --object {"qom-type":"secret","id":"s"} base.q
info --object {"qom-type":"secret","id":"s","data":5} base.q
info --object secret,id=s,data=/w==,format=base64 base.q
info --object secret,id=s,data=a*a,format=base64 base.q
info --object secret,data=x base.q
info --object id=s,data=x base.q
info --object secret,id=s,file=. base.q
info --object secret,id=s,data=eA==,format=base64 base.q
info --object qom-type=secret,id=s,data=x base.q
info --object secret,id=s,data=,format=raw base.q
info --object secret,id=s,data=x,format=foo base.q
info --object secret,id=s,data=x,format= base.q
info --object secret,id=s,data=x --object secret,id=t,data=y base.q
info --image-opts driver=qcow2,file.filename=base.q,file.foo=1
info --image-opts driver=qcow2,file.filename=base.q,foo=1
info --image-opts driver=qcow2,file.filename=base.q,file.locking=off
info --image-opts driver=qcow2,file.filename=base.q,file.aio=threads
info --image-opts driver=qcow2,file.filename=base.q,file.aio=foo
info --image-opts driver=qcow2,file.filename=base.q,read-only=on
info --image-opts driver=qcow2,file.filename=base.q,read-only=foo
info --image-opts driver=qcow2,file.filename=base.q,cache.direct=on
info --image-opts driver=qcow2,file.filename=base.q,cache.foo=on
info --image-opts driver=qcow2,file.filename=base.q,discard=unmap
info --image-opts driver=qcow2,file.filename=base.q,discard=foo
info --image-opts driver=qcow2,file.filename=base.q,detect-zeroes=on
info --image-opts driver=qcow2,file.filename=base.q,detect-zeroes=foo
info --image-opts driver=qcow2,file.filename=base.q,node-name=x
info --image-opts driver=qcow2,file.filename=base.q,force-share=on
info --image-opts driver=qcow2,file.filename=base.q,force-share=on,read-only=on
info --image-opts driver=qcow2,file.filename=base.q,auto-read-only=on
info --image-opts driver=qcow2,file.driver=file,file.filename=base.q
info --image-opts driver=qcow2,file.driver=raw,file.file.filename=base.q
info --image-opts driver=raw,file.driver=qcow2,file.file.filename=base.q
info --image-opts driver=file,filename=base.q
info --image-opts driver=null-co,size=1M
info --image-opts driver=null-co,size=1M,foo=1
info --image-opts driver=null-co,size=x
info --image-opts driver=null-aio,size=64k,read-zeroes=on
info --image-opts driver=raw,foo=1,file.filename=disk.raw
resize --image-opts driver=qcow2,file.filename=base.q,read-only=on +1M
resize --image-opts driver=raw,file.filename=disk.raw,offset=512 +1M
resize --image-opts driver=raw,file.filename=disk.raw,size=1M +1M
convert -n --target-image-opts base.q driver=qcow2,file.filename=empty.q,lazy-refcounts=on
convert -n --target-image-opts base.q driver=qcow2,file.filename=big.q,discard=unmap,detect-zeroes=unmap
convert -n --target-image-opts base.q driver=raw,file.filename=disk.raw,offset=0,size=2M
convert -n --target-image-opts odd.raw driver=raw,file.filename=disk.raw,offset=1M
convert -n --target-image-opts odd.raw driver=raw,file.driver=null-co,file.size=1M
convert -n --target-image-opts disk.raw driver=raw,file.filename=big.q,read-only=on
amend --image-opts -o lazy_refcounts=on driver=qcow2,file.filename=base.q ; info base.q
snapshot --image-opts -c new driver=qcow2,file.filename=base.q ; snapshot -l base.q
commit --image-opts driver=qcow2,file.filename=over.q ; map over.q
rebase --image-opts -u -b v2.q -F qcow2 driver=qcow2,file.filename=over.q ; info over.q
check --image-opts driver=qcow2,file.filename=leak.q,file.locking=off
map --image-opts file.filename=base.q
map --image-opts driver=qcow2,file=base.q
map json:{"file":"base.q"}
map json:{"driver":"qcow2","file":"base.q"}
map json:{"driver":"qcow2","file":{"driver":"file","filename":"base.q","foo":1}}
map json:{"driver":"qcow2","file":{"driver":"file","filename":5}}
map json:{"driver":"qcow2","file":{"driver":"file"}}
map json:{"driver":5}
map json:{"driver":"qcow2","lazy-refcounts":true,"file":{"driver":"file","filename":"base.q"}}
map json:{"driver":"qcow2","lazy-refcounts":"maybe","file":{"driver":"file","filename":"base.q"}}
map json:{"driver":"qcow2","l2-cache-size":65536,"file":{"driver":"file","filename":"base.q"}}
map json:{"driver":"qcow2","l2-cache-size":-1,"file":{"driver":"file","filename":"base.q"}}
bench --image-opts -c 3 driver=qcow2,file.filename=base.q
measure --image-opts -O qcow2 driver=qcow2,file.filename=base.q
dd --image-opts if=driver=qcow2,file.filename=base.q of=new
info file:base.q
info file:gone
info host_device:base.q
info fat:base.q
info json:
info json:"x"
info json:5
create -f qcow2 -o preallocation=falloc new 1M ; check new
create -f qcow2 -o preallocation=metadata,lazy_refcounts=on new 1M ; check new
create -f qcow2 -o backing_file=base.q,backing_fmt=qcow2 new ; info new
create -f qcow2 -o nocow=on new 1M
create -f raw -o nocow=on new 1M
create -f raw -o extent_size_hint=1M new 1M
create -f qcow2 -o extent_size_hint=4k new 1M
create -f qcow2 -o compression_type=zlib new 1M ; info new
create -f qcow2 -o compat=v3 new 1M
create -f qcow2 -o compat=v2 new 1M ; info new
convert -O qcow2 -o compression_type=zlib -c base.q new ; check new
convert -O qcow2 -o preallocation=falloc base.q new ; check new
convert -O qcow2 -o backing_file=base.q,backing_fmt=qcow2 over.q new ; info new ; map new
convert -p -O raw base.q new
convert -q -c -O qcow2 base.q new ; check new
convert -W -m 16 -O raw base.q new
convert -r 100M -O raw base.q new
convert -S 1M -O raw base.q new
convert -O raw -l 1 snap.q new
convert -s first -O raw snap.q new
convert -O qcow2 -l snapshot.name=nope snap.q new
convert -l snapshot.id=9 -O qcow2 snap.q new
compare -p base.q v2.q
check -p base.q
map -p base.q
bench -c 3 -t none base.q
bench -c 3 -t directsync -w base.q
bench -c 3 -t unsafe -w base.q
commit -r 10M over.q ; map over.q
commit -p -t directsync over.q
commit -d top.q ; info --backing-chain top.q
rebase -p -b v2.q -F qcow2 over.q
rebase -u -b % over.q ; info over.q
rebase -T directsync -t none -b v2.q -F qcow2 over.q ; check over.q
resize --preallocation=off base.q 8M ; check base.q
resize -f raw disk.raw 1M
resize --shrink base.q 1M ; check base.q ; info base.q
resize base.q +0
resize base.q 4M
snapshot -l --output=json snap.q
snapshot -q -c new base.q ; snapshot -l base.q
snapshot -c % base.q
amend -p -f qcow2 -o compat=0.10 base.q ; info base.q
amend -q -o lazy_refcounts=on,refcount_bits=8 base.q
amend --force -o lazy_refcounts=on base.q
amend -o backing_file=base.q,backing_fmt=qcow2 top.q ; info top.q
amend -t none -o compat=1.1 v2.q ; check v2.q
measure --output=json -O raw base.q
measure -O qcow2 -o preallocation=metadata --size 10G
measure -O qcow2 -o cluster_size=2M,refcount_bits=64 --size 10G
measure -O qcow2 -l second snap.q
measure -O raw --size 1
dd if=base.q of=new bs=64k count=0
dd -f raw -O raw if=disk.raw of=new bs=4096 count=10 skip=64
dd if=base.q of=/nodir/new
bitmap --add -g 4k base.q b0 ; info base.q ; bitmap --remove base.q b0
bitmap --add base.q b0 --add base.q b1
bitmap --add --disable base.q b0 ; bitmap --enable base.q b0 ; bitmap --clear base.q b0 ; info --output=json base.q
bitmap --merge b0 base.q b1
check --output=json -r all leak.q
check -r leaks -q leak.q
check -U -r leaks leak.q
info --backing-chain top.q
info --backing-chain -U --output=json top.q
map --start-offset=1M --max-length=1M --output=json top.q
map --start-offset=5M base.q
map --start-offset=-1 base.q
"""
"""Values that are trees of their own, cache modes, secrets; options together; what other sub-commands know."""


def cases() -> Iterator[tuple[str, ...]]:
    """A case for each."""
    for command, options in OPTIONS.items():
        for option in options.split():
            value = _OTHERS.get((command, option), _VALUES.get(option))
            line = _LINES[command]
            if option == "--image-opts":
                line = " ".join(
                    word.replace("base.q", "driver=qcow2,file.filename=base.q") if word[0] != "-" else word
                    for word in line.split()
                )
            yield (f"{command} {option} {value or ''} {line}", "info --output=json base.q")
    for command in OPTIONS:
        if command != "measure":  # which prints its help, whatever is wrong
            yield tuple(f"{command} --{name}" for name in _LONG.split())
    yield from (tuple(line.split(" ; ")) for line in _TREES.strip().splitlines())
