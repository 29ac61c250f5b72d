qemu-img create -q a 4M
qemu-img create -q b 4M
qemu-img compare a b
qemu-img compare -s a b
qemu-io -f raw -c 'write -P 1 1M 4k' a
qemu-img compare a b
qemu-img compare -q a b
qemu-img compare b a
qemu-io -f raw -c 'write -P 1 1M 4k' b
qemu-io -f raw -c 'write -P 3 1051648 1k' b
qemu-img compare a b
qemu-img compare -p a b
qemu-img compare a nofile
qemu-img compare -s -f raw -F raw a b
qemu-img compare -T foo a b
qemu-img compare a
qemu-img compare -F nope a b
