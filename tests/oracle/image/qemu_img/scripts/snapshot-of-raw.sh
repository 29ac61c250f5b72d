qemu-img create -q a 1M
qemu-img snapshot -l a
qemu-img snapshot a
qemu-img snapshot -c x a
qemu-img snapshot -d x a
qemu-img snapshot -lc x a
qemu-img snapshot -l
qemu-img snapshot -l a b
qemu-img snapshot -l nofile
qemu-img snapshot -U -l a
qemu-img snapshot -U -c x a
