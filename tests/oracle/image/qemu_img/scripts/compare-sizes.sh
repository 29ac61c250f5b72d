qemu-img create -q a 4M
qemu-img create -q b 5M
qemu-img compare a b
qemu-img compare -s a b
qemu-img compare -p b a
qemu-io -f raw -c 'write -P 1 4M 4k' b
qemu-img compare a b
qemu-io -f raw -c 'write -P 0 0 1M' a
qemu-img compare -s a a
qemu-img compare a /dev/null
qemu-img compare --object foo a b
qemu-img compare --object secret,id=x a b
qemu-img compare --object secret,id=x,data=y,file=z a b
qemu-img compare --object secret,data=y a b
