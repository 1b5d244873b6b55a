"""Command lines of qemu-img over blkdebug and blkverify: errors at an event, a copy that differs, broken rules."""

# Command lines are as long as they are.
# ruff: noqa: E501

_RULES = {
    "read": ("read_aio", 5),
    "write": ("write_aio", 28),
    "load": ("l2_load", 5),
    "flush": ("flush_to_disk", 5),
    "update": ("l2_update", 28),
    "alloc": ("cluster_alloc", 28),
    "table": ("reftable_load", 5),
    "block": ("refblock_load", 5),
    "always": ("none", 5),
    "event": ("nope", 5),
}

CONFIGS = {
    name: f'[inject-error]\nevent = "{event}"\nerrno = "{number}"\n' for name, (event, number) in _RULES.items()
} | {"group": "[foo]\n", "parse": "x\n"}
"""Name of a file, without .conf, and what is in it; event, group and parse are wrong."""

_LINES = r"""
info blkdebug::base.q
info --output=json blkdebug::base.q
info blkdebug:read.conf:base.q
check blkdebug::base.q
check --output=json blkdebug::leak.q
check blkdebug:block.conf:base.q
check blkdebug:load.conf:base.q
check blkdebug:always.conf:base.q
map blkdebug::base.q
map --output=json blkdebug::over.q
info blkdebug:base.q
info blkdebug:gone:base.q
info blkdebug::gone
info blkdebug:group.conf:base.q
info blkdebug:parse.conf:base.q
info blkdebug:event.conf:base.q
info blkdebug:always.conf:base.q
info blkdebug::disk.raw
info blkverify:disk.raw:base.q
info blkverify:gone:base.q
info blkverify:disk.raw:gone
info blkverify:x
info blkverify:disk.raw:disk.raw
info --output=json blkverify:disk.raw:disk.raw
map --output=json blkverify:disk.raw:disk.raw
compare blkverify:disk.raw:disk.raw disk.raw
convert -O raw blkverify:disk.raw:disk.raw new
convert -O raw base.q c.raw ; convert -O qcow2 blkverify:c.raw:base.q new
create -f qcow2 blkdebug::new 1M
create -f raw blkdebug::new2 1M
create -f raw blkverify:a:new2 1M
convert -O raw blkdebug:read.conf:base.q out
convert -O raw blkdebug:load.conf:base.q out
convert -O raw blkdebug::base.q out
convert -O qcow2 base.q blkdebug:write.conf:out2
convert -n -O qcow2 base.q blkdebug:write.conf:empty.q
convert -n -O qcow2 base.q blkdebug:alloc.conf:empty.q
convert -n -O qcow2 base.q blkdebug::big.q
convert -n -O qcow2 base.q blkdebug:update.conf:empty.q
convert --salvage -O raw blkdebug:read.conf:base.q out
compare blkdebug:read.conf:base.q base.q
compare base.q blkdebug:read.conf:base.q
compare blkdebug:load.conf:base.q base.q
compare blkverify:odd.raw:base.q base.q
info --backing-chain blkdebug::over.q
info --backing-chain --output=json blkdebug::over.q
snapshot -l blkdebug::snap.q
snapshot -c x blkdebug:alloc.conf:snap.q
snapshot -a first blkdebug::snap.q
resize blkdebug::base.q +1M
resize blkdebug:alloc.conf:base.q +1M
check -r all blkdebug:write.conf:base.q
check -r leaks blkdebug::leak.q
check -r leaks blkdebug:flush.conf:leak.q
commit blkdebug::over.q
rebase -u -b base.q -F qcow2 blkdebug::over.q
amend -o lazy_refcounts=on blkdebug::base.q
bench -c 5 blkdebug::base.q
bench -c 5 blkdebug:read.conf:base.q
bench -c 5 -w blkdebug:write.conf:base.q
dd if=blkdebug::base.q of=new
dd if=blkdebug:read.conf:base.q of=new
dd if=base.q of=blkdebug::new
measure -O qcow2 blkdebug::base.q
bitmap --add blkdebug::base.q b0
info --image-opts driver=blkdebug,image.filename=base.q
info --image-opts driver=blkdebug
info --image-opts driver=blkverify
info --image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=base.q
info --image-opts driver=qcow2,file.driver=blkdebug
info --image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=base.q,file.foo=1
info --image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=gone
compare --image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=base.q,file.inject-error.0.event=l2_load,file.inject-error.0.errno=5 driver=qcow2,file.filename=base.q
check --image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=base.q,file.inject-error.0.event=l2_load,file.inject-error.0.errno=5
convert -O raw json:{"driver":"qcow2","file":{"driver":"blkdebug","image":{"driver":"file","filename":"base.q"},"inject-error":[{"event":"read_aio","errno":5,"once":true}]}} new
info --image-opts driver=blkverify,raw.driver=file,raw.filename=disk.raw,test.driver=file,test.filename=disk.raw
create -u -f qcow2 -b blkdebug::base.q -F qcow2 new 1M ; info new
create -f qcow2 -b blkdebug::base.q -F qcow2 new ; info new ; map new ; check new
convert -O qcow2 -c base.q blkdebug::new
check blkdebug::corrupt.q
check -f raw blkdebug::base.q
info -f qcow2 blkdebug::disk.raw
info -U blkdebug::base.q
"""

CASES = [tuple(" ".join(part.split()) for part in line.split(" ; ")) for line in _LINES.strip().splitlines()]
