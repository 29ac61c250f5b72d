head -c 5000 /usr/bin/qemu-img >a
qemu-img convert -f raw a b
stat -c %s b
cmp a b
qemu-img convert -f raw a a a b
stat -c %s b
md5sum b
truncate -s 1000 c
qemu-img convert -f raw c a c b
stat -c %s b
stat -c %b b
md5sum b
qemu-img dd if=a of=d
stat -c %s d
qemu-img dd bs=1000 count=3 skip=1 if=a of=d -f raw
stat -c %s d
md5sum d
qemu-img dd bs=1k skip=5 if=a of=d -f raw
qemu-img dd bs=1k skip=6 if=a of=d -f raw
stat -c %s d
qemu-img dd bs=0 if=a of=d
qemu-img dd foo if=a of=b
qemu-img dd foo=1 if=a of=b
qemu-img dd if=a
qemu-img dd -O nope if=a of=x
qemu-img dd if=nofile of=b
qemu-img dd if=a of=no/b
qemu-img dd bs=10G if=a of=b
qemu-img dd -U count=x if=a of=b
qemu-img dd count=9999999999999 if=a of=b
stat -c %s b
