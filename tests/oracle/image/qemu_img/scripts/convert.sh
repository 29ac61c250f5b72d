qemu-img create -q a 8M
qemu-io -f raw -c 'write -P 1 0 4k' -c 'write -P 2 1M 3k' -c 'write -P 3 3M 1M' -c 'write -z 5M 64k' -c 'write -P 5 7000k 513' a
for s in 0 512 1k 4k 64k 1M; do qemu-img convert -f raw -O raw -S $s a b; stat -c %b b; cmp a b; qemu-img map --output=json -f raw b; done
qemu-img convert -p a b
qemu-img convert -f raw a c -n
qemu-img convert -n a b
qemu-img convert a a b
stat -c %s b
stat -c %b b
qemu-img convert -C a b
cmp a b
qemu-img convert -W -m 4 a b
cmp a b
