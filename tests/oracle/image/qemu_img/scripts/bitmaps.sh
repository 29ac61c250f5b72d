# Several bitmaps: the order they are kept, copied and complained of, and where their bits lie.
qemu-img create -q -f qcow2 a 10M
for n in z m a; do qemu-img bitmap --add -f qcow2 a $n; qemu-io -c 'write -q 1M 64k' a; done
qemu-img bitmap --disable a m
qemu-img convert --bitmaps -O qcow2 a copy
qemu-img info --output=json copy | grep '"name"'
qemu-img bitmap --remove a z
qemu-img bitmap --add -g 4k a z
qemu-img convert --bitmaps -O qcow2 a again
qemu-img info --output=json again | grep '"name"'
qemu-img measure -O qcow2 a
sha256sum a copy again
qemu-img bitmap --merge m --merge a a z
qemu-img bitmap --merge nope a z
qemu-img bitmap --merge copy -b copy -F qcow2 a z
qemu-img bitmap --clear --disable a a
qemu-img check a

echo '== after a crash'
qemu-io -c abort a 2>/dev/null
qemu-img bitmap --add a new
qemu-img info --output=json a | grep -e '"name"' -e in-use
qemu-img convert --bitmaps -O qcow2 a broken
qemu-img convert --bitmaps --skip-broken-bitmaps -O qcow2 a mended
qemu-img info --output=json mended | grep '"name"'
qemu-img bitmap --merge z a new
qemu-img bitmap --clear a z
qemu-img resize a 20M
for n in z m a; do qemu-img bitmap --remove a $n; done
qemu-img resize a 20M
qemu-img info --output=json a | grep '"name"'
qemu-img check a
