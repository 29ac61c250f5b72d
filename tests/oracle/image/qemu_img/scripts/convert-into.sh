qemu-img create -q a 8M
qemu-io -f raw -c 'write -P 1 0 4k' -c 'write -P 2 1M 3k' a
qemu-img create -q b 8M
qemu-io -f raw -c 'write -P 7 0 8M' b
qemu-img convert -n -O raw --target-is-zero a b
cmp a b
stat -c %b b
qemu-img convert -n -O raw a b
cmp a b
stat -c %b b
qemu-img convert -n -O raw -S 0 a b
stat -c %b b
qemu-img create -q c 1M
qemu-img convert -n a c
qemu-img convert -f raw -n a a
qemu-img convert -n --target-image-opts a driver=raw,file.filename=b
qemu-img convert -n --target-image-opts a driver=raw,file.filename=c,size=512
qemu-img convert -t none a d
cmp a d
qemu-img convert -r 100M a d
cmp a d
qemu-img convert -o preallocation=falloc a d
stat -c %b d
qemu-img convert -o preallocation=full -S 0 a d
stat -c %b d
qemu-img convert -o size=5 a d
stat -c %s d
