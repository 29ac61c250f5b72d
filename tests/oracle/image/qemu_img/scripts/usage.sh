qemu-img info nofile
qemu-img info -xy f
qemu-img inf
qemu-img create
qemu-img create -o ,a x
qemu-img create x 1x
qemu-img create x 100E
qemu-img
