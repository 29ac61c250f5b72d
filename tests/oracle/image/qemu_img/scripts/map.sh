qemu-img create -q a 1M
qemu-io -f raw -c 'write -P 1 0 4k' -c 'write -P 2 128k 64k' a
qemu-img map a
qemu-img map -f raw a
qemu-img map --output=json -f raw a
qemu-img map --output=json -s 2k -l 130k -f raw a
qemu-img map -s 1000 -l 1 a
qemu-img map -s 2M a
qemu-img map --output=json -s 2M a
qemu-img map -s z a
qemu-img map -l z a
qemu-img map
