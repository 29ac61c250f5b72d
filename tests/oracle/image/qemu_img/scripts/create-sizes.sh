qemu-img create x 5G 6 7
qemu-img create x -5
qemu-img create x 1 -- -5
qemu-img create -- -x 1k
ls
qemu-img create x -- 1.5k
qemu-img create x 0
qemu-img create x 1.00000001k
qemu-img info x
qemu-img create -f file x 1M
